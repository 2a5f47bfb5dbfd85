//! Formulas: and, or, comparisons and arithmetic, read without recursion.

use super::linear::{Linear, Literal};
use super::text::Token;
use super::{MAX_CASES, MAX_SIZE};

/// Conjunctions of numbered literals, one of which holds; in the order of the text, the last choice changing first.
pub(super) type Choice = Vec<Vec<u32>>;

/// The head of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    And,
    Or,
    AtMost,
    AtLeast,
    Less,
    Greater,
    Equal,
    Unequal,
    Plus,
    Minus,
    Times,
}

impl Operator {
    pub(super) fn read(word: &str) -> Result<Operator, String> {
        Ok(match word {
            "and" => Operator::And,
            "or" => Operator::Or,
            "<=" => Operator::AtMost,
            ">=" => Operator::AtLeast,
            "<" => Operator::Less,
            ">" => Operator::Greater,
            "==" | "=" => Operator::Equal,
            "!=" => Operator::Unequal,
            "+" => Operator::Plus,
            "-" => Operator::Minus,
            "*" => Operator::Times,
            _ => return Err(format!("the operator {} is not understood", Token::Word(word))),
        })
    }

    /// Whether version 1.0 has none of this kind.
    pub(super) fn is_new(self) -> bool {
        matches!(self, Operator::Less | Operator::Greater | Operator::Unequal)
    }

    pub(super) fn is_arithmetic(self) -> bool {
        matches!(self, Operator::Plus | Operator::Minus | Operator::Times)
    }
}

/// What an expression stands for.
pub(super) enum Value {
    Term(Linear),
    Formula(Choice),
}

/// An open list and what it holds so far.
pub(super) struct Frame {
    pub(super) operator: Operator,
    pub(super) line: usize,
    pub(super) arguments: Vec<Value>,
}

impl Frame {
    /// The value of the list, which is complete. New literals go to the end of `literals`.
    pub(super) fn close(self, literals: &mut Vec<Literal>) -> Result<Value, String> {
        let line = self.line;
        self.value(literals).map_err(|error| format!("line {line}: {error}"))
    }

    fn value(self, literals: &mut Vec<Literal>) -> Result<Value, String> {
        Ok(match self.operator {
            Operator::And => Value::Formula(fold(formulas(self.arguments)?, both)?),
            Operator::Or => Value::Formula(fold(formulas(self.arguments)?, either)?),
            Operator::Plus => Value::Term(fold(terms(self.arguments)?, |a, b| Ok(a.plus(b)))?),
            Operator::Times => Value::Term(fold(terms(self.arguments)?, Linear::times)?),
            Operator::Minus if self.arguments.len() == 1 => {
                Value::Term(fold(terms(self.arguments)?, |a, _| Ok(a))?.negated())
            }
            Operator::Minus => Value::Term(fold(terms(self.arguments)?, |a, b| Ok(a.minus(b)))?),
            comparison => {
                let Ok([left, right]) = <[Linear; 2]>::try_from(terms(self.arguments)?) else {
                    return Err("a comparison needs two terms".into());
                };
                let choice = compare(comparison, left.minus(right))?;
                Value::Formula(choice.into_iter().map(|case| numbered(case, literals)).collect())
            }
        })
    }
}

/// The cases of `difference OPERATOR 0`.
fn compare(operator: Operator, difference: Linear) -> Result<Vec<Vec<Literal>>, String> {
    Ok(match operator {
        Operator::AtMost => vec![vec![Literal::not_positive(difference)?]],
        Operator::AtLeast => vec![vec![Literal::not_positive(difference.negated())?]],
        Operator::Less => vec![vec![Literal::negative(difference)?]],
        Operator::Greater => vec![vec![Literal::negative(difference.negated())?]],
        Operator::Equal => {
            vec![vec![Literal::not_positive(difference.clone())?, Literal::not_positive(difference.negated())?]]
        }
        Operator::Unequal => {
            vec![vec![Literal::negative(difference.clone())?], vec![Literal::negative(difference.negated())?]]
        }
        Operator::And | Operator::Or | Operator::Plus | Operator::Minus | Operator::Times => {
            return Err("no comparison".into());
        }
    })
}

fn numbered(case: Vec<Literal>, literals: &mut Vec<Literal>) -> Vec<u32> {
    let first = literals.len();
    literals.extend(case);
    // A text has less than 2^31 bytes and a literal more than one.
    (first..literals.len()).map(|number| number as u32).collect()
}

fn formulas(values: Vec<Value>) -> Result<Vec<Choice>, String> {
    let formula = |value| match value {
        Value::Formula(choice) => Ok(choice),
        Value::Term(_) => Err("a number or variable stands where a comparison should be".to_string()),
    };
    values.into_iter().map(formula).collect()
}

fn terms(values: Vec<Value>) -> Result<Vec<Linear>, String> {
    let term = |value| match value {
        Value::Term(term) => Ok(term),
        Value::Formula(_) => Err("a comparison stands where a number or variable should be".to_string()),
    };
    values.into_iter().map(term).collect()
}

fn fold<T>(values: Vec<T>, combine: impl Fn(T, T) -> Result<T, String>) -> Result<T, String> {
    let mut values = values.into_iter();
    let first = values.next().ok_or("an operator without arguments")?;
    values.try_fold(first, combine)
}

/// No choice is empty, so the result of a combination is never smaller than its parts: what is refused here would have
/// been refused in the end.
fn either(mut a: Choice, mut b: Choice) -> Result<Choice, String> {
    a.append(&mut b);
    if a.len() > MAX_CASES { Err(too_many_cases()) } else { Ok(a) }
}

fn both(mut a: Choice, b: Choice) -> Result<Choice, String> {
    let size = |choice: &Choice| choice.iter().map(Vec::len).sum::<usize>();
    if a.len().saturating_mul(b.len()) > MAX_CASES {
        return Err(too_many_cases());
    }
    if a.len() * size(&b) + b.len() * size(&a) > MAX_SIZE {
        return Err(too_large());
    }
    if let [only] = b.as_slice() {
        a.iter_mut().for_each(|case| case.extend(only));
        return Ok(a);
    }
    Ok(a.iter().flat_map(|left| b.iter().map(move |right| [left.as_slice(), right].concat())).collect())
}

pub(super) fn too_many_cases() -> String {
    format!("the disjunctions multiply to more than {MAX_CASES} cases")
}

pub(super) fn too_large() -> String {
    format!("the cases have more than {MAX_SIZE} bounds and constraints together")
}
