//! From [`Op`] back to ONNX attributes and auxiliary inputs.

use super::error::WriteError;
use super::proto::{AttributeProto, attribute_type as ty};
use super::tensor::element_number;
use super::write::{Writer, output_type};
use crate::model::ir::{DType, Data, Node, Op, PadMode, Tensor, Value, Window};

type Attributes = Vec<AttributeProto>;

fn attribute(name: &str, kind: i32) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(kind), ..AttributeProto::default() }
}

pub(super) fn int(name: &str, value: usize) -> AttributeProto {
    AttributeProto { i: Some(value as i64), ..attribute(name, ty::INT) }
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, ty::FLOAT) }
}

fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto { ints: values.iter().map(|&x| x as i64).collect(), ..attribute(name, ty::INTS) }
}

fn list(values: Vec<i64>) -> Tensor {
    Tensor { shape: vec![values.len()], data: Data::I64(values) }
}

fn shape_of(value: &Value) -> Tensor {
    list(value.shape.iter().map(|&d| d as i64).collect())
}

/// The attributes that say this window.
fn window(w: &Window, pooling: bool, dilations: bool) -> Attributes {
    let mut out = vec![ints("kernel_shape", &w.kernel), ints("strides", &w.strides)];
    out.push(ints("pads", &[&w.pads_begin[..], &w.pads_end[..]].concat()));
    if dilations {
        out.push(ints("dilations", &w.dilations));
    }
    if pooling && w.ceil_mode {
        out.push(int("ceil_mode", 1));
    }
    out
}

fn grouped(w: &Window, group: usize) -> Attributes {
    let mut out = window(w, false, true);
    out.push(int("group", group));
    out
}

/// The node's attributes, and the names of inputs to add after its own.
pub(super) fn attributes_and_inputs(
    writer: &mut Writer<'_>,
    node: &Node,
    opset: i64,
) -> Result<(Attributes, Vec<String>), WriteError> {
    let model = writer.model;
    let output = model.value(node.output);
    let data = node.inputs.first().copied().flatten().map(|id| model.value(id));
    let data = data.ok_or_else(|| refuse(node, "its first input is missing"));
    let attributes = match &node.op {
        Op::QLinearSub
        | Op::QLinearRequantize
        | Op::QLinearClip { .. }
        | Op::QLinearMul
        | Op::QLinearMean { .. }
        | Op::QLinearSoftmax { .. } => {
            return Err(refuse(node, "ONNX has no operator with its meaning"));
        }
        Op::LeakyRelu { alpha } | Op::QLinearLeakyRelu { alpha } => vec![float("alpha", *alpha)],
        Op::Gemm { alpha, beta, trans_a, trans_b } => vec![
            float("alpha", *alpha),
            float("beta", *beta),
            int("transA", *trans_a as usize),
            int("transB", *trans_b as usize),
        ],
        Op::QGemm { alpha, trans_a, trans_b } => {
            vec![float("alpha", *alpha), int("transA", *trans_a as usize), int("transB", *trans_b as usize)]
        }
        Op::Conv { window, group } | Op::QLinearConv { window, group } | Op::ConvInteger { window, group } => {
            grouped(window, *group)
        }
        Op::MaxPool { window: w } => window(w, true, true),
        Op::AveragePool { window: w, count_include_pad } => {
            let mut out = window(w, true, opset >= 19);
            out.push(int("count_include_pad", *count_include_pad as usize));
            out
        }
        Op::QLinearAveragePool { window: w, count_include_pad, channels_last } => {
            let mut out = window(w, true, false);
            out.push(int("count_include_pad", *count_include_pad as usize));
            out.push(int("channels_last", *channels_last as usize));
            out
        }
        Op::QLinearGlobalAveragePool { channels_last } => vec![int("channels_last", *channels_last as usize)],
        Op::BatchNormalization { epsilon } => vec![float("epsilon", *epsilon)],
        Op::Transpose { perm } => vec![ints("perm", perm)],
        Op::Concat { axis } | Op::QLinearConcat { axis } | Op::Gather { axis } => vec![int("axis", *axis)],
        Op::Softmax { axis } | Op::LogSoftmax { axis } => vec![int("axis", *axis)],
        Op::Cast => vec![int("to", element_number(output.dtype) as usize)],
        Op::QuantizeLinear { axis } | Op::DequantizeLinear { axis } => quantizer(writer, node, *axis),
        Op::ReduceMean { axes } | Op::ReduceSum { axes } => {
            let kept = output.shape.len() == data.clone()?.shape.len();
            let mut out = vec![int("keepdims", kept as usize)];
            if matches!(node.op, Op::ReduceMean { .. }) && opset < 18 {
                out.push(ints("axes", axes));
            }
            out
        }
        Op::Pad { mode, .. } => {
            let name = match mode {
                PadMode::Constant(_) => "constant",
                PadMode::Edge => "edge",
                PadMode::Reflect => "reflect",
            };
            vec![AttributeProto { s: Some(name.into()), ..attribute("mode", ty::STRING) }]
        }
        Op::Reshape => reshape_attributes(output, opset),
        Op::Flatten => vec![int("axis", flatten_axis(data.clone()?, output))],
        _ => vec![],
    };
    let extra = extra_inputs(writer, node, data, opset)?;
    Ok((attributes, extra))
}

fn refuse(node: &Node, what: &str) -> WriteError {
    WriteError { node: node.name.clone(), what: what.into() }
}

/// An axis at which flattening gives the output's shape.
fn flatten_axis(data: &Value, output: &Value) -> usize {
    let rows = output.shape.first().copied().unwrap_or(1);
    let splits = |axis: &usize| data.shape[..*axis].iter().product::<usize>() == rows;
    (1..=data.shape.len()).find(splits).unwrap_or(0)
}

fn reshape_attributes(output: &Value, opset: i64) -> Attributes {
    if opset >= 14 && output.shape.contains(&0) { vec![int("allowzero", 1)] } else { vec![] }
}

fn quantizer(writer: &Writer<'_>, node: &Node, axis: usize) -> Attributes {
    let model = writer.model;
    let scale = node.inputs.get(1).copied().flatten().map(|id| model.value(id));
    let mut out = vec![];
    if scale.is_some_and(|s| s.len() != 1) {
        out.push(int("axis", axis));
    }
    let quantize = matches!(node.op, Op::QuantizeLinear { .. });
    if let Some(dtype) = output_type(model, node).filter(|_| quantize) {
        out.push(int("output_dtype", element_number(dtype) as usize));
    }
    out
}

/// Constants that were inputs in the file but are fields of the operation.
fn extra_inputs(
    writer: &mut Writer<'_>,
    node: &Node,
    data: Result<&Value, WriteError>,
    opset: i64,
) -> Result<Vec<String>, WriteError> {
    let output = writer.model.value(node.output);
    let base = output.name.as_str();
    Ok(match &node.op {
        Op::Clip { min, max } => {
            let mut bound = |what: &str, x: &Option<f32>| {
                x.map_or(String::new(), |x| writer.auxiliary(base, what, &Tensor::scalar(x)))
            };
            vec![bound("min", min), bound("max", max)]
        }
        Op::Reshape | Op::Expand => vec![writer.auxiliary(base, "shape", &shape_of(output))],
        Op::Tile { repeats } => {
            let repeats = list(repeats.iter().map(|&r| r as i64).collect());
            vec![writer.auxiliary(base, "repeats", &repeats)]
        }
        Op::Pad { begin, end, mode } => {
            let mut extra = vec![writer.auxiliary(base, "pads", &list([&begin[..], end].concat()))];
            if let PadMode::Constant(value) = mode {
                let fill =
                    fill(data?.dtype, *value).ok_or_else(|| refuse(node, "its fill value does not fit its type"))?;
                extra.push(writer.auxiliary(base, "value", &fill));
            }
            extra
        }
        Op::Slice { starts, steps } => {
            let axes = list((0..starts.len() as i64).collect());
            let ends = (0..starts.len())
                .map(|d| slice_end(data.as_ref().ok()?.shape.get(d), starts[d], steps[d], *output.shape.get(d)?));
            let ends: Option<Vec<i64>> = ends.collect();
            let ends = ends.ok_or_else(|| refuse(node, "its slice does not fit its shape"))?;
            vec![
                writer.auxiliary(base, "starts", &list(starts.clone())),
                writer.auxiliary(base, "ends", &list(ends)),
                writer.auxiliary(base, "axes", &axes),
                writer.auxiliary(base, "steps", &list(steps.clone())),
            ]
        }
        Op::ReduceMean { .. } if opset < 18 => vec![],
        Op::ReduceSum { axes } | Op::ReduceMean { axes } => {
            vec![writer.auxiliary(base, "axes", &list(axes.iter().map(|&a| a as i64).collect()))]
        }
        _ => vec![],
    })
}

/// The end that makes a slice this long.
fn slice_end(dim: Option<&usize>, start: i64, step: i64, length: usize) -> Option<i64> {
    let dim = *dim? as i64;
    if length == 0 {
        return Some(start);
    }
    let last = step.checked_mul(length as i64 - 1)?.checked_add(start)?;
    match step {
        1.. => Some(last + 1),
        // Beyond the first element: a negative end counts from the end of the axis.
        _ if last == 0 => Some(-dim - 1),
        _ => Some(last - 1),
    }
}

/// One element of this type.
fn fill(dtype: DType, value: f64) -> Option<Tensor> {
    let whole = value as i64;
    let data = match dtype {
        DType::F32 => Data::F32(vec![value as f32]),
        DType::I8 => Data::I8(vec![i8::try_from(whole).ok()?]),
        DType::U8 => Data::U8(vec![u8::try_from(whole).ok()?]),
        DType::I16 => Data::I16(vec![i16::try_from(whole).ok()?]),
        DType::U16 => Data::U16(vec![u16::try_from(whole).ok()?]),
        DType::I32 => Data::I32(vec![i32::try_from(whole).ok()?]),
        DType::I64 => Data::I64(vec![whole]),
        DType::Bool => Data::Bool(vec![value != 0.0]),
    };
    Some(Tensor { shape: vec![], data })
}
