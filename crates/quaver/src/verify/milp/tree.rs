//! Branch and bound over the integer columns of a program, in which every closed leaf is closed by a rigorous bound.

use super::branch::{Branching, Subproblem};
use super::question::Question;
use crate::lp::Solver;
use crate::verify::{Limit, Witness};

/// How a search ended.
pub(super) enum Ended {
    /// Every leaf is closed; the smallest gap of all.
    Closed(f64),
    /// A point that was executed and refutes the claim.
    Refuted(Witness),
    /// Stopped with open subproblems.
    Open {
        /// Why.
        why: String,
        /// How many are left.
        left: u64,
    },
}

/// What the search asks about the net itself.
pub(super) trait Judge {
    /// Whether a gap excludes the goal.
    fn excludes(&self, gap: f64) -> bool;

    /// A witness, if values of the start come from an input that is one.
    fn confirm(&self, start: &[f64]) -> Option<Witness>;

    /// A proved lower bound on the gap of every execution in which the start has these values.
    fn gap_at(&self, start: &[f64]) -> f64;
}

/// The search for one question.
pub(super) struct Tree<'t> {
    question: &'t Question,
    branching: Branching<'t>,
    limit: &'t Limit,
    judge: &'t dyn Judge,
    /// Subproblems that were bounded.
    pub bounded: u64,
}

impl<'t> Tree<'t> {
    /// `None` if the solver cannot take the program.
    pub fn new(solver: &dyn Solver, question: &'t Question, limit: &'t Limit, judge: &'t dyn Judge) -> Option<Self> {
        let branching = Branching::new(solver, &question.program)?;
        Some(Tree { question, branching, limit, judge, bounded: 0 })
    }

    /// Searches depth first, at most `most` subproblems.
    pub fn run(&mut self, most: u64) -> Ended {
        let mut open = vec![Subproblem::default()];
        let (mut least, mut stuck) = (f64::INFINITY, 0);
        while let Some(next) = open.pop() {
            let why = if self.bounded >= most { Some("limit of subproblems") } else { self.limit.reached() };
            if let Some(why) = why {
                return Ended::Open { why: why.into(), left: open.len() as u64 + 1 + stuck };
            }
            self.branching.move_to(&next);
            self.bounded += 1;
            let (bound, point) = self.branching.bound(&next, self.limit.left());
            let gap = self.question.gap(bound);
            if self.judge.excludes(gap) {
                least = least.min(gap);
                continue;
            }
            if let Some(witness) = point.as_ref().and_then(|p| self.judge.confirm(&self.question.start.values(p))) {
                return Ended::Refuted(witness);
            }
            match self.branching.branch(&next, bound, point.as_deref(), |j| self.question.is_start(j)) {
                Some([later, first]) => open.extend([later, first]),
                None => match self.gap_at_point() {
                    Some(gap) if self.judge.excludes(gap) => least = least.min(gap),
                    _ => stuck += 1,
                },
            }
        }
        match stuck {
            0 => Ended::Closed(least),
            left => Ended::Open { why: "the arithmetic of a leaf does not tell".into(), left },
        }
    }

    /// The gap where the start is one point.
    ///
    /// # Why
    /// A linear program sees neither a difference below its tolerance nor the two values that a jump on the reals may take; execution does.
    fn gap_at_point(&self) -> Option<f64> {
        let values = self.question.start.only(&self.branching.program)?;
        Some(self.judge.gap_at(&values))
    }
}
