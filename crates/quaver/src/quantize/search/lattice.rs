//! All vectors of a space in order of cost, without keeping those that came before.

use std::cmp::Reverse;
use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Bits, Space};

/// Vectors that are kept ready.
const MOST_READY: usize = 1 << 14;

/// Where an enumeration is: everything cheaper than `cost` has been handed out, and of that cost what comes up to `after`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub cost: u64,
    /// In the order of the space's layers; `None` where nothing of this cost has been handed out.
    pub after: Option<Bits>,
}

/// The vectors of a space by cost; of the same cost by the bits of the layers, the layer with the largest weight first, of equal ones the last.
///
/// # Why
/// This is a total order, so the last vector says everything about the past. What comes next is found by walking the tree of prefixes and leaving out
/// those whose cheapest and dearest completions both miss a band of costs. The band grows and shrinks so that it holds at most
/// [`MOST_READY`] vectors; where a single cost has more, they are walked in pieces.
#[derive(Debug, Clone)]
pub(super) struct Lattice {
    /// Layers, heaviest first, of equal ones the last; the vectors below follow this order.
    order: Vec<usize>,
    weights: Vec<u64>,
    least: Bits,
    most: Bits,
    /// Least and largest cost of the layers from each one on.
    rest: Vec<(u64, u64)>,
    ready: VecDeque<(u64, Bits)>,
    position: Position,
    /// Where `ready` ends: as `position`, but in this order of layers; `after` is `None` where that cost is done.
    scanned: Option<(u64, Option<Bits>)>,
    /// Width of the next band of costs.
    band: u64,
}

impl Lattice {
    pub fn new(space: &Space) -> Self {
        let mut order: Vec<usize> = (0..space.layers()).collect();
        order.sort_by_key(|l| (Reverse(space.weight(*l)), Reverse(*l)));
        let pick = |bits: &[u8]| order.iter().map(|l| bits[*l]).collect::<Bits>();
        let (least, most) = (pick(space.least()), pick(space.most()));
        let weights: Vec<u64> = order.iter().map(|l| space.weight(*l)).collect();
        let band = weights[0];
        let position = Position { cost: 0, after: None };
        let (rest, ready) = (vec![], VecDeque::new());
        let mut lattice = Lattice { order, weights, least, most, rest, ready, position, scanned: None, band };
        lattice.sum_up();
        lattice
    }

    /// Goes to where another enumeration was.
    pub fn seek(&mut self, position: Position) {
        self.position = position;
        self.ready.clear();
        self.scanned = self.position.after.as_ref().map(|after| (self.position.cost, Some(self.ordered(after))));
        if self.scanned.is_none() {
            self.scanned = self.position.cost.checked_sub(1).map(|done| (done, None));
        }
    }

    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Leaves out vectors with fewer bits than `least` in a layer.
    pub fn raise(&mut self, layer: usize, least: u8) {
        let depth = self.order.iter().position(|l| *l == layer).expect("a layer");
        self.least[depth] = self.least[depth].max(least);
        self.sum_up();
        self.seek(self.position.clone());
    }

    /// The next vector and its cost.
    pub fn peek(&mut self) -> Option<(u64, Bits)> {
        if self.ready.is_empty() {
            self.refill();
        }
        let (cost, ordered) = self.ready.front()?;
        let mut bits = vec![0; ordered.len()];
        self.order.iter().zip(ordered).for_each(|(l, b)| bits[*l] = *b);
        Some((*cost, bits))
    }

    /// Goes past the next vector, which is returned.
    pub fn advance(&mut self) -> Option<(u64, Bits)> {
        let (cost, bits) = self.peek()?;
        self.ready.pop_front();
        self.position = Position { cost, after: Some(bits.clone()) };
        Some((cost, bits))
    }

    fn ordered(&self, bits: &[u8]) -> Bits {
        self.order.iter().map(|l| bits[*l]).collect()
    }

    fn sum_up(&mut self) {
        self.rest = vec![(0, 0); self.order.len() + 1];
        for depth in (0..self.order.len()).rev() {
            let cost = |bits: u8| self.weights[depth] * u64::from(bits);
            let (low, high) = self.rest[depth + 1];
            self.rest[depth] = (low + cost(self.least[depth]), high + cost(self.most[depth]));
        }
    }

    /// Makes the next vectors ready, if there are any.
    fn refill(&mut self) {
        let (cheapest, dearest) = self.rest[0];
        if self.least.iter().zip(&self.most).any(|(l, m)| l > m) {
            return;
        }
        while self.ready.is_empty() {
            let next = match self.scanned.take() {
                Some((cost, Some(after))) => {
                    let whole = self.walk((cost, cost), Some(&after));
                    self.scanned = Some(whole.map_or_else(|last| (cost, Some(last)), |()| (cost, None)));
                    continue;
                }
                Some((cost, None)) => (cost + 1).max(cheapest),
                None => cheapest,
            };
            if next > dearest {
                self.scanned = Some((next - 1, None));
                return;
            }
            self.scan(next);
        }
    }

    /// Makes the vectors of a band of costs from `low` on ready.
    fn scan(&mut self, low: u64) {
        loop {
            let high = low.saturating_add(self.band);
            match self.walk((low, high), None) {
                Ok(()) => {
                    self.ready.make_contiguous().sort_unstable();
                    self.scanned = Some((high, None));
                    if self.ready.len() < MOST_READY / 4 {
                        self.band = self.band.saturating_mul(2).saturating_add(1).min(i64::MAX as u64);
                    }
                    return;
                }
                Err(last) if self.band == 0 => {
                    self.scanned = Some((high, Some(last)));
                    return;
                }
                Err(_) => {
                    self.ready.clear();
                    self.band /= 2;
                }
            }
        }
    }

    /// Adds all vectors with costs in a band, from `after` on, in order of their bits. If there are too many, returns the last one added.
    fn walk(&mut self, band: (u64, u64), after: Option<&[u8]>) -> Result<(), Bits> {
        let mut ready = std::mem::take(&mut self.ready);
        let mut current = Bits::with_capacity(self.order.len());
        let whole = self.descend(0, band, after, &mut current, &mut ready);
        self.ready = ready;
        if whole { Ok(()) } else { Err(self.ready.back().expect("many vectors").1.clone()) }
    }

    /// Continues a prefix with the cost `spent`; whether there was room for all.
    fn descend(
        &self,
        spent: u64,
        band: (u64, u64),
        after: Option<&[u8]>,
        current: &mut Bits,
        ready: &mut VecDeque<(u64, Bits)>,
    ) -> bool {
        let depth = current.len();
        if depth == self.order.len() {
            // A prefix that still follows `after` to its end is that vector itself.
            if after.is_none() {
                ready.push_back((spent, current.clone()));
            }
            return ready.len() < MOST_READY;
        }
        let (first, last) = self.fitting(depth, spent, band);
        let first = after.map_or(first, |a| first.max(a[depth]));
        for bits in first..=last {
            current.push(bits);
            let follows = after.filter(|a| a[depth] == bits);
            let room = self.descend(spent + self.weights[depth] * u64::from(bits), band, follows, current, ready);
            current.pop();
            if !room {
                return false;
            }
        }
        true
    }

    /// The widths of a layer with which some completion may lie in the band; the second is smaller where there are none.
    fn fitting(&self, depth: usize, spent: u64, (low, high): (u64, u64)) -> (u8, u8) {
        let (cheapest, dearest) = self.rest[depth + 1];
        let (least, most) = (self.least[depth], self.most[depth]);
        let none = (1, 0);
        let Some(room) = high.checked_sub(spent + cheapest) else { return none };
        let missing = low.saturating_sub(spent + dearest);
        let weight = self.weights[depth];
        if weight == 0 {
            return if missing == 0 { (least, most) } else { none };
        }
        let first = missing.div_ceil(weight).max(u64::from(least));
        let last = (room / weight).min(u64::from(most));
        if first > last { none } else { (first as u8, last as u8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn space() -> impl Strategy<Value = Space> {
        prop::collection::vec((0u64..9, 1u8..5, 0u8..4), 1..6).prop_map(|layers| {
            let widths: Vec<_> = layers.iter().map(|(_, least, more)| *least..=least + more).collect();
            Space::new(layers.iter().map(|l| l.0).collect(), &widths).expect("a space")
        })
    }

    fn everything(space: &Space) -> Vec<Bits> {
        let grow = |all: Vec<Bits>, l: usize| -> Vec<Bits> {
            let more =
                |v: &Bits| space.widths(l).map(|b| v.iter().copied().chain([b]).collect()).collect::<Vec<Bits>>();
            all.iter().flat_map(more).collect()
        };
        (0..space.layers()).fold(vec![vec![]], grow)
    }

    fn rest(mut lattice: Lattice) -> Vec<(u64, Bits)> {
        std::iter::from_fn(|| lattice.advance()).collect()
    }

    proptest! {
        #[test]
        fn each_vector_comes_once_and_costs_do_not_fall(space in space(), stop in 0usize..200, floor in 1u8..6) {
            let mut lattice = Lattice::new(&space);
            let mut found: Vec<(u64, Bits)> = (0..stop).map_while(|_| lattice.advance()).collect();
            let mut other = Lattice::new(&space);
            other.seek(lattice.position().clone());
            let after = rest(lattice.clone());
            prop_assert_eq!(&rest(other), &after);
            lattice.raise(0, floor);
            let above: Vec<(u64, Bits)> = after.iter().filter(|(_, bits)| bits[0] >= floor).cloned().collect();
            prop_assert_eq!(rest(lattice), above);
            found.extend(after);
            prop_assert!(found.windows(2).all(|w| w[0].0 <= w[1].0));
            prop_assert!(found.iter().all(|(cost, bits)| *cost == space.cost(bits)));
            let mut bits: Vec<Bits> = found.into_iter().map(|f| f.1).collect();
            let mut all = everything(&space);
            bits.sort();
            all.sort();
            prop_assert_eq!(bits, all);
        }
    }

    /// Costs with more vectors than are kept ready: 8 layers of equal weight, 5^8 vectors.
    #[test]
    fn a_cost_with_many_vectors_is_walked_in_pieces() {
        let space = Space::uniform(vec![7; 8], 2..=6).expect("a space");
        let all = rest(Lattice::new(&space));
        assert_eq!(all.len(), 390_625);
        // Of layers with one weight the last comes first.
        let key = |(cost, bits): &(u64, Bits)| (*cost, bits.iter().rev().copied().collect::<Bits>());
        assert!(all.windows(2).all(|w| key(&w[0]) < key(&w[1])), "the order is total");
        let middle = &all[200_000];
        let mut again = Lattice::new(&space);
        again.seek(Position { cost: middle.0, after: Some(middle.1.clone()) });
        assert_eq!(again.advance().as_ref(), Some(&all[200_001]));
        assert!(again.ready.len() <= MOST_READY);
    }

    /// Weights of a real network, where most costs have one vector or none.
    #[test]
    fn far_apart_costs_are_found() {
        let space = Space::uniform(vec![784 * 50 + 50, 50 * 50 + 50, 510], 2..=32).expect("a space");
        let all = rest(Lattice::new(&space));
        assert_eq!(all.len(), 31 * 31 * 31);
        assert!(all.windows(2).all(|w| w[0].0 <= w[1].0));
    }
}
