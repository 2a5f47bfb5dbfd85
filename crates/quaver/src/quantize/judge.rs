//! Whether executed outputs are forbidden.

use std::ops::Range;

use crate::net::Enclosure;
use crate::num::round::{add_down, add_up, mul_down, mul_up};
use crate::property::{Constraint, Polyhedron};

/// A constraint in f64, for sums that are rounded up: term (i, low, high) is at most the larger product.
struct Row {
    terms: Vec<(usize, f64, f64)>,
    /// On both sides of the exact bound.
    bound: (f64, f64),
    strict: bool,
}

impl Row {
    fn new(c: &Constraint) -> Self {
        let terms = c.terms.iter().map(|(i, a)| (*i, a.f64_down(), a.f64_up())).collect();
        Row { terms, bound: (c.bound.f64_down(), c.bound.f64_up()), strict: c.strict }
    }

    /// A number not below the sum less the bound.
    fn excess(&self, y: &Enclosure) -> f64 {
        let largest = |(i, low, high): &(usize, f64, f64)| {
            let ends = [y.lo(*i), y.hi(*i)];
            ends.iter().flat_map(|e| [mul_up(*low, *e), mul_up(*high, *e)]).fold(f64::NEG_INFINITY, f64::max)
        };
        self.terms.iter().fold(-self.bound.0, |sum, t| add_up(sum, largest(t)))
    }

    /// A number not above the sum less the bound.
    fn least_excess(&self, y: &Enclosure) -> f64 {
        let smallest = |(i, low, high): &(usize, f64, f64)| {
            let ends = [y.lo(*i), y.hi(*i)];
            ends.iter().flat_map(|e| [mul_down(*low, *e), mul_down(*high, *e)]).fold(f64::INFINITY, f64::min)
        };
        self.terms.iter().fold(-self.bound.1, |sum, t| add_down(sum, smallest(t)))
    }

    /// Whether a sum that exceeds the bound by so much satisfies the row.
    fn holds(&self, excess: f64) -> bool {
        if self.strict { excess < 0.0 } else { excess <= 0.0 }
    }
}

/// What one output says.
pub enum Said {
    Refutes,
    /// Rounding leaves it open.
    Unsure,
    /// How far it is from refuting.
    Agrees(f64),
}

/// The points of a polyhedron in f64.
struct Points {
    rows: Vec<Row>,
    /// Where only those outside a ball count: its elements, and a number not below the square of its radius.
    outside: Option<(Range<usize>, f64)>,
}

impl Points {
    fn new(p: &Polyhedron) -> Self {
        let outside = p.outside.as_ref().map(|ball| (ball.elements.clone(), ball.square.f64_up()));
        Points { rows: p.constraints.iter().map(Row::new).collect(), outside }
    }

    /// Whether every number of an enclosure is outside the ball: the sum of least squares, rounded down, is above that of the radius.
    fn is_outside(&self, y: &Enclosure) -> bool {
        let Some((elements, square)) = &self.outside else { return true };
        let least = |i: usize| {
            let (lo, hi) = (y.lo(i), y.hi(i));
            if lo > 0.0 {
                lo
            } else if hi < 0.0 {
                -hi
            } else {
                0.0
            }
        };
        elements.clone().fold(0.0, |sum, i| add_down(sum, mul_down(least(i), least(i)))) > *square
    }
}

/// Outputs that must not occur: the union of some polyhedra.
pub struct Forbidden(Vec<Points>);

impl Forbidden {
    /// From their constraints.
    pub fn new(polyhedra: &[Polyhedron]) -> Self {
        Forbidden(polyhedra.iter().map(Points::new).collect())
    }

    /// Whether an output lies in one of the polyhedra.
    ///
    /// # Claim
    /// If it `Refutes`, every number of the enclosure lies in one of them; if it `Agrees`, none does.
    ///
    /// # Rounding
    /// Sums are rounded up, or down where they must not be satisfied.
    pub fn judge(&self, output: &Enclosure) -> Said {
        let (mut nearest, mut unsure) = (f64::INFINITY, false);
        for points in &self.0 {
            let excesses: Vec<f64> = points.rows.iter().map(|row| row.excess(output)).collect();
            let holds = |of: &dyn Fn(usize) -> f64| (0..excesses.len()).all(|k| points.rows[k].holds(of(k)));
            if holds(&|k| excesses[k]) && points.is_outside(output) {
                return Said::Refutes;
            }
            unsure |= holds(&|k| points.rows[k].least_excess(output));
            nearest = nearest.min(excesses.into_iter().fold(f64::NEG_INFINITY, f64::max));
        }
        if unsure { Said::Unsure } else { Said::Agrees(nearest) }
    }
}
