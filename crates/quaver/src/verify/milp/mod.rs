//! The exact engine of the papers: a claim as mixed-integer programs.
//!
//! A solver computes in floating point, and what it says is no proof. Two things make it one: a point that it finds is executed
//! ([`super::confirm`]), and where it says that there is none, our own branch and bound over its linear programs ([`tree`]) closes every leaf by a
//! dual bound in rounded arithmetic.
//!
//! # Source
//! Huang et al., Towards Efficient Verification of Quantized Neural Networks (AAAI 2024); Cheng, Nuehrenberg and Ruess, Maximum Resilience of
//! Artificial Neural Networks (ATVA 2017) for big-M. `docs/milp.md` sets their formulas beside our rows.

mod branch;
mod encode;
mod function;
mod lead;
mod least;
mod question;
mod start;
mod sum;
#[cfg(test)]
mod tests;
mod tree;

use std::sync::Arc;
use std::time::Instant;

pub use self::lead::{Lead, LeadBound, LeadMilp, LeadPrograms, Relations};
use self::question::Question;
use self::tree::{Ended, Judge, Tree};
use super::attack::Attack;
use super::decide::{Decision, Gaps, View};
use super::goal::Goal;
use super::{Unfinished, Verdict, Witness};
use crate::bounds::{Bounds, analyse_until, interval};
use crate::lp::{MilpStatus, Solver};
use crate::net::{Enclosure, Grid, NodeId, execute_between, onto_grid};

/// Where the big constants of a program come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BigM {
    /// The ranges of types: what a value can be for any input. Intervals where that is unbounded.
    Types,
    /// Interval bounds on the region.
    Intervals,
    /// Linear bounds on the region.
    Linear,
}

/// Which answers are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// The solver's own search: witnesses, and reports that are no proofs.
    Solver,
    /// Our branch and bound on its linear programs: witnesses and proofs.
    Proof,
    /// The first for at most half of the time, then the second.
    Both,
}

/// The engine that decides claims by mixed-integer programs.
#[derive(Clone, Debug)]
pub struct Milp {
    /// Solves them.
    pub solver: Arc<dyn Solver>,
    /// Where big constants come from. Bounds that decide a claim by themselves end the work, but for [`BigM::Types`].
    pub bounds: BigM,
    /// Whether an attack comes first.
    pub attack: bool,
    /// Which answers are looked for.
    pub answers: Answers,
}

/// Decides a claim.
pub(super) fn decide(decision: &Decision, milp: &Milp) -> Verdict {
    let mut gaps = Gaps { best: vec![f64::NEG_INFINITY; decision.goals.len()], method: "intervals" };
    if milp.attack {
        let confirm = |x: &[f64]| decision.confirm(x);
        let tried = decision.query.candidates.iter().find_map(|c| confirm(c));
        if let Some(witness) = tried.or_else(|| decision.attack(&gaps, &confirm)) {
            return Verdict::Violated(witness);
        }
    }
    bound(decision, milp.bounds, &mut gaps);
    if gaps.all_excluded(&decision.goals) {
        return Verdict::Holds(gaps.proof(0));
    }
    let open: Vec<usize> = (0..gaps.best.len()).filter(|&g| !decision.goals[g].excluded(gaps.best[g])).collect();
    Programs { decision, milp, open }.decide(gaps)
}

/// What bounds alone say about each goal.
fn bound(decision: &Decision, bounds: BigM, gaps: &mut Gaps) {
    let fresh = |method| Gaps { best: vec![f64::INFINITY; decision.goals.len()], method };
    if bounds != BigM::Types {
        let mut intervals = fresh("intervals");
        decision.proved().for_each(|v| intervals.meet(decision.by_intervals(v)));
        gaps.improve(intervals);
    }
    if bounds == BigM::Linear && !gaps.all_excluded(&decision.goals) {
        let mut linear = fresh("linear bounds");
        decision.proved().for_each(|v| linear.meet(decision.by_lines(v)));
        gaps.improve(linear);
    }
}

/// The questions that bounds leave open.
struct Programs<'p> {
    decision: &'p Decision<'p, 'p>,
    milp: &'p Milp,
    open: Vec<usize>,
}

/// What became of all questions in one way of answering.
enum Round {
    Refuted(Witness),
    /// Nothing found; for each question that is not settled, why.
    Finished(Vec<String>),
}

impl Programs<'_> {
    fn decide(&self, mut gaps: Gaps) -> Verdict {
        let Some(questions) = self.questions() else {
            return self.undecided(&gaps, "a bound on some value is not finite".into(), 0, 1);
        };
        let mut reasons = vec![];
        if self.milp.answers != Answers::Proof {
            match self.search(&questions) {
                Round::Refuted(witness) => return Verdict::Violated(witness),
                Round::Finished(unsettled) => reasons = unsettled,
            }
            if reasons.is_empty() {
                let name = self.milp.solver.name();
                reasons.push(format!("{name} reports no violation; a floating-point answer is not a proof"));
            }
        }
        let evidence = self.milp.solver.gives_evidence();
        if self.milp.answers == Answers::Solver || !evidence {
            if !evidence {
                reasons.push(format!("{} gives no duals to prove from", self.milp.solver.name()));
            }
            return self.undecided(&gaps, reasons.join("; "), 0, questions.len() as u64);
        }
        let (mut bounded, mut closed) = (0, vec![f64::INFINITY; gaps.best.len()]);
        for (g, view, question) in &questions {
            match self.prove(*g, *view, question, &mut bounded) {
                Ended::Refuted(witness) => return Verdict::Violated(witness),
                Ended::Closed(gap) => closed[*g] = closed[*g].min(gap),
                Ended::Open { why, left } => {
                    reasons.insert(0, why);
                    return self.undecided(&gaps, reasons.join("; "), bounded, left);
                }
            }
        }
        // Only now: a goal's gap is the smallest over all nets.
        self.open.iter().for_each(|&g| gaps.best[g] = gaps.best[g].max(closed[g]));
        gaps.method = "mixed-integer program";
        Verdict::Holds(gaps.proof(bounded))
    }

    fn undecided(&self, gaps: &Gaps, why: String, subproblems: u64, open: u64) -> Verdict {
        Verdict::Undecided(Unfinished { bound: gaps.least(), why, subproblems, open })
    }

    /// One question for each open goal and each net that it must be excluded for; `None` if some bound is not finite.
    fn questions(&self) -> Option<Vec<(usize, View<'_>, Question)>> {
        let mut questions = vec![];
        for view in self.decision.proved() {
            let bounds = self.bounds(view)?;
            let start = start(view);
            for &g in &self.open {
                questions.push((g, view, Question::new(view, &bounds, start, &self.decision.goals[g])));
            }
        }
        Some(questions)
    }

    /// Bounds on every value.
    fn bounds(&self, view: View<'_>) -> Option<Vec<Bounds>> {
        let (net, region) = (view.prepared.net, &self.decision.query.region);
        let bounds = match self.milp.bounds {
            BigM::Linear => analyse_until(view.prepared, region, Some(self.decision.limit.deadline))?.bounds,
            BigM::Intervals => interval(net, region),
            BigM::Types => {
                let mut bounds = interval(net, region);
                for id in net.ids().filter(|id| !view.prepared.is_box[id.0]) {
                    let node = net.node(id);
                    let (lo, hi) = onto_grid(node.grid, node.range.0, node.range.1);
                    if lo.is_finite() && hi.is_finite() {
                        bounds[id.0] = Bounds { lo: vec![lo; node.len()], hi: vec![hi; node.len()] };
                    }
                }
                bounds
            }
        };
        bounds.iter().all(Bounds::is_finite).then_some(bounds)
    }

    /// The solver's own search, question after question.
    fn search(&self, questions: &[(usize, View<'_>, Question)]) -> Round {
        let share = if self.milp.answers == Answers::Both { 2 } else { 1 };
        let deadline = Instant::now() + self.decision.limit.left() / share;
        let mut unsettled = vec![];
        for (_, view, question) in questions {
            match self.search_one(*view, question, deadline) {
                Ok(Some(witness)) => return Round::Refuted(witness),
                Ok(None) => {}
                Err(why) => unsettled.push(why),
            }
        }
        unsettled.dedup();
        Round::Finished(unsettled)
    }

    /// A witness, the solver's report that there is none, or why it does not tell.
    fn search_one(&self, view: View<'_>, question: &Question, deadline: Instant) -> Result<Option<Witness>, String> {
        let (solver, name) = (&self.milp.solver, self.milp.solver.name());
        for fractional in [true, false] {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.decision.limit.reached().is_some() {
                return Err("time limit".into());
            }
            let answer = solver.search(&question.feasibility(fractional), left);
            let found = answer.point.as_ref().map(|p| question.start.values(p));
            if let Some(witness) = found.and_then(|x| self.confirm(view, &x)) {
                return Ok(Some(witness));
            }
            match answer.status {
                MilpStatus::Infeasible => return Ok(None),
                MilpStatus::Optimal => {}
                MilpStatus::Limit => return Err("time limit".into()),
                MilpStatus::Failed(why) => return Err(why),
            }
        }
        Err(format!("{name} reports a violation that execution does not show"))
    }

    fn prove(&self, g: usize, view: View<'_>, question: &Question, bounded: &mut u64) -> Ended {
        let (solver, judge) = (&*self.milp.solver, GoalOf { programs: self, view, goal: &self.decision.goals[g] });
        let Some(mut tree) = Tree::new(solver, question, &self.decision.limit, &judge) else {
            return Ended::Open {
                why: format!("{} does not take the program of {}", solver.name(), view.profile),
                left: 1,
            };
        };
        let ended = tree.run(self.decision.most_subproblems().saturating_sub(*bounded));
        *bounded += tree.bounded;
        ended
    }

    /// Executes the model's input behind values of the start.
    fn confirm(&self, view: View<'_>, values: &[f64]) -> Option<Witness> {
        let (prepared, limit) = (view.prepared, self.decision.limit.clone());
        let attack = Attack { prepared, root: start(view), score: view.observed, limit };
        self.decision.confirm(&attack.to_input(&self.decision.query.region, values))
    }
}

/// One goal of one net.
struct GoalOf<'g> {
    programs: &'g Programs<'g>,
    view: View<'g>,
    goal: &'g Goal,
}

impl Judge for GoalOf<'_> {
    fn excludes(&self, gap: f64) -> bool {
        self.goal.excluded(gap)
    }

    fn confirm(&self, start: &[f64]) -> Option<Witness> {
        self.programs.confirm(self.view, start)
    }

    fn gap_at(&self, values: &[f64]) -> f64 {
        let given = vec![(start(self.view), Enclosure::exact(values.to_vec()))];
        let run = execute_between(self.view.prepared.net, given, self.view.observed, 1);
        let value = run.value(self.view.observed);
        let (lo, hi) = (0..value.center.len()).map(|i| (value.lo(i), value.hi(i))).unzip();
        self.view.gap_within(self.goal, &Bounds { lo, hi })
    }
}

/// Where a program begins: at the input if that is an integer, else at the last value that is element-wise in it (for a quantized network, its
/// quantized input).
fn start(view: View<'_>) -> NodeId {
    let net = view.prepared.net;
    let input = net.inputs()[0];
    if net.node(input).grid == Grid::Integer { input } else { view.root }
}
