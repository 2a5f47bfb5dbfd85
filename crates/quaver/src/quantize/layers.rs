//! The layers of a model that hold weights.

use super::QuantizeError;
use crate::model::ir::{DType, Model, Node, Op, Value, ValueId};

/// What a layer multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Gemm or MatMul.
    Dense,
    /// Conv.
    Convolution,
}

impl Kind {
    /// The name users know it by.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Dense => "dense",
            Kind::Convolution => "convolution",
        }
    }
}

/// A constant that a node reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Index of the node.
    pub node: usize,
    /// Position among its inputs.
    pub position: usize,
    /// The constant.
    pub value: ValueId,
    /// Number of elements.
    pub len: usize,
}

/// A Gemm, MatMul or Conv with constant weights, and its biases.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Name of the node.
    pub name: String,
    /// What it multiplies.
    pub kind: Kind,
    /// Its weights.
    pub weights: Parameter,
    /// Axis of the weights along which the output channels lie; `None` for a vector of weights.
    pub axis: Option<usize>,
    /// Its biases: an input of the node, or the constant of an Add that alone reads it.
    pub biases: Option<Parameter>,
    /// What the weights are multiplied with.
    pub input: ValueId,
    /// The result, biases included.
    pub output: ValueId,
    /// Elements of the result.
    pub neurons: usize,
}

impl Layer {
    /// Number of weights and biases.
    pub fn parameters(&self) -> usize {
        self.weights.len + self.biases.map_or(0, |b| b.len)
    }

    /// Multiplications of one execution: each output is a sum over the weights of its channel.
    pub fn multiplications(&self, model: &Model) -> usize {
        let channels = self.axis.map_or(1, |axis| model.value(self.weights.value).shape[axis]);
        self.neurons / channels.max(1) * self.weights.len
    }
}

/// The layers of a float model, in order.
///
/// # Errors
/// If the model is quantized already, or has no layer with constant float32 weights, or a convolution whose filters are computed.
pub fn layers(model: &Model) -> Result<Vec<Layer>, QuantizeError> {
    if let Some(node) = model.nodes.iter().find(|n| n.op.is_quantized()) {
        let problem = format!("node `{}` ({}): the model is quantized already", node.name, node.op.name());
        return Err(QuantizeError::of_model(model, problem, "give the float model"));
    }
    let mut found = vec![];
    for index in 0..model.nodes.len() {
        found.extend(layer(model, index)?);
    }
    if found.is_empty() {
        let problem = "there is no Gemm, MatMul or Conv with constant weights";
        return Err(QuantizeError::of_model(model, problem, "give a model with such layers"));
    }
    Ok(found)
}

/// The layer that the node at an index is, if it is one.
fn layer(model: &Model, index: usize) -> Result<Option<Layer>, QuantizeError> {
    let node = &model.nodes[index];
    let kind = match node.op {
        Op::Gemm { .. } | Op::MatMul => Kind::Dense,
        Op::Conv { .. } => Kind::Convolution,
        _ => return Ok(None),
    };
    let [Some(a), Some(b)] = [0, 1].map(|p| node.inputs.get(p).copied().flatten()) else { return Ok(None) };
    let is_constant = |id: ValueId| model.value(id).constant.is_some();
    let position = match (is_constant(a), is_constant(b)) {
        (false, true) => 1,
        (true, false) if kind == Kind::Dense => 0,
        (false, false) if kind == Kind::Dense => return Ok(None),
        _ => {
            let place = format!("node `{}` ({})", node.name, node.op.name());
            return Err(QuantizeError::new(
                place,
                "its filters are not constant",
                "give a model with constant filters",
            ));
        }
    };
    let Some(weights) = parameter(model, index, position) else { return Ok(None) };
    let biases = biases(model, index);
    let output = biases.map_or(node.output, |b| model.nodes[b.node].output);
    Ok(Some(Layer {
        name: node.name.clone(),
        kind,
        weights,
        axis: channel_axis(node, position, model.value(weights.value)),
        biases,
        input: if position == 1 { a } else { b },
        output,
        neurons: model.value(output).len(),
    }))
}

/// The float32 constant at an input of a node, if there is one.
fn parameter(model: &Model, node: usize, position: usize) -> Option<Parameter> {
    let value = model.nodes[node].inputs.get(position).copied().flatten()?;
    let constant = model.value(value).constant.as_deref()?;
    (constant.dtype() == DType::F32).then_some(Parameter { node, position, value, len: constant.len() })
}

/// The axis of the weights that becomes the channels of the result.
fn channel_axis(node: &Node, position: usize, weights: &Value) -> Option<usize> {
    let rank = weights.shape.len();
    match node.op {
        Op::Gemm { trans_a, trans_b, .. } => {
            let second = if position == 0 { trans_a } else { !trans_b };
            Some(usize::from(second))
        }
        Op::Conv { .. } => Some(0),
        _ if rank < 2 => None,
        _ => Some(if position == 0 { rank - 2 } else { rank - 1 }),
    }
}

/// The biases of the node at an index.
fn biases(model: &Model, index: usize) -> Option<Parameter> {
    let node = &model.nodes[index];
    if node.op != Op::MatMul && node.inputs.get(2).copied().flatten().is_some() {
        return parameter(model, index, 2);
    }
    let reader = only_reader(model, node.output)?;
    let add = &model.nodes[reader];
    (add.op == Op::Add && model.value(add.output).shape == model.value(node.output).shape).then_some(())?;
    let position = usize::from(add.inputs.first() == Some(&Some(node.output)));
    parameter(model, reader, position)
}

/// The node that alone reads a value, once, where the value is no output of the model.
pub(super) fn only_reader(model: &Model, value: ValueId) -> Option<usize> {
    let count = |n: &Node| n.inputs.iter().filter(|v| **v == Some(value)).count();
    let mut readers = model.nodes.iter().enumerate().filter(|(_, n)| count(n) > 0);
    let (index, node) = readers.next()?;
    let alone = readers.next().is_none() && count(node) == 1 && !model.outputs.contains(&value);
    alone.then_some(index)
}
