//! How far a quantized network q can lead with a class that the float network f does not give, over every input.
//!
//! For classes c and k, D(c, k) is the largest q_c - q_k where f_c <= f_k, and L(c, k) the largest least lead of c in q, over every other class, where
//! f_c <= f_k. If q leads with c over every k by more than D(c, k), or its least lead is above L(c, k), then f gives c.
//!
//! # Source
//! Kabaha and Drachsler Cohen, Quantization with Guaranteed Floating-Point Neural Network Classifications (OOPSLA 2025), definition (1): their d_c
//! is the largest L(c, k). One number for each pair, and for cells of inputs, is ours.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::exact;
use crate::bounds::Total;
use crate::model::lower::Lowered;
use crate::net::Quantization;
use crate::property::Region;
use crate::property::equivalence::{InputGrid, Pair, PairError};
use crate::verify::{NotAClassifier, Options, Peak, Terms, Verifier};

/// Two networks side by side: outputs of f, then of q.
#[derive(Debug)]
pub struct Compared {
    lowered: Lowered,
    region: Region,
    classes: usize,
    /// What q's outputs mean: their scale, where they are integers.
    scale: f64,
}

/// Why thresholds cannot be asked for.
#[derive(Debug, thiserror::Error)]
pub enum ThresholdError {
    /// The networks do not fit each other.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// They are no classifiers, or the region does not fit.
    #[error(transparent)]
    NotAClassifier(#[from] NotAClassifier),
    /// The scores of q cannot be compared.
    #[error("{problem}\n  what to do: {cure}")]
    Refused {
        /// What does not fit.
        problem: String,
        /// How to get further.
        cure: String,
    },
}

/// Upper bounds for one cell of inputs; row-major by class c and rival k, 0 on the diagonal. Negative infinity where f never gives k before c.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bounds {
    /// D(c, k).
    #[serde(with = "exact")]
    pub pair: Vec<f64>,
    /// L(c, k).
    #[serde(with = "exact")]
    pub least: Vec<f64>,
}

impl Compared {
    /// Puts a float network and a quantized one on the inputs of a box.
    ///
    /// # Errors
    /// If they do not fit each other, or q's outputs are integers of different scales.
    pub fn new(
        f: Arc<Lowered>,
        q: Arc<Lowered>,
        ends: (f64, f64),
        grid: Option<&InputGrid>,
    ) -> Result<Self, ThresholdError> {
        let pair = Pair::new(f, q.clone())?;
        let lowered = match grid {
            Some(grid) => pair.on_grid(grid)?,
            None => pair.side_by_side()?,
        };
        let n = lowered.net.node(lowered.net.inputs()[0]).len();
        let ends = grid.map_or(ends, |g| (g.range.0 as f64, g.range.1 as f64));
        let region = Region { lo: vec![ends.0; n], hi: vec![ends.1; n] };
        let scale = scale_of(q.net.node(q.net.outputs()[0]).quantization.as_ref())?;
        Ok(Compared { lowered, region, classes: pair.outputs(), scale })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// What one unit of the quantized network's scores is in real numbers.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// All inputs, as the compared net takes them.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Both networks as one net.
    pub fn lowered(&self) -> &Lowered {
        &self.lowered
    }

    /// The lead of c over k in q, in real units.
    pub(super) fn lead(&self, c: usize, k: usize) -> Terms {
        vec![(self.classes + c, self.scale), (self.classes + k, -self.scale)]
    }

    fn peak(&self, c: usize, k: usize, rivals: &[usize]) -> Peak {
        let leads = rivals.iter().map(|&r| self.lead(c, r)).collect();
        let first = rivals.iter().position(|&r| r == k).unwrap_or(0);
        Peak { leads, given: vec![vec![(c, 1.0), (k, -1.0)]], first }
    }

    /// Bounds for the inputs whose elements have a sum (of multiples, where there is a grid) within a total. A bound that is not above what is shown
    /// already, or not above zero, gets no better.
    ///
    /// # Errors
    /// If the region does not fit the net.
    pub fn bounds(
        &self,
        total: Option<Total>,
        boxes: usize,
        shown: Option<&Bounds>,
        options: &Options,
    ) -> Result<Bounds, ThresholdError> {
        let verifier = Verifier::within(&self.lowered, total)?;
        let n = self.classes;
        let pairs: Vec<(usize, usize)> =
            (0..n).flat_map(|c| (0..n).filter(move |&k| k != c).map(move |k| (c, k))).collect();
        let mut peaks: Vec<Peak> = pairs.iter().map(|&(c, k)| self.peak(c, k, &[k])).collect();
        if n > 2 {
            peaks.extend(pairs.iter().map(|&(c, k)| {
                let rivals: Vec<usize> = (0..n).filter(|&r| r != c).collect();
                self.peak(c, k, &rivals)
            }));
        }
        let known =
            |of: fn(&Bounds) -> &Vec<f64>, (c, k): &(usize, usize)| shown.map_or(0.0, |s| of(s)[c * n + k].max(0.0));
        let of_pairs = pairs.iter().map(|p| known(|b| &b.pair, p));
        let enough: Vec<f64> = of_pairs.chain(pairs.iter().map(|p| known(|b| &b.least, p))).collect();
        let found = self.by_boxes(&verifier, (&peaks, total), (boxes, &enough), options)?;
        let mut bounds = Bounds { pair: vec![0.0; n * n], least: vec![0.0; n * n] };
        for (i, (c, k)) in pairs.iter().enumerate() {
            bounds.pair[c * n + k] = found[i];
            bounds.least[c * n + k] = found.get(i + pairs.len()).map_or(found[i], |l| l.min(found[i]));
        }
        Ok(bounds)
    }
}

impl Bounds {
    /// Takes the smaller of two proved bounds each.
    pub fn meet(&mut self, other: &Bounds) {
        let mine = self.pair.iter_mut().chain(&mut self.least);
        mine.zip(other.pair.iter().chain(&other.least)).for_each(|(m, o)| *m = if o < m { *o } else { *m });
    }

    /// Whether scores of q show that f gives the class c, too.
    pub fn accepts(&self, c: usize, scores: &[f64]) -> bool {
        let n = scores.len();
        let lead = |k: usize| scores[c] - scores[k];
        let least = (0..n).filter(|&k| k != c).map(lead).fold(f64::INFINITY, f64::min);
        (0..n)
            .filter(|&k| k != c)
            .all(|k| lead(k) > self.pair[c * n + k].max(0.0) || least > self.least[c * n + k].max(0.0))
    }
}

/// What a unit of a network's outputs is in real numbers.
pub(super) fn scale_of(meaning: Option<&Quantization>) -> Result<f64, ThresholdError> {
    let Some(q) = meaning else { return Ok(1.0) };
    let (same_scale, same_zero) = (
        q.scale.data.iter().all(|s| *s == q.scale.data[0]),
        q.zero_point.data.iter().all(|z| *z == q.zero_point.data[0]),
    );
    if same_scale && same_zero {
        return Ok(q.scale.data[0]);
    }
    Err(ThresholdError::Refused {
        problem: "the quantized network's outputs are integers of different scales".into(),
        cure: "end it with a DequantizeLinear, or quantize its last layer with one scale".into(),
    })
}
