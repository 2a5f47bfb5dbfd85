//! Nodes and constants of an ONNX graph and of the branches within it, each under a name of its own.

use crate::model::onnx::proto::{
    AttributeProto, Dimension, DimensionProto, GraphProto, NodeProto, TensorProto, TensorShapeProto, TensorTypeProto,
    TypeProto, ValueInfoProto, attribute_type, data_type,
};
use prost::Message;

/// What generated names begin with.
const PREFIX: &str = "guard/";

/// A graph that is built; branches are opened and closed within it.
pub(super) struct Builder {
    /// The graph, and branches that are open.
    graphs: Vec<GraphProto>,
    count: usize,
    opset: i64,
}

/// An attribute that is an integer.
pub(super) fn int(name: &str, i: i64) -> AttributeProto {
    let r#type = Some(attribute_type::INT);
    AttributeProto { name: Some(name.into()), r#type, i: Some(i), ..AttributeProto::default() }
}

pub(super) fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    let r#type = Some(attribute_type::INTS);
    AttributeProto { name: Some(name.into()), r#type, ints: ints.into(), ..AttributeProto::default() }
}

fn graph(name: &str, graph: &GraphProto) -> AttributeProto {
    let r#type = Some(attribute_type::GRAPH);
    AttributeProto { name: Some(name.into()), r#type, g: Some(graph.encode_to_vec()), ..AttributeProto::default() }
}

/// A value with an element type, and a shape unless it is left open.
pub(super) fn value(name: &str, elements: i32, shape: Option<Vec<Dimension>>) -> ValueInfoProto {
    let dim = |d: Dimension| DimensionProto { value: Some(d) };
    let shape = shape.map(|shape| TensorShapeProto { dim: shape.into_iter().map(dim).collect() });
    let tensor_type = Some(TensorTypeProto { elem_type: Some(elements), shape });
    ValueInfoProto { name: Some(name.into()), r#type: Some(TypeProto { tensor_type }) }
}

impl Builder {
    pub fn new(opset: i64) -> Self {
        Builder { graphs: vec![GraphProto { name: Some("guard".into()), ..GraphProto::default() }], count: 0, opset }
    }

    /// The graph or branch that is built now.
    pub fn current(&mut self) -> &mut GraphProto {
        self.graphs.last_mut().unwrap_or_else(|| unreachable!("the outermost graph is never closed"))
    }

    /// The graph.
    pub fn finish(mut self) -> GraphProto {
        self.graphs.swap_remove(0)
    }

    fn name(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{PREFIX}{what}_{}", self.count)
    }

    /// Adds a node, and gives the names of its outputs.
    pub fn many(&mut self, op: &str, inputs: &[&str], outputs: usize, attributes: Vec<AttributeProto>) -> Vec<String> {
        let name = self.name(op);
        let output: Vec<String> = match outputs {
            1 => vec![name.clone()],
            _ => (0..outputs).map(|i| format!("{name}.{i}")).collect(),
        };
        self.current().node.push(NodeProto {
            input: inputs.iter().map(|i| (*i).into()).collect(),
            output: output.clone(),
            name: Some(name),
            op_type: Some(op.into()),
            attribute: attributes,
            ..NodeProto::default()
        });
        output
    }

    /// Adds a node with attributes.
    pub fn with(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        self.many(op, inputs, 1, attributes).swap_remove(0)
    }

    /// Adds a node without attributes.
    pub fn node(&mut self, op: &str, inputs: &[&str]) -> String {
        self.with(op, inputs, vec![])
    }

    /// A value under a name that is chosen elsewhere.
    pub fn rename(&mut self, from: &str, to: &str) {
        let name = self.name("Identity");
        self.current().node.push(NodeProto {
            input: vec![from.into()],
            output: vec![to.into()],
            name: Some(name),
            op_type: Some("Identity".into()),
            ..NodeProto::default()
        });
    }

    /// The same numbers as another element type.
    pub fn cast(&mut self, x: &str, to: i32) -> String {
        self.with("Cast", &[x], vec![int("to", to.into())])
    }

    /// A reduction over one axis.
    pub fn reduce(&mut self, op: &str, x: &str, axis: i64, keep: bool) -> String {
        let keep = int("keepdims", keep.into());
        if op == "ReduceSum" || self.opset >= 18 {
            let axes = self.int64(&[axis], &[1]);
            return self.with(op, &[x, &axes], vec![keep]);
        }
        self.with(op, &[x], vec![ints("axes", &[axis]), keep])
    }

    /// The same elements in another shape; -1 stands for the number of rows.
    pub fn reshape(&mut self, x: &str, shape: &[i64]) -> String {
        let shape = self.int64(shape, &[shape.len()]);
        self.node("Reshape", &[x, &shape])
    }

    /// Rows or columns at some places.
    pub fn gather(&mut self, x: &str, places: &str, axis: i64) -> String {
        self.with("Gather", &[x, places], vec![int("axis", axis)])
    }

    /// A new axis behind the first.
    pub fn column(&mut self, x: &str) -> String {
        let axis = self.int64(&[1], &[1]);
        self.node("Unsqueeze", &[x, &axis])
    }

    fn constant(&mut self, elements: i32, bytes: Vec<u8>, shape: &[usize]) -> String {
        let name = self.name("constant");
        self.current().initializer.push(TensorProto {
            dims: shape.iter().map(|d| *d as i64).collect(),
            data_type: Some(elements),
            name: Some(name.clone()),
            raw_data: Some(bytes),
            ..TensorProto::default()
        });
        name
    }

    /// A constant of binary64 numbers.
    pub fn double(&mut self, x: &[f64], shape: &[usize]) -> String {
        self.constant(data_type::DOUBLE, x.iter().flat_map(|x| x.to_le_bytes()).collect(), shape)
    }

    /// A constant of binary32 numbers.
    pub fn single(&mut self, x: &[f32], shape: &[usize]) -> String {
        self.constant(data_type::FLOAT, x.iter().flat_map(|x| x.to_le_bytes()).collect(), shape)
    }

    /// A constant of 64-bit integers.
    pub fn int64(&mut self, x: &[i64], shape: &[usize]) -> String {
        self.constant(data_type::INT64, x.iter().flat_map(|x| x.to_le_bytes()).collect(), shape)
    }

    /// A constant of bytes.
    pub fn bytes(&mut self, x: Vec<u8>, shape: &[usize]) -> String {
        self.constant(data_type::UINT8, x, shape)
    }

    /// Opens a branch: nodes and constants go there.
    pub fn open(&mut self) {
        let name = self.name("branch");
        self.graphs.push(GraphProto { name: Some(name), ..GraphProto::default() });
    }

    /// Closes the branch, whose outputs are values of its own.
    pub fn close(&mut self, outputs: &[(String, i32)]) -> GraphProto {
        self.current().output = outputs.iter().map(|(name, elements)| value(name, *elements, None)).collect();
        self.graphs.pop().unwrap_or_default()
    }

    /// One of two branches.
    pub fn choose(&mut self, condition: &str, branches: [&GraphProto; 2]) -> Vec<String> {
        let outputs = branches[0].output.len();
        let attributes = vec![graph("then_branch", branches[0]), graph("else_branch", branches[1])];
        self.many("If", &[condition], outputs, attributes)
    }
}
