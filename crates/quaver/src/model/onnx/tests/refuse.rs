//! What is refused, and how it is said.

use super::*;

fn message(proto: &ModelProto) -> String {
    read_proto(proto).map(|m| format!("READ {m:?}")).unwrap_or_else(|e| e.to_string())
}

#[track_caller]
fn refused(proto: &ModelProto, parts: &[&str]) {
    let message = message(proto);
    for part in parts {
        assert!(message.contains(part), "`{message}` does not say `{part}`");
    }
}

fn one(op: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> ModelProto {
    file(vec![node(op, inputs, &["y"], attribute)], vec![constant("c", Tensor::f32(&[3], vec![1.0; 3]))])
}

#[test]
fn versions() {
    let mut proto = one("Relu", &["x"], vec![]);
    for (opset, ok) in [(7, false), (8, true), (26, true), (27, false)] {
        proto.opset_import[0].version = Some(opset);
        assert_eq!(read_proto(&proto).is_ok(), ok, "{}", message(&proto));
    }
    refused(&proto, &["opset 27", "convert the model"]);
    proto.ir_version = Some(14);
    refused(&proto, &["test.onnx", "ir_version 14"]);
}

#[test]
fn operators_and_attributes_by_name() {
    refused(&one("DynamicQuantizeLinear", &["x"], vec![]), &["DynamicQuantizeLinear#0", "static quantization"]);
    refused(&one("If", &["x"], vec![]), &["control flow"]);
    refused(&one("Frobnicate", &["x"], vec![]), &["#0, Frobnicate", "not supported"]);
    refused(&one("Relu", &["x"], vec![int_attribute("magic", 1)]), &["attribute `magic`", "not understood"]);
    refused(&one("Flatten", &["x"], vec![int_attribute("axis", 9)]), &["attribute `axis`", "out of range"]);
    let mut foreign = one("Relu", &["x"], vec![]);
    foreign.graph.as_mut().unwrap().node[0].domain = Some("com.example".into());
    refused(&foreign, &["com.example.Relu", "domain `com.example`"]);
}

#[test]
fn values_that_do_not_fit() {
    refused(&one("Add", &["x", "c"], vec![]), &["node `Add#0`", "do not broadcast"]);
    refused(&one("Add", &["x", "nowhere"], vec![]), &["input 1", "`nowhere` is not defined"]);
    refused(&one("Add", &["x", "y"], vec![]), &["cycle"]);
    refused(&one("Add", &["x"], vec![]), &["has 1 inputs"]);
    let twice = vec![node("Relu", &["x"], &["y"], vec![]), node("Neg", &["x"], &["y"], vec![])];
    refused(&file(twice, vec![]), &["value `y`", "defined twice"]);
    let mut lost = one("Relu", &["x"], vec![]);
    lost.graph.as_mut().unwrap().output[0].name = Some("z".into());
    refused(&lost, &["value `z`", "nothing computes it"]);
}

#[test]
fn tensors_that_do_not_fit() {
    let with = |change: fn(&mut TensorProto)| {
        let mut proto = one("Add", &["x", "c"], vec![]);
        change(&mut proto.graph.as_mut().unwrap().initializer[0]);
        proto
    };
    refused(&with(|t| t.data_type = Some(11)), &["value `c`", "double", "export the model for float32"]);
    refused(&with(|t| t.data_type = Some(16)), &["bfloat16"]);
    refused(&with(|t| t.data_type = Some(10)), &["has 12 bytes"]);
    let half = |t: &mut TensorProto| (t.data_type, t.raw_data) = (Some(10), Some(vec![0; 6]));
    refused(&with(half), &["Add", "input 1", "float16", "cast to float32"]);
    refused(&with(|t| t.data_type = Some(22)), &["int4"]);
    refused(&with(|t| t.dims = vec![-3]), &["negative dimension -3"]);
    refused(&with(|t| t.dims = vec![1 << 40, 1 << 40]), &["overflow"]);
    refused(&with(|t| t.dims = vec![1 << 40]), &["12 bytes"]);
    refused(&with(|t| t.float_data = vec![1.0]), &["besides"]);
}

#[test]
fn sizes_above_the_limit() {
    let shape = constant("s", Tensor { shape: vec![2], data: Data::I64(vec![1 << 20, 2]) });
    let proto = file(vec![node("Expand", &["x", "s"], &["y"], vec![])], vec![shape.clone()]);
    assert!(read_proto(&proto).is_ok());
    let options = ReadOptions { max_elements: 1 << 20, ..ReadOptions::default() };
    let error = read_bytes(&proto.encode_to_vec(), Path::new("big.onnx"), &options).unwrap_err();
    assert!(error.to_string().contains("max_elements"), "{error}");
}

#[test]
fn declared_shapes_are_compared() {
    let mut proto = ModelProto::decode(&write(&float_model()).unwrap()[..]).unwrap();
    let info = &mut proto.graph.as_mut().unwrap().value_info[0];
    let tensor = info.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
    tensor.shape.as_mut().unwrap().dim[1].value = Some(Dimension::DimValue(9));
    refused(&proto, &["declared with shape [1, 9, 6, 5]", "computed with shape [1, 3, 6, 5]"]);
}

#[test]
fn a_node_error_names_its_subject() {
    let error = read_proto(&one("Relu", &["x"], vec![int_attribute("magic", 1)])).unwrap_err();
    let ImportError::Node(node) = error else { panic!("{error}") };
    assert_eq!(node.problem.subject, Subject::Attribute("magic".into()));
    assert_eq!((node.index, node.op.as_str()), (0, "Relu"));
}
