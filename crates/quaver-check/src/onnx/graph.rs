//! The messages of an ONNX file as plain structures. Fields that only document are skipped, all others are understood or
//! refused.

use super::wire::{Field, each, once, push, set, words};

/// A model: one graph, and the version of the operators in it.
#[derive(Debug)]
pub(super) struct Model {
    pub opset: i64,
    pub graph: Graph,
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    pub nodes: Vec<Node>,
    pub initializers: Vec<Tensor>,
    pub inputs: Vec<Input>,
    pub outputs: Vec<String>,
}

/// An input; axes without a size are symbolic.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub name: String,
    pub element: i64,
    pub axes: Option<Vec<Option<i64>>>,
}

#[derive(Debug, Default)]
pub(super) struct Node {
    pub name: String,
    pub op: String,
    pub domain: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    pub attributes: Vec<(String, Attribute)>,
}

#[derive(Clone, Debug)]
pub(super) enum Attribute {
    Float(f32),
    Int(i64),
    Text(String),
    Tensor(Tensor),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
}

/// A constant; the numbers are exactly those stored.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    /// The type of the elements, by its number in the format.
    pub kind: i64,
    pub data: Data,
}

#[derive(Clone, Debug)]
pub(super) enum Data {
    Reals(Vec<f64>),
    Ints(Vec<i64>),
}

/// Reads a ModelProto.
pub(super) fn model(bytes: &[u8]) -> Result<Model, String> {
    let (mut main, mut opset) = (None, None);
    each(bytes, |number, field| match number {
        1..=6 | 14 => Ok(()),
        7 => once(&mut main, field.bytes()),
        8 => opset_import(field.bytes()?, &mut opset),
        20 => Err("training information is not supported".into()),
        25 => Err("local functions are not supported".into()),
        _ => unknown("the model", number),
    })?;
    let opset = opset.ok_or("the file imports no version of the default operators; is it an ONNX model?")?;
    Ok(Model { opset, graph: graph(main.ok_or("the file has no graph")?)? })
}

fn opset_import(bytes: &[u8], opset: &mut Option<i64>) -> Result<(), String> {
    let (mut domain, mut version) = (None, None);
    each(bytes, |number, field| match number {
        1 => once(&mut domain, field.text()),
        2 => once(&mut version, field.int()),
        _ => unknown("an operator set", number),
    })?;
    match domain.as_deref() {
        None | Some("" | "ai.onnx") => once(opset, Ok(version.unwrap_or(0))),
        // Nodes of other domains are refused.
        Some(_) => Ok(()),
    }
}

fn graph(bytes: &[u8]) -> Result<Graph, String> {
    let mut graph = Graph::default();
    each(bytes, |number, field| match number {
        1 => push(&mut graph.nodes, node(field.bytes()?)),
        // The name, documentation, claims about shapes of intermediate values.
        2 | 10 | 13 | 16 => Ok(()),
        5 => push(&mut graph.initializers, tensor(field.bytes()?)),
        11 => push(&mut graph.inputs, value_info(field.bytes()?)),
        12 => push(&mut graph.outputs, value_info(field.bytes()?).map(|output| output.name)),
        14 => Err("quantization annotations are not supported".into()),
        15 => Err("sparse initializers are not supported".into()),
        _ => unknown("the graph", number),
    })?;
    Ok(graph)
}

fn node(bytes: &[u8]) -> Result<Node, String> {
    let (mut node, mut attributes) = (Node::default(), vec![]);
    each(bytes, |number, field| match number {
        1 => push(&mut node.inputs, field.text()),
        2 => push(&mut node.outputs, field.text()),
        3 => set(&mut node.name, field.text()),
        4 => set(&mut node.op, field.text()),
        5 => push(&mut attributes, field.bytes()),
        6 | 9 => Ok(()),
        7 => set(&mut node.domain, field.text()),
        _ => unknown(&node.label(), number),
    })?;
    for bytes in attributes {
        node.attributes.push(attribute(bytes).map_err(|why| format!("{}: {why}", node.label()))?);
    }
    Ok(node)
}

impl Node {
    /// For messages.
    pub fn label(&self) -> String {
        let name = Some(&self.name).filter(|name| !name.is_empty()).or(self.outputs.first());
        format!("node '{}' ({})", name.map_or("", String::as_str), self.op)
    }
}

fn attribute(bytes: &[u8]) -> Result<(String, Attribute), String> {
    let (mut name, mut kind, mut value) = (String::new(), 0, None);
    let (mut floats, mut ints) = (vec![], vec![]);
    each(bytes, |number, field| match number {
        1 => set(&mut name, field.text()),
        2 => once(&mut value, field.float().map(Attribute::Float)),
        3 => once(&mut value, field.int().map(Attribute::Int)),
        4 => once(&mut value, field.text().map(Attribute::Text)),
        5 => once(&mut value, tensor(field.bytes()?).map(Attribute::Tensor)),
        6 | 11 => Err(format!("attribute '{name}' holds a graph; subgraphs are not supported")),
        7 => field.floats(&mut floats),
        8 => field.ints(&mut ints),
        13 => Ok(()),
        20 => set(&mut kind, field.int()),
        _ => unknown(&format!("attribute '{name}'"), number),
    })?;
    if !floats.is_empty() {
        once(&mut value, Ok(Attribute::Floats(floats)))?;
    }
    if !ints.is_empty() {
        once(&mut value, Ok(Attribute::Ints(ints)))?;
    }
    let value = typed(kind, value).ok_or_else(|| format!("attribute '{name}' of type {kind} is not understood"))?;
    Ok((name, value))
}

/// The value if it is of the type, with what may be left out.
fn typed(kind: i64, value: Option<Attribute>) -> Option<Attribute> {
    Some(match (kind, value) {
        (1, None) => Attribute::Float(0.0),
        (2, None) => Attribute::Int(0),
        (3, None) => Attribute::Text(String::new()),
        (6, None) => Attribute::Floats(vec![]),
        (7, None) => Attribute::Ints(vec![]),
        (1, Some(value @ Attribute::Float(_)))
        | (2, Some(value @ Attribute::Int(_)))
        | (3, Some(value @ Attribute::Text(_)))
        | (4, Some(value @ Attribute::Tensor(_)))
        | (6, Some(value @ Attribute::Floats(_)))
        | (7, Some(value @ Attribute::Ints(_))) => value,
        _ => return None,
    })
}

/// The data of a tensor where it is stored.
#[derive(Default)]
struct Parts<'a> {
    raw: Option<&'a [u8]>,
    floats: Vec<f32>,
    doubles: Vec<f64>,
    ints32: Vec<i64>,
    ints64: Vec<i64>,
}

fn tensor(bytes: &[u8]) -> Result<Tensor, String> {
    let (mut name, mut kind, mut sizes, mut stored) = (String::new(), 0, vec![], Parts::default());
    each(bytes, |number, field| match number {
        1 => field.ints(&mut sizes),
        2 => set(&mut kind, field.int()),
        4 => field.floats(&mut stored.floats),
        5 => field.ints(&mut stored.ints32),
        7 => field.ints(&mut stored.ints64),
        8 => set(&mut name, field.text()),
        9 => once(&mut stored.raw, field.bytes()),
        10 => field.doubles(&mut stored.doubles),
        12 | 16 => Ok(()),
        14 if matches!(field, Field::Varint(0)) => Ok(()),
        13 | 14 => Err(format!("tensor '{name}' is in another file; external data is not supported")),
        _ => unknown(&format!("tensor '{name}'"), number),
    })?;
    let shape: Result<Vec<usize>, _> = sizes.into_iter().map(usize::try_from).collect();
    let shape = shape.map_err(|_| format!("tensor '{name}' has a negative size"))?;
    let data = stored.data(kind).map_err(|why| format!("tensor '{name}': {why}"))?;
    // Without zeros, so that no product of some sizes is too large.
    let bounded = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size.max(1))).is_some();
    if !bounded || shape.iter().product::<usize>() != data.len() {
        return Err(format!("tensor '{name}' of shape {shape:?} stores {} elements", data.len()));
    }
    Ok(Tensor { name, shape, kind, data })
}

impl Data {
    pub fn len(&self) -> usize {
        match self {
            Data::Reals(reals) => reals.len(),
            Data::Ints(ints) => ints.len(),
        }
    }
}

impl Parts<'_> {
    fn data(self, kind: i64) -> Result<Data, String> {
        let listed = self.floats.len() + self.doubles.len() + self.ints32.len() + self.ints64.len();
        let from_raw = self.raw.is_some();
        let data = match (kind, self.raw) {
            (1, Some(raw)) => Data::Reals(words(raw)?.iter().map(|&w| f32::from_le_bytes(w).into()).collect()),
            (1, None) => Data::Reals(self.floats.into_iter().map(f64::from).collect()),
            (2 | 9, Some(raw)) => Data::Ints(raw.iter().map(|&byte| byte.into()).collect()),
            (3, Some(raw)) => Data::Ints(raw.iter().map(|&byte| i64::from(byte as i8)).collect()),
            (4, Some(raw)) => Data::Ints(raw.as_chunks().0.iter().map(|&w| u16::from_le_bytes(w).into()).collect()),
            (5, Some(raw)) => Data::Ints(raw.as_chunks().0.iter().map(|&w| i16::from_le_bytes(w).into()).collect()),
            (6, Some(raw)) => Data::Ints(words(raw)?.iter().map(|&w| i32::from_le_bytes(w).into()).collect()),
            (2, None) => Data::Ints(within(0, 255, self.ints32)?),
            (4, None) => Data::Ints(within(0, u16::MAX.into(), self.ints32)?),
            (5, None) => Data::Ints(within(i16::MIN.into(), i16::MAX.into(), self.ints32)?),
            (9, None) => Data::Ints(within(0, 1, self.ints32)?),
            (3, None) => Data::Ints(within(-128, 127, self.ints32)?),
            (6, None) => Data::Ints(within(i32::MIN.into(), i32::MAX.into(), self.ints32)?),
            (7, Some(raw)) => Data::Ints(words(raw)?.iter().map(|&w| i64::from_le_bytes(w)).collect()),
            (7, None) => Data::Ints(self.ints64),
            (11, Some(raw)) => Data::Reals(words(raw)?.iter().map(|&w| f64::from_le_bytes(w)).collect()),
            (11, None) => Data::Reals(self.doubles),
            _ => return Err(format!("the data type {kind} is not supported")),
        };
        if listed != if from_raw { 0 } else { data.len() } {
            return Err("elements are stored in several places".into());
        }
        Ok(data)
    }
}

fn within(low: i64, high: i64, ints: Vec<i64>) -> Result<Vec<i64>, String> {
    match ints.iter().find(|&&i| i < low || i > high) {
        Some(i) => Err(format!("the integer {i} is outside its type")),
        None => Ok(ints),
    }
}

fn value_info(bytes: &[u8]) -> Result<Input, String> {
    let (mut input, mut element) = (Input::default(), None);
    each(bytes, |number, field| match number {
        1 => set(&mut input.name, field.text()),
        2 => each(field.bytes()?, |number, field| match number {
            1 => each(field.bytes()?, |number, field| match number {
                1 => once(&mut element, field.int()),
                2 => once(&mut input.axes, axes(field.bytes()?)),
                _ => unknown("the type of a tensor", number),
            }),
            6 => Ok(()),
            _ => Err(format!("'{}' is not a dense tensor", input.name)),
        }),
        3 | 4 => Ok(()),
        _ => unknown("an input or output", number),
    })?;
    Ok(Input { element: element.unwrap_or(0), ..input })
}

fn axes(shape: &[u8]) -> Result<Vec<Option<i64>>, String> {
    let mut axes = vec![];
    each(shape, |number, field| match number {
        1 => push(&mut axes, axis(field.bytes()?)),
        _ => unknown("a shape", number),
    })?;
    Ok(axes)
}

/// The size of an axis, none if it is symbolic.
fn axis(bytes: &[u8]) -> Result<Option<i64>, String> {
    let (mut size, mut symbol) = (None, None);
    each(bytes, |number, field| match number {
        1 => once(&mut size, field.int()),
        2 => once(&mut symbol, field.text()),
        3 => Ok(()),
        _ => unknown("an axis", number),
    })?;
    if size.is_some() && symbol.is_some() { Err("an axis has both a size and a symbol".into()) } else { Ok(size) }
}

fn unknown(what: &str, number: u32) -> Result<(), String> {
    Err(format!("{what} has a field {number}, which is not understood"))
}
