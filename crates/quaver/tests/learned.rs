//! Learned rounding: what may be chosen, and that no single other choice is nearer to the float network.

mod common;

use std::sync::Arc;

use common::models;
use quaver::model::build::ModelBuilder;
use quaver::model::ir::{DType, Model, Op, Tensor, ValueId, Window};
use quaver::model::lower::lower;
use quaver::model::profile::{Profile, Real};
use quaver::model::{ReadOptions, read};
use quaver::net::execute;
use quaver::quantize::learned::{Options, learned};
use quaver::quantize::{BiasRule, LayerScheme, Levels, Parameter, Quantized, QuantizedTensor, Quantizer, WeightRule};

fn rows(name: &str) -> Vec<f64> {
    let bytes = std::fs::File::open(models().join(name)).expect("example inputs");
    npyz::NpyFile::new(bytes).unwrap().into_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
}

/// Numbers between -1 and 1 in no order.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let next = |s: &mut u32| (*s = s.wrapping_mul(1_664_525).wrapping_add(1_013_904_223), *s).1;
    let mut state = seed;
    (0..count).map(|_| f64::from(next(&mut state) >> 8) as f32 / 8_388_608.0 - 1.0).collect()
}

fn run(model: &Model, x: &[f64]) -> Vec<f64> {
    let lowered = lower(model, &Real as &dyn Profile).expect("a model with a meaning");
    let len = lowered.net.node(lowered.net.inputs()[0]).len();
    execute(&lowered.net, &[x.to_vec()], x.len() / len).remove(0).center
}

fn distance(a: &Model, b: &Model, x: &[f64]) -> f64 {
    run(a, x).iter().zip(run(b, x)).map(|(a, b)| (a - b).powi(2)).sum()
}

/// The largest level not above a number and the smallest not below it; beyond the ends, the end.
fn neighbours(levels: &Levels, w: f32) -> (i64, i64) {
    let all = || levels.range.0..=levels.range.1;
    let below = all().filter(|&q| levels.value(q) <= w).max();
    let above = all().filter(|&q| levels.value(q) >= w).min();
    (below.or(above).unwrap(), above.or(below).unwrap())
}

/// Every number of a tensor with its levels and the integer it got.
fn choices<'q>(tensor: &'q Tensor, made: &'q QuantizedTensor) -> impl Iterator<Item = (f32, &'q Levels, i64)> {
    let inner: usize = made.axis.map_or(1, |a| tensor.shape[a + 1..].iter().product());
    let level = move |i: usize| &made.levels[(i / inner) % made.levels.len()];
    tensor.as_f32().unwrap().iter().zip(&made.integers).enumerate().map(move |(i, (&w, &q))| (w, level(i), q.into()))
}

/// The parameters of a network with what became of them.
fn parameters<'q>(
    quantizer: &'q Quantizer,
    made: &'q Quantized,
) -> impl Iterator<Item = (Parameter, &'q Tensor, &'q QuantizedTensor)> {
    let layers = quantizer.layers().iter().zip(&made.layers);
    let both = layers.flat_map(|(layer, made)| {
        let biases = layer.biases.zip(made.biases.as_deref());
        [Some((layer.weights, &*made.weights)), biases].into_iter().flatten()
    });
    both.map(|(p, made)| (p, quantizer.model().value(p.value).constant.as_deref().unwrap(), made))
}

#[test]
fn each_number_goes_to_a_neighbour() {
    for (name, x) in [("digits_mlp_float.onnx", "digits_x.npy"), ("digits_conv_float.onnx", "digits_x.npy")] {
        let model = read(&models().join(name), &ReadOptions::default()).unwrap();
        let (quantizer, x) = (Quantizer::new(&model).unwrap(), rows(x));
        for rule in [WeightRule::Symmetric, WeightRule::Asymmetric, WeightRule::Ceg4n, WeightRule::PowerOfTwo] {
            let scheme = LayerScheme { per_channel: !rule.is_joint(), ..LayerScheme::new(3, rule) };
            let schemes = vec![scheme; quantizer.layers().len()];
            let made = learned(&quantizer, &schemes, &x, &Options::default()).unwrap();
            let mut moved = 0;
            for (_, tensor, quantized) in parameters(&quantizer, &made) {
                for (w, levels, q) in choices(tensor, quantized) {
                    let (below, above) = neighbours(levels, w);
                    assert!(q == below || q == above, "{w} became {q} and not {below} or {above}");
                    moved += usize::from(q != levels.quantize(w));
                }
            }
            assert!(moved > 0);
            // The same again.
            assert_eq!(learned(&quantizer, &schemes, &x, &Options::default()).unwrap().layers, made.layers);
            let nearest = quantizer.at(&schemes).unwrap();
            let (ours, theirs) = (distance(&made.model, &model, &x), distance(&nearest.model, &model, &x));
            assert!(ours < 0.6 * theirs, "{name} {rule:?}: {ours} {theirs}");
        }
    }
}

fn input(b: &mut ModelBuilder, shape: &[usize]) -> ValueId {
    b.input("x", DType::F32, shape).unwrap()
}

fn constant(b: &mut ModelBuilder, name: &str, shape: &[usize], seed: u32) -> ValueId {
    b.constant(name, Tensor::f32(shape, noise(shape.iter().product(), seed))).unwrap()
}

/// One layer each: a grouped convolution with padding, steps and dilation; a matrix on the left with an Add; a Gemm with factors.
fn single_layers() -> Vec<Model> {
    let mut models = vec![];
    let mut b = ModelBuilder::new("convolution");
    let x = input(&mut b, &[1, 4, 5, 4]);
    let (w, c) = (constant(&mut b, "w", &[4, 2, 3, 2], 1), constant(&mut b, "c", &[4], 2));
    let window = Window {
        kernel: vec![3, 2],
        strides: vec![2, 1],
        dilations: vec![1, 2],
        pads_begin: vec![1, 0],
        pads_end: vec![1, 1],
        ceil_mode: false,
    };
    let y = b.node(Op::Conv { window, group: 2 }, &[x, w, c]).unwrap();
    b.output(y);
    models.push(b.finish().unwrap());
    let mut b = ModelBuilder::new("left");
    let x = input(&mut b, &[6, 1]);
    let (w, c) = (constant(&mut b, "w", &[3, 6], 3), constant(&mut b, "c", &[3, 1], 4));
    let y = b.node(Op::MatMul, &[w, x]).unwrap();
    let y = b.node(Op::Add, &[y, c]).unwrap();
    b.output(y);
    models.push(b.finish().unwrap());
    let mut b = ModelBuilder::new("factors");
    let x = input(&mut b, &[1, 6]);
    let (w, c) = (constant(&mut b, "w", &[3, 6], 5), constant(&mut b, "c", &[3], 6));
    let y = b.node(Op::Gemm { alpha: 0.5, beta: 2.0, trans_a: false, trans_b: true }, &[x, w, c]).unwrap();
    b.output(y);
    models.push(b.finish().unwrap());
    models
}

#[test]
fn no_single_other_choice_is_nearer() {
    for model in single_layers() {
        let quantizer = Quantizer::new(&model).unwrap();
        let len: usize = model.value(model.inputs[0]).len();
        let x: Vec<f64> = noise(5 * len, 7).into_iter().map(f64::from).collect();
        for per_channel in [false, true] {
            let scheme = LayerScheme { per_channel, ..LayerScheme::new(3, WeightRule::Symmetric) };
            let options = Options { ridge: 0.0, ..Options::default() };
            let made = learned(&quantizer, &[scheme], &x, &options).unwrap();
            let ours = distance(&made.model, &model, &x);
            let nearest = distance(&quantizer.at(&[scheme]).unwrap().model, &model, &x);
            assert!(ours < nearest, "{}: {ours} {nearest}", model.name);
            for (place, tensor, quantized) in parameters(&quantizer, &made) {
                for (i, (w, levels, q)) in choices(tensor, quantized).enumerate() {
                    let (below, above) = neighbours(levels, w);
                    let mut values = quantized.values.as_f32().unwrap().to_vec();
                    values[i] = levels.value(if q == below { above } else { below });
                    let mut other = made.model.clone();
                    other.values[place.value.0].constant = Some(Arc::new(Tensor::f32(&tensor.shape, values)));
                    let theirs = distance(&other, &model, &x);
                    assert!(ours <= theirs + 1e-6, "{}: element {i}: {ours} {theirs}", model.name);
                }
            }
        }
    }
}

#[test]
fn the_class_is_kept_where_nearest_levels_lose_it() {
    let mut b = ModelBuilder::new("classes");
    let x = input(&mut b, &[1, 5]);
    // 2 bits: levels -1, 0, 1. The nearest levels of the first class are zeros.
    let w = Tensor::f32(&[2, 5], vec![0.4, 0.4, 0.4, 0.4, 1.0, 0.6, 0.0, 0.0, 0.0, 1.0]);
    let w = b.constant("w", w).unwrap();
    let y = b.node(Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true }, &[x, w]).unwrap();
    b.output(y);
    let model = b.finish().unwrap();
    let (quantizer, x) = (Quantizer::new(&model).unwrap(), [1.0, 1.0, 1.0, 1.0, 0.0]);
    let scheme = LayerScheme::new(2, WeightRule::Symmetric);
    let scores = |m: &Model| run(m, &x);
    assert!(scores(&model)[0] > scores(&model)[1]);
    assert_eq!(scores(&quantizer.at(&[scheme]).unwrap().model), [0.0, 1.0]);
    let made = learned(&quantizer, &[scheme], &x, &Options::default()).unwrap();
    assert_eq!(scores(&made.model), [2.0, 1.0]);
    // Over a box of radius 100 weights matter one by one.
    let wide = learned(&quantizer, &[scheme], &x, &Options { spread: 100.0, ..Options::default() }).unwrap();
    assert_eq!(scores(&wide.model), [0.0, 1.0]);
}

#[test]
fn float_biases_stay_and_nonsense_is_refused() {
    let model = read(&models().join("iris_float.onnx"), &ReadOptions::default()).unwrap();
    let (quantizer, x) = (Quantizer::new(&model).unwrap(), rows("iris_x.npy"));
    let scheme = LayerScheme { biases: BiasRule::Float, ..LayerScheme::new(4, WeightRule::Asymmetric) };
    let made = learned(&quantizer, &[scheme; 3], &x, &Options::default()).unwrap();
    assert!(made.layers.iter().all(|l| l.biases.is_none()));
    let refusal = |schemes: &[LayerScheme], x: &[f64], options: &Options| {
        learned(&quantizer, schemes, x, options).unwrap_err().to_string()
    };
    assert!(refusal(&[scheme; 2], &x, &Options::default()).contains("there are 3 layers"));
    assert!(refusal(&[scheme; 3], &[0.0; 3], &Options::default()).contains("rows of 4"));
    assert!(refusal(&[scheme; 3], &x, &Options { ridge: -1.0, ..Options::default() }).contains("the ridge is -1"));
    assert!(refusal(&[scheme; 3], &x, &Options { spread: f64::NAN, ..Options::default() }).contains("spread is NaN"));
}
