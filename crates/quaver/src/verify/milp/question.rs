//! One forbidden polyhedron of one net: can the largest excess of its rows be small enough?

use super::encode::Encoder;
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
    /// Where each element of the start is, and its bounds.
    start: Vec<Option<Element>>,
    start_bounds: Bounds,
    start_grid: Grid,
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
        let mut encoder = Encoder::new(net, bounds, start);
        let mut rows = vec![];
        let mut ends = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        for row in goal.stated() {
            // Among integers, sum < bound is sum <= bound - 1.
            let less = if integral && row.strict && !strict { 1.0 } else { 0.0 };
            let bound = sub_up(row.bound_within(observed), less);
            let (lo, hi) = range(row, observed);
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
        let (start_bounds, start_grid) = (bounds[start.0].clone(), net.node(start).grid);
        let (start, program) = (encoder.start_elements().to_vec(), encoder.program);
        let mut is_start = vec![false; program.columns.len()];
        for element in start.iter().flatten() {
            if let Element::Column(j) = element {
                is_start[*j] = true;
            }
        }
        Question { program, excess, integral, strict, start, start_bounds, start_grid, is_start }
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

    /// The values of the start, if the bounds of a program's columns leave only one for each.
    pub fn only_start(&self, program: &Program) -> Option<Vec<f64>> {
        let b = &self.start_bounds;
        let of = |(i, e): (usize, &Option<Element>)| match e {
            Some(Element::Column(j)) => (program.columns[*j].lo, program.columns[*j].hi),
            Some(Element::Constant(c)) => (*c, *c),
            // Nothing that the goal is about depends on it.
            Some(Element::Sum(_)) | None => (b.lo[i], b.lo[i]),
        };
        let ends = self.start.iter().enumerate().map(of);
        ends.map(|(lo, hi)| (lo == hi).then_some(lo)).collect()
    }

    /// The values of the start at a point of the program, on their grid: a hint.
    pub fn start_values(&self, point: &[f64]) -> Vec<f64> {
        let b = &self.start_bounds;
        let of = |(i, e): (usize, &Option<Element>)| {
            let x = match e {
                Some(Element::Column(j)) => point[*j],
                Some(Element::Constant(c)) => *c,
                Some(Element::Sum(_)) | None => b.lo[i],
            };
            let x = if self.start_grid == Grid::Integer { x.round() } else { f64::from(x as f32) };
            x.clamp(b.lo[i], b.hi[i])
        };
        self.start.iter().enumerate().map(of).collect()
    }
}

/// Bounds on the sum of a row from bounds on its elements.
fn range(row: &Row, x: &Bounds) -> (f64, f64) {
    row.terms.iter().fold((0.0, 0.0), |(lo, hi), &(i, a)| {
        let (least, most) = if a >= 0.0 { (x.lo[i], x.hi[i]) } else { (x.hi[i], x.lo[i]) };
        (add_down(lo, mul_down(a, least)), add_up(hi, mul_up(a, most)))
    })
}
