//! Random quantized layers as files, their rows full of near-ties.

use anyhow::Result;
use quaver::model::build::ModelBuilder;
use quaver::model::ir::{DType, Data, Op, Tensor, ValueId, Window};
use quaver::model::onnx;
use quaver::model::tflite::{Activation, Builtin, ModelWriter, OperatorOptions, Padding, TensorSpec};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// Rows of a layer.
pub const ROWS: usize = 24;

/// What a layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// FULLY_CONNECTED, Gemm, linear.
    Dense,
    /// CONV_2D, Conv, conv2d.
    Convolution,
    /// DEPTHWISE_CONV_2D.
    Depthwise,
    /// ADD.
    Add,
    /// SUB.
    Sub,
    /// MUL by a constant.
    Mul,
    /// AVERAGE_POOL_2D.
    Average,
    /// MEAN over height and width.
    Mean,
    /// QUANTIZE from int8 to int8.
    Requantize,
}

impl Kind {
    /// All that the format has.
    pub fn of(format: Format) -> &'static [Kind] {
        use Kind::*;
        match format {
            Format::TfLite => &[Dense, Convolution, Depthwise, Add, Sub, Mul, Average, Mean, Requantize],
            Format::Onnx => &[Dense, Convolution, Depthwise, Add],
        }
    }
}

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TensorFlow Lite, int8.
    TfLite,
    /// ONNX in Q/DQ form, uint8, float biases: what PyTorch's engines and ONNX Runtime take.
    Onnx,
}

/// A layer as a file with rows of input.
pub struct Layer {
    /// The bytes of the file.
    pub file: Vec<u8>,
    /// Rows of each input, in the file's own order and integers.
    pub inputs: Vec<Vec<f64>>,
    /// What PyTorch needs to build it.
    pub torch: Value,
    /// Weights, their scales and biases, for PyTorch.
    pub weights: Option<(Vec<i8>, Vec<f32>, Vec<f32>)>,
}

/// Scale and zero point, the latter for int8.
#[derive(Clone, Copy)]
struct Grid {
    scale: f32,
    zero: i64,
}

struct Maker {
    rng: StdRng,
    format: Format,
    kind: Kind,
    /// Channels, height, width.
    size: [usize; 3],
    outputs: usize,
    kernel: usize,
    same: bool,
    relu: bool,
    x: Grid,
    y: Grid,
    w: Vec<i8>,
    w_scales: Vec<f32>,
    /// At the accumulator's scale.
    bias: Vec<i32>,
}

/// A random layer.
pub fn random(format: Format, kind: Kind, seed: u64) -> Result<Layer> {
    let mut m = Maker::new(format, kind, StdRng::seed_from_u64(seed));
    m.weights();
    match format {
        Format::TfLite => Ok(m.tflite()),
        Format::Onnx => m.onnx(),
    }
}

impl Maker {
    fn new(format: Format, kind: Kind, mut rng: StdRng) -> Self {
        let channels = rng.random_range(1..=12);
        let side = if kind == Kind::Dense { 1 } else { rng.random_range(3..=6) };
        let channels = if kind == Kind::Dense { [1, 7, 64, 300][rng.random_range(0..4)] } else { channels };
        let outputs = if kind == Kind::Depthwise { channels } else { rng.random_range(1..=24) };
        let pooled = matches!(kind, Kind::Average | Kind::Mean);
        let (kernel, same) = (if pooled { 2 } else { [1, 3][rng.random_range(0..2)] }, rng.random());
        let x = grid(&mut rng, -6.0, -1.0);
        Maker {
            format,
            kind,
            size: [channels, side, side],
            outputs,
            kernel: if kind == Kind::Dense { 1 } else { kernel },
            same,
            relu: rng.random_bool(0.4),
            y: x,
            x,
            w: vec![],
            w_scales: vec![],
            bias: vec![],
            rng,
        }
    }

    /// Weights, output parameters that use the range, and biases that put accumulators next to half-integers of the output.
    fn weights(&mut self) {
        let [channels, ..] = self.size;
        let depth = self.kernel * self.kernel * if self.kind == Kind::Depthwise { 1 } else { channels };
        self.w = (0..self.outputs * depth).map(|_| self.rng.random_range(-127..=127)).collect();
        let per_channel = self.rng.random();
        let scales = if per_channel { self.outputs } else { 1 };
        self.w_scales = (0..scales).map(|_| grid(&mut self.rng, -9.0, -3.0).scale).collect();
        let unit = |m: &Self, c: usize| f64::from(m.x.scale) * f64::from(m.w_scales[if scales == 1 { 0 } else { c }]);
        let reach = (depth as f64).sqrt() * 70.0 * 70.0 * unit(self, 0);
        self.y = grid(&mut self.rng, 0.0, 0.0);
        self.y.scale = (reach / 100.0 * self.rng.random_range(0.4..2.0)) as f32;
        if self.rng.random_bool(0.34) {
            self.y.scale = 2f32.powi(self.y.scale.log2().round() as i32);
        }
        self.bias = (0..self.outputs)
            .map(|c| {
                let half = self.rng.random_range(-140..140) as f64 + 0.5;
                let near = half * f64::from(self.y.scale) / unit(self, c);
                near.clamp(-4e6, 4e6).round() as i32 + self.rng.random_range(-1..=1)
            })
            .collect();
    }

    /// Rows in [C, H, W] order: at the zero point but for a few elements, so that biases decide; around it; anywhere.
    fn rows(&mut self, grid: Grid) -> Vec<i64> {
        let len: usize = self.size.iter().product();
        let mut rows = vec![];
        for r in 0..ROWS {
            for _ in 0..len {
                rows.push(match r % 3 {
                    0 if self.rng.random_bool(0.97) => grid.zero,
                    1 => (grid.zero + self.rng.random_range(-12..=12)).clamp(-128, 127),
                    _ => self.rng.random_range(-128..=127),
                });
            }
        }
        rows
    }

    /// Rows as the file has them: NHWC and int8, or NCHW and uint8.
    fn input(&mut self, grid: Grid) -> Vec<f64> {
        let rows = self.rows(grid);
        let [c, h, w] = self.size;
        match self.format {
            Format::Onnx => rows.into_iter().map(|q| (q + 128) as f64).collect(),
            Format::TfLite => {
                let at = |r: usize, p: usize, k: usize| rows[r * c * h * w + k * h * w + p] as f64;
                (0..ROWS)
                    .flat_map(|r| (0..h * w).flat_map(move |p| (0..c).map(move |k| (r, p, k))))
                    .map(|(r, p, k)| at(r, p, k))
                    .collect()
            }
        }
    }

    fn out_side(&self) -> usize {
        if self.same { self.size[1] } else { self.size[1] - self.kernel + 1 }
    }

    fn tflite(&mut self) -> Layer {
        let [c, h, w] = self.size.map(|d| d as i32);
        let mut m = ModelWriter::new();
        let activation = if self.relu { Activation::Relu } else { Activation::None };
        let padding = if self.same { Padding::Same } else { Padding::Valid };
        let image = [1, h, w, c];
        let (n, k, side) = (self.outputs as i32, self.kernel as i32, self.out_side() as i32);
        let (sx, zx) = (self.x.scale, self.x.zero);
        let x = m.input(match self.kind {
            Kind::Dense => TensorSpec::int8("x", &[1, c], sx, zx),
            _ => TensorSpec::int8("x", &image, sx, zx),
        });
        let mut inputs = vec![self.input(self.x)];
        let y = |shape: &[i32], g: Grid| TensorSpec::int8("y", shape, g.scale, g.zero);
        let mut bias = TensorSpec::int32_constant("bias", &[n], &self.bias);
        bias.scales = self.w_scales.iter().map(|s| s * sx).collect();
        bias.zero_points = vec![0; self.w_scales.len()];
        let (strides, dilations) = ((1, 1), (1, 1));
        let output = match self.kind {
            Kind::Dense => {
                let w = m.tensor(TensorSpec::int8_weights("w", &[n, c], &self.w, &self.w_scales, 0));
                let (b, y) = (m.tensor(bias), m.tensor(y(&[1, n], self.y)));
                let options = OperatorOptions::FullyConnected { activation, weights_format: 0, keep_num_dims: false };
                m.operator(Builtin::FullyConnected, &[x, w, b], &[y], options);
                y
            }
            Kind::Convolution => {
                let w = m.tensor(TensorSpec::int8_weights("w", &[n, k, k, c], &self.w, &self.w_scales, 0));
                let (b, y) = (m.tensor(bias), m.tensor(y(&[1, side, side, n], self.y)));
                m.operator(
                    Builtin::Conv2D,
                    &[x, w, b],
                    &[y],
                    OperatorOptions::Conv2D { padding, strides, dilations, activation },
                );
                y
            }
            Kind::Depthwise => {
                let w = m.tensor(TensorSpec::int8_weights("w", &[1, k, k, c], &self.w, &self.w_scales, 3));
                let (b, y) = (m.tensor(bias), m.tensor(y(&[1, side, side, c], self.y)));
                let options =
                    OperatorOptions::DepthwiseConv2D { padding, strides, dilations, multiplier: 1, activation };
                m.operator(Builtin::DepthwiseConv2D, &[x, w, b], &[y], options);
                y
            }
            Kind::Add | Kind::Sub => {
                let (second, result) = self.operands();
                inputs.push(self.input(second));
                let b = m.input(TensorSpec::int8("x2", &image, second.scale, second.zero));
                let y = m.tensor(y(&image, result));
                let (builtin, options) = match self.kind {
                    Kind::Add => (Builtin::Add, OperatorOptions::Add { activation }),
                    _ => (Builtin::Sub, OperatorOptions::Sub { activation }),
                };
                m.operator(builtin, &[x, b], &[y], options);
                y
            }
            Kind::Mul => {
                let (second, result) = self.operands();
                let factors: Vec<i8> = (0..c).map(|_| self.rng.random_range(-128..=127)).collect();
                let mut constant = TensorSpec::int8_weights("factors", &[c], &factors, &[second.scale], 0);
                constant.zero_points = vec![second.zero];
                let b = m.tensor(constant);
                let y = m.tensor(y(&image, Grid { scale: result.scale * 4.0, ..result }));
                m.operator(Builtin::Mul, &[x, b], &[y], OperatorOptions::Mul { activation });
                y
            }
            Kind::Average => {
                let out = if self.same { h } else { h - 1 };
                let y = m.tensor(y(&[1, out, out, c], self.x));
                let options = OperatorOptions::Pool2D { padding, strides, filter: (2, 2), activation };
                m.operator(Builtin::AveragePool2D, &[x], &[y], options);
                y
            }
            Kind::Mean => {
                let (_, result) = self.operands();
                let axes = m.tensor(TensorSpec::int32_constant("axes", &[2], &[1, 2]));
                let y = m.tensor(y(&[1, c], result));
                m.operator(Builtin::Mean, &[x, axes], &[y], OperatorOptions::Reducer { keep_dims: false });
                y
            }
            Kind::Requantize => {
                let (_, result) = self.operands();
                let y = m.tensor(y(&image, result));
                m.operator(Builtin::Quantize, &[x], &[y], OperatorOptions::None);
                y
            }
        };
        m.output(output);
        Layer { file: m.finish(), inputs, torch: Value::Null, weights: None }
    }

    /// Parameters of a second operand and of a result, of scales near those of the first.
    fn operands(&mut self) -> (Grid, Grid) {
        let power = self.rng.random_bool(0.3);
        let mut near = |low: f64, high: f64| {
            let ratio = 2f64.powf(self.rng.random_range(low..high));
            let ratio = if power { 2f64.powf(ratio.log2().round()) } else { ratio };
            let scale = (f64::from(self.x.scale) * ratio) as f32;
            Grid { scale, zero: self.rng.random_range(-128..=127) }
        };
        (near(-3.0, 3.0), near(-1.0, 3.0))
    }

    fn onnx(&mut self) -> Result<Layer> {
        let mut b = ModelBuilder::new("layer");
        let shape: Vec<usize> = if self.kind == Kind::Dense { vec![self.size[0]] } else { self.size.to_vec() };
        let full: Vec<usize> = [1].iter().chain(&shape).copied().collect();
        let x = b.input("x", DType::U8, &full)?;
        let mut inputs = vec![self.input(self.x)];
        let x = dequantized(&mut b, "x", x, self.x)?;
        let (mut torch, mut weights, mut y_grid) = (json!({"shape": shape, "relu": self.relu}), None, self.y);
        torch["sx"] = json!(self.x.scale);
        torch["zx"] = json!(self.x.zero + 128);
        let mut y = match self.kind {
            Kind::Add => {
                let (second, result) = self.operands();
                y_grid = result;
                inputs.push(self.input(second));
                let other = b.input("x2", DType::U8, &full)?;
                let other = dequantized(&mut b, "x2", other, second)?;
                torch["kind"] = json!("add");
                torch["s2"] = json!(second.scale);
                torch["z2"] = json!(second.zero + 128);
                b.node(Op::Add, &[x, other])?
            }
            _ => {
                let (y, found) = self.onnx_product(&mut b, x, &mut torch)?;
                weights = Some(found);
                y
            }
        };
        if self.relu {
            y = b.node(Op::Relu, &[y])?;
        }
        let (s, z) = parameters(&mut b, "y", y_grid)?;
        let y = b.node(Op::QuantizeLinear { axis: 0 }, &[y, s, z])?;
        b.output(y);
        torch["sy"] = json!(y_grid.scale);
        torch["zy"] = json!(y_grid.zero + 128);
        Ok(Layer { file: onnx::write(&b.finish()?)?, inputs, torch, weights })
    }

    #[allow(clippy::type_complexity)] // weights, scales, biases
    fn onnx_product(
        &mut self,
        b: &mut ModelBuilder,
        x: ValueId,
        torch: &mut Value,
    ) -> Result<(ValueId, (Vec<i8>, Vec<f32>, Vec<f32>))> {
        let (k, channels) = (self.kernel, if self.kind == Kind::Depthwise { 1 } else { self.size[0] });
        let dense = self.kind == Kind::Dense;
        let shape: Vec<usize> = if dense { vec![self.outputs, channels] } else { vec![self.outputs, channels, k, k] };
        let n = self.w_scales.len();
        let per = if n == 1 { vec![] } else { vec![n] };
        let w = b.constant("w", Tensor { shape: shape.clone(), data: Data::I8(self.w.clone()) })?;
        let sw = b.constant("sw", Tensor::f32(&per, self.w_scales.clone()))?;
        let zw = b.constant("zw", Tensor { shape: per, data: Data::I8(vec![0; n]) })?;
        let w = b.node(Op::DequantizeLinear { axis: 0 }, &[w, sw, zw])?;
        let unit = |c: usize| self.x.scale * self.w_scales[if n == 1 { 0 } else { c }];
        let floats: Vec<f32> = self.bias.iter().enumerate().map(|(c, &q)| q as f32 * unit(c)).collect();
        let bias = b.constant("bias", Tensor::f32(&[self.outputs], floats.clone()))?;
        let pad = if self.same { (k - 1) / 2 } else { 0 };
        let groups = if self.kind == Kind::Depthwise { self.size[0] } else { 1 };
        torch["kind"] = json!(if dense { "dense" } else { "conv" });
        torch["weights"] = json!(shape);
        torch["stride"] = json!(1);
        torch["pad"] = json!([pad, pad]);
        torch["groups"] = json!(groups);
        let op = if dense {
            Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true }
        } else {
            let (two, pads) = (|v: usize| vec![v; 2], vec![pad; 2]);
            let window = Window {
                kernel: two(k),
                strides: two(1),
                dilations: two(1),
                pads_begin: pads.clone(),
                pads_end: pads,
                ceil_mode: false,
            };
            Op::Conv { window, group: groups }
        };
        Ok((b.node(op, &[x, w, bias])?, (self.w.clone(), self.w_scales.clone(), floats)))
    }
}

/// A scale between two powers of two, itself one in a third of the cases, and a zero point.
fn grid(rng: &mut StdRng, low: f64, high: f64) -> Grid {
    let e: f64 = if low < high { rng.random_range(low..high) } else { low };
    let e = if rng.random_bool(0.34) { e.round() } else { e };
    let zero = [-128, 0, rng.random_range(-128..=127), rng.random_range(-128..=127)][rng.random_range(0..4)];
    Grid { scale: 2f64.powf(e) as f32, zero }
}

fn parameters(b: &mut ModelBuilder, name: &str, g: Grid) -> Result<(ValueId, ValueId)> {
    let scale = b.constant(&format!("{name}_scale"), Tensor::scalar(g.scale))?;
    let zero = Tensor { shape: vec![], data: Data::U8(vec![(g.zero + 128) as u8]) };
    Ok((scale, b.constant(&format!("{name}_zero"), zero)?))
}

fn dequantized(b: &mut ModelBuilder, name: &str, x: ValueId, g: Grid) -> Result<ValueId> {
    let (s, z) = parameters(b, name, g)?;
    Ok(b.node(Op::DequantizeLinear { axis: 0 }, &[x, s, z])?)
}
