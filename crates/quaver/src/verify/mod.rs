//! Deciding robustness: bounds first (they are cheap and settle most inputs), then attack.

mod attack;
mod score;

use std::time::{Duration, Instant};

use crate::bounds::{Analysis, Prepared, analyse_until, interval_until, lower_bounds};
use crate::model::lower::Lowered;
use crate::net::{Grid, Net, NodeId, execute};
use crate::property::{Robustness, Ties};

/// A proof that a claim holds. Only this module makes one, from rigorous bounds.
#[derive(Clone, Debug)]
pub struct Proof {
    margin: f64,
    method: &'static str,
}

impl Proof {
    /// A proved lower bound on (score of the label) - (score of any other class), in the units of the value that decides the
    /// class (the integer logits of a quantized network).
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

/// Where the lower lines are chosen, one after the other until all rivals are beaten: each choice is valid, the best bound counts.
const PLACES: [f64; 5] = [0.5, 0.3, 0.7, 0.0, 1.0];

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

/// The claim has no meaning for this model.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotAClassifier(String);

/// Decides claims about one classifier; facts about its net are made once.
#[derive(Debug)]
pub struct Verifier<'a> {
    net: &'a Net,
    prepared: Prepared<'a>,
    /// The value whose order of elements is the order of the outputs.
    score: NodeId,
    /// The last value that is still element-wise in the input: where the attack works.
    root: NodeId,
}

/// What must be shown about one rival class.
#[derive(Clone, Copy, Debug)]
struct Rival {
    class: usize,
    /// Whether equality already refutes.
    strict: bool,
}

impl Rival {
    fn proved(self, bound: f64) -> bool {
        if self.strict { bound > 0.0 } else { bound >= 0.0 }
    }

    /// Whether a difference (label - rival) refutes the claim.
    fn refuted(self, difference: f64) -> bool {
        if self.strict { difference <= 0.0 } else { difference < 0.0 }
    }
}

impl<'a> Verifier<'a> {
    /// Prepares a classifier.
    ///
    /// # Errors
    /// If the model has not one input and one output with at least two elements.
    pub fn new(lowered: &'a Lowered) -> Result<Self, NotAClassifier> {
        let net = &lowered.net;
        let (inputs, outputs) = (net.inputs(), net.outputs());
        if inputs.len() != 1 || outputs.len() != 1 || net.node(outputs[0]).len() < 2 {
            let found = format!("{} inputs and {} outputs", inputs.len(), outputs.len());
            return Err(NotAClassifier(format!(
                "a classifier has one input and one output of two or more scores; the model has {found}"
            )));
        }
        let prepared = Prepared::new(net);
        let score = score::score(net, outputs[0]);
        let root = attack::root(&prepared, score);
        Ok(Verifier { net, score, root, prepared })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.net.node(self.score).len()
    }

    /// Decides one claim.
    ///
    /// # Errors
    /// If the label is not one of the classes.
    pub fn robustness(&self, claim: &Robustness, options: &Options) -> Result<Verdict, NotAClassifier> {
        if claim.label >= self.classes() {
            return Err(NotAClassifier(format!("label {} of {} classes", claim.label, self.classes())));
        }
        let deadline = Instant::now() + options.timeout;
        let rivals: Vec<Rival> = (0..self.classes())
            .filter(|&class| class != claim.label)
            .map(|class| Rival { class, strict: claim.ties == Ties::Strict || class < claim.label })
            .collect();
        // Half of the time is left to the attack.
        let (bounds, method) = self.margins(claim, &rivals, deadline - options.timeout / 2);
        let bound = bounds.iter().copied().fold(f64::INFINITY, f64::min);
        if rivals.iter().zip(&bounds).all(|(r, b)| r.proved(*b)) {
            return Ok(Verdict::Holds(Proof { margin: bound, method }));
        }
        if let Some(witness) = claim.center.as_ref().and_then(|c| self.confirm(claim, &rivals, c)) {
            return Ok(Verdict::Violated(witness));
        }
        let open: Vec<Rival> = rivals.iter().zip(&bounds).filter(|(r, b)| !r.proved(**b)).map(|(r, _)| *r).collect();
        let confirm = |input: &[f64]| self.confirm(claim, &rivals, input);
        let search = attack::Attack { prepared: &self.prepared, root: self.root, score: self.score, deadline };
        Ok(match search.run(claim, &open.iter().map(|r| r.class).collect::<Vec<_>>(), options.seed, &confirm) {
            Some(witness) => Verdict::Violated(witness),
            None if Instant::now() >= deadline => Verdict::Undecided { bound, why: "time limit" },
            None if bound == f64::NEG_INFINITY => Verdict::Undecided { bound, why: "a bound overflowed" },
            None => Verdict::Undecided { bound, why: "the bounds are too loose and the attack found nothing" },
        })
    }

    /// Proved lower bounds on score[label] - score[rival]: intervals first, then linear bounds where they do not settle it, as good as time
    /// allows.
    fn margins(&self, claim: &Robustness, rivals: &[Rival], deadline: Instant) -> (Vec<f64>, &'static str) {
        let on_grid = |b: f64| if self.net.node(self.score).grid == Grid::Integer { b.ceil() } else { b };
        let simple = &interval_until(self.net, &claim.region, self.score)[self.score.0];
        let by_interval = |r: &Rival| {
            let bound = crate::num::round::sub_down(simple.lo[claim.label], simple.hi[r.class]);
            if bound.is_nan() { f64::NEG_INFINITY } else { on_grid(bound) }
        };
        let first: Vec<f64> = rivals.iter().map(by_interval).collect();
        if rivals.iter().zip(&first).all(|(r, b)| r.proved(*b)) {
            return (first, "intervals");
        }
        let Some(mut analysis) = analyse_until(&self.prepared, &claim.region, Some(deadline)) else {
            return (first, "intervals");
        };
        let mut best = first;
        for place in PLACES {
            if place != PLACES[0] {
                analysis.choose_lines(&self.prepared, place);
            }
            let next = self.linear_margins(&analysis, claim.label, rivals);
            best.iter_mut().zip(next).for_each(|(b, n)| *b = b.max(on_grid(n)));
            if rivals.iter().zip(&best).all(|(r, b)| r.proved(*b)) || Instant::now() >= deadline {
                break;
            }
        }
        (best, "linear bounds")
    }

    fn linear_margins(&self, analysis: &Analysis, label: usize, rivals: &[Rival]) -> Vec<f64> {
        let n = self.classes();
        let mut rows = vec![0.0; rivals.len() * n];
        for (row, rival) in rows.chunks_mut(n).zip(rivals) {
            row[label] = 1.0;
            row[rival.class] = -1.0;
        }
        lower_bounds(&self.prepared, analysis, self.score, rows, rivals.len())
    }

    /// Executes a candidate; a witness only if it lies in the region and every execution that the net allows refutes the claim.
    fn confirm(&self, claim: &Robustness, rivals: &[Rival], input: &[f64]) -> Option<Witness> {
        if !claim.region.contains(input) {
            return None;
        }
        let output = &execute(self.net, &[input.to_vec()], 1)[0];
        let largest_difference = |r: &Rival| crate::num::round::sub_up(output.hi(claim.label), output.lo(r.class));
        let rival = rivals.iter().find(|r| r.refuted(largest_difference(r)))?;
        Some(Witness { input: input.to_vec(), outputs: output.center.clone(), class: rival.class })
    }
}

/// Decides one claim about a classifier (see [`Verifier`] for many).
///
/// # Errors
/// If the model is not a classifier or the label is not one of its classes.
pub fn robustness(lowered: &Lowered, claim: &Robustness, options: &Options) -> Result<Verdict, NotAClassifier> {
    Verifier::new(lowered)?.robustness(claim, options)
}
