//! Parts that are cut off by constraints on arguments of pointwise functions, each for one goal.

use std::sync::Arc;

use super::frame::Frame;
use super::{Part, Search, Step, inputs, trace};
use crate::bounds::{Bounds, Branch, Objective, Row, Split, Tuned};
use crate::certificate::Tracer;

/// Steps uphill for a part, and for a whole frame.
const CLIMBS: usize = 4;
const FIRST_CLIMBS: usize = 40;
/// How far a step moves a line between its ends, at first; later steps are smaller.
const RATE: f64 = 0.3;
const DECAY: f64 = 0.94;
/// Parts of a batch whose relaxation's points are executed.
const EXECUTED: usize = 16;

/// A part of a frame.
pub(in crate::verify) struct Domain {
    pub frame: Arc<Frame>,
    pub goal: usize,
    branch: Branch,
    /// Of the goal's rows, where they stood.
    weights: Arc<Vec<f64>>,
    pub bound: f64,
    /// The tracer's number.
    number: u64,
}

impl Domain {
    pub fn whole(frame: Arc<Frame>, goal: usize, slopes: Arc<Vec<u8>>, weights: Vec<f64>, bound: f64) -> Self {
        let number = frame.number;
        Domain { frame, goal, branch: Branch::whole(slopes), weights: Arc::new(weights), bound, number }
    }

    pub fn bytes(&self) -> usize {
        std::mem::size_of::<Split>() * self.branch.splits.len() + self.branch.slopes.len() / 2
    }

    /// Whether two parts can be bounded in one go.
    pub fn is_like(&self, other: &Domain) -> bool {
        Arc::ptr_eq(&self.frame, &other.frame) && self.branch.splits.is_empty() == other.branch.splits.is_empty()
    }

    /// Bounds on every value that hold in this part.
    fn known(&self) -> Vec<Bounds> {
        let mut bounds = self.frame.analysis.bounds.clone();
        for s in &self.branch.splits {
            let b = &mut bounds[s.value.0];
            (b.lo[s.element], b.hi[s.element]) = (b.lo[s.element].max(s.interval.0), b.hi[s.element].min(s.interval.1));
        }
        bounds
    }

    fn child(&self, split: Split, number: u64) -> Domain {
        let (frame, weights) = (self.frame.clone(), self.weights.clone());
        Domain { frame, goal: self.goal, branch: self.branch.half(split), weights, bound: self.bound, number }
    }
}

impl Search<'_> {
    /// Excludes parts of one frame, or splits each.
    ///
    /// # Panics
    /// If they are not of one frame: bounds of one say nothing of a part of another.
    pub(super) fn bound_domains(&self, mut domains: Vec<Domain>, step: &mut Step) {
        assert!(domains.iter().all(|d| d.is_like(&domains[0])), "parts of several frames");
        let first = domains[0].branch.splits.is_empty();
        let frame = domains[0].frame.clone();
        let goals: Vec<usize> = domains.iter().map(|d| d.goal).collect();
        let mut gaps: Vec<f64> = domains.iter().map(|d| d.bound).collect();
        let mut tuned = self.tuned(&frame, &domains);
        let climbs = if first { FIRST_CLIMBS } else { CLIMBS };
        let mut rate = RATE;
        for climb in 0..=climbs {
            let before = self.tracer().map(|tracer| (tracer, gaps.clone()));
            self.improve(&mut tuned, &goals, &mut gaps);
            if let Some((tracer, before)) = before {
                self.trace_closed(tracer, &tuned, &mut domains, (&before, &gaps));
            }
            let open = gaps.iter().zip(&goals).any(|(gap, &g)| !self.goals[g].excluded(*gap));
            if !open || climb == climbs || self.limit.reached().is_some() {
                break;
            }
            tuned.climb(rate);
            rate *= DECAY;
        }
        let open = |row: &usize| !self.goals[goals[*row]].excluded(gaps[*row]);
        let rows: Vec<usize> = (0..domains.len()).filter(open).collect();
        let mut nearest = rows.clone();
        nearest.sort_by(|&a, &b| gaps[a].total_cmp(&gaps[b]));
        nearest.truncate(EXECUTED);
        let points = nearest
            .iter()
            .flat_map(|&row| [(tuned.point(self.view.root, row), goals[row]), (tuned.mean(row), goals[row])])
            .collect();
        step.witness = self.try_points(points).0;
        if step.witness.is_some() {
            return;
        }
        let mut left = vec![];
        for (row, domain) in domains.iter_mut().enumerate() {
            domain.bound = gaps[row];
            if self.goals[domain.goal].excluded(gaps[row]) {
                step.exclude(gaps[row]);
                continue;
            }
            domain.weights = Arc::new(tuned.objectives()[row].weights.clone());
            left.push((row, &mut domain.branch));
        }
        let cuts = tuned.branch(left);
        for (&row, cut) in rows.iter().zip(cuts) {
            let domain = &domains[row];
            match cut {
                Some(cut) => {
                    let told = || trace::cut(self.view.prepared.net, [&cut[0], &cut[1]]);
                    let numbers = self.tracer().map_or([0, 0], |t| t.cut(domain.number, domain.goal, told()));
                    let halves = cut.into_iter().zip(numbers).map(|(s, n)| Part::Split(Box::new(domain.child(s, n))));
                    step.open.extend(halves);
                }
                None => {
                    let steepness = |i| tuned.steepness(self.view.root, i, row);
                    let (region, known) = (frame.region.clone(), domain.known());
                    self.halve(
                        inputs::Part::of_frame(region, known, domain.goal, gaps[row], domain.number),
                        &steepness,
                        step,
                    );
                }
            }
        }
    }

    /// Tells of parts that the last walk has closed.
    fn trace_closed(
        &self,
        tracer: &dyn Tracer,
        tuned: &Tuned<'_>,
        domains: &mut [Domain],
        (before, after): (&[f64], &[f64]),
    ) {
        for (row, d) in domains.iter_mut().enumerate() {
            let goal = self.goals[d.goal];
            if goal.excluded(after[row]) && !goal.excluded(before[row]) {
                tuned.note(&mut [(row, &mut d.branch)]);
                tracer.close(d.number, d.goal, &tuned.objectives()[row].weights, Some(trace::choice(&d.branch)));
            }
        }
    }

    /// A batch of parts.
    fn tuned<'t>(&'t self, frame: &'t Frame, parts: &[Domain]) -> Tuned<'t> {
        let within = &frame.analysis.bounds[self.observed().0];
        let row = |d: &'_ Domain| Objective { weights: d.weights.to_vec(), ..self.goals[d.goal].objective(within) };
        let rows = parts.iter().map(|d| Row { objective: row(d), branch: &d.branch }).collect();
        Tuned::new((self.view.prepared, &frame.analysis, &frame.choices), self.observed(), rows)
    }
}
