//! Tests of reading and writing.

use std::path::Path;

use prost::Message;

use super::proto::{AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use super::write;
use crate::model::build::{ModelBuilder, Subject};
use crate::model::ir::{DType, Data, Model, Op, PadMode, Tensor, Window};
use crate::model::{ImportError, ReadOptions, read, read_bytes};

mod fuzz;
mod refuse;

fn parse(bytes: &[u8]) -> Result<Model, ImportError> {
    read_bytes(bytes, Path::new("test.onnx"), &ReadOptions::default())
}

/// Operations, types and shapes in order, with the inputs by name: equal for a model and its re-reading.
fn outline(model: &Model) -> Vec<String> {
    let show = |id| {
        let v = model.value(id);
        format!("{}:{}{:?}{:?}", v.name, v.dtype, v.shape, v.constant)
    };
    let node = |n: &crate::model::ir::Node| {
        let inputs: Vec<_> = n.inputs.iter().map(|id| id.map(show)).collect();
        format!("{} {:?} {inputs:?} -> {}", n.name, n.op, show(n.output))
    };
    model.nodes.iter().map(node).collect()
}

fn window(kernel: &[usize], strides: &[usize], pads: &[usize], ceil_mode: bool) -> Window {
    let n = kernel.len();
    Window {
        kernel: kernel.to_vec(),
        strides: strides.to_vec(),
        dilations: vec![1; n],
        pads_begin: pads[..n].to_vec(),
        pads_end: pads[n..].to_vec(),
        ceil_mode,
    }
}

/// A float network with most layout operations.
fn float_model() -> Model {
    let mut b = ModelBuilder::new("float");
    let x = b.input("x", DType::F32, &[1, 2, 6, 5]).unwrap();
    let w = b.constant("w", Tensor::f32(&[3, 2, 3, 3], (0..54).map(|i| i as f32 * 0.25 - 6.0).collect())).unwrap();
    let bias = b.constant("bias", Tensor::f32(&[3], vec![0.5, -0.5, 0.0])).unwrap();
    let window3 = window(&[3, 3], &[1, 1], &[1, 1, 1, 1], false);
    let conv = b.node(Op::Conv { window: window3, group: 1 }, &[x, w, bias]).unwrap();
    let four: Vec<_> = ["s", "b", "m", "v"]
        .iter()
        .map(|name| b.constant(name, Tensor::f32(&[3], vec![1.0, 2.0, 0.5])).unwrap())
        .collect();
    let norm = b.node(Op::BatchNormalization { epsilon: 1e-3 }, &[conv, four[0], four[1], four[2], four[3]]).unwrap();
    let relu = b.node(Op::LeakyRelu { alpha: 0.125 }, &[norm]).unwrap();
    let pool = b.node(Op::MaxPool { window: window(&[2, 2], &[2, 2], &[0, 0, 1, 1], true) }, &[relu]).unwrap();
    let mean = Op::AveragePool { window: window(&[2, 2], &[1, 1], &[1, 0, 0, 1], false), count_include_pad: true };
    let mean = b.node(mean, &[pool]).unwrap();
    let pad = Op::Pad { begin: vec![0, 0, 1, 0], end: vec![0, 0, 0, -1], mode: PadMode::Constant(0.5) };
    let pad = b.node(pad, &[mean]).unwrap();
    let slice = Op::Slice { starts: vec![0, 2, 0, 0], steps: vec![1, -1, 2, 1] };
    let slice = b.node(slice, &[pad]).unwrap();
    let perm = b.node(Op::Transpose { perm: vec![0, 2, 3, 1] }, &[slice]).unwrap();
    let tile = b.node(Op::Tile { repeats: vec![1, 1, 2, 1] }, &[perm]).unwrap();
    let sum = b.node_with(Op::ReduceSum { axes: vec![1] }, &[Some(tile)], None, None).unwrap();
    let shape = b.value(sum).shape.clone();
    let flat = b.reshape(sum, &[1, shape.iter().product()]).unwrap();
    let clip = b.node(Op::Clip { min: Some(-1.0), max: None }, &[flat]).unwrap();
    let soft = b.node(Op::Softmax { axis: 1 }, &[clip]).unwrap();
    b.output(soft);
    b.output(norm);
    b.finish().unwrap()
}

/// A network with QDQ and QOperator parts, 16-bit types included.
fn quantized_model() -> Model {
    let mut b = ModelBuilder::new("quantized");
    let x = b.input("x", DType::F32, &[1, 4]).unwrap();
    let s = b.constant("s", Tensor::scalar(0.125)).unwrap();
    let z = b.constant("z", Tensor { shape: vec![], data: Data::U8(vec![128]) }).unwrap();
    let w = b.constant("w", Tensor { shape: vec![4, 3], data: Data::I8((-6..6).collect()) }).unwrap();
    let ws = b.constant("ws", Tensor::f32(&[3], vec![0.5, 0.25, 0.125])).unwrap();
    let wz = b.constant("wz", Tensor { shape: vec![3], data: Data::I8(vec![0; 3]) }).unwrap();
    let q = b.node(Op::QuantizeLinear { axis: 0 }, &[x, s, z]).unwrap();
    let y = b.node(Op::QLinearMatMul, &[q, s, z, w, ws, wz, s, z]).unwrap();
    let y = b.node(Op::QLinearLeakyRelu { alpha: 0.5 }, &[y, s, z, s, z]).unwrap();
    let y = b.node(Op::QLinearAdd, &[y, s, z, y, s, z, s, z]).unwrap();
    let y = b.node(Op::DequantizeLinear { axis: 0 }, &[y, s, z]).unwrap();
    let wd = b.node(Op::DequantizeLinear { axis: 1 }, &[w, ws, wz]).unwrap();
    let wd = b.node(Op::Transpose { perm: vec![1, 0] }, &[wd]).unwrap();
    let gemm = Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false };
    let y = b.node(gemm, &[y, wd]).unwrap();
    let wide = b.node_with(Op::QuantizeLinear { axis: 0 }, &[Some(y), Some(s)], None, Some(DType::I16)).unwrap();
    b.output(wide);
    b.finish().unwrap()
}

#[test]
fn writing_and_reading_gives_the_model_back() {
    for model in [float_model(), quantized_model()] {
        let bytes = write(&model).unwrap();
        let again = parse(&bytes).unwrap();
        assert_eq!(outline(&model), outline(&again));
        assert_eq!(model.inputs.len(), again.inputs.len());
        assert_eq!(model.outputs.len(), again.outputs.len());
        assert_eq!(model.name, again.name);
    }
}

#[test]
fn a_gzipped_file_reads_like_the_file_in_it() {
    use std::io::Write;
    let plain = write(&float_model()).unwrap();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(&plain).unwrap();
    let packed = packer.finish().unwrap();
    assert_eq!(outline(&parse(&packed).unwrap()), outline(&parse(&plain).unwrap()));
    assert_ne!(parse(&packed).unwrap().source.sha256, parse(&plain).unwrap().source.sha256);
    let options = ReadOptions { max_file_bytes: plain.len() as u64 - 1, ..ReadOptions::default() };
    let refused = read_bytes(&packed, Path::new("a.onnx.gz"), &options).unwrap_err();
    assert!(matches!(refused, ImportError::TooLarge { .. }), "{refused}");
}

/// A file with one input `x` [N, 2] and these nodes and initializers; output `y`.
fn file(nodes: Vec<NodeProto>, initializer: Vec<TensorProto>) -> ModelProto {
    let mut proto = ModelProto::decode(&write(&identity()).unwrap()[..]).unwrap();
    let graph = proto.graph.as_mut().unwrap();
    *graph = GraphProto { node: nodes, initializer, ..graph.clone() };
    graph.value_info.clear();
    graph.output = vec![ValueInfoProto { name: Some("y".into()), r#type: None }];
    proto
}

fn identity() -> Model {
    let mut b = ModelBuilder::new("g");
    let x = b.input("x", DType::F32, &[1, 2]).unwrap();
    let y = b.node(Op::Identity, &[x]).unwrap();
    b.output(y);
    b.finish().unwrap()
}

fn node(op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    let names = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
    NodeProto {
        op_type: Some(op.into()),
        input: names(inputs),
        output: names(outputs),
        attribute,
        ..Default::default()
    }
}

fn int_attribute(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(2), i: Some(value), ..Default::default() }
}

fn read_proto(proto: &ModelProto) -> Result<Model, ImportError> {
    parse(&proto.encode_to_vec())
}

fn constant(name: &str, tensor: Tensor) -> TensorProto {
    super::tensor::to_proto(name, &tensor)
}

#[test]
fn nodes_are_sorted_and_dead_ones_dropped() {
    let nodes = vec![
        node("Relu", &["b"], &["y"], vec![]),
        node("Neg", &["x"], &["dead"], vec![]),
        node("Neg", &["x"], &["b"], vec![]),
    ];
    let model = read_proto(&file(nodes, vec![])).unwrap();
    let names: Vec<_> = model.nodes.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["Neg#2", "Relu#0"]);
    assert!(model.values.iter().all(|v| v.name != "dead"));
    assert_eq!(model.unused, ["Neg#1"]);
}

#[test]
fn constant_arithmetic_is_folded_with_one_rounding_each() {
    let nodes = vec![node("Mul", &["a", "b"], &["c"], vec![]), node("Add", &["x", "c"], &["y"], vec![])];
    let init = vec![constant("a", Tensor::f32(&[2], vec![0.1, 3.0])), constant("b", Tensor::scalar(0.3))];
    let model = read_proto(&file(nodes, init)).unwrap();
    assert_eq!(model.nodes.len(), 1);
    let folded = model.constant(&model.nodes[0], 1).unwrap();
    assert_eq!(folded.as_f32().unwrap(), [0.1f32 * 0.3f32, 3.0f32 * 0.3f32]);
}

#[test]
fn a_symbolic_batch_is_one() {
    let mut proto = file(vec![node("Relu", &["x"], &["y"], vec![])], vec![]);
    let tensor = proto.graph.as_mut().unwrap().input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
    tensor.shape.as_mut().unwrap().dim[0].value = Some(Dimension::DimParam("N".into()));
    assert_eq!(read_proto(&proto).unwrap().values[0].shape, [1, 2]);
    let tensor = proto.graph.as_mut().unwrap().input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
    tensor.shape.as_mut().unwrap().dim[1].value = None;
    let message = read_proto(&proto).unwrap_err().to_string();
    assert!(message.contains("value `x`") && message.contains("dimension 1 is unknown"), "{message}");
}

#[test]
fn external_data_stays_in_the_folder_and_in_bounds() {
    let folder = std::env::temp_dir().join(format!("quaver-external-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("w.bin"), [&[0u8; 4][..], &1.5f32.to_le_bytes(), &2.5f32.to_le_bytes()].concat())
        .unwrap();
    let with = |location: &str, offset: &str, length: &str| {
        let entry =
            |k: &str, v: &str| super::proto::StringStringEntryProto { key: Some(k.into()), value: Some(v.into()) };
        let external_data = vec![entry("location", location), entry("offset", offset), entry("length", length)];
        let w = TensorProto {
            raw_data: None,
            data_location: Some(1),
            external_data,
            ..constant("w", Tensor::f32(&[2], vec![0.0; 2]))
        };
        let proto = file(vec![node("Add", &["x", "w"], &["y"], vec![])], vec![w]);
        let path = folder.join("m.onnx");
        std::fs::write(&path, proto.encode_to_vec()).unwrap();
        read(&path, &ReadOptions::default())
    };
    let model = with("w.bin", "4", "8").unwrap();
    assert_eq!(model.constant(&model.nodes[0], 1).unwrap().as_f32().unwrap(), [1.5, 2.5]);
    let absolute = folder.join("w.bin");
    for (location, offset, length, why) in [
        ("../w.bin", "4", "8", "not a plain path"),
        (absolute.to_str().unwrap(), "4", "8", "not a plain path"),
        ("w.bin", "5", "8", "truncated"),
        ("w.bin", "18446744073709551615", "8", "truncated"),
        ("w.bin", "4", "12", "ask for 8"),
        ("none.bin", "4", "8", "cannot read"),
    ] {
        let message = with(location, offset, length).unwrap_err().to_string();
        assert!(message.contains(why), "{message}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// Reads every ONNX file below the folder that `QUAVER_ONNX_DIR` names.
#[test]
fn files_of_a_folder_read_and_write() {
    let Some(folder) = std::env::var_os("QUAVER_ONNX_DIR") else { return };
    let mut folders = vec![std::path::PathBuf::from(folder)];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.to_string_lossy().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".onnx") || name.ends_with(".onnx.gz") {
                let model = read(&path, &ReadOptions::default()).unwrap_or_else(|e| panic!("{e}"));
                let again = parse(&write(&model).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert_eq!(outline(&model), outline(&again), "{name}");
                count += 1;
            }
        }
    }
    println!("{count} files");
}
