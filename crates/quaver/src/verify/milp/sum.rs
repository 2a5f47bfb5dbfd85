//! Rows that the exact network implies: sums of values whose coefficients may not be floats.

use std::sync::Arc;

use crate::lp::Program;
use crate::num::round::{add_down, add_up, mul_down, mul_up, sub_down, sub_up};

/// An element of a value as the program sees it.
#[derive(Clone, Debug)]
pub(super) enum Element {
    /// The same for every input of the region.
    Constant(f64),
    /// A column.
    Column(usize),
    /// A sum that has no column of its own: it is written out wherever it is read.
    Sum(Arc<Sum>),
}

/// A sum of columns and a constant, whose coefficients are each between two floats.
#[derive(Clone, Debug)]
pub(super) struct Sum {
    terms: Vec<(usize, (f64, f64))>,
    constant: (f64, f64),
}

/// What is between two floats, times a weight.
fn times((lo, hi): (f64, f64), weight: f64) -> (f64, f64) {
    if weight < 0.0 { (mul_down(hi, weight), mul_up(lo, weight)) } else { (mul_down(lo, weight), mul_up(hi, weight)) }
}

impl Sum {
    /// A constant between two floats.
    pub fn between(constant: (f64, f64)) -> Self {
        Sum { terms: vec![], constant }
    }

    /// An exact constant.
    pub fn constant(c: f64) -> Self {
        Sum::between((c, c))
    }

    /// Adds weight * element.
    pub fn add(&mut self, element: &Element, weight: f64) {
        match element {
            Element::Column(j) => self.terms.push((*j, (weight, weight))),
            Element::Constant(c) => self.widen(times((*c, *c), weight)),
            Element::Sum(sum) => {
                self.terms.extend(sum.terms.iter().map(|(j, a)| (*j, times(*a, weight))));
                self.widen(times(sum.constant, weight));
            }
        }
    }

    /// The sum with another term.
    pub fn with(mut self, element: &Element, weight: f64) -> Self {
        self.add(element, weight);
        self
    }

    /// Adds an exact constant.
    pub fn plus(mut self, c: f64) -> Self {
        self.widen((c, c));
        self
    }

    /// Adds weight * element for a 0-1 column and a weight between two floats.
    pub fn add_between(&mut self, binary: &Element, weight: (f64, f64)) {
        self.add(binary, weight.0);
        if weight.1 > weight.0 {
            self.widen((0.0, sub_up(weight.1, weight.0)));
        }
    }

    /// The sum with the other sign.
    pub fn negated(mut self) -> Self {
        self.terms.iter_mut().for_each(|t| t.1 = (-t.1.1, -t.1.0));
        self.constant = (-self.constant.1, -self.constant.0);
        self
    }

    /// Adds something between two floats.
    pub fn widen(&mut self, by: (f64, f64)) {
        self.constant = (add_down(self.constant.0, by.0), add_up(self.constant.1, by.1));
    }

    /// The sum with one float for the coefficient of each column.
    ///
    /// # Rounding
    /// The smaller end is taken; what is missing, between 0 and the difference of the ends times the column, goes to the constant.
    fn settle(&mut self, program: &Program) -> Vec<(usize, f64)> {
        let mut terms = std::mem::take(&mut self.terms);
        terms.sort_by_key(|t| t.0);
        let mut settled = Vec::with_capacity(terms.len());
        for same in terms.chunk_by(|a, b| a.0 == b.0) {
            let j = same[0].0;
            let add = |a: (f64, f64), t: &(usize, (f64, f64))| (add_down(a.0, t.1.0), add_up(a.1, t.1.1));
            let (lo, hi) = same[1..].iter().fold(same[0].1, add);
            settled.push((j, lo));
            if hi > lo {
                let (column, missing) = (&program.columns[j], sub_up(hi, lo));
                self.widen((mul_down(missing, column.lo.min(0.0)), mul_up(missing, column.hi.max(0.0))));
            }
        }
        settled
    }

    /// Adds the row: lo <= sum <= hi, where the sum is the true one.
    ///
    /// # Claim
    /// Columns that satisfy the inequality for some coefficients between the floats satisfy the row.
    pub fn within(mut self, program: &mut Program, lo: f64, hi: f64) {
        let terms = self.settle(program);
        program.add_row(sub_down(lo, self.constant.1), &terms, sub_up(hi, self.constant.0));
    }

    /// Adds the row: sum <= 0.
    pub fn not_positive(self, program: &mut Program) {
        self.within(program, f64::NEG_INFINITY, 0.0);
    }

    /// Adds the row: sum = 0.
    pub fn zero(self, program: &mut Program) {
        self.within(program, 0.0, 0.0);
    }
}
