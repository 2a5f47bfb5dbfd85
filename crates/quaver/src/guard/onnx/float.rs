//! The float network's own graph, within a branch.

use prost::Message;

use super::Refusal;
use super::builder::Builder;
use crate::model::onnx::proto::Dimension::DimValue;
use crate::model::onnx::proto::{
    DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto, data_type,
};

/// What names of the float network begin with.
const PREFIX: &str = "float/";
/// The oldest operator set that the guard's own operators are in.
const OPSET: i64 = 13;
const FORMAT: i64 = 8;

/// A float network of one input and one output as it was read.
pub(super) struct Float {
    graph: GraphProto,
    input: String,
    /// The shape of a row.
    pub shape: Vec<i64>,
    pub opsets: Vec<OperatorSetIdProto>,
    pub opset: i64,
    pub ir_version: i64,
}

impl Float {
    /// From the bytes of an ONNX file.
    pub fn new(bytes: &[u8]) -> Result<Float, Refusal> {
        let broken = |_| Refusal::new("the float network is no ONNX file", "give an ONNX file that is not compressed");
        let model = ModelProto::decode(bytes).map_err(broken)?;
        let graph = model.graph.unwrap_or_default();
        let is_standard = |o: &&OperatorSetIdProto| matches!(o.domain.as_deref(), None | Some("" | "ai.onnx"));
        let opset = model.opset_import.iter().find(is_standard).and_then(|o| o.version).unwrap_or(1);
        if opset < OPSET {
            let problem = format!("the float network is written in operator set {opset}");
            return Err(Refusal::new(problem, "convert it to operator set 13 or newer"));
        }
        let is_constant = |name: &str| graph.initializer.iter().any(|t| t.name.as_deref() == Some(name));
        let inputs: Vec<_> = graph.input.iter().filter(|i| !is_constant(i.name.as_deref().unwrap_or(""))).collect();
        let ([input], [_]) = (&inputs[..], &graph.output[..]) else {
            return Err(Refusal::new("the float network has several inputs or outputs", "use one with one of each"));
        };
        let is_whole = model.functions.is_empty() && graph.sparse_initializer.is_empty();
        if !is_whole || graph.initializer.iter().any(|t| !t.external_data.is_empty()) {
            let problem = "the float network has functions, sparse constants or constants in other files";
            return Err(Refusal::new(problem, "write it as one file of plain operators"));
        }
        let (input, shape) = (input.name.clone().unwrap_or_default(), shape(input)?);
        let ir_version = model.ir_version.unwrap_or(0).max(FORMAT);
        let mut float = Float { graph, input, shape, opsets: model.opset_import, opset, ir_version };
        float.free_rows()?;
        Ok(float)
    }

    /// Lets operators take any number of rows.
    ///
    /// # Why
    /// The operators that are let through work on each row alone, or (`Reshape`) keep the first axis; a shape that begins with 1 gets the number of
    /// rows instead.
    fn free_rows(&mut self) -> Result<(), Refusal> {
        let GraphProto { node, initializer, .. } = &mut self.graph;
        let mut shapes: Vec<String> = vec![];
        for node in node.iter() {
            let op = node.op_type.as_deref().unwrap_or("");
            if !keeps_rows(node, op) {
                let problem = format!("the float network's {op} may mix rows");
                return Err(Refusal::new(problem, "use a network that works on each row alone"));
            }
            if op == "Reshape" {
                shapes.push(node.input.get(1).cloned().unwrap_or_default());
            }
        }
        for name in shapes {
            let found = initializer.iter_mut().find(|t| t.name.as_ref() == Some(&name));
            let refuse = || {
                Refusal::new(
                    "a Reshape of the float network may mix rows",
                    "give it a constant shape that begins with 1",
                )
            };
            let tensor = found.ok_or_else(refuse)?;
            let shape = integers(tensor).ok_or_else(refuse)?;
            if !matches!(shape.first(), Some(0 | 1)) {
                return Err(refuse());
            }
            let bytes = [0].iter().chain(&shape[1..]).flat_map(|d: &i64| d.to_le_bytes()).collect();
            (tensor.raw_data, tensor.int64_data) = (Some(bytes), vec![]);
        }
        Ok(())
    }

    /// Adds the network on some rows, and gives the name of its outputs.
    pub fn embed(&self, b: &mut Builder, rows: &str) -> String {
        let rename = |name: &String| match name.as_str() {
            "" => String::new(),
            name if name == self.input => rows.to_string(),
            name => format!("{PREFIX}{name}"),
        };
        let renamed = |node: &NodeProto| NodeProto {
            input: node.input.iter().map(rename).collect(),
            output: node.output.iter().map(rename).collect(),
            name: node.name.as_ref().map(rename),
            ..node.clone()
        };
        let constant = |t: &TensorProto| TensorProto { name: t.name.as_ref().map(rename), ..t.clone() };
        b.current().initializer.extend(self.graph.initializer.iter().map(constant));
        b.current().node.extend(self.graph.node.iter().map(renamed));
        rename(&self.graph.output[0].name.clone().unwrap_or_default())
    }
}

/// The shape of a row: all numbers, behind one axis of rows.
fn shape(input: &ValueInfoProto) -> Result<Vec<i64>, Refusal> {
    let tensor = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let dims = tensor.and_then(|t| t.shape.as_ref()).map(|s| &s.dim[..]).unwrap_or_default();
    let number = |d: &DimensionProto| match d.value {
        Some(DimValue(n)) if n > 0 => Some(n),
        _ => None,
    };
    let is_float = tensor.is_some_and(|t| t.elem_type == Some(data_type::FLOAT));
    let row: Option<Vec<i64>> = dims.iter().skip(1).map(number).collect();
    let is_one = dims.first().is_some_and(|d| number(d).is_none_or(|n| n == 1));
    row.filter(|row| is_float && is_one && !row.is_empty()).ok_or_else(|| {
        let problem = "the float network's input is no float32 tensor of rows of known shape";
        Refusal::new(problem, "declare its input as [1, ...] with numbers")
    })
}

fn integers(tensor: &TensorProto) -> Option<Vec<i64>> {
    match &tensor.raw_data {
        _ if tensor.data_type != Some(data_type::INT64) => None,
        Some(bytes) => {
            Some(bytes.chunks_exact(8).map(|c| i64::from_le_bytes(c.try_into().unwrap_or_default())).collect())
        }
        None => Some(tensor.int64_data.clone()),
    }
}

/// Whether an operator works on each row alone, whatever their number, when it does so for one row.
fn keeps_rows(node: &NodeProto, op: &str) -> bool {
    let attribute = |name: &str| node.attribute.iter().find(|a| a.name.as_deref() == Some(name));
    let is =
        |name: &str, otherwise: i64, wanted: i64| attribute(name).map_or(otherwise, |a| a.i.unwrap_or(0)) == wanted;
    match op {
        "Conv" | "Relu" | "Clip" | "LeakyRelu" | "PRelu" | "Add" | "Sub" | "Mul" | "Div" | "MaxPool"
        | "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool" | "BatchNormalization" | "Identity" | "Dropout"
        | "MatMul" | "Constant" | "Sigmoid" | "Tanh" => true,
        "Gemm" => is("transA", 0, 0),
        "Flatten" => is("axis", 1, 1),
        "Reshape" => is("allowzero", 0, 0),
        "Transpose" => attribute("perm").is_some_and(|a| a.ints.first() == Some(&0)),
        _ => false,
    }
}
