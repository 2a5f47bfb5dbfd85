//! Quantized networks as QuantizeLinear and DequantizeLinear of ONNX: weights as integers with their scales, and quantized activations.

use std::sync::Arc;

use super::QuantizeError;
use super::activations::{ActivationScheme, Ranges, before_moves, points};
use super::layers::{Kind, Layer};
use super::quantizer::{Quantized, QuantizedTensor, Quantizer, fresh_name};
use super::scheme::{BiasRule, Levels};
use crate::model::ir::{DType, Data, Model, Node, Op, Tensor, Value, ValueId};

/// The integers of a tensor with its scales: the inputs of a DequantizeLinear.
struct Stored {
    integers: Tensor,
    scale: Tensor,
    zero_point: Option<Tensor>,
    axis: usize,
}

/// A quantized network whose weights are integers behind DequantizeLinear, in a float network or between quantized activations.
///
/// Biases become int32 at the scale of the accumulator where the scheme says so and the layer's weights and activations have at most 8 bits;
/// else they are integers behind DequantizeLinear in a float network, and float32 constants (of their quantized values) between quantized
/// activations, because kernels add no other integers.
///
/// # Errors
/// If the format cannot say it (weights of more than 16 bits with a zero point) or ONNX Runtime does not load it (convolutions of 8-bit activations with
/// weights of more than 16 bits), and if a bias does not fit int32 at the scale of the accumulator.
pub fn to_qdq(
    quantizer: &Quantizer,
    quantized: &Quantized,
    activations: Option<(&ActivationScheme, &Ranges)>,
) -> Result<Model, QuantizeError> {
    let mut writer = Writer { model: quantized.model.clone(), activations: vec![] };
    if let Some((scheme, ranges)) = activations {
        scheme.check()?;
        for (&point, &ends) in ranges.points.iter().zip(&ranges.ends) {
            let (levels, signed) = scheme.levels(&quantized.model, point, ends);
            writer.activations.push((point, levels, signed, scheme.bits));
        }
    }
    let byte_activations = activations.is_some_and(|(scheme, _)| scheme.bits <= 8);
    for (layer, made) in quantizer.layers().iter().zip(&quantized.layers) {
        let stored = store(layer, &made.weights)?;
        if layer.kind == Kind::Convolution && byte_activations && made.weights.bits > 16 {
            let problem = "int32 filters between 8-bit activations, which ONNX Runtime does not load";
            return Err(QuantizeError::new(format!("layer `{}`", layer.name), problem, "use at most 16 bits"));
        }
        let narrow = made.weights.bits <= 8 && byte_activations;
        let input_scale = writer.scale_of(layer.input).filter(|_| narrow);
        let weight_scales: Vec<f32> = made.weights.levels.iter().map(|l| l.scale).collect();
        writer.weights(layer, stored, !byte_activations);
        match (&made.biases, input_scale, made.scheme.biases) {
            (None, Some(input), BiasRule::Accumulator) => writer.accumulator_biases(layer, input, &weight_scales)?,
            (Some(biases), ..) if activations.is_none() => {
                let stored = store(layer, biases)?;
                writer.biases(layer, stored);
            }
            _ => {}
        }
    }
    Ok(writer.finish())
}

/// A network with weights, biases and activations in float16, and float32 arithmetic between: constants are kept in float16, and what layers multiply goes
/// through float16 (a cast and a cast back), which is what every runtime then computes.
///
/// # Errors
/// As [`super::layers`].
pub fn to_float16(quantizer: &Quantizer) -> Result<Model, QuantizeError> {
    let mut writer = Writer { model: quantizer.model().clone(), activations: vec![] };
    for layer in quantizer.layers() {
        for place in [Some(layer.weights), layer.biases].into_iter().flatten() {
            let shape = writer.model.value(place.value).shape.clone();
            let output = writer.through_float16(place.value, shape);
            writer.model.nodes[place.node].inputs[place.position] = Some(output);
        }
    }
    for point in points(quantizer.model(), false)? {
        let shape = writer.model.value(point).shape.clone();
        let readers = writer.model.nodes.len();
        let output = writer.through_float16(point, shape);
        let renamed = |id: &mut Option<ValueId>| *id = id.map(|v| if v == point { output } else { v });
        writer.model.nodes[..readers].iter_mut().flat_map(|n| &mut n.inputs).for_each(renamed);
    }
    Ok(writer.finish())
}

/// Integers as the narrowest type of ONNX that holds their bits.
fn integers(bits: u8, shape: &[usize], data: impl Iterator<Item = i64>) -> Tensor {
    let data = match bits {
        0..=8 => Data::I8(data.map(|q| q as i8).collect()),
        9..=16 => Data::I16(data.map(|q| q as i16).collect()),
        _ => Data::I32(data.map(|q| q as i32).collect()),
    };
    Tensor { shape: shape.to_vec(), data }
}

fn store(layer: &Layer, tensor: &QuantizedTensor) -> Result<Stored, QuantizeError> {
    let shape: Vec<usize> = tensor.axis.map_or(vec![], |_| vec![tensor.levels.len()]);
    let scales = tensor.levels.iter().map(|l| l.scale).collect();
    let zero_points = tensor.levels.iter().map(|l| l.zero_point);
    let wide = tensor.bits > 16;
    if wide && zero_points.clone().any(|z| z != 0) {
        let place = format!("layer `{}`", layer.name);
        let problem = format!("{} bits with a zero point: DequantizeLinear of int32 has none", tensor.bits);
        return Err(QuantizeError::new(place, problem, "use at most 16 bits, a symmetric scheme, or the float format"));
    }
    Ok(Stored {
        integers: integers(tensor.bits, &tensor.values.shape, tensor.integers.iter().map(|&q| q.into())),
        scale: Tensor::f32(&shape, scales),
        zero_point: (!wide).then(|| integers(tensor.bits, &shape, zero_points)),
        axis: tensor.axis.unwrap_or(0),
    })
}

/// The transposed matrix.
fn transposed(tensor: &Tensor) -> Tensor {
    let (rows, columns) = (tensor.shape[0], tensor.shape[1]);
    fn turned<T: Copy>(data: &[T], rows: usize, columns: usize) -> Vec<T> {
        (0..data.len()).map(|i| data[(i % rows) * columns + i / rows]).collect()
    }
    let data = match &tensor.data {
        Data::I8(v) => Data::I8(turned(v, rows, columns)),
        Data::I16(v) => Data::I16(turned(v, rows, columns)),
        Data::I32(v) => Data::I32(turned(v, rows, columns)),
        other => unreachable!("weights are stored as signed integers, not {other:?}"),
    };
    Tensor { shape: vec![columns, rows], data }
}

struct Writer {
    model: Model,
    /// Values that are quantized: levels, whether signed, bits.
    activations: Vec<(ValueId, Levels, bool, u8)>,
}

impl Writer {
    fn constant(&mut self, base: &str, tensor: Tensor) -> ValueId {
        let (dtype, shape) = (tensor.dtype(), tensor.shape.clone());
        self.value(base, dtype, shape, Some(Arc::new(tensor)))
    }

    fn value(&mut self, base: &str, dtype: DType, shape: Vec<usize>, constant: Option<Arc<Tensor>>) -> ValueId {
        let taken = self.model.values.iter().any(|v| v.name == base);
        let name = if taken { fresh_name(&self.model, base) } else { base.to_string() };
        self.model.values.push(Value { name, dtype, shape, constant, range: None });
        ValueId(self.model.values.len() - 1)
    }

    /// A value through float16.
    fn through_float16(&mut self, x: ValueId, shape: Vec<usize>) -> ValueId {
        let name = format!("{}_rounded", self.model.value(x).name);
        let output = self.value(&name, DType::F32, shape, None);
        let name = format!("{name}_Cast");
        self.model.nodes.push(Node { name, op: Op::ThroughFloat16, inputs: vec![Some(x)], output });
        output
    }

    /// Puts a DequantizeLinear where a constant was; gives the new value.
    fn dequantize(&mut self, of: ValueId, stored: Stored) -> ValueId {
        let name = self.model.value(of).name.clone();
        let shape = stored.integers.shape.clone();
        let q = self.constant(&format!("{name}_quantized"), stored.integers);
        let scale = self.constant(&format!("{name}_scale"), stored.scale);
        let zero_point = stored.zero_point.map(|z| self.constant(&format!("{name}_zero_point"), z));
        let output = self.value(&format!("{name}_dequantized"), DType::F32, shape, None);
        let op = Op::DequantizeLinear { axis: stored.axis };
        let mut inputs = vec![Some(q), Some(scale)];
        inputs.extend(zero_point.map(Some));
        self.model.nodes.push(Node { name: format!("{name}_DequantizeLinear"), op, inputs, output });
        output
    }

    /// The weights of a layer. Where no integer kernel takes them, a matrix on the right is stored transposed: ONNX Runtime has a kernel of its
    /// own for 8-bit weights that are not, whose arithmetic is not that of the file.
    fn weights(&mut self, layer: &Layer, mut stored: Stored, float_kernel: bool) {
        let (node, position) = (layer.weights.node, layer.weights.position);
        let rank = |p: usize| self.model.nodes[node].inputs[p].map_or(0, |id| self.model.value(id).shape.len());
        let matrices = layer.kind == Kind::Dense && position == 1 && (rank(0), rank(1)) == (2, 2);
        let turned = match self.model.nodes[node].op {
            Op::Gemm { alpha, beta, trans_a, trans_b: false } => Some(Op::Gemm { alpha, beta, trans_a, trans_b: true }),
            Op::MatMul => Some(Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true }),
            _ => None,
        };
        if let Some(op) = turned.filter(|_| float_kernel && matrices) {
            stored.integers = transposed(&stored.integers);
            stored.axis = 0;
            self.model.nodes[node].op = op;
        }
        let output = self.dequantize(layer.weights.value, stored);
        self.model.nodes[node].inputs[position] = Some(output);
    }

    fn biases(&mut self, layer: &Layer, stored: Stored) {
        let Some(place) = layer.biases else { return };
        let output = self.dequantize(place.value, stored);
        self.model.nodes[place.node].inputs[place.position] = Some(output);
    }

    /// Biases as int32 at the scale R(sx sw) of the accumulator: rne(R(b / R(sx sw))), which is what ONNX Runtime makes of a float32 bias.
    fn accumulator_biases(&mut self, layer: &Layer, input: f32, weights: &[f32]) -> Result<(), QuantizeError> {
        // Only an input of the layer's own node is part of its accumulator.
        let Some(place) = layer.biases.filter(|b| b.node == layer.weights.node) else { return Ok(()) };
        let value = self.model.value(place.value);
        let Some(floats) = value.constant.as_ref().and_then(|t| t.as_f32()) else { return Ok(()) };
        if value.shape.len() != 1 || ![1, floats.len()].contains(&weights.len()) {
            return Ok(());
        }
        let scales: Vec<f32> = weights.iter().map(|w| input * w).collect();
        let quotients: Vec<f32> =
            floats.iter().enumerate().map(|(c, b)| (b / scales[c % scales.len()]).round_ties_even()).collect();
        if !quotients.iter().all(|q| q.abs() < 2_147_483_648.0) || !scales.iter().all(|s| s.is_normal()) {
            let problem = "a bias does not fit int32 at the scale of the accumulator";
            return Err(QuantizeError::new(format!("layer `{}`", layer.name), problem, "keep the biases float"));
        }
        let shape = if scales.len() == 1 { vec![] } else { vec![scales.len()] };
        let data = Data::I32(quotients.iter().map(|&q| q as i32).collect());
        let integers = Tensor { shape: vec![floats.len()], data };
        self.biases(layer, Stored { integers, scale: Tensor::f32(&shape, scales), zero_point: None, axis: 0 });
        Ok(())
    }

    /// The scale of the activations that a layer multiplies.
    fn scale_of(&self, value: ValueId) -> Option<f32> {
        let source = before_moves(&self.model, value);
        self.activations.iter().find(|a| a.0 == source).map(|a| a.1.scale)
    }

    /// Quantizes the activations and puts the nodes in order.
    fn finish(mut self) -> Model {
        for (point, levels, signed, bits) in std::mem::take(&mut self.activations) {
            self.activation(point, &levels, signed, bits);
        }
        if self.model.nodes.iter().any(|n| matches!(n.op, Op::QuantizeLinear { .. })) {
            // The same elements; runtimes do not fuse around Flatten.
            self.model.nodes.iter_mut().filter(|n| n.op == Op::Flatten).for_each(|n| n.op = Op::Reshape);
        }
        in_order(&mut self.model);
        without_unused(self.model)
    }

    /// Quantizes and dequantizes a value; a range narrower than its type is clipped before.
    fn activation(&mut self, point: ValueId, levels: &Levels, signed: bool, bits: u8) {
        let dtype = match (bits <= 8, signed) {
            (true, false) => DType::U8,
            (true, true) => DType::I8,
            (false, false) => DType::U16,
            (false, true) => DType::I16,
        };
        let Value { name, shape, .. } = self.model.value(point).clone();
        let is_output = self.model.outputs.contains(&point);
        let zero = match dtype {
            DType::U8 => Data::U8(vec![levels.zero_point as u8]),
            DType::I8 => Data::I8(vec![levels.zero_point as i8]),
            DType::U16 => Data::U16(vec![levels.zero_point as u16]),
            _ => Data::I16(vec![levels.zero_point as i16]),
        };
        let scale = self.constant(&format!("{name}_activation_scale"), Tensor::scalar(levels.scale));
        let zero_point = self.constant(&format!("{name}_activation_zero_point"), Tensor { shape: vec![], data: zero });
        if is_output {
            self.model.values[point.0].name = String::new();
            let inner = fresh_name(&self.model, &format!("{name}_unquantized"));
            self.model.values[point.0].name = inner;
        }
        let result = if is_output { name.clone() } else { format!("{name}_dequantized") };
        let output = self.value(&result, DType::F32, shape.clone(), None);
        let renamed = |id: &mut Option<ValueId>| *id = id.map(|v| if v == point { output } else { v });
        self.model.nodes.iter_mut().flat_map(|n| &mut n.inputs).for_each(renamed);
        self.model.outputs.iter_mut().filter(|id| **id == point).for_each(|id| *id = output);
        let mut source = point;
        if dtype.integer_range() != Some(levels.range) {
            let clipped = self.value(&format!("{name}_clipped"), DType::F32, shape.clone(), None);
            let op = clip(levels, dtype.integer_range().unwrap_or(levels.range));
            self.model.nodes.push(Node {
                name: format!("{name}_Clip"),
                op,
                inputs: vec![Some(source)],
                output: clipped,
            });
            source = clipped;
        }
        let integer = self.value(&format!("{name}_integer"), dtype, shape, None);
        let inputs = |x: ValueId| vec![Some(x), Some(scale), Some(zero_point)];
        for (what, op, from, to) in [
            ("QuantizeLinear", Op::QuantizeLinear { axis: 0 }, source, integer),
            ("DequantizeLinear", Op::DequantizeLinear { axis: 0 }, integer, output),
        ] {
            self.model.nodes.push(Node { name: format!("{name}_{what}"), op, inputs: inputs(from), output: to });
        }
    }
}

/// Clipping to the ends of the levels, where the type does not clip there itself.
fn clip(levels: &Levels, of_type: (i64, i64)) -> Op {
    let end = |q: i64, of_type: i64| (q != of_type).then(|| levels.value(q));
    Op::Clip { min: end(levels.range.0, of_type.0), max: end(levels.range.1, of_type.1) }
}

/// Puts each node behind those that make its inputs, else in the order they are in.
fn in_order(model: &mut Model) {
    let mut ready: Vec<bool> = vec![true; model.values.len()];
    model.nodes.iter().for_each(|n| ready[n.output.0] = false);
    let mut waiting = std::mem::take(&mut model.nodes);
    while !waiting.is_empty() {
        let can_run = |n: &Node| n.inputs.iter().flatten().all(|v| ready[v.0]);
        // Local invariant: the graph has no cycle.
        let Some(next) = waiting.iter().position(can_run) else { break };
        let node = waiting.remove(next);
        ready[node.output.0] = true;
        model.nodes.push(node);
    }
}

/// The model without values that nothing reads.
fn without_unused(mut model: Model) -> Model {
    let mut used = vec![false; model.values.len()];
    let nodes = model.nodes.iter().flat_map(|n| n.inputs.iter().flatten().chain([&n.output]));
    nodes.chain(&model.inputs).chain(&model.outputs).for_each(|id| used[id.0] = true);
    let mut count = 0;
    let new: Vec<ValueId> = used.iter().map(|&u| (ValueId(count), count += usize::from(u)).0).collect();
    let mut keep = used.iter();
    model.values.retain(|_| keep.next().copied().unwrap_or(false));
    let renumber = |id: &mut ValueId| *id = new[id.0];
    for node in &mut model.nodes {
        node.inputs.iter_mut().flatten().for_each(renumber);
        renumber(&mut node.output);
    }
    model.inputs.iter_mut().chain(&mut model.outputs).for_each(renumber);
    model
}
