//! A model being rewritten, and the questions that the passes ask of it.

use crate::model::ir::{DType, Model, Node, Op, Tensor, Value, ValueId};
use crate::model::profile::{Quantizer, ort};

/// A model being rewritten.
pub(super) struct Graph {
    pub model: Model,
}

/// A DequantizeLinear or QuantizeLinear with one scale and a zero point.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    /// Its node.
    pub node: usize,
    /// The integer side.
    pub integer: ValueId,
    pub scale: ValueId,
    pub zero_point: Option<ValueId>,
}

impl Graph {
    pub(super) fn producer(&self, value: ValueId) -> Option<usize> {
        self.model.nodes.iter().position(|n| n.output == value)
    }

    /// The nodes that read a value; a node that reads it twice stands twice.
    pub(super) fn consumers(&self, value: ValueId) -> Vec<usize> {
        let reads = |i: usize| self.model.nodes[i].inputs.iter().filter(move |v| **v == Some(value)).map(move |_| i);
        (0..self.model.nodes.len()).flat_map(reads).collect()
    }

    pub(super) fn is_output(&self, value: ValueId) -> bool {
        self.model.outputs.contains(&value)
    }

    /// The node that alone reads a value which is no output.
    pub(super) fn only_consumer(&self, value: ValueId) -> Option<usize> {
        match self.consumers(value)[..] {
            [one] if !self.is_output(value) => Some(one),
            _ => None,
        }
    }

    pub(super) fn node(&self, index: usize) -> &Node {
        &self.model.nodes[index]
    }

    pub(super) fn input(&self, index: usize, position: usize) -> Option<ValueId> {
        self.node(index).inputs.get(position).copied().flatten()
    }

    pub(super) fn constant(&self, value: ValueId) -> Option<&Tensor> {
        self.model.value(value).constant.as_deref()
    }

    pub(super) fn dtype(&self, value: ValueId) -> DType {
        self.model.value(value).dtype
    }

    pub(super) fn add_value(&mut self, value: Value) -> ValueId {
        self.model.values.push(value);
        ValueId(self.model.values.len() - 1)
    }

    pub(super) fn add_constant(&mut self, name: String, tensor: Tensor) -> ValueId {
        let (dtype, shape) = (tensor.dtype(), tensor.shape.clone());
        self.add_value(Value { name, dtype, shape, constant: Some(tensor.into()), range: None })
    }

    /// The DequantizeLinear that makes a value, if one does.
    pub(super) fn dequantized(&self, value: ValueId) -> Option<Pair> {
        let node = self.producer(value)?;
        matches!(self.node(node).op, Op::DequantizeLinear { .. }).then_some(())?;
        let (integer, scale) = (self.input(node, 0)?, self.input(node, 1)?);
        Some(Pair { node, integer, scale, zero_point: self.input(node, 2) })
    }

    /// A per-tensor dequantization with an explicit zero point, as activations need.
    pub(super) fn activation(&self, value: ValueId) -> Option<Pair> {
        let pair = self.dequantized(value)?;
        (pair.zero_point.is_some() && self.is_single(pair.scale)).then_some(pair)
    }

    pub(super) fn is_single(&self, value: ValueId) -> bool {
        self.constant(value).is_some_and(|t| t.len() == 1)
    }

    /// A dequantized constant with an explicit zero point, as weights need.
    pub(super) fn weights(&self, value: ValueId) -> Option<Pair> {
        let pair = self.dequantized(value)?;
        (pair.zero_point.is_some() && self.constant(pair.integer).is_some()).then_some(pair)
    }

    /// The QuantizeLinear at this index, if it is one.
    pub(super) fn quantize_at(&self, index: usize) -> Option<Pair> {
        matches!(self.node(index).op, Op::QuantizeLinear { .. }).then_some(())?;
        let (integer, scale) = (self.node(index).output, self.input(index, 1)?);
        Some(Pair { node: index, integer, scale, zero_point: self.input(index, 2) })
    }

    /// The QuantizeLinear that alone reads a value, over a Relu or Clip that its own clipping makes redundant.
    pub(super) fn quantized_after(&self, value: ValueId) -> Option<Pair> {
        let mut index = self.only_consumer(value)?;
        let mut between = None;
        if matches!(self.node(index).op, Op::Relu | Op::Clip { .. }) {
            between = Some(index);
            index = self.only_consumer(self.node(index).output)?;
        }
        let pair = self.quantize_at(index)?;
        let redundant = between.is_none_or(|b| self.clips_nothing(&self.node(b).op, &pair));
        (pair.zero_point.is_some() && self.is_single(pair.scale) && redundant).then_some(pair)
    }

    /// Whether quantization clips at least as much as a Relu or Clip before it.
    pub(super) fn clips_nothing(&self, op: &Op, q: &Pair) -> bool {
        let Some(q) = self.quantizer(q) else { return false };
        let (lo, hi) = q.range;
        match op {
            Op::Relu => q.zero_point == lo,
            Op::Clip { min, max } => {
                min.is_none_or(|m| ort::quantize_value(m, &q) <= lo)
                    && max.is_none_or(|m| ort::quantize_value(m, &q) >= hi)
            }
            _ => false,
        }
    }

    pub(super) fn quantizer(&self, q: &Pair) -> Option<Quantizer> {
        let scale = self.constant(q.scale)?.as_f32()?.first().copied()?;
        let zero_point = match q.zero_point {
            Some(z) => self.constant(z)?.to_i64()?.first().copied()?,
            None => 0,
        };
        Some(Quantizer { scale, zero_point, range: self.dtype(q.integer).integer_range()? })
    }
}

/// Integer, scale and zero point, as the quantized operators take them.
pub(super) fn inputs_of(p: &Pair) -> [Option<ValueId>; 3] {
    [Some(p.integer), Some(p.scale), p.zero_point]
}

/// Scale and zero point of a result.
pub(super) fn parameters_of(p: &Pair) -> [Option<ValueId>; 2] {
    [Some(p.scale), p.zero_point]
}

/// Whether an operation is an index map or a maximum, which a quantizer passes through.
pub(super) fn passes_integers(op: &Op) -> bool {
    matches!(op, Op::Reshape | Op::Transpose { .. } | Op::Slice { .. } | Op::MaxPool { .. })
}
