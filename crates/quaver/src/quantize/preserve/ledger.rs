//! What is known of networks at some bits.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::networks::{Candidate, Made, Rounding};
use super::{Record, Task};
use crate::model::lower::Lowered;
use crate::net::execute;
use crate::quantize::NetworkError;
use crate::quantize::judge::{Forbidden, Said};
use crate::quantize::search::Oracle;
use crate::verify::Verdict;

/// Something that was found out about a network, to be kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// A property was proved.
    Holds {
        /// Of this network.
        of: Candidate,
        /// Its number.
        property: usize,
        /// How far from failing, at least.
        margin: f64,
    },
    /// A property was refuted.
    Refuted {
        /// Of this network.
        of: Candidate,
        /// Its number.
        property: usize,
        /// An input on which it fails.
        input: Vec<f64>,
    },
    /// Data was classified.
    Classified {
        /// By this network.
        of: Candidate,
        /// How much of it wrongly.
        wrong: usize,
        /// Of so many rows, those first that the original is least sure of.
        rows: usize,
    },
}

impl Fact {
    /// What a verdict says; where it says nothing, a lower bound on the margin.
    pub(super) fn from_verdict(of: &Candidate, property: usize, verdict: &Verdict) -> Result<Fact, f64> {
        let of = of.clone();
        match verdict {
            Verdict::Holds(proof) => Ok(Fact::Holds { of, property, margin: proof.margin() }),
            Verdict::Violated(witness) => Ok(Fact::Refuted { of, property, input: witness.input().to_vec() }),
            Verdict::Undecided(unfinished) => Err(unfinished.bound),
        }
    }
}

/// An input that a property is about: the centre of a ball, or one on which it failed.
#[derive(Clone, Debug)]
pub struct Point {
    /// The property.
    pub property: usize,
    /// The input.
    pub input: Vec<f64>,
}

/// What refutes a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It gets too much of the data wrong.
    Inaccurate,
    /// A point, by its number.
    Point(usize),
}

impl Reason {
    /// As searches count.
    pub fn number(self) -> usize {
        match self {
            Reason::Inaccurate => 0,
            Reason::Point(k) => k + 1,
        }
    }

    /// Back again.
    pub fn from_number(number: usize) -> Reason {
        number.checked_sub(1).map_or(Reason::Inaccurate, Reason::Point)
    }
}

/// What one network gets.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Points that were looked at.
    points: usize,
    refuted_by: Option<Reason>,
    /// How many points refute.
    count: usize,
    /// How far the nearest is from refuting; `None` before the first.
    margin: Option<f64>,
    /// (wrong, rows).
    classified: Option<(usize, usize)>,
    /// Properties that were proved.
    holds: BTreeSet<usize>,
    /// A property that was not decided in time, and what was proved of its margin.
    open: Option<(usize, f64)>,
}

/// Everything that is known.
pub(super) struct Ledger {
    forbidden: Vec<Forbidden>,
    points: Vec<Point>,
    seen: HashMap<Candidate, Seen>,
    /// Rows of data, and how many may be wrong.
    rows: usize,
    most_wrong: usize,
    /// The network that was made last: what is asked of one comes together.
    last: Option<(Candidate, Arc<Made>)>,
}

impl Ledger {
    pub fn new(task: &Task<'_>) -> Self {
        let forbidden = task.wanted.iter().map(|w| Forbidden::new(&w.query.forbidden)).collect();
        let centers = |(property, w): (usize, &super::Wanted)| {
            w.query.candidates.iter().map(move |input| Point { property, input: input.clone() }).collect::<Vec<_>>()
        };
        let points = task.wanted.iter().enumerate().flat_map(centers).collect();
        let (rows, most_wrong) = task.floor.as_ref().map_or((0, 0), |f| (f.rows(), f.most()));
        Ledger { forbidden, points, seen: HashMap::new(), rows, most_wrong, last: None }
    }

    /// The network that a candidate is.
    pub fn made(&mut self, task: &Task<'_>, candidate: &Candidate) -> Result<Arc<Made>, NetworkError> {
        if let Some((_, made)) = self.last.as_ref().filter(|(last, _)| last == candidate) {
            return Ok(made.clone());
        }
        let made = Arc::new(task.networks.make(candidate)?);
        self.last = Some((candidate.clone(), made.clone()));
        Ok(made)
    }

    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Whether a property was proved of a network.
    pub fn holds(&self, candidate: &Candidate, property: usize) -> bool {
        self.seen.get(candidate).is_some_and(|s| s.holds.contains(&property))
    }

    /// How many properties were proved of a network.
    pub fn certified(&self, candidate: &Candidate) -> usize {
        self.seen.get(candidate).map_or(0, |s| s.holds.len())
    }

    /// A property of a network that was not decided in time.
    pub fn open(&self, candidate: &Candidate) -> Option<(usize, f64)> {
        self.seen.get(candidate)?.open
    }

    /// Notes such a property.
    pub fn leave_open(&mut self, candidate: &Candidate, property: usize, bound: f64) {
        self.seen.entry(candidate.clone()).or_default().open = Some((property, bound));
    }

    pub fn refuted_by(&self, candidate: &Candidate) -> Option<Reason> {
        self.seen.get(candidate)?.refuted_by
    }

    /// How many points refute a network that was looked at.
    pub fn looked_at(&self) -> impl Iterator<Item = (&Candidate, usize)> {
        self.seen.iter().map(|(candidate, seen)| (candidate, seen.count))
    }

    /// Takes a fact in.
    pub fn learn(&mut self, fact: Fact) {
        match fact {
            Fact::Holds { of, property, .. } => {
                self.seen.entry(of).or_default().holds.insert(property);
            }
            Fact::Refuted { of, property, input } => {
                // A property that is not wanted any more has no point.
                if property < self.forbidden.len() {
                    self.points.push(Point { property, input });
                    let seen = self.seen.entry(of).or_default();
                    seen.refuted_by = seen.refuted_by.or(Some(Reason::Point(self.points.len() - 1)));
                    seen.count = seen.count.max(1);
                }
            }
            Fact::Classified { of, wrong, rows } => {
                let is_telling = wrong > self.most_wrong || rows == self.rows;
                if is_telling {
                    self.seen.entry(of).or_default().classified = Some((wrong, rows));
                }
            }
        }
    }

    /// Executes a network on the points that it has not seen, and on the data if nothing refutes it yet.
    pub fn look(
        &mut self,
        task: &Task<'_>,
        candidate: &Candidate,
        record: &Mutex<Record<'_>>,
    ) -> Result<(), NetworkError> {
        let mut seen = self.seen.get(candidate).cloned().unwrap_or_default();
        let is_done = seen.points == self.points.len()
            && (seen.refuted_by.is_some() || task.floor.is_none() || seen.classified.is_some());
        if is_done {
            return Ok(());
        }
        let made = self.made(task, candidate)?;
        let lowered = &made.lowered;
        self.execute(lowered, &mut seen);
        if let (None, Some(floor)) = (seen.refuted_by, &task.floor) {
            let (wrong, rows) = seen.classified.unwrap_or_else(|| {
                let (wrong, rows) = floor.wrong(lowered, floor.most());
                let fact = Fact::Classified { of: candidate.clone(), wrong, rows };
                (record.lock().unwrap_or_else(PoisonError::into_inner))(&fact);
                (wrong, rows)
            });
            seen.classified = Some((wrong, rows));
            if wrong > floor.most() {
                seen.refuted_by = Some(Reason::Inaccurate);
            }
        }
        self.seen.insert(candidate.clone(), seen);
        Ok(())
    }

    fn execute(&self, lowered: &Lowered, seen: &mut Seen) {
        let new = &self.points[seen.points..];
        if new.is_empty() {
            return;
        }
        // Where several runtimes are meant, one of them refutes.
        for net in lowered.members.iter().chain(lowered.members.is_empty().then_some(lowered)).map(|l| &l.net) {
            let rows: Vec<f64> = new.iter().flat_map(|p| p.input.iter().copied()).collect();
            let outputs = &execute(net, &[rows], new.len())[0];
            for (k, point) in new.iter().enumerate() {
                match self.forbidden[point.property].judge(&outputs.row(k, new.len())) {
                    Said::Refutes => {
                        seen.refuted_by = seen.refuted_by.or(Some(Reason::Point(seen.points + k)));
                        seen.count += 1;
                    }
                    Said::Unsure => seen.margin = Some(seen.margin.map_or(0.0, |m| m.min(0.0))),
                    Said::Agrees(margin) => seen.margin = Some(seen.margin.map_or(margin, |m| m.min(margin))),
                }
            }
        }
        seen.points = self.points.len();
    }
}

/// [`Ledger`] as the oracle of a search.
pub(super) struct Asked<'k, 't> {
    ledger: &'k mut Ledger,
    task: &'k Task<'t>,
    rounding: Rounding,
    record: &'k Mutex<Record<'t>>,
    /// The first network that could not be made: every vector counts as refuted from then on.
    pub failed: Option<NetworkError>,
}

impl<'k, 't> Asked<'k, 't> {
    pub fn new(ledger: &'k mut Ledger, task: &'k Task<'t>, rounding: Rounding, record: &'k Mutex<Record<'t>>) -> Self {
        Asked { ledger, task, rounding, record, failed: None }
    }

    fn look(&mut self, bits: &[u8]) -> Seen {
        let candidate = Candidate { bits: bits.to_vec(), rounding: self.rounding };
        if self.failed.is_none() {
            self.failed = self.ledger.look(self.task, &candidate, self.record).err();
        }
        match (&self.failed, self.ledger.seen.get(&candidate)) {
            (None, Some(seen)) => seen.clone(),
            _ => Seen { refuted_by: Some(Reason::Inaccurate), count: 1, ..Seen::default() },
        }
    }
}

impl Oracle for Asked<'_, '_> {
    fn layers(&self) -> usize {
        self.task.networks.quantizer.layers().len()
    }

    fn violation(&mut self, bits: &[u8]) -> f64 {
        let seen = self.look(bits);
        match seen.refuted_by {
            Some(_) => seen.count.max(1) as f64,
            None => 0.0,
        }
    }

    fn refuted_by(&mut self, bits: &[u8]) -> Option<usize> {
        self.look(bits).refuted_by.map(Reason::number)
    }

    fn accuracy(&mut self, bits: &[u8]) -> f64 {
        let classified = self.look(bits).classified;
        classified.map_or(0.0, |(wrong, rows)| 1.0 - wrong as f64 / rows.max(1) as f64)
    }

    fn margin(&mut self, bits: &[u8]) -> f64 {
        let seen = self.look(bits);
        if seen.refuted_by.is_some() { -(seen.count.max(1) as f64) } else { seen.margin.unwrap_or(0.0) }
    }
}
