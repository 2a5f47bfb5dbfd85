//! What is minimised.

use serde::{Deserialize, Serialize};

use super::{Bits, Oracle};

/// What is minimised. The thesis names three: bits, bits against accuracy, bits weighted by neurons; bit operations are what integer hardware counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The sum of the bits of all layers, each layer counting the same.
    TotalBits,
    /// Bits times parameters, summed over the layers: what a file holds. This is what CEG4N's program minimises.
    StoredBits {
        /// Weights and biases of each layer.
        parameters: Vec<u64>,
    },
    /// Bits times neurons, summed over the layers: wide layers count more.
    NeuronBits {
        /// Neurons of each layer.
        neurons: Vec<u64>,
    },
    /// Bits times multiplications, summed over the layers: what is computed.
    BitOperations {
        /// Multiplications of each layer.
        multiplications: Vec<u64>,
    },
    /// Two objectives: the sum of the bits, and the share of data that is classified wrongly. The answer is a front.
    BitsAndAccuracy,
}

impl Objective {
    /// What one bit of each layer costs.
    pub fn weights(&self, layers: usize) -> Vec<u64> {
        match self {
            Objective::TotalBits | Objective::BitsAndAccuracy => vec![1; layers],
            Objective::StoredBits { parameters: weights }
            | Objective::NeuronBits { neurons: weights }
            | Objective::BitOperations { multiplications: weights } => weights.clone(),
        }
    }

    /// How many numbers are minimised.
    pub fn count(&self) -> usize {
        if *self == Objective::BitsAndAccuracy { 2 } else { 1 }
    }

    /// Values of vectors. Accuracy is asked of the oracle where it counts.
    pub fn values(&self, many: &[&[u8]], oracle: &mut dyn Oracle) -> Vec<Vec<f64>> {
        let weights = self.weights(oracle.layers());
        let cost = |bits: &[u8]| weights.iter().zip(bits).map(|(w, b)| *w as f64 * f64::from(*b)).sum::<f64>();
        let mut values: Vec<Vec<f64>> = many.iter().map(|bits| vec![cost(bits)]).collect();
        if *self == Objective::BitsAndAccuracy {
            let accuracies = oracle.accuracies(many);
            values.iter_mut().zip(accuracies).for_each(|(v, accuracy)| v.push(1.0 - accuracy));
        }
        values
    }
}

/// A vector of bits and its worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Valued {
    /// Bits of each layer.
    pub bits: Bits,
    /// Values of the objectives; empty where the constraint is violated.
    pub values: Vec<f64>,
    /// How much the constraint is violated on what is known.
    pub violation: f64,
}
