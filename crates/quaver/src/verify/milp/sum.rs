//! Rows that the exact network implies: sums of values whose coefficients may not be floats.

use crate::lp::Program;
use crate::num::round::{add_down, add_up, mul_down, mul_up, sub_down, sub_up};

/// An element of a value as the program sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Element {
    /// The same for every input of the region.
    Constant(f64),
    /// A column.
    Column(usize),
}

/// A sum of columns and a constant, each known exactly or between two floats.
#[derive(Clone, Debug)]
pub(super) struct Sum {
    terms: Vec<(usize, f64)>,
    constant: (f64, f64),
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
    pub fn add(&mut self, element: Element, weight: f64) {
        match element {
            Element::Column(j) => self.terms.push((j, weight)),
            Element::Constant(c) => self.widen((mul_down(weight, c), mul_up(weight, c))),
        }
    }

    /// The sum with another term.
    pub fn with(mut self, element: Element, weight: f64) -> Self {
        self.add(element, weight);
        self
    }

    /// Adds weight * element for a 0-1 column and a weight between two floats.
    pub fn add_between(&mut self, binary: Element, weight: (f64, f64)) {
        self.add(binary, weight.0);
        if weight.1 > weight.0 {
            self.widen((0.0, sub_up(weight.1, weight.0)));
        }
    }

    /// The sum with the other sign.
    pub fn negated(mut self) -> Self {
        self.terms.iter_mut().for_each(|t| t.1 = -t.1);
        self.constant = (-self.constant.1, -self.constant.0);
        self
    }

    /// Adds something between two floats.
    pub fn widen(&mut self, by: (f64, f64)) {
        self.constant = (add_down(self.constant.0, by.0), add_up(self.constant.1, by.1));
    }

    /// Merges terms of one column.
    ///
    /// # Rounding
    /// Where the sum of two coefficients is not a float, the one below it is taken, and what is missing, between 0 and one unit in the last
    /// place times the column, goes to the constant.
    fn merge(&mut self, program: &Program) {
        self.terms.sort_by_key(|t| t.0);
        let mut merged: Vec<(usize, f64)> = Vec::with_capacity(self.terms.len());
        for (j, a) in std::mem::take(&mut self.terms) {
            match merged.last_mut().filter(|last| last.0 == j) {
                None => merged.push((j, a)),
                Some(last) => {
                    let (lo, hi) = (add_down(last.1, a), add_up(last.1, a));
                    let column = &program.columns[j];
                    let missing = sub_up(hi, lo);
                    // Values of both signs and zero, whichever holds.
                    let ends = (mul_down(missing, column.lo.min(0.0)), mul_up(missing, column.hi.max(0.0)));
                    last.1 = lo;
                    if missing > 0.0 {
                        self.widen(ends);
                    }
                }
            }
        }
        self.terms = merged;
    }

    /// Adds the row: lo <= sum <= hi, where the sum is the true one.
    ///
    /// # Claim
    /// Columns that satisfy the inequality exactly satisfy the row.
    pub fn within(mut self, program: &mut Program, lo: f64, hi: f64) {
        self.merge(program);
        program.add_row(sub_down(lo, self.constant.1), &self.terms, sub_up(hi, self.constant.0));
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
