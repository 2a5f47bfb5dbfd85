//! Proved bounds on linear functionals of the output over a region.

use std::sync::Arc;
use std::time::Instant;

use super::{NotAClassifier, Options, Verifier};
use crate::bounds::{
    Branch, Choices, Effort, Extent, Functional, NoBounds, Objective, Prepared, Row, Tuned, Until, analyse_within,
};
use crate::net::NodeId;
use crate::property::Region;

/// Steps uphill, how far the first moves lines, and how much smaller each next step is.
const CLIMBS: usize = 30;
const RATE: f64 = 0.3;
const DECAY: f64 = 0.92;

/// The element numbers and coefficients of a linear functional.
pub type Terms = Vec<(usize, f64)>;

impl Verifier<'_> {
    /// Bounds on functionals of the output, as good as backward passes with tuned lines make them: without branching. Where time is up, what there is.
    ///
    /// # Claim
    /// For every execution that the net allows on an input of the region, each functional is within its bounds.
    ///
    /// # Why
    /// Each is the result of a rigorous walk, of the functional and of its negative; the best of all walks is taken.
    ///
    /// # Errors
    /// If the region or an element does not fit the model.
    pub fn enclose(
        &self,
        region: &Region,
        functionals: &[Terms],
        options: &Options,
    ) -> Result<Vec<(f64, f64)>, NotAClassifier> {
        let most = functionals.iter().flatten().map(|t| t.0).max().unwrap_or(0);
        if most >= self.classes() {
            return Err(NotAClassifier(format!("a functional of output {most} of {} outputs", self.classes())));
        }
        let mut all = vec![(f64::INFINITY, f64::NEG_INFINITY); functionals.len()];
        for (prepared, output) in self.proved_nets() {
            if prepared.net.node(prepared.net.inputs()[0]).len() != region.lo.len() {
                return Err(NotAClassifier(format!("a region of {} elements does not fit the input", region.lo.len())));
            }
            let deadline = Instant::now().checked_add(options.timeout);
            let until = Until { deadline, stop: options.stop.as_deref() };
            for (all, own) in all.iter_mut().zip(of_net(prepared, output, region, functionals, until)) {
                *all = (all.0.min(own.0), all.1.max(own.1));
            }
        }
        Ok(all)
    }
}

fn of_net(
    prepared: &Prepared<'_>,
    output: NodeId,
    region: &Region,
    functionals: &[Terms],
    until: Until<'_>,
) -> Vec<(f64, f64)> {
    let start = prepared.net.inputs()[0];
    let effort = Effort { climbs: CLIMBS, leaves: 1 };
    let extent = Extent { start, region, last: output, all: false, effort, until, journal: None };
    let analysis = match analyse_within(prepared, extent, None) {
        Ok(analysis) => analysis,
        Err(NoBounds::Overflow | NoBounds::Empty) => {
            return vec![(f64::NEG_INFINITY, f64::INFINITY); functionals.len()];
        }
    };
    let choices = Choices::new(prepared, &analysis, output);
    let whole = Branch::whole(Arc::new(choices.best()));
    let signed = |terms: &Terms, sign: f64| {
        let terms = terms.iter().map(|(i, a)| (*i, sign * a)).collect();
        Objective::new(vec![Functional { terms, bound: 0.0 }])
    };
    let both = functionals.iter().flat_map(|f| [signed(f, 1.0), signed(f, -1.0)]);
    let rows = both.map(|objective| Row { objective, branch: &whole }).collect();
    let mut tuned = Tuned::new((prepared, &analysis, &choices), output, rows).with_shares();
    let mut best = vec![f64::NEG_INFINITY; 2 * functionals.len()];
    let mut rate = RATE;
    for climb in 0..=CLIMBS {
        best.iter_mut().zip(tuned.bounds()).for_each(|(b, new)| *b = b.max(new));
        if climb == CLIMBS || until.is_over() {
            break;
        }
        tuned.climb(rate);
        rate *= DECAY;
    }
    best.chunks(2).map(|b| (b[0], -b[1])).collect()
}
