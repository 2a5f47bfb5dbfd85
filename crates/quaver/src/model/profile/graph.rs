//! A model being rewritten, and the questions that the passes ask of it.

use super::{Quantizer, ort};
use crate::model::ir::{DType, Model, Node, Op, Tensor, Value, ValueId};

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

    /// Identity nodes that make no output are no nodes of the runtime's graph.
    pub(super) fn remove_identities(&mut self) {
        for index in 0..self.model.nodes.len() {
            let (Op::Identity, Some(source)) = (&self.node(index).op, self.input(index, 0)) else { continue };
            let value = self.node(index).output;
            if !self.is_output(value) {
                let inputs = self.model.nodes.iter_mut().flat_map(|n| &mut n.inputs);
                inputs.filter(|v| **v == Some(value)).for_each(|v| *v = Some(source));
            }
        }
        self.remove_dead();
    }

    /// MatMul of rank 2 and an Add of a constant row become a Gemm.
    pub(super) fn matmul_add_to_gemm(&mut self) {
        for index in 0..self.model.nodes.len() {
            if self.node(index).op != Op::MatMul || self.model.value(self.node(index).output).shape.len() != 2 {
                continue;
            }
            let output = self.node(index).output;
            let Some(add) = self.only_consumer(output).filter(|&a| self.node(a).op == Op::Add) else { continue };
            let other = self.node(add).inputs.iter().flatten().copied().find(|&v| v != output);
            let width = self.model.value(output).shape[1];
            let is_row =
                |v: &ValueId| self.constant(*v).is_some_and(|t| matches!(t.shape.len(), 1 | 2) && t.len() == width);
            let Some(bias) = other.filter(is_row) else { continue };
            let mut inputs = self.node(index).inputs.clone();
            inputs.push(Some(bias));
            let op = Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false };
            self.model.nodes[add] = Node { op, inputs, ..self.model.nodes[add].clone() };
        }
        self.remove_dead();
    }

    /// Operations that a monotone function passes through move from behind a DequantizeLinear to before it.
    pub(super) fn propagate_dequantize(&mut self, passes: impl Fn(&Op) -> bool) {
        let mut index = 0;
        while index < self.model.nodes.len() {
            let node = self.node(index).clone();
            let moves = passes(&node.op);
            let pair = node.inputs[0].and_then(|v| self.activation(v));
            if let (true, Some(pair)) = (moves, pair) {
                let dtype = self.dtype(pair.integer);
                let old = self.model.value(node.output).clone();
                let integer = self.add_value(Value { name: format!("{}_integer", old.name), dtype, ..old });
                let mut inputs = node.inputs.clone();
                inputs[0] = Some(pair.integer);
                self.model.nodes[index] = Node { inputs, output: integer, ..node.clone() };
                let inputs = vec![Some(integer), Some(pair.scale), pair.zero_point];
                let name = format!("{}_DequantizeLinear", node.name);
                let op = Op::DequantizeLinear { axis: 0 };
                self.model.nodes.insert(index + 1, Node { name, op, inputs, output: node.output });
                index += 1;
            }
            index += 1;
        }
    }

    /// QuantizeLinear of a DequantizeLinear with the same parameters gives the integer back.
    pub(super) fn cancel_pairs(&mut self) {
        for index in 0..self.model.nodes.len() {
            let Some(q) = self.quantize_at(index) else { continue };
            let Some(dq) = self.input(index, 0).and_then(|v| self.activation(v)) else { continue };
            let same_type = self.dtype(q.integer) == self.dtype(dq.integer);
            if same_type && self.is_single(q.scale) && self.quantizer(&q) == self.quantizer(&dq) {
                self.replace(index, Op::Identity, vec![Some(dq.integer)]);
            }
        }
    }

    /// Removes nodes that no output depends on.
    pub(super) fn remove_dead(&mut self) {
        let mut needed = vec![false; self.model.values.len()];
        self.model.outputs.iter().for_each(|o| needed[o.0] = true);
        let mut keep = vec![false; self.model.nodes.len()];
        for (i, node) in self.model.nodes.iter().enumerate().rev() {
            keep[i] = needed[node.output.0];
            if keep[i] {
                node.inputs.iter().flatten().for_each(|v| needed[v.0] = true);
            }
        }
        let mut kept = keep.into_iter();
        self.model.nodes.retain(|_| kept.next().unwrap_or(true));
    }

    /// Whether a value's only reader is a QuantizeLinear, or a chain of Relu and Clip that ends in one.
    pub(super) fn ends_in_quantize(&self, value: ValueId) -> bool {
        match self.consumers(value)[..] {
            [one] => match self.node(one).op {
                Op::QuantizeLinear { .. } => true,
                Op::Relu | Op::Clip { .. } => self.ends_in_quantize(self.node(one).output),
                _ => false,
            },
            _ => false,
        }
    }

    /// Puts an operation where a node was.
    pub(super) fn replace(&mut self, index: usize, op: Op, inputs: Vec<Option<ValueId>>) {
        let node = &mut self.model.nodes[index];
        (node.op, node.inputs) = (op, inputs);
    }

    /// Whether a bias is stored at the scale R(sx sw) of the accumulator.
    pub(super) fn has_accumulator_scale(&self, bias: &Pair, x: &Pair, w: &Pair) -> bool {
        let values = |id: ValueId| self.constant(id).and_then(|t| t.as_f32()).unwrap_or(&[]).to_vec();
        let (sx, sw, sb) = (values(x.scale), values(w.scale), values(bias.scale));
        let fits = |(c, s): (usize, &f32)| {
            let expected = sx[0] * sw[if sw.len() == 1 { 0 } else { c.min(sw.len() - 1) }];
            (s - expected).abs() <= 4.0 * f32::EPSILON * expected
        };
        !sx.is_empty() && !sw.is_empty() && sb.iter().enumerate().all(fits)
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
