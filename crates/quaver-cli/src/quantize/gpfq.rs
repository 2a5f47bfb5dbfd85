//! `--method gpfq`: integers chosen from data, layer by layer.

use anyhow::Result;
use quaver::quantize::gpfq::{self, Options};
use quaver::quantize::{BiasRule, Quantized};

use super::{Job, Radius, Scheme};
use crate::session::fail;

/// The network whose weights follow the data.
pub fn quantize(job: &Job<'_>) -> Result<Quantized> {
    let args = job.args;
    let is_float = |bias: BiasRule| matches!(bias, BiasRule::Float | BiasRule::Accumulator);
    if args.per_channel
        || args.scheme.is_some_and(|s| s != Scheme::Symmetric)
        || args.bias.is_some_and(|b| !is_float(b.0))
    {
        let problem = "gpfq has one alphabet around zero for each layer, and biases stay float";
        return Err(fail(problem, "leave --scheme, --per-channel and --bias out, or use --method round"));
    }
    let radius = match args.alphabet {
        Radius::Maxima => gpfq::Radius::Maxima,
        Radius::Median => gpfq::Radius::Median,
    };
    let options = Options { radius, constant: args.alphabet_factor.approx() };
    let mut quantized = gpfq::gpfq(&job.quantizer, &job.bits, job.data()?, &options)?;
    if args.bias.map_or(args.activations.is_some(), |b| b.0 == BiasRule::Accumulator) {
        quantized.layers.iter_mut().for_each(|layer| layer.scheme.biases = BiasRule::Accumulator);
    }
    Ok(quantized)
}
