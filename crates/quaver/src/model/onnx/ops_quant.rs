//! Quantization operators of the default domain and of com.microsoft.

use super::context::{Context, FIX};
use super::ops::unsupported;
use super::ops_window::{convolution, pooling};
use crate::model::build::Hint;
use crate::model::build::Problem;
use crate::model::ir::{DType, Op};

type Done = Result<(), Problem>;

/// Operators of the default domain.
pub(super) fn convert(op_type: &str, cx: &mut Context<'_, '_>) -> Done {
    match op_type {
        "QuantizeLinear" | "DequantizeLinear" => quantizer(op_type == "QuantizeLinear", false, cx),
        "QLinearConv" => {
            cx.arity(8, 9)?;
            let (window, group) = convolution(cx, 3)?;
            cx.direct(Op::QLinearConv { window, group })
        }
        "ConvInteger" => {
            cx.arity(2, 4)?;
            let (window, group) = convolution(cx, 1)?;
            cx.direct(Op::ConvInteger { window, group })
        }
        "QLinearMatMul" => {
            cx.arity(8, 8)?;
            cx.direct(Op::QLinearMatMul)
        }
        _ => {
            cx.arity(2, 4)?;
            cx.direct(Op::MatMulInteger)
        }
    }
}

/// Operators of com.microsoft.
pub(super) fn microsoft(op_type: &str, cx: &mut Context<'_, '_>) -> Done {
    match op_type {
        "QuantizeLinear" | "DequantizeLinear" => quantizer(op_type == "QuantizeLinear", true, cx),
        "QGemm" => {
            cx.arity(6, 9)?;
            let alpha = cx.attrs.float("alpha", 1.0)?;
            let (trans_a, trans_b) = (cx.attrs.flag("transA", false)?, cx.attrs.flag("transB", false)?);
            cx.direct(Op::QGemm { alpha, trans_a, trans_b })
        }
        "QLinearAdd" => {
            cx.arity(7, 8)?;
            cx.direct(Op::QLinearAdd)
        }
        "QLinearAveragePool" => average_pool(cx),
        "QLinearGlobalAveragePool" => {
            cx.arity(4, 5)?;
            let channels_last = cx.attrs.flag("channels_last", false)?;
            cx.direct(Op::QLinearGlobalAveragePool { channels_last })
        }
        "QLinearConcat" => {
            cx.arity(5, usize::MAX)?;
            let rank = cx.rank(2)?;
            let given = cx.attrs.required_int("axis")?;
            let axis = cx.axis(given, rank)?;
            cx.direct(Op::QLinearConcat { axis })
        }
        "QLinearLeakyRelu" => {
            cx.arity(4, 5)?;
            let alpha = cx.attrs.float("alpha", 0.01)?;
            cx.direct(Op::QLinearLeakyRelu { alpha })
        }
        _ => Err(unsupported(op_type)),
    }
}

fn average_pool(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(4, 5)?;
    let channels_last = cx.attrs.flag("channels_last", false)?;
    let count_include_pad = cx.attrs.flag("count_include_pad", false)?;
    let ceil = cx.attrs.flag("ceil_mode", false)?;
    let shape = cx.shape(0)?;
    if !(3..=4).contains(&shape.len()) {
        return Err(Problem::input(0, format!("shape {shape:?} has not one or two spatial axes"), FIX));
    }
    let first = if channels_last { 1 } else { 2 };
    let window = pooling(cx, &shape[first..first + shape.len() - 2], false, ceil)?;
    cx.direct(Op::QLinearAveragePool { window, count_include_pad, channels_last })
}

/// The axis of per-axis parameters: what the file says when the scale has several elements, else 0.
fn parameter_axis(cx: &mut Context<'_, '_>, known: bool) -> Result<usize, Problem> {
    let given = if known { cx.attrs.int("axis", 1)? } else { 1 };
    if cx.value(1)?.len() == 1 { Ok(0) } else { cx.axis(given, cx.rank(0)?) }
}

fn quantizer(quantize: bool, microsoft: bool, cx: &mut Context<'_, '_>) -> Done {
    cx.arity(2, 3)?;
    if microsoft || cx.opset >= 21 {
        cx.attrs.only("block_size", 0, "blocked quantization is not supported; use per-tensor or per-axis scales")?;
    }
    if quantize && !microsoft && cx.opset >= 19 {
        // Only concerns 8-bit floats, which are refused.
        cx.attrs.ignore("saturate");
    }
    if quantize && !microsoft && cx.opset >= 23 {
        cx.attrs.only("precision", 0, "leave the precision of the division at its default")?;
    }
    let mut dtype = None;
    if !microsoft && cx.opset >= if quantize { 21 } else { 23 } && cx.attrs.int("output_dtype", 0)? != 0 {
        dtype = cx.element_type("output_dtype")?;
    }
    wide_types(quantize, microsoft, cx)?;
    let axis = parameter_axis(cx, microsoft || cx.opset >= 13)?;
    let inputs = cx.take_inputs(3);
    if quantize {
        return cx.emit(0, Op::QuantizeLinear { axis }, &inputs, &Hint { shape: None, dtype });
    }
    if dtype.is_some_and(|d| d != DType::F32) {
        return Err(Problem::attribute("output_dtype", "only float32 is supported", "use output_dtype FLOAT"));
    }
    cx.emit(0, Op::DequantizeLinear { axis }, &inputs, &Hint::default())
}

/// Refuses 16-bit types in opsets that do not have them.
fn wide_types(quantize: bool, microsoft: bool, cx: &Context<'_, '_>) -> Done {
    let position = if quantize { 2 } else { 0 };
    if microsoft || cx.opset >= 21 || !cx.has(position) {
        return Ok(());
    }
    match cx.value(position)?.dtype {
        wide @ (DType::I16 | DType::U16) => {
            let what = format!("{wide} needs opset 21 or the com.microsoft operator, the file has opset {}", cx.opset);
            Err(Problem::input(position, what, "export for opset 21 or later"))
        }
        _ => Ok(()),
    }
}
