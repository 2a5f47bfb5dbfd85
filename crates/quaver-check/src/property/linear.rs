//! Linear terms, and what a comparison of two of them says.

use super::Row;
use crate::rational::Rational;

/// Longest number, in bits, that a product may make.
const MAX_BITS: u64 = 1 << 14;

/// An element of a network's input or output, flattened row-major; outputs of all networks in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Variable {
    Input(usize),
    /// Of the second network; equal to the first network's.
    Second(usize),
    Output(usize),
}

/// `sum coefficient * variable + constant`; a variable may occur several times.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    terms: Vec<(Variable, Rational)>,
    constant: Rational,
}

impl Linear {
    pub(super) fn constant(constant: Rational) -> Linear {
        Linear { terms: Vec::new(), constant }
    }

    pub(super) fn variable(variable: Variable) -> Linear {
        Linear { terms: vec![(variable, 1.into())], constant: Rational::zero() }
    }

    pub(super) fn plus(mut self, mut other: Linear) -> Linear {
        self.terms.append(&mut other.terms);
        self.constant = &self.constant + &other.constant;
        self
    }

    pub(super) fn negated(mut self) -> Linear {
        for (_, coefficient) in &mut self.terms {
            *coefficient = -&*coefficient;
        }
        self.constant = -&self.constant;
        self
    }

    pub(super) fn minus(self, other: Linear) -> Linear {
        self.plus(other.negated())
    }

    /// One of the factors must be a number.
    pub(super) fn times(self, other: Linear) -> Result<Linear, String> {
        let (factor, mut product) = match (self.terms.is_empty(), other.terms.is_empty()) {
            (true, _) => (self.constant, other),
            (_, true) => (other.constant, self),
            _ => return Err("a product of variables is not linear".into()),
        };
        let numbers = product.terms.iter_mut().map(|(_, c)| c).chain([&mut product.constant]);
        for number in numbers {
            *number = &*number * &factor;
            if number.bits() > MAX_BITS {
                return Err(format!("a product has a number of more than {MAX_BITS} bits"));
            }
        }
        Ok(product)
    }

    /// With the first network's input elements in place of the second's.
    fn of_one_input(mut self) -> Linear {
        for (variable, _) in &mut self.terms {
            if let Variable::Second(i) = *variable {
                *variable = Variable::Input(i);
            }
        }
        self.collected()
    }

    /// Each variable once, in order, with a coefficient that is not zero.
    fn collected(mut self) -> Linear {
        self.terms.sort_by_key(|(variable, _)| *variable);
        self.terms.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 = &kept.1 + &next.1;
            }
            same
        });
        self.terms.retain(|(_, coefficient)| !coefficient.is_zero());
        self
    }
}

/// What one comparison says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Literal {
    /// The input is not below.
    Lower(usize, Rational),
    /// The input is not above.
    Upper(usize, Rational),
    /// This element of the first network's input is not above the second's.
    NotAbove(usize),
    /// This element of the first network's input is not below the second's.
    NotBelow(usize),
    /// About outputs; without terms it is true or false by itself.
    Output(Row),
}

impl Literal {
    /// `linear <= 0`.
    pub(super) fn not_positive(linear: Linear) -> Result<Literal, String> {
        let linear = linear.collected();
        if let ([(Variable::Input(i), a), (Variable::Second(k), b)], true) =
            (&linear.terms[..], linear.constant.is_zero())
            && i == k
            && (a + b).is_zero()
        {
            return Ok(if a.signum() > 0 { Literal::NotAbove(*i) } else { Literal::NotBelow(*i) });
        }
        let Linear { terms, constant } = linear.of_one_input();
        let bound = -&constant;
        if let [(Variable::Input(input), coefficient)] = terms.as_slice() {
            let Some(inverse) = coefficient.recip() else { return Err("a coefficient is zero".into()) };
            let value = &bound * &inverse;
            return Ok(match coefficient.signum() > 0 {
                true => Literal::Upper(*input, value),
                false => Literal::Lower(*input, value),
            });
        }
        let of_inputs = terms.iter().filter(|(variable, _)| !matches!(variable, Variable::Output(_))).count();
        if of_inputs != 0 {
            return Err(match of_inputs == terms.len() {
                true => "constraint on several inputs".into(),
                false => "constraint on inputs and outputs together".into(),
            });
        }
        let number = |(Variable::Input(i) | Variable::Second(i) | Variable::Output(i), c)| (i, c);
        let terms = terms.into_iter().map(number).collect();
        Ok(Literal::Output(Row { terms, bound, strict: false }))
    }

    /// `linear < 0`; on inputs the same as `<=`, which allows more. Equal inputs are not below each other.
    pub(super) fn negative(linear: Linear) -> Result<Literal, String> {
        Ok(match Literal::not_positive(linear)? {
            Literal::Output(row) => Literal::Output(Row { strict: true, ..row }),
            Literal::NotAbove(_) | Literal::NotBelow(_) => {
                Literal::Output(Row { terms: vec![], bound: Rational::zero(), strict: true })
            }
            bound => bound,
        })
    }
}
