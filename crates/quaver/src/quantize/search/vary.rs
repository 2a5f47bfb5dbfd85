//! Children of two vectors of integers: simulated binary crossover and polynomial mutation on real numbers, rounded.
//!
//! # Source
//! Deb, Agrawal, Simulated binary crossover for continuous search space, 1995; Deb, Deb, Analysing mutation schemes for real-parameter
//! genetic algorithms, 2014. Details (who inherits which child, probabilities) as in pymoo 0.6.2.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{Bits, Space};

/// How children are made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Variation {
    /// Share of pairs that are crossed at all.
    pub crossover: f64,
    /// Share of layers that are crossed in such a pair.
    pub crossover_layer: f64,
    /// Share of crossed layers in which the children change places.
    pub exchange: f64,
    /// How near children stay to their parents: larger is nearer.
    pub crossover_eta: f64,
    /// Share of children that are mutated.
    pub mutation: f64,
    /// Share of layers that are mutated in such a child; `None` is one over the number of layers, at most a half.
    pub mutation_layer: Option<f64>,
    /// How near a mutant stays: larger is nearer.
    pub mutation_eta: f64,
}

impl Default for Variation {
    fn default() -> Self {
        Variation {
            crossover: 0.9,
            crossover_layer: 0.5,
            exchange: 0.5,
            crossover_eta: 15.0,
            mutation: 0.9,
            mutation_layer: None,
            mutation_eta: 20.0,
        }
    }
}

impl Variation {
    /// What pymoo's manual recommends for integers: wider steps, always crossed and mutated.
    pub fn wide() -> Self {
        let eta = 3.0;
        Variation { crossover: 1.0, crossover_eta: eta, mutation: 1.0, mutation_eta: eta, ..Variation::default() }
    }

    /// Turns two parents into two children.
    pub fn vary(&self, pair: &mut [Bits; 2], space: &Space, rng: &mut impl Rng) {
        if chance(self.crossover, rng) {
            self.cross(pair, space, rng);
        }
        for child in pair {
            if chance(self.mutation, rng) {
                self.mutate(child, space, rng);
            }
        }
    }

    fn cross(&self, pair: &mut [Bits; 2], space: &Space, rng: &mut impl Rng) {
        let [one, two] = pair;
        for (layer, (a, b)) in one.iter_mut().zip(two).enumerate() {
            if !chance(self.crossover_layer, rng) || a == b {
                continue;
            }
            let range = space.widths(layer);
            let (least, most) = (f64::from(*range.start()), f64::from(*range.end()));
            let (low, high) = (f64::from((*a).min(*b)), f64::from((*a).max(*b)));
            let (middle, gap) = ((low + high) / 2.0, high - low);
            let draw: f64 = rng.random();
            let below = middle - gap / 2.0 * spread(1.0 + 2.0 * (low - least) / gap, draw, self.crossover_eta);
            let above = middle + gap / 2.0 * spread(1.0 + 2.0 * (most - high) / gap, draw, self.crossover_eta);
            // The child below goes to the first place in half of the cases, whoever its nearer parent is.
            let (first, second) = if chance(self.exchange, rng) { (above, below) } else { (below, above) };
            *a = round(first, least, most);
            *b = round(second, least, most);
        }
    }

    fn mutate(&self, child: &mut [u8], space: &Space, rng: &mut impl Rng) {
        let share = self.mutation_layer.unwrap_or((1.0 / child.len() as f64).min(0.5));
        for (layer, bits) in child.iter_mut().enumerate() {
            if !chance(share, rng) {
                continue;
            }
            let range = space.widths(layer);
            let (least, most) = (f64::from(*range.start()), f64::from(*range.end()));
            if least < most {
                let at = f64::from(*bits);
                *bits =
                    round(at + shift(at, least, most, rng.random(), self.mutation_eta) * (most - least), least, most);
            }
        }
    }
}

/// How far from the middle a child lies, in halves of the gap between its parents; `limit` is where the range of widths ends.
fn spread(limit: f64, draw: f64, eta: f64) -> f64 {
    let alpha = 2.0 - 1.0 / power(limit, eta + 1.0);
    let inner = if draw <= 1.0 / alpha { draw * alpha } else { 1.0 / (2.0 - draw * alpha) };
    inner.powf(1.0 / (eta + 1.0))
}

/// How far a mutant moves, as a share of the range of widths.
fn shift(at: f64, least: f64, most: f64, draw: f64, eta: f64) -> f64 {
    let root = |x: f64| x.powf(1.0 / (eta + 1.0));
    let reach = |room: f64| power(1.0 - room / (most - least), eta + 1.0);
    if draw <= 0.5 {
        root(2.0 * draw + (1.0 - 2.0 * draw) * reach(at - least)) - 1.0
    } else {
        1.0 - root(2.0 * (1.0 - draw) + 2.0 * (draw - 0.5) * reach(most - at))
    }
}

/// True in this share of cases, to 2^-24.
fn chance(share: f64, rng: &mut impl Rng) -> bool {
    f64::from(rng.random::<f32>()) < share
}

/// x^p, quickly where p is a small integer.
fn power(x: f64, p: f64) -> f64 {
    let whole = p as i32;
    if f64::from(whole) == p { x.powi(whole) } else { x.powf(p) }
}

fn round(x: f64, least: f64, most: f64) -> u8 {
    x.clamp(least, most).round_ties_even() as u8
}
