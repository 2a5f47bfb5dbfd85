//! Quantizers against independent computations: exact rationals, a transcription of CEG4N's program, references in Python.

mod common;

use std::sync::Arc;

use common::{array, collection, models};
use proptest::prelude::*;
use quaver::model::build::ModelBuilder;
use quaver::model::ir::{DType, Model, Op, Tensor, Window};
use quaver::model::lower::lower;
use quaver::model::profile::{Float32, OrtFused, Profile, Real};
use quaver::model::{ReadOptions, onnx, read, read_bytes};
use quaver::net::{Enclosure, execute};
use quaver::num::Ratio;
use quaver::property::Region;
use quaver::quantize::activations::{ActivationScheme, from_data, proved};
use quaver::quantize::gpfq::{Options, Radius, gpfq};
use quaver::quantize::qdq::to_qdq;
use quaver::quantize::scheme::integer_bits;
use quaver::quantize::{BiasRule, Kind, LayerScheme, Levels, Quantizer, WeightRule, layers, quantize_weights};

fn model(name: &str) -> Model {
    read(&models().join(name), &ReadOptions::default()).expect("an example model")
}

fn exact(x: f64) -> Ratio {
    Ratio::from_f64(x).expect("a finite number")
}

/// The exact number (q - z) s.
fn level(levels: &Levels, q: i64) -> Ratio {
    exact((q - levels.zero_point) as f64).times(&exact(levels.scale.into()))
}

fn absolute(x: Ratio) -> Ratio {
    if x.is_negative() { x.negated() } else { x }
}

fn at_most(a: &Ratio, b: &Ratio) -> bool {
    !b.minus(a).is_negative()
}

fn numbers() -> impl Strategy<Value = Vec<f32>> {
    let number = prop_oneof![-2.0_f32..2.0, -0.01_f32..0.01, (-64_i8..64).prop_map(|k| f32::from(k) / 32.0)];
    (prop::collection::vec(number, 1..40), prop::sample::select(vec![1e-6_f32, 1.0, 300.0]))
        .prop_map(|(v, unit)| v.into_iter().map(|x| x * unit).collect())
}

/// A number and its level are at most half a step apart, and integers grow with the numbers.
fn check_nearest(levels: &Levels, numbers: &[f32], slack: f64) {
    let half = exact(0.5 + slack).times(&exact(levels.scale.into()));
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f32::total_cmp);
    let integers: Vec<i64> = sorted.iter().map(|&u| levels.quantize(u)).collect();
    assert!(integers.windows(2).all(|w| w[0] <= w[1]), "not monotone: {integers:?}");
    for (&u, &q) in sorted.iter().zip(&integers) {
        assert!(levels.range.0 <= q && q <= levels.range.1, "{q} is outside {:?}", levels.range);
        let error = absolute(exact(u.into()).minus(&level(levels, q)));
        assert!(at_most(&error, &half), "{u} became {q} of {levels:?}");
    }
}

proptest! {
    #[test]
    fn uniform_rounding_is_to_the_nearest_level(numbers in numbers(), bits in 2_u8..=32) {
        for rule in [WeightRule::Symmetric, WeightRule::Asymmetric] {
            let levels = Levels::fit(rule, bits, numbers.iter().copied());
            // Quotients are rounded to binary64: exact to 24 bits.
            check_nearest(&levels, &numbers, if bits <= 24 { 0.0 } else { 1e-6 });
            let zero = levels.quantize(0.0);
            assert_eq!((zero, levels.value(zero)), (levels.zero_point, 0.0));
            let steps = levels.range.1 - levels.range.0;
            assert_eq!(steps, (1_i64 << bits) - if rule == WeightRule::Symmetric { 2 } else { 1 });
        }
    }

    #[test]
    fn a_tie_goes_to_the_even_integer(k in -7_i64..7, exponent in -20_i32..20) {
        // A scale of 2^e, and numbers half way between two levels.
        let scale = 2.0_f32.powi(exponent);
        let numbers = [(k as f32 + 0.5) * scale, 7.0 * scale];
        let q = Levels::fit(WeightRule::Symmetric, 4, numbers).quantize(numbers[0]);
        prop_assert!(q % 2 == 0 && (q - k == 0 || q - k == 1), "{k} and a half became {q}");
    }

    #[test]
    fn a_level_is_two_float32_roundings_of_its_exact_value(numbers in numbers(), bits in 2_u8..=24) {
        let levels = Levels::fit(WeightRule::Asymmetric, bits, numbers.iter().copied());
        for &u in &numbers {
            let q = levels.quantize(u);
            let (value, real) = (levels.value(q), level(&levels, q));
            // q - z has at most 25 bits; the product is rounded once more.
            let error = absolute(exact(value.into()).minus(&real));
            prop_assert!(at_most(&error, &absolute(real).times(&exact(2.0_f64.powi(-23)))));
        }
    }

    #[test]
    fn powers_of_two_are_exact_fixed_point(numbers in numbers(), bits in 2_u8..=24) {
        let levels = Levels::fit(WeightRule::PowerOfTwo, bits, numbers.iter().copied());
        let largest = numbers.iter().map(|u| f64::from(u.round_ties_even().abs())).fold(0.0, f64::max);
        // The fewest integer bits, sign included, whose power of two is not below the rounded largest magnitude.
        let i = (1..200).find(|&i| largest <= if i == 1 { 0.0 } else { 2.0_f64.powi(i - 1) }).unwrap();
        let i = if largest == 1.0 { 2 } else { i };
        let scale = 2.0_f64.powi(i - i32::from(bits));
        prop_assert_eq!(f64::from(levels.scale), scale);
        for &u in &numbers {
            let v = (f64::from(u) / scale).clamp(-2.0_f64.powi(i32::from(bits) - 1), 2.0_f64.powi(i32::from(bits) - 1) - 1.0);
            // Half away from zero of the clipped number, on the scaled grid.
            let rounded = v.trunc() + if v.fract().abs() >= 0.5 { v.signum() } else { 0.0 };
            prop_assert_eq!(f64::from(levels.value(levels.quantize(u))), rounded * scale);
        }
    }

    #[test]
    fn ceg4n_is_its_program(numbers in numbers(), bits in 2_u8..=31) {
        prop_assume!(numbers.iter().any(|u| *u != 0.0));
        let beta = numbers.iter().map(|u| f64::from(u.abs())).fold(0.0, f64::max);
        let scale = ((beta - -beta) / (2.0_f64.powi(bits.into()) - 1.0)) as f32;
        let (least, most) = (-(1_i64 << (bits - 1)), (1_i64 << (bits - 1)) - 1);
        let levels = Levels::fit(WeightRule::Ceg4n, bits, numbers.iter().copied());
        for &u in &numbers {
            let x = u / scale;
            let q = if x < 0.0 { x - 0.5 } else { x + 0.5 }.trunc() as i64;
            let q = q.max(least).min(most);
            prop_assert_eq!(levels.quantize(u), q);
            prop_assert_eq!(levels.value(q).to_bits(), (q as f32 * scale).to_bits());
        }
    }
}

#[test]
fn ceg4n_is_what_pytorch_computes() {
    let golden = models().join("golden/quantize/ceg4n.npz");
    let numbers: Vec<f32> = array(&golden, "u").1.iter().map(|&x| x as f32).collect();
    for bits in 2..=31_u8 {
        let levels = Levels::fit(WeightRule::Ceg4n, bits, numbers.iter().copied());
        let values: Vec<f64> = numbers.iter().map(|&u| levels.value(levels.quantize(u)).into()).collect();
        assert_eq!(values, array(&golden, &format!("bits_{bits}")).1, "{bits} bits");
    }
    // PyTorch's conversion to int32 overflows here, and gives the most negative integer.
    let levels = Levels::fit(WeightRule::Ceg4n, 32, [1.0]);
    assert_eq!(levels.quantize(1.0), i64::from(i32::MAX));
}

#[test]
fn integer_bits_are_those_of_the_published_program() {
    for (lo, hi, bits) in [
        (0.0, 0.5, 1),
        (0.0, 0.51, 2),
        (-1.4, 1.0, 2),
        (-2.343, 1.0, 2),
        (0.0, 2.5, 2),
        (0.0, 2.51, 3),
        (-4.0, 0.0, 3),
        (-4.6, 0.0, 4),
    ] {
        assert_eq!(integer_bits(lo, hi), bits, "{lo} to {hi}");
    }
}

const ALL_RULES: [WeightRule; 6] = [
    WeightRule::Ceg4n,
    WeightRule::Symmetric,
    WeightRule::Asymmetric,
    WeightRule::MinMax,
    WeightRule::Fitted,
    WeightRule::PowerOfTwo,
];

#[test]
fn numbers_of_one_value_have_levels() {
    for rule in ALL_RULES {
        for bits in [2, 8, 32] {
            for u in [0.0, 1e-45, -1e-40, 1.0, -3.0e37] {
                let levels = Levels::fit(rule, bits, [u]);
                let value = levels.value(levels.quantize(u));
                assert!(levels.scale.is_normal() && value.is_finite(), "{rule:?} {bits} {u}: {levels:?}");
                assert!(
                    (f64::from(value) - f64::from(u)).abs() <= f64::from(levels.scale),
                    "{rule:?} {bits} {u}: {value}"
                );
            }
        }
    }
}

/// Two dense layers that share their weights (once from the left), a convolution, and a MatMul with an Add.
fn layouts() -> Model {
    let mut b = ModelBuilder::new("layouts");
    let x = b.input("x", DType::F32, &[1, 1, 2, 2]).unwrap();
    let filters = b.constant("filters", Tensor::f32(&[2, 1, 1, 1], vec![0.5, -2.0])).unwrap();
    let ones = || vec![1, 1];
    let window = Window {
        kernel: ones(),
        strides: ones(),
        dilations: ones(),
        pads_begin: vec![0, 0],
        pads_end: vec![0, 0],
        ceil_mode: false,
    };
    let y = b.node(Op::Conv { window, group: 1 }, &[x, filters]).unwrap();
    let column = b.reshape(y, &[8, 1]).unwrap();
    let w = b.constant("w", Tensor::f32(&[3, 8], (0..24).map(|i| (i as f32 - 11.0) / 16.0).collect())).unwrap();
    let left = b.node(Op::MatMul, &[w, column]).unwrap();
    let bias = b.constant("bias", Tensor::f32(&[3, 1], vec![0.25, -0.75, 1.0])).unwrap();
    let left = b.node(Op::Add, &[left, bias]).unwrap();
    let row = b.reshape(y, &[1, 8]).unwrap();
    let gemm = Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
    let c = b.constant("c", Tensor::f32(&[3], vec![0.0, 1.0, 2.0])).unwrap();
    let right = b.node(gemm, &[row, w, c]).unwrap();
    let right = b.reshape(right, &[3, 1]).unwrap();
    let sum = b.node(Op::Add, &[left, right]).unwrap();
    b.output(sum);
    b.finish().unwrap()
}

#[test]
fn layers_are_found_in_every_layout() {
    let model = layouts();
    let found = layers(&model).unwrap();
    let seen: Vec<_> =
        found.iter().map(|l| (l.kind, l.weights.len, l.biases.map_or(0, |b| b.len), l.axis, l.neurons)).collect();
    assert_eq!(
        seen,
        [(Kind::Convolution, 2, 0, Some(0), 8), (Kind::Dense, 24, 3, Some(0), 3), (Kind::Dense, 24, 3, Some(0), 3)]
    );
    // Shared weights can have different bits.
    let schemes =
        [8, 3, 5].map(|bits| LayerScheme { per_channel: true, ..LayerScheme::new(bits, WeightRule::Symmetric) });
    let quantizer = Quantizer::new(&model).unwrap();
    let quantized = quantizer.at(&schemes).unwrap();
    assert_eq!(quantized.layers[1].weights.levels.len(), 3);
    assert_ne!(quantized.layers[1].weights.values, quantized.layers[2].weights.values);
    // Each channel reaches its own largest integer.
    for (layer, largest) in quantized.layers.iter().zip([127, 3, 15]) {
        let rows = layer.weights.integers.len() / layer.weights.levels.len();
        assert!(layer.weights.integers.chunks(rows).all(|c| c.iter().map(|q| q.abs()).max() == Some(largest)));
    }
    for format in [quantized.model.clone(), to_qdq(&quantizer, &quantized, None).unwrap()] {
        let again =
            read_bytes(&onnx::write(&format).unwrap(), "layouts.onnx".as_ref(), &ReadOptions::default()).unwrap();
        assert_eq!(
            run(&again, &Float32, &[0.1, -0.3, 0.7, 0.9]),
            run(&quantized.model, &Float32, &[0.1, -0.3, 0.7, 0.9])
        );
    }
}

fn run(model: &Model, profile: &dyn Profile, x: &[f64]) -> Vec<Enclosure> {
    let lowered = lower(model, profile).expect("a model with a meaning");
    let len = lowered.net.node(lowered.net.inputs()[0]).len();
    execute(&lowered.net, &[x.to_vec()], x.len() / len)
}

fn rows(name: &str) -> Vec<f64> {
    let bytes = std::fs::File::open(models().join(name)).expect("example inputs");
    npyz::NpyFile::new(bytes).unwrap().into_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
}

#[test]
fn both_formats_are_the_same_network() {
    for (name, x) in [("iris_float", "iris_x"), ("digits_mlp_float", "digits_x"), ("digits_conv_float", "digits_x")] {
        let (model, x) = (model(&format!("{name}.onnx")), rows(&format!("{x}.npy")));
        let quantizer = Quantizer::new(&model).unwrap();
        for rule in ALL_RULES {
            for (bits, biases) in
                [(2, BiasRule::Same), (8, BiasRule::Bits(12)), (11, BiasRule::Float), (20, BiasRule::Same)]
            {
                let per_channel = !rule.is_joint() && bits != 8;
                let scheme = LayerScheme { bits, rule, per_channel, biases };
                let quantized = quantizer.at(&vec![scheme; quantizer.layers().len()]).unwrap();
                for layer in &quantized.layers {
                    let w = &layer.weights;
                    let inner = w.axis.map_or(1, |a| w.values.shape[a + 1..].iter().product());
                    let value = |(i, &q): (usize, &i32)| w.levels[(i / inner) % w.levels.len()].value(q.into());
                    let values: Vec<f32> = w.integers.iter().enumerate().map(value).collect();
                    assert_eq!(w.values.as_f32(), Some(&values[..]));
                }
                let written = to_qdq(&quantizer, &quantized, None);
                if bits > 16 && rule == WeightRule::Asymmetric {
                    assert!(written.unwrap_err().to_string().contains("int32 has none"));
                    continue;
                }
                let expected = run(&quantized.model, &Float32, &x);
                for format in [quantized.model.clone(), written.unwrap()] {
                    let bytes = onnx::write(&format).unwrap();
                    let again = read_bytes(&bytes, "again.onnx".as_ref(), &ReadOptions::default()).unwrap();
                    assert_eq!(run(&again, &Float32, &x), expected, "{name} {rule:?} {bits}");
                    assert_eq!(run(&again, &OrtFused { any_x86: false }, &x), expected, "{name} {rule:?} {bits}");
                }
            }
        }
    }
}

#[test]
fn a_layer_at_a_scheme_is_made_once() {
    let quantizer = Quantizer::new(&model("iris_float.onnx")).unwrap();
    let at = |bits: [u8; 3]| quantizer.at(&bits.map(|b| LayerScheme::new(b, WeightRule::Ceg4n))).unwrap();
    let (first, second) = (at([4, 5, 6]), at([4, 7, 6]));
    assert!(Arc::ptr_eq(&first.layers[0].weights, &second.layers[0].weights));
    let fresh = quantize_weights(&model("iris_float.onnx"), &[4, 7, 6].map(|b| LayerScheme::new(b, WeightRule::Ceg4n)))
        .unwrap();
    assert_eq!(second.layers, fresh.layers);
    assert_eq!(second.layers[1].storage_bits(&quantizer.layers()[1]), 7 * 72);
    // One scale for weights and biases.
    assert_eq!(second.layers[1].weights.levels, second.layers[1].biases.as_ref().unwrap().levels);
}

/// What a network of Gemm, Relu and quantized activations computes, in f64.
fn by_hand(model: &Model, levels: &[Levels], x: &[f64]) -> Vec<f64> {
    let fake = |l: &Levels, v: f64| {
        let q = ((v / f64::from(l.scale)).round_ties_even() as i64 + l.zero_point).clamp(l.range.0, l.range.1);
        (q - l.zero_point) as f64 * f64::from(l.scale)
    };
    let found = layers(model).unwrap();
    let mut h: Vec<f64> = x.iter().map(|&v| fake(&levels[0], v)).collect();
    for (k, layer) in found.iter().enumerate() {
        let constant = |id| model.value(id).constant.as_ref().unwrap().as_f32().unwrap().to_vec();
        let (w, b) = (constant(layer.weights.value), constant(layer.biases.unwrap().value));
        let neuron = |j: usize| {
            let at = |t: usize| if layer.axis == Some(0) { w[j * h.len() + t] } else { w[t * b.len() + j] };
            let sum: f64 = (0..h.len()).map(|t| f64::from(at(t)) * h[t]).sum::<f64>() + f64::from(b[j]);
            fake(&levels[k + 1], if k + 1 < found.len() { sum.max(0.0) } else { sum })
        };
        h = (0..b.len()).map(neuron).collect();
    }
    h
}

#[test]
fn quantized_activations_are_on_their_levels() {
    let (model, x) = (model("iris_float.onnx"), rows("iris_x.npy"));
    let quantizer = Quantizer::new(&model).unwrap();
    for bits in [2, 4, 8, 9, 12, 16] {
        for symmetric in [false, true] {
            let activations = ActivationScheme { bits, symmetric, outputs: true, input_step: None };
            let ranges = from_data(quantizer.model(), true, &x).unwrap().scaled(0.75);
            let levels: Vec<Levels> = ranges
                .points
                .iter()
                .zip(&ranges.ends)
                .map(|(&p, &e)| activations.levels(quantizer.model(), p, e).0)
                .collect();
            assert_eq!(levels.len(), 4);
            let scheme = LayerScheme { biases: BiasRule::Float, ..LayerScheme::new(8, WeightRule::Symmetric) };
            let quantized = quantizer.at(&[scheme; 3]).unwrap();
            let written = to_qdq(&quantizer, &quantized, Some((&activations, &ranges))).unwrap();
            let again =
                read_bytes(&onnx::write(&written).unwrap(), "a.onnx".as_ref(), &ReadOptions::default()).unwrap();
            let found = run(&again, &Float32, &x).remove(0);
            for (r, row) in x.chunks(4).enumerate() {
                for (j, y) in by_hand(&quantized.model, &levels, row).into_iter().enumerate() {
                    let (lo, hi) = (found.lo(r * 3 + j), found.hi(r * 3 + j));
                    let slack = 1e-5 * y.abs();
                    assert!(lo - slack <= y && y <= hi + slack, "{bits} bits, row {r}: {y} is outside [{lo}, {hi}]");
                }
            }
        }
    }
}

#[test]
fn proved_ranges_hold_the_data() {
    let (model, x) = (model("digits_conv_float.onnx"), rows("digits_x.npy"));
    let region = Region { lo: vec![0.0; 64], hi: vec![1.0; 64] };
    let (data, proof) = (from_data(&model, true, &x).unwrap(), proved(&model, true, &region).unwrap());
    assert_eq!(data.points, proof.points);
    assert_eq!(data.points.len(), 4);
    for (d, p) in data.ends.iter().zip(&proof.ends) {
        assert!(p.0 <= d.0 && d.1 <= p.1, "{d:?} is not in {p:?}");
    }
    assert_eq!(proved(&model, false, &region).unwrap().points.len(), 3);
}

#[test]
fn integer_kernels_take_quantized_networks() {
    for (name, x) in [("iris_float.onnx", "iris_x.npy"), ("digits_conv_float.onnx", "digits_x.npy")] {
        let (model, x) = (model(name), rows(x));
        let quantizer = Quantizer::new(&model).unwrap();
        let scheme =
            LayerScheme { bits: 8, rule: WeightRule::Symmetric, per_channel: true, biases: BiasRule::Accumulator };
        let quantized = quantizer.at(&vec![scheme; quantizer.layers().len()]).unwrap();
        let activations = ActivationScheme { bits: 8, symmetric: false, outputs: true, input_step: None };
        let ranges = from_data(&model, true, &x).unwrap();
        let written = to_qdq(&quantizer, &quantized, Some((&activations, &ranges))).unwrap();
        let lowered = lower(&written, &OrtFused { any_x86: false }).unwrap();
        assert_eq!(lowered.integer_layers.len(), quantizer.layers().len(), "{name}");
        assert!(run(&written, &OrtFused { any_x86: false }, &x).iter().all(|y| y.radius.is_none()));
        lower(&written, &Real).expect("a meaning in real arithmetic");
    }
}

#[test]
fn wide_activations_leave_no_layer_to_the_runtimes_weight_only_kernel() {
    let (model, x) = (model("iris_float.onnx"), rows("iris_x.npy"));
    let quantizer = Quantizer::new(&model).unwrap();
    let quantized = quantizer.at(&[LayerScheme::new(8, WeightRule::Symmetric); 3]).unwrap();
    let activations = ActivationScheme { bits: 16, symmetric: false, outputs: true, input_step: None };
    let ranges = from_data(&model, true, &x).unwrap();
    let written = to_qdq(&quantizer, &quantized, Some((&activations, &ranges))).unwrap();
    let transposed = |op: &Op| matches!(op, Op::Gemm { trans_b: true, .. });
    assert_eq!(written.nodes.iter().filter(|n| transposed(&n.op)).count(), 3);
    lower(&written, &OrtFused { any_x86: false }).expect("a meaning in ONNX Runtime");
}

#[test]
fn gpfq_is_the_reference() {
    let golden = models().join("golden/quantize/gpfq.npz");
    for (name, x, bits) in
        [("iris_float", "iris_x", 4), ("iris_float", "iris_x", 3), ("digits_mlp_float", "digits_x", 4)]
    {
        let quantizer = Quantizer::new(&model(&format!("{name}.onnx"))).unwrap();
        for (radius, constant, text) in [(Radius::Maxima, 1.16, "maxima"), (Radius::Median, 3.0, "median")] {
            let options = Options { radius, constant };
            let quantized = gpfq(&quantizer, &[bits; 3], &rows(&format!("{x}.npy")), &options).unwrap();
            for (k, layer) in quantized.layers.iter().enumerate() {
                let expected = array(&golden, &format!("{name}_{bits}_{text}_{k}")).1;
                let found: Vec<f64> = layer.weights.integers.iter().map(|&q| q.into()).collect();
                assert_eq!(found, expected, "{name} at {bits} bits, {text}, layer {k}");
                assert!(layer.biases.is_none());
            }
        }
    }
}

#[test]
fn gpfq_is_nearer_to_the_float_network_than_rounding() {
    let (model, x) = (model("digits_mlp_float.onnx"), rows("digits_x.npy"));
    let quantizer = Quantizer::new(&model).unwrap();
    let followed = gpfq(&quantizer, &[4; 3], &x, &Options::default()).unwrap();
    let rounded = quantizer
        .at(&[LayerScheme { biases: BiasRule::Float, ..LayerScheme::new(4, WeightRule::Symmetric) }; 3])
        .unwrap();
    let float = run(&model, &Float32, &x).remove(0).center;
    let distance = |m: &Model| {
        let y = run(m, &Float32, &x).remove(0).center;
        y.iter().zip(&float).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    };
    assert!(distance(&followed.model) < 0.5 * distance(&rounded.model));
}

#[test]
fn what_has_no_meaning_is_refused_by_name() {
    let iris = model("iris_float.onnx");
    let refusal = |schemes: &[LayerScheme]| quantize_weights(&iris, schemes).unwrap_err().to_string();
    let symmetric = LayerScheme::new(8, WeightRule::Symmetric);
    assert!(refusal(&[symmetric; 2]).contains("there are 3 layers"));
    assert!(refusal(&[LayerScheme { bits: 1, ..symmetric }; 3]).contains("1 bits"));
    assert!(refusal(&[LayerScheme { biases: BiasRule::Bits(33), ..symmetric }; 3]).contains("33 bits"));
    let joint = LayerScheme { per_channel: true, ..LayerScheme::new(8, WeightRule::Ceg4n) };
    assert!(refusal(&[joint; 3]).contains("one scale for weights and biases"));
    assert!(layers(&model("iris_qdq.onnx")).unwrap_err().to_string().contains("quantized already"));
    let conv = Quantizer::new(&model("digits_conv_float.onnx")).unwrap();
    let error = gpfq(&conv, &[4; 3], &rows("digits_x.npy"), &Options::default()).unwrap_err().to_string();
    assert!(error.contains("`conv0`") && error.contains("convolution"), "{error}");
    let quantizer = Quantizer::new(&iris).unwrap();
    assert!(gpfq(&quantizer, &[4; 3], &[0.0; 3], &Options::default()).unwrap_err().to_string().contains("rows of 4"));
}

#[test]
fn published_networks_have_layers() {
    let Some(folder) = collection() else { return };
    for (file, count, weights) in [
        ("ceg4n/networks/iris_15x2.onnx", 3, 60 + 225 + 45),
        ("acasxu/onnx/ACASXU_run2a_1_1_batch_2000.onnx", 7, 13_000),
        ("nnequiv/benchmarks-versions/ACASXU_run2a_1_1_batch_2000-retrain-mirror.onnx", 7, 13_000),
        ("vnncomp_extra_nets/cifar10_medium.onnx", 0, 0),
        ("vnncomp_extra_nets/resnet_2b.onnx", 0, 0),
        ("eran_fc/onnx/mnist_relu_9_200.onnx", 0, 0),
    ] {
        let model = read(&folder.join(file), &ReadOptions::default()).unwrap();
        let quantizer = Quantizer::new(&model).unwrap();
        let found = quantizer.layers();
        if count > 0 {
            assert_eq!((found.len(), found.iter().map(|l| l.weights.len).sum::<usize>()), (count, weights), "{file}");
        }
        assert!(found.iter().all(|l| l.biases.is_some()), "{file}");
        let schemes = vec![LayerScheme::new(6, WeightRule::Ceg4n); found.len()];
        let quantized = quantizer.at(&schemes).unwrap();
        let written = to_qdq(&quantizer, &quantized, None).unwrap();
        let len = model.value(model.inputs[0]).len();
        let x: Vec<f64> = (0..len).map(|i| f64::from((i % 7) as u8) / 8.0).collect();
        let again = read_bytes(&onnx::write(&written).unwrap(), "a.onnx".as_ref(), &ReadOptions::default()).unwrap();
        assert_eq!(run(&again, &Float32, &x), run(&quantized.model, &Float32, &x), "{file}");
    }
}
