//! Parts that are cut off by constraints on arguments of pointwise functions, each for one goal.

use std::sync::Arc;

use super::frame::Frame;
use super::{Part, Search, Step};
use crate::bounds::{Bounds, Cut, Objective, Row, Split, Tuned, cuts};
use crate::net::NodeId;

/// Steps uphill for a part, and for a whole frame.
const CLIMBS: usize = 6;
const FIRST_CLIMBS: usize = 40;
/// How far a step moves a line between its ends, at first; later steps are smaller.
const RATE: f64 = 0.3;
const DECAY: f64 = 0.94;
/// Splits of a part that are tried. Where functions jump, one walk for each half says little of what a split is worth in the end, and the first
/// two candidates are better than what a choice among many finds.
const TRIED: usize = 8;
const TRIED_AT_JUMPS: usize = 2;
/// Functionals of one walk.
const ROWS: usize = 256;

/// A part of a frame.
pub(in crate::verify) struct Domain {
    pub frame: Arc<Frame>,
    pub goal: usize,
    splits: Vec<Split>,
    /// Where lines and multipliers stood (see [`Tuned::slopes`]).
    slopes: Arc<Vec<f32>>,
    weights: Arc<Vec<f64>>,
    pub bound: f64,
}

impl Domain {
    pub fn whole(frame: Arc<Frame>, goal: usize, slopes: Vec<f32>, weights: Vec<f64>, bound: f64) -> Self {
        Domain { frame, goal, splits: vec![], slopes: Arc::new(slopes), weights: Arc::new(weights), bound }
    }

    pub fn bytes(&self) -> usize {
        std::mem::size_of::<Split>() * self.splits.len() + 4 * self.slopes.len() / 2
    }

    /// Whether two parts can be bounded in one go.
    pub fn is_like(&self, other: &Domain) -> bool {
        Arc::ptr_eq(&self.frame, &other.frame) && self.splits.is_empty() == other.splits.is_empty()
    }

    /// What the constraints leave of the bounds of the argument of an element.
    fn interval(&self, value: NodeId, element: usize) -> (f64, f64) {
        let own = |s: &&Split| s.value == value && s.element == element;
        let bounds = &self.frame.analysis.bounds[value.0];
        self.splits.iter().rfind(own).map_or((bounds.lo[element], bounds.hi[element]), |s| s.interval)
    }

    /// Bounds on every value that hold in this part.
    fn known(&self) -> Vec<Bounds> {
        let mut bounds = self.frame.analysis.bounds.clone();
        for s in &self.splits {
            let b = &mut bounds[s.value.0];
            (b.lo[s.element], b.hi[s.element]) = (b.lo[s.element].max(s.interval.0), b.hi[s.element].min(s.interval.1));
        }
        bounds
    }

    fn child(&self, split: Split, bound: f64) -> Domain {
        let splits = self.splits.iter().cloned().chain([split]).collect();
        let (frame, slopes, weights) = (self.frame.clone(), self.slopes.clone(), self.weights.clone());
        Domain { frame, goal: self.goal, splits, slopes, weights, bound }
    }
}

impl Search<'_> {
    /// Excludes parts of one frame, or splits each.
    pub(super) fn bound_domains(&self, mut domains: Vec<Domain>, step: &mut Step) {
        let first = domains[0].splits.is_empty();
        let frame = domains[0].frame.clone();
        let goals: Vec<usize> = domains.iter().map(|d| d.goal).collect();
        let mut gaps: Vec<f64> = domains.iter().map(|d| d.bound).collect();
        let mut tuned = self.tuned(&frame, &domains.iter().map(|d| (d, None)).collect::<Vec<_>>());
        let climbs = if first { FIRST_CLIMBS } else { CLIMBS };
        let mut rate = RATE;
        for climb in 0..=climbs {
            self.improve(&mut tuned, &goals, &mut gaps);
            let open = gaps.iter().zip(&goals).any(|(gap, &g)| !self.goals[g].excluded(*gap));
            if !open || climb == climbs || self.limit.reached().is_some() {
                break;
            }
            tuned.climb(rate);
            rate *= DECAY;
        }
        let mut candidates: Vec<(usize, Vec<Cut>)> = vec![];
        let open = |row: &usize| !self.goals[goals[*row]].excluded(gaps[*row]);
        let rows: Vec<usize> = (0..domains.len()).filter(open).collect();
        let points = rows
            .iter()
            .flat_map(|&row| [(tuned.point(self.view.root, row), goals[row]), (tuned.mean(row), goals[row])]);
        let points = points.collect();
        step.witness = self.try_points(points).0;
        if step.witness.is_some() {
            return;
        }
        for (row, domain) in domains.iter_mut().enumerate() {
            domain.bound = gaps[row];
            if self.goals[domain.goal].excluded(gaps[row]) {
                step.exclude(gaps[row]);
                continue;
            }
            domain.slopes = Arc::new(tuned.slopes(row));
            domain.weights = Arc::new(tuned.objectives()[row].weights.clone());
        }
        tuned.note_betas(domains.iter_mut().map(|d| &mut d.splits[..]).collect());
        let costs = tuned.costs(&rows, |row, value, element| domains[row].interval(value, element));
        for (&row, costs) in rows.iter().zip(costs) {
            let domain = &domains[row];
            let tried = |jumps: bool| if jumps { TRIED_AT_JUMPS } else { TRIED };
            let interval = |value: NodeId, element: usize| domain.interval(value, element);
            let cuts = cuts(self.view.prepared.net, interval, costs, tried);
            if cuts.is_empty() {
                let steepness = |i| tuned.steepness(self.view.root, i, row);
                let known = Arc::new(domain.known());
                self.halve(&frame.region, known, vec![domain.goal], gaps[row], &steepness, step);
            } else {
                candidates.push((row, cuts));
            }
        }
        drop(tuned);
        self.split(&domains, candidates, step);
    }

    /// A batch of parts, each with a constraint more if there is one.
    fn tuned<'t>(&'t self, frame: &'t Frame, parts: &[(&Domain, Option<&Split>)]) -> Tuned<'t> {
        let within = &frame.analysis.bounds[self.observed().0];
        let mut rows = Vec::with_capacity(parts.len());
        for &(d, extra) in parts {
            let objective = Objective { weights: d.weights.to_vec(), ..self.goals[d.goal].objective(within) };
            rows.push(Row { objective, splits: &d.splits, extra, slopes: &d.slopes });
        }
        Tuned::new((self.view.prepared, &frame.analysis, &frame.choices), self.observed(), rows)
    }

    /// Tries the splits of every part by one walk for each half, and keeps the best of each part.
    fn split(&self, domains: &[Domain], candidates: Vec<(usize, Vec<Cut>)>, step: &mut Step) {
        let halves: Vec<(&Domain, &Split)> =
            candidates.iter().flat_map(|(row, cuts)| cuts.iter().flatten().map(|s| (&domains[*row], s))).collect();
        let mut found = Vec::with_capacity(halves.len());
        for chunk in halves.chunks(ROWS) {
            let goals: Vec<usize> = chunk.iter().map(|(d, _)| d.goal).collect();
            let mut gaps: Vec<f64> = chunk.iter().map(|(d, _)| d.bound).collect();
            let parts: Vec<_> = chunk.iter().map(|&(d, s)| (d, Some(s))).collect();
            self.improve(&mut self.tuned(&chunk[0].0.frame, &parts), &goals, &mut gaps);
            found.extend(gaps);
        }
        let mut found = found.chunks(2);
        for (row, cuts) in &candidates {
            let parent = &domains[*row];
            let tried = cuts.iter().zip(found.by_ref());
            let worth = |gaps: &[f64]| self.worth(parent.bound, gaps);
            let Some((cut, gaps)) = tried.max_by(|a, b| worth(a.1).total_cmp(&worth(b.1))) else { continue };
            let mut halves: Vec<(&Split, f64)> = cut.iter().zip(gaps.iter().copied()).collect();
            // The half that is nearer to a witness goes on top.
            halves.sort_by(|a, b| b.1.total_cmp(&a.1));
            for (split, gap) in halves {
                if self.goals[parent.goal].excluded(gap) {
                    step.exclude(gap);
                } else {
                    step.open.push(Part::Split(Box::new(parent.child(split.clone(), gap))));
                }
            }
        }
    }

    /// How much a split gains.
    fn worth(&self, parent: f64, gaps: &[f64]) -> f64 {
        // What is gained beyond exclusion is worth nothing.
        let gain = |gap: f64| gap.min(0.0) - parent;
        let (a, b) = (gain(gaps[0]), gain(gaps[1]));
        a.min(b) + 0.1 * a.max(b)
    }
}
