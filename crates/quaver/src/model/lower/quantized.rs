//! Quantized operations: integer affine maps followed by step functions.

use std::sync::Arc;

use super::window::Plane;
use super::{IntegerLayer, Known, LowerError, Lowering, Standing};
use crate::model::ir::{DType, Node as ModelNode, Op};
use crate::model::profile::{Bias, Inexact, Kernel, Quantizer, Requantizer};
use crate::net::{Grid, LinearMap, NodeId, Quantization, Rounding, Spread, Weights};

/// Scales and zero points at two input positions, one of each or one for each channel.
pub(super) struct Parameters {
    pub scales: Vec<f32>,
    pub zero_points: Vec<i64>,
}

impl Parameters {
    /// Parameters of an activation, which has one of each.
    pub fn operand(&self, range: (i64, i64)) -> Quantizer {
        Quantizer { scale: self.scales[0], zero_point: self.zero_points[0], range }
    }

    /// Parameters of a result.
    pub fn of(q: &Quantizer) -> Self {
        Parameters { scales: vec![q.scale], zero_points: vec![q.zero_point] }
    }

    fn zero_point(&self, channel: usize) -> i64 {
        self.zero_points[if self.zero_points.len() == 1 { 0 } else { channel }]
    }
    fn scale(&self, channel: usize) -> f32 {
        self.scales[if self.scales.len() == 1 { 0 } else { channel }]
    }
}

/// An integer dot product before its requantization.
pub(super) struct Accumulator {
    node: NodeId,
    /// Output channels and the elements below each.
    channels: usize,
    inner: usize,
    kernel: Kernel,
    biases: Vec<Bias>,
    range: (i64, i64),
}

impl Lowering<'_> {
    pub(super) fn quantized(&mut self, node: &ModelNode) -> Result<Known, LowerError> {
        match &node.op {
            Op::QuantizeLinear { axis } => self.quantize(node, *axis),
            Op::DequantizeLinear { axis } => self.dequantize(node, *axis),
            Op::QLinearConv { window, group } => {
                let p = self.plane(node, window)?;
                let weights = self.parameters(node, 4, 5)?;
                let acc = self.conv_accumulator(node, &p, *group, (2, 3, 8), &weights)?;
                self.requantized(node, acc, 1.0, &weights, (1, 6, 7))
            }
            Op::QLinearMatMul => {
                let weights = self.parameters(node, 4, 5)?;
                let acc = self.dense_accumulator(node, false, false, (2, 8), &weights)?;
                self.requantized(node, acc, 1.0, &weights, (1, 6, 7))
            }
            Op::QGemm { alpha, trans_a, trans_b } => {
                let weights = self.parameters(node, 4, 5)?;
                let acc = self.dense_accumulator(node, *trans_a, *trans_b, (2, 6), &weights)?;
                if node.inputs.get(7).copied().flatten().is_some() {
                    self.requantized(node, acc, *alpha, &weights, (1, 7, 8))
                } else {
                    self.float_output(node, acc, *alpha, &weights)
                }
            }
            Op::QLinearAdd | Op::QLinearSub => self.quantized_add(node),
            Op::QLinearMul => self.quantized_mul(node),
            Op::QLinearMean { axes } => self.quantized_mean(node, axes),
            Op::QLinearRequantize => self.quantized_rescale(node),
            Op::QLinearClip { min, max } => self.quantized_clip(node, *min, *max),
            Op::QLinearAveragePool { window, count_include_pad, channels_last } => {
                self.quantized_average_pool(node, window, *count_include_pad, *channels_last)
            }
            Op::QLinearGlobalAveragePool { channels_last } => self.quantized_global_pool(node, *channels_last),
            Op::QLinearConcat { axis } => self.quantized_concat(node, *axis),
            Op::QLinearLeakyRelu { alpha } => self.quantized_leaky_relu(node, *alpha),
            Op::MatMulInteger => {
                let weights = Parameters { scales: vec![1.0], zero_points: self.zero_points(node, 3)? };
                let acc = self.dense_accumulator_at(node, [0, 1], (false, false), (2, usize::MAX), &weights)?;
                Ok(Known::Node(acc.node))
            }
            Op::ConvInteger { window, group } => {
                let p = self.plane(node, window)?;
                let weights = Parameters { scales: vec![1.0], zero_points: self.zero_points(node, 3)? };
                let acc = self.conv_accumulator(node, &p, *group, (2, 1, usize::MAX), &weights)?;
                Ok(Known::Node(acc.node))
            }
            _ => unreachable!("not a quantized operation"),
        }
    }

    fn zero_points(&self, node: &ModelNode, position: usize) -> Result<Vec<i64>, LowerError> {
        match self.input(node, position) {
            None => Ok(vec![0]),
            Some(Known::Constant(z)) => Ok(z.iter().map(|&z| z as i64).collect()),
            Some(Known::Node(_)) => Err(self.refuse(node, "a zero point is not constant", "use static quantization")),
        }
    }

    pub(super) fn parameters(
        &self,
        node: &ModelNode,
        scale: usize,
        zero_point: usize,
    ) -> Result<Parameters, LowerError> {
        let scales = self
            .constant(node, scale)
            .ok_or_else(|| self.refuse(node, "a scale is not constant", "use static quantization"))?;
        if let Some(bad) = scales.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            return Err(self.refuse(node, format!("a scale is {bad}"), "scales must be positive and finite"));
        }
        let scales: Vec<f32> = scales.iter().map(|&s| s as f32).collect();
        let zero_points = self.zero_points(node, zero_point)?;
        if zero_points.len() != 1 && scales.len() != 1 && zero_points.len() != scales.len() {
            return Err(self.refuse(node, "scales and zero points differ in number", "repair the model"));
        }
        Ok(Parameters { scales, zero_points })
    }

    pub(super) fn range_of(&self, value: crate::model::ir::ValueId) -> (i64, i64) {
        let value = self.value(value);
        value.range.or(value.dtype.integer_range()).unwrap_or((i64::from(i32::MIN), i64::from(i32::MAX)))
    }

    pub(super) fn output_quantizer(
        &self,
        node: &ModelNode,
        scale: usize,
        zero_point: usize,
    ) -> Result<Quantizer, LowerError> {
        let p = self.parameters(node, scale, zero_point)?;
        if p.scales.len() != 1 || p.zero_points.len() != 1 {
            return Err(self.refuse(node, "the result is quantized per channel", "quantize activations per tensor"));
        }
        let range = self.range_of(node.output);
        if range.1 - range.0 > 65_535 {
            return Err(self.refuse(node, "the result has more than 16 bits", "quantize to 8 or 16 bits"));
        }
        Ok(Quantizer { scale: p.scales[0], zero_point: p.zero_points[0], range })
    }

    fn quantize(&mut self, node: &ModelNode, axis: usize) -> Result<Known, LowerError> {
        let p = self.parameters(node, 1, 2)?;
        let shape = self.shape_out(node).to_vec();
        let range = self.range_of(node.output);
        if range.1 - range.0 > 65_535 {
            return Err(self.refuse(node, "quantization to more than 16 bits", "quantize to 8 or 16 bits"));
        }
        let channels = p.scales.len().max(p.zero_points.len());
        let quantizer = |c: usize| Quantizer { scale: p.scale(c), zero_point: p.zero_point(c), range };
        let inner = if channels == 1 { 1 } else { shape[axis + 1..].iter().product() };
        let functions = (0..channels).map(|c| self.profile.quantize(&quantizer(c))).collect();
        let functions = Spread::axis(functions, inner);
        if let Some(data) = self.constant(node, 0) {
            let of = |(i, x): (usize, &f64)| functions.at(i).value_down(*x);
            return Ok(Known::Constant(Arc::new(data.iter().enumerate().map(of).collect())));
        }
        let input = self.argument(node, 0)?;
        let quantization = self.meaning(&p, inner);
        let name = self.name_of(node);
        Ok(Known::Node(self.pointwise(&name, &shape, input, functions, Some(quantization))))
    }

    pub(super) fn meaning(&self, p: &Parameters, inner: usize) -> Quantization {
        let axis = |n: usize| if n == 1 { 1 } else { inner };
        Quantization {
            scale: Spread::axis(p.scales.iter().map(|&s| f64::from(s)).collect(), axis(p.scales.len())),
            zero_point: Spread::axis(p.zero_points.clone(), axis(p.zero_points.len())),
        }
    }

    /// Claim: scale (q - z) in the profile's arithmetic. For a net value: one exact affine map, then the profile's rounding of a
    /// product; q - z is below 2^24 and exact.
    fn dequantize(&mut self, node: &ModelNode, axis: usize) -> Result<Known, LowerError> {
        let p = self.parameters(node, 1, 2)?;
        let shape = self.shape_out(node).to_vec();
        let channels = p.scales.len().max(p.zero_points.len());
        let inner = if channels == 1 { 1 } else { shape[axis + 1..].iter().product::<usize>() };
        let unrepresentable = || self.refuse(node, "a dequantized constant is not exact", "use --profile float32");
        if let Some(data) = self.constant(node, 0) {
            let channel = |i: usize| (i / inner.max(1)) % channels;
            let of = |(i, q): (usize, &f64)| {
                let c = channel(i);
                self.profile.dequantize(*q as i64 - p.zero_point(c), p.scale(c)).ok_or_else(unrepresentable)
            };
            let data = data.iter().enumerate().map(of).collect::<Result<Vec<f64>, _>>()?;
            return Ok(Known::Constant(Arc::new(data)));
        }
        let id = self.argument(node, 0)?;
        let (lo, hi) = self.net.node(id).range;
        let small = lo > -8_388_608.0 && hi < 8_388_608.0;
        if !small {
            return Err(self.refuse(node, "a 32-bit value is dequantized", "dequantize 8- or 16-bit values"));
        }
        let scales = (0..channels).map(|c| f64::from(p.scale(c))).collect();
        // At most 24 + 17 bits: exact.
        let bias = (0..channels).map(|c| -f64::from(p.scale(c)) * p.zero_point(c) as f64).collect();
        let map = LinearMap::Diagonal { len: shape.iter().product(), scale: Spread::axis(scales, inner) };
        let name = self.name_of(node);
        let rounding = self.profile.single();
        Ok(Known::Node(self.affine(&name, &shape, vec![(id, map)], Spread::axis(bias, inner), rounding)))
    }

    /// Integer weights minus their zero points, [channels, rest] row-major as in the file.
    fn integer_weights(&self, node: &ModelNode, position: usize) -> Result<Arc<Vec<f64>>, LowerError> {
        self.constant(node, position)
            .ok_or_else(|| self.refuse(node, "the weights depend on the input", "only constant weights are supported"))
    }

    fn dense_accumulator(
        &mut self,
        node: &ModelNode,
        trans_a: bool,
        trans_b: bool,
        positions: (usize, usize),
        weights: &Parameters,
    ) -> Result<Accumulator, LowerError> {
        self.dense_accumulator_at(node, [0, 3], (trans_a, trans_b), positions, weights)
    }

    fn dense_accumulator_at(
        &mut self,
        node: &ModelNode,
        operands: [usize; 2],
        (trans_a, trans_b): (bool, bool),
        (zero_point, bias): (usize, usize),
        parameters: &Parameters,
    ) -> Result<Accumulator, LowerError> {
        let w = self.integer_weights(node, operands[1])?;
        let mut product = self.product(node, trans_a, trans_b)?;
        if product.argument != 0 || product.swap_out.is_some() {
            return Err(self.refuse(node, "the weights are the left operand", "make them the right operand"));
        }
        let raw = product.weights.clone();
        for (row, chunk) in product.weights.chunks_mut(product.n_in.max(1)).enumerate() {
            chunk.iter_mut().for_each(|w| *w -= parameters.zero_point(row) as f64);
        }
        let saturation = self.pair_saturation(node, operands[1], &raw, product.n_in);
        let x = self.argument(node, 0)?;
        let zx = self.single_zero_point(node, zero_point)?;
        let biases = self.biases(node, bias, product.n_out)?;
        let (x, map) = self.product_argument(&product, x);
        debug_assert_eq!(w.len(), product.n_in * product.n_out);
        self.accumulate(node, Kernel::Dense, (x, map), (zx, biases), (product.n_out, 1), saturation)
    }

    fn conv_accumulator(
        &mut self,
        node: &ModelNode,
        p: &Plane,
        groups: usize,
        (zero_point, weights, bias): (usize, usize, usize),
        parameters: &Parameters,
    ) -> Result<Accumulator, LowerError> {
        let raw = self.integer_weights(node, weights)?;
        let depth = raw.len() / p.out_channels.max(1);
        let saturation = self.pair_saturation(node, weights, &raw, depth);
        let shifted = raw.iter().enumerate().map(|(i, w)| w - parameters.zero_point(i / depth.max(1)) as f64).collect();
        let x = self.argument(node, 0)?;
        let zx = self.single_zero_point(node, zero_point)?;
        let biases = self.biases(node, bias, p.out_channels)?;
        // Padding stands for real zero, which is the zero point.
        let (x, size) = self.padded(x, p, zx as f64);
        let map = self.convolution(node, p, size, groups, Weights::new(shifted))?;
        let channels = (p.out_channels, p.out_size[0] * p.out_size[1]);
        self.accumulate(node, Kernel::Convolution, (x, map), (zx, biases), channels, saturation)
    }

    fn single_zero_point(&self, node: &ModelNode, position: usize) -> Result<i64, LowerError> {
        match &self.zero_points(node, position)?[..] {
            [z] => Ok(*z),
            _ => Err(self.refuse(node, "activations are quantized per channel", "quantize activations per tensor")),
        }
    }

    /// The bias of each channel: integers become part of the accumulator, floats are left to the profile.
    fn biases(&self, node: &ModelNode, position: usize, channels: usize) -> Result<Vec<Bias>, LowerError> {
        let Some(id) = node.inputs.get(position).copied().flatten() else {
            return Ok(vec![Bias::Integer(0); channels]);
        };
        let float = self.value(id).dtype == DType::F32;
        let one = |b: f64| if float { Bias::Float(b as f32) } else { Bias::Integer(b as i64) };
        match self.constant(node, position) {
            Some(b) if b.len() == channels => Ok(b.iter().map(|&b| one(b)).collect()),
            Some(b) if b.len() == 1 => Ok(vec![one(b[0]); channels]),
            _ => Err(self.refuse(node, "the bias is not one constant for each channel", "repair the model")),
        }
    }

    /// Whether u8 x s8 products can leave 16 bits when any two of one output are added: on CPUs without VNNI that saturates.
    fn pair_saturation(&self, node: &ModelNode, weights: usize, raw: &[f64], depth: usize) -> Standing {
        let dtype = |position: usize| node.inputs.get(position).copied().flatten().map(|id| self.value(id).dtype);
        if dtype(0) != Some(DType::U8) || dtype(weights) != Some(DType::I8) {
            return Standing::Proved;
        }
        let overflows = |row: &[f64]| {
            let two_largest = |sign: f64| {
                let mut top = [0.0f64; 2];
                for w in row.iter().map(|w| w * sign) {
                    if w > top[0] {
                        top = [w, top[0]];
                    } else if w > top[1] {
                        top[1] = w;
                    }
                }
                255.0 * (top[0] + top[1])
            };
            two_largest(1.0) > 32_767.0 || two_largest(-1.0) > 32_768.0
        };
        if raw.chunks(depth.max(1)).any(overflows) { Standing::Assumed } else { Standing::Proved }
    }

    /// acc = W (x - zx) + b = W x + (b - zx W 1), with its exact range per channel and the profile's side conditions.
    pub(super) fn accumulate(
        &mut self,
        node: &ModelNode,
        kernel: Kernel,
        (x, map): (NodeId, LinearMap),
        (zx, biases): (i64, Vec<Bias>),
        (channels, inner): (usize, usize),
        saturation: Standing,
    ) -> Result<Accumulator, LowerError> {
        let source = self.net.node(x);
        if source.grid != Grid::Integer {
            return Err(self.refuse(node, "its input is not an integer", "repair the model"));
        }
        let (lo, hi) = (source.range.0 - zx as f64, source.range.1 - zx as f64);
        let depth = map.weights().len() / channels.max(1);
        let (mut folded, mut range) = (vec![], (f64::INFINITY, f64::NEG_INFINITY));
        for (c, row) in map.weights().chunks(depth.max(1)).enumerate() {
            let low: f64 = row.iter().map(|w| (w * lo).min(w * hi)).sum();
            let high: f64 = row.iter().map(|w| (w * lo).max(w * hi)).sum();
            let bias = if let Bias::Integer(b) = biases[c] { b as f64 } else { 0.0 };
            range = (range.0.min(low + bias), range.1.max(high + bias));
            folded.push(bias - zx as f64 * row.iter().sum::<f64>());
        }
        let limit = self.profile.limits().accumulator.unwrap_or(1 << 52) as f64;
        let largest = range.0.abs().max(range.1.abs());
        if largest >= limit {
            let problem = format!("the accumulator may reach {largest:.0}, and the formula holds below {limit:.0}");
            return Err(self.refuse(node, problem, "use smaller weights or --profile real"));
        }
        if self.profile.limits().saturating_pairs && saturation == Standing::Assumed {
            let problem = "pairs of u8 x s8 products may leave 16 bits, which saturates on CPUs without VNNI";
            return Err(self.refuse(
                node,
                problem,
                "quantize weights to 7 bits (reduce_range), or use --profile ort-fused",
            ));
        }
        let bits = 64 - (largest as u64).leading_zeros() + 1;
        let name = node.name.clone();
        let accumulator = (range.0 as i64, range.1 as i64);
        self.integer_layers.push(IntegerLayer { name, accumulator, bits, no_pair_saturation: saturation });
        let (name, shape) = (format!("{}_accumulator", self.name_of(node)), self.shape_out(node).to_vec());
        let id = self.affine(&name, &shape, vec![(x, map)], Spread::axis(folded, inner), Rounding::Exact);
        Ok(Accumulator { node: id, channels, inner, kernel, biases, range: accumulator })
    }

    /// R(alpha sx): the scale that alpha leaves to the requantization.
    fn scaled_input(&self, node: &ModelNode, scale: f32, alpha: f32) -> Result<f32, LowerError> {
        let product = alpha * scale;
        if alpha != 1.0
            && self.profile.float_grid() == Grid::Real
            && f64::from(product) != f64::from(alpha) * f64::from(scale)
        {
            return Err(self.refuse(node, "alpha times the scale is not a float32", "use --profile ort-fused"));
        }
        Ok(product)
    }

    pub(super) fn requantized(
        &mut self,
        node: &ModelNode,
        acc: Accumulator,
        alpha: f32,
        weights: &Parameters,
        (x_scale, y_scale, y_zero_point): (usize, usize, usize),
    ) -> Result<Known, LowerError> {
        let output = self.output_quantizer(node, y_scale, y_zero_point)?;
        let x = self.constant(node, x_scale).map_or(1.0, |s| s[0] as f32);
        let input_scale = self.scaled_input(node, x, alpha)?;
        let input_zero_point = self.single_zero_point(node, x_scale + 1)?;
        let common = acc.biases.first().copied().unwrap_or(Bias::Integer(0));
        let alike = acc.biases.iter().all(|b| *b == common);
        let integers = acc.biases.iter().all(|b| matches!(b, Bias::Integer(_))) && !self.profile.reads_biases();
        let shared = weights.scales.len() == 1 && (alike || integers);
        let channels = if shared { 1 } else { acc.channels };
        let mut functions = vec![];
        for c in 0..channels {
            let r = Requantizer {
                kernel: acc.kernel,
                per_channel: weights.scales.len() > 1,
                input_scale,
                input_zero_point,
                weight_scale: weights.scale(c),
                bias: if shared { common } else { acc.biases[c] },
                accumulator: acc.range,
                output,
            };
            functions.push(self.exactly(node, self.profile.requantize(&r))?);
        }
        let inner = if shared { 1 } else { acc.inner };
        Ok(self.quantized_result(node, acc.node, Spread::axis(functions, inner), &output))
    }

    /// R(R(acc) R(R(alpha sx) sw)): both roundings are affine nodes; the first is none below 2^24.
    fn float_output(
        &mut self,
        node: &ModelNode,
        acc: Accumulator,
        alpha: f32,
        weights: &Parameters,
    ) -> Result<Known, LowerError> {
        let x = self.constant(node, 1).map_or(1.0, |s| s[0] as f32);
        let input_scale = self.scaled_input(node, x, alpha)?;
        let (name, shape) = (self.name_of(node), self.shape_out(node).to_vec());
        let len = shape.iter().product();
        let rounding = self.profile.single();
        let rounded = self.affine(
            &format!("{name}_float"),
            &shape,
            vec![(acc.node, LinearMap::identity(len))],
            Spread::all(0.0),
            rounding.clone(),
        );
        let exact = self.profile.float_grid() == Grid::Real;
        let factor =
            |&sw: &f32| if exact { f64::from(input_scale) * f64::from(sw) } else { f64::from(input_scale * sw) };
        let inner = if weights.scales.len() == 1 { 1 } else { acc.inner };
        let scale = Spread::axis(weights.scales.iter().map(factor).collect(), inner);
        let terms = vec![(rounded, LinearMap::Diagonal { len, scale })];
        Ok(Known::Node(self.affine(&name, &shape, terms, Spread::all(0.0), rounding)))
    }

    /// What a profile says, or its refusal with the node's name.
    pub(super) fn exactly<T>(&self, node: &ModelNode, found: Result<T, Inexact>) -> Result<T, LowerError> {
        found.map_err(|e| self.refuse(node, e.to_string(), "repair the model, or use another --profile"))
    }
}
