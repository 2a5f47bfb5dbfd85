//! The greedy search: from a good vector down, one layer at a time.

use std::collections::BTreeMap;

use super::reason::{Obstacle, obstacles};
use super::{Answer, Bits, Oracle, Search, Space};

/// A loss of margin that counts as none.
const LEAST_LOSS: f64 = 1e-12;

/// Lowers one layer of a good vector at a time: the one that saves most for each unit of margin lost. A layer's step doubles when it is accepted and
/// halves when it is not; a layer whose single bit is not accepted rests.
///
/// That a refused layer stays refused while others are lowered is a guess. So when all layers rest, one bit less in each of them is asked once more at the
/// final
/// vector. Where the number of verifications allows it, the result is a vector of which no single layer can be lowered by one.
#[derive(Debug, Clone)]
pub struct Greedy {
    space: Space,
    best: Option<Bits>,
    /// By how many widths each layer is lowered next; 0 rests.
    steps: Bits,
    answers: BTreeMap<Bits, Answer>,
    proposed: Option<Bits>,
    /// Verifications left.
    left: usize,
}

impl Greedy {
    /// Starts at the most bits of the space, which is verified first unless a good vector is told before. At most `verifications` vectors are
    /// proposed.
    pub fn new(space: Space, verifications: usize) -> Self {
        let steps = vec![1; space.layers()];
        Greedy { space, best: None, steps, answers: BTreeMap::new(), proposed: None, left: verifications }
    }

    /// Verifications that may still be asked for.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Why each layer of the best vector has more bits than it could: see [`obstacles`].
    pub fn obstacles(&self, oracle: &mut dyn Oracle) -> Vec<Obstacle> {
        self.best.as_ref().map_or(vec![], |best| obstacles(self, best, &self.space, &[], oracle))
    }

    /// A vector with so many widths less in a layer, as far as there are any.
    fn lowered(&self, bits: &[u8], layer: usize, step: u8) -> Bits {
        let mut lowered = bits.to_vec();
        if let Some(fewer) = self.space.below(layer, bits[layer]).take(step.into()).last() {
            lowered[layer] = fewer;
        }
        lowered
    }

    /// Whether a vector is good, as far as is known.
    fn known(&self, bits: &[u8], oracle: &mut dyn Oracle) -> Option<Answer> {
        self.answers.get(bits).copied().or_else(|| oracle.refuted_by(bits).map(Answer::Refuted))
    }

    /// Halves the steps that are known to fail; takes one that is known to succeed. Whether such a one was there.
    fn settle(&mut self, best: &[u8], oracle: &mut dyn Oracle) -> bool {
        for layer in 0..best.len() {
            let room = self.space.below(layer, best[layer]).count();
            self.steps[layer] = self.steps[layer].min(room.try_into().unwrap_or(u8::MAX));
            while self.steps[layer] > 0 {
                let lowered = self.lowered(best, layer, self.steps[layer]);
                match self.known(&lowered, oracle) {
                    Some(Answer::Accepted) => {
                        self.steps[layer] = self.steps[layer].saturating_mul(2);
                        self.best = Some(lowered);
                        return true;
                    }
                    Some(Answer::Refuted(_) | Answer::Undecided) => self.steps[layer] /= 2,
                    None => break,
                }
            }
        }
        false
    }

    /// The step that saves most for each unit of margin lost.
    fn choose(&self, best: &[u8], oracle: &mut dyn Oracle) -> Option<Bits> {
        let margin = oracle.margin(best);
        let mut choice: Option<(f64, Bits)> = None;
        for layer in (0..best.len()).filter(|l| self.steps[*l] > 0) {
            let lowered = self.lowered(best, layer, self.steps[layer]);
            let saved = (self.space.cost(best) - self.space.cost(&lowered)) as f64;
            let worth = saved / (margin - oracle.margin(&lowered)).max(LEAST_LOSS);
            if choice.as_ref().is_none_or(|(most, _)| worth > *most) {
                choice = Some((worth, lowered));
            }
        }
        choice.map(|c| c.1)
    }

    /// One bit less in a layer that rests, if nothing is known of it at this vector.
    fn recheck(&self, best: &[u8], oracle: &mut dyn Oracle) -> Option<Bits> {
        let reducible = (0..best.len()).filter(|l| best[*l] > self.space.least()[*l]);
        reducible.map(|l| self.lowered(best, l, 1)).find(|bits| self.known(bits, oracle).is_none())
    }

    fn propose(&mut self, bits: Option<Bits>) -> Option<Bits> {
        if bits.is_some() {
            self.left = self.left.checked_sub(1)?;
        }
        self.proposed.clone_from(&bits);
        bits
    }
}

impl Search for Greedy {
    /// The next vector to verify; the same one until it is answered. `None` at the end or where no verifications are left.
    fn next(&mut self, oracle: &mut dyn Oracle) -> Option<Bits> {
        if let Some(bits) = &self.proposed {
            return Some(bits.clone());
        }
        loop {
            let Some(best) = self.best.clone() else {
                let start = self.space.most().to_vec();
                let is_open = self.known(&start, oracle).is_none();
                return self.propose(is_open.then_some(start));
            };
            if self.settle(&best, oracle) {
                continue;
            }
            let bits = self.choose(&best, oracle).or_else(|| self.recheck(&best, oracle));
            return self.propose(bits);
        }
    }

    /// # Panics
    /// If the vector is not of the space.
    fn tell(&mut self, bits: &[u8], answer: Answer) {
        assert!(self.space.holds(bits), "{bits:?} is no vector of this space");
        if self.proposed.as_deref() == Some(bits) {
            self.proposed = None;
        }
        self.answers.insert(bits.to_vec(), answer);
        let layers = 0..bits.len();
        let single = |best: &Bits| layers.clone().filter(|l| best[*l] != bits[*l]).collect::<Vec<_>>();
        let changed = self.best.as_ref().map(single);
        let is_cheaper = self.best.as_ref().is_none_or(|best| self.space.cost(bits) < self.space.cost(best));
        if answer != Answer::Accepted || !is_cheaper {
            return;
        }
        self.best = Some(bits.to_vec());
        if let Some([layer]) = changed.as_deref() {
            self.steps[*layer] = self.steps[*layer].max(1).saturating_mul(2);
        }
    }

    fn best(&self) -> Option<&[u8]> {
        self.best.as_deref()
    }

    fn answer(&self, bits: &[u8]) -> Option<Answer> {
        self.answers.get(bits).copied()
    }
}
