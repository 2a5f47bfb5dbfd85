//! The vectors of bits that are searched, and what they cost.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Bits;

/// A range of widths for each layer and the cost of a vector: the sum of weight times bits. All layers may be restricted to some widths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Layers", into = "Layers")]
pub struct Space {
    layers: Layers,
}

/// A space as it is written; not checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Layers {
    weights: Vec<u64>,
    least: Bits,
    most: Bits,
    /// The only widths there are, in order; all of the ranges where it is empty.
    #[serde(default)]
    among: Bits,
}

/// Why there is no such space.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadSpace {
    /// No layer.
    #[error("there is no layer to choose bits for")]
    NoLayers,
    /// Lists of different lengths.
    #[error("{weights} weights are given for {widths} ranges of widths; each layer needs one of each")]
    Lengths {
        /// Weights.
        weights: usize,
        /// Ranges.
        widths: usize,
    },
    /// A range without a width.
    #[error("layer {layer} may have {least} to {most} bits, which is no width at all; give the smaller number first")]
    EmptyRange {
        /// The layer.
        layer: usize,
        /// Fewest bits.
        least: u8,
        /// Most bits.
        most: u8,
    },
    /// Costs that do not fit.
    #[error("the largest cost does not fit in 63 bits; give smaller weights")]
    Cost,
}

impl Space {
    /// The widths of the thesis.
    pub const WIDTHS: RangeInclusive<u8> = 2..=32;

    /// A range of widths for each layer, with its weight.
    ///
    /// # Errors
    /// Where a list is empty or too short, a range is empty, or costs overflow.
    pub fn new(weights: Vec<u64>, widths: &[RangeInclusive<u8>]) -> Result<Self, BadSpace> {
        let (least, most) = widths.iter().map(|w| (*w.start(), *w.end())).unzip();
        Space::try_from(Layers { weights, least, most, among: vec![] })
    }

    /// The same range for all layers.
    ///
    /// # Errors
    /// As [`Space::new`].
    pub fn uniform(weights: Vec<u64>, widths: RangeInclusive<u8>) -> Result<Self, BadSpace> {
        let widths = vec![widths; weights.len()];
        Space::new(weights, &widths)
    }

    /// A set of widths for all layers, such as those that a target has.
    ///
    /// # Errors
    /// As [`Space::new`].
    pub fn among(weights: Vec<u64>, widths: &[u8]) -> Result<Self, BadSpace> {
        let mut among = widths.to_vec();
        among.sort_unstable();
        among.dedup();
        // Without a width the range is empty, too.
        let (least, most) = (among.first().copied().unwrap_or(1), among.last().copied().unwrap_or(0));
        let (least, most) = (vec![least; weights.len()], vec![most; weights.len()]);
        Space::try_from(Layers { weights, least, most, among })
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.layers.weights.len()
    }

    /// Cost of one bit of a layer.
    pub fn weight(&self, layer: usize) -> u64 {
        self.layers.weights[layer]
    }

    /// Widths of a layer.
    pub fn widths(&self, layer: usize) -> RangeInclusive<u8> {
        self.layers.least[layer]..=self.layers.most[layer]
    }

    /// Fewest bits everywhere.
    pub fn least(&self) -> &[u8] {
        &self.layers.least
    }

    /// Most bits everywhere.
    pub fn most(&self) -> &[u8] {
        &self.layers.most
    }

    /// Whether a vector is one of these.
    pub fn holds(&self, bits: &[u8]) -> bool {
        bits.len() == self.layers() && (0..self.layers()).all(|l| self.is_width(l, bits[l]))
    }

    /// Whether a layer may have so many bits.
    fn is_width(&self, layer: usize, bits: u8) -> bool {
        self.widths(layer).contains(&bits) && (self.layers.among.is_empty() || self.layers.among.contains(&bits))
    }

    /// The widths of a layer below some number of bits, the largest first.
    pub fn below(&self, layer: usize, bits: u8) -> impl Iterator<Item = u8> {
        (self.layers.least[layer]..bits).rev().filter(move |b| self.is_width(layer, *b))
    }

    /// For each width that some layer has, in order: the vector in which every layer has it, or the nearest that it may have.
    pub fn uniform_vectors(&self) -> Vec<Bits> {
        let layers = || 0..self.layers();
        let all = |l| self.below(l, u8::MAX).collect::<Vec<u8>>();
        let mut widths: Vec<u8> = layers().flat_map(all).collect();
        widths.sort_unstable();
        widths.dedup();
        let nearest = |l: usize, b: u8| all(l).into_iter().min_by_key(|w| w.abs_diff(b)).unwrap_or(b);
        let mut vectors: Vec<Bits> = widths.iter().map(|&b| layers().map(|l| nearest(l, b)).collect()).collect();
        vectors.dedup();
        vectors
    }

    /// The sum of weight times bits.
    pub fn cost(&self, bits: &[u8]) -> u64 {
        self.layers.weights.iter().zip(bits).map(|(w, b)| w * u64::from(*b)).sum()
    }

    /// Number of vectors.
    pub fn len(&self) -> f64 {
        (0..self.layers()).map(|l| self.widths(l).len() as f64).product()
    }

    /// Never: every range has a width.
    pub fn is_empty(&self) -> bool {
        false
    }
}

impl TryFrom<Layers> for Space {
    type Error = BadSpace;

    fn try_from(layers: Layers) -> Result<Self, BadSpace> {
        let Layers { weights, least, most, .. } = &layers;
        if weights.is_empty() {
            return Err(BadSpace::NoLayers);
        }
        if least.len() != weights.len() || most.len() != weights.len() {
            return Err(BadSpace::Lengths { weights: weights.len(), widths: least.len().min(most.len()) });
        }
        let empty = least.iter().zip(most).position(|(l, m)| l > m);
        if let Some(layer) = empty {
            return Err(BadSpace::EmptyRange { layer, least: least[layer], most: most[layer] });
        }
        let cost = weights.iter().zip(most).map(|(w, b)| u128::from(*w) * u128::from(*b)).sum::<u128>();
        if cost > i64::MAX as u128 {
            return Err(BadSpace::Cost);
        }
        Ok(Space { layers })
    }
}

impl From<Space> for Layers {
    fn from(space: Space) -> Self {
        space.layers
    }
}
