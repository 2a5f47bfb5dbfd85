//! What a network loses when one layer alone has fewer bits: accuracy on data, and proved margins on balls.

use rayon::prelude::*;

use super::data::{Data, first_largest, reference};
use super::{LayerScheme, NetworkError, Quantizer};
use crate::model::ir::Model;
use crate::model::lower::lower;
use crate::model::profile::Profile;
use crate::property::Robustness;
use crate::verify::{NotAClassifier, Options, Verdict, Verifier};

/// What is measured.
pub struct Measures<'m> {
    /// The arithmetic of every network.
    pub profile: &'m dyn Profile,
    /// What accuracy is measured on.
    pub data: Option<Data>,
    /// Claims whose margins are proved.
    pub balls: Vec<Robustness>,
    /// How hard a claim is tried that bounds without branching do not prove.
    pub verification: Options,
}

/// What is known of a claim.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margin {
    /// A proved lower bound on (score of the label) - (score of any other class) over the ball, in units of the output; at least 0 where only
    /// branching proves the claim.
    pub bound: f64,
    /// Whether the claim is proved.
    pub proved: bool,
}

/// What was measured of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The share of data whose first largest output is the label.
    pub accuracy: Option<f64>,
    /// For each ball that was asked about.
    pub margins: Vec<Margin>,
}

impl Measured {
    /// How many claims are proved.
    pub fn proved(&self) -> usize {
        self.margins.iter().filter(|m| m.proved).count()
    }

    /// The least bound; `None` if there was no ball.
    pub fn least(&self) -> Option<f64> {
        self.margins.iter().map(|m| m.bound).reduce(f64::min)
    }
}

/// A network's layers, to be quantized one at a time.
pub struct OneLayer<'m> {
    quantizer: &'m Quantizer,
    /// The scheme, but for its bits.
    scheme: LayerScheme,
    measures: Measures<'m>,
    float: Measured,
    /// The balls that are proved for the float network.
    kept: Vec<usize>,
}

/// Why some bits are too few for a layer.
#[derive(Clone, Debug, PartialEq)]
pub enum Loss {
    /// The accuracy falls by this share.
    Accuracy(f64),
    /// So many balls are no longer proved.
    Proofs(usize),
}

impl<'m> OneLayer<'m> {
    /// Measures the float network.
    ///
    /// # Errors
    /// If it has no meaning under the profile, or a ball does not fit.
    pub fn new(quantizer: &'m Quantizer, scheme: LayerScheme, measures: Measures<'m>) -> Result<Self, NetworkError> {
        let all: Vec<usize> = (0..measures.balls.len()).collect();
        let float = measures.of(quantizer.model(), &all)?;
        let kept = all.into_iter().filter(|&b| float.margins[b].proved).collect();
        Ok(OneLayer { quantizer, scheme, measures, float, kept })
    }

    /// What was measured of the float network, on all balls.
    pub fn float(&self) -> &Measured {
        &self.float
    }

    /// The balls that are proved for the float network, by number: margins of others say nothing about bits.
    pub fn kept(&self) -> &[usize] {
        &self.kept
    }

    /// The network with one layer quantized, on the balls of [`OneLayer::kept`].
    ///
    /// # Errors
    /// If the rule does not allow the bits, or the network has no meaning under the profile.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn at(&self, layer: usize, bits: u8) -> Result<Measured, NetworkError> {
        let model = self.quantizer.only(layer, &LayerScheme { bits, ..self.scheme })?;
        self.measures.of(&model, &self.kept)
    }

    /// What stands against a measured network: an accuracy that falls by more than `most`, or a ball that is no longer proved.
    pub fn loss(&self, measured: &Measured, most: f64) -> Option<Loss> {
        let drop = self.float.accuracy.zip(measured.accuracy).map_or(0.0, |(before, now)| before - now);
        // Accuracies are quotients of counts: a drop of exactly `most` may come out a little larger.
        if drop > most + 1e-12 {
            return Some(Loss::Accuracy(drop));
        }
        let lost = self.kept.len() - measured.proved();
        (lost > 0).then_some(Loss::Proofs(lost))
    }
}

impl Measures<'_> {
    fn of(&self, model: &Model, balls: &[usize]) -> Result<Measured, NetworkError> {
        let lowered = lower(model, self.profile)?;
        let accuracy = self.data.as_ref().map(|data| data.share(reference(&lowered), first_largest));
        let verifier = Verifier::new(&lowered)?;
        let margin = |&b: &usize| margin(&verifier, &self.balls[b], &self.verification);
        let margins = balls.par_iter().map(margin).collect::<Result<_, _>>()?;
        Ok(Measured { accuracy, margins })
    }
}

/// What is proved of a claim.
///
/// # Claim
/// For every execution that the net allows on an input of the ball, the score of the label is at least `bound` above every other. If `proved`,
/// it is above every other.
///
/// # Why
/// The bound is the least of proved bounds on the differences; above 0 it proves the claim. Where it does not, and a search does, each difference is
/// above 0 and so not below 0.
fn margin(verifier: &Verifier<'_>, claim: &Robustness, options: &Options) -> Result<Margin, NotAClassifier> {
    let others = (0..verifier.classes()).filter(|&class| class != claim.label);
    let differences: Vec<_> = others.map(|class| vec![(claim.label, 1.0), (class, -1.0)]).collect();
    let bounds = verifier.enclose(&claim.region, &differences, options)?;
    // Without another class there is no claim, and the search says so.
    let bound = bounds.iter().map(|b| b.0).reduce(f64::min).unwrap_or(f64::NEG_INFINITY);
    if bound > 0.0 {
        return Ok(Margin { bound, proved: true });
    }
    let proved = matches!(verifier.robustness(claim, options)?, Verdict::Holds(_));
    Ok(Margin { bound: if proved { bound.max(0.0) } else { bound }, proved })
}
