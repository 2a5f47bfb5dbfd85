//! Why a model was not quantized.

use crate::model::ir::Model;
use crate::model::lower::LowerError;
use crate::verify::NotAClassifier;

/// What is wrong, where, and what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QuantizeError {
    /// A part of the model that no quantizer handles, or a scheme that does not fit it.
    #[error("{place}: {problem}\n  what to do: {cure}")]
    Refused {
        /// File, layer or node.
        place: String,
        /// What was found.
        problem: String,
        /// What to do.
        cure: String,
    },
    /// The model has no meaning under the profile that its values are computed with.
    #[error(transparent)]
    Lower(#[from] LowerError),
}

/// Why nothing is known of a quantized network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// It cannot be quantized so.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// It has no meaning under the profile.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// A property does not fit it.
    #[error(transparent)]
    Verify(#[from] NotAClassifier),
}

impl QuantizeError {
    /// A refusal.
    pub(super) fn new(place: impl Into<String>, problem: impl Into<String>, cure: impl Into<String>) -> Self {
        QuantizeError::Refused { place: place.into(), problem: problem.into(), cure: cure.into() }
    }

    /// A refusal of a whole model.
    pub(super) fn of_model(model: &Model, problem: impl Into<String>, cure: impl Into<String>) -> Self {
        let path = model.source.path.display().to_string();
        Self::new(if path.is_empty() { model.name.clone() } else { path }, problem, cure)
    }
}
