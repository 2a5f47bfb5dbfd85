//! What became of each layer.

use anyhow::Result;
use quaver::quantize::{Layer, Quantized, QuantizedLayer};
use serde_json::json;

use super::activations::Activations;
use super::{Job, Method};
use crate::format::{self, Table, grouped, number};
use crate::session::Session;

/// Bytes of weights and biases: (float32, quantized), without scales.
fn bytes(layer: &Layer, quantized: &QuantizedLayer) -> (usize, usize) {
    (4 * layer.parameters(), quantized.storage_bits(layer).div_ceil(8))
}

/// Prints it, as a table or as JSON.
pub fn print(
    job: &Job<'_>,
    quantized: &Quantized,
    activations: Option<&Activations>,
    session: &mut Session<'_>,
) -> Result<()> {
    let layers: Vec<(&Layer, &QuantizedLayer)> = job.quantizer.layers().iter().zip(&quantized.layers).collect();
    let sum = |of: fn((usize, usize)) -> usize| layers.iter().map(|(l, q)| of(bytes(l, q))).sum::<usize>();
    let (before, after) = (sum(|b| b.0), sum(|b| b.1));
    let path = job.args.output.display().to_string();
    if session.json {
        layers.iter().enumerate().try_for_each(|(k, (l, q))| session.line(&layer_json(k, l, q)))?;
        if let Some(activations) = activations {
            activations_json(job, activations).iter().try_for_each(|line| session.line(line))?;
        }
        return session.line(&json!({ "written": path, "bytes_before": before, "bytes_after": after }));
    }
    session.say(format!("{}: {}", job.args.model.display(), format::count(layers.len(), "layer")))?;
    layer_table(job, &layers).write(session.out)?;
    if let Some(activations) = activations {
        activation_table(job, activations).write(session.out)?;
    }
    let total = format!("weights and biases take {} bytes instead of {}", grouped(after), grouped(before));
    session.say(format!("{total}; wrote {path}"))
}

fn layer_table(job: &Job<'_>, layers: &[(&Layer, &QuantizedLayer)]) -> Table {
    let headings = [
        "layer",
        "kind",
        ">weights",
        ">biases",
        ">neurons",
        ">bits",
        "scheme",
        "scale",
        ">largest error",
        ">clipped",
        ">bytes",
        ">before",
    ];
    let mut table = Table::new(&headings);
    for (layer, quantized) in layers {
        let scheme = match job.args.method() {
            Method::Gpfq => "gpfq",
            _ => quantized.scheme.rule.name(),
        };
        let bits = match &quantized.biases {
            Some(biases) if biases.bits != quantized.scheme.bits => {
                format!("{}, {}", quantized.scheme.bits, biases.bits)
            }
            _ => quantized.scheme.bits.to_string(),
        };
        let (before, after) = bytes(layer, quantized);
        let clipped = quantized.weights.clipped + quantized.biases.as_ref().map_or(0, |b| b.clipped);
        table.row([
            layer.name.clone(),
            layer.kind.name().into(),
            grouped(layer.weights.len),
            layer.biases.map_or("0".into(), |b| grouped(b.len)),
            grouped(layer.neurons),
            bits,
            scheme.into(),
            scales(quantized),
            number(quantized.largest_error()),
            grouped(clipped),
            grouped(after),
            grouped(before),
        ]);
    }
    table
}

/// One scale, or the smallest and largest of several.
fn scales(quantized: &QuantizedLayer) -> String {
    let all = quantized.weights.levels.iter().map(|l| f64::from(l.scale));
    let (lo, hi) = all.fold((f64::INFINITY, 0.0_f64), |(lo, hi), s| (lo.min(s), hi.max(s)));
    if quantized.weights.levels.len() == 1 { number(lo) } else { format!("{} to {}", number(lo), number(hi)) }
}

fn layer_json(index: usize, layer: &Layer, quantized: &QuantizedLayer) -> serde_json::Value {
    let (before, after) = bytes(layer, quantized);
    let scales: Vec<f32> = quantized.weights.levels.iter().map(|l| l.scale).collect();
    let zero_points: Vec<i64> = quantized.weights.levels.iter().map(|l| l.zero_point).collect();
    json!({
        "layer": index,
        "name": layer.name,
        "kind": layer.kind.name(),
        "weights": layer.weights.len,
        "biases": layer.biases.map_or(0, |b| b.len),
        "neurons": layer.neurons,
        "bits": quantized.scheme.bits,
        "bias_bits": quantized.biases.as_ref().map(|b| b.bits),
        "scales": scales,
        "zero_points": zero_points,
        "largest_error": quantized.largest_error(),
        "clipped": quantized.weights.clipped + quantized.biases.as_ref().map_or(0, |b| b.clipped),
        "bytes_before": before,
        "bytes_after": after,
    })
}

fn activation_table(job: &Job<'_>, activations: &Activations) -> Table {
    let mut table = Table::new(&["activation", ">bits", "range", ">scale", ">zero point"]);
    for (point, &ends) in activations.ranges.points.iter().zip(&activations.ranges.ends) {
        let (levels, _) = activations.scheme.levels(job.quantizer.model(), *point, ends);
        table.row([
            job.quantizer.model().value(*point).name.clone(),
            activations.scheme.bits.to_string(),
            format::range(ends),
            number(levels.scale.into()),
            levels.zero_point.to_string(),
        ]);
    }
    table
}

fn activations_json(job: &Job<'_>, activations: &Activations) -> Vec<serde_json::Value> {
    let line = |(point, &ends): (&quaver::model::ir::ValueId, &(f64, f64))| {
        let (levels, signed) = activations.scheme.levels(job.quantizer.model(), *point, ends);
        json!({
            "activation": job.quantizer.model().value(*point).name,
            "bits": activations.scheme.bits,
            "range": [ends.0, ends.1],
            "scale": levels.scale,
            "zero_point": levels.zero_point,
            "signed": signed,
        })
    };
    activations.ranges.points.iter().zip(&activations.ranges.ends).map(line).collect()
}
