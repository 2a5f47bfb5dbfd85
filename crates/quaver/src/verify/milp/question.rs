//! One forbidden polyhedron of one net: can the largest excess of its rows be small enough?

use super::encode::{Encoder, Style};
use super::start::Start;
use super::sum::{Element, Sum};
use crate::bounds::Bounds;
use crate::lp::{Column, Program};
use crate::net::{Grid, NodeId};
use crate::num::round::{add_down, add_up, mul_down, mul_up, sub_down, sub_up};
use crate::verify::decide::View;
use crate::verify::goal::{Goal, Row};

/// A program whose cost is the excess t = max over the rows of (sum - bound), to be minimised.
pub(super) struct Question {
    pub program: Program,
    excess: usize,
    /// Whether t is an integer in every execution.
    integral: bool,
    /// Whether t = 0 is not forbidden either.
    strict: bool,
    pub start: Start,
    /// For each column, whether it is an element of the start.
    is_start: Vec<bool>,
}

impl Question {
    /// Encodes a goal. `bounds` hold for every execution on the region and are finite.
    ///
    /// # Claim
    /// Every execution whose output lies in the polyhedron gives a point of the program with t <= 0, or t < 0 where `strict`.
    pub fn new(view: View<'_>, bounds: &[Bounds], start: NodeId, goal: &Goal) -> Self {
        let net = view.prepared.net;
        let observed = &bounds[view.observed.0];
        let integers = |r: &Row| r.bound.fract() == 0.0 && r.is_exact() && r.terms.iter().all(|t| t.1.fract() == 0.0);
        let integral = net.node(view.observed).grid == Grid::Integer && goal.stated().iter().all(integers);
        let strict = !goal.stated().is_empty() && goal.stated().iter().all(|r| r.strict);
        let mut encoder = Encoder::new(net, bounds, start, Style::EXACT);
        let mut rows = vec![];
        let mut ends = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        for row in goal.stated() {
            // Among integers, sum < bound is sum <= bound - 1.
            let less = if integral && row.strict && !strict { 1.0 } else { 0.0 };
            let bound = sub_up(row.bound_within(observed), less);
            let (lo, hi) = range(&row.terms, observed);
            ends = (ends.0.max(sub_down(lo, bound)), ends.1.max(sub_up(hi, bound)));
            let mut sum = Sum::constant(-bound);
            row.terms.iter().for_each(|&(i, a)| sum.add(&encoder.element(view.observed, i), a));
            rows.push(sum);
        }
        if rows.is_empty() {
            ends = (0.0, 0.0);
        }
        let excess = encoder.program.add_column(Column { lo: ends.0, hi: ends.1, cost: 1.0, integer: false });
        for sum in rows {
            sum.with(&Element::Column(excess), -1.0).not_positive(&mut encoder.program);
        }
        let start = Start::of(&encoder, start);
        let program = encoder.program;
        let mut is_start = vec![false; program.columns.len()];
        start.columns().for_each(|j| is_start[j] = true);
        Question { program, excess, integral, strict, start, is_start }
    }

    /// The program that has a point only if something forbidden may occur, without a cost. With a `fractional` start fewer columns are integers:
    /// easier, and if it has no point, neither has the other.
    pub fn feasibility(&self, fractional: bool) -> Program {
        let mut program = self.program.clone();
        for (column, is_start) in program.columns.iter_mut().zip(&self.is_start) {
            column.integer &= !(fractional && *is_start);
        }
        let t = &mut program.columns[self.excess];
        (t.cost, t.hi) = (0.0, if self.integral && self.strict { -1.0 } else { 0.0 });
        program
    }

    /// Whether a column is an element of the start.
    pub fn is_start(&self, j: usize) -> bool {
        self.is_start[j]
    }

    /// The gap that a lower bound on t proves.
    pub fn gap(&self, bound: f64) -> f64 {
        if bound.is_nan() {
            return f64::NEG_INFINITY;
        }
        if self.integral { bound.ceil() } else { bound }
    }
}

/// Bounds on the sum of terms from bounds on the elements.
pub(super) fn range(terms: &[(usize, f64)], x: &Bounds) -> (f64, f64) {
    terms.iter().fold((0.0, 0.0), |(lo, hi), &(i, a)| {
        let (least, most) = if a >= 0.0 { (x.lo[i], x.hi[i]) } else { (x.hi[i], x.lo[i]) };
        (add_down(lo, mul_down(a, least)), add_up(hi, mul_up(a, most)))
    })
}
