//! Comparisons of linear expressions, in normal form.

use super::decimal::Decimal;
use super::error::{Fault, shown};
use super::scope::Scope;
use super::tree::{Kind, Node};
use super::{Constraint, Relation, Variable};

/// A comparison in normal form, or what it is where it names no element.
pub(super) enum Comparison {
    Constraint(Constraint),
    Always(bool),
}

/// The comparisons of a chain: a < b <= c are two.
pub(super) struct Chain {
    pub links: Vec<Comparison>,
    /// Whether one of the links suffices: `!=` gives two that exclude each other.
    pub any: bool,
}

/// Whether a word compares.
pub(super) fn is_comparison(word: &str) -> bool {
    matches!(word, "<" | "<=" | ">" | ">=" | "=" | "==" | "!=")
}

/// `(<= a b c)`.
pub(super) fn prefix(scope: &Scope, word: &str, items: &[Node], at: usize) -> Result<Chain, Fault> {
    let sides = operands(scope, items)?;
    let words = vec![word; sides.len().saturating_sub(1)];
    chain(scope, &sides, &words, at)
}

/// `(a <= b)`, `(a <= b <= c)`.
pub(super) fn infix(scope: &Scope, items: &[Node], at: usize) -> Result<Chain, Fault> {
    let compares = |n: &Node| n.word().is_some_and(is_comparison);
    let words: Vec<&str> = items.iter().filter(|n| compares(n)).filter_map(Node::word).collect();
    if words.is_empty() {
        let first = items.first().map_or("`()`".into(), Node::shown);
        let cure = "write (and ...), (or ...), or a comparison such as (<= X[0] 0.5)";
        return Err(Fault::new(at, format!("{first} is neither a connective nor a comparison"), cure));
    }
    let mut sides = vec![];
    for side in items.split(compares) {
        let mut side = operands(scope, side)?;
        match (side.pop(), side.is_empty()) {
            (Some(only), true) => sides.push(only),
            _ => {
                let cure = "write each side as one expression, as in (Y[0] < (+ Y[1] 0.5))";
                return Err(Fault::new(at, "a side of this comparison is not one expression", cure));
            }
        }
    }
    chain(scope, &sides, &words, at)
}

fn chain(scope: &Scope, sides: &[Operand], words: &[&str], at: usize) -> Result<Chain, Fault> {
    if sides.len() < 2 {
        return Err(Fault::new(at, "a comparison needs two sides", "write for example (<= X[0] 0.5)"));
    }
    let any = words.contains(&"!=");
    if any && sides.len() > 2 {
        return Err(Fault::new(at, "`!=` compares two expressions", "write one comparison for each pair"));
    }
    let mut links = vec![];
    for (pair, word) in sides.windows(2).zip(words) {
        let link =
            |left: &Operand, relation, right: &Operand| Sum::difference(scope, left, right, at)?.compared(relation);
        let (a, b) = (&pair[0], &pair[1]);
        match *word {
            "<=" => links.push(link(a, Relation::LessEqual, b)?),
            "<" => links.push(link(a, Relation::Less, b)?),
            ">=" => links.push(link(b, Relation::LessEqual, a)?),
            ">" => links.push(link(b, Relation::Less, a)?),
            "!=" => links.extend([link(a, Relation::Less, b)?, link(b, Relation::Less, a)?]),
            _ => links.push(link(a, Relation::Equal, b)?),
        }
    }
    Ok(Chain { links, any })
}

/// Something that has a value.
enum Operand<'n, 't> {
    Number(Decimal),
    Element(Variable),
    List { node: &'n Node<'t>, items: &'n [Node<'t>], constant: bool },
}

impl Operand<'_, '_> {
    fn is_constant(&self) -> bool {
        match self {
            Operand::Number(_) => true,
            Operand::Element(_) => false,
            Operand::List { constant, .. } => *constant,
        }
    }
}

/// What stands in a row: words with their indices, numbers, lists.
fn operands<'n, 't>(scope: &Scope, items: &'n [Node<'t>]) -> Result<Vec<Operand<'n, 't>>, Fault> {
    let mut found = vec![];
    let mut rest = items.iter().peekable();
    while let Some(node) = rest.next() {
        let index = match rest.peek().map(|n| &n.kind) {
            Some(Kind::Index(index)) => Some(&index[..]),
            _ => None,
        };
        found.push(match &node.kind {
            Kind::List { items, constant } => Operand::List { node, items, constant: *constant },
            Kind::Word(word) if starts_number(word) => Operand::Number(number(word, node.at)?),
            Kind::Word(word) => {
                index.and_then(|_| rest.next());
                Operand::Element(scope.element(word, index, node.at)?)
            }
            Kind::Index(_) | Kind::Text => {
                let problem = format!("{} is no expression", node.shown());
                return Err(Fault::new(node.at, problem, "write a number or an element such as X[0]"));
            }
        });
    }
    Ok(found)
}

fn starts_number(word: &str) -> bool {
    let unsigned = word.strip_prefix(['-', '+']).unwrap_or(word);
    unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
}

fn number(word: &str, at: usize) -> Result<Decimal, Fault> {
    Decimal::parse(word).ok_or_else(|| {
        let cure = "write a decimal such as -0.25 or 1e-3, of at most 400 digits";
        Fault::new(at, format!("`{}` is not a number", shown(word)), cure)
    })
}

/// A sum of coefficient * element and a constant.
struct Sum<'s> {
    scope: &'s Scope,
    /// Where the comparison begins.
    at: usize,
    terms: Vec<(Variable, Decimal)>,
    constant: Decimal,
    /// Whether an addition or a multiplication made it, which a machine would round.
    computed: bool,
}

impl<'s> Sum<'s> {
    fn new(scope: &'s Scope, at: usize) -> Self {
        Sum { scope, at, terms: vec![], constant: Decimal::from_int(0), computed: false }
    }

    fn difference(scope: &'s Scope, left: &Operand, right: &Operand, at: usize) -> Result<Self, Fault> {
        let mut sum = Sum::new(scope, at);
        sum.add(left, &Decimal::from_int(1))?;
        sum.add(right, &Decimal::from_int(-1))?;
        Ok(sum)
    }

    fn product(&self, a: &Decimal, b: &Decimal) -> Result<Decimal, Fault> {
        let cure = "write shorter numbers";
        a.times(b).ok_or_else(|| Fault::new(self.at, "a product here has more than 400 digits", cure))
    }

    fn add(&mut self, operand: &Operand, scale: &Decimal) -> Result<(), Fault> {
        match operand {
            Operand::Number(n) => self.constant = self.constant.plus(&self.product(n, scale)?),
            Operand::Element(v) => self.terms.push((*v, scale.clone())),
            Operand::List { node, items, .. } => self.add_list(node, items, scale)?,
        }
        Ok(())
    }

    fn add_list(&mut self, node: &Node, items: &[Node], scale: &Decimal) -> Result<(), Fault> {
        let head = items.first().and_then(Node::word).unwrap_or_default();
        if !matches!(head, "+" | "-" | "*") {
            let cure = "use (+ a b), (- a b), (- a) and (* number a)";
            return Err(Fault::new(node.at, format!("{} is no linear expression", node.shown()), cure));
        }
        let arguments = operands(self.scope, &items[1..])?;
        let Some(first) = arguments.first() else {
            return Err(Fault::new(node.at, format!("`({head})` has no arguments"), "give it some, or remove it"));
        };
        if head == "*" {
            return self.add_product(node, &arguments, scale);
        }
        self.computed |= arguments.len() > 1;
        let flipped = scale.negated();
        let (of_first, of_rest) = match (head, arguments.len()) {
            ("-", 1) => (&flipped, scale),
            ("-", _) => (scale, &flipped),
            _ => (scale, scale),
        };
        self.add(first, of_first)?;
        arguments[1..].iter().try_for_each(|a| self.add(a, of_rest))
    }

    fn add_product(&mut self, node: &Node, arguments: &[Operand], scale: &Decimal) -> Result<(), Fault> {
        let (numbers, elements): (Vec<_>, Vec<_>) = arguments.iter().partition(|a| a.is_constant());
        let mut factor = scale.clone();
        for number in &numbers {
            let value = self.value(number)?;
            self.computed |= !value.is_unit() && arguments.len() > 1;
            factor = self.product(&factor, &value)?;
        }
        match elements[..] {
            [] => self.constant = self.constant.plus(&factor),
            [element] => self.add(element, &factor)?,
            _ => {
                let problem = "a product of two elements is not linear";
                return Err(Fault::new(node.at, problem, "multiply elements by numbers only"));
            }
        }
        Ok(())
    }

    /// The value of something constant.
    fn value(&mut self, operand: &Operand) -> Result<Decimal, Fault> {
        let mut inner = Sum::new(self.scope, self.at);
        inner.add(operand, &Decimal::from_int(1))?;
        self.computed |= inner.computed;
        self.product(&inner.constant, &Decimal::from_int(1))
    }

    /// The comparison of the sum with zero.
    fn compared(mut self, relation: Relation) -> Result<Comparison, Fault> {
        self.terms.sort_by_key(|t| t.0);
        let mut terms: Vec<(Variable, Decimal)> = vec![];
        for (variable, coefficient) in self.terms {
            match terms.last_mut() {
                Some(last) if last.0 == variable => last.1 = last.1.plus(&coefficient),
                _ => terms.push((variable, coefficient)),
            }
        }
        let at = self.at;
        let short = |d: Decimal| {
            let cure = "write shorter numbers";
            d.checked().ok_or_else(|| Fault::new(at, "a sum here has more than 400 digits", cure))
        };
        terms.retain(|t| !t.1.is_zero());
        let terms = terms.into_iter().map(|(v, c)| Ok((v, short(c)?))).collect::<Result<Vec<_>, Fault>>()?;
        let bound = short(self.constant.negated())?;
        if terms.is_empty() {
            return Ok(Comparison::Always(relation.holds(&Decimal::from_int(0), &bound)));
        }
        Ok(Comparison::Constraint(Constraint { terms, relation, bound, computed: self.computed }))
    }
}
