//! Cells: intervals of the sum of an input's elements, which a guard sees for free.

use serde::{Deserialize, Serialize};

use super::exact;
use crate::bounds::Total;

/// Intervals of the sum of an input's elements that together hold every input of a domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cells {
    /// Where cells begin, and the end of the last one.
    #[serde(with = "exact")]
    ends: Vec<f64>,
    /// How far a computed sum may be from the exact one.
    #[serde(with = "exact::one")]
    error: f64,
    /// Whether sums are integers: then a cell ends one before the next begins.
    integers: bool,
}

impl Cells {
    /// Cells of n elements from lo to hi each, so that about as many of some inputs fall into each: `sums` are the sums of theirs. Sums of
    /// integers are exact.
    ///
    /// # Why
    /// Sums of n float64 numbers of magnitude at most m, in any order, are off by less than n^2 m 2^-52.
    pub fn new(n: usize, (lo, hi): (f64, f64), integers: bool, mut sums: Vec<f64>, count: usize) -> Cells {
        let n = n as f64;
        let error = if integers { 0.0 } else { n * n * lo.abs().max(hi.abs()) * 2f64.powi(-51) };
        let mut ends = vec![n * lo];
        sums.retain(|s| s.is_finite());
        sums.sort_unstable_by(f64::total_cmp);
        for i in 1..count.max(1) {
            let Some(&end) = sums.get(i * sums.len() / count) else { break };
            if end > ends[ends.len() - 1] && end < n * hi {
                ends.push(end);
            }
        }
        ends.push(n * hi);
        Cells { ends, error, integers }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len() - 1
    }

    /// Whether there is none: never.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The cell of a computed sum; every number has one.
    pub fn of(&self, sum: f64) -> usize {
        self.ends[1..self.len()].iter().filter(|&&end| sum >= end).count()
    }

    /// Where cells begin, but for the first.
    pub fn borders(&self) -> &[f64] {
        &self.ends[1..self.len()]
    }

    /// Bounds on the exact sums of the inputs of a cell; none where a single cell has all inputs.
    pub fn total(&self, cell: usize) -> Option<Total> {
        let last = if self.integers && cell + 1 < self.len() { 1.0 } else { 0.0 };
        let total = Total { lo: self.ends[cell] - self.error, hi: self.ends[cell + 1] - last + self.error };
        (self.len() > 1).then_some(total)
    }
}
