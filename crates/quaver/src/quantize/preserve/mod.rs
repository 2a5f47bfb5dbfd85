//! The fewest bits with which a quantized network keeps properties of the original: many at once, with as much accuracy as is asked for.
//!
//! A search proposes bits for each layer. The network with these bits is what is verified, property by property; no abstraction of the original stands
//! between. An input on which a property fails refutes the proposal and, as long as it fails there, every later one; so does too little accuracy. Each
//! answer is a [`Fact`] that can be kept, so that a search that was ended goes on where it was.

mod floor;
mod ledger;
mod networks;
mod survey;

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::search::{Answer, Bits, Greedy, Oracle, Search, Space};
use super::{NetworkError, round};
use crate::model::lower::Lowered;
use crate::property::Query;
use crate::verify::{NotAClassifier, Options as Verification, Verdict, Verifier};
pub use floor::Floor;
use ledger::{Asked, Ledger};
pub use ledger::{Fact, Point, Reason};
pub use networks::{Candidate, Made, Networks, Rounding};
pub use survey::Mark;

/// A property that must be kept.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What users know it by.
    pub name: String,
    /// The outputs that must not occur on some inputs.
    pub query: Query,
}

/// What is kept, and how networks are made.
pub struct Task<'t> {
    /// Makes the network at any bits.
    pub networks: Networks<'t>,
    /// The properties.
    pub wanted: Vec<Wanted>,
    /// How accurate a network must be.
    pub floor: Option<Floor>,
}

/// How hard to try.
#[derive(Clone, Debug)]
pub struct Effort {
    /// For one property and one vector of bits.
    pub verification: Verification,
    /// For everything.
    pub timeout: Duration,
    /// Most vectors that are verified with learned rounding.
    pub learned: usize,
}

/// What happens, for progress.
#[derive(Clone, Debug)]
pub struct Event<'e> {
    /// What was verified.
    pub candidate: &'e Candidate,
    /// What came out.
    pub answer: Answer,
    /// How long it took.
    pub took: Duration,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Networks that were verified.
    pub verified: u64,
    /// Of these, networks that were refuted.
    pub refuted: u64,
    /// Of these, networks of which nothing was shown in time.
    pub undecided: u64,
    /// Whether the search came to its own end: then no cheaper vector with nearest rounding is good, unless it is undecided.
    pub is_complete: bool,
}

/// Sees facts as they are found.
pub type Record<'t> = Box<dyn FnMut(&Fact) + Send + 't>;

/// The search.
pub struct Preservation<'t> {
    task: Task<'t>,
    ledger: Ledger,
    /// Numbers of the properties, those that failed last first.
    order: Vec<usize>,
    deadline: Instant,
    effort: Effort,
    record: Mutex<Record<'t>>,
}

impl<'t> Preservation<'t> {
    /// A search that knows what was found before.
    pub fn new(task: Task<'t>, effort: Effort, known: Vec<Fact>, record: Record<'t>) -> Self {
        let mut ledger = Ledger::new(&task);
        known.into_iter().for_each(|fact| ledger.learn(fact));
        let order = (0..task.wanted.len()).collect();
        let deadline = Instant::now() + effort.timeout;
        Preservation { task, ledger, order, deadline, effort, record: Mutex::new(record) }
    }

    /// Verifies what a search proposes until it has no more proposals, or time is over.
    ///
    /// Vectors with the same bits in every layer come first, so that there is an answer early.
    ///
    /// # Errors
    /// If a network cannot be made.
    pub fn run(
        &mut self,
        space: &Space,
        search: &mut dyn Search,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<Account, NetworkError> {
        let mut account = Account::default();
        for bits in space.uniform_vectors() {
            let candidate = Candidate { bits, rounding: Rounding::Nearest };
            if self.is_over() || search.best().is_some() {
                break;
            }
            if self.refuted_by(&candidate)?.is_none() {
                self.ask(search, &candidate, Trial::Quick, &mut account, report)?;
            }
        }
        while !self.is_over() {
            let Some(bits) = self.next(search, Rounding::Nearest)? else {
                account.is_complete = true;
                break;
            };
            let candidate = Candidate { bits, rounding: Rounding::Nearest };
            self.ask(search, &candidate, Trial::Full, &mut account, report)?;
        }
        Ok(account)
    }

    /// Goes down from a good vector with learned rounding, as far as it is good.
    ///
    /// # Errors
    /// If a network cannot be made.
    pub fn run_learned(
        &mut self,
        space: &Space,
        best: &[u8],
        account: &mut Account,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<Bits>, NetworkError> {
        let mut search = Greedy::new(space.clone(), self.effort.learned);
        search.tell(best, Answer::Accepted);
        while !self.is_over() {
            let Some(bits) = self.next(&mut search, Rounding::Learned)? else { break };
            let candidate = Candidate { bits, rounding: Rounding::Learned };
            self.ask(&mut search, &candidate, Trial::Full, account, report)?;
        }
        Ok(search.best().filter(|bits| *bits != best).map(<[u8]>::to_vec))
    }

    /// What is kept.
    pub fn task(&self) -> &Task<'t> {
        &self.task
    }

    /// The centres of properties and the counterexamples.
    pub fn points(&self) -> &[Point] {
        self.ledger.points()
    }

    /// A property of a network that was not decided in time, and a lower bound on its margin.
    pub fn open(&self, candidate: &Candidate) -> Option<(usize, f64)> {
        self.ledger.open(candidate)
    }

    /// Asks what is known of vectors with some rounding.
    pub fn ask_about<T>(&mut self, rounding: Rounding, ask: impl FnOnce(&mut dyn Oracle) -> T) -> T {
        ask(&mut Asked::new(&mut self.ledger, &self.task, rounding, &self.record))
    }

    /// The network that a candidate is.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn made(&mut self, candidate: &Candidate) -> Result<Arc<Made>, NetworkError> {
        self.ledger.made(&self.task, candidate)
    }

    /// What refutes a network, as far as is known.
    fn refuted_by(&mut self, candidate: &Candidate) -> Result<Option<Reason>, NetworkError> {
        self.ledger.look(&self.task, candidate, &self.record)?;
        Ok(self.ledger.refuted_by(candidate))
    }

    fn next(&mut self, search: &mut dyn Search, rounding: Rounding) -> Result<Option<Bits>, NetworkError> {
        let mut asked = Asked::new(&mut self.ledger, &self.task, rounding, &self.record);
        let next = search.next(&mut asked);
        asked.failed.map_or(Ok(next), Err)
    }

    fn is_over(&self) -> bool {
        let stop = self.effort.verification.stop.as_ref();
        Instant::now() >= self.deadline || stop.is_some_and(|s| s.load(Ordering::Relaxed))
    }

    /// Verifies one network and tells the search, unless a quick trial says nothing.
    fn ask(
        &mut self,
        search: &mut dyn Search,
        candidate: &Candidate,
        trial: Trial,
        account: &mut Account,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), NetworkError> {
        let began = Instant::now();
        let answer = self.verify(candidate, trial)?;
        if answer == Answer::Undecided && trial == Trial::Quick {
            return Ok(());
        }
        search.tell(&candidate.bits, answer);
        account.verified += 1;
        match answer {
            Answer::Accepted => {}
            Answer::Refuted(_) => account.refuted += 1,
            Answer::Undecided => account.undecided += 1,
        }
        report(Event { candidate, answer, took: began.elapsed() });
        Ok(())
    }

    /// Whether the network at some bits has all properties.
    ///
    /// # Claim
    /// If the answer is `Accepted`, every property holds of the network, and it is as accurate as was asked for.
    fn verify(&mut self, candidate: &Candidate, trial: Trial) -> Result<Answer, NetworkError> {
        if let Some(reason) = self.refuted_by(candidate)? {
            return Ok(Answer::Refuted(reason.number()));
        }
        let made = self.made(candidate)?;
        let verifier = Verifier::new(&made.lowered)?;
        let open: Vec<usize> = self.order.iter().copied().filter(|&p| !self.ledger.holds(candidate, p)).collect();
        // Bounds and attack decide most properties; only then is it worth searching the others.
        let quick = Verification { subproblems: 0, ..self.effort.verification.clone() };
        let open = match self.round((candidate, &verifier), &open, &quick, true)? {
            Round::Refuted(reason) => return Ok(Answer::Refuted(reason.number())),
            Round::Open(open) => open,
        };
        if trial == Trial::Quick && !open.is_empty() {
            return Ok(Answer::Undecided);
        }
        match self.round((candidate, &verifier), &open, &self.effort.verification.clone(), true)? {
            Round::Refuted(reason) => Ok(Answer::Refuted(reason.number())),
            Round::Open(open) if open.is_empty() => Ok(Answer::Accepted),
            Round::Open(open) => {
                // Next time it comes first.
                self.put_first(open[0]);
                Ok(Answer::Undecided)
            }
        }
    }

    /// Decides some properties. With `hurry` nothing more is looked at once a network cannot be accepted.
    fn round(
        &mut self,
        (candidate, verifier): (&Candidate, &Verifier<'_>),
        properties: &[usize],
        options: &Verification,
        hurry: bool,
    ) -> Result<Round, NetworkError> {
        // Known inputs were executed already.
        let query = |number: usize| Cow::Borrowed(&self.task.wanted[number].query);
        let told = |number: usize, verdict: Verdict| {
            let told = Fact::from_verdict(candidate, number, &verdict);
            told.inspect(|fact| (self.record.lock().unwrap_or_else(PoisonError::into_inner))(fact))
        };
        let round = round::Round { options, deadline: self.deadline, hurry };
        let told = round.decide(verifier, properties, query, told)?;
        Ok(self.learn(candidate, told))
    }

    /// Learns facts, and what was proved of margins where there is none.
    fn learn(&mut self, candidate: &Candidate, told: Vec<(usize, Option<Result<Fact, f64>>)>) -> Round {
        let (mut refuted, mut open) = (false, vec![]);
        for (property, told) in told {
            match told {
                Some(Ok(fact)) => {
                    if matches!(fact, Fact::Refuted { .. }) {
                        self.put_first(property);
                        refuted = true;
                    }
                    self.ledger.learn(fact);
                }
                Some(Err(bound)) => {
                    self.ledger.leave_open(candidate, property, bound);
                    open.insert(0, property);
                }
                None => open.push(property),
            }
        }
        match self.ledger.refuted_by(candidate) {
            Some(reason) if refuted => Round::Refuted(reason),
            _ => Round::Open(open),
        }
    }

    fn put_first(&mut self, property: usize) {
        self.order.retain(|p| *p != property);
        self.order.insert(0, property);
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

/// What some properties say.
enum Round {
    /// What refutes.
    Refuted(Reason),
    /// Properties that are not decided.
    Open(Vec<usize>),
}

/// Decides properties of the original network: a quantized one can only keep those that hold.
///
/// # Errors
/// If a property does not fit.
pub fn of_original(
    original: &Lowered,
    wanted: &[Wanted],
    options: &Verification,
) -> Result<Vec<Verdict>, NotAClassifier> {
    let verifier = Verifier::new(original)?;
    wanted.par_iter().map(|w| verifier.decide(&w.query, options)).collect()
}
