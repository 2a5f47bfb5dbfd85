//! Output type and shape of the quantization operators.

use super::error::Problem;
use super::infer::{Hint, Inputs, Kind, bad_shape, check_type, concat, conv, gemm, pooled, reduced};
use super::shape::{broadcast, matmul, whole};
use crate::model::ir::{DType, Op, Value};

const BYTE: [DType; 2] = [DType::I8, DType::U8];
const FIX: &str = "correct the model, or export it again";
const STATIC: &str = "use static quantization with constant scales and zero points";

/// The output's type and shape.
pub(super) fn infer(op: &Op, inputs: Inputs<'_>, hint: &Hint) -> Result<Kind, Problem> {
    match op {
        Op::QuantizeLinear { axis } => quantize(inputs, *axis, hint),
        Op::DequantizeLinear { axis } => dequantize(inputs, *axis),
        Op::QLinearConv { window, group } => {
            inputs.arity(8, 9)?;
            let shape = conv(inputs, 3, 8, window, *group)?;
            operand(inputs, 0, None)?;
            operand(inputs, 3, Some(shape[1]))?;
            integer_bias(inputs, 8)?;
            Ok((result(inputs, 6, 7)?, shape))
        }
        Op::QLinearMatMul => {
            inputs.arity(8, 8)?;
            let (a, b) = (inputs.get(0)?, inputs.get(3)?);
            let shape = matmul(&a.shape, &b.shape).map_err(whole(FIX))?;
            operand(inputs, 0, None)?;
            operand(inputs, 3, columns(b))?;
            Ok((result(inputs, 6, 7)?, shape))
        }
        Op::QGemm { trans_a, trans_b, .. } => qgemm(inputs, *trans_a, *trans_b),
        Op::QLinearAdd | Op::QLinearSub | Op::QLinearMul => {
            inputs.arity(7, 8)?;
            let (a, b) = (operand(inputs, 0, None)?, operand(inputs, 3, None)?);
            let y = result_or(inputs, 6, 7, a.dtype)?;
            check_type(3, b, &[a.dtype])?;
            Ok((y, broadcast(&a.shape, &b.shape).map_err(whole(FIX))?))
        }
        Op::QLinearConcat { axis } => qconcat(inputs, *axis),
        Op::MatMulInteger | Op::ConvInteger { .. } => integer(op, inputs),
        _ => qunary(op, inputs, hint),
    }
}

fn columns(b: &Value) -> Option<usize> {
    if b.shape.len() > 1 { b.shape.last().copied() } else { None }
}

/// A constant scale at `i`, of one element or of `per_axis`.
fn scale(inputs: Inputs<'_>, i: usize, per_axis: Option<usize>, positive: bool) -> Result<(), Problem> {
    let s = inputs.float(i)?;
    parameter_shape(i, s, per_axis)?;
    let Some(list) = s.constant.as_ref().and_then(|t| t.as_f32()) else {
        return Err(Problem::input(i, format!("scale `{}` is not a constant", s.name), STATIC));
    };
    match list.iter().find(|x| !x.is_finite() || **x < 0.0 || (positive && **x == 0.0)) {
        None => Ok(()),
        Some(bad) => Err(Problem::input(i, format!("scale `{}` has the element {bad}", s.name), "use positive scales")),
    }
}

fn parameter_shape(i: usize, value: &Value, per_axis: Option<usize>) -> Result<(), Problem> {
    match (&value.shape[..], per_axis) {
        ([] | [1], _) => Ok(()),
        (&[n], Some(m)) if n == m => Ok(()),
        (_, None) => Err(bad_shape(i, value, "one element is needed here")),
        (_, Some(m)) => Err(bad_shape(i, value, &format!("[] or [{m}] is needed"))),
    }
}

/// A constant zero point at `i`, if given.
fn zero_point(
    inputs: Inputs<'_>,
    i: usize,
    types: &[DType],
    per_axis: Option<usize>,
) -> Result<Option<DType>, Problem> {
    let Some(z) = inputs.opt(i) else { return Ok(None) };
    check_type(i, z, types)?;
    parameter_shape(i, z, per_axis)?;
    if z.constant.is_none() {
        return Err(Problem::input(i, format!("zero point `{}` is not a constant", z.name), STATIC));
    }
    Ok(Some(z.dtype))
}

/// Refuses a zero point with another number of elements than its scale.
fn same_length(inputs: Inputs<'_>, s: usize, z: usize) -> Result<(), Problem> {
    match (inputs.opt(s), inputs.opt(z)) {
        (Some(scale), Some(zero)) if scale.len() != zero.len() => {
            Err(bad_shape(z, zero, &format!("but its scale has shape {:?}", scale.shape)))
        }
        _ => Ok(()),
    }
}

/// An 8-bit tensor at `i` with its scale and zero point after it.
fn operand<'a>(inputs: Inputs<'a>, i: usize, per_axis: Option<usize>) -> Result<&'a Value, Problem> {
    let x = inputs.typed(i, &BYTE)?;
    scale(inputs, i + 1, per_axis, false)?;
    zero_point(inputs, i + 2, &[x.dtype], per_axis)?;
    same_length(inputs, i + 1, i + 2)?;
    Ok(x)
}

/// Type of an output whose scale and required zero point are at `s` and `z`.
fn result(inputs: Inputs<'_>, s: usize, z: usize) -> Result<DType, Problem> {
    inputs.get(z)?;
    result_or(inputs, s, z, DType::U8)
}

fn result_or(inputs: Inputs<'_>, s: usize, z: usize, default: DType) -> Result<DType, Problem> {
    scale(inputs, s, None, true)?;
    let dtype = zero_point(inputs, z, &BYTE, None)?.unwrap_or(default);
    same_length(inputs, s, z)?;
    Ok(dtype)
}

fn integer_bias(inputs: Inputs<'_>, i: usize) -> Result<(), Problem> {
    inputs.opt(i).map_or(Ok(()), |b| check_type(i, b, &[DType::I32]))
}

fn quantize(inputs: Inputs<'_>, axis: usize, hint: &Hint) -> Result<Kind, Problem> {
    inputs.arity(2, 3)?;
    let x = inputs.float(0)?;
    let along = x.shape.get(axis).copied();
    scale(inputs, 1, along, true)?;
    let types = [DType::I8, DType::U8, DType::I16, DType::U16];
    let given = zero_point(inputs, 2, &types, along)?;
    same_length(inputs, 1, 2)?;
    let dtype = match (given, hint.dtype) {
        (Some(z), Some(wanted)) if z != wanted => {
            return Err(Problem::input(2, format!("the zero point is {z}, but the output type {wanted}"), FIX));
        }
        (Some(z), _) => z,
        (None, wanted) => wanted.unwrap_or(DType::U8),
    };
    if !types.contains(&dtype) {
        return Err(Problem::whole(format!("output type {dtype} is not supported"), "use 8- or 16-bit integers"));
    }
    Ok((dtype, x.shape.clone()))
}

fn dequantize(inputs: Inputs<'_>, axis: usize) -> Result<Kind, Problem> {
    inputs.arity(2, 3)?;
    let x = inputs.typed(0, &[DType::I8, DType::U8, DType::I16, DType::U16, DType::I32])?;
    let along = x.shape.get(axis).copied();
    scale(inputs, 1, along, false)?;
    zero_point(inputs, 2, &[x.dtype], along)?;
    same_length(inputs, 1, 2)?;
    let zeros = inputs.opt(2).and_then(|z| z.constant.as_ref()?.to_i64());
    if x.dtype == DType::I32 && zeros.is_some_and(|z| z.iter().any(|&z| z != 0)) {
        return Err(Problem::input(2, "an int32 input needs zero point 0", FIX));
    }
    Ok((DType::F32, x.shape.clone()))
}

fn qgemm(inputs: Inputs<'_>, trans_a: bool, trans_b: bool) -> Result<Kind, Problem> {
    inputs.arity(6, 9)?;
    let shape = gemm(inputs, 3, 6, trans_a, trans_b)?;
    operand(inputs, 0, None)?;
    inputs.get(2)?;
    operand(inputs, 3, Some(shape[1]))?;
    inputs.get(5)?;
    integer_bias(inputs, 6)?;
    match (inputs.opt(7), inputs.opt(8)) {
        (None, None) => Ok((DType::F32, shape)),
        (Some(_), Some(_)) => Ok((result(inputs, 7, 8)?, shape)),
        _ => Err(Problem::whole("y_scale and y_zero_point must be given together", FIX)),
    }
}

fn qconcat(inputs: Inputs<'_>, axis: usize) -> Result<Kind, Problem> {
    let n = inputs.0.len();
    if n < 5 || !(n - 2).is_multiple_of(3) {
        return Err(Problem::whole(format!("has {n} inputs, needs 2 and 3 for each part"), FIX));
    }
    let dtype = result(inputs, 0, 1)?;
    for i in (2..n).step_by(3) {
        let part = operand(inputs, i, None)?;
        inputs.get(i + 2)?;
        check_type(i, part, &[dtype])?;
    }
    Ok((dtype, concat(inputs.0, axis, 2, 3)?))
}

fn qunary(op: &Op, inputs: Inputs<'_>, hint: &Hint) -> Result<Kind, Problem> {
    if matches!(op, Op::QLinearClip { .. }) {
        inputs.arity(3, 3)?;
        let x = operand(inputs, 0, None)?;
        inputs.get(2)?;
        return Ok((x.dtype, x.shape.clone()));
    }
    inputs.arity(4, 5)?;
    let x = operand(inputs, 0, None)?;
    let y = result_or(inputs, 3, 4, x.dtype)?;
    check_type(0, x, &[y])?;
    let shape = match op {
        Op::QLinearAveragePool { window, channels_last, .. } => {
            let nchw = Value { shape: channels_first(x, *channels_last)?, ..x.clone() };
            channels_back(pooled(&nchw, window)?, *channels_last)
        }
        Op::QLinearGlobalAveragePool { channels_last } => {
            let mut shape = channels_first(x, *channels_last)?;
            shape[2..].fill(1);
            channels_back(shape, *channels_last)
        }
        Op::QLinearMean { axes } => reduced(&x.shape, axes, hint)?,
        _ => x.shape.clone(),
    };
    Ok((y, shape))
}

/// The shape [N, C, spatial] of an image batch.
fn channels_first(x: &Value, channels_last: bool) -> Result<Vec<usize>, Problem> {
    let mut shape = x.shape.clone();
    if !(3..=4).contains(&shape.len()) {
        return Err(bad_shape(0, x, "only 1-D and 2-D pooling is supported"));
    }
    if channels_last {
        shape[1..].rotate_right(1);
    }
    Ok(shape)
}

fn channels_back(mut shape: Vec<usize>, channels_last: bool) -> Vec<usize> {
    if channels_last {
        shape[1..].rotate_left(1);
    }
    shape
}

fn integer(op: &Op, inputs: Inputs<'_>) -> Result<Kind, Problem> {
    inputs.arity(2, 4)?;
    let (a, b) = (inputs.typed(0, &BYTE)?, inputs.typed(1, &BYTE)?);
    let (shape, per_axis) = match op {
        Op::ConvInteger { window, group } => {
            let shape = conv(inputs, 1, usize::MAX, window, *group)?;
            let filters = shape[1];
            (shape, Some(filters))
        }
        _ => (matmul(&a.shape, &b.shape).map_err(whole(FIX))?, columns(b)),
    };
    zero_point(inputs, 2, &[a.dtype], None)?;
    zero_point(inputs, 3, &[b.dtype], per_axis)?;
    Ok((DType::I32, shape))
}
