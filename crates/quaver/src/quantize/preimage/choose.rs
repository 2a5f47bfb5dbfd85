//! Forwards: the fewest fraction bits with which each quantized layer stays within its set, for all claims.

use super::chain::{Chain, add_affine, dense};
use super::check::{proved, units};
use super::{Options, Preimage};
use crate::model::lower::lower;
use crate::model::profile::Real;
use crate::net::Weights;
use crate::num::round::sub_down;
use crate::quantize::scheme::{BITS, integer_bits};
use crate::quantize::{LayerScheme, QuantizeError, Quantizer, WeightRule};

/// What came of some fraction bits of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Fraction bits.
    pub fraction: u8,
    /// Bounds that were not proved to be in the set (at the output: forbidden polyhedra that were not excluded), of the claim that refused.
    pub failed: usize,
    /// How many there are for one claim.
    pub checks: usize,
    /// Which claim refused, if one did.
    pub refused_by: Option<usize>,
}

/// How a layer came to its bits, or why it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerChoice {
    /// Name of the layer.
    pub name: String,
    /// Integer bits with sign, from its weights and biases.
    pub integer: u8,
    /// All that was tried, the accepted one last.
    pub trials: Vec<Trial>,
    /// The accepted fraction bits.
    pub fraction: Option<u8>,
}

/// Bits of each layer.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Layer by layer, up to the one that nothing was accepted for.
    pub layers: Vec<LayerChoice>,
    /// What was proved.
    pub schemes: Option<Vec<LayerScheme>>,
    /// How often all layers were gone through.
    pub passes: usize,
}

/// The fewest fraction bits of each layer, one layer after the other, with which all claims are proved of the quantized network.
///
/// # Claim
/// If there are schemes, then for each claim and every input of its region the network of [`Quantizer::at`] with these schemes, in real
/// arithmetic, gives an output that no forbidden polyhedron contains.
///
/// # Why
/// The last check is about that network from its input to its output: bounds prove a functional of each goal. What was checked of hidden layers
/// only chose bits.
///
/// # Source
/// Quadapter, algorithm 1 (lines 5 to 15) and algorithm 2 (lines 10 to 19); the share of [`Options::relaxed`]: section 5.2. Ours is [`Options::again`].
///
/// # Errors
/// If the model is no chain, or the claims are not about it.
pub fn choose(quantizer: &Quantizer, claims: &[Preimage], options: &Options) -> Result<Choice, QuantizeError> {
    let mut least = vec![options.least; quantizer.layers().len()];
    let first = pass(quantizer, claims, &least, options)?;
    let (mut last, mut passes) = (first.clone(), 1);
    while last.schemes.is_none() && options.again {
        let chosen: Vec<u8> = last.layers.iter().filter_map(|l| l.fraction).collect();
        least.iter_mut().zip(&chosen).for_each(|(l, f)| *l = f.saturating_add(1));
        if chosen.is_empty() || least.iter().any(|l| *l > options.most) {
            break;
        }
        last = pass(quantizer, claims, &least, options)?;
        passes += 1;
    }
    let found = if last.schemes.is_some() { last } else { first };
    Ok(Choice { passes, ..found })
}

/// One way through all layers, each with at least so many fraction bits.
fn pass(quantizer: &Quantizer, claims: &[Preimage], least: &[u8], options: &Options) -> Result<Choice, QuantizeError> {
    let mut choice = Choice { layers: vec![], schemes: None, passes: 1 };
    let mut schemes: Vec<LayerScheme> = vec![];
    for (i, layer) in quantizer.layers().iter().enumerate() {
        let integer = integers(quantizer, i);
        let mut made = LayerChoice { name: layer.name.clone(), integer, trials: vec![], fraction: None };
        for fraction in least[i]..=options.most {
            let scheme = LayerScheme::new(integer.saturating_add(fraction), WeightRule::PowerOfTwo);
            if !(BITS.0..=BITS.1).contains(&scheme.bits) {
                continue;
            }
            let tried: Vec<LayerScheme> = schemes.iter().copied().chain([scheme]).collect();
            let trial = attempt(&chain(quantizer, &tried)?, claims, (i, fraction), options)?;
            made.trials.push(trial);
            if trial.refused_by.is_none() {
                made.fraction = Some(fraction);
                schemes = tried;
                break;
            }
        }
        choice.layers.push(made);
        if schemes.len() == i {
            return Ok(choice);
        }
    }
    choice.schemes = Some(schemes);
    Ok(choice)
}

/// Integer bits of a layer, from its weights and biases.
fn integers(quantizer: &Quantizer, index: usize) -> u8 {
    let layer = &quantizer.layers()[index];
    let parameters = [Some(layer.weights), layer.biases].into_iter().flatten();
    let numbers = parameters.flat_map(|p| quantizer.tensor(p).as_f32().unwrap_or(&[]));
    let (lo, hi) = numbers.fold((0.0_f32, 0.0_f32), |(lo, hi), u| (lo.min(*u), hi.max(*u)));
    integer_bits(lo, hi).clamp(1, i32::from(u8::MAX)) as u8
}

/// The network with its first layers quantized, and the others somehow.
fn chain(quantizer: &Quantizer, first: &[LayerScheme]) -> Result<Chain, QuantizeError> {
    let rest = LayerScheme::new(BITS.1, WeightRule::PowerOfTwo);
    let count = quantizer.layers().len();
    let schemes: Vec<LayerScheme> = (0..count).map(|k| first.get(k).copied().unwrap_or(rest)).collect();
    let chain = Chain::new(&lower(&quantizer.at(&schemes)?.model, &Real)?)?;
    if chain.layers.len() != count {
        let problem = format!("it has {count} layers with weights and {} affine ones", chain.layers.len());
        return Err(QuantizeError::new("the model", problem, "give a chain of Gemm, MatMul or Conv with ReLU between"));
    }
    Ok(chain)
}

/// Tries fraction bits of a layer on all claims, until one refuses.
fn attempt(
    chain: &Chain,
    claims: &[Preimage],
    (layer, fraction): (usize, u8),
    options: &Options,
) -> Result<Trial, QuantizeError> {
    let mut trial = Trial { fraction, failed: 0, checks: 0, refused_by: None };
    let is_last = layer + 1 == chain.layers.len();
    for (k, claim) in claims.iter().enumerate() {
        let sizes = (claim.templates.len() + 1, claim.region.lo.len());
        let functionals = claim.goals.iter().flat_map(|g| &g.functionals);
        let is_fit = sizes == (chain.layers.len(), chain.inputs())
            && functionals.into_iter().all(|f| f.coefficients.len() == chain.outputs())
            && claim.templates.iter().zip(&chain.layers).all(|(t, l)| t.neurons() == l.outputs());
        if !is_fit {
            let cure = "compute the preimage of the model that is quantized";
            return Err(QuantizeError::new(format!("claim {k}"), "its preimage is that of another network", cure));
        }
        let done = if is_last { output(chain, claim) } else { hidden(chain, claim, layer) };
        let failed = done.iter().filter(|d| !**d).count();
        let allowed = if is_last { 0.0 } else { options.relaxed * done.len() as f64 };
        (trial.failed, trial.checks) = (failed, done.len());
        let is_accepted = failed == 0 || failed as f64 <= allowed;
        if !is_accepted {
            trial.refused_by = Some(k);
            break;
        }
    }
    Ok(trial)
}

/// Which sides of a hidden layer's set contain the layer's value for every input.
///
/// # Rounding
/// The differences of constants are rounded down; the bounds are proved.
fn hidden(chain: &Chain, claim: &Preimage, index: usize) -> Vec<bool> {
    let (layer, template) = (&chain.layers[index], &claim.templates[index]);
    let (n, lines) = (layer.outputs(), template.lines.exact());
    let sides = template.sides(claim.scalings[index]);
    let (upper, lower) = lines.split_at(lines.len() / 2);
    let lines = Weights::new(upper.iter().copied().chain(lower.iter().map(|c| -c)).collect());
    let own = layer.weights.exact();
    let own = Weights::new(own.iter().map(|w| -w).chain(own.iter().copied()).collect());
    let above = sides[..n].iter().zip(&layer.bias).map(|(side, b)| sub_down(*side, *b));
    let below = sides[n..].iter().zip(&layer.bias).map(|(side, b)| sub_down(*b, *side));
    let (mut net, last) = chain.hidden(index);
    let terms = vec![(last, dense(&own, layer.inputs, 2 * n)), (net.inputs()[0], dense(&lines, chain.inputs(), 2 * n))];
    let room = add_affine(&mut net, terms, above.chain(below).collect());
    net.set_outputs(vec![room]);
    let units = units(2 * n);
    let units: Vec<&[f64]> = units.chunks(2 * n).collect();
    proved(&net, room, &claim.region, &units, |_, least| least >= 0.0)
}

/// Which goals the output meets for every input.
fn output(chain: &Chain, claim: &Preimage) -> Vec<bool> {
    let (net, output) = chain.net();
    let all: Vec<_> = claim.goals.iter().flat_map(|g| &g.functionals).collect();
    let coefficients: Vec<&[f64]> = all.iter().map(|f| &f.coefficients[..]).collect();
    let mut met = proved(&net, output, &claim.region, &coefficients, |k, least| all[k].is_met(least)).into_iter();
    claim.goals.iter().map(|g| met.by_ref().take(g.functionals.len()).filter(|m| *m).count() > 0).collect()
}
