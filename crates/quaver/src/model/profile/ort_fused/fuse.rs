//! Groups of DequantizeLinear, an operation and (sometimes) QuantizeLinear become integer kernels.

use super::super::graph::{Graph, Pair, inputs_of, parameters_of};
use crate::model::ir::{DType, Op, ValueId};
use crate::model::lower::LowerError;

impl Graph {
    /// Groups of DequantizeLinear, an operation and (sometimes) QuantizeLinear become integer kernels.
    pub(super) fn fuse(&mut self) {
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
                    self.replace(y.node, op, inputs);
                }
                Op::Add => self.fuse_simple(index, Op::QLinearAdd),
                Op::AveragePool { window, count_include_pad } => {
                    let channels_last = false;
                    self.fuse_simple(index, Op::QLinearAveragePool { window, count_include_pad, channels_last });
                }
                Op::GlobalAveragePool => {
                    self.fuse_simple(index, Op::QLinearGlobalAveragePool { channels_last: false });
                }
                Op::LeakyRelu { alpha } => self.fuse_simple(index, Op::QLinearLeakyRelu { alpha }),
                Op::Concat { axis } => self.fuse_simple(index, Op::QLinearConcat { axis }),
                _ => {}
            }
        }
    }

    /// The dequantized operands of a product and its quantizer, when their types have an integer kernel.
    pub(super) fn product_group(&self, index: usize) -> Option<(Pair, Pair, Option<Pair>)> {
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
    pub(super) fn has_float_result(&self, index: usize) -> bool {
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
    pub(super) fn integer_bias(&self, index: usize, x: &Pair, w: &Pair) -> Option<Option<ValueId>> {
        let Some(bias) = self.input(index, 2) else { return Some(None) };
        let pair = self.dequantized(bias)?;
        let is_int32 = self.dtype(pair.integer) == DType::I32 && self.constant(pair.integer).is_some();
        (is_int32 && self.has_accumulator_scale(&pair, x, w)).then_some(Some(pair.integer))
    }

    /// What the integer kernels ignore must hold wherever they may run: the bias has the scale of the accumulator, and a
    /// per-channel weight scale lies on the output channels.
    pub(super) fn refuse_misread_products(&self) -> Result<(), LowerError> {
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

    pub(super) fn fuse_gemm(&mut self, index: usize, (alpha, beta, trans_a, trans_b): (f32, f32, bool, bool)) {
        let Some((x, w, y)) = self.product_group(index) else { return };
        let Some(bias) = self.integer_bias(index, &x, &w) else { return };
        if bias.is_some() && (beta != 1.0 || alpha != 1.0) {
            return;
        }
        let op = Op::QGemm { alpha, trans_a, trans_b };
        self.replace_product(index, op, (&x, &w, y), &[bias]);
    }

    pub(super) fn fuse_matmul(&mut self, index: usize) {
        let Some((x, w, y)) = self.product_group(index) else { return };
        match y {
            Some(_) => self.replace_product(index, Op::QLinearMatMul, (&x, &w, y), &[]),
            None => {
                let op = Op::QGemm { alpha: 1.0, trans_a: false, trans_b: false };
                self.replace_product(index, op, (&x, &w, y), &[None]);
            }
        }
    }

    /// Puts an integer product where its QuantizeLinear was, or where the product was when its result is float.
    fn replace_product(
        &mut self,
        index: usize,
        op: Op,
        (x, w, y): (&Pair, &Pair, Option<Pair>),
        bias: &[Option<ValueId>],
    ) {
        let parameters = y.map(|y| parameters_of(&y));
        let inputs = [&inputs_of(x)[..], &inputs_of(w), bias, parameters.as_slice().as_flattened()].concat();
        self.replace(y.map_or(index, |y| y.node), op, inputs);
    }

    /// Fuses an operation whose operands and result are uint8 (int8 that was not moved to uint8 stays in float).
    pub(super) fn fuse_simple(&mut self, index: usize, op: Op) {
        let Some(y) = self.quantized_after(self.node(index).output) else { return };
        let operands = 0..self.node(index).inputs.len();
        let pairs: Option<Vec<Pair>> =
            operands.map(|p| self.input(index, p).and_then(|v| self.activation(v))).collect();
        let Some(pairs) = pairs else { return };
        let unsigned = |p: &Pair| self.dtype(p.integer) == DType::U8;
        if !unsigned(&y) || !pairs.iter().all(unsigned) {
            return;
        }
        let sources = pairs.iter().map(inputs_of).collect::<Vec<_>>().concat();
        // A concatenation has its own parameters first, all others last.
        let inputs = match op {
            Op::QLinearConcat { .. } => [&parameters_of(&y)[..], &sources].concat(),
            _ => [&sources[..], &parameters_of(&y)].concat(),
        };
        self.replace(y.node, op, inputs);
    }
}
