//! Quadapter's method: sets of values that are safe at each layer, computed backwards from what the output must satisfy, and then, forwards, the
//! fewest fraction bits with which each quantized layer stays within its set.
//!
//! [`preimage`] computes the sets for one claim, [`choose`] the bits for one or many. What is proved how is in `docs/quantize-preimage.md`.
//!
//! # Source
//! Y. Zhang, G. Chen, F. Song, J. Sun, J. S. Dong: Certified Quantization Strategy Synthesis for Neural Networks (Quadapter), algorithms 1 and 2.

mod chain;
mod check;
mod choose;
mod goal;
mod scaling;
mod template;
#[cfg(test)]
mod tests;

pub use chain::{Chain, Layer};
pub use choose::{Choice, LayerChoice, Trial, choose};
pub use goal::{Functional, Goal};
pub use template::Template;

use std::time::Duration;

use super::QuantizeError;
use crate::property::{Query, Region};
use crate::verify::Options as Verification;
use check::{Check, Rows};
use goal::goals;

/// How scalings are proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Way {
    /// By linear bounds.
    Abstraction,
    /// Each condition by [`crate::verify::Verifier::decide`] alone: attack, bounds, branch and bound, or mixed-integer programs.
    Exact,
    /// By linear bounds, and larger ones by deciding the conditions that keep the scaling low.
    #[default]
    Both,
}

/// How hard to try, and what is asked of hidden layers.
#[derive(Clone, Debug)]
pub struct Options {
    /// How scalings are proved.
    pub way: Way,
    /// How far from the largest scaling that is proved one may stay, as a share of it.
    pub gap: f64,
    /// Fewest fraction bits.
    pub least: u8,
    /// Most fraction bits.
    pub most: u8,
    /// Share of a hidden layer's bounds that may leave the set. What is proved of the output does not depend on it, nor on whether sets are
    /// proved: where it is not 0 and no scaling is proved, [`UNPROVED`] is taken.
    pub relaxed: f64,
    /// Whether, where a layer has no width, all layers before it get one bit more than they had and the bits are chosen again.
    pub again: bool,
    /// How one condition is decided.
    pub verification: Verification,
}

impl Default for Options {
    fn default() -> Self {
        // Likely inputs are tried anyway.
        let verification = Verification { timeout: Duration::from_secs(1), attack: false, ..Verification::default() };
        Options { way: Way::default(), gap: 0.01, least: 1, most: 16, relaxed: 0.0, again: true, verification }
    }
}

/// The scaling of a set that is only a hint.
pub const UNPROVED: f64 = 0.1;

/// For each hidden affine layer a set of values from which the rest of the network cannot violate a claim.
///
/// # Claim
/// Where the scalings from layer i on are proved: for every input x of the region and every value z of hidden layer i with (x, z) in set i, the
/// network's own layers after i give an output that no forbidden polyhedron contains.
#[derive(Clone, Debug)]
pub struct Preimage {
    /// chi of each hidden layer.
    pub scalings: Vec<f64>,
    /// Whether set i is proved to be mapped into set i + 1, or into what the claim allows.
    pub proved: Vec<bool>,
    /// What is scaled.
    pub templates: Vec<Template>,
    goals: Vec<Goal>,
    region: Region,
}

impl Preimage {
    /// What the output must satisfy.
    pub fn goals(&self) -> &[Goal] {
        &self.goals
    }

    /// The inputs that it is about.
    pub fn region(&self) -> &Region {
        &self.region
    }
}

/// The preimage of a claim under a float network in real arithmetic; `None` if for some layer no scaling >= 0 is proved (and sets
/// must be).
///
/// # Claim
/// That of [`Preimage`].
///
/// # Why
/// Set i is mapped into set i + 1 at the same input (the last one into the goals) by `scaling::largest`, for each i.
///
/// # Errors
/// If the claim is not about linear constraints on the chain's output, or its region does not fit.
pub fn preimage(chain: &Chain, query: &Query, options: &Options) -> Result<Option<Preimage>, QuantizeError> {
    let (goals, region) = (goals(chain, query)?, query.region.clone());
    let Some(templates) = template::templates(chain, &region) else { return Ok(None) };
    let hidden = templates.len();
    let (mut scalings, mut proved) = (vec![UNPROVED; hidden], vec![false; hidden]);
    let mut rows = Rows::into_goals(&chain.layers[hidden], &goals);
    for i in (0..hidden).rev() {
        let check = Check::new(chain.input(), &templates[i], &rows);
        match scaling::largest(&check, &region, options)? {
            Some(chi) => (scalings[i], proved[i]) = (chi, true),
            None if options.relaxed > 0.0 => {}
            None => return Ok(None),
        }
        rows = Rows::into_set(&chain.layers[i], &templates[i], &templates[i].sides(scalings[i]));
    }
    Ok(Some(Preimage { scalings, proved, templates, goals, region }))
}
