//! The profile `ort-fused`: what ONNX Runtime's integer kernels compute for a quantized model.
//!
//! Integers of activations are held as unsigned: of an int8 tensor 128 more than is stored, zero point and all. A
//! dequantized tensor is held as its integers, with a table of the float32 number for each.

use std::collections::HashMap;
use std::rc::Rc;

use super::call::{Call, Known, Stored};
use super::lower::{self, Lowering, Operator, Rule};
use super::steps::{FLOATS, INTEGERS, composed, float, steps};
use crate::net::{Function, Op, Shape};

/// What is taken for granted about the machine.
pub(super) const ASSUMED: [&str; 2] = [
    "ONNX Runtime 1.31 CPU kernels at graph optimization level ALL",
    "products of u8 and s8 do not saturate in 16 bits (a CPU with VNNI, or small weights)",
];
const U8: i64 = 2;
const S8: i64 = 3;
const S32: i64 = 6;

/// What a tensor stands for.
#[derive(Clone)]
pub(super) enum Meaning {
    /// Constant integers with their scales.
    Constant(Scaled),
    /// An activation's integers, from a QuantizeLinear (`quantized`) or an integer kernel of the file.
    Integers { signed: bool, quantized: bool },
    /// A float32 number for each integer.
    Floats(Table),
    /// Sums of products of integers.
    Sum(Sum),
    /// A value of fixed-point arithmetic.
    Fixed(super::fixed::Word),
}

/// (stored - zero) scale, one or one for each place along an axis.
#[derive(Clone)]
pub(super) struct Scaled {
    kind: i64,
    /// None where it must be that of the output channels.
    axis: Option<i64>,
    scales: Vec<f32>,
    zeros: Vec<i64>,
}

/// Scale and zero point of an activation.
#[derive(Clone, Copy, PartialEq)]
struct Activation {
    scale: f32,
    /// Of the unsigned integers.
    zero: i64,
    signed: bool,
}

#[derive(Clone)]
pub(super) struct Table {
    of: Activation,
    /// For 0 to 255.
    numbers: Rc<Vec<f32>>,
    /// Whether they are simply dequantized.
    plain: bool,
    /// Whether a kernel that reads them gets the integers.
    operand: bool,
}

#[derive(Clone)]
pub(super) struct Sum {
    /// One, or one for each channel.
    scales: Vec<f32>,
    /// Elements of a channel that are next to each other.
    run: usize,
    relu: bool,
}

/// The operators of the profile.
pub(super) fn operator(domain: &str, name: &str) -> Result<Operator, String> {
    let (fewest, most, rule): (usize, usize, Rule) = match (domain, name) {
        ("com.microsoft", "QGemm") => return Ok((9, 9, "alpha transA transB", Lowering::stored_product)),
        ("" | "ai.onnx", _) => match name {
            "Constant" => return lower::operator(name).ok_or_else(String::new),
            "QuantizeLinear" => return Ok((3, 3, QUANTIZER, Lowering::quantize)),
            "DequantizeLinear" => return Ok((2, 3, QUANTIZER, Lowering::dequantize)),
            "QLinearMatMul" => return Ok((8, 8, "", Lowering::stored_product)),
            "QLinearConv" => (8, 9, Lowering::stored_product),
            "Flatten" | "MaxPool" | "Identity" => (1, 1, Lowering::carried),
            "Reshape" => (2, 2, Lowering::carried),
            "Squeeze" | "Unsqueeze" => (1, 2, Lowering::carried),
            "Transpose" => (1, 1, Lowering::carried),
            "Relu" => (1, 1, |l, c| l.bent(c, 0.0, f64::INFINITY)),
            "Clip" => (1, 3, Lowering::clipped),
            "MatMul" => (2, 2, Lowering::product),
            "Gemm" | "Conv" => (2, 3, Lowering::product),
            _ => return Err("this checker has no rule for it under ort-fused".into()),
        },
        _ => return Err(format!("this checker has no rule for '{domain}' {name} under ort-fused")),
    };
    let real = lower::operator(if name == "QLinearConv" { "Conv" } else { name }).ok_or("it has no rule")?;
    Ok((fewest, most, real.2, rule))
}

/// The runtime makes int8 unsigned where only quantizers read and write it, and fuses equal types only.
const MIXED: &str = "int8 in QLinear operators beside products of dequantized operands is not supported";
const QUANTIZER: &str = "axis block_size output_dtype precision saturate";

impl Lowering {
    pub(super) fn meaning(&self, call: &Call, position: usize) -> Option<&Meaning> {
        self.meanings.get(call.node.inputs.get(position)?)
    }

    pub(super) fn meant(&mut self, call: &Call, known: Known, meaning: Meaning) -> Result<Known, String> {
        self.meanings.insert(call.name().into(), meaning);
        Ok(known)
    }

    /// Operators that move elements or take maxima do the same to the integers as to what they stand for.
    pub(super) fn carried(&mut self, call: &Call) -> Result<Known, String> {
        let rule = lower::operator(&call.node.op).ok_or("it has no rule")?.3;
        let mut meaning = self.meaning(call, 0).cloned();
        match &mut meaning {
            Some(Meaning::Constant(_)) => {
                return Err("only Gemm, MatMul and Conv may read dequantized constants".into());
            }
            Some(Meaning::Sum(_)) => return Err("it reads a product; only Relu or QuantizeLinear may".into()),
            Some(Meaning::Integers { signed: true, .. }) => return Err("int8 integers may only be dequantized".into()),
            // The runtime does not move it away between the dequantized tensor and a product.
            Some(Meaning::Floats(table)) if call.node.op == "Flatten" => table.operand = false,
            _ => {}
        }
        let first = self.net.values.len();
        let known = rule(self, call)?;
        self.net.values[first..].iter_mut().for_each(|value| value.integer = meaning.is_some());
        match meaning {
            Some(meaning) => self.meant(call, known, meaning),
            None => Ok(known),
        }
    }

    fn clipped(&mut self, call: &Call) -> Result<Known, String> {
        let low = call.float_at("min", 1, 11)?.unwrap_or(f64::NEG_INFINITY);
        let high = call.float_at("max", 2, 11)?.unwrap_or(f64::INFINITY);
        self.bent(call, low, high)
    }

    /// A table is cut off at two ends; a sum below 0 only, which the quantizer behind it must do as well.
    fn bent(&mut self, call: &Call, low: f64, high: f64) -> Result<Known, String> {
        let (low32, high32) = (low as f32, high as f32);
        if f64::from(low32) != low || f64::from(high32) != high || low > high {
            return Err(format!("the limits {low} and {high} are not supported"));
        }
        let known = call.input(0)?.clone();
        match self.meaning(call, 0).cloned() {
            Some(Meaning::Sum(sum)) if call.node.op == "Relu" && !sum.relu => {
                self.meant(call, known, Meaning::Sum(Sum { relu: true, ..sum }))
            }
            Some(Meaning::Floats(table)) => {
                let numbers = Rc::new(table.numbers.iter().map(|x| x.max(low32).min(high32)).collect());
                self.meant(call, known, Meaning::Floats(Table { numbers, plain: false, operand: false, ..table }))
            }
            _ => Err("it reads neither a dequantized tensor nor, as a first Relu, a product".into()),
        }
    }

    fn dequantize(&mut self, call: &Call) -> Result<Known, String> {
        let axis = quantizer_axis(call)?;
        let known = call.input(0)?.clone();
        let signed = match self.meaning(call, 0) {
            Some(Meaning::Integers { signed, .. }) => *signed,
            None if known.id().is_none() => {
                let scaled = self.scaled_integers(call, [0, 1, 2], Some(axis))?;
                return self.meant(call, known, Meaning::Constant(scaled));
            }
            _ => return Err("it reads neither integers of an activation nor a constant".into()),
        };
        let of = self.activation(call, 1, signed)?;
        let numbers: Vec<f32> = (0..256).map(|q| (q - of.zero) as f32 * of.scale).collect();
        if numbers.iter().any(|x| x.is_infinite()) {
            return Err(format!("the scale {} is too large", of.scale));
        }
        self.meant(call, known, Meaning::Floats(Table { of, numbers: Rc::new(numbers), plain: true, operand: true }))
    }

    fn quantize(&mut self, call: &Call) -> Result<Known, String> {
        quantizer_axis(call)?;
        let to = self.activation(call, 1, self.kind(call, 2)? == S8)?;
        let known = match self.meaning(call, 0).cloned() {
            None => {
                let (of, x) = call.value(0)?;
                let step = steps(FLOATS, |place| unsigned(float(place) / to.scale, to.zero), |at| float(at).into());
                self.pieces(call.name(), of, &x.shape, vec![step])?
            }
            Some(Meaning::Sum(sum)) => self.requantized(call.name(), call.input(0)?, &sum, to)?,
            Some(Meaning::Floats(table)) if table.plain && table.of != to => {
                return Err("it reads a DequantizeLinear of other parameters, and the runtime merges the two".into());
            }
            Some(Meaning::Floats(table)) => {
                let integers: Vec<f64> = table.numbers.iter().map(|x| unsigned(x / to.scale, to.zero) as f64).collect();
                self.through(call.name(), call.input(0)?, &integers)?
            }
            Some(_) => return Err("it reads integers".into()),
        };
        self.meant(call, known, Meaning::Integers { signed: to.signed, quantized: true })
    }

    /// Integers by a table of 256; of a step function the integers it is made from, since nobody else reads it.
    fn through(&mut self, name: &str, x: &Known, table: &[f64]) -> Result<Known, String> {
        let look = |q: f64| table[q as usize];
        let of = x.id().ok_or("it is constant")?;
        if (0..256).all(|q| table[q] == q as f64) {
            return Ok(x.clone());
        }
        let all: Vec<f64> = (0..256).map(f64::from).collect();
        if let Op::Function(function) = &mut self.net.values[of].op {
            let pieces: Option<Vec<Shape>> = function.pieces.iter().map(|piece| composed(piece, look)).collect();
            function.pieces = pieces.ok_or("a function of integers is no step function")?;
            self.net.values[of].name = name.into();
            return Ok(x.clone());
        }
        let own = Shape::Step { starts: all[1..].to_vec(), values: all };
        self.pieces(name, of, &x.shape, composed(&own, look).into_iter().collect())
    }

    /// Step functions with integer results: one, or one for each element.
    pub(super) fn pieces(
        &mut self,
        name: &str,
        of: usize,
        shape: &[usize],
        pieces: Vec<Shape>,
    ) -> Result<Known, String> {
        self.room(shape)?;
        let known = self.push(name, shape.to_vec(), Op::Function(Function { of, pieces }));
        self.net.values.iter_mut().last().into_iter().for_each(|value| value.integer = true);
        Ok(known)
    }

    /// What the graph returns: the floats, or the integers where it returns those.
    pub(super) fn fused_output(&mut self, name: &str, known: &Known) -> Result<Known, String> {
        match self.meanings.get(name).cloned() {
            None | Some(Meaning::Integers { signed: false, .. }) => Ok(known.clone()),
            Some(Meaning::Floats(table)) => {
                let of = known.id().ok_or("it is constant")?;
                let values = table.numbers.iter().map(|&x| x.into()).collect();
                let step = Shape::Step { starts: (1..256).map(f64::from).collect(), values };
                self.room(&known.shape)?;
                Ok(self.push(name, known.shape.clone(), Op::Function(Function { of, pieces: vec![step] })))
            }
            Some(Meaning::Sum(_)) => Err("the float result of an integer kernel is not supported".into()),
            Some(_) => Err("int8 integers and dequantized constants are not supported".into()),
        }
    }

    fn requantized(&mut self, name: &str, x: &Known, sum: &Sum, to: Activation) -> Result<Known, String> {
        if sum.relu && to.zero != 0 {
            return Err("the Relu before it is not in its zero point, and the runtime then sums in floats".into());
        }
        let of = x.id().ok_or("it is constant")?;
        self.net.values[of].name = format!("{name}/sum");
        let mut tables: HashMap<u32, Shape> = HashMap::new();
        let mut factors = vec![];
        for &scale in &sum.scales {
            let factor = positive(scale / to.scale)?;
            factors.push(factor.to_bits());
            let table = || steps(INTEGERS, |sum| unsigned(sum as f32 * factor, to.zero), |sum| sum as f64);
            tables.entry(factor.to_bits()).or_insert_with(table);
        }
        let each = if tables.len() == 1 { 1 } else { x.len() };
        let pieces = (0..each).map(|i| &tables[&factors[i / sum.run % factors.len()]]);
        let size = |piece: &Shape| if let Shape::Step { values, .. } = piece { 2 * values.len() } else { 1 };
        self.room(&[pieces.clone().map(size).sum()])?;
        let pieces = pieces.cloned().collect();
        self.pieces(name, of, &x.shape, pieces)
    }

    /// A product of dequantized operands.
    fn product(&mut self, call: &Call) -> Result<Known, String> {
        let x = match self.meaning(call, 0) {
            Some(Meaning::Floats(table)) if table.operand => table.of,
            Some(Meaning::Floats(_)) => return Err("what is between it and DequantizeLinear keeps it in floats".into()),
            _ => return Err("it reads no dequantized activation; float sums are not supported under ort-fused".into()),
        };
        if self.meanings.values().any(|m| matches!(m, Meaning::Integers { signed: true, quantized: false })) {
            return Err(MIXED.into());
        }
        let weights = match self.meaning(call, 1) {
            Some(Meaning::Constant(scaled)) => scaled.clone(),
            Some(_) => return Err("products of two activations are not supported".into()),
            None => return Err("the weights are no dequantized constants".into()),
        };
        let bias = match self.meaning(call, 2) {
            _ if !call.has(2) => None,
            Some(Meaning::Constant(scaled)) if scaled.kind == S32 => Some(scaled.clone()),
            _ => return Err("the bias is float; only dequantized int32 is supported".into()),
        };
        if call.float("beta")?.is_some_and(|beta| beta != 1.0) {
            return Err("beta is not 1".into());
        }
        let (known, sum) = self.accumulated(call, x, &weights, 1, 2)?;
        if let Some(bias) = bias {
            bias.must_have(&sum.scales)?;
        }
        self.meant(call, known, Meaning::Sum(sum))
    }

    /// A product in the operators that read and make integers.
    fn stored_product(&mut self, call: &Call) -> Result<Known, String> {
        let (bias, result) = if call.node.op == "QGemm" { (6, 7) } else { (8, 6) };
        let Some(&Meaning::Integers { signed, .. }) = self.meaning(call, 0) else {
            return Err("it reads no integers of an activation".into());
        };
        if signed && self.meanings.values().any(|m| matches!(m, Meaning::Sum(_))) {
            return Err(MIXED.into());
        }
        let x = self.activation(call, 1, signed)?;
        let weights = self.scaled_integers(call, [3, 4, 5], None)?;
        if call.has(bias) && self.kind(call, bias)? != S32 {
            return Err("the bias is not int32".into());
        }
        let to = self.activation(call, result, signed)?;
        let (known, sum) = self.accumulated(call, x, &weights, 3, bias)?;
        let known = self.requantized(call.name(), &known, &sum, to)?;
        self.meant(call, known, Meaning::Integers { signed, quantized: false })
    }

    /// The sums of a product without its scales, from the integers of input 0, the weights and the bias.
    fn accumulated(
        &mut self,
        call: &Call,
        x: Activation,
        weights: &Scaled,
        at: usize,
        bias: usize,
    ) -> Result<(Known, Sum), String> {
        let w = call.input(at)?;
        let axis = match (&call.node.op[..], call.int("transB", 0)?) {
            ("Conv" | "QLinearConv", _) if w.shape.len() >= 3 => 0,
            ("Gemm" | "QGemm", 1) if w.shape.len() == 2 => 0,
            (_, 0) if w.shape.len() == 2 && call.input(0)?.shape.len() == 2 => 1,
            _ => return Err(format!("operands of shapes {:?} and {:?}", call.input(0)?.shape, w.shape)),
        };
        if call.float("alpha")?.is_some_and(|alpha| alpha != 1.0) {
            return Err("alpha is not 1".into());
        }
        let Stored::Ints(stored) = &w.data else { return Err("the weights are not constant".into()) };
        let channels = weights.fit(axis, w)?;
        if x.signed && weights.kind != S8 {
            return Err("int8 activations with weights of another type are not supported".into());
        }
        let below: usize = w.shape[axis + 1..].iter().product();
        let zero = |i: usize| weights.zeros[i / below % channels % weights.zeros.len()];
        let numbers = stored.iter().enumerate().map(|(i, w)| (w - zero(i)) as f64).collect();
        let bias = match call.has(bias).then(|| call.input(bias)).transpose()? {
            None => vec![0],
            Some(Known { shape, data: Stored::Ints(bias) }) if shape[..] == [channels] => bias.to_vec(),
            Some(bias) => return Err(format!("a bias of shape {:?} is not supported", bias.shape)),
        };
        let weights_known = Known { shape: w.shape.clone(), data: Stored::Reals(Rc::new(numbers)) };
        let known = self.integer_sum(call, call.input(0)?, x.zero, weights_known)?;
        let run = if axis == 0 && w.shape.len() > 2 { known.len() / channels } else { 1 };
        self.shift(&known, |i| bias[i / run % channels % bias.len()] as f64)?;
        self.fits(&known, [0, 255])?;
        let scales = weights.scales.iter().map(|w| positive(x.scale * w)).collect::<Result<_, _>>()?;
        Ok((known, Sum { scales, run, relu: false }))
    }

    /// The type of a stored constant.
    fn kind(&self, call: &Call, position: usize) -> Result<i64, String> {
        let kind = call.node.inputs.get(position).and_then(|name| self.kinds.get(name));
        kind.copied().ok_or_else(|| format!("input {position} is no stored constant"))
    }

    /// Positive float32 numbers and their shape, at most a vector.
    fn scales(&self, call: &Call, position: usize) -> Result<(Vec<usize>, Vec<f32>), String> {
        let (shape, scales) = call.constant(position)?;
        if self.kind(call, position)? != 1 || shape.len() > 1 || scales.is_empty() {
            return Err(format!("input {position} holds no float32 scales"));
        }
        // Stored as float32, so nothing is rounded.
        let scales = scales.iter().map(|&scale| positive(scale as f32)).collect::<Result<_, _>>()?;
        Ok((shape.to_vec(), scales))
    }

    /// Scale and zero point of an activation of a type, at two inputs.
    fn activation(&self, call: &Call, position: usize, signed: bool) -> Result<Activation, String> {
        let (shape, scales) = self.scales(call, position)?;
        let zero = call.input(position + 1)?;
        let kind = self.kind(call, position + 1)?;
        match (&scales[..], &zero.data) {
            (&[scale], Stored::Ints(zeros)) if zero.shape == shape && kind == if signed { S8 } else { U8 } => {
                Ok(Activation { scale, zero: zeros[0] + if signed { 128 } else { 0 }, signed })
            }
            _ => Err(format!("input {position} and the next are no scale and zero point of the activation's type")),
        }
    }

    /// A constant with its scales and zero points, at three inputs; int32 need have no zero points.
    fn scaled_integers(&self, call: &Call, [at, scale, zero]: [usize; 3], axis: Option<i64>) -> Result<Scaled, String> {
        let kind = self.kind(call, at)?;
        let (shape, scales) = self.scales(call, scale)?;
        if kind == S32 && call.inputs.len() <= zero {
            return Ok(Scaled { kind, axis, zeros: vec![0; scales.len()], scales });
        }
        let given = call.input(zero)?;
        let Stored::Ints(zeros) = &given.data else { return Err("the zero points are not constant".into()) };
        if kind != self.kind(call, zero)? || !matches!(kind, U8 | S8 | S32) {
            return Err(format!("constants of type {kind} are not supported, or their zero points have another"));
        }
        // Of a bias the runtime reads neither.
        if zeros.is_empty() || given.shape != shape && kind != S32 {
            return Err("scales and zero points differ in shape".into());
        }
        Ok(Scaled { kind, axis, scales, zeros: zeros.to_vec() })
    }
}

impl Scaled {
    /// The number of channels of weights along an axis; refuses scales that do not belong to it.
    fn fit(&self, axis: usize, w: &Known) -> Result<usize, String> {
        let (channels, rank) = (w.shape[axis], w.shape.len() as i64);
        let own = self.axis.is_none_or(|given| (if given < 0 { given + rank } else { given }) == axis as i64);
        match self.scales.len() {
            _ if self.kind == S32 || channels == 0 => Err("the weights are not 8-bit".into()),
            1 => Ok(channels),
            n if n == channels && own => Ok(channels),
            n => Err(format!("{n} scales of weights of shape {:?} are not those of its output channels", w.shape)),
        }
    }

    /// Refuses a bias of other scales than the sums it is added to: the runtime does not read them.
    fn must_have(&self, scales: &[f32]) -> Result<(), String> {
        let (n, m) = (self.scales.len(), scales.len());
        if !(n == m || n == 1 || m == 1) || self.zeros.iter().any(|&zero| zero != 0) {
            return Err("the bias has other channels than the weights, or a zero point".into());
        }
        for i in 0..n.max(m) {
            let (own, other) = (f64::from(self.scales[i % n]), f64::from(scales[i % m]));
            if (own - other).abs() > other / f64::from(1 << 21) {
                return Err(format!("the bias is stored at scale {own}, but the runtime takes it at scale {other}"));
            }
        }
        Ok(())
    }
}

/// A quotient as an unsigned 8-bit integer.
fn unsigned(quotient: f32, zero: i64) -> i64 {
    (quotient.round_ties_even().clamp(-1e6, 1e6) as i64 + zero).clamp(0, 255)
}

/// Refuses scales that are not positive, or that arithmetic may take for 0 or infinity.
fn positive(scale: f32) -> Result<f32, String> {
    if scale.is_normal() && scale > 0.0 { Ok(scale) } else { Err(format!("a scale or quotient of scales is {scale}")) }
}

/// The axis of a quantizer, which has no other parameters.
fn quantizer_axis(call: &Call) -> Result<i64, String> {
    for name in ["block_size", "output_dtype", "precision"] {
        call.only(name, 0)?;
    }
    call.int("axis", 1)
}
