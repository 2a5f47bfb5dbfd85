//! Rewrites and refusals, one after the other as the runtime does them, before and after fusion.

use super::super::graph::{Graph, Pair, passes_integers};
use crate::model::ir::{DType, Data, Node, Op, Tensor, Value, ValueId};
use crate::model::lower::LowerError;

impl Graph {
    /// Forms of QuantizeLinear and DequantizeLinear that keep the runtime's passes from applying, each in its own way.
    pub(super) fn refuse_odd_parameters(&self) -> Result<(), LowerError> {
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

    /// Rewrites of the runtime whose arithmetic is not known exactly.
    pub(super) fn refuse_what_is_not_exact(&self) -> Result<(), LowerError> {
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
            if self.merges_with_previous(index) {
                return refuse(
                    "ONNX Runtime merges two neighbouring Q/DQ pairs of different parameters into one",
                    "keep one pair, or use --profile float32",
                );
            }
        }
        Ok(())
    }

    /// Whether a constant row is added to a value and the sum quantized.
    pub(super) fn adds_row_then_quantizes(&self, value: ValueId) -> bool {
        let Some(add) = self.only_consumer(value).filter(|&a| self.node(a).op == Op::Add) else { return false };
        let constant = self.node(add).inputs.iter().flatten().any(|&v| self.constant(v).is_some());
        constant && self.ends_in_quantize(self.node(add).output)
    }

    /// Whether this QuantizeLinear reads a DequantizeLinear of other parameters directly.
    pub(super) fn merges_with_previous(&self, second: usize) -> bool {
        let Some(first) = self.input(second, 0).and_then(|v| self.dequantized(v)) else { return false };
        let Some(pair) = self.quantize_at(second) else { return false };
        self.constant(first.integer).is_none() && self.quantizer(&first) != self.quantizer(&pair)
    }

    /// Float biases of a Gemm or Conv between Q/DQ become int32: rne(R(b / R(sx sw))), even if the node is not fused later.
    pub(super) fn quantize_biases(&mut self) -> Result<(), LowerError> {
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

    pub(super) fn quantize_bias(&mut self, index: usize, bias: ValueId, scales: Vec<f32>) -> Result<(), LowerError> {
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
    pub(super) fn float_bias(&self, index: usize) -> Option<(ValueId, Vec<f32>)> {
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
    pub(super) fn signed_to_unsigned(&mut self) {
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
    pub(super) fn propagate_quantize(&mut self) {
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

    pub(super) fn move_quantize_before(&mut self, index: usize) -> Option<()> {
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
}
