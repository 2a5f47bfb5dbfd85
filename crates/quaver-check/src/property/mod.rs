//! Properties of a network, read from VNN-LIB.
//!
//! A text describes counterexamples: inputs in a box, and linear constraints on the outputs they lead to. The property
//! holds if there are none. Version 1.0 and queries of version 2.0 are read: about one network, or about two whose
//! inputs are equated element by element. What is not understood is refused with its line.
//!
//! Numbers are exact decimals. In a query about float32 elements a number is the nearest float32 value, as the format
//! says, and arithmetic is refused because a runtime would round it.

mod formula;
mod linear;
mod parse;
#[cfg(test)]
mod tests;
mod text;

use crate::rational::Rational;
use crate::unpack::unpacked;
use formula::{Choice, too_large, too_many_cases};
use linear::Literal;
use parse::Query;

/// Most cases of a property.
const MAX_CASES: usize = 100_000;
/// Most bounds and constraints of all cases together.
const MAX_SIZE: usize = 1 << 22;
/// Most lists inside each other.
const MAX_DEPTH: usize = 1000;
/// Most bytes of a text, unpacked.
const MAX_TEXT: u64 = 1 << 30;

/// Describes all counterexamples: each satisfies one of the cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// In the order of the text.
    pub networks: Vec<Network>,
    /// Number of elements of the input, which all networks share.
    pub inputs: usize,
    /// Number of elements of the outputs of all networks, in a row.
    pub outputs: usize,
    /// In the order of the text: the alternatives of the last disjunction change first. Cases that no input or no output
    /// can satisfy, whatever the network is, are left out. Without cases there are no counterexamples.
    pub cases: Vec<Case>,
}

/// A network that a property is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Empty in version 1.0.
    pub name: String,
    /// Number of elements of its input.
    pub inputs: usize,
    /// Number of elements of its output.
    pub outputs: usize,
    /// The network that it is declared to be, by number.
    pub equal_to: Option<usize>,
}

impl Network {
    /// For messages.
    pub fn label(&self) -> String {
        if self.name.is_empty() { "the model".into() } else { format!("network `{}`", self.name) }
    }
}

/// A box of inputs, and what their outputs satisfy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Lower bounds, one for each input. A strict bound is read as one that is not: the box may be larger, which is sound
    /// for a claim that there is no counterexample.
    pub lo: Vec<Rational>,
    /// Upper bounds, never below the lower ones.
    pub hi: Vec<Rational>,
    /// All of them hold.
    pub rows: Vec<Row>,
}

/// `sum coefficient * output <= bound`, or `<`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Outputs with their coefficients: each output at most once, in order, no coefficient zero, not empty in a case.
    pub terms: Vec<(usize, Rational)>,
    /// What the sum is compared with.
    pub bound: Rational,
    /// Whether the sum must be smaller.
    pub strict: bool,
}

/// Reads a property from the bytes of a file, which may be packed with gzip.
pub fn read(bytes: &[u8]) -> Result<Property, String> {
    let content = unpacked(bytes, MAX_TEXT)?;
    // What is not UTF-8 stays visible as a sign that no command has.
    let query = parse::parse(&String::from_utf8_lossy(&content))?;
    let cases = multiply_out(&query)?;
    let (inputs, outputs) = (query.inputs, query.networks.iter().map(|n| n.outputs).sum());
    Ok(Property { networks: query.networks, inputs, outputs, cases })
}

/// One case for every way to take one alternative of each disjunction.
fn multiply_out(query: &Query) -> Result<Vec<Case>, String> {
    let multiply = |count: usize, n: usize| count.checked_mul(n).filter(|count| *count <= MAX_CASES);
    let count = query.choices.iter().map(Vec::len).try_fold(1, multiply).ok_or_else(too_many_cases)?;
    let mut base = Draft::new(query.inputs);
    for literal in &query.fixed {
        base.add(&query.literals[*literal as usize]);
    }
    let shared = count * (2 * query.inputs + base.rows.len());
    let own = |choice: &Choice| choice.iter().map(Vec::len).sum::<usize>() * (count / choice.len());
    if count > 1 && shared + query.choices.iter().map(own).sum::<usize>() > MAX_SIZE {
        return Err(too_large());
    }
    let mut cases = Vec::new();
    for number in 0..count {
        let mut draft = base.clone();
        for literal in choose(query, number).into_iter().flatten() {
            draft.add(&query.literals[*literal as usize]);
        }
        cases.extend(draft.finish(&query.prefix)?);
    }
    Ok(cases)
}

/// The alternatives that make a case: its number in the mixed base of the numbers of alternatives.
fn choose(query: &Query, mut number: usize) -> Vec<&[u32]> {
    let mut chosen = Vec::new();
    for choice in query.choices.iter().rev() {
        chosen.push(choice[number % choice.len()].as_slice());
        number /= choice.len();
    }
    chosen.reverse();
    chosen
}

/// A case to which literals are added.
#[derive(Clone)]
struct Draft {
    lo: Vec<Option<Rational>>,
    hi: Vec<Option<Rational>>,
    rows: Vec<Row>,
    /// A constraint without variables is false.
    is_impossible: bool,
}

impl Draft {
    fn new(inputs: usize) -> Draft {
        Draft { lo: vec![None; inputs], hi: vec![None; inputs], rows: Vec::new(), is_impossible: false }
    }

    fn add(&mut self, literal: &Literal) {
        match literal {
            Literal::Lower(input, value) if self.lo[*input].as_ref().is_none_or(|old| old < value) => {
                self.lo[*input] = Some(value.clone());
            }
            Literal::Upper(input, value) if self.hi[*input].as_ref().is_none_or(|old| old > value) => {
                self.hi[*input] = Some(value.clone());
            }
            // The parser has made sure that they are equal.
            Literal::Lower(..) | Literal::Upper(..) | Literal::NotAbove(_) | Literal::NotBelow(_) => {}
            Literal::Output(row) if row.terms.is_empty() => {
                self.is_impossible |= row.bound.signum() < i32::from(row.strict);
            }
            Literal::Output(row) => self.rows.push(row.clone()),
        }
    }

    /// Nothing if no input satisfies the case.
    fn finish(self, prefix: &str) -> Result<Option<Case>, String> {
        let pairs = || self.lo.iter().zip(&self.hi);
        let is_empty = pairs().any(|(lo, hi)| lo.as_ref().zip(hi.as_ref()).is_some_and(|(lo, hi)| lo > hi));
        if is_empty || self.is_impossible {
            return Ok(None);
        }
        if let Some((input, (lo, _))) = pairs().enumerate().find(|(_, (lo, hi))| lo.is_none() || hi.is_none()) {
            let side = if lo.is_none() { "lower" } else { "upper" };
            return Err(format!("the input {prefix}{input} has no {side} bound"));
        }
        let all = |bounds: Vec<Option<Rational>>| bounds.into_iter().flatten().collect();
        Ok(Some(Case { lo: all(self.lo), hi: all(self.hi), rows: self.rows }))
    }
}
