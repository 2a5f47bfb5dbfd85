//! Execution against the runtimes: goldens of the repository's models, and, where the larger collection is present, its
//! quantized models and two published networks.

mod common;

use std::path::Path;

use common::{array, collection, mnist, models};
use quaver::model::build::{BuildError, ModelBuilder};
use quaver::model::ir::{DType, Data, Model, Op, Tensor, ValueId};
use quaver::model::lower::{Lowered, lower};
use quaver::model::profile;
use quaver::model::{ReadOptions, onnx, read, read_bytes};
use quaver::net::{Enclosure, execute};
use quaver::num::Ratio;
use quaver::property::{Robustness, Ties, ball};
use quaver::verify::{Options, Verdict, Verifier};
use rayon::prelude::*;

fn lowered(path: &Path) -> Lowered {
    let model = read(path, &ReadOptions::default()).expect("a readable model");
    lower(&model, &*profile::default_for(&model)).expect("a model with a meaning")
}

fn run(lowered: &Lowered, x: &[f64]) -> Enclosure {
    let n = lowered.net.node(lowered.net.inputs()[0]).len();
    execute(&lowered.net, &[x.to_vec()], x.len() / n).remove(0)
}

/// Compares a model with its golden file. Integer models must be equal, float models enclose the runtime's value.
fn check_golden(model: &Path, golden: &Path) {
    let lowered = lowered(model);
    let ((_, x), (_, y)) = (array(golden, "X"), array(golden, "y_opt"));
    let out = run(&lowered, &x);
    assert_eq!(out.center.len(), y.len());
    for (i, y) in y.iter().enumerate() {
        let (lo, hi) = (out.lo(i), out.hi(i));
        assert!(lo <= *y && *y <= hi, "{}: element {i} is {y}, outside [{lo}, {hi}]", model.display());
        let float = lowered.profile == "float32";
        assert!(float || out.center[i] == *y, "{}: element {i} is {y} and not {}", model.display(), out.center[i]);
    }
}

#[test]
fn the_repositorys_models_run_as_onnx_runtime_ran_them() {
    let mut count = 0;
    for entry in std::fs::read_dir(models()).expect("the models") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "onnx") {
            let stem = path.file_stem().and_then(|s| s.to_str()).expect("a name");
            check_golden(&path, &models().join("golden").join(format!("{stem}.npz")));
            count += 1;
        }
    }
    assert!(count >= 8, "{count} models");
}

#[test]
fn a_tensorflow_lite_file_runs_as_each_of_three_runtimes_ran_it() {
    let path = models().join("kws_ref_model.tflite");
    let model = read(&path, &ReadOptions::default()).expect("a readable model");
    let golden = models().join("golden/kws_ref_model.npz");
    let (_, x) = array(&golden, "X");
    let mut results = vec![];
    for (name, result) in [("reference", "y_reference"), ("xnnpack", "y_xnnpack"), ("micro", "y_micro")] {
        let profile = profile::parse(&format!("tflite-{name}")).expect("a profile");
        let out = run(&lower(&model, &*profile).expect("a meaning"), &x);
        assert!(out.radius.is_none(), "integers are exact");
        let (_, y) = array(&golden, result);
        assert_eq!(out.center, y, "{name}");
        results.push(y);
    }
    assert_ne!(results[0], results[1], "the golden tells the runtimes apart");
}

#[test]
fn a_written_model_computes_what_the_read_one_does() {
    for name in ["digits_conv_float", "digits_conv_qdq", "digits_mlp_qdq", "digits_mlp_qop", "iris_float"] {
        let path = models().join(name).with_extension("onnx");
        let model = read(&path, &ReadOptions::default()).expect("a readable model");
        let bytes = onnx::write(&model).expect("a writable model");
        let again = read_bytes(&bytes, &path, &ReadOptions::default()).expect("what was written can be read");
        let run = |model: &Model| {
            let lowered = lower(model, &*profile::default_for(model)).expect("a meaning");
            let n = lowered.net.node(lowered.net.inputs()[0]).len();
            let x: Vec<f64> = (0..7 * n).map(|i| f64::from((i * 37 % 101) as f32 / 100.0)).collect();
            execute(&lowered.net, &[x], 7)
        };
        assert_eq!(run(&model), run(&again), "{name}");
        assert_eq!(model.nodes.len(), again.nodes.len(), "{name}");
    }
}

#[test]
fn an_unused_node_is_refused_where_it_could_change_what_is_fused() {
    let path = models().join("digits_mlp_qdq.onnx");
    let mut model = read(&path, &ReadOptions::default()).expect("a readable model");
    model.unused.push("stray".into());
    let refused = lower(&model, &*profile::parse("ort-fused").expect("a profile")).expect_err("a refusal");
    assert!(refused.to_string().contains("stray"), "{refused}");
    assert!(lower(&model, &*profile::parse("float32").expect("a profile")).is_ok());
}

#[test]
fn quantized_reference_models_equal_onnx_runtime_on_every_row() {
    let Some(data) = collection() else { return };
    let mut count = 0;
    for entry in std::fs::read_dir(data.join("ort_quantized")).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "onnx") {
            let name = path.file_stem().and_then(|s| s.to_str()).expect("a name").to_string();
            check_golden(&path, &path.with_file_name(format!("{name}.golden.npz")));
            count += 1;
        }
    }
    assert!(count >= 9, "{count} models");
}

/// The AAAI'21 network as a float model whose weights are the published integers over powers of two.
fn aaai21(npz: &Path) -> Result<Model, BuildError> {
    let mut b = ModelBuilder::new("aaai21");
    let mut x = b.input("x", DType::F32, &[1, 784])?;
    for (layer, last) in [(0, false), (1, true)] {
        let (shape, w) = array(npz, &format!("W{layer}_int"));
        let (_, bias) = array(npz, &format!("b{layer}_int"));
        let w = b.constant(&format!("w{layer}"), Tensor::f32(&shape, w.iter().map(|w| *w as f32 / 32.0).collect()))?;
        let n = bias.len();
        let bias =
            b.constant(&format!("b{layer}"), Tensor::f32(&[n], bias.iter().map(|w| *w as f32 / 16.0).collect()))?;
        x = b.node(Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false }, &[x, w, bias])?;
        if !last {
            x = b.node(Op::Relu, &[x])?;
        }
    }
    b.output(x);
    b.finish()
}

fn argmax(scores: &[f64]) -> usize {
    (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a))).expect("scores")
}

/// Henzinger, Lechner, Zikelic: Scalable verification of quantized neural networks (AAAI 2021), MNIST benchmark.
#[test]
fn the_aaai21_network_misclassifies_exactly_the_published_images() {
    let Some(data) = collection() else { return };
    let model = aaai21(&data.join("aaai21_qnn/mnist_mlp_q6.npz")).expect("a model");
    let profile = profile::parse("fixed-point(6,4,weights=5,input=8)").expect("a profile");
    let lowered = lower(&model, &*profile).expect("a fixed-point meaning");
    let images = mnist(&data, "t10k-images-idx3-ubyte.gz", 16);
    let labels = mnist(&data, "t10k-labels-idx1-ubyte.gz", 8);
    let x: Vec<f64> = images[..400 * 784].iter().map(|&p| f64::from(p) / 256.0).collect();
    let out = run(&lowered, &x);
    assert!(out.radius.is_none(), "fixed point is exact");
    let wrong: Vec<usize> =
        (0..400).filter(|&i| argmax(&out.center[i * 32..(i + 1) * 32]) != labels[i] as usize).collect();
    let table = std::fs::read_to_string(data.join("aaai21_qnn/mnist_published_results.csv")).expect("the table");
    let published: Vec<usize> = table
        .lines()
        .filter(|l| l.ends_with("misclassified"))
        .map(|l| l.split(',').next().and_then(|id| id.parse().ok()).expect("an id"))
        .collect();
    assert_eq!(wrong, published);
}

/// One layer of EQV's network: dequantized weights and int32 bias, Gemm, Q, DQ (see `tools/eqv_to_onnx.py`).
fn eqv_layer(
    b: &mut ModelBuilder,
    npz: &Path,
    k: usize,
    x: ValueId,
    scales: (f32, f32),
    zero: u8,
) -> Result<ValueId, BuildError> {
    let (shape, w) = array(npz, &format!("W{k}"));
    let ((_, m), (_, c)) = (array(npz, &format!("M{k}")), array(npz, &format!("c{k}")));
    let (n, (sx, sy)) = (m.len(), scales);
    let sw: Vec<f32> = m.iter().map(|m| (m * f64::from(sy) / f64::from(sx)) as f32).collect();
    let sb: Vec<f32> = sw.iter().map(|s| sx * s).collect();
    let bias = c
        .iter()
        .zip(&sb)
        .map(|(c, s)| ((c - f64::from(zero)) * f64::from(sy) / f64::from(*s)).round_ties_even() as i32);
    let bias = Tensor { shape: vec![n], data: Data::I32(bias.collect()) };
    let weights = Tensor { shape, data: Data::I8(w.iter().map(|&w| w as i8).collect()) };
    let w = b.constant(&format!("w{k}"), weights)?;
    let sw = b.constant(&format!("sw{k}"), Tensor::f32(&[n], sw))?;
    let zw = b.constant(&format!("zw{k}"), Tensor { shape: vec![n], data: Data::I8(vec![0; n]) })?;
    let w = b.node(Op::DequantizeLinear { axis: 0 }, &[w, sw, zw])?;
    let bias = b.constant(&format!("b{k}"), bias)?;
    let sb = b.constant(&format!("sb{k}"), Tensor::f32(&[n], sb))?;
    let bias = b.node(Op::DequantizeLinear { axis: 0 }, &[bias, sb])?;
    let y = b.node(Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true }, &[x, w, bias])?;
    quantized(b, &format!("{k}"), y, sy, zero)
}

fn quantized(b: &mut ModelBuilder, name: &str, x: ValueId, scale: f32, zero: u8) -> Result<ValueId, BuildError> {
    let s = b.constant(&format!("s_{name}"), Tensor::scalar(scale))?;
    let z = b.constant(&format!("z_{name}"), Tensor { shape: vec![], data: Data::U8(vec![zero]) })?;
    let q = b.node(Op::QuantizeLinear { axis: 0 }, &[x, s, z])?;
    b.node(Op::DequantizeLinear { axis: 0 }, &[q, s, z])
}

fn eqv(npz: &Path) -> Result<Model, BuildError> {
    let mut b = ModelBuilder::new("eqv_fc1_100");
    let x = b.input("x", DType::F32, &[1, 784])?;
    let x = quantized(&mut b, "x", x, 1.0 / 128.0, 0)?;
    let h = eqv_layer(&mut b, npz, 1, x, (1.0 / 128.0, 1.0 / 32.0), 0)?;
    let y = eqv_layer(&mut b, npz, 2, h, (1.0 / 32.0, 0.25), 64)?;
    b.output(y);
    b.finish()
}

/// EQV (AAAI 2024), network FC1-100: accuracy as in its Table 3, and how many of the first 100 correct images are proved robust
/// for 1, 2, 3, 4 input steps within [0, 1] by bounds alone.
#[test]
fn eqvs_network_has_its_published_accuracy_and_robustness() {
    let Some(data) = collection() else { return };
    let model = eqv(&data.join("eqv/fc1_100_recovered.npz")).expect("a model");
    let lowered = lower(&model, &*profile::default_for(&model)).expect("a meaning");
    let images = mnist(&data, "t10k-images-idx3-ubyte.gz", 16);
    let labels = mnist(&data, "t10k-labels-idx1-ubyte.gz", 8);
    let pixels: Vec<f32> = images.iter().map(|&p| f32::from(p) / 255.0).collect();
    let x: Vec<f64> = pixels.iter().map(|&p| f64::from(p)).collect();
    let out = run(&lowered, &x);
    let right: Vec<usize> =
        (0..10_000).filter(|&i| argmax(&out.center[i * 10..(i + 1) * 10]) == labels[i] as usize).collect();
    assert_eq!(right.len(), 9772);
    let verifier = Verifier::new(&lowered).expect("a classifier");
    let clip = (Ratio::from_f64(0.0).expect("zero"), Ratio::from_f64(1.0).expect("one"));
    for (steps, least) in [(1, 98), (2, 97), (3, 85), (4, 65)] {
        let radius: Ratio = format!("{steps}/128").parse().expect("a fraction");
        let decided: Vec<&str> = right[..100]
            .par_iter()
            .map(|&i| {
                let center = x[i * 784..(i + 1) * 784].to_vec();
                let region = ball(&lowered, &center, &radius, Some(&clip)).expect("a region");
                let claim = Robustness { region, center: Some(center), label: labels[i] as usize, ties: Ties::Strict };
                match verifier.robustness(&claim, &Options::default()).expect("a verdict") {
                    Verdict::Holds(_) => "holds",
                    Verdict::Violated(_) => "violated",
                    Verdict::Undecided(_) => "undecided",
                }
            })
            .collect();
        let count = |v: &str| decided.iter().filter(|d| **d == v).count();
        println!("{steps}: {} hold, {} violated, {} undecided", count("holds"), count("violated"), count("undecided"));
        assert!(count("holds") >= least, "radius {steps}: {} of at least {least}", count("holds"));
    }
}
