//! `Model`: what a network file says, with every attribute kept and every default made explicit.
//!
//! A `Model` is independent of the file format it came from and of the arithmetic it will be given: it still
//! speaks of `Gemm`, `QuantizeLinear` and `QLinearConv`. [`crate::model::lower`] turns it into a [`crate::net::Net`] under
//! one arithmetic profile. All shapes are static; a symbolic (batch) dimension is taken as 1. Shape arithmetic and
//! constant arithmetic have been folded, but `DequantizeLinear` of constants is kept, because a runtime reads it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Element type of a tensor as stored in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 8-bit integer.
    U8,
    /// Signed 16-bit integer.
    I16,
    /// Unsigned 16-bit integer.
    U16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer (shapes and indices).
    I64,
    /// Boolean (shape arithmetic only).
    Bool,
}

impl DType {
    /// Smallest and largest value of an integer type; `None` for `F32`.
    pub fn integer_range(self) -> Option<(i64, i64)> {
        Some(match self {
            DType::F32 => return None,
            DType::I8 => (-128, 127),
            DType::U8 => (0, 255),
            DType::I16 => (-32768, 32767),
            DType::U16 => (0, 65535),
            DType::I32 => (i32::MIN as i64, i32::MAX as i64),
            DType::I64 => (i64::MIN, i64::MAX),
            DType::Bool => (0, 1),
        })
    }

    /// The name users know it by.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "float32",
            DType::I8 => "int8",
            DType::U8 => "uint8",
            DType::I16 => "int16",
            DType::U16 => "uint16",
            DType::I32 => "int32",
            DType::I64 => "int64",
            DType::Bool => "bool",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Elements of a constant tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// float32 elements.
    F32(Vec<f32>),
    /// int8 elements.
    I8(Vec<i8>),
    /// uint8 elements.
    U8(Vec<u8>),
    /// int16 elements.
    I16(Vec<i16>),
    /// uint16 elements.
    U16(Vec<u16>),
    /// int32 elements.
    I32(Vec<i32>),
    /// int64 elements.
    I64(Vec<i64>),
    /// bool elements.
    Bool(Vec<bool>),
}

/// A constant tensor. `data.len()` equals the product of `shape` (1 for a scalar, whose shape is empty).
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Elements, row-major.
    pub data: Data,
}

impl Tensor {
    /// A float32 tensor.
    ///
    /// # Panics
    /// If the number of elements is not the product of the shape.
    pub fn f32(shape: &[usize], data: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len());
        Tensor { shape: shape.to_vec(), data: Data::F32(data) }
    }

    /// A scalar float32.
    pub fn scalar(value: f32) -> Self {
        Tensor { shape: vec![], data: Data::F32(vec![value]) }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match &self.data {
            Data::F32(_) => DType::F32,
            Data::I8(_) => DType::I8,
            Data::U8(_) => DType::U8,
            Data::I16(_) => DType::I16,
            Data::U16(_) => DType::U16,
            Data::I32(_) => DType::I32,
            Data::I64(_) => DType::I64,
            Data::Bool(_) => DType::Bool,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::F32(v) => v.len(),
            Data::I8(v) => v.len(),
            Data::U8(v) => v.len(),
            Data::I16(v) => v.len(),
            Data::U16(v) => v.len(),
            Data::I32(v) => v.len(),
            Data::I64(v) => v.len(),
            Data::Bool(v) => v.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The float32 elements, if that is the type.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(v) => Some(v),
            _ => None,
        }
    }

    /// All elements as `i64`, if the type is an integer (or bool) type.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        Some(match &self.data {
            Data::F32(_) => return None,
            Data::I8(v) => v.iter().map(|&x| x as i64).collect(),
            Data::U8(v) => v.iter().map(|&x| x as i64).collect(),
            Data::I16(v) => v.iter().map(|&x| x as i64).collect(),
            Data::U16(v) => v.iter().map(|&x| x as i64).collect(),
            Data::I32(v) => v.iter().map(|&x| x as i64).collect(),
            Data::I64(v) => v.clone(),
            Data::Bool(v) => v.iter().map(|&x| x as i64).collect(),
        })
    }
}

/// Index of a value in [`Model::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// A tensor that flows along an edge, or a constant.
#[derive(Clone, Debug)]
pub struct Value {
    /// Name in the file (unique, not empty).
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Static shape; symbolic dimensions were taken as 1.
    pub shape: Vec<usize>,
    /// The tensor, when the value is a constant.
    pub constant: Option<Arc<Tensor>>,
    /// Integers it can take, where they are fewer than the element type's (`None`: all of them).
    pub range: Option<(i64, i64)>,
}

impl Value {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A sliding window over the spatial axes (all axes after the first two) with every default resolved
/// (`auto_pad`, missing strides and so on).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Kernel size for each spatial axis.
    pub kernel: Vec<usize>,
    /// Stride for each spatial axis.
    pub strides: Vec<usize>,
    /// Dilation for each spatial axis.
    pub dilations: Vec<usize>,
    /// Padding before the first element of each spatial axis.
    pub pads_begin: Vec<usize>,
    /// Padding after the last element of each spatial axis, as the file says it (`ceil_mode` may reach beyond it:
    /// the output's spatial shape is the authority on how many windows there are).
    pub pads_end: Vec<usize>,
    /// Whether a partial last window counts (pooling only).
    pub ceil_mode: bool,
}

/// How [`Op::Pad`] fills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PadMode {
    /// With a constant.
    Constant(f64),
    /// With the nearest element.
    Edge,
    /// Mirrored, the border element not repeated.
    Reflect,
}

/// An operation. Inputs are positional, as in the ONNX operator of the same name; `Option` inputs that are absent are
/// `None`. Weights, scales and zero points are inputs whose [`Value::constant`] is present.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // fields are the ONNX attributes of the same name
pub enum Op {
    /// y = x (also Dropout at inference).
    Identity,
    Relu,
    LeakyRelu {
        alpha: f32,
    },
    /// Bounds were attributes (opset < 11) or constant inputs; `None` is unbounded. The node has one input.
    Clip {
        min: Option<f32>,
        max: Option<f32>,
    },
    /// -1, 0, 1.
    Sign,
    Neg,
    /// Numpy broadcasting; n-ary Sum becomes a chain.
    Add,
    Sub,
    Mul,
    Div,
    MatMul,
    /// alpha A' B' + beta C; the third input may be absent.
    Gemm {
        alpha: f32,
        beta: f32,
        trans_a: bool,
        trans_b: bool,
    },
    /// X `[N, C, spatial]`, W `[M, C/group, kernel]`, optional B `[M]`.
    Conv {
        window: Window,
        group: usize,
    },
    MaxPool {
        window: Window,
    },
    AveragePool {
        window: Window,
        count_include_pad: bool,
    },
    GlobalAveragePool,
    GlobalMaxPool,
    /// Axes are resolved and non-negative; the output's shape says whether they were kept.
    ReduceMean {
        axes: Vec<usize>,
    },
    ReduceSum {
        axes: Vec<usize>,
    },
    /// Inputs X, scale, B, mean, var (constants); inference form.
    BatchNormalization {
        epsilon: f32,
    },
    /// Reshape, Squeeze, Unsqueeze: same elements in the same order, the output's shape is the target.
    Reshape,
    /// A Reshape to two axes, kept apart because runtimes optimize around it differently.
    Flatten,
    Transpose {
        perm: Vec<usize>,
    },
    Concat {
        axis: usize,
    },
    /// One entry per axis of the input. `steps` may be negative; output length is in the output's shape.
    Slice {
        starts: Vec<i64>,
        steps: Vec<i64>,
    },
    /// One entry per axis of the input; negative pads crop.
    Pad {
        begin: Vec<i64>,
        end: Vec<i64>,
        mode: PadMode,
    },
    /// Second input: constant int64 indices (already made non-negative).
    Gather {
        axis: usize,
    },
    /// Broadcast to the output's shape.
    Expand,
    /// Repeats per axis.
    Tile {
        repeats: Vec<usize>,
    },
    Softmax {
        axis: usize,
    },
    LogSoftmax {
        axis: usize,
    },
    /// Conversion to the output's element type.
    Cast,
    /// float32 to the float16 number that is nearest (ties to even), and back: what two casts do.
    ThroughFloat16,
    /// Inputs x, scale, optional zero point; `axis` matters when the scale has more than one element. The output type
    /// is the zero point's (or the `output_dtype` attribute's).
    QuantizeLinear {
        axis: usize,
    },
    /// Inputs x, scale, optional zero point.
    DequantizeLinear {
        axis: usize,
    },
    /// x, x_scale, x_zp, w, w_scale, w_zp, y_scale, y_zp, optional B: int32 as in ONNX, or float32 where a profile says that its
    /// runtime adds a float bias to the accumulator.
    QLinearConv {
        window: Window,
        group: usize,
    },
    /// a, a_scale, a_zp, b, b_scale, b_zp, y_scale, y_zp.
    QLinearMatMul,
    /// com.microsoft: A, a_scale, a_zp, B, b_scale, b_zp, optional C (int32, or float32 as for [`Op::QLinearConv`]), optional y_scale,
    /// optional y_zp (float32 output when y_scale is absent).
    QGemm {
        alpha: f32,
        trans_a: bool,
        trans_b: bool,
    },
    /// com.microsoft: A, A_scale, A_zp, B, B_scale, B_zp, C_scale, C_zp.
    QLinearAdd,
    /// com.microsoft: X, x_scale, x_zp, y_scale, y_zp.
    QLinearAveragePool {
        window: Window,
        count_include_pad: bool,
        channels_last: bool,
    },
    /// com.microsoft: X, x_scale, x_zp, y_scale, y_zp.
    QLinearGlobalAveragePool {
        channels_last: bool,
    },
    /// com.microsoft: Y_scale, Y_zp, then (X, scale, zp) for each part.
    QLinearConcat {
        axis: usize,
    },
    /// com.microsoft: X, X_scale, X_zp, Y_scale, Y_zp.
    QLinearLeakyRelu {
        alpha: f32,
    },
    /// A, A_scale, A_zp, B, B_scale, B_zp, C_scale, C_zp: the difference A - B.
    QLinearSub,
    /// com.microsoft: A, A_scale, A_zp, B, B_scale, B_zp, C_scale, C_zp.
    QLinearMul,
    /// com.microsoft (QLinearReduceMean): X, x_scale, x_zp, y_scale, y_zp. Axes are resolved; the output's shape says whether they were
    /// kept.
    QLinearMean {
        axes: Vec<usize>,
    },
    /// The same reals with other parameters: X, x_scale, x_zp, y_scale, y_zp.
    QLinearRequantize,
    /// Clipping of reals, its ends rounded to integers as the runtime does: X, scale, zp (of both input and output).
    QLinearClip {
        min: Option<f32>,
        max: Option<f32>,
    },
    /// com.microsoft: X, x_scale, x_zp, y_scale, y_zp.
    QLinearSoftmax {
        axis: usize,
    },
    /// A, B, optional a_zp, optional b_zp; int32 output.
    MatMulInteger,
    /// x, w, optional x_zp, optional w_zp; int32 output.
    ConvInteger {
        window: Window,
        group: usize,
    },
}

impl Op {
    /// Whether the operation belongs to quantized arithmetic.
    pub fn is_quantized(&self) -> bool {
        matches!(
            self,
            Op::QuantizeLinear { .. }
                | Op::DequantizeLinear { .. }
                | Op::QLinearConv { .. }
                | Op::QLinearMatMul
                | Op::QGemm { .. }
                | Op::QLinearAdd
                | Op::QLinearAveragePool { .. }
                | Op::QLinearGlobalAveragePool { .. }
                | Op::QLinearConcat { .. }
                | Op::QLinearLeakyRelu { .. }
                | Op::QLinearSub
                | Op::QLinearMul
                | Op::QLinearMean { .. }
                | Op::QLinearRequantize
                | Op::QLinearClip { .. }
                | Op::QLinearSoftmax { .. }
                | Op::MatMulInteger
                | Op::ConvInteger { .. }
        )
    }

    /// The ONNX operator name.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Identity => "Identity",
            Op::Relu => "Relu",
            Op::LeakyRelu { .. } => "LeakyRelu",
            Op::Clip { .. } => "Clip",
            Op::Sign => "Sign",
            Op::Neg => "Neg",
            Op::Add => "Add",
            Op::Sub => "Sub",
            Op::Mul => "Mul",
            Op::Div => "Div",
            Op::MatMul => "MatMul",
            Op::Gemm { .. } => "Gemm",
            Op::Conv { .. } => "Conv",
            Op::MaxPool { .. } => "MaxPool",
            Op::AveragePool { .. } => "AveragePool",
            Op::GlobalAveragePool => "GlobalAveragePool",
            Op::GlobalMaxPool => "GlobalMaxPool",
            Op::ReduceMean { .. } => "ReduceMean",
            Op::ReduceSum { .. } => "ReduceSum",
            Op::BatchNormalization { .. } => "BatchNormalization",
            Op::Reshape => "Reshape",
            Op::Flatten => "Flatten",
            Op::Transpose { .. } => "Transpose",
            Op::Concat { .. } => "Concat",
            Op::Slice { .. } => "Slice",
            Op::Pad { .. } => "Pad",
            Op::Gather { .. } => "Gather",
            Op::Expand => "Expand",
            Op::Tile { .. } => "Tile",
            Op::Softmax { .. } => "Softmax",
            Op::LogSoftmax { .. } => "LogSoftmax",
            Op::Cast => "Cast",
            Op::ThroughFloat16 => "ThroughFloat16",
            Op::QuantizeLinear { .. } => "QuantizeLinear",
            Op::DequantizeLinear { .. } => "DequantizeLinear",
            Op::QLinearConv { .. } => "QLinearConv",
            Op::QLinearMatMul => "QLinearMatMul",
            Op::QGemm { .. } => "QGemm",
            Op::QLinearAdd => "QLinearAdd",
            Op::QLinearAveragePool { .. } => "QLinearAveragePool",
            Op::QLinearGlobalAveragePool { .. } => "QLinearGlobalAveragePool",
            Op::QLinearConcat { .. } => "QLinearConcat",
            Op::QLinearLeakyRelu { .. } => "QLinearLeakyRelu",
            Op::QLinearSub => "QLinearSub",
            Op::QLinearMul => "QLinearMul",
            Op::QLinearMean { .. } => "QLinearReduceMean",
            Op::QLinearRequantize => "QLinearRequantize",
            Op::QLinearClip { .. } => "QLinearClip",
            Op::QLinearSoftmax { .. } => "QLinearSoftmax",
            Op::MatMulInteger => "MatMulInteger",
            Op::ConvInteger { .. } => "ConvInteger",
        }
    }
}

/// One operation applied to values.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name in the file, or `op_type#index` where the file gives none.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// Positional inputs; `None` where an optional input is absent.
    pub inputs: Vec<Option<ValueId>>,
    /// The output (nodes with several outputs are split on import).
    pub output: ValueId,
}

/// Where a model came from, for reports and certificates.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Path as given by the user (empty for a model built in memory).
    pub path: PathBuf,
    /// `"onnx"` or `"tflite"`; empty for a model built in memory.
    pub format: &'static str,
    /// Lower-case hexadecimal SHA-256 of the file's bytes (as it is on disk, zipped or not).
    pub sha256: String,
    /// `producer_name producer_version`.
    pub producer: String,
    /// ONNX `ir_version`, TensorFlow Lite schema version.
    pub ir_version: i64,
    /// ONNX: version of the default operator set.
    pub opset: i64,
}

/// A network as its file says it. Nodes are in topological order.
#[derive(Clone, Debug)]
pub struct Model {
    /// Name of the graph.
    pub name: String,
    /// Every value, by id.
    pub values: Vec<Value>,
    /// Operations in topological order; every node contributes to an output.
    pub nodes: Vec<Node>,
    /// Graph inputs that are not constants.
    pub inputs: Vec<ValueId>,
    /// Graph outputs.
    pub outputs: Vec<ValueId>,
    /// Names of nodes of the file that no output depends on; they were left out.
    pub unused: Vec<String>,
    /// Where it came from.
    pub source: Source,
}

impl Model {
    /// The value with this id.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    /// The constant behind an input position of a node, if it is present and constant.
    pub fn constant(&self, node: &Node, position: usize) -> Option<&Arc<Tensor>> {
        let id = node.inputs.get(position).copied().flatten()?;
        self.value(id).constant.as_ref()
    }

    /// The scale at an input position of a node and the zero point behind it, where both are constant; the first of several.
    pub fn scale_and_zero_point(&self, node: &Node, scale: usize) -> Option<(f32, i64)> {
        let zero_point = self.constant(node, scale + 1)?.to_i64()?;
        Some((*self.constant(node, scale)?.as_f32()?.first()?, *zero_point.first()?))
    }

    /// Number of constant elements that nodes read (weights, biases, scales).
    pub fn parameter_count(&self) -> usize {
        let mut seen = vec![false; self.values.len()];
        let mut count = 0;
        for id in self.nodes.iter().flat_map(|n| n.inputs.iter().flatten()) {
            if !std::mem::replace(&mut seen[id.0], true) {
                count += self.value(*id).constant.as_ref().map_or(0, |t| t.len());
            }
        }
        count
    }
}
