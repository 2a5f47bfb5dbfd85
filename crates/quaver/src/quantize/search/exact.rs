//! The exact search: every vector in order of cost, until one is accepted.

use std::collections::{BTreeMap, VecDeque};

use super::lattice::Lattice;
use super::reason::{Obstacle, obstacles};
use super::{Answer, Bits, Oracle, Search, Sensitivity, Space};

/// Proposes vectors in order of cost. Nothing is left out but what is known to be refuted: whether more bits help is not assumed, because
/// rounding may hurt more at more bits.
///
/// # Claim
/// When [`Exact::progress`] is `Optimal`, no vector of the space that costs less is good, if all answers, floors and sensitivities were right.
///
/// # Why
/// A cheaper vector has fewer bits in a layer than the floor allows, or was handed out and refuted, or is refuted by a known counterexample.
#[derive(Debug, Clone)]
pub struct Exact {
    pub(super) space: Space,
    /// Fewest bits of each layer with which anything is possible.
    pub(super) floors: Bits,
    pub(super) lattice: Lattice,
    pub(super) answers: BTreeMap<Bits, Answer>,
    /// Handed out and not answered.
    pub(super) pending: Vec<Bits>,
    /// To be handed out (again) before anything else.
    pub(super) again: VecDeque<Bits>,
    pub(super) sensitivity: Option<Sensitivity>,
    pub(super) best: Option<Bits>,
}

/// How far an exact search is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// No vector is good.
    Impossible,
    /// A good vector; none is cheaper.
    Optimal(Bits),
    /// Something is left to decide.
    Open {
        /// The cheapest vector that is known to be good.
        best: Option<Bits>,
        /// No good vector costs less.
        lower_bound: u64,
    },
}

impl Exact {
    /// A search of all vectors of a space.
    pub fn new(space: Space) -> Self {
        Exact {
            floors: space.least().to_vec(),
            lattice: Lattice::new(&space),
            space,
            answers: BTreeMap::new(),
            pending: vec![],
            again: VecDeque::new(),
            sensitivity: None,
            best: None,
        }
    }

    /// The space that is searched.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// Certified floors, from [`Exact::floor`].
    pub fn floors(&self) -> &[u8] {
        &self.floors
    }

    /// Takes for certain that a layer with fewer than `least` bits is refuted, whatever the others are.
    ///
    /// # Panics
    /// If a vector with fewer was accepted.
    pub fn floor(&mut self, layer: usize, least: u8) {
        let good = self.answers.iter().filter(|(_, answer)| **answer == Answer::Accepted);
        let contradicts = good.map(|(bits, _)| bits).any(|bits| bits[layer] < least);
        assert!(!contradicts, "a vector with fewer than {least} bits in layer {layer} was accepted before");
        self.floors[layer] = self.floors[layer].max(least);
        self.lattice.raise(layer, least);
    }

    /// Takes a certified model; the cheapest vector that it proves is accepted at once.
    ///
    /// # Panics
    /// If the model is of another space.
    pub fn certify(&mut self, model: Sensitivity) {
        model.check(&self.space).expect("a model of this space");
        let cheapest = model.cheapest(&self.space);
        self.sensitivity = Some(model);
        if let Some(bits) = cheapest {
            self.tell(&bits, Answer::Accepted);
        }
    }

    /// Proposes once more what was undecided, for a verifier with more time.
    pub fn retry(&mut self) {
        let mut undecided: Vec<Bits> = vec![];
        self.answers.retain(|bits, answer| {
            let is_undecided = *answer == Answer::Undecided;
            undecided.extend(is_undecided.then(|| bits.clone()));
            !is_undecided
        });
        undecided.sort_by_key(|bits| self.space.cost(bits));
        self.again.extend(undecided);
    }

    /// How far the search is.
    pub fn progress(&mut self) -> Progress {
        let next = self.lattice.peek().map(|(cost, _)| cost);
        let undecided = self.answers.iter().filter(|(_, answer)| **answer == Answer::Undecided).map(|(bits, _)| bits);
        let open = undecided.chain(&self.pending).chain(&self.again).filter(|bits| self.above_floors(bits));
        let bound = open.map(|bits| self.space.cost(bits)).chain(next).min();
        match (&self.best, bound) {
            (None, None) => Progress::Impossible,
            (Some(best), bound) if bound.is_none_or(|b| b >= self.space.cost(best)) => Progress::Optimal(best.clone()),
            (best, bound) => Progress::Open { best: best.clone(), lower_bound: bound.expect("something open") },
        }
    }

    /// Why each layer of the best vector has more bits than it could: see [`obstacles`].
    pub fn obstacles(&self, oracle: &mut dyn Oracle) -> Vec<Obstacle> {
        self.best.as_ref().map_or(vec![], |best| obstacles(self, best, &self.space, &self.floors, oracle))
    }

    fn above_floors(&self, bits: &[u8]) -> bool {
        bits.iter().zip(&self.floors).all(|(b, floor)| b >= floor)
    }

    fn is_cheaper(&self, cost: u64) -> bool {
        self.best.as_ref().is_none_or(|best| cost < self.space.cost(best))
    }

    /// The next vector that nothing is known about, from those that are offered again or from the lattice.
    fn candidate(&mut self) -> Option<Bits> {
        while let Some(bits) = self.again.pop_front() {
            let is_open = !self.answers.contains_key(&bits) && self.above_floors(&bits);
            if is_open && self.is_cheaper(self.space.cost(&bits)) {
                return Some(bits);
            }
        }
        loop {
            let (cost, _) = self.lattice.peek()?;
            if !self.is_cheaper(cost) {
                return None;
            }
            let (_, bits) = self.lattice.advance()?;
            if self.space.holds(&bits) && !self.answers.contains_key(&bits) {
                return Some(bits);
            }
        }
    }

    /// What new counterexamples refute of that which was undecided or is being verified.
    fn review(&mut self, oracle: &mut dyn Oracle) {
        for (bits, answer) in &mut self.answers {
            if *answer == Answer::Undecided {
                *answer = oracle.refuted_by(bits).map_or(Answer::Undecided, Answer::Refuted);
            }
        }
    }
}

impl Search for Exact {
    /// The cheapest vector that has not been proposed; `None` where nothing cheaper than the best is left. May be called again before the answer comes, to
    /// verify several vectors at the same time.
    fn next(&mut self, oracle: &mut dyn Oracle) -> Option<Bits> {
        while let Some(bits) = self.candidate() {
            if self.sensitivity.as_ref().is_some_and(|model| model.certifies(&self.space, &bits)) {
                self.tell(&bits, Answer::Accepted);
            } else if oracle.refuted_by(&bits).is_none() {
                self.pending.push(bits.clone());
                return Some(bits);
            }
        }
        self.review(oracle);
        None
    }

    /// # Panics
    /// If the vector is not of the space, or was accepted and is now refuted.
    fn tell(&mut self, bits: &[u8], answer: Answer) {
        assert!(self.space.holds(bits), "{bits:?} is no vector of this space");
        self.pending.retain(|p| p != bits);
        let before = self.answers.get(bits).copied();
        match (before, answer) {
            (Some(Answer::Accepted), Answer::Refuted(by)) => {
                panic!("{bits:?} was accepted; counterexample {by} refutes it")
            }
            (Some(Answer::Refuted(by)), Answer::Accepted) => {
                panic!("{bits:?} is accepted; counterexample {by} refuted it")
            }
            (Some(Answer::Accepted | Answer::Refuted(_)), Answer::Undecided) => return,
            _ => {}
        }
        self.answers.insert(bits.to_vec(), answer);
        if answer == Answer::Accepted && self.is_cheaper(self.space.cost(bits)) {
            self.best = Some(bits.to_vec());
        }
    }

    fn best(&self) -> Option<&[u8]> {
        self.best.as_deref()
    }

    fn answer(&self, bits: &[u8]) -> Option<Answer> {
        self.answers.get(bits).copied()
    }
}
