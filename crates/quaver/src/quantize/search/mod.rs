//! Searching bits for each layer: the cheapest vector of bits with which a quantized network agrees with the original on everything that is
//! known to refute others.
//!
//! Nothing here knows networks. An [`Oracle`] says what is known of a vector of bits; a [`Search`] proposes vectors; whoever runs the loop
//! verifies a proposal and tells the answer, which may add to what the oracle knows:
//!
//! ```text
//! while let Some(bits) = search.next(oracle) {
//!     search.tell(&bits, verify(&bits)); // a counterexample goes to the oracle, too
//! }
//! ```
//!
//! [`Exact`] proposes every vector in order of cost, so that the first that is accepted is the best; [`Greedy`] goes down from a good vector, for
//! many layers; [`Evolution`] is the genetic search ([`nsga2`]) of CEG4N. All three stop where their [`Search::best`] is final, and all three can be
//! stopped earlier.
//!
//! # Source
//! J. B. P. Matos Jr., CEG4N: counter-example guided neural network quantization refinement, chapter 3.

mod evolution;
mod exact;
mod greedy;
mod lattice;
pub mod nsga2;
mod objective;
pub mod rank;
mod reason;
mod sensitivity;
mod space;
mod state;
mod vary;

pub use evolution::Evolution;
pub use exact::{Exact, Progress};
pub use greedy::Greedy;
pub use objective::Objective;
pub use reason::{Because, Below, Obstacle, obstacles};
pub use sensitivity::{BadSensitivity, Sensitivity};
pub use space::{BadSpace, Space};
pub use state::{BadState, State};
pub use vary::Variation;

use serde::{Deserialize, Serialize};

/// Bits of each layer.
pub type Bits = Vec<u8>;

/// What is known about vectors of bits, without verification. Answers to one vector may change only as counterexamples are added.
pub trait Oracle {
    /// Number of layers.
    fn layers(&self) -> usize;

    /// How much these bits violate the constraint on the known counterexamples: 0 where they agree with all, else positive and finite.
    fn violation(&mut self, bits: &[u8]) -> f64;

    /// The number of a known counterexample that refutes these bits; `None` exactly where the violation is 0.
    fn refuted_by(&mut self, bits: &[u8]) -> Option<usize>;

    /// The share of data that is classified correctly with these bits. Asked only for [`Objective::BitsAndAccuracy`].
    fn accuracy(&mut self, bits: &[u8]) -> f64;

    /// How far these bits are from being refuted, in any unit: a hint for [`Greedy`].
    fn margin(&mut self, bits: &[u8]) -> f64 {
        -self.violation(bits)
    }

    /// Violations of several vectors, which an oracle may find in parallel.
    fn violations(&mut self, many: &[&[u8]]) -> Vec<f64> {
        many.iter().map(|bits| self.violation(bits)).collect()
    }

    /// Accuracies of several vectors.
    fn accuracies(&mut self, many: &[&[u8]]) -> Vec<f64> {
        many.iter().map(|bits| self.accuracy(bits)).collect()
    }
}

/// What verification says of a vector of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The property holds.
    Accepted,
    /// A counterexample, by its number, refutes it.
    Refuted(usize),
    /// Nothing was shown in the time given.
    Undecided,
}

/// A search that proposes vectors and is told what became of them.
pub trait Search {
    /// The next vector to verify: the oracle knows nothing against it, and it is cheaper than the best. `None` where nothing is left to propose.
    fn next(&mut self, oracle: &mut dyn Oracle) -> Option<Bits>;

    /// What became of a vector, proposed by this search or known from elsewhere.
    fn tell(&mut self, bits: &[u8], answer: Answer);

    /// The cheapest vector that is known to be good.
    fn best(&self) -> Option<&[u8]>;

    /// What was told of a vector.
    fn answer(&self, bits: &[u8]) -> Option<Answer>;
}
