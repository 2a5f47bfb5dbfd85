//! A certified additive model of what bits cost in accuracy.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Bits, Space};
use crate::num::round::{add_down, add_up};

/// Partial vectors that are kept in [`Sensitivity::cheapest`].
const MOST_PARTIAL: usize = 1 << 15;

/// Certified costs of widths: a vector whose costs sum up to at most the slack is good.
///
/// # Claim
/// Whoever makes it has proved: if the exact sum over layers l of `costs[l][b_l]` is at most `slack`, the vector b holds the property.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    slack: f64,
    /// For each layer the cost of each width of the space, fewest bits first.
    costs: Vec<Vec<f64>>,
}

/// Why a list of costs is no model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadSensitivity {
    /// Costs of another space.
    #[error("layer {layer} has {widths} widths and {costs} costs; each width needs one, fewest bits first")]
    Length {
        /// The layer.
        layer: usize,
        /// Its widths.
        widths: usize,
        /// Its costs.
        costs: usize,
    },
    /// A cost that says nothing.
    #[error("a cost of layer {layer} is negative or not a number; give infinity for a width that is not certified")]
    Cost {
        /// The layer.
        layer: usize,
    },
    /// A slack that says nothing.
    #[error("the slack is not a number")]
    Slack,
}

/// A vector of the first layers.
#[derive(Clone, Copy)]
struct Partial {
    cost: u64,
    /// Not below the sum of its certified costs.
    lost: f64,
    /// Its last bits, and where the others are.
    bits: u8,
    before: usize,
}

impl Sensitivity {
    /// A model for the widths of a space. Infinite costs are widths without a certificate.
    ///
    /// # Errors
    /// Where the costs do not fit the space or are no costs.
    pub fn new(space: &Space, slack: f64, costs: Vec<Vec<f64>>) -> Result<Self, BadSensitivity> {
        let model = Sensitivity { slack, costs };
        model.check(space)?;
        Ok(model)
    }

    pub(super) fn check(&self, space: &Space) -> Result<(), BadSensitivity> {
        for layer in 0..space.layers().max(self.costs.len()) {
            let widths = if layer < space.layers() { space.widths(layer).len() } else { 0 };
            let costs = self.costs.get(layer).map_or(0, Vec::len);
            if widths != costs {
                return Err(BadSensitivity::Length { layer, widths, costs });
            }
            if !self.costs[layer].iter().all(|cost| *cost >= 0.0) {
                return Err(BadSensitivity::Cost { layer });
            }
        }
        if self.slack.is_nan() { Err(BadSensitivity::Slack) } else { Ok(()) }
    }

    fn cost(&self, space: &Space, layer: usize, bits: u8) -> f64 {
        self.costs[layer][usize::from(bits - space.widths(layer).start())]
    }

    /// Whether the model proves that a vector of its space is good.
    ///
    /// # Rounding
    /// The sum is rounded up.
    pub fn certifies(&self, space: &Space, bits: &[u8]) -> bool {
        let lost = |sum, layer| add_up(sum, self.cost(space, layer, bits[layer]));
        (0..bits.len()).fold(0.0, lost) <= self.slack
    }

    /// The cheapest vector that the model proves to be good, unless more than 32,768 partial vectors have to be kept apart: then one that
    /// may cost more.
    ///
    /// # Why
    /// Of two partial vectors of the same layers, one that costs and loses at least as much is never needed: sums rounded up are monotone.
    pub fn cheapest(&self, space: &Space) -> Option<Bits> {
        let least_lost = |layer: usize| self.costs[layer].iter().copied().fold(f64::INFINITY, f64::min);
        let mut rest = vec![0.0; space.layers() + 1];
        for layer in (0..space.layers()).rev() {
            rest[layer] = add_down(rest[layer + 1], least_lost(layer));
        }
        let mut levels = vec![vec![Partial { cost: 0, lost: 0.0, bits: 0, before: 0 }]];
        for layer in 0..space.layers() {
            let mut next = vec![];
            for (before, partial) in levels[layer].iter().enumerate() {
                for bits in space.widths(layer) {
                    let lost = add_up(partial.lost, self.cost(space, layer, bits));
                    if add_down(lost, rest[layer + 1]) <= self.slack {
                        let cost = partial.cost + space.weight(layer) * u64::from(bits);
                        next.push(Partial { cost, lost, bits, before });
                    }
                }
            }
            levels.push(thin(undominated(next)));
        }
        let last = levels[space.layers()].iter().enumerate().filter(|(_, p)| p.lost <= self.slack);
        let (mut place, _) = last.min_by_key(|(_, p)| p.cost)?;
        let mut bits = vec![0; space.layers()];
        for layer in (0..space.layers()).rev() {
            let partial = levels[layer + 1][place];
            bits[layer] = partial.bits;
            place = partial.before;
        }
        Some(bits)
    }
}

/// Those that no other one dominates, cheapest first.
fn undominated(mut all: Vec<Partial>) -> Vec<Partial> {
    all.sort_unstable_by(|a, b| a.cost.cmp(&b.cost).then(a.lost.total_cmp(&b.lost)));
    let mut least = f64::INFINITY;
    all.retain(|p| {
        let is_better = p.lost < least;
        least = least.min(p.lost);
        is_better
    });
    all
}

/// At most [`MOST_PARTIAL`] of them, spread evenly, with both ends.
fn thin(all: Vec<Partial>) -> Vec<Partial> {
    if all.len() <= MOST_PARTIAL {
        return all;
    }
    (0..MOST_PARTIAL).map(|i| all[i * (all.len() - 1) / (MOST_PARTIAL - 1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::Dyadic;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_cheapest_certified_vector_is_found(
            layers in prop::collection::vec((1u64..9, prop::collection::vec(0.0f64..1.0, 1..5)), 1..5),
            slack in 0.0f64..2.0,
        ) {
            let widths: Vec<_> = layers.iter().map(|l| 2..=1 + l.1.len() as u8).collect();
            let space = Space::new(layers.iter().map(|l| l.0).collect(), &widths).expect("a space");
            let costs = layers.into_iter().map(|l| l.1).collect();
            let model = Sensitivity::new(&space, slack, costs).expect("a model");
            let mut least: Option<u64> = None;
            let mut bits = space.least().to_vec();
            loop {
                let lost = (0..bits.len()).map(|l| Dyadic::from_f64(model.cost(&space, l, bits[l])).expect("finite"));
                let exact = lost.reduce(|a, b| &a + &b).expect("a layer") <= Dyadic::from_f64(slack).expect("finite");
                prop_assert!(exact || !model.certifies(&space, &bits), "the model certifies more than it may");
                if model.certifies(&space, &bits) {
                    least = Some(least.map_or(space.cost(&bits), |c| c.min(space.cost(&bits))));
                }
                let Some(l) = (0..bits.len()).find(|l| bits[*l] < space.most()[*l]) else { break };
                bits[l] += 1;
                bits[..l].copy_from_slice(&space.least()[..l]);
            }
            let found = model.cheapest(&space);
            prop_assert_eq!(found.as_ref().map(|b| space.cost(b)), least);
            prop_assert!(found.is_none_or(|b| model.certifies(&space, &b)));
        }
    }

    #[test]
    fn a_model_must_fit_its_space() {
        let space = Space::uniform(vec![1, 1], 2..=3).expect("a space");
        let made = |costs| Sensitivity::new(&space, 1.0, costs);
        assert_eq!(made(vec![vec![0.5, 0.1]]), Err(BadSensitivity::Length { layer: 1, widths: 2, costs: 0 }));
        assert_eq!(made(vec![vec![0.5, f64::NAN], vec![0.1, 0.1]]), Err(BadSensitivity::Cost { layer: 0 }));
        let open = made(vec![vec![f64::INFINITY, 0.5], vec![0.5, 0.0]]).expect("a model");
        assert_eq!(open.cheapest(&space), Some(vec![3, 2]));
    }
}
