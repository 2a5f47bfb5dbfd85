//! Proved upper bounds on the largest lead of outputs where other outputs are ordered so: branch and bound that is sound whenever it stops.

use std::sync::Arc;

use rayon::prelude::*;

use super::{NotAClassifier, Options, Terms, Verifier};
use crate::bounds::{
    Analysis, Branch, Choices, Cut, Effort, Extent, Functional, NoBounds, Objective, Prepared, Row, Tuned, Until,
    analyse_within,
};
use crate::net::NodeId;
use crate::num::round::{add_up, div_down, div_up, mul_up, sub_down};
use crate::property::Region;

/// A maximum that is asked for: of the least of some functionals of the output, over the executions in which others are not positive.
#[derive(Clone, Debug)]
pub struct Peak {
    /// The largest value of the least of these.
    pub leads: Vec<Terms>,
    /// Only where each of these is at most 0.
    pub given: Vec<Terms>,
    /// The lead that counts most at first.
    pub first: usize,
    /// A bound that is good enough: the largest value that is known to occur, or what nobody gains from going below.
    pub enough: f64,
}

/// How much is done for peaks.
#[derive(Clone, Copy, Debug)]
pub struct PeakEffort {
    /// Parts for each bound on an argument of a function, before the peaks are looked at.
    pub leaves: usize,
    /// Parts for each peak.
    pub parts: usize,
    /// Steps uphill for a whole region.
    pub climbs: usize,
}

/// Steps uphill for a part, and for arguments of functions.
const CLIMBS: usize = 3;
const FRAME_CLIMBS: usize = 20;
const RATE: f64 = 0.3;
const DECAY: f64 = 0.94;
/// Parts that are bounded together, and the share of the weights that leads begin with but for the first.
const ROWS: usize = 128;
const OTHERS: f64 = 0.1;

impl Verifier<'_> {
    /// Upper bounds on peaks over a region.
    ///
    /// # Claim
    /// For every execution that the net allows on an input of the region in which every given functional of a peak is at most 0, some lead of the
    /// peak is at most its bound. A bound of negative infinity says that there is no such execution.
    ///
    /// # Why
    /// With weights w >= 0 of which those of leads sum to W > 0, S <= sum of w_i (- lead_i) + sum of w_j given_j, so W times the least lead is at most -S
    /// where the given functionals are at most 0. Every execution is in some part, and every part has such a bound.
    ///
    /// # Rounding
    /// S is rigorous for the weights as they are; W and the quotient are rounded so that the bound does not fall.
    ///
    /// # Errors
    /// If the region or a functional does not fit the model.
    pub fn peaks(
        &self,
        region: &Region,
        peaks: &[Peak],
        effort: PeakEffort,
        options: &Options,
    ) -> Result<Vec<f64>, NotAClassifier> {
        let terms = peaks.iter().flat_map(|p| p.leads.iter().chain(&p.given)).flatten();
        if let Some(most) = terms.map(|t| t.0).max().filter(|&most| most >= self.classes()) {
            return Err(NotAClassifier(format!("a functional of output {most} of {} outputs", self.classes())));
        }
        let mut all = vec![f64::NEG_INFINITY; peaks.len()];
        for (prepared, output) in self.proved_nets() {
            if prepared.net.node(prepared.net.inputs()[0]).len() != region.lo.len() {
                return Err(NotAClassifier(format!("a region of {} elements does not fit the input", region.lo.len())));
            }
            let deadline = std::time::Instant::now().checked_add(options.timeout);
            let until = Until { deadline, stop: options.stop.as_deref() };
            let own = of_net(prepared, output, region, peaks, (effort, until));
            all.iter_mut().zip(own).for_each(|(a, o)| *a = a.max(o));
        }
        Ok(all)
    }
}

fn of_net(
    prepared: &Prepared<'_>,
    output: NodeId,
    region: &Region,
    peaks: &[Peak],
    (effort, until): (PeakEffort, Until<'_>),
) -> Vec<f64> {
    let start = prepared.net.inputs()[0];
    let frame = Effort { climbs: FRAME_CLIMBS, leaves: effort.leaves };
    let extent = Extent { start, region, last: output, all: false, effort: frame, until, journal: None };
    let analysis = match analyse_within(prepared, extent, None) {
        Ok(analysis) => analysis,
        Err(NoBounds::Overflow) => return vec![f64::INFINITY; peaks.len()],
        Err(NoBounds::Empty) => return vec![f64::NEG_INFINITY; peaks.len()],
    };
    let choices = Choices::new(prepared, &analysis, output);
    let best = Arc::new(choices.best());
    let work = Work { prepared, analysis: &analysis, choices: &choices, output, peaks, effort, until };
    let size = (ROWS.min(peaks.len().div_ceil(rayon::current_num_threads()))).max(1);
    let numbers: Vec<usize> = (0..peaks.len()).collect();
    numbers.par_chunks(size).flat_map_iter(|batch| work.search(batch, &best)).collect()
}

/// A part of the executions, for one peak.
struct Part {
    peak: usize,
    bound: f64,
    branch: Branch,
    weights: Vec<f64>,
    cut: Option<Cut>,
}

/// The parts of one peak.
struct Tree {
    open: Vec<Part>,
    /// The largest bound of a part that cannot be split.
    stuck: f64,
    parts: usize,
}

impl Tree {
    fn bound(&self) -> f64 {
        self.open.iter().map(|p| p.bound).fold(self.stuck, f64::max)
    }
}

struct Work<'w> {
    prepared: &'w Prepared<'w>,
    analysis: &'w Analysis,
    choices: &'w Choices,
    output: NodeId,
    peaks: &'w [Peak],
    effort: PeakEffort,
    until: Until<'w>,
}

impl Work<'_> {
    /// The bounds on some peaks.
    fn search(&self, batch: &[usize], best: &Arc<Vec<u8>>) -> Vec<f64> {
        let whole = |&peak: &usize| Part {
            peak,
            bound: f64::INFINITY,
            branch: Branch::whole(best.clone()),
            weights: first_weights(&self.peaks[peak]),
            cut: None,
        };
        let mut trees: Vec<Tree> =
            batch.iter().map(|_| Tree { open: vec![], stuck: f64::NEG_INFINITY, parts: 1 }).collect();
        let place = |peak: usize| batch.iter().position(|&b| b == peak).unwrap_or(0);
        let mut fresh: Vec<Part> = batch.iter().map(whole).collect();
        let mut climbs = self.effort.climbs;
        while !fresh.is_empty() {
            self.bound(&mut fresh, climbs);
            climbs = CLIMBS;
            for part in fresh.drain(..) {
                let (tree, enough) = (&mut trees[place(part.peak)], self.peaks[part.peak].enough);
                if part.bound > enough && part.cut.is_some() {
                    tree.open.push(part);
                } else {
                    tree.stuck = tree.stuck.max(part.bound);
                }
            }
            fresh = self.halves(batch, &mut trees);
        }
        trees.iter().map(Tree::bound).collect()
    }

    /// The parts to bound next: halves of those that bounds are due to.
    fn halves(&self, batch: &[usize], trees: &mut [Tree]) -> Vec<Part> {
        if self.until.is_over() {
            return vec![];
        }
        let goes_on = |(tree, &peak): (&Tree, &usize)| {
            tree.parts < self.effort.parts
                && tree.bound() > tree.stuck.max(self.peaks[peak].enough)
                && !tree.open.is_empty()
        };
        let going = trees.iter().zip(batch).filter(|t| goes_on((t.0, t.1))).count();
        let most = (ROWS / 2 / going.max(1)).max(1);
        let mut fresh = vec![];
        for (tree, peak) in trees.iter_mut().zip(batch) {
            if !goes_on((tree, peak)) {
                continue;
            }
            tree.open.sort_unstable_by(|a, b| a.bound.total_cmp(&b.bound));
            for _ in 0..most.min(self.effort.parts - tree.parts) {
                let Some(part) = tree.open.pop() else { break };
                let Some(cut) = &part.cut else { unreachable!("parts that cannot be split are not open") };
                tree.parts += 1;
                fresh.extend(cut.iter().map(|split| Part {
                    branch: part.branch.half(split.clone()),
                    weights: part.weights.clone(),
                    cut: None,
                    ..part
                }));
            }
        }
        fresh
    }

    /// Lowers the bounds of parts and says where each should be split.
    fn bound(&self, fresh: &mut [Part], climbs: usize) {
        let objective = |p: &Part| Objective { weights: p.weights.clone(), ..objective(&self.peaks[p.peak], p.bound) };
        let rows = fresh.iter().map(|p| Row { objective: objective(p), branch: &p.branch }).collect();
        let mut tuned = Tuned::new((self.prepared, self.analysis, self.choices), self.output, rows).with_shares();
        let mut rate = RATE;
        for climb in 0..=climbs {
            let sums = tuned.bounds();
            for (row, (part, sum)) in fresh.iter_mut().zip(sums).enumerate() {
                let leads = self.peaks[part.peak].leads.len();
                let found = lead_bound(sum, &tuned.objectives()[row].weights[..leads]);
                if found < part.bound {
                    part.bound = found;
                    part.weights.clone_from(&tuned.objectives()[row].weights);
                }
                tuned.aim(row, leads, -part.bound);
            }
            if climb == climbs || self.until.is_over() {
                break;
            }
            tuned.climb(rate);
            rate *= DECAY;
        }
        if self.effort.parts <= 1 {
            return;
        }
        let cuts = tuned.branch(fresh.iter_mut().map(|p| &mut p.branch).enumerate().collect());
        fresh.iter_mut().zip(cuts).for_each(|(part, cut)| part.cut = cut);
    }
}

/// What a lower bound on the weighted sum of negated leads and given functionals says of the least lead.
fn lead_bound(sum: f64, weights: &[f64]) -> f64 {
    // Weights are at most 1: the sum of n of them is off by a relative n 2^-53 at most.
    let total: f64 = weights.iter().sum();
    if sum.is_nan() || total <= 0.0 {
        return f64::INFINITY;
    }
    let error = mul_up(total, weights.len() as f64 * f64::EPSILON);
    if sum > 0.0 {
        // A negative bound: the larger divisor gives the larger quotient.
        -div_down(sum, add_up(total, error))
    } else {
        div_up(-sum, sub_down(total, error))
    }
}

fn first_weights(peak: &Peak) -> Vec<f64> {
    let (leads, given) = (peak.leads.len(), peak.given.len());
    let others = if leads > 1 { OTHERS } else { 0.0 };
    let lead = |i: usize| if i == peak.first { (1.0 - others) / 2.0 } else { others / 2.0 / (leads - 1) as f64 };
    let first = if given == 0 { 1.0 } else { 0.5 };
    let all = (0..leads).map(|i| 2.0 * first * lead(i)).chain((0..given).map(|_| 0.5 / given as f64));
    all.map(|w| f64::from(w as f32)).collect()
}

fn objective(peak: &Peak, bound: f64) -> Objective {
    let negated = |terms: &Terms| terms.iter().map(|(i, a)| (*i, -a)).collect();
    let aim = if bound.is_finite() { -bound } else { 0.0 };
    let leads = peak.leads.iter().map(|l| Functional { terms: negated(l), bound: aim });
    let given = peak.given.iter().map(|g| Functional { terms: g.clone(), bound: 0.0 });
    Objective::new(leads.chain(given).collect())
}
