//! Writing TensorFlow Lite files, for tests and tools: what is given is written, right or wrong.

use flatbuffers::{FlatBufferBuilder, Push, TableFinishedWIPOffset, VOffsetT, WIPOffset};

use super::schema::offset;

/// Element types, by their number in the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum ElementType {
    Float32 = 0,
    Float16 = 1,
    Int32 = 2,
    Uint8 = 3,
    Int64 = 4,
    Int16 = 7,
    Int8 = 9,
    Int4 = 17,
}

/// Operators, by their number in the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the schema's
pub enum Builtin {
    Add = 0,
    AveragePool2D = 1,
    Concatenation = 2,
    Conv2D = 3,
    DepthwiseConv2D = 4,
    Dequantize = 6,
    FullyConnected = 9,
    Logistic = 14,
    MaxPool2D = 17,
    Mul = 18,
    Relu = 19,
    ReluN1To1 = 20,
    Relu6 = 21,
    Reshape = 22,
    Softmax = 25,
    Custom = 32,
    Pad = 34,
    Transpose = 39,
    Mean = 40,
    Sub = 41,
    Squeeze = 43,
    PadV2 = 60,
    ExpandDims = 70,
    Quantize = 114,
    StablehloAdd = 163,
}

/// How a window is padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// As many windows as strides fit into the input.
    Same = 0,
    /// No padding.
    Valid = 1,
}

/// Fused activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// None.
    None = 0,
    /// max(0, x).
    Relu = 1,
    /// x clipped to [-1, 1].
    ReluN1To1 = 2,
    /// x clipped to [0, 6].
    Relu6 = 3,
    /// Not supported by the reader.
    Tanh = 4,
}

/// Options of an operator; pairs are (height, width).
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the fields are the schema's
pub enum OperatorOptions {
    None,
    Conv2D {
        padding: Padding,
        strides: (i32, i32),
        dilations: (i32, i32),
        activation: Activation,
    },
    DepthwiseConv2D {
        padding: Padding,
        strides: (i32, i32),
        dilations: (i32, i32),
        multiplier: i32,
        activation: Activation,
    },
    Pool2D {
        padding: Padding,
        strides: (i32, i32),
        filter: (i32, i32),
        activation: Activation,
    },
    FullyConnected {
        activation: Activation,
        weights_format: i8,
        keep_num_dims: bool,
    },
    Add {
        activation: Activation,
    },
    Sub {
        activation: Activation,
    },
    Mul {
        activation: Activation,
    },
    Concatenation {
        axis: i32,
        activation: Activation,
    },
    Softmax {
        beta: f32,
    },
    Reducer {
        keep_dims: bool,
    },
    Reshape {
        new_shape: Vec<i32>,
    },
    Squeeze {
        dims: Vec<i32>,
    },
}

/// A tensor of the file.
#[derive(Clone, Debug)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Its shape, images as [N, H, W, C].
    pub shape: Vec<i32>,
    /// The shape with -1 for dimensions that are free; empty where none is.
    pub signature: Vec<i32>,
    /// Its element type.
    pub kind: ElementType,
    /// The bytes of a constant, little-endian; empty for a value that is computed.
    pub data: Vec<u8>,
    /// One scale, or one for each index of `axis`; none for a tensor that is not quantized.
    pub scales: Vec<f32>,
    /// As many zero points.
    pub zero_points: Vec<i64>,
    /// Along which axis the scales lie.
    pub axis: i32,
}

impl TensorSpec {
    /// A tensor that is not quantized, without elements.
    pub fn new(name: &str, kind: ElementType, shape: &[i32]) -> Self {
        TensorSpec {
            name: name.into(),
            shape: shape.to_vec(),
            signature: vec![],
            kind,
            data: vec![],
            scales: vec![],
            zero_points: vec![],
            axis: 0,
        }
    }

    /// A float32 value that is computed, or an input.
    pub fn float(name: &str, shape: &[i32]) -> Self {
        Self::new(name, ElementType::Float32, shape)
    }

    /// An int8 value that is computed, or an input.
    pub fn int8(name: &str, shape: &[i32], scale: f32, zero_point: i64) -> Self {
        let (scales, zero_points) = (vec![scale], vec![zero_point]);
        TensorSpec { scales, zero_points, ..Self::new(name, ElementType::Int8, shape) }
    }

    /// int8 weights with a scale for each index of an axis, or one scale.
    pub fn int8_weights(name: &str, shape: &[i32], data: &[i8], scales: &[f32], axis: i32) -> Self {
        let bytes = data.iter().map(|&x| x as u8).collect();
        let (scales, zero_points) = (scales.to_vec(), vec![0; scales.len()]);
        TensorSpec { data: bytes, scales, zero_points, axis, ..Self::new(name, ElementType::Int8, shape) }
    }

    /// A float32 constant.
    pub fn float_constant(name: &str, shape: &[i32], data: &[f32]) -> Self {
        let data = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        TensorSpec { data, ..Self::float(name, shape) }
    }

    /// An int32 constant: a bias, a shape, axes.
    pub fn int32_constant(name: &str, shape: &[i32], data: &[i32]) -> Self {
        let data = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        TensorSpec { data, ..Self::new(name, ElementType::Int32, shape) }
    }
}

struct OperatorSpec {
    builtin: Builtin,
    inputs: Vec<i32>,
    outputs: Vec<i32>,
    options: OperatorOptions,
}

/// A table of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Model,
    SubGraph,
    Code,
    Tensor(usize),
    Quantization(usize),
    Buffer(usize),
    Operator(usize),
    Options(usize),
}

/// A file in the making.
pub struct ModelWriter {
    description: String,
    tensors: Vec<TensorSpec>,
    operators: Vec<OperatorSpec>,
    inputs: Vec<i32>,
    outputs: Vec<i32>,
    /// Version of the schema.
    pub(super) version: u32,
    /// How many times the graph is written.
    pub(super) subgraphs: usize,
    /// Numbers written to slots of tables: what the fields above cannot say.
    pub(super) extra: Vec<(Place, VOffsetT, u64)>,
}

type Builder = FlatBufferBuilder<'static>;
type Done = WIPOffset<TableFinishedWIPOffset>;

/// A field of a table: its slot and how to write it.
enum Field {
    I8(VOffsetT, i8),
    U8(VOffsetT, u8),
    Bool(VOffsetT, bool),
    I32(VOffsetT, i32),
    U32(VOffsetT, u32),
    F32(VOffsetT, f32),
    Link(VOffsetT, u32),
}

/// Writes a table; `extra` replaces fields of the same slot.
fn table(b: &mut Builder, fields: &[Field], extra: &[(VOffsetT, u64)]) -> Done {
    let start = b.start_table();
    for field in fields {
        let (Field::I8(slot, _)
        | Field::U8(slot, _)
        | Field::Bool(slot, _)
        | Field::I32(slot, _)
        | Field::U32(slot, _)
        | Field::F32(slot, _)
        | Field::Link(slot, _)) = *field;
        if extra.iter().any(|(e, _)| *e == slot) {
            continue;
        }
        let at = offset(slot);
        match *field {
            Field::I8(_, x) => b.push_slot(at, x, 0),
            Field::U8(_, x) => b.push_slot(at, x, 0),
            Field::Bool(_, x) => b.push_slot(at, x, false),
            Field::I32(_, x) => b.push_slot_always(at, x),
            Field::U32(_, x) => b.push_slot(at, x, 0),
            Field::F32(_, x) => b.push_slot(at, x, 0.0),
            Field::Link(_, x) => b.push_slot_always(at, WIPOffset::<u8>::new(x)),
        }
    }
    extra.iter().for_each(|&(slot, x)| b.push_slot_always(offset(slot), x));
    b.end_table(start)
}

fn list<T: Push<Output: 'static>>(b: &mut Builder, slot: VOffsetT, items: &[T]) -> Field {
    Field::Link(slot, b.create_vector(items).value())
}

fn text(b: &mut Builder, slot: VOffsetT, text: &str) -> Field {
    Field::Link(slot, b.create_string(text).value())
}

impl Default for ModelWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl ModelWriter {
    /// A file without tensors and operators.
    pub fn new() -> Self {
        ModelWriter {
            description: "written by Quaver".into(),
            tensors: vec![],
            operators: vec![],
            inputs: vec![],
            outputs: vec![],
            version: 3,
            subgraphs: 1,
            extra: vec![],
        }
    }

    /// Adds a tensor; gives its index.
    pub fn tensor(&mut self, spec: TensorSpec) -> i32 {
        self.tensors.push(spec);
        self.tensors.len() as i32 - 1
    }

    /// Adds a tensor that is an input of the graph.
    pub fn input(&mut self, spec: TensorSpec) -> i32 {
        let tensor = self.tensor(spec);
        self.inputs.push(tensor);
        tensor
    }

    /// Adds an operator, with tensors by index (-1 for an optional input that is absent).
    pub fn operator(&mut self, builtin: Builtin, inputs: &[i32], outputs: &[i32], options: OperatorOptions) {
        self.operators.push(OperatorSpec { builtin, inputs: inputs.to_vec(), outputs: outputs.to_vec(), options });
    }

    /// Makes a tensor an output of the graph.
    pub fn output(&mut self, tensor: i32) {
        self.outputs.push(tensor);
    }

    /// The bytes of the file.
    pub fn finish(&self) -> Vec<u8> {
        let mut b = Builder::new();
        let codes: Vec<Done> = self.operators.iter().map(|o| self.code(&mut b, o.builtin)).collect();
        let graphs: Vec<Done> = (0..self.subgraphs).map(|_| self.subgraph(&mut b)).collect();
        // Buffer 0 is empty; tensor i has buffer i + 1.
        let empty = Vec::new();
        let buffers = std::iter::once(&empty).chain(self.tensors.iter().map(|t| &t.data));
        let buffers: Vec<Done> = buffers.enumerate().map(|(i, data)| self.buffer(&mut b, i, data)).collect();
        let fields = [
            Field::U32(0, self.version),
            list(&mut b, 1, &codes),
            list(&mut b, 2, &graphs),
            text(&mut b, 3, &self.description),
            list(&mut b, 4, &buffers),
        ];
        let model = table(&mut b, &fields, &self.extra(Place::Model));
        b.finish(model, Some("TFL3"));
        b.finished_data().to_vec()
    }

    fn extra(&self, place: Place) -> Vec<(VOffsetT, u64)> {
        self.extra.iter().filter(|(p, _, _)| *p == place).map(|&(_, slot, x)| (slot, x)).collect()
    }

    /// The bytes of a constant, at a multiple of 8 so that runtimes can read any element in place.
    fn buffer(&self, b: &mut Builder, index: usize, data: &[u8]) -> Done {
        let mut fields = vec![];
        if !data.is_empty() {
            let words = data.len().div_ceil(8);
            b.start_vector::<u64>(words);
            (data.len()..8 * words).for_each(|_| {
                b.push(0u8);
            });
            data.iter().rev().for_each(|&byte| {
                b.push(byte);
            });
            fields.push(Field::Link(0, b.end_vector::<u8>(data.len()).value()));
        }
        table(b, &fields, &self.extra(Place::Buffer(index)))
    }

    fn code(&self, b: &mut Builder, builtin: Builtin) -> Done {
        let number = builtin as i32;
        let mut fields = vec![Field::I8(0, number.min(127) as i8), Field::I32(2, 1), Field::I32(3, number)];
        if builtin == Builtin::Custom {
            fields.push(text(b, 1, "Quaver_Test"));
        }
        table(b, &fields, &self.extra(Place::Code))
    }

    fn subgraph(&self, b: &mut Builder) -> Done {
        let tensors: Vec<Done> = (0..self.tensors.len()).map(|i| self.write_tensor(b, i)).collect();
        let operators: Vec<Done> = (0..self.operators.len()).map(|i| self.write_operator(b, i)).collect();
        let fields = [
            list(b, 0, &tensors),
            list(b, 1, &self.inputs),
            list(b, 2, &self.outputs),
            list(b, 3, &operators),
            text(b, 4, "main"),
        ];
        table(b, &fields, &self.extra(Place::SubGraph))
    }

    fn write_tensor(&self, b: &mut Builder, index: usize) -> Done {
        let t = &self.tensors[index];
        let mut fields = vec![
            list(b, 0, &t.shape),
            Field::I8(1, t.kind as i8),
            Field::U32(2, index as u32 + 1),
            text(b, 3, &t.name),
        ];
        let extra = self.extra(Place::Quantization(index));
        if !t.scales.is_empty() || !t.zero_points.is_empty() || !extra.is_empty() {
            let q = [list(b, 2, &t.scales), list(b, 3, &t.zero_points), Field::I32(6, t.axis)];
            fields.push(Field::Link(4, table(b, &q, &extra).value()));
        }
        if !t.signature.is_empty() {
            fields.push(list(b, 7, &t.signature));
        }
        table(b, &fields, &self.extra(Place::Tensor(index)))
    }

    fn write_operator(&self, b: &mut Builder, index: usize) -> Done {
        let o = &self.operators[index];
        let mut fields = vec![Field::U32(0, index as u32), list(b, 1, &o.inputs), list(b, 2, &o.outputs)];
        if let Some((number, options)) = options(b, &o.options) {
            let options = table(b, &options, &self.extra(Place::Options(index)));
            fields.extend([Field::U8(3, number), Field::Link(4, options.value())]);
        }
        table(b, &fields, &self.extra(Place::Operator(index)))
    }
}

/// Number and fields of an options table.
fn options(b: &mut Builder, options: &OperatorOptions) -> Option<(u8, Vec<Field>)> {
    let activated = |number, activation| Some((number, vec![Field::I8(0, activation as i8)]));
    match *options {
        OperatorOptions::None => None,
        OperatorOptions::Conv2D { padding, strides, dilations, activation } => Some((
            1,
            [window(padding, strides), vec![Field::I8(3, activation as i8)], dilated(4, dilations)]
                .into_iter()
                .flatten()
                .collect(),
        )),
        OperatorOptions::DepthwiseConv2D { padding, strides, dilations, multiplier, activation } => {
            let own = vec![Field::I32(3, multiplier), Field::I8(4, activation as i8)];
            Some((2, [window(padding, strides), own, dilated(5, dilations)].into_iter().flatten().collect()))
        }
        OperatorOptions::Pool2D { padding, strides, filter, activation } => {
            let own = vec![Field::I32(3, filter.1), Field::I32(4, filter.0), Field::I8(5, activation as i8)];
            Some((5, [window(padding, strides), own].into_iter().flatten().collect()))
        }
        OperatorOptions::FullyConnected { activation, weights_format, keep_num_dims } => {
            let own = vec![Field::I8(1, weights_format), Field::Bool(2, keep_num_dims)];
            Some((8, [vec![Field::I8(0, activation as i8)], own].into_iter().flatten().collect()))
        }
        OperatorOptions::Add { activation } => activated(11, activation),
        OperatorOptions::Sub { activation } => activated(28, activation),
        OperatorOptions::Mul { activation } => activated(21, activation),
        OperatorOptions::Concatenation { axis, activation } => {
            Some((10, vec![Field::I32(0, axis), Field::I8(1, activation as i8)]))
        }
        OperatorOptions::Softmax { beta } => Some((9, vec![Field::F32(0, beta)])),
        OperatorOptions::Reducer { keep_dims } => Some((27, vec![Field::Bool(0, keep_dims)])),
        OperatorOptions::Reshape { ref new_shape } => Some((17, vec![list(b, 0, new_shape)])),
        OperatorOptions::Squeeze { ref dims } => Some((30, vec![list(b, 0, dims)])),
    }
}

fn window(padding: Padding, (h, w): (i32, i32)) -> Vec<Field> {
    vec![Field::I8(0, padding as i8), Field::I32(1, w), Field::I32(2, h)]
}

fn dilated(slot: VOffsetT, (h, w): (i32, i32)) -> Vec<Field> {
    vec![Field::I32(slot, w), Field::I32(slot + 1, h)]
}
