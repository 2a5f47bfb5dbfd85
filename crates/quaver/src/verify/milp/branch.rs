//! Subproblems of a program: bounds of columns, rigorous bounds on the cost within them, and how they are split.

use std::time::Duration;

use crate::lp::{Program, Relaxation, RelaxationAnswer, Solver, safe_bound, safe_infeasible};

/// How far from an integer a hint may be and still count as one.
const INTEGRAL: f64 = 1e-6;

/// Bounds of some columns that differ from the program's own.
#[derive(Clone, Default)]
pub(super) struct Subproblem {
    changes: Vec<(usize, f64, f64)>,
    /// The column that was split last, whether upwards, how far, and the bound before it.
    split: Option<(usize, bool, f64, f64)>,
}

/// Whether a hint is no integer.
pub(super) fn is_fractional(x: f64) -> bool {
    (x - x.floor()).min(x.ceil() - x) > INTEGRAL
}

/// One linear program under the bounds of one subproblem after the other.
pub(super) struct Branching<'b> {
    base: &'b Program,
    /// With the bounds of the current subproblem.
    pub program: Program,
    relaxation: Box<dyn Relaxation>,
    /// Columns whose bounds are not the base's.
    changed: Vec<usize>,
    gains: Gains,
}

impl<'b> Branching<'b> {
    /// `None` if the solver cannot take the program.
    pub fn new(solver: &dyn Solver, base: &'b Program) -> Option<Self> {
        let relaxation = solver.relaxation(base)?;
        Some(Branching {
            base,
            program: base.clone(),
            relaxation,
            changed: vec![],
            gains: Gains::new(base.columns.len()),
        })
    }

    /// Gives the columns the bounds of a subproblem.
    pub fn move_to(&mut self, to: &Subproblem) {
        for j in std::mem::take(&mut self.changed) {
            let own = self.base.columns[j];
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

    /// A proved lower bound on the cost in the current bounds of columns, and the point where the solver sees its minimum.
    pub fn bound(&mut self, at: &Subproblem, left: Duration) -> (f64, Option<Vec<f64>>) {
        match self.relaxation.solve(left) {
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
    pub fn branch(
        &self,
        at: &Subproblem,
        bound: f64,
        point: Option<&[f64]>,
        is_start: impl Fn(usize) -> bool,
    ) -> Option<[Subproblem; 2]> {
        let columns = self.program.columns.iter().enumerate();
        let free = columns.filter(|(_, c)| c.integer && c.lo < c.hi);
        let fractional = |j: usize| point.is_some_and(|p| is_fractional(p[j]));
        let promise = |j: usize| point.map_or(0.0, |p| self.gains.score(j, p[j] - p[j].floor()));
        let score = |j: usize| match (fractional(j), is_start(j)) {
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
