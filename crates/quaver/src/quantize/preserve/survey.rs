//! What fewer bits would give up.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Preservation;
use super::networks::Candidate;
use crate::quantize::search::Space;
use crate::quantize::{NetworkError, QuantizedLayer};
use crate::verify::{Options as Verification, Verifier};

/// What one network achieves.
#[derive(Clone, Debug)]
pub struct Mark {
    /// The network.
    pub candidate: Candidate,
    /// Its layers.
    pub layers: Vec<QuantizedLayer>,
    /// Properties that are proved.
    pub certified: usize,
    /// Rows of the data that it gets wrong.
    pub wrong: Option<usize>,
}

impl Preservation<'_> {
    /// Marks of some networks: those that are named, and for each cost below the first of these the one that the search came across which fewest known
    /// inputs refute. Ends early where time is over.
    ///
    /// # Errors
    /// If a network cannot be made.
    pub fn survey(&mut self, space: &Space, named: &[Candidate]) -> Result<Vec<Mark>, NetworkError> {
        let most = named.first().map_or(u64::MAX, |c| space.cost(&c.bits));
        let mut cheaper: BTreeMap<u64, (usize, Candidate)> = BTreeMap::new();
        for (candidate, count) in self.ledger.looked_at().filter(|(c, _)| space.cost(&c.bits) < most) {
            let best = cheaper.entry(space.cost(&candidate.bits)).or_insert_with(|| (usize::MAX, candidate.clone()));
            if (count, &candidate.bits) < (best.0, &best.1.bits) {
                *best = (count, candidate.clone());
            }
        }
        let dearest_first = cheaper.into_values().rev().map(|(_, candidate)| candidate);
        let mut marks = vec![];
        for candidate in named.iter().cloned().chain(dearest_first) {
            if self.is_stopped() {
                break;
            }
            marks.push(self.mark(candidate)?);
        }
        Ok(marks)
    }

    /// Interrupted, or long over: what comes after a search may take a tenth of its time more.
    fn is_stopped(&self) -> bool {
        let stop = self.effort.verification.stop.as_ref();
        Instant::now() >= self.deadline + self.effort.timeout / 10 || stop.is_some_and(|s| s.load(Ordering::Relaxed))
    }

    fn mark(&mut self, candidate: Candidate) -> Result<Mark, NetworkError> {
        let made = self.made(&candidate)?;
        let verifier = Verifier::new(&made.lowered)?;
        let open: Vec<usize> = (0..self.task.wanted.len()).filter(|&p| !self.ledger.holds(&candidate, p)).collect();
        let quick = Verification { subproblems: 0, ..self.effort.verification.clone() };
        self.round((&candidate, &verifier), &open, &quick, false)?;
        let wrong = self.task.floor.as_ref().map(|floor| floor.wrong(&made.lowered, usize::MAX).0);
        let layers = made.quantized.layers.clone();
        Ok(Mark { certified: self.ledger.certified(&candidate), candidate, layers, wrong })
    }
}
