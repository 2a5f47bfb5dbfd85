//! Microseconds for each inference of integer kernels on one thread, beside float32: networks of 784-50-50-10 and two convolutions, with random weights.
//!
//! `cargo bench --bench kernels`, or `cargo bench --bench kernels -- PROFILE FILE ...` for files under `float32`, `real` or `ort-fused`. Batches of 1 and of
//! 256 rows, half of whose numbers are zero; the fastest tenth of a second's calls.

mod common;

use std::time::{Duration, Instant};

use common::seconds;
use quaver::guard::kernels::float::{FloatNet, FloatScratch};
use quaver::guard::kernels::{Compiled, Isa, Scratch};
use quaver::model::build::ModelBuilder;
use quaver::model::ir::{DType, Data, Model, Op, Tensor, Window};
use quaver::model::lower::{Lowered, lower};
use quaver::model::profile::{Float32, OrtFused, Profile, Real};
use quaver::model::{ReadOptions, read};
use quaver::property::Region;
use quaver::quantize::activations::{ActivationScheme, proved};
use quaver::quantize::qdq::to_qdq;
use quaver::quantize::{BiasRule, LayerScheme, Quantizer, WeightRule};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The time that one call in ten does not exceed: others of the machine disturb the rest.
fn tenth(call: impl FnMut()) -> f64 {
    seconds(10, Duration::from_secs(1), call)
}

struct Maker {
    rng: StdRng,
    builder: ModelBuilder,
}

impl Maker {
    fn new(name: &str) -> Self {
        Maker { rng: StdRng::seed_from_u64(1), builder: ModelBuilder::new(name) }
    }

    fn constant(&mut self, name: String, shape: &[usize], size: f32) -> quaver::model::ir::ValueId {
        let data = (0..shape.iter().product()).map(|_| self.rng.random_range(-size..size)).collect();
        let tensor = Tensor { shape: shape.into(), data: Data::F32(data) };
        self.builder.constant(&name, tensor).expect("a constant")
    }
}

fn dense(widths: &[usize]) -> Model {
    let mut m = Maker::new("dense");
    let mut x = m.builder.input("x", DType::F32, &[1, widths[0]]).expect("an input");
    for (i, w) in widths.windows(2).enumerate() {
        let size = 1.7 / (w[0] as f32).sqrt();
        let weights = m.constant(format!("w{i}"), &[w[1], w[0]], size);
        let bias = m.constant(format!("b{i}"), &[w[1]], 0.1);
        let gemm = Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
        x = m.builder.node(gemm, &[x, weights, bias]).expect("a layer");
        if i + 2 < widths.len() {
            x = m.builder.node(Op::Relu, &[x]).expect("a layer");
        }
    }
    m.builder.output(x);
    m.builder.finish().expect("a model")
}

fn convolutional() -> Model {
    let mut m = Maker::new("convolutional");
    let mut x = m.builder.input("x", DType::F32, &[1, 1, 28, 28]).expect("an input");
    for (i, (channels, before)) in [(8, 1), (16, 8)].into_iter().enumerate() {
        let weights = m.constant(format!("w{i}"), &[channels, before, 3, 3], 0.5 / (before as f32).sqrt());
        let bias = m.constant(format!("b{i}"), &[channels], 0.1);
        let (kernel, pads) = (vec![3, 3], || vec![1, 1]);
        let window = Window {
            kernel,
            strides: vec![2, 2],
            dilations: vec![1, 1],
            pads_begin: pads(),
            pads_end: pads(),
            ceil_mode: false,
        };
        x = m.builder.node(Op::Conv { window, group: 1 }, &[x, weights, bias]).expect("a layer");
        x = m.builder.node(Op::Relu, &[x]).expect("a layer");
    }
    x = m.builder.reshape(x, &[1, 784]).expect("a row");
    let (weights, bias) = (m.constant("w".into(), &[10, 784], 0.06), m.constant("b".into(), &[10], 0.1));
    let gemm = Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
    x = m.builder.node(gemm, &[x, weights, bias]).expect("a layer");
    m.builder.output(x);
    m.builder.finish().expect("a model")
}

/// A network of 8 to 16 bits from a float network.
fn quantized(model: &Model, bits: u8, profile: &dyn Profile, biases: BiasRule) -> Lowered {
    let quantizer = Quantizer::new(model).expect("layers");
    let scheme = LayerScheme { biases, ..LayerScheme::new(bits, WeightRule::Symmetric) };
    let made = quantizer.at(&vec![scheme; quantizer.layers().len()]).expect("a network");
    let outputs = biases == BiasRule::Accumulator;
    let activations = ActivationScheme { bits, symmetric: true, outputs, input_step: None };
    let n = model.value(model.inputs[0]).shape.iter().product();
    let ranges = proved(model, outputs, &Region { lo: vec![0.0; n], hi: vec![1.0; n] }).expect("ranges");
    let file = to_qdq(&quantizer, &made, Some((&activations, &ranges))).expect("a file");
    lower(&file, profile).expect("a net")
}

fn report(name: &str, kernels: &str, len: usize, mut run: impl FnMut(&[f32])) {
    let mut rng = StdRng::seed_from_u64(2);
    let mut number = || if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..1.0) };
    let x: Vec<f32> = (0..256 * len).map(|_| number()).collect();
    let mut next = 0;
    let one = tenth(|| {
        for _ in 0..16 {
            run(&x[next * len..(next + 1) * len]);
            next = (next + 1) % 256;
        }
    });
    let many = tenth(|| run(&x));
    println!("{name:32} {kernels:9} {:9.2} {:9.2}", one / 16.0 * 1e6, many / 256.0 * 1e6);
}

fn float(name: &str, lowered: &Lowered) {
    let float = FloatNet::new(lowered).expect("a float network");
    let (mut scratch, mut out) = (FloatScratch::new(), vec![]);
    report(name, "float32", float.input_len(), |x| {
        out.clear();
        float.append(x, &mut scratch, &mut out);
    });
}

fn integer(name: &str, lowered: &Lowered) {
    for isa in Isa::available() {
        let before = Instant::now();
        let made = Compiled::new(lowered, isa).expect("a chain");
        let compiled = before.elapsed().as_secs_f64();
        let (mut scratch, mut out) = (Scratch::new(), vec![]);
        report(name, &format!("{isa:?}"), made.input_len(), |x| {
            out.clear();
            made.run(x, &mut scratch, &mut out);
        });
        println!("    compiled in {:.1} ms", compiled * 1e3);
    }
}

/// Measures a file under the profile that suits it: `float32`, or else as quantized.
fn file(profile: &str, path: &str) {
    let model = read(path.as_ref(), &ReadOptions::default()).expect("a model");
    let name = path.rsplit('/').next().unwrap_or(path);
    match profile {
        "float32" => float(name, &lower(&model, &Float32).expect("a net")),
        "real" => integer(name, &lower(&model, &Real).expect("a net")),
        _ => integer(name, &lower(&model, &OrtFused { any_x86: false }).expect("a net")),
    }
}

fn random_networks() {
    for model in [dense(&[784, 50, 50, 10]), convolutional()] {
        float(&format!("{} float32", model.name), &lower(&model, &Float32).expect("a net"));
        let ort = OrtFused { any_x86: false };
        let kinds: [(u8, &dyn Profile, BiasRule); 4] = [
            (8, &ort, BiasRule::Accumulator),
            (8, &Real, BiasRule::Float),
            (12, &Real, BiasRule::Float),
            (16, &Real, BiasRule::Float),
        ];
        for (bits, profile, biases) in kinds {
            let lowered = quantized(&model, bits, profile, biases);
            integer(&format!("{} {bits} bits {}", model.name, profile.id()), &lowered);
        }
    }
}

fn main() {
    println!("{:32} {:9} {:>9} {:>9}   microseconds for each row", "network", "kernels", "batch 1", "batch 256");
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match &args[..] {
        [] => random_networks(),
        args => args.chunks_exact(2).for_each(|pair| file(&pair[0], &pair[1])),
    }
}
