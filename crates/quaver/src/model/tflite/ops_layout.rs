//! Operators that move elements about, and means.

use super::context::{Context, EXPORT, Kind, Step};
use super::graph::Layout;
use super::ops::Done;
use super::schema::{
    ConcatenationOptions, ExpandDimsOptions, PadOptions, PadV2Options, ReducerOptions, ReshapeOptions, SqueezeOptions,
    TransposeOptions,
};
use crate::model::build::Problem;
use crate::model::build::shape::{MAX_RANK, axes, axis, elements};
use crate::model::ir::{Op, PadMode};

/// A copy of elements needs int8 inputs with the output's scale and zero point.
fn copied(cx: &Context<'_, '_>, positions: &[usize]) -> Result<Kind, Problem> {
    let kind = cx.kind(positions)?;
    if kind == Kind::Int8 {
        cx.same_parameters(positions)?;
    }
    Ok(kind)
}

/// The same elements in another shape.
fn reshaped(cx: &mut Context<'_, '_>, shape: Vec<usize>) -> Done {
    copied(cx, &[0])?;
    let x = cx.value(0, Layout::File)?;
    cx.finish(Layout::File, [Step::shaped(Op::Reshape, vec![Some(x)], shape)])
}

/// RESHAPE: the shape is a constant, or in the options.
pub(super) fn reshape(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(1, 2)?;
    let options = cx.opt_options::<ReshapeOptions>()?;
    let target: Vec<i64> = if cx.has(1) {
        cx.ints(1)?
    } else {
        let Some(shape) = options.and_then(|o| o.new_shape()).filter(|s| s.len() <= MAX_RANK) else {
            return Err(Problem::whole("has no new shape", EXPORT));
        };
        shape.iter().map(i64::from).collect()
    };
    let total = elements(&cx.shape(0)?);
    let known: Option<Vec<usize>> = target.iter().filter(|&&d| d != -1).map(|&d| usize::try_from(d).ok()).collect();
    let rest = known
        .as_deref()
        .and_then(elements)
        .zip(total)
        .filter(|(k, t)| *k > 0 && t.is_multiple_of(*k))
        .map(|(k, t)| t / k);
    let free = target.iter().filter(|&&d| d == -1).count();
    let Some(rest) = rest.filter(|&r| free == 1 || (free == 0 && r == 1)) else {
        return Err(Problem::whole(format!("shape {:?} cannot become {target:?}", cx.shape(0)?), EXPORT));
    };
    reshaped(cx, target.iter().map(|&d| usize::try_from(d).unwrap_or(rest)).collect())
}

/// SQUEEZE: drops axes of length 1, all of them where none is named.
pub(super) fn squeeze(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(1, 1)?;
    let options = cx.opt_options::<SqueezeOptions>()?;
    let shape = cx.shape(0)?;
    let dims = options.and_then(|o| o.squeeze_dims());
    let list: Vec<i64> = dims.iter().flat_map(|v| v.iter()).take(MAX_RANK + 1).map(i64::from).collect();
    let mut dropped = axes(&list, shape.len()).map_err(|what| Problem::attribute("squeeze_dims", what, EXPORT))?;
    if list.is_empty() {
        dropped = (0..shape.len()).filter(|&i| shape[i] == 1).collect();
    }
    if let Some(&long) = dropped.iter().find(|&&i| shape[i] != 1) {
        return Err(Problem::attribute("squeeze_dims", format!("axis {long} of {shape:?} is not of length 1"), EXPORT));
    }
    reshaped(cx, (0..shape.len()).filter(|i| !dropped.contains(i)).map(|i| shape[i]).collect())
}

/// EXPAND_DIMS: a new axis of length 1.
pub(super) fn expand_dims(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(2, 2)?;
    cx.opt_options::<ExpandDimsOptions>()?;
    let (mut shape, list) = (cx.shape(0)?, cx.ints(1)?);
    let at = match list[..] {
        [at] => axis(at, shape.len() + 1),
        _ => None,
    };
    let at = at.ok_or_else(|| Problem::input(1, format!("{list:?} is no axis of the output"), EXPORT))?;
    shape.insert(at, 1);
    reshaped(cx, shape)
}

/// TRANSPOSE.
pub(super) fn transpose(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(2, 2)?;
    cx.opt_options::<TransposeOptions>()?;
    copied(cx, &[0])?;
    let (list, rank) = (cx.ints(1)?, cx.shape(0)?.len());
    let perm: Option<Vec<usize>> = list.iter().map(|&a| axis(a, rank)).collect();
    let perm = perm.ok_or_else(|| Problem::input(1, format!("{list:?} permutes no {rank} axes"), EXPORT))?;
    let x = cx.value(0, Layout::File)?;
    cx.finish(Layout::File, [Step::new(Op::Transpose { perm }, vec![Some(x)])])
}

/// PAD with zero, PADV2 with a constant that is given.
pub(super) fn pad(cx: &mut Context<'_, '_>, given: bool) -> Done {
    let arity = if given { 3 } else { 2 };
    cx.arity(arity, arity)?;
    if given {
        cx.opt_options::<PadV2Options>()?;
    } else {
        cx.opt_options::<PadOptions>()?;
    }
    let kind = if given { copied(cx, &[0, 2])? } else { copied(cx, &[0])? };
    let (rank, list) = (cx.shape(0)?.len(), cx.ints(1)?);
    if cx.shape(1)? != [rank, 2] || list.iter().any(|&p| p < 0) {
        let what = format!("pads {list:?} of shape {:?} do not fit {rank} axes", cx.shape(1)?);
        return Err(Problem::input(1, what, EXPORT));
    }
    let fill = match (given, kind) {
        (true, _) => fill(cx)?,
        (false, Kind::Int8) => f64::from(cx.output_parameters()?.zero_point),
        (false, Kind::Float) => 0.0,
    };
    let layout = cx.layout(&[0])?;
    let side = |first: usize| -> Vec<i64> { list.iter().skip(first).step_by(2).copied().collect() };
    let (begin, end) = (layout.permuted(&side(0)), layout.permuted(&side(1)));
    let x = cx.value(0, layout)?;
    cx.finish(layout, [Step::new(Op::Pad { begin, end, mode: PadMode::Constant(fill) }, vec![Some(x)])])
}

/// The one element at input 2.
fn fill(cx: &mut Context<'_, '_>) -> Result<f64, Problem> {
    let (tensor, shape) = (cx.tensor(2)?, cx.shape(2)?);
    if elements(&shape) != Some(1) {
        return Err(cx.refuse(2, Problem::whole(format!("has shape {shape:?}, needs one element"), EXPORT)));
    }
    let constant = cx.graph.tensor(tensor).map_err(|p| cx.refuse(2, p))?;
    let float = constant.as_f32().map(|v| v.iter().map(|&x| f64::from(x)).collect());
    let integers = || constant.to_i64().map(|v| v.iter().map(|&x| x as f64).collect());
    let numbers: Vec<f64> = float.or_else(integers).unwrap_or_default();
    match numbers[..] {
        [x] if x.is_finite() => Ok(x),
        _ => Err(cx.refuse(2, Problem::whole("is not a finite number", EXPORT))),
    }
}

/// CONCATENATION; runtimes copy int8 parts as they are.
pub(super) fn concatenation(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(1, usize::MAX)?;
    let options = cx.options::<ConcatenationOptions>()?;
    if options.activation() != 0 {
        let what = format!("number {} is not supported here", options.activation());
        return Err(Problem::attribute("fused_activation_function", what, "use an operator of its own"));
    }
    let positions: Vec<usize> = (0..cx.inputs.len()).collect();
    copied(cx, &positions)?;
    let rank = cx.shape(0)?.len();
    let layout = cx.layout(&positions)?;
    let Some(axis) = axis(options.axis().into(), rank).map(|a| layout.axis(a)) else {
        return Err(Problem::attribute("axis", format!("{} is out of range for rank {rank}", options.axis()), EXPORT));
    };
    let parts = positions.iter().map(|&p| cx.value(p, layout).map(Some)).collect::<Result<_, _>>()?;
    cx.finish(layout, [Step::new(Op::Concat { axis }, parts)])
}

/// MEAN over constant axes.
pub(super) fn mean(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(2, 2)?;
    let keep = cx.options::<ReducerOptions>()?.keep_dims();
    let kind = cx.kind(&[0])?;
    let (shape, list) = (cx.shape(0)?, cx.ints(1)?);
    let over = axes(&list, shape.len()).map_err(|what| Problem::input(1, what, EXPORT))?;
    if over.is_empty() {
        return Err(Problem::input(1, "names no axes", "remove the MEAN"));
    }
    let rest: Vec<usize> = (0..shape.len()).filter(|i| !over.contains(i)).collect();
    let layout = mean_layout(cx, keep, &rest)?;
    let mut output: Vec<usize> = rest.iter().map(|&i| shape[i]).collect();
    if keep {
        output = layout
            .permuted(&(0..shape.len()).map(|i| if over.contains(&i) { 1 } else { shape[i] }).collect::<Vec<_>>());
    }
    let mut over: Vec<usize> = over.iter().map(|&a| layout.axis(a)).collect();
    over.sort_unstable();
    let step = match kind {
        Kind::Float => Step::shaped(Op::ReduceMean { axes: over }, vec![Some(cx.value(0, layout)?)], output),
        Kind::Int8 => {
            let inputs = [&cx.operand(0, layout)?[..], &cx.output_quantizer()?].concat();
            Step::shaped(Op::QLinearMean { axes: over }, inputs, output)
        }
    };
    let result = if keep { layout } else { Layout::File };
    cx.finish(result, [step])
}

/// Channels first where the input has that form, and what remains keeps the order of the file.
fn mean_layout(cx: &Context<'_, '_>, keep: bool, rest: &[usize]) -> Result<Layout, Problem> {
    let first = Layout::ChannelsFirst;
    let ordered = rest.iter().map(|&a| first.axis(a)).is_sorted();
    let here = cx.shape(0)?.len() == 4 && cx.graph.has_channels_first(cx.tensor(0)?);
    Ok(if here && (keep || ordered) { first } else { Layout::File })
}
