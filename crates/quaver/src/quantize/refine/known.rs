//! Counterexamples, and what they say of other bits.

use std::collections::HashMap;

use super::boundary::Way;
use super::{RefineError, Task};
use crate::net::execute;
use crate::property::equivalence::Question;
use crate::quantize::data::first_largest;
use crate::quantize::judge::{Forbidden, Said};
use crate::quantize::search::{Bits, Oracle, Search};

/// An input on which the networks differed at some bits.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// The place that it lies in.
    pub place: usize,
    /// The input.
    pub input: Vec<f64>,
}

/// What one vector of bits gets on the known inputs.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// How many of them were looked at.
    inputs: usize,
    /// The first that refutes.
    refuted_by: Option<usize>,
    /// How many refute.
    count: usize,
    /// Whether rounding leaves it open if some of them refutes: then nothing can be proved.
    unsure: bool,
    /// How far the nearest is from refuting.
    margin: f64,
}

/// Known inputs: centres of places and counterexamples, and what each vector of bits gets on them.
pub struct Known {
    forbidden: Forbidden,
    all: Vec<Counterexample>,
    ways: Vec<Way>,
    seen: HashMap<Bits, Seen>,
    accuracies: HashMap<Bits, f64>,
}

/// Vectors that are remembered at most.
const MOST_SEEN: usize = 1 << 20;

impl Known {
    pub(super) fn new(question: &Question, task: &Task<'_>, ways: Vec<Way>) -> Self {
        let forbidden = Forbidden::new(question.forbidden());
        let center = |(place, p): (usize, &super::Place)| Some(Counterexample { place, input: p.center.clone()? });
        let all = task.places.iter().enumerate().filter_map(center).collect();
        Known { forbidden, all, ways, seen: HashMap::new(), accuracies: HashMap::new() }
    }

    /// The inputs, by number.
    pub fn inputs(&self) -> &[Counterexample] {
        &self.all
    }

    pub(super) fn add(&mut self, counterexample: Counterexample) -> usize {
        self.all.push(counterexample);
        self.all.len() - 1
    }

    /// The inputs in a place, the last first.
    pub(super) fn inside(&self, place: usize) -> Vec<Vec<f64>> {
        self.all.iter().rev().filter(|c| c.place == place).map(|c| c.input.clone()).collect()
    }

    /// Which input refutes a vector.
    pub(super) fn refutes(&mut self, task: &Task<'_>, bits: &[u8]) -> Result<Option<usize>, RefineError> {
        Ok(self.look(task, bits)?.refuted_by)
    }

    /// Whether nothing can be proved of a vector because of rounding at a known input.
    pub(super) fn is_unsure(&mut self, task: &Task<'_>, bits: &[u8]) -> Result<bool, RefineError> {
        Ok(self.look(task, bits)?.unsure)
    }

    /// The original's class changes in this place.
    pub(super) fn changing(&self) -> Option<usize> {
        self.ways.first().map(|way| way.place)
    }

    /// The next vector that a search proposes.
    pub(super) fn next(&mut self, task: &Task<'_>, search: &mut dyn Search) -> Result<Option<Bits>, RefineError> {
        let mut asked = self.oracle(task);
        let next = search.next(&mut asked);
        asked.failed.map_or(Ok(next), Err)
    }

    /// Answers a search's questions about a task.
    pub fn oracle<'k>(&'k mut self, task: &'k Task<'k>) -> Asked<'k> {
        Asked { known: self, task, failed: None }
    }

    /// Executes both networks on the inputs that a vector has not seen.
    fn look(&mut self, task: &Task<'_>, bits: &[u8]) -> Result<Seen, RefineError> {
        let nothing = Seen { inputs: 0, refuted_by: None, count: 0, unsure: false, margin: f64::INFINITY };
        let mut seen = self.seen.get(bits).copied().unwrap_or(nothing);
        if seen.inputs == self.all.len() {
            return Ok(seen);
        }
        let question = task.candidate(bits)?.question;
        self.execute(&question, &mut seen);
        if seen.inputs == 0 && seen.refuted_by.is_none() {
            self.walk(&question, &mut seen);
        }
        seen.inputs = self.all.len();
        if self.seen.len() >= MOST_SEEN {
            self.seen.clear();
        }
        self.seen.insert(bits.to_vec(), seen);
        Ok(seen)
    }

    /// Executes both networks on the inputs that are new.
    fn execute(&self, question: &Question, seen: &mut Seen) {
        let net = &question.lowered().net;
        let new = &self.all[seen.inputs..];
        let rows: Vec<f64> = new.iter().flat_map(|c| c.input.iter().copied()).collect();
        let outputs = &execute(net, &[rows], new.len())[0];
        for k in 0..new.len() {
            match self.forbidden.judge(&outputs.row(k, new.len())) {
                Said::Refutes => {
                    seen.refuted_by = seen.refuted_by.or(Some(seen.inputs + k));
                    seen.count += 1;
                }
                Said::Unsure => (seen.unsure, seen.margin) = (true, 0.0),
                Said::Agrees(margin) => seen.margin = seen.margin.min(margin),
            }
        }
    }

    /// Looks for a counterexample where the original's class changes.
    fn walk(&mut self, question: &Question, seen: &mut Seen) {
        let net = &question.lowered().net;
        for k in 0..self.ways.len() {
            let input = self.ways[k].between(question);
            let output = execute(net, std::slice::from_ref(&input), 1).swap_remove(0);
            match self.forbidden.judge(&output) {
                Said::Refutes => {
                    let number = self.add(Counterexample { place: self.ways[k].place, input });
                    (seen.refuted_by, seen.count) = (Some(number), seen.count + 1);
                    return;
                }
                Said::Unsure => (seen.unsure, seen.margin) = (true, 0.0),
                Said::Agrees(_) => {}
            }
        }
    }

    /// The share of data whose first largest output of the quantized network is the label.
    fn accuracy(&mut self, task: &Task<'_>, bits: &[u8]) -> Result<f64, RefineError> {
        let Some(data) = &task.data else { return Ok(0.0) };
        if let Some(known) = self.accuracies.get(bits) {
            return Ok(*known);
        }
        let question = task.candidate(bits)?.question;
        let net = &question.lowered().net;
        // The outputs of the original come first.
        let accuracy = data.share(net, |y| first_largest(&y[y.len() / 2..]));
        self.accuracies.insert(bits.to_vec(), accuracy);
        Ok(accuracy)
    }
}

/// [`Known`] as the oracle of a search.
pub struct Asked<'k> {
    known: &'k mut Known,
    task: &'k Task<'k>,
    /// The first network that could not be made: every vector counts as refuted from then on.
    failed: Option<RefineError>,
}

impl Asked<'_> {
    fn look(&mut self, bits: &[u8]) -> Seen {
        let lost = Seen { inputs: 0, refuted_by: Some(0), count: 1, unsure: false, margin: 0.0 };
        match self.failed {
            Some(_) => lost,
            None => self.known.look(self.task, bits).unwrap_or_else(|error| {
                self.failed = Some(error);
                lost
            }),
        }
    }
}

impl Oracle for Asked<'_> {
    fn layers(&self) -> usize {
        self.task.quantizer.layers().len()
    }

    fn violation(&mut self, bits: &[u8]) -> f64 {
        self.look(bits).count as f64
    }

    fn refuted_by(&mut self, bits: &[u8]) -> Option<usize> {
        self.look(bits).refuted_by
    }

    fn accuracy(&mut self, bits: &[u8]) -> f64 {
        match self.known.accuracy(self.task, bits) {
            Ok(accuracy) => accuracy,
            Err(error) => {
                self.failed.get_or_insert(error);
                0.0
            }
        }
    }

    fn margin(&mut self, bits: &[u8]) -> f64 {
        let seen = self.look(bits);
        if seen.count > 0 { -(seen.count as f64) } else { seen.margin }
    }
}
