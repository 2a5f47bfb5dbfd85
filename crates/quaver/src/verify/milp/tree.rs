//! Branch and bound over the integer columns of a program, in which every closed leaf is closed by a rigorous bound.

use super::question::Question;
use crate::lp::{Program, Relaxation, RelaxationAnswer, Solver, safe_bound, safe_infeasible};
use crate::verify::{Limit, Witness};

/// How far from an integer a hint may be and still count as one.
const INTEGRAL: f64 = 1e-6;

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

/// Bounds of some columns that differ from the program's own.
#[derive(Clone, Default)]
struct Subproblem {
    changes: Vec<(usize, f64, f64)>,
    /// The column that was split last, whether upwards, how far, and the bound before it.
    split: Option<(usize, bool, f64, f64)>,
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
    program: Program,
    relaxation: Box<dyn Relaxation>,
    /// Columns whose bounds are not the question's.
    changed: Vec<usize>,
    gains: Gains,
    limit: &'t Limit,
    judge: &'t dyn Judge,
    /// Subproblems that were bounded.
    pub bounded: u64,
}

impl<'t> Tree<'t> {
    /// `None` if the solver cannot take the program.
    pub fn new(solver: &dyn Solver, question: &'t Question, limit: &'t Limit, judge: &'t dyn Judge) -> Option<Self> {
        let relaxation = solver.relaxation(&question.program)?;
        let (program, gains) = (question.program.clone(), Gains::new(question.program.columns.len()));
        Some(Tree { question, program, relaxation, changed: vec![], gains, limit, judge, bounded: 0 })
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
            self.move_to(&next);
            let (bound, point) = self.bound(&next);
            let gap = self.question.gap(bound);
            if self.judge.excludes(gap) {
                least = least.min(gap);
                continue;
            }
            if let Some(witness) = point.as_ref().and_then(|p| self.judge.confirm(&self.question.start_values(p))) {
                return Ended::Refuted(witness);
            }
            match self.branch(&next, bound, point.as_deref()) {
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

    /// Gives the columns the bounds of a subproblem.
    fn move_to(&mut self, to: &Subproblem) {
        for j in std::mem::take(&mut self.changed) {
            let own = self.question.program.columns[j];
            self.set(j, own.lo, own.hi);
        }
        for &(j, lo, hi) in &to.changes {
            self.set(j, lo, hi);
            self.changed.push(j);
        }
    }

    fn set(&mut self, j: usize, lo: f64, hi: f64) {
        (self.program.columns[j].lo, self.program.columns[j].hi) = (lo, hi);
        self.relaxation.set_bounds(j, lo, hi);
    }

    /// The gap where the start is one point.
    ///
    /// # Why
    /// A linear program sees neither a difference below its tolerance nor the two values that a jump on the reals may take; execution does.
    fn gap_at_point(&self) -> Option<f64> {
        let values = self.question.only_start(&self.program)?;
        Some(self.judge.gap_at(&values))
    }

    /// A proved lower bound on the excess in the current bounds, and the point where the solver sees its minimum.
    fn bound(&mut self, at: &Subproblem) -> (f64, Option<Vec<f64>>) {
        self.bounded += 1;
        match self.relaxation.solve(self.limit.left()) {
            RelaxationAnswer::Optimal { point, duals } => {
                let bound = duals.map_or(f64::NEG_INFINITY, |y| safe_bound(&self.program, &y));
                if let Some((j, up, distance, before)) = at.split {
                    self.gains.learn(j, up, (bound - before) / distance);
                }
                (bound, Some(point))
            }
            RelaxationAnswer::Infeasible { ray } => {
                let empty = ray.is_some_and(|y| safe_infeasible(&self.program, &y));
                (if empty { f64::INFINITY } else { f64::NEG_INFINITY }, None)
            }
            RelaxationAnswer::GaveUp(_) => (f64::NEG_INFINITY, None),
        }
    }

    /// Splits an integer column: where the point is fractional the one that promises most, of the start's only where no other is; else any. The part on
    /// the point's side comes last. `None` if all are fixed.
    fn branch(&self, at: &Subproblem, bound: f64, point: Option<&[f64]>) -> Option<[Subproblem; 2]> {
        let columns = self.program.columns.iter().enumerate();
        let free = columns.filter(|(_, c)| c.integer && c.lo < c.hi);
        let fraction = |x: f64| (x - x.floor()).min(x.ceil() - x);
        let fractional = |j: usize| point.is_some_and(|p| fraction(p[j]) > INTEGRAL);
        let promise = |j: usize| point.map_or(0.0, |p| self.gains.score(j, p[j] - p[j].floor()));
        let score = |j: usize| match (fractional(j), self.question.is_start(j)) {
            (true, false) => (2, promise(j)),
            (true, true) => (1, promise(j)),
            (false, _) => (0, 0.0),
        };
        let order = |a: (i32, f64), b: (i32, f64)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1));
        let (j, column) = free.max_by(|a, b| order(score(a.0), score(b.0)))?;
        let middle = column.lo + (column.hi - column.lo) / 2.0;
        let value = point.map_or(middle, |p| p[j].clamp(column.lo, column.hi));
        // An integral point is split off by the half that it ends.
        let cut = if fractional(j) { value.floor() } else { value.round().min(column.hi - 1.0).floor() };
        let child = |up: bool| {
            let (lo, hi) = if up { (cut + 1.0, column.hi) } else { (column.lo, cut) };
            let mut changes: Vec<_> = at.changes.iter().copied().filter(|c| c.0 != j).collect();
            changes.push((j, lo, hi));
            let distance = if up { cut + 1.0 - value } else { value - cut };
            let split = fractional(j).then_some((j, up, distance, bound));
            Subproblem { changes, split }
        };
        let up_first = value - cut > 0.5;
        Some([child(!up_first), child(up_first)])
    }
}

/// What splitting a column has gained on average for each unit of distance, downwards and upwards: hints.
struct Gains {
    sums: Vec<[(f64, f64); 2]>,
    all: (f64, f64),
}

impl Gains {
    fn new(columns: usize) -> Self {
        Gains { sums: vec![[(0.0, 0.0); 2]; columns], all: (0.0, 0.0) }
    }

    fn learn(&mut self, j: usize, up: bool, gain: f64) {
        if gain.is_finite() {
            let gain = gain.max(0.0);
            for to in [&mut self.sums[j][usize::from(up)], &mut self.all] {
                *to = (to.0 + gain, to.1 + 1.0);
            }
        }
    }

    /// The product of what both sides promise for a value that is `fraction` above an integer.
    fn score(&self, j: usize, fraction: f64) -> f64 {
        let mean = |(sum, count): (f64, f64)| if count > 0.0 { Some(sum / count) } else { None };
        let promise = |up: usize| mean(self.sums[j][up]).or(mean(self.all)).unwrap_or(1.0).max(1e-6);
        (promise(0) * fraction).max(1e-6) * (promise(1) * (1.0 - fraction)).max(1e-6)
    }
}
