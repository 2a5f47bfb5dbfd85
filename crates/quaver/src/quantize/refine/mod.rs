//! Refinement: the fewest bits with which a quantized network is proved equivalent to the original on all of some regions.
//!
//! A search proposes bits for each layer; the network with these bits is verified against the original, region by region; an input on which they
//! differ refutes the proposal and, as long as it differs, every later one. What is accepted was proved.
//!
//! # Source
//! J. B. P. Matos Jr., CEG4N: counter-example guided neural network quantization refinement, chapter 3, algorithm 1.

mod boundary;
mod known;
mod sensitive;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::search::{Answer, Bits, Oracle, Search, Sensitivity, Space};
use super::{Data, LayerScheme, QuantizeError, Quantized, Quantizer, round};
use crate::model::lower::{LowerError, Lowered, lower};
use crate::model::profile::Profile;
use crate::property::Region;
use crate::property::equivalence::{Pair, PairError, Question, Relation};
use crate::verify::{NotAClassifier, Options as Verification, Verdict, Verifier, Witness};
use boundary::Way;
pub use known::{Counterexample, Known};

/// Inputs on which both networks must agree.
#[derive(Clone, Debug)]
pub struct Place {
    /// All of them.
    pub region: Region,
    /// Where counterexamples are taken from, if that is not the whole region (see [`crate::property::Query::inside`]).
    pub inside: Option<Region>,
    /// One of them, such as the centre of a ball.
    pub center: Option<Vec<f64>>,
}

/// What is preserved, and how networks are made.
pub struct Task<'t> {
    /// Makes the network at any bits.
    pub quantizer: &'t Quantizer,
    /// The scheme of every layer, but for its bits.
    pub scheme: LayerScheme,
    /// The arithmetic of the quantized network.
    pub profile: &'t dyn Profile,
    /// The original network in its own arithmetic.
    pub original: Arc<Lowered>,
    /// What both must have in common.
    pub relation: Relation,
    /// Where.
    pub places: Vec<Place>,
    /// What accuracy is measured on.
    pub data: Option<Data>,
}

/// How hard to try.
#[derive(Clone, Debug)]
pub struct Effort {
    /// For one region and one vector of bits.
    pub verification: Verification,
    /// For everything.
    pub timeout: Duration,
}

/// Why there is no refinement.
#[derive(Debug, thiserror::Error)]
pub enum RefineError {
    /// A network cannot be quantized so.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// A quantized network has no meaning under the profile.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// It cannot be compared with the original.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// A region does not fit.
    #[error(transparent)]
    Verify(#[from] NotAClassifier),
}

/// What happens, for progress.
#[derive(Clone, Debug)]
pub enum Event<'e> {
    /// A vector was verified.
    Verified {
        /// The vector.
        bits: &'e [u8],
        /// What came out.
        answer: Answer,
        /// How long it took.
        took: Duration,
    },
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Vectors that were verified.
    pub verified: u64,
    /// Of these, vectors that were refuted.
    pub refuted: u64,
    /// Of these, vectors on which nothing was shown in time.
    pub undecided: u64,
    /// Whether the search came to its own end.
    pub is_complete: bool,
    /// Whether no number of bits was enough where all layers have the same: then the search is not begun.
    pub is_hopeless: bool,
    /// A place in which the original's class changes. Networks with other weights change it elsewhere, if only a little.
    pub changing: Option<usize>,
}

/// A network at some bits beside the original.
struct Candidate {
    question: Question,
}

/// The loop.
pub struct Refinement<'t> {
    task: Task<'t>,
    known: Known,
    /// Numbers of the places, those that refuted last first.
    order: Vec<usize>,
    deadline: Instant,
    effort: Effort,
}

impl<'t> Refinement<'t> {
    /// A loop that knows the centres of all places.
    ///
    /// # Errors
    /// If the network at most bits cannot be made or compared.
    pub fn new(task: Task<'t>, effort: Effort) -> Result<Self, RefineError> {
        let most = vec![super::scheme::BITS.1; task.quantizer.layers().len()];
        let question = task.candidate(&most)?.question;
        Verifier::new(question.lowered())?;
        let quick = Verification { timeout: effort.timeout / 10, ..effort.verification.clone() };
        let known = Known::new(&question, &task, Way::all(&task, &quick));
        let order = (0..task.places.len()).collect();
        Ok(Refinement { known, order, deadline: Instant::now() + effort.timeout, effort, task })
    }

    /// A certified model of what the bits of each layer cost on all places, if one can be made in a tenth of the time: vectors that it proves need no
    /// verification.
    ///
    /// # Claim
    /// If the model certifies a vector, the relation holds on every input of every place.
    ///
    /// # Errors
    /// If a network cannot be made.
    pub fn sensitivity(&self, space: &Space) -> Result<Option<Sensitivity>, RefineError> {
        let quick = Verification { timeout: self.effort.timeout / 10, ..self.effort.verification.clone() };
        sensitive::sensitivities(&self.task, space, &quick)
    }

    /// Verifies what a search proposes until it has no more proposals, or time is over.
    ///
    /// Vectors with the same bits in every layer, as far as the space allows, come first, so that there is an answer early.
    ///
    /// # Errors
    /// If a network cannot be made.
    pub fn run(
        &mut self,
        space: &Space,
        search: &mut dyn Search,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<Account, RefineError> {
        let mut account = Account { changing: self.known.changing(), ..Account::default() };
        self.start(&space.uniform_vectors(), search, &mut account, report)?;
        account.is_hopeless = search.best().is_none() && !self.is_over();
        while !(self.is_over() || account.is_hopeless) {
            let Some(bits) = self.known.next(&self.task, search)? else {
                account.is_complete = true;
                break;
            };
            self.ask(search, (&bits, Trial::Full), &mut account, report)?;
        }
        Ok(account)
    }

    /// Looks for a good vector among some that need more and more bits: the first that bounds alone prove; then the first of all that nothing refutes,
    /// else those between, of which a search is asked to prove the middle one again and again.
    fn start(
        &mut self,
        uniform: &[Bits],
        search: &mut dyn Search,
        account: &mut Account,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), RefineError> {
        let mut good = None;
        for (k, bits) in uniform.iter().enumerate() {
            if self.is_over() {
                return Ok(());
            }
            let is_open = self.known.refutes(&self.task, bits)?.is_none();
            if is_open && self.ask(search, (bits, Trial::Quick), account, report)? == Answer::Accepted {
                good = Some(k);
                break;
            }
        }
        // A network of few bits may give nearly nothing, which is near enough where the original does, too.
        let (mut below, mut good) = (0, good.unwrap_or(uniform.len()));
        while below < good && self.known.refutes(&self.task, &uniform[below])?.is_some() {
            below += 1;
        }
        if below < good && self.ask(search, (&uniform[below], Trial::Full), account, report)? == Answer::Accepted {
            return Ok(());
        }
        // From there on half of what is between is left out each time.
        while good > below + 1 && !self.is_over() {
            let middle = below.midpoint(good);
            let is_open = self.known.refutes(&self.task, &uniform[middle])?.is_none();
            if is_open && self.ask(search, (&uniform[middle], Trial::Full), account, report)? == Answer::Accepted {
                good = middle;
            } else {
                below = middle;
            }
        }
        Ok(())
    }

    /// The centres of places and the counterexamples.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Asks what is known of vectors; beside it, whether there is data for accuracy.
    pub fn ask_about<T>(&mut self, ask: impl FnOnce(&mut dyn Oracle, bool) -> T) -> T {
        let has_data = self.task.data.is_some();
        ask(&mut self.known.oracle(&self.task), has_data)
    }

    /// What is refined.
    pub fn task(&self) -> &Task<'t> {
        &self.task
    }

    fn is_over(&self) -> bool {
        let stop = self.effort.verification.stop.as_ref();
        Instant::now() >= self.deadline || stop.is_some_and(|s| s.load(Ordering::Relaxed))
    }

    /// Verifies one vector and tells the search, unless a quick trial says nothing.
    fn ask(
        &mut self,
        search: &mut dyn Search,
        (bits, trial): (&Bits, Trial),
        account: &mut Account,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<Answer, RefineError> {
        let began = Instant::now();
        let answer = self.verify(bits, trial)?;
        if answer == Answer::Undecided && trial == Trial::Quick {
            return Ok(answer);
        }
        search.tell(bits, answer);
        account.verified += 1;
        match answer {
            Answer::Accepted => {}
            Answer::Refuted(_) => account.refuted += 1,
            Answer::Undecided => account.undecided += 1,
        }
        report(Event::Verified { bits, answer, took: began.elapsed() });
        Ok(answer)
    }

    /// Whether the network at some bits agrees with the original everywhere.
    ///
    /// # Claim
    /// If the answer is `Accepted`, the relation holds on every input of every place.
    fn verify(&mut self, bits: &[u8], trial: Trial) -> Result<Answer, RefineError> {
        if self.known.is_unsure(&self.task, bits)? {
            return Ok(Answer::Undecided);
        }
        let candidate = self.task.candidate(bits)?;
        // Bounds and attack decide most places; only then is it worth searching the others.
        let quick = Verification { subproblems: 0, ..self.effort.verification.clone() };
        let open = match self.round(&candidate, &self.order.clone(), &quick)? {
            Round::Refuted(number) => return Ok(Answer::Refuted(number)),
            Round::Open(open) => open,
        };
        if trial == Trial::Quick && !open.is_empty() {
            return Ok(Answer::Undecided);
        }
        match self.round(&candidate, &open, &self.effort.verification.clone())? {
            Round::Refuted(number) => Ok(Answer::Refuted(number)),
            Round::Open(open) if open.is_empty() => Ok(Answer::Accepted),
            Round::Open(open) => {
                // Next time it comes first.
                self.put_first(open[0]);
                Ok(Answer::Undecided)
            }
        }
    }

    /// Decides some places.
    fn round(&mut self, candidate: &Candidate, places: &[usize], options: &Verification) -> Result<Round, RefineError> {
        let verifier = Verifier::new(candidate.question.lowered())?;
        let query = |number: usize| {
            let place = &self.task.places[number];
            let known = self.known.inside(number);
            Cow::Owned(candidate.question.query(place.region.clone(), place.inside.clone(), known))
        };
        let round = round::Round { options, deadline: self.deadline, hurry: true };
        let verdicts = round.decide(&verifier, places, query, |_, verdict| verdict)?;
        Ok(self.judge(verdicts))
    }

    /// Learns from verdicts.
    fn judge(&mut self, verdicts: Vec<(usize, Option<Verdict>)>) -> Round {
        let (mut refuted, mut open) = (None, vec![]);
        for (place, verdict) in verdicts {
            match verdict {
                Some(Verdict::Violated(witness)) => {
                    let number = self.learn(place, &witness);
                    refuted = refuted.or(Some(number));
                }
                Some(Verdict::Holds(_)) => {}
                Some(Verdict::Undecided(_)) => open.insert(0, place),
                None => open.push(place),
            }
        }
        refuted.map_or(Round::Open(open), Round::Refuted)
    }

    fn put_first(&mut self, place: usize) {
        self.order.retain(|p| *p != place);
        self.order.insert(0, place);
    }

    /// Notes a counterexample; its number.
    fn learn(&mut self, place: usize, witness: &Witness) -> usize {
        self.put_first(place);
        self.known.add(Counterexample { place, input: witness.input().to_vec() })
    }
}

/// How hard to try.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trial {
    /// Bounds and attack.
    Quick,
    /// And search.
    Full,
}

/// What some places say.
enum Round {
    /// A counterexample, by its number.
    Refuted(usize),
    /// Places that are not decided.
    Open(Vec<usize>),
}

impl Task<'_> {
    /// The network at some bits.
    ///
    /// # Errors
    /// If the scheme does not allow them.
    pub fn quantized(&self, bits: &[u8]) -> Result<Quantized, RefineError> {
        let schemes: Vec<LayerScheme> = bits.iter().map(|&bits| LayerScheme { bits, ..self.scheme }).collect();
        Ok(self.quantizer.at(&schemes)?)
    }

    /// [`Self::quantized`] in its arithmetic.
    fn lowered(&self, bits: &[u8]) -> Result<Lowered, RefineError> {
        Ok(lower(&self.quantized(bits)?.model, self.profile)?)
    }

    fn candidate(&self, bits: &[u8]) -> Result<Candidate, RefineError> {
        let pair = Pair::new(self.original.clone(), Arc::new(self.lowered(bits)?))?;
        Ok(Candidate { question: pair.question(&self.relation)? })
    }
}
