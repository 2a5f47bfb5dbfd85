//! Writing models as ONNX.

use std::collections::HashSet;

use prost::Message;

use super::error::WriteError;
use super::proto::{
    Dimension, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto, data_type,
};
use super::tensor::{element_number, to_float16_proto, to_proto};
use super::write_ops::{self, attributes_and_inputs};
use crate::model::ir::{DType, Model, Node, Op, Tensor, Value, ValueId};

const PRODUCER: &str = "quaver";

/// Operators of com.microsoft.
fn domain(op: &Op) -> Option<&'static str> {
    match op {
        Op::QGemm { .. }
        | Op::QLinearAdd
        | Op::QLinearAveragePool { .. }
        | Op::QLinearGlobalAveragePool { .. }
        | Op::QLinearConcat { .. }
        | Op::QLinearLeakyRelu { .. } => Some("com.microsoft"),
        _ => None,
    }
}

/// The model as the bytes of an ONNX file, in the oldest of the opsets 13, 19 and 21 that can say it.
///
/// Reading the bytes gives the model back, up to the names of nodes' auxiliary constants. The model must be one that
/// the reader or [`crate::model::build::ModelBuilder`] made.
pub fn write(model: &Model) -> Result<Vec<u8>, WriteError> {
    let opset = model.nodes.iter().map(|node| needed_opset(model, node)).max().unwrap_or(13).max(13);
    let mut writer = Writer::new(model);
    for (i, node) in model.nodes.iter().enumerate() {
        let protos = match node.op {
            Op::ThroughFloat16 => writer.casts(node)?,
            _ => vec![writer.node(i, node, opset)?],
        };
        writer.graph.node.extend(protos);
    }
    writer.declare();
    let mut opset_import = vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(opset) }];
    if model.nodes.iter().any(|node| domain(&node.op).is_some()) {
        opset_import.push(OperatorSetIdProto { domain: Some("com.microsoft".into()), version: Some(1) });
    }
    let ir_version = match opset {
        13 => 8,
        19 => 9,
        _ => 10,
    };
    let proto = ModelProto {
        ir_version: Some(ir_version),
        opset_import,
        producer_name: Some(PRODUCER.into()),
        producer_version: Some(env!("CARGO_PKG_VERSION").into()),
        graph: Some(writer.graph),
        ..ModelProto::default()
    };
    Ok(proto.encode_to_vec())
}

/// Oldest of the opsets the writer uses that has the node's operator with its types and attributes.
fn needed_opset(model: &Model, node: &Node) -> i64 {
    let wide = |id: ValueId| matches!(model.value(id).dtype, DType::I16 | DType::U16);
    match &node.op {
        Op::QuantizeLinear { .. } if wide(node.output) || output_type(model, node).is_some() => 21,
        Op::DequantizeLinear { .. } if node.inputs.iter().take(1).flatten().any(|&id| wide(id)) => 21,
        Op::AveragePool { window, .. } if window.dilations.iter().any(|&d| d != 1) => 19,
        _ => 13,
    }
}

/// The output type of a QuantizeLinear that its inputs do not tell.
pub(super) fn output_type(model: &Model, node: &Node) -> Option<DType> {
    let zero = node.inputs.get(2).copied().flatten();
    let dtype = model.value(node.output).dtype;
    (zero.is_none() && dtype != DType::U8).then_some(dtype)
}

/// The graph written so far and the names it uses.
pub(super) struct Writer<'a> {
    /// The model that is written.
    pub model: &'a Model,
    graph: GraphProto,
    names: HashSet<String>,
}

impl<'a> Writer<'a> {
    fn new(model: &'a Model) -> Self {
        let names = model.values.iter().map(|v| v.name.clone()).collect();
        let name = if model.name.is_empty() { "graph".to_string() } else { model.name.clone() };
        Writer { model, graph: GraphProto { name: Some(name), ..GraphProto::default() }, names }
    }

    /// Adds an auxiliary constant and gives its name.
    pub fn auxiliary(&mut self, base: &str, what: &str, tensor: &Tensor) -> String {
        let name = self.fresh(base, what);
        self.graph.initializer.push(to_proto(&name, tensor));
        name
    }

    fn fresh(&mut self, base: &str, what: &str) -> String {
        let mut name = format!("{base}_{what}");
        let mut n = 0usize;
        while !self.names.insert(name.clone()) {
            n += 1;
            name = format!("{base}_{what}_{n}");
        }
        name
    }

    fn check(&self, node: &Node) -> Result<(), WriteError> {
        let known = |id: &ValueId| id.0 < self.model.values.len();
        match node.inputs.iter().flatten().chain([&node.output]).all(known) {
            true => Ok(()),
            false => {
                Err(WriteError { node: node.name.clone(), what: "it refers to a value that does not exist".into() })
            }
        }
    }

    /// Casts to float16 and back; of a constant, which is kept in float16, only the second.
    fn casts(&mut self, node: &Node) -> Result<Vec<NodeProto>, WriteError> {
        self.check(node)?;
        let Some(&Some(x)) = node.inputs.first() else {
            return Err(WriteError { node: node.name.clone(), what: "it has no input".into() });
        };
        let (x, output) = (self.model.value(x), self.model.value(node.output).name.clone());
        let cast = |from: &str, to: &str, kind: i32| NodeProto {
            input: vec![from.into()],
            output: vec![to.into()],
            op_type: Some("Cast".into()),
            attribute: vec![write_ops::int("to", kind as usize)],
            ..NodeProto::default()
        };
        let between = self.fresh(&output, "float16");
        match &x.constant {
            Some(tensor) => {
                self.graph.initializer.push(to_float16_proto(&between, tensor));
                Ok(vec![cast(&between, &output, data_type::FLOAT)])
            }
            None => Ok(vec![cast(&x.name, &between, data_type::FLOAT16), cast(&between, &output, data_type::FLOAT)]),
        }
    }

    fn node(&mut self, index: usize, node: &Node, opset: i64) -> Result<NodeProto, WriteError> {
        self.check(node)?;
        let (attribute, extra) = attributes_and_inputs(self, node, opset)?;
        let name = |id: &Option<ValueId>| id.map_or(String::new(), |id| self.model.value(id).name.clone());
        let mut input: Vec<String> = node.inputs.iter().map(name).collect();
        input.extend(extra);
        let unnamed = node.name == format!("{}#{index}", node.op.name());
        Ok(NodeProto {
            input,
            output: vec![self.model.value(node.output).name.clone()],
            name: (!unnamed).then(|| node.name.clone()),
            op_type: Some(node.op.name().into()),
            domain: domain(&node.op).map(String::from),
            attribute,
            ..NodeProto::default()
        })
    }

    /// Inputs, outputs, constants and the types of everything between.
    fn declare(&mut self) {
        let model = self.model;
        let others = || model.nodes.iter().filter(|n| n.op != Op::ThroughFloat16);
        let read: HashSet<ValueId> = others().flat_map(|n| n.inputs.iter().flatten().copied()).collect();
        let through: HashSet<ValueId> = model.nodes.iter().flat_map(|n| n.inputs.iter().flatten().copied()).collect();
        let is_kept = |id: ValueId| read.contains(&id) || !through.contains(&id);
        let values = model.values.iter().enumerate().filter(|(i, _)| is_kept(ValueId(*i)));
        let constants: Vec<TensorProto> =
            values.filter_map(|(_, v)| v.constant.as_ref().map(|tensor| to_proto(&v.name, tensor))).collect();
        self.graph.initializer.extend(constants);
        self.graph.input = model.inputs.iter().map(|&id| info(model.value(id))).collect();
        self.graph.output = model.outputs.iter().map(|&id| info(model.value(id))).collect();
        let between = model.nodes.iter().map(|n| n.output).filter(|id| !model.outputs.contains(id));
        self.graph.value_info = between.map(|id| info(model.value(id))).collect();
    }
}

/// Name, type and shape of a value.
fn info(value: &Value) -> ValueInfoProto {
    let dim = |&d: &usize| DimensionProto { value: Some(Dimension::DimValue(d as i64)) };
    let shape = TensorShapeProto { dim: value.shape.iter().map(dim).collect() };
    let tensor = TensorTypeProto { elem_type: Some(element_number(value.dtype)), shape: Some(shape) };
    ValueInfoProto { name: Some(value.name.clone()), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}
