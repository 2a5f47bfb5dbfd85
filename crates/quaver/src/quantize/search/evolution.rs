//! The search of CEG4N: a genetic search on what is known, again after each counterexample.

use std::collections::BTreeMap;

use super::nsga2::{Found, Options, minimise};
use super::{Answer, Bits, Objective, Oracle, Search, Space};

/// Proposes what [`minimise`] finds. A run's front is proposed from the cheapest vector on; a vector that is not accepted starts another run, with the next
/// seed and from the same
/// vectors. It ends when the whole front of a run is accepted, or when a run finds nothing. The result need not be the cheapest.
#[derive(Debug, Clone)]
pub struct Evolution {
    space: Space,
    objective: Objective,
    options: Options,
    /// What the last run found, as long as nothing was refused.
    found: Option<Found>,
    answers: BTreeMap<Bits, Answer>,
    runs: u64,
}

impl Evolution {
    /// A search with these settings; `options.seed` is that of the first run.
    pub fn new(space: Space, objective: Objective, options: Options) -> Self {
        Evolution { space, objective, options, found: None, answers: BTreeMap::new(), runs: 0 }
    }

    /// What the last run found; `None` before the first and after a vector of it was refused.
    pub fn found(&self) -> Option<&Found> {
        self.found.as_ref()
    }

    /// Genetic searches so far.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    fn run(&mut self, oracle: &mut dyn Oracle) {
        let accepted = self.answers.iter().filter(|(_, answer)| **answer == Answer::Accepted).map(|(bits, _)| bits);
        let start = self.options.start.iter().chain(accepted).cloned().collect();
        let options = Options { seed: self.options.seed + self.runs, start, ..self.options.clone() };
        let mut masked = Masked { oracle, answers: &self.answers };
        let mut found = minimise(&mut masked, &self.space, &self.objective, &options);
        found.front.sort_by(|a, b| a.values[0].total_cmp(&b.values[0]));
        self.found = Some(found);
        self.runs += 1;
    }
}

impl Search for Evolution {
    fn next(&mut self, oracle: &mut dyn Oracle) -> Option<Bits> {
        if self.found.is_none() {
            self.run(oracle);
        }
        let front = &self.found.as_ref()?.front;
        front.iter().find(|v| !self.answers.contains_key(&v.bits)).map(|v| v.bits.clone())
    }

    /// # Panics
    /// If the vector is not of the space.
    fn tell(&mut self, bits: &[u8], answer: Answer) {
        assert!(self.space.holds(bits), "{bits:?} is no vector of this space");
        self.answers.insert(bits.to_vec(), answer);
        if answer != Answer::Accepted {
            self.found = None;
        }
    }

    /// The cheapest accepted vector.
    fn best(&self) -> Option<&[u8]> {
        let accepted = self.answers.iter().filter(|(_, answer)| **answer == Answer::Accepted).map(|(bits, _)| bits);
        accepted.min_by_key(|bits| self.space.cost(bits)).map(Vec::as_slice)
    }

    fn answer(&self, bits: &[u8]) -> Option<Answer> {
        self.answers.get(bits).copied()
    }
}

/// An oracle that also refuses what was verified and not accepted, as little as possible, because good vectors may be near.
struct Masked<'o> {
    oracle: &'o mut dyn Oracle,
    answers: &'o BTreeMap<Bits, Answer>,
}

impl Masked<'_> {
    fn masked(&self, bits: &[u8], violation: f64) -> f64 {
        match self.answers.get(bits) {
            Some(Answer::Refuted(_) | Answer::Undecided) => violation.max(f64::MIN_POSITIVE),
            Some(Answer::Accepted) | None => violation,
        }
    }
}

impl Oracle for Masked<'_> {
    fn layers(&self) -> usize {
        self.oracle.layers()
    }

    fn violation(&mut self, bits: &[u8]) -> f64 {
        let violation = self.oracle.violation(bits);
        self.masked(bits, violation)
    }

    fn refuted_by(&mut self, bits: &[u8]) -> Option<usize> {
        self.oracle.refuted_by(bits)
    }

    fn accuracy(&mut self, bits: &[u8]) -> f64 {
        self.oracle.accuracy(bits)
    }

    fn violations(&mut self, many: &[&[u8]]) -> Vec<f64> {
        let violations = self.oracle.violations(many);
        violations.into_iter().zip(many).map(|(v, bits)| self.masked(bits, v)).collect()
    }

    fn accuracies(&mut self, many: &[&[u8]]) -> Vec<f64> {
        self.oracle.accuracies(many)
    }
}
