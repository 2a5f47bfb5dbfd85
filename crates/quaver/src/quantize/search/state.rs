//! What a search has learned, to be kept in a file.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::lattice::Position;
use super::sensitivity::BadSensitivity;
use super::{Answer, Bits, Exact, Search, Sensitivity, Space};

/// All that an [`Exact`] search needs to go on where it was. Counterexamples are the oracle's and are kept elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    space: Space,
    floors: Bits,
    position: Position,
    /// In order of the bits, each vector once.
    answers: Vec<(Bits, Answer)>,
    /// Proposed and not answered.
    open: Vec<Bits>,
    sensitivity: Option<Sensitivity>,
}

/// Why a state does not belong to a search.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadState {
    /// A vector of another space.
    #[error("the saved search has the vector {0:?}, which its space does not hold; the file was changed, start anew")]
    Vector(Bits),
    /// Two answers to one vector, or a good vector below a floor.
    #[error("the saved search says two things about the vector {0:?}; the file was changed, start anew")]
    Contradiction(Bits),
    /// Floors of another space.
    #[error("the saved search has {floors} floors for {layers} layers; the file was changed, start anew")]
    Floors {
        /// Floors.
        floors: usize,
        /// Layers.
        layers: usize,
    },
    /// A model of another space.
    #[error("the saved sensitivities do not fit: {0}")]
    Sensitivity(#[from] BadSensitivity),
    /// A position that is not that of its vector.
    #[error("the saved position {cost} is not the cost of its vector; the file was changed, start anew")]
    Position {
        /// The cost.
        cost: u64,
    },
}

impl State {
    /// What was told about vectors: other searches may be told the same.
    pub fn answers(&self) -> &[(Bits, Answer)] {
        &self.answers
    }

    fn check(&self) -> Result<(), BadState> {
        let space = &self.space;
        let vectors = self.answers.iter().map(|a| &a.0).chain(&self.open).chain(&self.position.after);
        if let Some(bad) = vectors.into_iter().find(|bits| !space.holds(bits)) {
            return Err(BadState::Vector(bad.clone()));
        }
        if self.floors.len() != space.layers() {
            return Err(BadState::Floors { floors: self.floors.len(), layers: space.layers() });
        }
        let is_below = |bits: &Bits| bits.iter().zip(&self.floors).any(|(b, floor)| b < floor);
        let below = self.answers.iter().find(|(bits, answer)| *answer == Answer::Accepted && is_below(bits));
        let twice = self.answers.windows(2).find(|pair| pair[0].0 >= pair[1].0).map(|pair| &pair[1]);
        if let Some((bits, _)) = below.or(twice) {
            return Err(BadState::Contradiction(bits.clone()));
        }
        let cost = self.position.cost;
        if self.position.after.as_ref().map_or(0, |bits| space.cost(bits)) != cost {
            return Err(BadState::Position { cost });
        }
        self.sensitivity.as_ref().map_or(Ok(()), |model| Ok(model.check(space)?))
    }
}

impl Exact {
    /// What to keep in order to go on later.
    pub fn save(&self) -> State {
        State {
            space: self.space.clone(),
            floors: self.floors.clone(),
            position: self.lattice.position().clone(),
            answers: self.answers.iter().map(|(bits, answer)| (bits.clone(), *answer)).collect(),
            open: self.pending.iter().chain(&self.again).cloned().collect(),
            sensitivity: self.sensitivity.clone(),
        }
    }

    /// Goes on where a search was. What it had proposed without an answer is proposed again first.
    ///
    /// # Errors
    /// Where the parts of the state do not belong together.
    pub fn resume(state: State) -> Result<Self, BadState> {
        state.check()?;
        let mut search = Exact::new(state.space);
        for (layer, floor) in state.floors.into_iter().enumerate() {
            search.floor(layer, floor);
        }
        for (bits, answer) in &state.answers {
            search.tell(bits, *answer);
        }
        search.lattice.seek(state.position);
        search.again = VecDeque::from(state.open);
        search.sensitivity = state.sensitivity;
        Ok(search)
    }
}
