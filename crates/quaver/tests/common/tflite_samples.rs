//! Small TensorFlow Lite files: one for each operator, int8 and float32, and two networks.
#![allow(dead_code)] // each user takes a part

use quaver::model::tflite::{Activation, Builtin, ModelWriter, OperatorOptions, Padding, TensorSpec};

/// Numbers that look random, the same every time.
struct Numbers(u64);

impl Numbers {
    /// From -1 up to 1.
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32) / (1 << 23) as f32 - 1.0
    }

    fn floats(&mut self, n: i32) -> Vec<f32> {
        (0..n).map(|_| self.next()).collect()
    }

    fn bytes(&mut self, n: i32) -> Vec<i8> {
        (0..n).map(|_| (self.next() * 127.0) as i8).collect()
    }

    fn biases(&mut self, n: i32) -> Vec<i32> {
        (0..n).map(|_| (self.next() * 2000.0) as i32).collect()
    }
}

/// A network in the making, int8 or float32.
pub struct Net {
    writer: ModelWriter,
    int8: bool,
    /// 0 for the scales and zero points as they are written here, other numbers for others.
    seed: u64,
    numbers: Numbers,
    names: usize,
}

const INPUT: (f32, i64) = (0.05, 3);
const OUTPUT: (f32, i64) = (0.11, -7);

fn weight_scales(channels: usize) -> Vec<f32> {
    (0..channels.max(1)).map(|c| 0.004 * (1.0 + 0.37 * c as f32)).collect()
}

impl Net {
    pub fn new(int8: bool, seed: u64) -> Net {
        Net { writer: ModelWriter::new(), int8, seed, numbers: Numbers(7 + seed), names: 0 }
    }

    /// The scale and zero point that stand for these under the seed; those of SOFTMAX are fixed.
    fn parameters(&self, (scale, zero_point): (f32, i64)) -> (f32, i64) {
        if self.seed == 0 || zero_point == -128 {
            return (scale, zero_point);
        }
        let mut numbers =
            Numbers(self.seed.wrapping_mul(0x9e37_79b9) ^ u64::from(scale.to_bits()) ^ (zero_point as u64) << 32);
        numbers.next();
        let scale = scale * numbers.next().exp2();
        (scale, (numbers.next() * 128.0) as i64)
    }

    fn name(&mut self, what: &str) -> String {
        self.names += 1;
        format!("{what}{}", self.names)
    }

    /// A value of the net's type.
    fn value(&mut self, shape: &[i32], parameters: (f32, i64)) -> TensorSpec {
        let (name, (scale, zero_point)) = (self.name("value"), self.parameters(parameters));
        if self.int8 { TensorSpec::int8(&name, shape, scale, zero_point) } else { TensorSpec::float(&name, shape) }
    }

    fn input(&mut self, shape: &[i32]) -> i32 {
        let mut spec = self.value(shape, INPUT);
        if shape.len() > 1 {
            spec.signature = [&[-1], &shape[1..]].concat();
        }
        self.writer.input(spec)
    }

    /// A constant of the net's type: weights with `channels` scales along `axis`, or one scale for 0 channels.
    fn weights(&mut self, shape: &[i32], channels: usize, axis: i32) -> i32 {
        let (name, n) = (self.name("weights"), shape.iter().product());
        let spec = if self.int8 {
            TensorSpec::int8_weights(&name, shape, &self.numbers.bytes(n), &weight_scales(channels), axis)
        } else {
            TensorSpec::float_constant(&name, shape, &self.numbers.floats(n))
        };
        self.writer.tensor(spec)
    }

    /// One number for each channel, with one scale or one for each channel, as the weights have.
    fn bias(&mut self, channels: i32, scales: usize) -> i32 {
        self.bias_after(INPUT, channels, scales)
    }

    /// The bias of products with a value of these parameters.
    fn bias_after(&mut self, input: (f32, i64), channels: i32, scales: usize) -> i32 {
        let name = self.name("bias");
        let spec = if self.int8 {
            let mut spec = TensorSpec::int32_constant(&name, &[channels], &self.numbers.biases(channels));
            spec.scales = weight_scales(scales).iter().map(|s| s * self.parameters(input).0).collect();
            spec.zero_points = vec![0; spec.scales.len()];
            spec
        } else {
            TensorSpec::float_constant(&name, &[channels], &self.numbers.floats(channels))
        };
        self.writer.tensor(spec)
    }

    fn ints(&mut self, shape: &[i32], list: &[i32]) -> i32 {
        let name = self.name("list");
        self.writer.tensor(TensorSpec::int32_constant(&name, shape, list))
    }

    /// Adds an operator; gives its output.
    fn op(
        &mut self,
        op: Builtin,
        inputs: &[i32],
        shape: &[i32],
        parameters: (f32, i64),
        options: OperatorOptions,
    ) -> i32 {
        let spec = self.value(shape, parameters);
        let output = self.writer.tensor(spec);
        self.writer.operator(op, inputs, &[output], options);
        output
    }

    /// An operator that makes another value of the same shape: with other parameters, or clipped.
    fn changed(&self) -> Builtin {
        if self.int8 { Builtin::Quantize } else { Builtin::Relu }
    }

    fn finish(mut self, output: i32) -> Vec<u8> {
        self.writer.output(output);
        self.writer.finish()
    }
}

/// A name and the bytes of a file.
pub type Sample = (String, Vec<u8>);

/// Whether it is int8, and which scales.
type Variant = (bool, u64);

fn single(name: &str, (int8, seed): Variant, input: &[i32], build: impl Fn(&mut Net, i32) -> i32) -> Sample {
    let mut net = Net::new(int8, seed);
    let x = net.input(input);
    let y = build(&mut net, x);
    (format!("{name}_{}", if int8 { "int8" } else { "float32" }), net.finish(y))
}

/// One file for each operator and way to use it.
pub fn samples() -> Vec<Sample> {
    [true, false].into_iter().flat_map(|int8| of_type((int8, 0))).chain(conversions()).collect()
}

/// The int8 files with other weights, scales and zero points.
pub fn varied(seed: u64) -> Vec<Sample> {
    of_type((true, seed))
}

fn of_type(v: Variant) -> Vec<Sample> {
    [products(v), windows(v), element_wise(v), layouts(v), vec![network(v)]].concat()
}

fn dense(activation: Activation, keep_num_dims: bool) -> OperatorOptions {
    OperatorOptions::FullyConnected { activation, weights_format: 0, keep_num_dims }
}

fn products(v: Variant) -> Vec<Sample> {
    vec![
        single("fully_connected", v, &[1, 6], |n, x| {
            let (w, b) = (n.weights(&[5, 6], 0, 0), n.bias(5, 0));
            n.op(Builtin::FullyConnected, &[x, w, b], &[1, 5], OUTPUT, dense(Activation::Relu, false))
        }),
        single("fully_connected_channels", v, &[1, 2, 3], |n, x| {
            let w = n.weights(&[5, 6], 5, 0);
            n.op(Builtin::FullyConnected, &[x, w, -1], &[1, 5], OUTPUT, dense(Activation::None, false))
        }),
        single("fully_connected_keep", v, &[1, 2, 6], |n, x| {
            let (w, b) = (n.weights(&[4, 6], 0, 0), n.bias(4, 0));
            n.op(Builtin::FullyConnected, &[x, w, b], &[1, 2, 4], OUTPUT, dense(Activation::Relu6, true))
        }),
        single("conv", v, &[1, 5, 4, 3], |n, x| {
            let (w, b) = (n.weights(&[4, 3, 3, 3], 4, 0), n.bias(4, 4));
            let options = OperatorOptions::Conv2D {
                padding: Padding::Same,
                strides: (2, 1),
                dilations: (1, 1),
                activation: Activation::Relu6,
            };
            n.op(Builtin::Conv2D, &[x, w, b], &[1, 3, 4, 4], OUTPUT, options)
        }),
        single("conv_dilated", v, &[1, 5, 6, 2], |n, x| {
            let (w, b) = (n.weights(&[3, 2, 3, 2], 0, 0), n.bias(3, 0));
            let options = OperatorOptions::Conv2D {
                padding: Padding::Valid,
                strides: (1, 1),
                dilations: (2, 2),
                activation: Activation::ReluN1To1,
            };
            n.op(Builtin::Conv2D, &[x, w, b], &[1, 3, 2, 3], OUTPUT, options)
        }),
        single("depthwise", v, &[1, 4, 5, 2], |n, x| {
            let (w, b) = (n.weights(&[1, 3, 2, 4], 4, 3), n.bias(4, 4));
            let options = OperatorOptions::DepthwiseConv2D {
                padding: Padding::Same,
                strides: (1, 1),
                dilations: (1, 1),
                multiplier: 2,
                activation: Activation::Relu,
            };
            n.op(Builtin::DepthwiseConv2D, &[x, w, b], &[1, 4, 5, 4], OUTPUT, options)
        }),
    ]
}

fn windows(v: Variant) -> Vec<Sample> {
    let pool = |padding, activation| OperatorOptions::Pool2D { padding, strides: (2, 2), filter: (3, 2), activation };
    vec![
        single("average_pool", v, &[1, 5, 5, 3], move |n, x| {
            n.op(Builtin::AveragePool2D, &[x], &[1, 3, 3, 3], INPUT, pool(Padding::Same, Activation::Relu))
        }),
        single("max_pool", v, &[1, 5, 5, 3], move |n, x| {
            n.op(Builtin::MaxPool2D, &[x], &[1, 2, 2, 3], INPUT, pool(Padding::Valid, Activation::None))
        }),
    ]
}

fn element_wise(v: Variant) -> Vec<Sample> {
    let shape = [1, 3, 2, 4];
    let relu = |name: &'static str, op| {
        single(name, v, &shape, move |n, x| n.op(op, &[x], &shape, INPUT, OperatorOptions::None))
    };
    vec![
        single("add", v, &shape, |n, x| {
            let r = n.op(n.changed(), &[x], &shape, OUTPUT, OperatorOptions::None);
            let options = OperatorOptions::Add { activation: Activation::Relu6 };
            n.op(Builtin::Add, &[x, r], &shape, (0.14, 11), options)
        }),
        single("sub", v, &shape, |n, x| {
            let r = n.op(n.changed(), &[x], &shape, OUTPUT, OperatorOptions::None);
            let options = OperatorOptions::Sub { activation: Activation::None };
            n.op(Builtin::Sub, &[x, r], &shape, (0.14, 11), options)
        }),
        single("mul", v, &shape, |n, x| {
            let c = n.weights(&[4], 0, 0);
            let options = OperatorOptions::Mul { activation: Activation::Relu };
            n.op(Builtin::Mul, &[x, c], &shape, (0.03, -5), options)
        }),
        single("add_constant", v, &shape, |n, x| {
            let c = n.weights(&[4], 0, 0);
            let options = OperatorOptions::Add { activation: Activation::None };
            n.op(Builtin::Add, &[x, c], &shape, OUTPUT, options)
        }),
        relu("relu", Builtin::Relu),
        relu("relu6", Builtin::Relu6),
        relu("relu_n1_to_1", Builtin::ReluN1To1),
        single("softmax", v, &[1, 7], |n, x| {
            let options = OperatorOptions::Softmax { beta: 1.0 };
            n.op(Builtin::Softmax, &[x], &[1, 7], (1.0 / 256.0, -128), options)
        }),
    ]
}

fn layouts(v: Variant) -> Vec<Sample> {
    let shape = [1, 3, 2, 4];
    let mean = |keep_dims| OperatorOptions::Reducer { keep_dims };
    vec![
        single("reshape", v, &shape, |n, x| {
            let to = n.ints(&[2], &[-1, 24]);
            n.op(Builtin::Reshape, &[x, to], &[1, 24], INPUT, OperatorOptions::Reshape { new_shape: vec![-1, 24] })
        }),
        single("reshape_options", v, &shape, |n, x| {
            n.op(Builtin::Reshape, &[x], &[1, 6, 4], INPUT, OperatorOptions::Reshape { new_shape: vec![1, 6, 4] })
        }),
        single("squeeze", v, &[1, 1, 1, 5], |n, x| {
            n.op(Builtin::Squeeze, &[x], &[1, 5], INPUT, OperatorOptions::Squeeze { dims: vec![1, 2] })
        }),
        single("expand_dims", v, &[1, 5], |n, x| {
            let axis = n.ints(&[], &[-1]);
            n.op(Builtin::ExpandDims, &[x, axis], &[1, 5, 1], INPUT, OperatorOptions::None)
        }),
        single("transpose", v, &shape, |n, x| {
            let perm = n.ints(&[4], &[0, 2, 3, 1]);
            n.op(Builtin::Transpose, &[x, perm], &[1, 2, 4, 3], INPUT, OperatorOptions::None)
        }),
        single("pad", v, &shape, |n, x| {
            let pads = n.ints(&[4, 2], &[0, 0, 1, 2, 0, 1, 0, 0]);
            n.op(Builtin::Pad, &[x, pads], &[1, 6, 3, 4], INPUT, OperatorOptions::None)
        }),
        single("mean", v, &shape, |n, x| {
            let axes = n.ints(&[2], &[1, 2]);
            n.op(Builtin::Mean, &[x, axes], &[1, 4], OUTPUT, mean(false))
        }),
        single("mean_keep", v, &shape, |n, x| {
            let axes = n.ints(&[2], &[2, 1]);
            n.op(Builtin::Mean, &[x, axes], &[1, 1, 1, 4], INPUT, mean(true))
        }),
        single("mean_one_axis", v, &[1, 6, 4], |n, x| {
            let axes = n.ints(&[1], &[-1]);
            n.op(Builtin::Mean, &[x, axes], &[1, 6], OUTPUT, mean(false))
        }),
        single("concatenation", v, &shape, |n, x| {
            let r = n.op(Builtin::Relu, &[x], &shape, INPUT, OperatorOptions::None);
            let options = OperatorOptions::Concatenation { axis: -1, activation: Activation::None };
            n.op(Builtin::Concatenation, &[x, r], &[1, 3, 2, 8], INPUT, options)
        }),
    ]
}

fn conversions() -> Vec<Sample> {
    let shape = [1, 3, 2, 4];
    let (int8, float) = (|name| TensorSpec::int8(name, &shape, 0.05, 3), |name| TensorSpec::float(name, &shape));
    let one = |name: &str, op, from: TensorSpec, to: TensorSpec| {
        let mut writer = ModelWriter::new();
        let (x, y) = (writer.input(from), writer.tensor(to));
        writer.operator(op, &[x], &[y], OperatorOptions::None);
        writer.output(y);
        (name.to_string(), writer.finish())
    };
    vec![
        one("quantize", Builtin::Quantize, float("x"), int8("y")),
        one("dequantize", Builtin::Dequantize, int8("x"), float("y")),
        one("requantize", Builtin::Quantize, int8("x"), TensorSpec::int8("y", &shape, 0.07, -20)),
    ]
}

/// Convolution, depthwise convolution with a residual sum of two branches, padding, pooling, a matrix product.
fn network(v: Variant) -> Sample {
    single("network", v, &[1, 6, 6, 2], |n, x| {
        let conv =
            |padding, activation| OperatorOptions::Conv2D { padding, strides: (1, 1), dilations: (1, 1), activation };
        let (w, b) = (n.weights(&[4, 3, 3, 2], 4, 0), n.bias(4, 4));
        let shape = [1, 6, 6, 4];
        let a = n.op(Builtin::Conv2D, &[x, w, b], &shape, OUTPUT, conv(Padding::Same, Activation::Relu));
        let (w, b) = (n.weights(&[1, 3, 3, 4], 4, 3), n.bias(4, 4));
        let options = OperatorOptions::DepthwiseConv2D {
            padding: Padding::Same,
            strides: (1, 1),
            dilations: (1, 1),
            multiplier: 1,
            activation: Activation::None,
        };
        let d = n.op(Builtin::DepthwiseConv2D, &[a, w, b], &shape, (0.2, 5), options);
        let s = n.op(Builtin::Add, &[a, d], &shape, (0.2, -9), OperatorOptions::Add { activation: Activation::Relu });
        let pads = n.ints(&[4, 2], &[0, 0, 0, 1, 1, 0, 0, 0]);
        let p = n.op(Builtin::Pad, &[s, pads], &[1, 7, 7, 4], (0.2, -9), OperatorOptions::None);
        let options = OperatorOptions::Pool2D {
            padding: Padding::Valid,
            strides: (7, 7),
            filter: (7, 7),
            activation: Activation::None,
        };
        let m = n.op(Builtin::AveragePool2D, &[p], &[1, 1, 1, 4], (0.2, -9), options);
        let to = n.ints(&[2], &[-1, 4]);
        let r = n.op(Builtin::Reshape, &[m, to], &[1, 4], (0.2, -9), OperatorOptions::None);
        let (w, b) = (n.weights(&[3, 4], 0, 0), n.bias_after((0.2, -9), 3, 0));
        n.op(Builtin::FullyConnected, &[r, w, b], &[1, 3], (0.05, 0), dense(Activation::None, false))
    })
}
