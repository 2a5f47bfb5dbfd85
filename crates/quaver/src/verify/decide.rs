//! The order in which a claim is decided.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::attack::{self, Attack, Confirm};
use super::confirm::{confirm, is_exact};
use super::goal::{Goal, Row, margin};
use super::search::{Outcome, Search};
use super::{Engine, Limit, NotAClassifier, Options, Proof, Unfinished, Verdict, Witness, milp};
use crate::bounds::{Analysis, Bounds, Prepared, Total, analyse_until, interval_until, lower_bounds};
use crate::certificate::Tracer;
use crate::model::lower::Lowered;
use crate::net::{Grid, Net, NodeId};
use crate::property::{Query, Robustness, score};

/// Where the lower lines are chosen, one after the other until all goals are excluded: each choice is valid, the best bound counts.
pub(super) const PLACES: [f64; 5] = [0.5, 0.3, 0.7, 0.0, 1.0];

/// Multiplications of one execution from which on linear bounds cost more than an attack.
const COSTLY: usize = 1_000_000;

/// Candidates of an attack that turn out to be no witnesses, after which no more are executed in unbounded precision: where two networks give the
/// same numbers everywhere, every input looks like one.
const FAILED: usize = 200;

/// Decides claims about one model; facts about its net are made once.
#[derive(Debug)]
pub struct Verifier<'a> {
    /// The net that bounds are about.
    bounded: Subject<'a>,
    /// Where a witness may be executed and searched for: the members of an envelope; none for the net itself.
    members: Vec<Subject<'a>>,
    /// Whether a proof for each member is a proof.
    is_conjunction: bool,
}

/// A net that claims are about.
#[derive(Debug)]
struct Subject<'a> {
    profile: &'a str,
    prepared: Prepared<'a>,
    output: NodeId,
    /// The earliest value whose order of elements is the order of the outputs.
    score: NodeId,
}

/// A subject, seen for one query.
#[derive(Clone, Copy)]
pub(super) struct View<'v> {
    pub profile: &'v str,
    pub prepared: &'v Prepared<'v>,
    /// The last value that is still element-wise in the input: where search and attack begin.
    pub root: NodeId,
    /// The value that the goals are about.
    pub observed: NodeId,
}

impl<'a> Subject<'a> {
    fn new(lowered: &'a Lowered, total: Option<Total>) -> Result<Self, NotAClassifier> {
        let net = &lowered.net;
        let (&[_], &[output]) = (net.inputs(), net.outputs()) else {
            let found = format!("{} inputs and {} outputs", net.inputs().len(), net.outputs().len());
            return Err(NotAClassifier(format!("the claim is about one input and one output; the model has {found}")));
        };
        let prepared = total.map_or_else(|| Prepared::new(net), |total| Prepared::within(net, total));
        Ok(Subject { profile: &lowered.profile, score: score(net, output), output, prepared })
    }

    fn net(&self) -> &'a Net {
        self.prepared.net
    }

    /// Goals that compare outputs are about the value that decides their order.
    fn view(&self, goals: &[Goal]) -> View<'_> {
        let compare = goals.iter().flat_map(Goal::stated).all(Row::is_comparison);
        let observed = if compare { self.score } else { self.output };
        let prepared = &self.prepared;
        View { profile: self.profile, root: attack::root(prepared, observed), observed, prepared }
    }
}

impl<'a> Verifier<'a> {
    /// Prepares a model.
    ///
    /// # Errors
    /// If the model has not one input and one output.
    pub fn new(lowered: &'a Lowered) -> Result<Self, NotAClassifier> {
        Verifier::within(lowered, None)
    }

    /// Prepares a model for inputs whose elements have a sum within bounds, where there are any: the others are outside of every region.
    ///
    /// # Errors
    /// If the model has not one input and one output.
    pub fn within(lowered: &'a Lowered, total: Option<Total>) -> Result<Self, NotAClassifier> {
        let bounded = Subject::new(lowered, total)?;
        let members = lowered.members.iter().map(|l| Subject::new(l, total)).collect::<Result<_, _>>()?;
        Ok(Verifier { bounded, members, is_conjunction: lowered.is_conjunction })
    }

    /// Number of elements of the output.
    pub fn classes(&self) -> usize {
        self.bounded.net().node(self.bounded.output).len()
    }

    /// Decides one claim about the classes.
    ///
    /// # Errors
    /// If there are fewer than two classes or the label is not one of them.
    pub fn robustness(&self, claim: &Robustness, options: &Options) -> Result<Verdict, NotAClassifier> {
        let classes = self.classes();
        if classes < 2 || claim.label >= classes {
            return Err(NotAClassifier(format!("label {} of {classes} classes", claim.label)));
        }
        self.decide(&claim.query(classes), options)
    }

    /// Decides whether a forbidden output can occur.
    ///
    /// # Errors
    /// If the region or a constraint does not fit the model's input or output.
    pub fn decide(&self, query: &Query, options: &Options) -> Result<Verdict, NotAClassifier> {
        self.check(query)?;
        let goals: Vec<Goal> = query.forbidden.iter().map(Goal::new).collect();
        let decision = Decision { verifier: self, query, goals, options, limit: Limit::new(options) };
        Ok(match &options.engine {
            Engine::Search => decision.run(),
            Engine::Milp(milp) => milp::decide(&decision, milp),
        })
    }

    fn check(&self, query: &Query) -> Result<(), NotAClassifier> {
        let net = self.bounded.net();
        let (inputs, outputs) = (net.node(net.inputs()[0]).len(), self.classes());
        if query.region.lo.len() != inputs || query.region.hi.len() != inputs {
            return Err(NotAClassifier(format!("a region of {} elements for {inputs} inputs", query.region.lo.len())));
        }
        let elements = query.forbidden.iter().flat_map(|p| &p.constraints).flat_map(|c| &c.terms);
        match elements.map(|t| t.0).max() {
            Some(most) if most >= outputs => {
                Err(NotAClassifier(format!("a constraint on output {most} of {outputs} outputs")))
            }
            _ => Ok(()),
        }
    }

    /// The nets that run: those of an envelope's members, else the net itself.
    fn executed(&self) -> &[Subject<'a>] {
        if self.members.is_empty() { std::slice::from_ref(&self.bounded) } else { &self.members }
    }

    /// The nets that bounds must be proved for, with their outputs.
    pub(super) fn proved_nets(&self) -> impl Iterator<Item = (&Prepared<'a>, NodeId)> {
        self.proved().iter().map(|s| (&s.prepared, s.output))
    }

    /// The nets that bounds must be proved for: each of a conjunction's members, else the net that allows everything.
    fn proved(&self) -> &[Subject<'a>] {
        if self.is_conjunction && !self.members.is_empty() {
            &self.members
        } else {
            std::slice::from_ref(&self.bounded)
        }
    }
}

/// One claim on its way to a verdict.
pub(super) struct Decision<'d, 'a> {
    verifier: &'d Verifier<'a>,
    pub query: &'d Query,
    pub goals: Vec<Goal>,
    options: &'d Options,
    pub limit: Limit,
}

impl Decision<'_, '_> {
    fn run(&self) -> Verdict {
        let confirm = |x: &[f64]| self.confirm(x);
        let tracer = self.options.tracer.as_deref();
        if let Some(tracer) = tracer
            && self.verifier.proved().iter().any(|s| s.prepared.compares_unlike())
        {
            tracer.has_no_step("bounds on the difference of functions that are not the same hinge");
        }
        let mut gaps = Gaps { best: vec![f64::INFINITY; self.goals.len()], method: "intervals" };
        self.proved().for_each(|v| gaps.meet(self.by_intervals(v)));
        // Intervals have no step that a tracer could be told of.
        if tracer.is_none() && gaps.all_excluded(&self.goals) {
            return Verdict::Holds(gaps.proof(0));
        }
        if let Some(witness) = self.query.candidates.iter().find_map(|c| confirm(c)) {
            return Verdict::Violated(witness);
        }
        // Where linear bounds cost more than an attack, the attack goes first.
        let costly = self.verifier.bounded.net().multiplications() > COSTLY;
        if costly && let Some(witness) = self.attack(&gaps, &confirm) {
            return Verdict::Violated(witness);
        }
        let linear = self.linear(tracer);
        if tracer.is_some() && linear.all_excluded(&self.goals) {
            return Verdict::Holds(linear.proof(0));
        }
        gaps.improve(linear);
        if tracer.is_none() && gaps.all_excluded(&self.goals) {
            return Verdict::Holds(gaps.proof(0));
        }
        if !costly && let Some(witness) = self.attack(&gaps, &confirm) {
            return Verdict::Violated(witness);
        }
        self.search(gaps, &confirm)
    }

    /// Linear bounds: the best of several choices of lines, or for a tracer those with default lines.
    fn linear(&self, tracer: Option<&dyn Tracer>) -> Gaps {
        let mut linear = Gaps { best: vec![f64::INFINITY; self.goals.len()], method: "linear bounds" };
        match tracer {
            Some(tracer) => linear.meet(self.told_lines(tracer)),
            None => self.proved().for_each(|v| linear.meet(self.by_lines(v))),
        }
        linear
    }

    /// Linear bounds with default lines, for a single net; a tracer is told of them where they exclude every goal.
    fn told_lines(&self, tracer: &dyn Tracer) -> Vec<f64> {
        let (nothing, limit) = (vec![f64::NEG_INFINITY; self.goals.len()], Some(self.limit.deadline));
        let [subject] = self.verifier.proved() else { return nothing };
        let view = subject.view(&self.goals);
        let goals: Vec<&Goal> = self.goals.iter().collect();
        let Some(analysis) = analyse_until(view.prepared, &self.query.region, limit) else { return nothing };
        let by_row = view.gaps_of_rows(&analysis, &goals);
        if goals.iter().zip(&by_row).all(|(goal, (gap, _))| goal.excluded(*gap)) {
            let steps = goals.iter().zip(&by_row).enumerate();
            steps.for_each(|(number, (goal, (_, row)))| tracer.close(0, number, &goal.only(*row), None));
        }
        by_row.into_iter().map(|g| g.0).collect()
    }

    /// Branch and bound for the goals that are open (for a tracer: for all), net by net.
    fn search(&self, mut gaps: Gaps, confirm: Confirm) -> Verdict {
        let mut subproblems = 0;
        let undecided = |bound: f64, why: &str, subproblems, open| {
            Verdict::Undecided(Unfinished { bound, why: why.into(), subproblems, open })
        };
        if self.options.subproblems == 0 {
            let why = self.limit.reached().unwrap_or("the bounds are too loose and the attack found nothing");
            return undecided(gaps.least(), why, 0, 1);
        }
        let open: Vec<usize> = match &self.options.tracer {
            None => gaps.open_indices(&self.goals).collect(),
            Some(tracer) => {
                if self.verifier.proved().len() > 1 {
                    tracer.has_no_step("a proof for several networks at once");
                }
                (0..self.goals.len()).collect()
            }
        };
        let mut least = f64::INFINITY;
        for view in self.proved() {
            let attack = Attack { limit: self.limit.clone(), ..self.attacker(view) };
            let goals = open.iter().map(|&g| &self.goals[g]).collect();
            let (region, limit, options) = (&self.query.region, &self.limit, self.options);
            let space = attack.space(region);
            let nearest = Mutex::new(vec![f64::INFINITY; open.len()]);
            let subproblems_here = AtomicU64::new(0);
            let search = Search {
                view,
                region,
                goals,
                attack,
                confirm,
                limit,
                options,
                subproblems: subproblems_here,
                space,
                nearest,
            };
            let outcome = search.run();
            subproblems += search.subproblems.into_inner();
            match outcome {
                Outcome::Excluded(gap) => least = least.min(gap),
                Outcome::Found(witness) => return Verdict::Violated(witness),
                Outcome::Stopped { bound, why, open: parts } => {
                    // What was found for one net says nothing of those that were not searched.
                    if self.verifier.proved().len() == 1 {
                        gaps.raise(&open, bound);
                    }
                    return undecided(gaps.least(), why, subproblems, parts);
                }
            }
        }
        gaps.raise(&open, least);
        gaps.method = "branch and bound";
        Verdict::Holds(gaps.proof(subproblems))
    }

    pub fn most_subproblems(&self) -> u64 {
        self.options.subproblems
    }

    pub fn proved(&self) -> impl Iterator<Item = View<'_>> {
        self.verifier.proved().iter().map(|s| s.view(&self.goals))
    }

    pub fn confirm(&self, input: &[f64]) -> Option<Witness> {
        let inside = self.query.inside.as_ref().map(|r| r.clamp(input));
        let input = inside.as_deref().unwrap_or(input);
        if self.verifier.bounded.prepared.total.is_some_and(|total| !total.contains(input)) {
            return None;
        }
        let executed = self.verifier.executed().iter();
        executed.into_iter().find_map(|s| confirm(s.net(), s.profile, self.query, &self.goals, input))
    }

    pub fn attack(&self, gaps: &Gaps, confirm: Confirm) -> Option<Witness> {
        let open: Vec<&Goal> = gaps.open(&self.goals).collect();
        self.verifier.executed().iter().filter(|_| self.options.attack).find_map(|s| {
            let failed = AtomicUsize::new(0);
            let is_slow = s.net().node(s.output).grid != Grid::Integer && is_exact(s.net());
            let confirm = |x: &[f64]| {
                if is_slow && failed.load(Ordering::Relaxed) >= FAILED {
                    return None;
                }
                confirm(x).or_else(|| (failed.fetch_add(1, Ordering::Relaxed), None).1)
            };
            self.attacker(s.view(&self.goals)).run(&self.query.region, &open, self.options.seed, &confirm)
        })
    }

    fn attacker<'v>(&self, view: View<'v>) -> Attack<'v> {
        // Half of the time is left to the bounds.
        let limit = Limit { deadline: self.limit.deadline - self.options.timeout / 2, ..self.limit.clone() };
        Attack { prepared: view.prepared, root: view.root, score: view.observed, limit }
    }

    pub fn by_intervals(&self, view: View<'_>) -> Vec<f64> {
        let bounds = &interval_until(view.prepared.net, &self.query.region, view.observed)[view.observed.0];
        self.goals.iter().map(|g| view.gap_within(g, bounds)).collect()
    }

    /// Linear bounds, as good as time allows, with the lower lines chosen in several ways: each choice is valid, the best bound counts.
    pub fn by_lines(&self, view: View<'_>) -> Vec<f64> {
        let goals: Vec<&Goal> = self.goals.iter().collect();
        let mut best = vec![f64::NEG_INFINITY; goals.len()];
        let deadline = Some(self.limit.deadline);
        let Some(mut analysis) = analyse_until(view.prepared, &self.query.region, deadline) else { return best };
        for place in PLACES {
            if place != PLACES[0] {
                analysis.choose_lines(view.prepared, place);
            }
            best.iter_mut().zip(view.gaps(&analysis, &goals)).for_each(|(b, n)| *b = b.max(n));
            if goals.iter().zip(&best).all(|(g, b)| g.excluded(*b)) || self.limit.reached().is_some() {
                break;
            }
        }
        best
    }
}

impl View<'_> {
    /// The gap of a goal's best row, given bounds on each element.
    pub fn gap_within(&self, goal: &Goal, bounds: &Bounds) -> f64 {
        let least = |a: f64, i: usize| {
            let end = if a >= 0.0 { bounds.lo[i] } else { bounds.hi[i] };
            crate::num::round::mul_down(a, end)
        };
        let sum = |terms: &[(usize, f64)]| {
            terms.iter().fold(0.0, |sum, &(i, a)| crate::num::round::add_down(sum, least(a, i)))
        };
        self.gap(goal, bounds, |row| sum(&goal.rows[row].terms)).0
    }

    /// The gap of a goal's best row, and which it is, given a lower bound on the sum of each.
    fn gap(&self, goal: &Goal, observed: &Bounds, sum: impl Fn(usize) -> f64) -> (f64, usize) {
        let grid = self.prepared.net.node(self.observed).grid;
        let gap = |r: usize| (goal.rows[r].gap(sum(r), goal.rows[r].bound_within(observed), grid), r);
        let larger = |best: (f64, usize), next: (f64, usize)| if next.0 > best.0 { next } else { best };
        (0..goal.rows.len()).map(gap).fold((f64::NEG_INFINITY, 0), larger)
    }

    /// The gap of each goal by one backward pass.
    pub fn gaps(&self, analysis: &Analysis, goals: &[&Goal]) -> Vec<f64> {
        self.gaps_of_rows(analysis, goals).into_iter().map(|g| g.0).collect()
    }

    /// The gap of each goal's best row by one backward pass, and which row it is.
    pub fn gaps_of_rows(&self, analysis: &Analysis, goals: &[&Goal]) -> Vec<(f64, usize)> {
        let (place, coefficients) = self.functionals(goals);
        let count = coefficients.len() / self.prepared.net.node(self.observed).len().max(1);
        let sums = lower_bounds(self.prepared, analysis, self.observed, coefficients, count);
        let mut first = 0;
        let of = |goal: &&Goal| {
            let own: Vec<f64> = place[first..first + goal.rows.len()].iter().map(|&p| sums[p]).collect();
            first += goal.rows.len();
            self.gap(goal, &analysis.bounds[self.observed.0], |r| own[r])
        };
        goals.iter().map(of).collect()
    }

    /// The functionals of all rows, none twice: goals about classes have most in common. For each row the number of its own, and all coefficients.
    fn functionals(&self, goals: &[&Goal]) -> (Vec<usize>, Vec<f64>) {
        let n = self.prepared.net.node(self.observed).len();
        let (mut known, mut coefficients) = (HashMap::new(), vec![]);
        let mut number = |row: &Row| {
            let bits: Vec<(usize, u64)> = row.terms.iter().map(|(i, a)| (*i, a.to_bits())).collect();
            *known.entry(bits).or_insert_with(|| {
                let first = coefficients.len();
                coefficients.resize(first + n, 0.0);
                row.terms.iter().for_each(|(i, a)| coefficients[first + i] = *a);
                first / n
            })
        };
        let place = goals.iter().flat_map(|g| &g.rows).map(&mut number).collect();
        (place, coefficients)
    }
}

/// Proved lower bounds on the gap of each goal: the smallest over several nets.
pub(super) struct Gaps {
    pub best: Vec<f64>,
    pub method: &'static str,
}

impl Gaps {
    /// Bounds for another net that the claim must hold for, too.
    pub fn meet(&mut self, other: Vec<f64>) {
        self.best.iter_mut().zip(other).for_each(|(b, n)| *b = b.min(n));
    }

    /// Other bounds for the same nets.
    pub fn improve(&mut self, other: Gaps) {
        self.best.iter_mut().zip(other.best).for_each(|(b, n)| *b = b.max(n));
        self.method = other.method;
    }

    /// A bound that was proved for some goals.
    fn raise(&mut self, goals: &[usize], bound: f64) {
        goals.iter().for_each(|&g| self.best[g] = self.best[g].max(bound));
    }

    /// The margin that all gaps together prove.
    pub fn least(&self) -> f64 {
        margin(self.best.iter().copied().fold(f64::INFINITY, f64::min))
    }

    pub fn open<'g>(&self, goals: &'g [Goal]) -> impl Iterator<Item = &'g Goal> {
        self.open_indices(goals).map(|i| &goals[i])
    }

    fn open_indices(&self, goals: &[Goal]) -> impl Iterator<Item = usize> {
        (0..goals.len()).filter(|&i| !goals[i].excluded(self.best[i]))
    }

    pub fn all_excluded(&self, goals: &[Goal]) -> bool {
        self.open(goals).next().is_none()
    }

    /// Only for gaps that exclude every goal.
    pub fn proof(&self, subproblems: u64) -> Proof {
        Proof { margin: self.least(), method: self.method, subproblems }
    }
}
