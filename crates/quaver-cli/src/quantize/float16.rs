//! `--format float16`: weights and activations in float16.

use anyhow::Result;
use quaver::model::ir::ValueId;
use quaver::num::float16;
use quaver::quantize::Quantizer;
use quaver::quantize::qdq::to_float16;
use serde_json::json;

use super::{Args, write};
use crate::format::{self, number};
use crate::load;
use crate::session::{Session, fail};

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let others = [
        (args.method.is_some(), "--method"),
        (args.bits.is_some(), "--bits"),
        (args.scheme.is_some(), "--scheme"),
        (args.per_channel, "--per-channel"),
        (args.bias.is_some(), "--bias"),
        (args.activations.is_some(), "--activations"),
        (!args.preserve.what.is_empty(), "--preserve"),
    ];
    if let Some((_, option)) = others.iter().find(|o| o.0) {
        return Err(fail(format!("{option} says nothing of float16"), "leave it out: every weight is rounded"));
    }
    let model = load::model(session.files, &args.model)?;
    let quantizer = Quantizer::new(&model)?;
    let of = |value: ValueId| model.value(value).constant.as_ref().and_then(|t| t.as_f32()).unwrap_or_default();
    let weights = quantizer.layers().iter().flat_map(|layer| of(layer.weights.value));
    let (mut count, mut error) = (0usize, 0.0f64);
    for &w in weights {
        let rounded = float16::nearest(w);
        if rounded.is_infinite() {
            return Err(fail(format!("the weight {w} is too large for float16"), "use another format"));
        }
        (count, error) = (count + 1, error.max((f64::from(w) - f64::from(rounded)).abs()));
    }
    let bytes = write(&to_float16(&quantizer)?, &args.output)?;
    if session.json {
        return session.line(&json!({ "format": "float16", "weights": count, "largest_error": error, "bytes": bytes }));
    }
    session.say(format!(
        "{}: {} weights in float16, changed by at most {}; activations through float16; {} bytes",
        args.output.display(),
        format::grouped(count),
        number(error),
        format::grouped(bytes)
    ))
}
