//! Deciding robustness: bounds first, then attack; both are cheap, and a verdict needs one of them.

use std::time::{Duration, Instant};

use crate::model::lower::Lowered;
use crate::property::Robustness;

/// A proof that a claim holds. Only this module makes one, from rigorous bounds.
#[derive(Clone, Debug)]
pub struct Proof {
    margin: f64,
    method: &'static str,
}

impl Proof {
    /// A proved lower bound on (score of the label) - (score of any other class).
    pub fn margin(&self) -> f64 {
        self.margin
    }

    /// `"intervals"` or `"linear bounds"`.
    pub fn method(&self) -> &'static str {
        self.method
    }
}

/// An input that violates a claim, executed. Only this module makes one.
#[derive(Clone, Debug)]
pub struct Witness {
    input: Vec<f64>,
    outputs: Vec<f64>,
    class: usize,
}

impl Witness {
    /// The model's input, on its own grid.
    pub fn input(&self) -> &[f64] {
        &self.input
    }

    /// The scores that it gets.
    pub fn outputs(&self) -> &[f64] {
        &self.outputs
    }

    /// The class that is not beaten.
    pub fn class(&self) -> usize {
        self.class
    }
}

/// The answer.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Proved for every input of the region.
    Holds(Proof),
    /// Refuted by an executed input.
    Violated(Witness),
    /// Neither.
    Undecided {
        /// Best proved lower bound on the margin.
        bound: f64,
        /// Why it stopped.
        why: &'static str,
    },
}

/// How hard to try.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Stop after this long.
    pub timeout: Duration,
    /// Seed of the attack's random starts.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { timeout: Duration::from_secs(10), seed: 0 }
    }
}

/// Decides robustness of a classifier, which must have one input and one output.
///
/// # Errors
/// If it has not, or the label is not one of its classes.
pub fn robustness(lowered: &Lowered, claim: &Robustness, options: &Options) -> Result<Verdict, String> {
    let _ = (lowered, claim, options, Instant::now());
    Err("not yet".into())
}
