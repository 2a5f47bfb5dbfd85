//! Why a layer cannot have fewer bits.

use serde::{Deserialize, Serialize};

use super::{Answer, Oracle, Search, Space};

/// What stands against the next fewer bits in a layer, the others unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstacle {
    /// The layer.
    pub layer: usize,
    /// Its bits.
    pub bits: u8,
    /// The next fewer that it may have.
    pub fewer: u8,
    /// What is known of these.
    pub below: Below,
}

/// What is known of a vector with fewer bits in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Below {
    /// It is refuted.
    Refuted(Because),
    /// It was verified without an answer.
    Undecided,
    /// Nobody asked.
    NotTried,
    /// It is good, too. The search was stopped before it went there, or the layer's bits cost nothing.
    Accepted,
}

/// What refutes a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// A counterexample, by its number.
    Counterexample(usize),
    /// So few bits in this layer are refuted whatever the others are.
    Floor,
}

/// For each layer of `bits` that has more than the fewest bits of the space: what is known of the next fewer.
pub fn obstacles(
    search: &dyn Search,
    bits: &[u8],
    space: &Space,
    floors: &[u8],
    oracle: &mut dyn Oracle,
) -> Vec<Obstacle> {
    let reducible = (0..bits.len()).filter_map(|l| Some((l, space.below(l, bits[l]).next()?)));
    reducible
        .map(|(layer, fewer)| {
            let mut lowered = bits.to_vec();
            lowered[layer] = fewer;
            let is_below = floors.get(layer).is_some_and(|floor| fewer < *floor);
            let below = if is_below { Below::Refuted(Because::Floor) } else { known(search, &lowered, oracle) };
            Obstacle { layer, bits: bits[layer], fewer, below }
        })
        .collect()
}

fn known(search: &dyn Search, bits: &[u8], oracle: &mut dyn Oracle) -> Below {
    let refuted = |by| Below::Refuted(Because::Counterexample(by));
    match search.answer(bits) {
        Some(Answer::Accepted) => Below::Accepted,
        Some(Answer::Refuted(by)) => refuted(by),
        Some(Answer::Undecided) => oracle.refuted_by(bits).map_or(Below::Undecided, refuted),
        None => oracle.refuted_by(bits).map_or(Below::NotTried, refuted),
    }
}
