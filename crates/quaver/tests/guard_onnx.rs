//! Guards as ONNX files. `QUAVER_TEST_PYTHON` names a Python that has numpy and onnxruntime (default: python3).

mod common;
#[path = "common/onnx_guard.rs"]
mod onnx_guard;

use std::sync::Arc;

use common::models;
use onnx_guard::{Both, Parts, names, python};
use prost::Message;
use quaver::guard::plan::{Domain, Kind};
use quaver::model::lower::{Lowered, lower};
use quaver::model::onnx::proto::ModelProto;
use quaver::model::profile::{OrtFused, Real};
use quaver::model::{ReadOptions, read};
use quaver::property::Region;
use quaver::quantize::activations::{ActivationScheme, proved};
use quaver::quantize::qdq::to_qdq;
use quaver::quantize::{BiasRule, LayerScheme, Quantizer, WeightRule};

fn quantized(name: &str, bits: u8, step: Option<f64>) -> Lowered {
    let model = read(&models().join(name), &ReadOptions::default()).expect("an example model");
    let quantizer = Quantizer::new(&model).expect("layers");
    let scheme = LayerScheme { bits, rule: WeightRule::Symmetric, per_channel: false, biases: BiasRule::Accumulator };
    let made = quantizer.at(&vec![scheme; quantizer.layers().len()]).expect("a quantized network");
    let activations = ActivationScheme { bits, symmetric: false, outputs: false, input_step: step };
    let inputs = model.value(model.inputs[0]).shape.iter().product();
    let unit = Region { lo: vec![0.0; inputs], hi: vec![1.0; inputs] };
    let ranges = proved(&model, false, &unit).expect("ranges");
    let file = to_qdq(&quantizer, &made, Some((&activations, &ranges))).expect("a file");
    lower(&file, &Real).expect("a net")
}

fn parts(float: &str, data: &str, step: Option<&str>, stages: Vec<Lowered>) -> Parts {
    let bytes = std::fs::read(models().join(data)).expect("rows");
    let data = npyz::NpyFile::new(&bytes[..]).expect("an npy file").into_vec::<f32>().expect("float32");
    let domain = Domain { lo: 0.0, hi: 1.0, step: step.map(Into::into) };
    let float = std::fs::read(models().join(float)).expect("a float network");
    Parts { float, stages: stages.into_iter().map(Arc::new).collect(), domain, data }
}

fn digits(float: &str, bits: &[u8]) -> Parts {
    parts(float, "digits_x.npy", Some("1/16"), bits.iter().map(|&b| quantized(float, b, Some(0.0625))).collect())
}

/// Everything is the same in both forms, or the test is skipped.
fn same(name: &str, parts: &Parts, both: &Both, count: usize) {
    let Some(python) = python() else { return };
    let folder = std::env::temp_dir().join(format!("quaver-guard-onnx-{name}-{}", std::process::id()));
    let rows = parts.rows(both.inputs, count, 7);
    let tally = both.compare(parts, &python, &rows, &folder);
    println!("{name}: {tally:?}");
    assert_eq!((tally.unlike, tally.float_scores_unlike, tally.rows), (0, 0, 3 * count));
    assert!(tally.astray.is_empty(), "{:?}", tally.astray);
    // Classes of the float network may differ where its outputs differ by the order of sums.
    assert!(tally.float_unlike * 1000 <= tally.rows, "{}", tally.float_unlike);
    // What cannot be removed is left to the system's cleaning of its temporary folder.
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn later_networks_are_in_branches() {
    let both = digits("digits_mlp_float.onnx", &[8, 12, 16]).both(Kind::Refinement, 3);
    let model = ModelProto::decode(&both.bytes[..]).expect("a model");
    let graph = model.graph.expect("a graph");
    let outputs: Vec<_> = graph.output.iter().map(|o| o.name.clone().unwrap_or_default()).collect();
    assert_eq!(outputs, ["class", "stage", "accepted", "margin", "scores"]);
    let count = |op: &str| graph.node.iter().filter(|n| n.op_type.as_deref() == Some(op)).count();
    assert_eq!((count("If"), count("MatMulInteger"), count("Gemm")), (1, 3, 0));
    let mut all = vec![];
    names(&graph, 0, &mut all);
    assert!(all.iter().any(|n| n.1 == 3));
    let mut distinct: Vec<&str> = all.iter().map(|n| n.0.as_str()).filter(|n| n.starts_with("guard/")).collect();
    let number = distinct.len();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), number, "names are distinct");
}

#[test]
fn refinement_is_the_same_in_onnx_runtime() {
    let parts = digits("digits_mlp_float.onnx", &[8, 12, 16]);
    same("mlp", &parts, &parts.both(Kind::Refinement, 3), 10_000);
    let parts = digits("digits_mlp_float.onnx", &[12]);
    same("mlp12", &parts, &parts.both(Kind::Refinement, 1), 1000);
}

#[test]
fn convolutions_are_the_same_in_onnx_runtime() {
    let parts = digits("digits_conv_float.onnx", &[8, 16]);
    same("conv", &parts, &parts.both(Kind::Refinement, 2), 2000);
}

#[test]
fn real_inputs_are_the_same_in_onnx_runtime() {
    let stages = vec![quantized("iris_float.onnx", 8, None), quantized("iris_float.onnx", 16, None)];
    let parts = parts("iris_float.onnx", "iris_x.npy", None, stages);
    same("iris", &parts, &parts.both(Kind::Refinement, 4), 10_000);
}

#[test]
fn ensembles_are_the_same_in_onnx_runtime() {
    let parts = digits("digits_mlp_float.onnx", &[12, 16]);
    same("ensemble", &parts, &parts.both(Kind::Ensemble, 2), 5000);
    let parts = digits("digits_mlp_float.onnx", &[8]);
    same("single", &parts, &parts.both(Kind::Ensemble, 2), 1000);
}

#[test]
fn integer_outputs_are_the_same_in_onnx_runtime() {
    let file = |name: &str| {
        let model = read(&models().join(name), &ReadOptions::default()).expect("an example model");
        lower(&model, &OrtFused { any_x86: false }).expect("a net")
    };
    let stages = vec![file("digits_mlp_qop.onnx")];
    let parts = parts("digits_mlp_float.onnx", "digits_x.npy", Some("1/16"), stages);
    same("integers", &parts, &parts.both(Kind::Refinement, 2), 2000);
}
