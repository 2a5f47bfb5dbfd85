//! The network at any bits.

use serde::{Deserialize, Serialize};

use crate::model::ir::Model;
use crate::model::lower::{Lowered, lower};
use crate::model::profile::Profile;
use crate::quantize::activations::{ActivationScheme, Ranges};
use crate::quantize::qdq::to_qdq;
use crate::quantize::search::Bits;
use crate::quantize::{LayerScheme, NetworkError, Quantized, Quantizer, learned};

/// How a weight goes to a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    /// To the nearest.
    Nearest,
    /// To the one below or above, whichever serves the layer best ([`learned`]).
    Learned,
}

/// What a network is made from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// Bits of each layer.
    pub bits: Bits,
    /// How weights are rounded.
    pub rounding: Rounding,
}

/// Makes networks.
pub struct Networks<'t> {
    /// The float network.
    pub quantizer: &'t Quantizer,
    /// The scheme of every layer, but for its bits.
    pub scheme: LayerScheme,
    /// Activations, if they are quantized, too.
    pub activations: Option<(ActivationScheme, Ranges)>,
    /// The arithmetic of the quantized network.
    pub profile: &'t dyn Profile,
    /// What learned rounding learns from: rows of inputs.
    pub calibration: Vec<f64>,
    /// How rounding is learned.
    pub learning: learned::Options,
}

/// A network.
pub struct Made {
    /// Its layers.
    pub quantized: Quantized,
    /// As a file holds it.
    pub model: Model,
    /// As it runs.
    pub lowered: Lowered,
}

impl Networks<'_> {
    /// The network that a candidate is.
    ///
    /// # Errors
    /// If the scheme does not allow the bits, or the profile the network.
    pub fn make(&self, candidate: &Candidate) -> Result<Made, NetworkError> {
        let schemes: Vec<LayerScheme> =
            candidate.bits.iter().map(|&bits| LayerScheme { bits, ..self.scheme }).collect();
        let quantized = match candidate.rounding {
            Rounding::Nearest => self.quantizer.at(&schemes)?,
            Rounding::Learned => learned::learned(self.quantizer, &schemes, &self.calibration, &self.learning)?,
        };
        let model = match &self.activations {
            None => quantized.model.clone(),
            Some((scheme, ranges)) => to_qdq(self.quantizer, &quantized, Some((scheme, ranges)))?,
        };
        let lowered = lower(&model, self.profile)?;
        Ok(Made { quantized, model, lowered })
    }
}
