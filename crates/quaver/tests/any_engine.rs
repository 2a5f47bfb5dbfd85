//! `any-engine` layer by layer: given the integers that a runtime's layer was given, its result lies in the envelope, which is nearly
//! always a single value.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use common::{collection, models};
use quaver::model::lower::{Lowered, lower};
use quaver::model::{ReadOptions, profile, read};
use quaver::net::{Enclosure, Execution, Grid, Net, NodeId, Op, execute_all, execute_between};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const ROWS: usize = 8;

fn lowered(path: &Path, name: &str) -> Option<Lowered> {
    let model = read(path, &ReadOptions::default()).expect("a readable model");
    lower(&model, &*profile::parse(name).expect("a profile")).ok()
}

/// Rows on the input's grid: half uniform, half around the middle.
fn rows(net: &Net, rng: &mut StdRng) -> Vec<f64> {
    let node = net.node(net.inputs()[0]);
    let integer = node.grid == Grid::Integer;
    let (lo, hi) = if integer { node.range } else { (0.0, 1.0) };
    let snap = |x: f64| if integer { x.round() } else { f64::from(x as f32) };
    let mut all = vec![];
    for r in 0..ROWS {
        let spread = if r % 2 == 0 { 1.0 } else { 0.1 };
        all.extend((0..node.len()).map(|_| snap((lo + hi) / 2.0 + spread * (hi - lo) * (rng.random::<f64>() - 0.5))));
    }
    all
}

/// The results of quantized layers, by name.
fn layers(net: &Net) -> HashMap<&str, NodeId> {
    let is_layer = |id: &NodeId| matches!(net.node(*id).op, Op::Pointwise(_)) && net.node(*id).quantization.is_some();
    net.ids().filter(is_layer).map(|id| (net.node(id).name.as_str(), id)).collect()
}

/// Outputs of layers, and how many of them the envelope leaves open.
fn check(path: &Path, concrete: &Lowered, envelope: &Lowered, rng: &mut StdRng) -> (usize, usize) {
    let x = rows(&concrete.net, rng);
    let run: Execution = execute_all(&concrete.net, std::slice::from_ref(&x), ROWS);
    let (own, wide) = (layers(&concrete.net), layers(&envelope.net));
    let (mut outputs, mut open) = (0, 0);
    for (name, &target) in &wide {
        let Some(&layer) = own.get(name) else { panic!("{}: no layer {name}", path.display()) };
        let before = wide.iter().filter(|(_, id)| **id < target);
        let mut given: Vec<(NodeId, Enclosure)> =
            before.filter_map(|(n, &id)| Some((id, run.value(*own.get(n)?).clone()))).collect();
        given.push((envelope.net.inputs()[0], Enclosure::exact(x.clone())));
        let result = execute_between(&envelope.net, given, target, ROWS);
        let (allowed, actual) = (result.value(target), run.value(layer));
        for i in 0..actual.center.len() {
            let y = actual.center[i];
            let (lo, hi) = (allowed.lo(i), allowed.hi(i));
            assert!(lo <= y && y <= hi, "{}: {name} [{i}] is {y}, outside [{lo}, {hi}]", path.display());
            open += usize::from(lo < hi);
        }
        outputs += actual.center.len();
    }
    (outputs, open)
}

fn files() -> Vec<(PathBuf, &'static [&'static str])> {
    let onnx: &[&str] = &["ort-fused", "torch-fbgemm", "torch-onednn", "torch-x86", "torch-qnnpack"];
    let mut all: Vec<(PathBuf, &[&str])> =
        ["digits_conv_qdq", "digits_mlp_qdq"].map(|m| (models().join(m).with_extension("onnx"), onnx)).into();
    if let Some(data) = collection() {
        let tflite: &[&str] = &["tflite-reference", "tflite-xnnpack", "tflite-micro"];
        for name in ["kws_ref_model", "pretrainedResnet_quant", "ad01_int8"] {
            all.push((data.join("mlperf-tiny").join(name).with_extension("tflite"), tflite));
        }
    }
    all
}

#[test]
fn every_runtimes_layers_lie_in_the_envelope() {
    let mut rng = StdRng::seed_from_u64(1);
    for (path, profiles) in files() {
        let envelope = lowered(&path, "any-engine").expect("a model with an envelope");
        for name in profiles {
            let Some(concrete) = lowered(&path, name) else { continue };
            let (outputs, open) = check(&path, &concrete, &envelope, &mut rng);
            let share = 100.0 * open as f64 / outputs as f64;
            println!("{} {name}: {outputs} outputs, {share:.3} % with several values", path.display());
        }
    }
}
