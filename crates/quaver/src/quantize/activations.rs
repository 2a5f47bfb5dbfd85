//! Quantized activations: which values, and between which ends.

use super::QuantizeError;
use super::layers::{Layer, layers, only_reader};
use super::scheme::Levels;
use crate::bounds::{Prepared, analyse};
use crate::model::ir::{Model, Op, ValueId};
use crate::model::lower::{Lowered, lower};
use crate::model::profile::Float32;
use crate::net::execute;
use crate::property::Region;

/// Fewest and most bits of an activation.
pub const BITS: (u8, u8) = (2, 16);

/// How activations are quantized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActivationScheme {
    /// Bits, 2 to 16.
    pub bits: u8,
    /// Zero point 0: unsigned for values that are never negative, signed for others. Else unsigned, with a zero point for each value.
    pub symmetric: bool,
    /// Whether results of the model are quantized, too.
    pub outputs: bool,
    /// What the model's inputs are multiples of: then they get a scale that divides it where the bits suffice, and are rounded no more.
    pub input_step: Option<f64>,
}

/// Ends of the values that are quantized.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranges {
    /// The values of the model, in order.
    pub points: Vec<ValueId>,
    /// Smallest and largest number of each.
    pub ends: Vec<(f64, f64)>,
}

impl Ranges {
    /// The same, with each end multiplied by a factor: below 1 it clips, and the steps are finer.
    pub fn scaled(self, alpha: f64) -> Self {
        self.scaled_but(alpha, &[])
    }

    /// [`Self::scaled`] but for some values: inputs of a model whose ends are known for sure.
    pub fn scaled_but(mut self, alpha: f64, not: &[ValueId]) -> Self {
        let ends = self.points.iter().zip(&mut self.ends).filter(|(point, _)| !not.contains(point));
        ends.for_each(|(_, (lo, hi))| (*lo, *hi) = (*lo * alpha, *hi * alpha));
        self
    }
}

/// The values that are quantized: what each layer multiplies (before reshapes, transpositions and maxima, which keep levels), and what each
/// layer gives, behind its activation function.
///
/// # Errors
/// As [`layers`].
pub fn points(model: &Model, outputs: bool) -> Result<Vec<ValueId>, QuantizeError> {
    let mut points: Vec<ValueId> =
        layers(model)?.iter().flat_map(|l| [before_moves(model, l.input), end(model, l)]).collect();
    points.retain(|id| outputs || !model.outputs.contains(id));
    points.sort();
    points.dedup();
    Ok(points)
}

/// The value that a value holds the elements of, in another order or the largest of them.
pub(super) fn before_moves(model: &Model, mut value: ValueId) -> ValueId {
    let keeps = |op: &Op| {
        matches!(
            op,
            Op::Identity | Op::Reshape | Op::Flatten | Op::Transpose { .. } | Op::MaxPool { .. } | Op::Slice { .. }
        )
    };
    while let Some(node) = model.nodes.iter().find(|n| n.output == value && keeps(&n.op)) {
        // Local invariant: these operations have one input.
        value = node.inputs[0].unwrap_or(value);
    }
    value
}

/// The result of a layer behind its activation function (and a normalisation before it).
fn end(model: &Model, layer: &Layer) -> ValueId {
    let mut value = layer.output;
    let passes = |op: &Op| {
        matches!(op, Op::Relu | Op::LeakyRelu { .. } | Op::Clip { .. } | Op::BatchNormalization { .. } | Op::Identity)
    };
    while let Some(reader) = only_reader(model, value).filter(|&r| passes(&model.nodes[r].op)) {
        value = model.nodes[reader].output;
    }
    value
}

/// The model under `float32` with the points as its outputs.
pub(super) fn probe(model: &Model, points: &[ValueId]) -> Result<Lowered, QuantizeError> {
    Ok(lower(&Model { outputs: points.to_vec(), ..model.clone() }, &Float32)?)
}

/// Ranges that are proved for every input of a box, under the profile `float32`.
///
/// # Claim
/// On every input of the box, whatever the order of its sums, the float model's values are within their ends.
///
/// # Errors
/// If the model has no such bounds, or several inputs.
pub fn proved(model: &Model, outputs: bool, region: &Region) -> Result<Ranges, QuantizeError> {
    let points = points(model, outputs)?;
    let lowered = probe(model, &points)?;
    one_input(model, &lowered, region.lo.len())?;
    let analysis = analyse(&Prepared::new(&lowered.net), region).ok_or_else(|| {
        QuantizeError::of_model(model, "a value has no finite bounds over the box", "give a smaller box")
    })?;
    let ends = lowered.net.outputs().iter().map(|id| {
        let bounds = &analysis.bounds[id.0];
        let fold = |of: &[f64], f: fn(f64, f64) -> f64| of.iter().copied().reduce(f).unwrap_or(0.0);
        (fold(&bounds.lo, f64::min), fold(&bounds.hi, f64::max))
    });
    Ok(Ranges { points, ends: ends.collect() })
}

/// Smallest and largest number of each value over some inputs.
///
/// # Errors
/// If the model cannot be executed, or has several inputs, or there is no row.
pub fn from_data(model: &Model, outputs: bool, data: &[f64]) -> Result<Ranges, QuantizeError> {
    let points = points(model, outputs)?;
    let lowered = probe(model, &points)?;
    let rows = rows_of(model, &lowered, data)?;
    let values = execute(&lowered.net, &[data.to_vec()], rows);
    let ends = values.iter().map(|v| {
        v.center.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi): (f64, f64), &x| (lo.min(x), hi.max(x)))
    });
    Ok(Ranges { points, ends: ends.collect() })
}

/// How many rows of the model's one input some numbers are.
pub(super) fn rows_of(model: &Model, lowered: &Lowered, data: &[f64]) -> Result<usize, QuantizeError> {
    let len = lowered.net.inputs().first().map_or(1, |&id| lowered.net.node(id).len());
    one_input(model, lowered, len)?;
    match data.len() / len {
        rows if rows > 0 && rows * len == data.len() => Ok(rows),
        _ => {
            let problem = format!("{} numbers are no rows of {len}", data.len());
            Err(QuantizeError::of_model(model, problem, "give at least one row of the input's shape"))
        }
    }
}

fn one_input(model: &Model, lowered: &Lowered, len: usize) -> Result<(), QuantizeError> {
    match lowered.net.inputs() {
        [id] if lowered.net.node(*id).len() == len => Ok(()),
        [id] => {
            let problem = format!("{len} elements are given for an input of {}", lowered.net.node(*id).len());
            Err(QuantizeError::of_model(model, problem, "give one number for each element of the input"))
        }
        all => {
            let problem = format!("the model has {} inputs", all.len());
            Err(QuantizeError::of_model(model, problem, "give a model with one input"))
        }
    }
}

impl ActivationScheme {
    /// Refuses bits out of range.
    pub(super) fn check(&self) -> Result<(), QuantizeError> {
        if (BITS.0..=BITS.1).contains(&self.bits) {
            return Ok(());
        }
        let problem = format!("{} bits are asked for", self.bits);
        Err(QuantizeError::new("activations", problem, "give 2 to 16 bits"))
    }

    /// Levels for a value of a model between two ends, and whether its integers are signed.
    pub fn levels(&self, model: &Model, point: ValueId, ends: (f64, f64)) -> (Levels, bool) {
        let (levels, signed) = self.between(ends);
        match self.input_step.filter(|_| model.inputs.contains(&point)) {
            Some(step) => (levels.dividing(step, ends.0.min(0.0)), signed),
            None => (levels, signed),
        }
    }

    fn between(&self, (lo, hi): (f64, f64)) -> (Levels, bool) {
        let (lo, hi) = (lo.min(0.0), hi.max(0.0));
        let unsigned = (0, (1_i64 << self.bits) - 1);
        let signed = (-(1_i64 << (self.bits - 1)), (1_i64 << (self.bits - 1)) - 1);
        match (self.symmetric, lo < 0.0) {
            (false, _) => (Levels::between(lo, hi, unsigned), false),
            (true, false) => (Levels::around(hi, unsigned), false),
            (true, true) => (Levels::around(hi.max(-lo), signed), true),
        }
    }
}
