//! `--method round`: each weight goes to its own level.

use anyhow::Result;
use quaver::quantize::{BiasRule, LayerScheme, Quantized, WeightRule};

use super::{Job, Scheme};

/// The network with every weight rounded.
pub fn quantize(job: &Job<'_>) -> Result<Quantized> {
    Ok(job.quantizer.at(&schemes(job))?)
}

/// The scheme of each layer.
pub fn schemes(job: &Job<'_>) -> Vec<LayerScheme> {
    let args = job.args;
    let rule = WeightRule::from(args.scheme.unwrap_or(Scheme::Symmetric));
    let biases = match args.bias {
        Some(bias) => bias.0,
        None if args.activations.is_some() && !rule.is_joint() => BiasRule::Accumulator,
        None => BiasRule::Same,
    };
    let scheme = |&bits: &u8| LayerScheme { bits, rule, per_channel: args.per_channel, biases };
    job.bits.iter().map(scheme).collect()
}
