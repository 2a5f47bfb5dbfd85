//! `ort-fused`: what ONNX Runtime's CPU provider executes at its default optimization level.
//!
//! The runtime turns groups of DequantizeLinear, an operation and QuantizeLinear into integer kernels, quantizes some
//! float biases on the way, and leaves the rest in float32. The passes below do the same to the graph, in the same order; the
//! conditions were measured group by group (`docs/profiles.md`).

use super::{Limits, Profile, Quantizer, Requantizer, float32_profile::Float32, ort};
use crate::model::ir::{DType, Data, Model, Node, Op, Tensor, Value, ValueId};
use crate::model::lower::LowerError;
use crate::net::{Grid, Rounding, Step};

/// ONNX Runtime, default optimization level, on a CPU whose u8 x s8 products do not saturate (VNNI), or on any x86 CPU.
#[derive(Clone, Copy, Debug)]
pub struct OrtFused {
    /// Refuse models whose 8-bit products could saturate on CPUs without VNNI.
    pub any_x86: bool,
}

impl Profile for OrtFused {
    fn id(&self) -> String {
        if self.any_x86 { "ort-fused-any-x86".into() } else { "ort-fused".into() }
    }

    fn describe(&self) -> &'static str {
        "ONNX Runtime on a CPU at its default optimization level"
    }

    fn rewrite(&self, model: &Model) -> Result<Model, LowerError> {
        refuse_unused_nodes(model)?;
        let mut graph = Graph { model: model.clone() };
        graph.remove_identities();
        graph.refuse_odd_parameters()?;
        graph.matmul_add_to_gemm();
        graph.signed_to_unsigned();
        graph.propagate_quantize();
        graph.propagate_dequantize();
        graph.refuse_what_is_not_exact()?;
        graph.refuse_misread_products()?;
        graph.quantize_biases()?;
        graph.fuse();
        graph.cancel_pairs();
        graph.remove_dead();
        Ok(graph.model)
    }

    fn float_grid(&self) -> Grid {
        Float32.float_grid()
    }

    fn dot(&self, products: usize) -> Option<Rounding> {
        Float32.dot(products)
    }

    fn single(&self) -> Rounding {
        Float32.single()
    }

    fn dequantize(&self, difference: i64, scale: f32) -> Option<f64> {
        Float32.dequantize(difference, scale)
    }

    fn quantize(&self, q: &Quantizer) -> Step {
        ort::quantize(q)
    }

    fn requantize(&self, r: &Requantizer) -> Step {
        ort::requantize(r)
    }

    fn limits(&self) -> Limits {
        Limits { saturating_pairs: self.any_x86, ..ort::LIMITS }
    }

    fn assumptions(&self) -> Vec<String> {
        let mut all = vec!["ONNX Runtime 1.31 CPU kernels, graph optimization level ALL".to_string()];
        if !self.any_x86 {
            all.push(
                "u8 x s8 products do not saturate in 16 bits (a CPU with VNNI, or weights that cannot reach it)".into(),
            );
        }
        all
    }
}

/// A model being rewritten.
struct Graph {
    model: Model,
}

/// A DequantizeLinear or QuantizeLinear with one scale and a zero point.
#[derive(Clone, Copy)]
struct Pair {
    /// Its node.
    node: usize,
    /// The integer side.
    integer: ValueId,
    scale: ValueId,
    zero_point: Option<ValueId>,
}

impl Graph {
    fn producer(&self, value: ValueId) -> Option<usize> {
        self.model.nodes.iter().position(|n| n.output == value)
    }

    /// The nodes that read a value; a node that reads it twice stands twice.
    fn consumers(&self, value: ValueId) -> Vec<usize> {
        let reads = |i: usize| self.model.nodes[i].inputs.iter().filter(move |v| **v == Some(value)).map(move |_| i);
        (0..self.model.nodes.len()).flat_map(reads).collect()
    }

    fn is_output(&self, value: ValueId) -> bool {
        self.model.outputs.contains(&value)
    }

    /// The node that alone reads a value which is no output.
    fn only_consumer(&self, value: ValueId) -> Option<usize> {
        match self.consumers(value)[..] {
            [one] if !self.is_output(value) => Some(one),
            _ => None,
        }
    }

    fn node(&self, index: usize) -> &Node {
        &self.model.nodes[index]
    }

    fn input(&self, index: usize, position: usize) -> Option<ValueId> {
        self.node(index).inputs.get(position).copied().flatten()
    }

    fn constant(&self, value: ValueId) -> Option<&Tensor> {
        self.model.value(value).constant.as_deref()
    }

    fn dtype(&self, value: ValueId) -> DType {
        self.model.value(value).dtype
    }

    fn add_value(&mut self, value: Value) -> ValueId {
        self.model.values.push(value);
        ValueId(self.model.values.len() - 1)
    }

    fn add_constant(&mut self, name: String, tensor: Tensor) -> ValueId {
        let (dtype, shape) = (tensor.dtype(), tensor.shape.clone());
        self.add_value(Value { name, dtype, shape, constant: Some(tensor.into()), range: None })
    }

    /// The DequantizeLinear that makes a value, if one does.
    fn dequantized(&self, value: ValueId) -> Option<Pair> {
        let node = self.producer(value)?;
        matches!(self.node(node).op, Op::DequantizeLinear { .. }).then_some(())?;
        let (integer, scale) = (self.input(node, 0)?, self.input(node, 1)?);
        Some(Pair { node, integer, scale, zero_point: self.input(node, 2) })
    }

    /// A per-tensor dequantization with an explicit zero point, as activations need.
    fn activation(&self, value: ValueId) -> Option<Pair> {
        let pair = self.dequantized(value)?;
        (pair.zero_point.is_some() && self.is_single(pair.scale)).then_some(pair)
    }

    fn is_single(&self, value: ValueId) -> bool {
        self.constant(value).is_some_and(|t| t.len() == 1)
    }

    /// A dequantized constant with an explicit zero point, as weights need.
    fn weights(&self, value: ValueId) -> Option<Pair> {
        let pair = self.dequantized(value)?;
        (pair.zero_point.is_some() && self.constant(pair.integer).is_some()).then_some(pair)
    }

    /// The QuantizeLinear that alone reads a value, over a Relu or Clip that its own clipping makes redundant.
    fn quantized_after(&self, value: ValueId) -> Option<Pair> {
        let mut index = self.only_consumer(value)?;
        let mut between = None;
        if matches!(self.node(index).op, Op::Relu | Op::Clip { .. }) {
            between = Some(index);
            index = self.only_consumer(self.node(index).output)?;
        }
        matches!(self.node(index).op, Op::QuantizeLinear { .. }).then_some(())?;
        let (integer, scale) = (self.node(index).output, self.input(index, 1)?);
        let pair = Pair { node: index, integer, scale, zero_point: self.input(index, 2) };
        let redundant = between.is_none_or(|b| self.clips_nothing(&self.node(b).op, &pair));
        (pair.zero_point.is_some() && self.is_single(scale) && redundant).then_some(pair)
    }

    /// Whether quantization clips at least as much as a Relu or Clip before it.
    fn clips_nothing(&self, op: &Op, q: &Pair) -> bool {
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

    fn quantizer(&self, q: &Pair) -> Option<Quantizer> {
        let scale = self.constant(q.scale)?.as_f32()?.first().copied()?;
        let zero_point = match q.zero_point {
            Some(z) => self.constant(z)?.to_i64()?.first().copied()?,
            None => 0,
        };
        Some(Quantizer { scale, zero_point, range: self.dtype(q.integer).integer_range()? })
    }

    /// Identity nodes that make no output are no nodes of the runtime's graph.
    fn remove_identities(&mut self) {
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

    /// Forms of QuantizeLinear and DequantizeLinear that keep the runtime's passes from applying, each in its own way.
    fn refuse_odd_parameters(&self) -> Result<(), LowerError> {
        for (index, node) in self.model.nodes.iter().enumerate() {
            if !matches!(node.op, Op::QuantizeLinear { .. } | Op::DequantizeLinear { .. }) {
                continue;
            }
            let shape = |position: usize| self.input(index, position).map(|v| &self.model.value(v).shape);
            let refuse = |problem: &str, cure: &str| Err(LowerError::new(&self.model, node, problem, cure));
            let constant = self.input(index, 0).is_some_and(|v| self.constant(v).is_some());
            if shape(2).is_none() && !constant {
                return refuse(
                    "ONNX Runtime fuses operations around a quantizer without zero point only in part",
                    "store the zero point as an input (0 of type uint8 is the default), or use --profile float32",
                );
            }
            // The zero point of an int32 bias is 0 in any shape, and no kernel reads it.
            let bias = self.input(index, 0).is_some_and(|v| self.dtype(v) == DType::I32);
            if !bias && shape(2).is_some() && shape(1) != shape(2) {
                return refuse(
                    "scale and zero point differ in shape, which the format does not allow and ONNX Runtime does not fuse",
                    "store both as scalars, or both with one element for each channel",
                );
            }
        }
        Ok(())
    }

    /// MatMul of rank 2 and an Add of a constant row become a Gemm.
    fn matmul_add_to_gemm(&mut self) {
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

    /// Rewrites of the runtime whose arithmetic is not known exactly.
    fn refuse_what_is_not_exact(&self) -> Result<(), LowerError> {
        for (index, node) in self.model.nodes.iter().enumerate() {
            let refuse = |problem: &str, cure: &str| Err(LowerError::new(&self.model, node, problem, cure));
            let product = matches!(node.op, Op::MatMul | Op::Gemm { .. } | Op::Conv { .. });
            let quantized = self.ends_in_quantize(node.output);
            let from_dequantize = |p: usize| self.input(index, p).and_then(|v| self.dequantized(v));
            let is_constant = |p: usize| self.input(index, p).is_some_and(|v| self.constant(v).is_some());
            if product && !matches!(node.op, Op::MatMul) && quantized && from_dequantize(0).is_some() && is_constant(1)
            {
                return refuse(
                    "ONNX Runtime quantizes these float weights to int8 behind your back",
                    "quantize the weights too (a DequantizeLinear before them), or use --profile float32",
                );
            }
            let dense = matches!(node.op, Op::MatMul | Op::Gemm { trans_b: false, .. });
            let small =
                |p: Pair| matches!(self.dtype(p.integer), DType::I8 | DType::U8) && self.constant(p.integer).is_some();
            if dense && from_dequantize(0).is_none() && from_dequantize(1).is_some_and(small) {
                return refuse(
                    "ONNX Runtime runs weight-only quantization with a kernel whose arithmetic is not known exactly",
                    "quantize the activations too, or use --profile float32",
                );
            }
            if node.op == Op::Mul && quantized && (0..2).all(|p| from_dequantize(p).is_some()) {
                return refuse(
                    "a product between Q/DQ pairs (QLinearMul) is not supported",
                    "fold the factor into the neighbouring weights, or use --profile float32",
                );
            }
            if node.op == Op::MatMul
                && self.model.value(node.output).shape.len() > 2
                && self.adds_row_then_quantizes(node.output)
            {
                return refuse(
                    "ONNX Runtime fuses this MatMul of rank 3 with the Add only if every dimension is fixed, with another result",
                    "reshape to rank 2 before the MatMul, or use --profile float32",
                );
            }
            let all_signed = |p: usize| {
                from_dequantize(p)
                    .is_some_and(|x| self.dtype(x.integer) == DType::I8 && self.model.inputs.contains(&x.integer))
            };
            let simple = matches!(
                node.op,
                Op::Add | Op::AveragePool { .. } | Op::GlobalAveragePool | Op::LeakyRelu { .. } | Op::Concat { .. }
            );
            if simple && quantized && (0..node.inputs.len()).all(all_signed) {
                return refuse(
                    "int8 graph inputs that meet here were not measured",
                    "quantize activations to uint8, or use --profile float32",
                );
            }
            if matches!(node.op, Op::QuantizeLinear { .. }) && self.merges_with_previous(index) {
                return refuse(
                    "ONNX Runtime merges two neighbouring Q/DQ pairs of different parameters into one",
                    "keep one pair, or use --profile float32",
                );
            }
        }
        Ok(())
    }

    /// Whether a constant row is added to a value and the sum quantized.
    fn adds_row_then_quantizes(&self, value: ValueId) -> bool {
        let Some(add) = self.only_consumer(value).filter(|&a| self.node(a).op == Op::Add) else { return false };
        let constant = self.node(add).inputs.iter().flatten().any(|&v| self.constant(v).is_some());
        constant && self.ends_in_quantize(self.node(add).output)
    }

    /// Whether this QuantizeLinear reads a DequantizeLinear of other parameters directly.
    fn merges_with_previous(&self, second: usize) -> bool {
        let Some(first) = self.input(second, 0).and_then(|v| self.dequantized(v)) else { return false };
        let integer = self.node(second).output;
        let Some(scale) = self.input(second, 1) else { return false };
        let pair = Pair { node: second, integer, scale, zero_point: self.input(second, 2) };
        self.constant(first.integer).is_none() && self.quantizer(&first) != self.quantizer(&pair)
    }

    /// Whether a value's only reader is a QuantizeLinear, or a chain of Relu and Clip that ends in one.
    fn ends_in_quantize(&self, value: ValueId) -> bool {
        match self.consumers(value)[..] {
            [one] => match self.node(one).op {
                Op::QuantizeLinear { .. } => true,
                Op::Relu | Op::Clip { .. } => self.ends_in_quantize(self.node(one).output),
                _ => false,
            },
            _ => false,
        }
    }

    /// Float biases of a Gemm or Conv between Q/DQ become int32: rne(R(b / R(sx sw))), even if the node is not fused later.
    fn quantize_biases(&mut self) -> Result<(), LowerError> {
        let mut index = 0;
        while index < self.model.nodes.len() {
            let product = matches!(self.node(index).op, Op::Gemm { .. } | Op::Conv { .. });
            if let Some((bias, scales)) = product.then(|| self.float_bias(index)).flatten() {
                self.quantize_bias(index, bias, scales)?;
                // The new DequantizeLinear stands before the node.
                index += 1;
            }
            index += 1;
        }
        Ok(())
    }

    fn quantize_bias(&mut self, index: usize, bias: ValueId, scales: Vec<f32>) -> Result<(), LowerError> {
        let values = self.constant(bias).and_then(|t| t.as_f32()).unwrap_or(&[]);
        let at = |c: usize| scales[if scales.len() == 1 { 0 } else { c }];
        let quotients: Vec<f32> = values.iter().enumerate().map(|(c, b)| (b / at(c)).round_ties_even()).collect();
        if !quotients.iter().all(|q| q.abs() < 2_147_483_648.0) {
            return Err(LowerError::new(
                &self.model,
                self.node(index),
                "ONNX Runtime quantizes this float bias to int32, which cannot hold it",
                "use larger scales or a smaller bias, or --profile float32",
            ));
        }
        let quantized: Vec<i32> = quotients.iter().map(|&q| q as i32).collect();
        let (name, n) = (self.model.value(bias).name.clone(), quantized.len());
        let integer = Tensor { shape: vec![n], data: Data::I32(quantized) };
        let integer = self.add_constant(format!("{name}_quantized"), integer);
        let scale = self.add_constant(format!("{name}_scale"), Tensor::f32(&[scales.len()], scales));
        let output = self.add_value(Value { constant: None, ..self.model.value(bias).clone() });
        self.model.nodes[index].inputs[2] = Some(output);
        let name = format!("{name}_DequantizeLinear");
        let inputs = vec![Some(integer), Some(scale), None];
        self.model.nodes.insert(index, Node { name, op: Op::DequantizeLinear { axis: 0 }, inputs, output });
        Ok(())
    }

    /// The float bias of a node that the runtime quantizes, with the scale R(sx sw) of each channel.
    fn float_bias(&self, index: usize) -> Option<(ValueId, Vec<f32>)> {
        let bias = self.input(index, 2)?;
        let tensor = self.constant(bias)?;
        (tensor.shape.len() == 1 && tensor.as_f32().is_some() && self.ends_in_quantize(self.node(index).output))
            .then_some(())?;
        let x = self.dequantized(self.input(index, 0)?)?;
        self.is_single(x.scale).then_some(())?;
        let sx = self.constant(x.scale)?.as_f32()?[0];
        let w = self.dequantized(self.input(index, 1)?)?;
        let sw = self.constant(w.scale)?.as_f32()?;
        (sw.len() == 1 || sw.len() == tensor.len()).then(|| (bias, sw.iter().map(|s| sx * s).collect()))
    }

    /// Q and its only reader DQ of type int8 become uint8 with the zero point moved by 128.
    fn signed_to_unsigned(&mut self) {
        for index in 0..self.model.nodes.len() {
            let output = self.node(index).output;
            if !matches!(self.node(index).op, Op::QuantizeLinear { .. }) || self.dtype(output) != DType::I8 {
                continue;
            }
            let Some(reader) = self.only_consumer(output) else { continue };
            // A DequantizeLinear with several readers is duplicated first, so the integer has several too.
            let real = self.node(reader).output;
            let lone = self.consumers(real).len() + usize::from(self.is_output(real)) == 1;
            let dequantize = lone && matches!(self.node(reader).op, Op::DequantizeLinear { .. });
            let (Some(q), Some(dq)) = (self.input(index, 2), self.input(reader, 2)) else { continue };
            if !dequantize || self.constant(q).is_none() || self.constant(dq).is_none() {
                continue;
            }
            for (node, zero_point) in [(index, q), (reader, dq)] {
                let value = self.model.value(zero_point).clone();
                let old = value.constant.as_deref().and_then(Tensor::to_i64).unwrap_or_default();
                let data = Data::U8(old.iter().map(|z| (z + 128) as u8).collect());
                let moved = self.add_constant(format!("{}_u8", value.name), Tensor { shape: value.shape, data });
                self.model.nodes[node].inputs[2] = Some(moved);
            }
            self.model.values[output.0].dtype = DType::U8;
        }
    }

    /// QuantizeLinear moves from behind a Reshape (not Flatten), Transpose, Slice or MaxPool to before it: all are index maps or
    /// maxima, which a monotone function passes through.
    fn propagate_quantize(&mut self) {
        let mut index = 0;
        while index < self.model.nodes.len() {
            if self.move_quantize_before(index).is_some() {
                // The operation before it may be another one to pass.
                index = index.saturating_sub(2);
            } else {
                index += 1;
            }
        }
    }

    fn move_quantize_before(&mut self, index: usize) -> Option<()> {
        let q = self.node(index).clone();
        let scale = q.inputs.get(1).copied().flatten()?;
        let explicit = q.inputs.get(2).copied().flatten().is_some();
        let ready = explicit && self.is_single(scale) && matches!(q.op, Op::QuantizeLinear { .. });
        let source = q.inputs[0].filter(|&v| ready && self.only_consumer(v) == Some(index))?;
        let before = self.producer(source)?;
        let moved = self.node(before).clone();
        let passes = passes_integers(&moved.op);
        let input = moved.inputs[0].filter(|&v| passes && self.only_consumer(v) == Some(before))?;
        self.producer(input).filter(|&p| !matches!(self.node(p).op, Op::DequantizeLinear { .. }))?;
        let value = self.model.value(input).clone();
        let dtype = self.dtype(q.output);
        let integer = self.add_value(Value { name: format!("{}_integer", value.name), dtype, ..value });
        let mut q_inputs = q.inputs.clone();
        q_inputs[0] = Some(input);
        let mut moved_inputs = moved.inputs.clone();
        moved_inputs[0] = Some(integer);
        self.model.nodes[index] = Node { inputs: moved_inputs, output: q.output, ..moved };
        self.model.nodes[before] = Node { inputs: q_inputs, output: integer, ..q };
        Some(())
    }

    /// Reshape (not Flatten), Transpose, Slice and MaxPool move from behind a DequantizeLinear to before it.
    fn propagate_dequantize(&mut self) {
        let mut index = 0;
        while index < self.model.nodes.len() {
            let node = self.node(index).clone();
            let moves = passes_integers(&node.op);
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

    /// Groups of DequantizeLinear, an operation and (sometimes) QuantizeLinear become integer kernels.
    fn fuse(&mut self) {
        for index in 0..self.model.nodes.len() {
            match self.node(index).op.clone() {
                Op::Gemm { alpha, beta, trans_a, trans_b } => self.fuse_gemm(index, (alpha, beta, trans_a, trans_b)),
                Op::MatMul => self.fuse_matmul(index),
                Op::Conv { window, group } => {
                    let Some((x, w, y)) = self.product_group(index) else { continue };
                    let (Some(y), Some(bias)) = (y, self.integer_bias(index, &x, &w)) else { continue };
                    let op = Op::QLinearConv { window, group };
                    let [wi, ws, wz] = inputs_of(&w);
                    let inputs = [&inputs_of(&x)[..], &[wi, ws, wz], &parameters_of(&y), &[bias]].concat();
                    self.replace(y, op, inputs);
                }
                Op::Add => self.fuse_simple(index, 2, |x| Some(([x[0], x[1]].concat(), Op::QLinearAdd, false))),
                Op::AveragePool { window, count_include_pad } => self.fuse_simple(index, 1, move |x| {
                    let op = Op::QLinearAveragePool { window, count_include_pad, channels_last: false };
                    Some((x[0].to_vec(), op, false))
                }),
                Op::GlobalAveragePool => self.fuse_simple(index, 1, |x| {
                    Some((x[0].to_vec(), Op::QLinearGlobalAveragePool { channels_last: false }, false))
                }),
                Op::LeakyRelu { alpha } => {
                    self.fuse_simple(index, 1, move |x| Some((x[0].to_vec(), Op::QLinearLeakyRelu { alpha }, false)));
                }
                Op::Concat { axis } => {
                    let parts = self.node(index).inputs.len();
                    self.fuse_simple(index, parts, move |x| Some((x.concat(), Op::QLinearConcat { axis }, true)));
                }
                _ => {}
            }
        }
    }

    /// The dequantized operands of a product and its quantizer, when their types have an integer kernel.
    fn product_group(&self, index: usize) -> Option<(Pair, Pair, Option<Pair>)> {
        let (x, w) = (self.activation(self.input(index, 0)?)?, self.weights(self.input(index, 1)?)?);
        let output = self.node(index).output;
        let y = self.quantized_after(output);
        let (tx, tw) = (self.dtype(x.integer), self.dtype(w.integer));
        // int8 that was not moved to uint8 has kernels only between a graph input and a graph output.
        let ends = self.model.inputs.contains(&x.integer) && y.is_some_and(|y| self.is_output(y.integer));
        let kernel = match (tx, tw) {
            (DType::U8, DType::I8 | DType::U8) => true,
            (DType::I8, DType::I8) => ends,
            _ => false,
        };
        let fits = match y {
            Some(y) => self.dtype(y.integer) == tx,
            None => self.has_float_result(index),
        };
        (kernel && fits).then_some((x, w, y))
    }

    /// Whether the integer kernel with a float result is certain to run: no QuantizeLinear, Relu or Clip reads the result, and
    /// no Add behind a MatMul of rank 3.
    ///
    /// Where it is not certain the product stays a float sum, whose bound holds for the integer kernel too: the kernel's value
    /// is off by three roundings, and the dequantized operands by two.
    fn has_float_result(&self, index: usize) -> bool {
        let output = self.node(index).output;
        let high = self.node(index).op == Op::MatMul && self.model.value(output).shape.len() > 2;
        let joins = |op: &Op| match op {
            Op::QuantizeLinear { .. } | Op::Relu | Op::Clip { .. } => true,
            Op::Add => high,
            _ => false,
        };
        !self.consumers(output).into_iter().any(|i| joins(&self.node(i).op))
    }

    /// The int32 bias of a product: `Some(None)` without one, `None` when it is not int32.
    fn integer_bias(&self, index: usize, x: &Pair, w: &Pair) -> Option<Option<ValueId>> {
        let Some(bias) = self.input(index, 2) else { return Some(None) };
        let pair = self.dequantized(bias)?;
        let is_int32 = self.dtype(pair.integer) == DType::I32 && self.constant(pair.integer).is_some();
        (is_int32 && self.has_accumulator_scale(&pair, x, w)).then_some(Some(pair.integer))
    }

    /// Whether a bias is stored at the scale R(sx sw) of the accumulator.
    fn has_accumulator_scale(&self, bias: &Pair, x: &Pair, w: &Pair) -> bool {
        let values = |id: ValueId| self.constant(id).and_then(|t| t.as_f32()).unwrap_or(&[]).to_vec();
        let (sx, sw, sb) = (values(x.scale), values(w.scale), values(bias.scale));
        let fits = |(c, s): (usize, &f32)| {
            let expected = sx[0] * sw[if sw.len() == 1 { 0 } else { c.min(sw.len() - 1) }];
            (s - expected).abs() <= 4.0 * f32::EPSILON * expected
        };
        !sx.is_empty() && !sw.is_empty() && sb.iter().enumerate().all(fits)
    }

    /// What the integer kernels ignore must hold wherever they may run: the bias has the scale of the accumulator, and a
    /// per-channel weight scale lies on the output channels.
    fn refuse_misread_products(&self) -> Result<(), LowerError> {
        for (index, node) in self.model.nodes.iter().enumerate() {
            let rank = |w: &Pair| self.model.value(w.integer).shape.len();
            let operand = |p: usize| self.input(index, p).and_then(|v| self.dequantized(v));
            let (Some(x), Some(w)) = (operand(0), operand(1)) else { continue };
            let channels = match node.op {
                Op::Gemm { trans_b, .. } => usize::from(!trans_b),
                Op::MatMul => rank(&w).saturating_sub(1),
                Op::Conv { .. } => 0,
                _ => continue,
            };
            if !matches!(self.dtype(x.integer), DType::I8 | DType::U8) || !self.is_single(x.scale) {
                continue;
            }
            let refuse = |problem: &str, cure: &str| Err(LowerError::new(&self.model, node, problem, cure));
            let bias = operand(2).filter(|b| self.dtype(b.integer) == DType::I32);
            if bias.is_some_and(|b| !self.has_accumulator_scale(&b, &x, &w)) {
                return refuse(
                    "the scale of the int32 bias is not that of the accumulator; ONNX Runtime's kernel ignores it",
                    "store the bias at scale x_scale * w_scale, or use --profile float32",
                );
            }
            let Op::DequantizeLinear { axis } = self.node(w.node).op else { continue };
            if self.constant(w.scale).is_some_and(|s| s.len() > 1) && axis != channels {
                return refuse(
                    "the weights are not quantized along the output channels; ONNX Runtime's kernel would misread the scales",
                    "quantize weights along the output channels",
                );
            }
        }
        Ok(())
    }

    fn fuse_gemm(&mut self, index: usize, (alpha, beta, trans_a, trans_b): (f32, f32, bool, bool)) {
        let Some((x, w, y)) = self.product_group(index) else { return };
        let Some(bias) = self.integer_bias(index, &x, &w) else { return };
        if bias.is_some() && (beta != 1.0 || alpha != 1.0) {
            return;
        }
        let op = Op::QGemm { alpha, trans_a, trans_b };
        let [xi, wi] = [inputs_of(&x), inputs_of(&w)];
        match y {
            Some(y) => self.replace(y, op, [&xi[..], &wi, &[bias], &parameters_of(&y)].concat()),
            None => {
                let node = &mut self.model.nodes[index];
                (node.op, node.inputs) = (op, [&xi[..], &wi, &[bias]].concat());
            }
        }
    }

    fn fuse_matmul(&mut self, index: usize) {
        let Some((x, w, y)) = self.product_group(index) else { return };
        let [xi, wi] = [inputs_of(&x), inputs_of(&w)];
        match y {
            Some(y) => self.replace(y, Op::QLinearMatMul, [&xi[..], &wi, &parameters_of(&y)].concat()),
            None => {
                let node = &mut self.model.nodes[index];
                node.op = Op::QGemm { alpha: 1.0, trans_a: false, trans_b: false };
                node.inputs = [&xi[..], &wi, &[None]].concat();
            }
        }
    }

    /// Fuses an operation whose operands and result are uint8 (int8 that was not moved to uint8 stays in float).
    fn fuse_simple(
        &mut self,
        index: usize,
        operands: usize,
        build: impl FnOnce(&[[Option<ValueId>; 3]]) -> Option<(Vec<Option<ValueId>>, Op, bool)>,
    ) {
        let Some(y) = self.quantized_after(self.node(index).output) else { return };
        let dtype = self.dtype(y.integer);
        let pairs: Option<Vec<Pair>> =
            (0..operands).map(|p| self.input(index, p).and_then(|v| self.activation(v))).collect();
        let Some(pairs) = pairs else { return };
        if dtype != DType::U8 || pairs.iter().any(|p| self.dtype(p.integer) != dtype) {
            return;
        }
        let sources: Vec<[Option<ValueId>; 3]> = pairs.iter().map(inputs_of).collect();
        if let Some((inputs, op, parameters_first)) = build(&sources) {
            let parameters = parameters_of(&y);
            let inputs = if parameters_first {
                [&parameters[..], &inputs].concat()
            } else {
                [&inputs[..], &parameters].concat()
            };
            self.replace(y, op, inputs);
        }
    }

    /// Puts an operation where a QuantizeLinear was.
    fn replace(&mut self, y: Pair, op: Op, inputs: Vec<Option<ValueId>>) {
        let node = &mut self.model.nodes[y.node];
        (node.op, node.inputs) = (op, inputs);
    }

    /// QuantizeLinear of a DequantizeLinear with the same parameters gives the integer back.
    fn cancel_pairs(&mut self) {
        for index in 0..self.model.nodes.len() {
            if !matches!(self.node(index).op, Op::QuantizeLinear { .. }) {
                continue;
            }
            let (Some(dq), Some(scale)) = (self.input(index, 0).and_then(|v| self.activation(v)), self.input(index, 1))
            else {
                continue;
            };
            let q = Pair { node: index, integer: self.node(index).output, scale, zero_point: self.input(index, 2) };
            let same_type = self.dtype(q.integer) == self.dtype(dq.integer);
            if same_type && self.is_single(scale) && self.quantizer(&q) == self.quantizer(&dq) {
                let node = &mut self.model.nodes[index];
                (node.op, node.inputs) = (Op::Identity, vec![Some(dq.integer)]);
            }
        }
    }

    fn remove_dead(&mut self) {
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
}

/// The runtime rewrites around nodes that nothing needs, too: they can change what is fused.
fn refuse_unused_nodes(model: &Model) -> Result<(), LowerError> {
    match model.unused.first() {
        Some(name) if model.nodes.iter().any(|n| n.op.is_quantized()) => Err(LowerError::at(
            model,
            None,
            format!(
                "node `{name}` is not needed for any output, and ONNX Runtime lets such nodes change what it fuses"
            ),
            "remove unused nodes from the file, or use --profile float32",
        )),
        _ => Ok(()),
    }
}

/// Integer, scale and zero point, as the quantized operators take them.
fn inputs_of(p: &Pair) -> [Option<ValueId>; 3] {
    [Some(p.integer), Some(p.scale), p.zero_point]
}

/// Scale and zero point of a result.
fn parameters_of(p: &Pair) -> [Option<ValueId>; 2] {
    [Some(p.scale), p.zero_point]
}

/// Whether an operation is an index map or a maximum, which a quantizer passes through.
fn passes_integers(op: &Op) -> bool {
    matches!(op, Op::Reshape | Op::Transpose { .. } | Op::Slice { .. } | Op::MaxPool { .. })
}
