//! `fixed-point(Q,F)`: a float network as fixed-point hardware runs it: power-of-two scales, integer accumulators, a
//! rounding shift after every layer.

use std::str::FromStr;

use super::{Inexact, Limits, Profile, Quantizer, Requantizer, real};
use crate::model::ir::{Data, Model, Node, Op, Tensor, Value, ValueId};
use crate::model::lower::LowerError;
use crate::net::{Grid, Rounding, ScalarFn};

/// Number formats of a fixed-point network, after Henzinger, Lechner and Zikelic (AAAI 2021).
///
/// * input: unsigned 8 bits, all fractional (`input=8`), round half away, clipped;
/// * weights: signed Q bits, `weights` of them fractional (default F), round half away, clipped;
/// * biases: signed Q bits, F fractional;
/// * after a layer with Relu: clip((acc + 2^(k-1)) >> k) to unsigned Q bits with F fractional; without: to signed Q bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedPoint {
    /// Bits of a word.
    pub bits: u32,
    /// Fractional bits of activations and biases.
    pub fraction: i32,
    /// Fractional bits of weights.
    pub weights: i32,
    /// Fractional bits of the input, which has 8 bits.
    pub input: i32,
}

impl FromStr for FixedPoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let usage = "write fixed-point(Q,F) or fixed-point(Q,F,weights=N,input=N), for example fixed-point(6,4,weights=5,input=8)";
        let inner = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')).ok_or(usage)?;
        let mut parts = inner.split(',').map(str::trim);
        let number = |t: Option<&str>| t.and_then(|t| t.parse::<i32>().ok()).ok_or(usage.to_string());
        let (bits, fraction) = (number(parts.next())?, number(parts.next())?);
        let mut format = FixedPoint { bits: bits.max(0) as u32, fraction, weights: fraction, input: 8 };
        for part in parts {
            match part.split_once('=') {
                Some(("weights", n)) => format.weights = number(Some(n))?,
                Some(("input", n)) => format.input = number(Some(n))?,
                _ => return Err(usage.into()),
            }
        }
        let fits = |f: i32| (-8..=24).contains(&f);
        if !(2..=16).contains(&bits) || !fits(fraction) || !fits(format.weights) || !fits(format.input) {
            return Err("Q is 2 to 16 bits and fractions are -8 to 24".into());
        }
        Ok(format)
    }
}

impl Profile for FixedPoint {
    fn id(&self) -> String {
        let mut id = format!("fixed-point({},{}", self.bits, self.fraction);
        if self.weights != self.fraction {
            id += &format!(",weights={}", self.weights);
        }
        if self.input != 8 {
            id += &format!(",input={}", self.input);
        }
        id + ")"
    }

    fn describe(&self) -> &'static str {
        "a float network on fixed-point words: power-of-two scales, half-up rounding shift after every layer"
    }

    fn rewrite(&self, model: &Model) -> Result<Model, LowerError> {
        Rewriter { format: *self, source: model, out: empty_like(model), map: vec![None; model.values.len()] }.run()
    }

    fn float_grid(&self) -> Grid {
        Grid::Float32
    }

    fn dot(&self, _products: usize) -> Option<Rounding> {
        Some(Rounding::Exact)
    }

    fn single(&self) -> Rounding {
        Rounding::Exact
    }

    fn dequantize(&self, difference: i64, scale: f32) -> Option<f64> {
        Some(difference as f64 * f64::from(scale))
    }

    /// Half away from zero: the tie at j - 1/2 goes up where it is positive.
    fn quantize(&self, q: &Quantizer) -> ScalarFn {
        ScalarFn::Step(real::half_integer_step(q, |_, tie| tie < 0.0))
    }

    /// (acc + 2^(k-1)) >> k: ties go up. Scales are powers of two, so the exact rational rule is the shift.
    fn requantize(&self, r: &Requantizer) -> Result<ScalarFn, Inexact> {
        Ok(ScalarFn::Step(real::nearest_requantize(r, |_| true)?))
    }

    fn limits(&self) -> Limits {
        Limits { accumulator: Some(1 << 31), saturating_pairs: false }
    }
}

fn empty_like(model: &Model) -> Model {
    Model { values: vec![], nodes: vec![], inputs: vec![], outputs: vec![], ..model.clone() }
}

/// Turns a float model into an integer one with power-of-two scales, layer by layer.
struct Rewriter<'a> {
    format: FixedPoint,
    source: &'a Model,
    out: Model,
    /// For each value of the source: its quantized counterpart and that one's fractional bits.
    map: Vec<Option<(ValueId, i32)>>,
}

impl<'a> Rewriter<'a> {
    fn run(mut self) -> Result<Model, LowerError> {
        for &input in &self.source.inputs {
            let value = self.source.value(input).clone();
            let id = self.add(value.clone());
            self.out.inputs.push(id);
            let q = self.quantized_value(&format!("{}_fixed", value.name), &value.shape, (0, 255));
            let scale = self.scale_of(self.format.input);
            self.push("QuantizeInput", Op::QuantizeLinear { axis: 1 }, vec![Some(id), scale, None], q);
            self.map[input.0] = Some((q, self.format.input));
        }
        let mut index = 0;
        while index < self.source.nodes.len() {
            index += self.node(index)?;
        }
        for &output in &self.source.outputs {
            let (q, fraction) = self.mapped(output, None)?;
            let value = self.source.value(output).clone();
            let out = self.add(value);
            let scale = self.scale_of(fraction);
            self.push("DequantizeOutput", Op::DequantizeLinear { axis: 1 }, vec![Some(q), scale, None], out);
            self.out.outputs.push(out);
        }
        Ok(self.out)
    }

    /// Rewrites the node at this index, with the Add and the Relu that follow it; returns how many nodes that was.
    fn node(&mut self, index: usize) -> Result<usize, LowerError> {
        let source: &'a Model = self.source;
        let node = &source.nodes[index];
        match &node.op {
            Op::Gemm { alpha, beta, trans_a: false, trans_b } if *alpha == 1.0 && *beta == 1.0 => {
                let (x, fraction) = self.argument(node)?;
                let w = self.matrix(node, *trans_b)?;
                self.layer(index, 0, Op::QLinearMatMul, (x, fraction), w, node.inputs.get(2).copied().flatten())
            }
            Op::MatMul => {
                let (x, fraction) = self.argument(node)?;
                let w = self.matrix(node, false)?;
                let bias = self.added_constant(index);
                self.layer(index, usize::from(bias.is_some()), Op::QLinearMatMul, (x, fraction), w, bias)
            }
            Op::Conv { window, group } => {
                let (x, fraction) = self.argument(node)?;
                let w = self.weights(node)?;
                let op = Op::QLinearConv { window: window.clone(), group: *group };
                self.layer(index, 0, op, (x, fraction), w, node.inputs.get(2).copied().flatten())
            }
            Op::Reshape
            | Op::Flatten
            | Op::Identity
            | Op::Transpose { .. }
            | Op::MaxPool { .. }
            | Op::GlobalMaxPool
            | Op::Slice { .. } => {
                let (x, fraction) = self.argument(node)?;
                let range = self.out.value(x).range;
                let shape = self.source.value(node.output).shape.clone();
                let out = self.add(Value { range, ..self.integer_value(&self.source.value(node.output).name, &shape) });
                self.push(&node.name, node.op.clone(), vec![Some(x)], out);
                self.map[node.output.0] = Some((out, fraction));
                Ok(1)
            }
            op => Err(LowerError::new(
                self.source,
                node,
                format!("{} has no fixed-point meaning", op.name()),
                "use a network of Gemm, MatMul, Conv, Relu, MaxPool and reshapes, or another --profile",
            )),
        }
    }

    /// One integer layer: dot product, bias, shift, clip; a following Relu makes the result unsigned.
    fn layer(
        &mut self,
        index: usize,
        extra: usize,
        op: Op,
        (x, fraction): (ValueId, i32),
        weights: Tensor,
        bias: Option<ValueId>,
    ) -> Result<usize, LowerError> {
        let source: &'a Model = self.source;
        let (node, last) = (&source.nodes[index], &source.nodes[index + extra]);
        let relu = self.only_user(last.output).filter(|n| n.op == Op::Relu);
        let end = relu.map_or(last.output, |n| n.output);
        let q = self.format.bits;
        let signed = (-(1i64 << (q - 1)), (1i64 << (q - 1)) - 1);
        let range = if relu.is_some() { (0, (1 << q) - 1) } else { signed };
        let accumulator = fraction + self.format.weights;
        let w = self.constant(&format!("{}_weights", node.name), integers(&weights, self.format.weights, signed, 0));
        let bias = match bias.map(|b| source.value(b).constant.as_deref()) {
            None => None,
            Some(Some(b)) if accumulator >= self.format.fraction => {
                let shift = (accumulator - self.format.fraction) as u32;
                let flat = Tensor { shape: vec![b.len()], data: b.data.clone() };
                Some(
                    self.constant(&format!("{}_bias", node.name), integers(&flat, self.format.fraction, signed, shift)),
                )
            }
            Some(_) => {
                let cure = "give the bias as a constant, and weights at least as many fractional bits as the result";
                return Err(LowerError::new(
                    self.source,
                    node,
                    "the bias cannot be aligned with the accumulator",
                    cure,
                ));
            }
        };
        let value = source.value(end);
        let out = self.quantized_value(&value.name, &value.shape.clone(), range);
        let scales = (self.scale_of(fraction), self.scale_of(self.format.weights), self.scale_of(self.format.fraction));
        let inputs = vec![Some(x), scales.0, None, Some(w), scales.1, None, scales.2, None, bias];
        self.push(&node.name, op, inputs, out);
        self.map[end.0] = Some((out, self.format.fraction));
        Ok(1 + extra + usize::from(relu.is_some()))
    }

    fn only_user(&self, value: ValueId) -> Option<&'a Node> {
        let mut users = self.source.nodes.iter().filter(|n| n.inputs.contains(&Some(value)));
        let first = users.next()?;
        (users.next().is_none() && !self.source.outputs.contains(&value)).then_some(first)
    }

    /// The constant that the next node adds to a MatMul, if it does just that.
    fn added_constant(&self, index: usize) -> Option<ValueId> {
        let output = self.source.nodes[index].output;
        let next = self.only_user(output).filter(|n| n.op == Op::Add)?;
        (self.source.nodes.get(index + 1)?.output == next.output).then_some(())?;
        let other = next.inputs.iter().flatten().find(|&&i| i != output)?;
        self.source.value(*other).constant.is_some().then_some(*other)
    }

    fn argument(&self, node: &Node) -> Result<(ValueId, i32), LowerError> {
        // Local invariant: the reader checks that required inputs are present.
        self.mapped(node.inputs[0].unwrap_or(node.output), Some(node))
    }

    fn mapped(&self, value: ValueId, node: Option<&Node>) -> Result<(ValueId, i32), LowerError> {
        let node = node.or(self.source.nodes.first());
        self.map[value.0].ok_or_else(|| {
            let name = &self.source.value(value).name;
            LowerError::at(self.source, node, format!("`{name}` has no fixed-point form"), "use another --profile")
        })
    }

    fn weights(&self, node: &Node) -> Result<Tensor, LowerError> {
        self.source.constant(node, 1).map(|t| (**t).clone()).ok_or_else(|| {
            LowerError::new(self.source, node, "the weights are not a constant", "use another --profile")
        })
    }

    /// The weights of a dense layer as [in, out].
    fn matrix(&self, node: &Node, transposed: bool) -> Result<Tensor, LowerError> {
        let w = self.weights(node)?;
        let (Data::F32(data), [rows, columns]) = (&w.data, &w.shape[..]) else {
            return Err(LowerError::new(
                self.source,
                node,
                "the weights are not a float32 matrix",
                "use another --profile",
            ));
        };
        if !transposed {
            return Ok(w);
        }
        let flipped = (0..data.len()).map(|i| data[(i % rows) * columns + i / rows]).collect();
        Ok(Tensor::f32(&[*columns, *rows], flipped))
    }

    fn integer_value(&self, name: &str, shape: &[usize]) -> Value {
        Value {
            name: name.into(),
            dtype: crate::model::ir::DType::I32,
            shape: shape.to_vec(),
            constant: None,
            range: None,
        }
    }

    fn quantized_value(&mut self, name: &str, shape: &[usize], range: (i64, i64)) -> ValueId {
        let value = Value { range: Some(range), ..self.integer_value(name, shape) };
        self.add(value)
    }

    fn add(&mut self, value: Value) -> ValueId {
        self.out.values.push(value);
        ValueId(self.out.values.len() - 1)
    }

    fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let (dtype, shape) = (tensor.dtype(), tensor.shape.clone());
        self.add(Value { name: name.into(), dtype, shape, constant: Some(tensor.into()), range: None })
    }

    fn scale_of(&mut self, fraction: i32) -> Option<ValueId> {
        Some(self.constant(
            &format!("scale_{fraction}_{}", self.out.values.len()),
            Tensor::scalar((-fraction as f32).exp2()),
        ))
    }

    fn push(&mut self, name: &str, op: Op, inputs: Vec<Option<ValueId>>, output: ValueId) {
        self.out.nodes.push(Node { name: name.into(), op, inputs, output });
    }
}

/// round-half-away(clip(u) 2^fraction) << shift: float constants as integers of a fixed-point format.
fn integers(tensor: &Tensor, fraction: i32, (lo, hi): (i64, i64), shift: u32) -> Tensor {
    let unit = f64::from(fraction).exp2();
    // Scaling by a power of two is exact in f64, and f64::round is half away from zero.
    let of = |&u: &f32| (((f64::from(u) * unit).round() as i64).clamp(lo, hi) << shift) as i32;
    Tensor { shape: tensor.shape.clone(), data: Data::I32(tensor.as_f32().unwrap_or(&[]).iter().map(of).collect()) }
}
