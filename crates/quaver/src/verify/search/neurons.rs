//! Parts that are cut off by constraints on arguments of pointwise functions, each for one goal.

use std::sync::Arc;

use super::frame::Frame;
use super::{Part, Search, Step};
use crate::bounds::{Bounds, Cost, Ends, Objective, Split, Tuned};
use crate::net::{Grid, NodeId, Op, ScalarFn};

/// Steps uphill for a part, and for a whole frame.
const CLIMBS: usize = 10;
const FIRST_CLIMBS: usize = 40;
/// How far a step moves a line between its ends, at first; later steps are smaller.
const RATE: f64 = 0.3;
const DECAY: f64 = 0.94;
/// Splits of a part that are tried.
const TRIED: usize = 16;
/// Functionals of one walk.
const ROWS: usize = 256;

/// A part of a frame.
pub(in crate::verify) struct Domain {
    frame: Arc<Frame>,
    goal: usize,
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

    fn child(&self, split: Split) -> Domain {
        let splits = self.splits.iter().cloned().chain([split]).collect();
        let (frame, slopes, weights) = (self.frame.clone(), self.slopes.clone(), self.weights.clone());
        Domain { frame, goal: self.goal, splits, slopes, weights, bound: self.bound }
    }
}

/// The two constraints of a split.
type Cut = [Split; 2];

impl Search<'_> {
    /// Excludes parts of one frame, or splits each.
    pub(super) fn bound_domains(&self, mut domains: Vec<Domain>, step: &mut Step) {
        let first = domains[0].splits.is_empty();
        let frame = domains[0].frame.clone();
        let goals: Vec<usize> = domains.iter().map(|d| d.goal).collect();
        let mut gaps: Vec<f64> = domains.iter().map(|d| d.bound).collect();
        let mut tuned = self.tuned(&frame, &domains);
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
        for (row, domain) in domains.iter_mut().enumerate() {
            domain.bound = gaps[row];
            if self.goals[domain.goal].excluded(gaps[row]) {
                step.exclude(gaps[row]);
                continue;
            }
            let point = tuned.point(self.view.root, row);
            step.witness = self.try_point(&point, domain.goal).0;
            if step.witness.is_some() {
                return;
            }
            domain.slopes = Arc::new(tuned.slopes(row));
            domain.weights = Arc::new(tuned.objectives()[row].weights.clone());
            tuned.betas(row, &mut domain.splits);
            let cuts = self.cuts(domain, tuned.costs(row));
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

    fn tuned<'t>(&'t self, frame: &'t Frame, domains: &[Domain]) -> Tuned<'t> {
        let objective = |d: &Domain| Objective { weights: d.weights.to_vec(), ..self.goals[d.goal].objective() };
        let splits: Vec<Vec<Split>> = domains.iter().map(|d| d.splits.clone()).collect();
        let slopes: Vec<&[f32]> = domains.iter().map(|d| &d.slopes[..]).collect();
        let context = (self.view.prepared, &frame.analysis, &frame.choices);
        Tuned::new(context, self.observed(), domains.iter().map(objective).collect(), &splits, &slopes)
    }

    /// Tries the splits of every part by one walk for each half, and keeps the best of each part.
    fn split(&self, domains: &[Domain], candidates: Vec<(usize, Vec<Cut>)>, step: &mut Step) {
        let mut halves: Vec<Domain> = candidates
            .iter()
            .flat_map(|(row, cuts)| cuts.iter().flatten().map(|s| domains[*row].child(s.clone())))
            .collect();
        for chunk in halves.chunks_mut(ROWS) {
            let frame = chunk[0].frame.clone();
            let goals: Vec<usize> = chunk.iter().map(|d| d.goal).collect();
            let mut gaps: Vec<f64> = chunk.iter().map(|d| d.bound).collect();
            let mut tuned = self.tuned(&frame, chunk);
            self.improve(&mut tuned, &goals, &mut gaps);
            chunk.iter_mut().zip(gaps).for_each(|(d, gap)| d.bound = gap);
        }
        let mut halves = halves.into_iter();
        for (row, cuts) in candidates {
            let parent = domains[row].bound;
            let tried: Vec<Domain> = halves.by_ref().take(2 * cuts.len()).collect();
            let best = tried
                .chunks(2)
                .enumerate()
                .max_by(|a, b| self.worth(parent, a.1).total_cmp(&self.worth(parent, b.1)))
                .map_or(0, |b| b.0);
            let mut pair: Vec<Domain> = tried.into_iter().skip(2 * best).take(2).collect();
            // The half that is nearer to a witness goes on top.
            pair.sort_by(|a, b| b.bound.total_cmp(&a.bound));
            for half in pair {
                if self.goals[half.goal].excluded(half.bound) {
                    step.exclude(half.bound);
                } else {
                    step.open.push(Part::Split(Box::new(half)));
                }
            }
        }
    }

    /// How much a split gains.
    fn worth(&self, parent: f64, halves: &[Domain]) -> f64 {
        // What is gained beyond exclusion is worth nothing.
        let gain = |d: &Domain| d.bound.min(0.0) - parent;
        let (a, b) = (gain(&halves[0]), gain(&halves[1]));
        a.min(b) + 0.1 * a.max(b)
    }

    /// The splits of a part that are worth trying: where the relaxation costs most, at its point and at worst.
    fn cuts(&self, domain: &Domain, mut costs: Vec<Cost>) -> Vec<Cut> {
        let mut chosen: Vec<Cost> = vec![];
        let key: [fn(&Cost) -> f64; 2] = [|c| c.here, |c| c.most];
        for (by, key) in key.into_iter().enumerate() {
            costs.sort_by(|a, b| key(b).total_cmp(&key(a)));
            for cost in costs.iter().filter(|c| key(c) > 0.0) {
                if chosen.len() >= TRIED * (by + 1) / 2 {
                    break;
                }
                if !chosen.iter().any(|c| (c.reader, c.element) == (cost.reader, cost.element)) {
                    chosen.push(*cost);
                }
            }
        }
        chosen.iter().flat_map(|c| self.cuts_of(domain, c)).collect()
    }

    fn cuts_of(&self, domain: &Domain, cost: &Cost) -> Vec<Cut> {
        let Cost { reader, element, at, .. } = *cost;
        let net = self.view.prepared.net;
        let Op::Pointwise(p) = &net.node(reader).op else { return vec![] };
        let (f, grid) = (p.functions.at(element), net.node(p.input).grid);
        let (l, u) = domain.interval(p.input, element);
        let split = |side: f64, at: f64| {
            let interval = if side > 0.0 { (l, at) } else { (at, u) };
            let ends = Ends::new(f, grid, interval.0, interval.1);
            Split { reader, value: p.input, element, at, side, interval, ends, beta: 0.0 }
        };
        places(f, grid, (l, u), at).into_iter().map(|(below, above)| [split(1.0, below), split(-1.0, above)]).collect()
    }
}

/// Where a function on [l, u] may be cut: the last argument of the lower part and the first of the upper.
fn places(f: &ScalarFn, grid: Grid, (l, u): (f64, f64), x: f64) -> Vec<(f64, f64)> {
    let mut all: Vec<(f64, f64)> = f.breaks(grid).filter(|(below, above)| l <= *below && *above <= u).collect();
    all.retain(|(below, above)| *below < u && l < *above);
    if all.len() <= 2 {
        return all;
    }
    // Where the relaxation's point is, and where plateaus end.
    let (first, last) = (all[0], all[all.len() - 1]);
    let nearest = all.iter().min_by(|a, b| (a.0 - x).abs().total_cmp(&(b.0 - x).abs()));
    let mut chosen: Vec<(f64, f64)> = nearest.into_iter().copied().collect();
    let wide = 0.2 * (u - l);
    if first.0 - l > wide {
        chosen.push(first);
    }
    if u - last.1 > wide {
        chosen.push(last);
    }
    chosen
}
