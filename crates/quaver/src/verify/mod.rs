//! Deciding whether an output that must not occur can occur: intervals, linear bounds, attack, then branch and bound.

mod anomaly;
mod attack;
mod confirm;
mod decide;
mod enclose;
mod goal;
mod milp;
mod peak;
mod search;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use anomaly::{Autoencoder, ScoreBounds, ScoreWitness};
pub use decide::Verifier;
pub use enclose::Terms;
pub use milp::{Answers, BigM, Lead, LeadBound, LeadMilp, LeadPrograms, Milp, Relations};
pub use peak::Peak;

use crate::bounds::Until;
use crate::certificate::Tracer;
use crate::model::lower::Lowered;
use crate::property::Robustness;

/// A proof that a claim holds. Only this module makes one, from rigorous bounds.
#[derive(Clone, Debug)]
pub struct Proof {
    margin: f64,
    method: &'static str,
    subproblems: u64,
}

impl Proof {
    /// How far every output of the region is from every forbidden polyhedron, at least: for a robustness claim the least
    /// (score of the label) - (score of any other class), in the units of the value that decides the class (the integer logits of a quantized
    /// network).
    pub fn margin(&self) -> f64 {
        self.margin
    }

    /// `"intervals"`, `"linear bounds"`, `"branch and bound"` or `"mixed-integer program"`.
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// Subproblems that were bounded in branch and bound.
    pub fn subproblems(&self) -> u64 {
        self.subproblems
    }
}

/// An input that violates a claim, executed. Only this module makes one.
#[derive(Clone, Debug)]
pub struct Witness {
    input: Vec<f64>,
    outputs: Vec<f64>,
    polyhedron: usize,
    profile: String,
}

impl Witness {
    /// The model's input, on its own grid.
    pub fn input(&self) -> &[f64] {
        &self.input
    }

    /// The outputs that it gets.
    pub fn outputs(&self) -> &[f64] {
        &self.outputs
    }

    /// Which of the forbidden polyhedra the outputs lie in; for a robustness claim see [`Robustness::rival`].
    pub fn polyhedron(&self) -> usize {
        self.polyhedron
    }

    /// The profile under which it was executed: where the claim is about several runtimes, one of them.
    pub fn profile(&self) -> &str {
        &self.profile
    }
}

/// Why there is no answer, and how far the search came.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// Best proved lower bound on the margin (see [`Proof::margin`]).
    pub bound: f64,
    /// Why it stopped.
    pub why: String,
    /// Subproblems that were bounded.
    pub subproblems: u64,
    /// Subproblems that are still open.
    pub open: u64,
}

/// The answer.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Proved for every input of the region.
    Holds(Proof),
    /// Refuted by an executed input.
    Violated(Witness),
    /// Neither.
    Undecided(Unfinished),
}

/// How hard to try.
#[derive(Clone, Debug)]
pub struct Options {
    /// Stop after this long.
    pub timeout: Duration,
    /// Seed of the attack's random starts.
    pub seed: u64,
    /// Most subproblems that branch and bound may bound; 0 switches it off.
    pub subproblems: u64,
    /// Bytes that open subproblems may take.
    pub memory: usize,
    /// Threads of branch and bound.
    pub threads: usize,
    /// Whether an attack comes before branch and bound, which follows its own points in any case.
    pub attack: bool,
    /// Set by another thread to stop the work with what it has.
    pub stop: Option<Arc<AtomicBool>>,
    /// How claims are decided.
    pub engine: Engine,
    /// Sees how a claim is proved. Then every proof is one that has steps, at some cost.
    pub tracer: Option<Arc<dyn Tracer>>,
}

/// How claims are decided.
#[derive(Clone, Debug, Default)]
pub enum Engine {
    /// By our own bounds, attack, and branch and bound.
    #[default]
    Search,
    /// By mixed-integer programs, as in papers.
    Milp(Milp),
}

impl Default for Options {
    fn default() -> Self {
        Options {
            timeout: Duration::from_secs(10),
            seed: 0,
            subproblems: u64::MAX,
            memory: 4 << 30,
            threads: 1,
            attack: true,
            stop: None,
            engine: Engine::Search,
            tracer: None,
        }
    }
}

/// When the work must end.
#[derive(Clone, Debug)]
struct Limit {
    deadline: Instant,
    stop: Option<Arc<AtomicBool>>,
}

impl Limit {
    fn new(options: &Options) -> Self {
        Limit { deadline: Instant::now() + options.timeout, stop: options.stop.clone() }
    }

    fn until(&self) -> Until<'_> {
        Until { deadline: Some(self.deadline), stop: self.stop.as_deref() }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn reached(&self) -> Option<&'static str> {
        match &self.stop {
            Some(stop) if stop.load(Ordering::Relaxed) => Some("stopped"),
            _ => (Instant::now() >= self.deadline).then_some("time limit"),
        }
    }
}

/// The claim has no meaning for this model.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotAClassifier(String);

/// Decides one claim about a classifier (see [`Verifier`] for many).
///
/// # Errors
/// If the model is not a classifier or the label is not one of its classes.
pub fn robustness(lowered: &Lowered, claim: &Robustness, options: &Options) -> Result<Verdict, NotAClassifier> {
    Verifier::new(lowered)?.robustness(claim, options)
}
