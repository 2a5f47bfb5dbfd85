//! The least cost of a program from below, better the longer one waits.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::branch::{Branching, Subproblem, is_fractional};
use crate::lp::{Program, Solver};

/// A part that is not looked at yet, and a bound on its cost.
struct Part {
    bound: f64,
    subproblem: Subproblem,
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Part {}

impl PartialOrd for Part {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Part {
    /// The least bound comes first out of a heap.
    fn cmp(&self, other: &Self) -> Ordering {
        other.bound.total_cmp(&self.bound)
    }
}

/// Where a search for the least cost begins and ends.
pub(super) struct Search<'s> {
    pub solver: &'s dyn Solver,
    /// A bound that holds already.
    pub known: f64,
    pub deadline: Instant,
    /// Is told points (hints), and gives a cost that is known to occur: parts above it are not split.
    pub seen: &'s mut dyn FnMut(&[f64]) -> f64,
    /// Is told the bound when it grows.
    pub better: &'s mut dyn FnMut(f64),
}

impl Search<'_> {
    /// A lower bound on the cost of every point of a program whose integer columns are integers.
    ///
    /// # Claim
    /// No such point has a cost below the result, whatever the solver does.
    ///
    /// # Why
    /// Every such point is in a part that is closed or still open: both sides of a split hold all integers. The bound of a part is rigorous
    /// ([`crate::lp::safe_bound`]) or that of the whole that it is a part of. The result is the least of all parts.
    pub fn run(self, program: &Program) -> f64 {
        let Some(mut branching) = Branching::new(self.solver, program) else { return self.known };
        let (mut open, mut closed, mut occurs, mut best) =
            (BinaryHeap::new(), f64::INFINITY, f64::INFINITY, self.known);
        open.push(Part { bound: self.known, subproblem: Subproblem::default() });
        while let Some(Part { bound: known, subproblem }) = open.pop() {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return best;
            }
            branching.move_to(&subproblem);
            let (found, point) = branching.bound(&subproblem, left);
            let bound = if found > known { found } else { known };
            occurs = point.as_ref().map_or(occurs, |p| occurs.min((self.seen)(p)));
            let is_split = point.as_ref().is_some_and(|p| has_fractional(program, p)) && bound < occurs;
            let halves =
                if is_split { branching.branch(&subproblem, bound, point.as_deref(), |_| false) } else { None };
            match halves {
                Some(halves) => open.extend(halves.map(|subproblem| Part { bound, subproblem })),
                None => closed = closed.min(bound),
            }
            let least = open.peek().map_or(closed, |p| closed.min(p.bound));
            if least > best {
                best = least;
                (self.better)(best);
            }
            if closed <= best {
                return best;
            }
        }
        best
    }
}

fn has_fractional(program: &Program, point: &[f64]) -> bool {
    program.columns.iter().zip(point).any(|(c, x)| c.integer && is_fractional(*x))
}
