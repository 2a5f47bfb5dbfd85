//! Deciding robustness: bounds first (they are cheap and settle most inputs), then attack.

mod anomaly;
mod attack;
mod score;

use std::time::{Duration, Instant};

pub use anomaly::{Autoencoder, ScoreBounds, ScoreWitness};

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
    profile: String,
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

    /// The profile under which it was executed: where the claim is about several runtimes, one of them.
    pub fn profile(&self) -> &str {
        &self.profile
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

/// Multiplications of one execution from which on linear bounds cost more than an attack.
const COSTLY: usize = 1_000_000;

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
    /// The net that bounds are about.
    bounded: Scored<'a>,
    /// Where a witness may be executed and searched for: the members of an envelope; none for the net itself.
    members: Vec<Scored<'a>>,
    /// Whether a proof for each member is a proof.
    is_conjunction: bool,
}

/// A net and the value that decides its class.
#[derive(Debug)]
struct Scored<'a> {
    profile: &'a str,
    prepared: Prepared<'a>,
    /// The value whose order of elements is the order of the outputs.
    score: NodeId,
    /// The last value that is still element-wise in the input: where the attack works.
    root: NodeId,
}

impl<'a> Scored<'a> {
    fn new(lowered: &'a Lowered) -> Result<Self, NotAClassifier> {
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
        Ok(Scored { profile: &lowered.profile, score, root, prepared })
    }

    fn net(&self) -> &'a Net {
        self.prepared.net
    }

    /// Bounds on differences of integer scores are rounded up.
    fn on_grid(&self, bound: f64) -> f64 {
        if self.net().node(self.score).grid == Grid::Integer { bound.ceil() } else { bound }
    }

    fn linear_margins(&self, analysis: &Analysis, label: usize, rivals: &[Rival]) -> Vec<f64> {
        let n = self.net().node(self.score).len();
        let mut rows = vec![0.0; rivals.len() * n];
        for (row, rival) in rows.chunks_mut(n).zip(rivals) {
            row[label] = 1.0;
            row[rival.class] = -1.0;
        }
        lower_bounds(&self.prepared, analysis, self.score, rows, rivals.len())
    }
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
        let bounded = Scored::new(lowered)?;
        let members = lowered.members.iter().map(Scored::new).collect::<Result<_, _>>()?;
        Ok(Verifier { bounded, members, is_conjunction: lowered.is_conjunction })
    }

    /// The nets that run: those of an envelope's members, else the net itself.
    fn executed(&self) -> &[Scored<'a>] {
        if self.members.is_empty() { std::slice::from_ref(&self.bounded) } else { &self.members }
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.bounded.net().node(self.bounded.score).len()
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
        let confirm = |input: &[f64]| self.confirm(claim, &rivals, input);
        let mut margins = Margins::by_intervals(self.proved(), claim, &rivals);
        if margins.all_proved(&rivals) {
            return Ok(Verdict::Holds(margins.proof()));
        }
        if let Some(witness) = claim.center.as_ref().and_then(|c| confirm(c)) {
            return Ok(Verdict::Violated(witness));
        }
        let attack = |margins: &Margins, deadline: Instant| {
            let open: Vec<usize> = margins.open(&rivals).map(|r| r.class).collect();
            self.executed().iter().find_map(|s| {
                let attack = attack::Attack { prepared: &s.prepared, root: s.root, score: s.score, deadline };
                attack.run(claim, &open, options.seed, &confirm)
            })
        };
        // Where linear bounds cost more than an attack, the attack goes first.
        let costly = self.bounded.net().multiplications() > COSTLY;
        if costly && let Some(witness) = attack(&margins, deadline - options.timeout / 2) {
            return Ok(Verdict::Violated(witness));
        }
        // Half of the time is left to the attack.
        margins.tighten(self.proved(), claim, &rivals, deadline - options.timeout / 2);
        if margins.all_proved(&rivals) {
            return Ok(Verdict::Holds(margins.proof()));
        }
        let bound = margins.least();
        Ok(match (!costly).then(|| attack(&margins, deadline)).flatten() {
            Some(witness) => Verdict::Violated(witness),
            None if Instant::now() >= deadline => Verdict::Undecided { bound, why: "time limit" },
            None if bound == f64::NEG_INFINITY => Verdict::Undecided { bound, why: "a bound overflowed" },
            None => Verdict::Undecided { bound, why: "the bounds are too loose and the attack found nothing" },
        })
    }

    /// The nets that bounds must be proved for: each of a conjunction's members, else the net that allows everything.
    fn proved(&self) -> &[Scored<'a>] {
        if self.is_conjunction && !self.members.is_empty() {
            &self.members
        } else {
            std::slice::from_ref(&self.bounded)
        }
    }

    /// Executes a candidate; a witness only if it lies in the region and under one profile every execution that its net allows refutes
    /// the claim.
    fn confirm(&self, claim: &Robustness, rivals: &[Rival], input: &[f64]) -> Option<Witness> {
        if !claim.region.contains(input) {
            return None;
        }
        self.executed().iter().find_map(|s| {
            let output = &execute(s.net(), &[input.to_vec()], 1)[0];
            let largest_difference = |r: &Rival| crate::num::round::sub_up(output.hi(claim.label), output.lo(r.class));
            let class = rivals.iter().find(|r| r.refuted(largest_difference(r)))?.class;
            let (input, outputs, profile) = (input.to_vec(), output.center.clone(), s.profile.to_string());
            Some(Witness { input, outputs, class, profile })
        })
    }
}

/// Proved lower bounds on score[label] - score[rival], one for each rival: the smallest over several nets.
struct Margins {
    bounds: Vec<f64>,
    method: &'static str,
}

impl Margins {
    fn by_intervals(nets: &[Scored<'_>], claim: &Robustness, rivals: &[Rival]) -> Self {
        let mut bounds = vec![f64::INFINITY; rivals.len()];
        for s in nets {
            let simple = &interval_until(s.net(), &claim.region, s.score)[s.score.0];
            for (b, r) in bounds.iter_mut().zip(rivals) {
                let bound = crate::num::round::sub_down(simple.lo[claim.label], simple.hi[r.class]);
                *b = b.min(if bound.is_nan() { f64::NEG_INFINITY } else { s.on_grid(bound) });
            }
        }
        Margins { bounds, method: "intervals" }
    }

    /// Linear bounds, as good as time allows, with the lower lines chosen in several ways: each choice is valid, the best bound counts.
    fn tighten(&mut self, nets: &[Scored<'_>], claim: &Robustness, rivals: &[Rival], deadline: Instant) {
        let mut all = vec![f64::INFINITY; rivals.len()];
        for s in nets {
            let Some(mut analysis) = analyse_until(&s.prepared, &claim.region, Some(deadline)) else { return };
            let mut best = vec![f64::NEG_INFINITY; rivals.len()];
            for place in PLACES {
                if place != PLACES[0] {
                    analysis.choose_lines(&s.prepared, place);
                }
                let next = s.linear_margins(&analysis, claim.label, rivals);
                best.iter_mut().zip(next).for_each(|(b, n)| *b = b.max(s.on_grid(n)));
                if rivals.iter().zip(&best).all(|(r, b)| r.proved(*b)) || Instant::now() >= deadline {
                    break;
                }
            }
            all.iter_mut().zip(best).for_each(|(a, b)| *a = a.min(b));
        }
        self.bounds.iter_mut().zip(all).for_each(|(b, n)| *b = b.max(n));
        self.method = "linear bounds";
    }

    fn least(&self) -> f64 {
        self.bounds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn open<'r>(&self, rivals: &'r [Rival]) -> impl Iterator<Item = &'r Rival> {
        rivals.iter().zip(&self.bounds).filter(|(r, b)| !r.proved(**b)).map(|(r, _)| r)
    }

    fn all_proved(&self, rivals: &[Rival]) -> bool {
        self.open(rivals).next().is_none()
    }

    /// Only for margins that beat every rival.
    fn proof(&self) -> Proof {
        Proof { margin: self.least(), method: self.method }
    }
}

/// Decides one claim about a classifier (see [`Verifier`] for many).
///
/// # Errors
/// If the model is not a classifier or the label is not one of its classes.
pub fn robustness(lowered: &Lowered, claim: &Robustness, options: &Options) -> Result<Verdict, NotAClassifier> {
    Verifier::new(lowered)?.robustness(claim, options)
}
