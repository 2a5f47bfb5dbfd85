//! From ONNX operators of any supported opset to [`Op`]: dispatch, element-wise operators, products, reductions.

use super::context::{Context, FIX};
use super::{ops_constant, ops_layout, ops_quant, ops_window};
use crate::model::build::Hint;
use crate::model::build::Problem;
use crate::model::build::shape::axes;
use crate::model::ir::Op;

type Done = Result<(), Problem>;

/// Turns the node into operations; `domain` is `""` or `com.microsoft`.
pub(super) fn convert(domain: &str, op_type: &str, cx: &mut Context<'_, '_>) -> Done {
    if domain == "com.microsoft" {
        return ops_quant::microsoft(op_type, cx);
    }
    match op_type {
        "Add" => fixed(cx, 2, Op::Add),
        "Sub" => fixed(cx, 2, Op::Sub),
        "Mul" => fixed(cx, 2, Op::Mul),
        "Div" => fixed(cx, 2, Op::Div),
        "Neg" => fixed(cx, 1, Op::Neg),
        "Relu" => fixed(cx, 1, Op::Relu),
        "Sign" => fixed(cx, 1, Op::Sign),
        "Identity" => fixed(cx, 1, Op::Identity),
        "MatMul" => fixed(cx, 2, Op::MatMul),
        "Sum" => sum(cx),
        "LeakyRelu" => leaky_relu(cx),
        "Clip" => clip(cx),
        "Dropout" => dropout(cx),
        "Softmax" => softmax(cx, |axis| Op::Softmax { axis }),
        "LogSoftmax" => softmax(cx, |axis| Op::LogSoftmax { axis }),
        "Gemm" => gemm(cx),
        "ReduceMean" => reduce(cx, 18, |axes| Op::ReduceMean { axes }),
        "ReduceSum" => reduce(cx, 13, |axes| Op::ReduceSum { axes }),
        "BatchNormalization" => batch_normalization(cx),
        "Conv" | "MaxPool" | "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool" => ops_window::convert(op_type, cx),
        "Constant" | "ConstantOfShape" | "Shape" | "Size" | "Where" | "Equal" | "Range" => {
            ops_constant::convert(op_type, cx)
        }
        "Gather" | "Unsqueeze" | "Squeeze" | "Concat" | "Reshape" | "Flatten" | "Transpose" | "Cast" | "Slice"
        | "Pad" | "Split" | "Expand" | "Tile" => ops_layout::convert(op_type, cx),
        "QuantizeLinear" | "DequantizeLinear" | "QLinearConv" | "QLinearMatMul" | "MatMulInteger" | "ConvInteger" => {
            ops_quant::convert(op_type, cx)
        }
        _ => Err(unsupported(op_type)),
    }
}

/// Refusal of an operator by name, with what to do where that is known.
pub(super) fn unsupported(op_type: &str) -> Problem {
    let cure = match op_type {
        "DynamicQuantizeLinear" | "DynamicQuantizeMatMul" | "DynamicQuantizeLSTM" | "MatMulIntegerToFloat" => {
            "it computes scales while it runs; use static quantization with calibrated scales"
        }
        "If" | "Loop" | "Scan" => "control flow is not supported; export a trace of the network without it",
        "LSTM" | "GRU" | "RNN" | "QLSTM" => "recurrent layers are not supported; unroll them into feed-forward ones",
        "Sigmoid" | "Tanh" | "Gelu" | "Erf" | "HardSigmoid" | "Elu" | "Selu" | "Softplus" | "Exp"
        | "QLinearSigmoid" => "use Relu, LeakyRelu or Clip as the activation function",
        "Upsample" | "Resize" | "ConvTranspose" => "upsampling is not supported; use Conv and pooling",
        "Attention" | "MultiHeadAttention" | "LayerNormalization" => "transformer layers are not supported",
        _ => "rewrite the network with supported operators, such as Gemm, Conv, Add, Relu and QuantizeLinear",
    };
    Problem::whole("the operator is not supported", cure)
}

/// An operator with a fixed number of inputs and no attributes.
fn fixed(cx: &mut Context<'_, '_>, arity: usize, op: Op) -> Done {
    cx.arity(arity, arity)?;
    cx.direct(op)
}

fn sum(cx: &mut Context<'_, '_>) -> Done {
    let n = cx.inputs.len();
    if n < 2 {
        return fixed(cx, 1, Op::Identity);
    }
    let mut total = cx.id(0)?;
    for i in 1..n {
        let pair = [Some(total), Some(cx.id(i)?)];
        if i + 1 == n {
            return cx.emit(0, Op::Add, &pair, &Hint::default());
        }
        total = cx.intermediate(Op::Add, &pair, &Hint::default())?;
    }
    Ok(())
}

fn leaky_relu(cx: &mut Context<'_, '_>) -> Done {
    let alpha = cx.attrs.float("alpha", 0.01)?;
    fixed(cx, 1, Op::LeakyRelu { alpha })
}

fn clip(cx: &mut Context<'_, '_>) -> Done {
    let (min, max) = if cx.opset < 11 {
        cx.arity(1, 1)?;
        (cx.attrs.opt_float("min")?, cx.attrs.opt_float("max")?)
    } else {
        cx.arity(1, 3)?;
        (cx.opt_scalar(1)?, cx.opt_scalar(2)?)
    };
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        return Err(Problem::whole(format!("the lower bound {min} is above the upper bound {max}"), FIX));
    }
    let x = cx.id(0)?;
    cx.emit(0, Op::Clip { min, max }, &[Some(x)], &Hint::default())
}

fn dropout(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(1, if cx.opset < 12 { 1 } else { 3 })?;
    cx.attrs.ignore(if cx.opset < 12 { "ratio" } else { "seed" });
    if cx.has(2) {
        let training = cx.constant(2)?;
        if training.to_i64().is_none_or(|v| v.iter().any(|&x| x != 0)) {
            return Err(Problem::input(2, "training mode is not supported", "export the model for inference"));
        }
    }
    let x = cx.id(0)?;
    // The mask stays undefined; a node that reads it is refused.
    cx.emit(0, Op::Identity, &[Some(x)], &Hint::default())
}

fn softmax(cx: &mut Context<'_, '_>, op: fn(usize) -> Op) -> Done {
    cx.arity(1, 1)?;
    let shape = cx.shape(0)?;
    if cx.opset >= 13 {
        let given = cx.attrs.int("axis", -1)?;
        let axis = cx.axis(given, shape.len())?;
        return cx.direct(op(axis));
    }
    // Before opset 13 all axes from `axis` on are normalised together.
    let given = cx.attrs.int("axis", 1)?;
    let first = if given == shape.len() as i64 && given > 0 { shape.len() } else { cx.axis(given, shape.len())? };
    let long: Vec<usize> = (first..shape.len()).filter(|&a| shape[a] != 1).collect();
    match (long[..].len(), long.first()) {
        (1, Some(&axis)) => cx.direct(op(axis)),
        (0, _) if first < shape.len() => cx.direct(op(first)),
        _ => {
            let what = format!("{given} normalises several axes of {shape:?} together (opset {})", cx.opset);
            Err(Problem::attribute("axis", what, "flatten before it, or export for opset 13 or later"))
        }
    }
}

fn gemm(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(if cx.opset < 11 { 3 } else { 2 }, 3)?;
    let (alpha, beta) = (cx.attrs.float("alpha", 1.0)?, cx.attrs.float("beta", 1.0)?);
    let (trans_a, trans_b) = (cx.attrs.flag("transA", false)?, cx.attrs.flag("transB", false)?);
    cx.direct(Op::Gemm { alpha, beta, trans_a, trans_b })
}

fn reduce(cx: &mut Context<'_, '_>, axes_input_since: i64, op: fn(Vec<usize>) -> Op) -> Done {
    cx.arity(1, if cx.opset < axes_input_since { 1 } else { 2 })?;
    let shape = cx.shape(0)?;
    let keep = cx.attrs.flag("keepdims", true)?;
    let noop = cx.opset >= axes_input_since && cx.attrs.flag("noop_with_empty_axes", false)?;
    let list = cx.ints_at("axes", 1, axes_input_since)?.unwrap_or_default();
    let x = cx.id(0)?;
    // A scalar has no axes to reduce over.
    if shape.is_empty() || (list.is_empty() && noop) {
        return cx.emit(0, Op::Identity, &[Some(x)], &Hint::default());
    }
    let mut reduced = axes(&list, shape.len()).map_err(|what| Problem::attribute("axes", what, FIX))?;
    if list.is_empty() {
        reduced = (0..shape.len()).collect();
    }
    let out = (0..shape.len()).filter(|i| keep || !reduced.contains(i));
    let out = out.map(|i| if reduced.contains(&i) { 1 } else { shape[i] }).collect();
    cx.shaped(op(reduced), out)
}

fn batch_normalization(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(5, 5)?;
    cx.attrs.ignore("momentum");
    if cx.opset < 9 {
        cx.attrs.only("spatial", 1, "use one mean and variance for each channel")?;
    }
    if cx.opset >= 14 {
        cx.attrs.only("training_mode", 0, "export the model for inference")?;
    }
    cx.one_output("an output for training")?;
    let epsilon = cx.attrs.float("epsilon", 1e-5)?;
    cx.direct(Op::BatchNormalization { epsilon })
}
