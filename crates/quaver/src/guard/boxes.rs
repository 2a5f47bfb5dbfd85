//! Bounds that get better by looking at parts of the inputs: boxes, halved where a bound is largest.

use std::time::Instant;

use rayon::prelude::*;

use super::thresholds::{Compared, ThresholdError};
use crate::bounds::Total;
use crate::net::Grid;
use crate::property::Region;
use crate::verify::{Options, Peak, Verifier};

/// A part of the inputs.
struct Part {
    region: Region,
    /// On each peak.
    bounds: Vec<f64>,
}

/// What is known of all inputs: parts that can be halved, and what those had that cannot.
struct Cover {
    open: Vec<Part>,
    closed: Vec<f64>,
}

impl Cover {
    fn bound(&self, peak: usize) -> f64 {
        self.open.iter().map(|p| p.bounds[peak]).fold(self.closed[peak], |a, b| if b > a { b } else { a })
    }

    fn bounds(&self) -> Vec<f64> {
        (0..self.closed.len()).map(|p| self.bound(p)).collect()
    }

    /// The parts to halve: for each peak that is not low enough, where its bound is.
    fn take(&mut self, enough: &[f64], most: usize) -> Vec<Part> {
        let mut wanted: Vec<(f64, usize)> = (0..self.closed.len())
            .filter(|&p| self.bound(p) > enough[p] && self.bound(p) > self.closed[p])
            .map(|p| (self.bound(p) - enough[p], p))
            .collect();
        wanted.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let mut taken = vec![];
        for (_, peak) in wanted {
            if taken.len() >= most {
                break;
            }
            // Where another peak's part was taken already, the next round finds out what is left.
            let at =
                (0..self.open.len()).max_by(|&a, &b| self.open[a].bounds[peak].total_cmp(&self.open[b].bounds[peak]));
            let Some(at) = at.filter(|&at| self.open[at].bounds[peak] > enough[peak]) else { continue };
            taken.push(self.open.swap_remove(at));
        }
        taken
    }
}

impl Compared {
    /// Bounds on peaks over all inputs with a total, from as many boxes as are given; a bound that is `enough` gets no better.
    ///
    /// # Claim
    /// As [`Verifier::peaks`], for every input of the region with a sum in the total.
    ///
    /// # Why
    /// Every such input is in some part: the halves of a box hold all of its inputs (of integers, all whole ones), and a part whose sums are all outside of
    /// the total has none.
    pub(super) fn by_boxes(
        &self,
        verifier: &Verifier<'_>,
        (peaks, total): (&[Peak], Option<Total>),
        (boxes, enough): (usize, &[f64]),
        options: &Options,
    ) -> Result<Vec<f64>, ThresholdError> {
        let deadline = Instant::now().checked_add(options.timeout);
        let is_over = || deadline.is_some_and(|d| Instant::now() >= d);
        let of = |region: &Region| verifier.peaks(region, peaks, options);
        let first = Part { region: self.region().clone(), bounds: of(self.region())? };
        let mut cover = Cover { open: vec![first], closed: vec![f64::NEG_INFINITY; peaks.len()] };
        let mut used = 1;
        while used < boxes && !is_over() {
            let parts = cover.take(enough, (boxes - used).min(4 * rayon::current_num_threads()));
            if parts.is_empty() {
                break;
            }
            used += parts.len();
            let halved = parts.par_iter().map(|part| self.halve(part, total, &of)).collect::<Result<Vec<_>, _>>()?;
            for (part, halves) in parts.into_iter().zip(halved) {
                match halves {
                    Some(halves) => cover.open.extend(halves),
                    None => {
                        cover.closed.iter_mut().zip(part.bounds).for_each(|(c, b)| *c = if b > *c { b } else { *c })
                    }
                }
            }
        }
        Ok(cover.bounds())
    }

    /// Both halves of a part that have inputs; `None` if it is one input.
    fn halve<E>(
        &self,
        part: &Part,
        total: Option<Total>,
        bounds: &impl Fn(&Region) -> Result<Vec<f64>, E>,
    ) -> Result<Option<Vec<Part>>, E> {
        let Region { lo, hi } = &part.region;
        let width = |&i: &usize| hi[i] - lo[i];
        let Some(widest) = (0..lo.len()).max_by(|a, b| width(a).total_cmp(&width(b))).filter(|i| width(i) > 0.0) else {
            return Ok(None);
        };
        let middle = lo[widest] + (hi[widest] - lo[widest]) / 2.0;
        let net = &self.lowered().net;
        let (below, above) = match net.node(net.inputs()[0]).grid {
            Grid::Integer => (middle.floor(), middle.floor() + 1.0),
            Grid::Float32 | Grid::Real => (middle, middle),
        };
        let half = |lo: f64, hi: f64| {
            let mut region = part.region.clone();
            (region.lo[widest], region.hi[widest]) = (lo, hi);
            region
        };
        let halves = [half(lo[widest], below), half(above, hi[widest])];
        let made = halves.into_iter().filter(|r| total.is_none_or(|t| t.meets(r))).map(|region| {
            let mut found = bounds(&region)?;
            // A half has no input that the whole has not.
            found.iter_mut().zip(&part.bounds).for_each(|(f, b)| *f = if *b < *f { *b } else { *f });
            Ok(Part { bounds: found, region })
        });
        made.collect::<Result<_, E>>().map(Some)
    }
}
