//! Execution against PyTorch's quantized operators: the layers of `models/golden/torch`, and what is refused.

mod common;

use common::{array, models};
use npyz::npz::NpzArchive;
use quaver::model::build::{BuildError, ModelBuilder};
use quaver::model::ir::{DType, Data, Model, Op, Tensor, ValueId, Window};
use quaver::model::lower::{LowerError, Lowered, lower};
use quaver::model::profile;
use quaver::model::{ReadOptions, read};
use quaver::net::execute;

const ENGINES: [&str; 4] = ["fbgemm", "onednn", "x86", "qnnpack"];

fn under(model: &Model, engine: &str) -> Result<Lowered, LowerError> {
    lower(model, &*profile::parse(&format!("torch-{engine}")).expect("a profile"))
}

#[test]
fn layers_run_as_pytorch_ran_them() {
    let folder = models().join("golden/torch");
    let archive = folder.join("layers.npz");
    let names: Vec<String> =
        NpzArchive::open(&archive).expect("an npz file").array_names().map(str::to_string).collect();
    let mut compared = 0;
    for entry in std::fs::read_dir(&folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|e| e != "onnx") {
            continue;
        }
        let name = path.file_stem().and_then(|s| s.to_str()).expect("a name");
        let model = read(&path, &ReadOptions::default()).expect("a readable model");
        let has = |what: &str| names.contains(&format!("{name}_{what}"));
        let inputs: Vec<Vec<f64>> =
            (0..model.inputs.len()).map(|k| array(&archive, &format!("{name}_x{k}")).1).collect();
        for engine in ENGINES.into_iter().filter(|e| has(e)) {
            let lowered = under(&model, engine).unwrap_or_else(|e| panic!("{name} under {engine}: {e}"));
            let rows = inputs[0].len() / lowered.net.node(lowered.net.inputs()[0]).len();
            let out = execute(&lowered.net, &inputs, rows).remove(0);
            assert!(out.radius.is_none(), "{name} under {engine} is exact");
            let want = array(&archive, &format!("{name}_{engine}")).1;
            let differ = out.center.iter().zip(&want).filter(|(a, b)| a != b).count();
            assert_eq!((out.center.len(), differ), (want.len(), 0), "{name} under {engine}");
            compared += 1;
        }
    }
    assert!(compared >= 35, "{compared} layers and engines");
}

/// A convolution in Q/DQ form: channels, groups, kernel, weights of one value.
struct Layer {
    activations: DType,
    channels: (usize, usize),
    group: usize,
    kernel: usize,
    weights: Data,
}

fn parameters(b: &mut ModelBuilder, name: &str, scale: f32, zero: Data) -> Result<[ValueId; 2], BuildError> {
    let s = b.constant(&format!("s_{name}"), Tensor::scalar(scale))?;
    Ok([s, b.constant(&format!("z_{name}"), Tensor { shape: vec![], data: zero })?])
}

fn convolution(layer: &Layer) -> Result<Model, BuildError> {
    let mut b = ModelBuilder::new("layer");
    let zero = || if layer.activations == DType::U8 { Data::U8(vec![3]) } else { Data::I8(vec![3]) };
    let (channels, k) = (layer.channels, layer.kernel);
    let x = b.input("x", layer.activations, &[1, channels.0, 8, 8])?;
    let [s, z] = parameters(&mut b, "x", 0.02, zero())?;
    let x = b.node(Op::DequantizeLinear { axis: 0 }, &[x, s, z])?;
    let depth = channels.0 / layer.group;
    let shape = vec![channels.1, depth, k, k];
    let n = shape.iter().product();
    let (weights, w_zero) = match &layer.weights {
        Data::I8(w) => (Data::I8(vec![w[0]; n]), Data::I8(vec![0])),
        Data::U8(w) => (Data::U8(vec![w[0]; n]), Data::U8(vec![128])),
        other => panic!("{other:?}"),
    };
    let w = b.constant("w", Tensor { shape, data: weights })?;
    let [s, z] = parameters(&mut b, "w", 0.01, w_zero)?;
    let w = b.node(Op::DequantizeLinear { axis: 0 }, &[w, s, z])?;
    let window = Window {
        kernel: vec![k; 2],
        strides: vec![1; 2],
        dilations: vec![1; 2],
        pads_begin: vec![k / 2; 2],
        pads_end: vec![k / 2; 2],
        ceil_mode: false,
    };
    let y = b.node(Op::Conv { window, group: layer.group }, &[x, w])?;
    let [s, z] = parameters(&mut b, "y", 0.5, zero())?;
    let y = b.node(Op::QuantizeLinear { axis: 0 }, &[y, s, z])?;
    b.output(y);
    b.finish()
}

#[test]
fn what_the_engines_do_not_compute_by_a_known_formula_is_refused_by_name() {
    let plain = || Layer { activations: DType::U8, channels: (8, 8), group: 1, kernel: 3, weights: Data::I8(vec![5]) };
    let cases = [
        (Layer { group: 8, ..plain() }, vec!["fbgemm"], "saturating"),
        (Layer { group: 2, channels: (2, 4), ..plain() }, vec!["onednn", "x86"], "wrongly"),
        (Layer { group: 104, channels: (104, 104), ..plain() }, vec!["fbgemm", "x86"], ""),
        (Layer { activations: DType::I8, ..plain() }, ENGINES.to_vec(), "int8"),
        (Layer { weights: Data::U8(vec![5]), ..plain() }, ENGINES.to_vec(), "zero point 0"),
        (plain(), vec![], ""),
    ];
    for (layer, refusing, reason) in cases {
        let model = convolution(&layer).expect("a model");
        for engine in ENGINES {
            match under(&model, engine) {
                Ok(_) => assert!(!refusing.contains(&engine), "{engine} takes a layer it should refuse: {reason}"),
                Err(e) => {
                    assert!(refusing.contains(&engine), "{engine}: {e}");
                    assert!(e.to_string().contains(reason), "{e}");
                }
            }
        }
    }
}

/// How a file may write one linear layer.
#[derive(Clone, Copy, Debug)]
enum Form {
    Gemm,
    MatMulAdd,
    DequantizedBias,
    QGemm,
}

/// Four inputs, three outputs, biases that are multiples of the accumulator's scale.
fn linear(form: Form) -> Result<Model, BuildError> {
    let mut b = ModelBuilder::new("linear");
    let (sx, sw) = (0.03_f32, 0.007_f32);
    let q_bias = [100, -77, 3];
    let input = b.input("x", DType::U8, &[1, 4])?;
    let [xs, xz] = parameters(&mut b, "x", sx, Data::U8(vec![9]))?;
    let [ws, wz] = parameters(&mut b, "w", sw, Data::I8(vec![0]))?;
    let [ys, yz] = parameters(&mut b, "y", 0.01, Data::U8(vec![77]))?;
    let bias = b.constant("q", Tensor { shape: vec![3], data: Data::I32(q_bias.to_vec()) })?;
    let bias_scale = b.constant("s_q", Tensor::scalar(sx * sw))?;
    let float = q_bias.iter().map(|&q| q as f32 * (sx * sw)).collect();
    let float = b.constant("b", Tensor::f32(&[3], float))?;
    let rows: Vec<i8> = vec![10, -20, 30, 4, 50, -60, 7, 80, -90, 1, 2, 3];
    let transposed: Vec<i8> = (0..12).map(|i| rows[i % 3 * 4 + i / 3]).collect();
    let matmul = matches!(form, Form::MatMulAdd);
    let (shape, data) = if matmul { (vec![4, 3], transposed) } else { (vec![3, 4], rows) };
    let stored = b.constant("w", Tensor { shape, data: Data::I8(data) })?;
    let gemm = Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
    if matches!(form, Form::QGemm) {
        let op = Op::QGemm { alpha: 1.0, trans_a: false, trans_b: true };
        let y = b.node(op, &[input, xs, xz, stored, ws, wz, bias, ys, yz])?;
        b.output(y);
        return b.finish();
    }
    let x = b.node(Op::DequantizeLinear { axis: 0 }, &[input, xs, xz])?;
    let w = b.node(Op::DequantizeLinear { axis: 0 }, &[stored, ws, wz])?;
    let y = match form {
        Form::MatMulAdd => {
            let product = b.node(Op::MatMul, &[x, w])?;
            b.node(Op::Add, &[product, float])?
        }
        Form::DequantizedBias => {
            let bias = b.node(Op::DequantizeLinear { axis: 0 }, &[bias, bias_scale])?;
            b.node(gemm, &[x, w, bias])?
        }
        _ => b.node(gemm, &[x, w, float])?,
    };
    let y = b.node(Op::QuantizeLinear { axis: 0 }, &[y, ys, yz])?;
    b.output(y);
    b.finish()
}

#[test]
fn all_forms_of_a_layer_mean_the_same() {
    let rows: Vec<f64> = (0..4 * 500).map(|i| f64::from(i * 71 % 256)).collect();
    for engine in ENGINES {
        let outputs = [Form::Gemm, Form::MatMulAdd, Form::DequantizedBias, Form::QGemm].map(|form| {
            let lowered = under(&linear(form).expect("a model"), engine).unwrap_or_else(|e| panic!("{form:?}: {e}"));
            assert_eq!(lowered.executed, [("QGemm".to_string(), 1)], "{form:?} becomes one integer kernel");
            execute(&lowered.net, std::slice::from_ref(&rows), 500).remove(0)
        });
        assert!(outputs.iter().all(|o| o.radius.is_none() && o.center == outputs[0].center), "{engine}");
    }
}
