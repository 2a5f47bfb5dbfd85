//! Proved upper bounds on the largest lead of outputs where other outputs are ordered so.

use rayon::prelude::*;

use super::{NotAClassifier, Options, Terms, Verifier};
use crate::bounds::{
    Analysis, Branch, Choices, Effort, Extent, Functional, NoBounds, Objective, Prepared, Row, Tuned, Until,
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
    /// The lead that counts most.
    pub first: usize,
}

/// Steps uphill for bounds on arguments of functions.
const FRAME_CLIMBS: usize = 20;
/// Peaks that are bounded together, and the share of the weights that leads have but for the first.
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
    /// where the given functionals are at most 0. With W = 0 and S > 0 there is no such execution. Each of several choices of weights has such a bound,
    /// and the smallest counts.
    ///
    /// # Rounding
    /// S is rigorous for the weights as they are; W and the quotient are rounded so that the bound does not fall.
    ///
    /// # Errors
    /// If the region or a functional does not fit the model.
    pub fn peaks(&self, region: &Region, peaks: &[Peak], options: &Options) -> Result<Vec<f64>, NotAClassifier> {
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
            let own = of_net(prepared, output, region, peaks, until);
            all.iter_mut().zip(own).for_each(|(a, o)| *a = if o > *a { o } else { *a });
        }
        Ok(all)
    }
}

fn of_net(prepared: &Prepared<'_>, output: NodeId, region: &Region, peaks: &[Peak], until: Until<'_>) -> Vec<f64> {
    let start = prepared.net.inputs()[0];
    let effort = Effort { climbs: FRAME_CLIMBS, leaves: 0 };
    let extent = Extent { start, region, last: output, all: false, effort, until, journal: None };
    let analysis = match analyse_within(prepared, extent, None) {
        Ok(analysis) => analysis,
        Err(NoBounds::Overflow) => return vec![f64::INFINITY; peaks.len()],
        Err(NoBounds::Empty) => return vec![f64::NEG_INFINITY; peaks.len()],
    };
    let choices = Choices::new(prepared, &analysis, output);
    let size = ROWS.min(peaks.len().div_ceil(rayon::current_num_threads())).max(1);
    peaks.par_chunks(size).flat_map_iter(|peaks| bound((prepared, &analysis, &choices), output, peaks)).collect()
}

/// The best bounds of all choices of weights.
fn bound(of: (&Prepared<'_>, &Analysis, &Choices), output: NodeId, peaks: &[Peak]) -> Vec<f64> {
    let whole = Branch::whole(of.2.best().into());
    let mut best = vec![f64::INFINITY; peaks.len()];
    for choice in CHOICES {
        let objective = |p: &Peak| Objective { weights: weights(p, choice), ..objective(p) };
        let rows: Vec<Row<'_>> = peaks.iter().map(|p| Row { objective: objective(p), branch: &whole }).collect();
        let sums = Tuned::new(of, output, rows).with_shares().bounds();
        for ((peak, best), sum) in peaks.iter().zip(&mut best).zip(sums) {
            let found = lead_bound(sum, &weights(peak, choice)[..peak.leads.len()]);
            *best = if found < *best { found } else { *best };
        }
    }
    best
}

/// What a lower bound on the weighted sum of negated leads and given functionals says of the least lead.
fn lead_bound(sum: f64, weights: &[f64]) -> f64 {
    // Weights are at most 1: the sum of n of them is off by a relative n 2^-53 at most.
    let total: f64 = weights.iter().sum();
    if sum.is_nan() {
        return f64::INFINITY;
    }
    if total <= 0.0 {
        return if sum > 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    let error = mul_up(total, weights.len() as f64 * f64::EPSILON);
    if sum > 0.0 {
        // A negative bound: the larger divisor gives the larger quotient.
        -div_down(sum, add_up(total, error))
    } else {
        div_up(-sum, sub_down(total, error))
    }
}

/// How much of the weight is on leads.
const CHOICES: [f64; 3] = [0.5, 1.0, 0.0];

fn weights(peak: &Peak, on_leads: f64) -> Vec<f64> {
    let (leads, given) = (peak.leads.len(), peak.given.len());
    let others = if leads > 1 { OTHERS } else { 0.0 };
    let share = |i: usize| if i == peak.first { 1.0 - others } else { others / (leads - 1) as f64 };
    let all = (0..leads).map(|i| on_leads * share(i)).chain((0..given).map(|_| (1.0 - on_leads) / given as f64));
    all.map(|w| f64::from(w as f32)).collect()
}

fn objective(peak: &Peak) -> Objective {
    let negated = |terms: &Terms| terms.iter().map(|(i, a)| (*i, -a)).collect();
    let leads = peak.leads.iter().map(|l| Functional { terms: negated(l), bound: 0.0 });
    let given = peak.given.iter().map(|g| Functional { terms: g.clone(), bound: 0.0 });
    Objective::new(leads.chain(given).collect())
}
