//! Operators that move elements about.

use super::context::{Context, FIX};
use crate::model::build::Hint;
use crate::model::build::Problem;
use crate::model::build::shape::{MAX_RANK, axes, axis, broadcast, elements, slice_len, whole};
use crate::model::ir::{DType, Data, Op, PadMode, Tensor};

type Done = Result<(), Problem>;

/// Turns the node into an operation.
pub(super) fn convert(op_type: &str, cx: &mut Context<'_, '_>) -> Done {
    match op_type {
        "Gather" => gather(cx),
        "Unsqueeze" => unsqueeze(cx),
        "Squeeze" => squeeze(cx),
        "Concat" => concat(cx),
        "Reshape" => reshape(cx),
        "Flatten" => flatten(cx),
        "Transpose" => transpose(cx),
        "Cast" => cast(cx),
        "Slice" => slice(cx),
        "Pad" => pad(cx),
        "Split" => split(cx),
        "Expand" => expand(cx),
        _ => tile(cx),
    }
}

fn gather(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(2, 2)?;
    let shape = cx.shape(0)?;
    let given = cx.attrs.int("axis", 0)?;
    let axis = cx.axis(given, shape.len())?;
    let tensor = cx.constant(1)?;
    let list = match &tensor.data {
        Data::I64(v) => v.clone(),
        Data::I32(v) => v.iter().map(|&i| i as i64).collect(),
        _ => return Err(Problem::input(1, format!("indices are {}, int64 is needed", tensor.dtype()), FIX)),
    };
    let dim = shape[axis] as i64;
    let indices = if matches!(tensor.data, Data::I64(_)) && list.iter().all(|&i| i >= 0) {
        cx.id(1)?
    } else {
        let fixed = list.iter().map(|&i| if i < 0 { i.saturating_add(dim) } else { i }).collect();
        cx.new_constant("indices", Tensor { shape: tensor.shape.clone(), data: Data::I64(fixed) })
    };
    let x = cx.id(0)?;
    cx.emit(0, Op::Gather { axis }, &[Some(x), Some(indices)], &Hint::default())
}

fn unsqueeze(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(1, if cx.opset < 13 { 1 } else { 2 })?;
    let shape = cx.shape(0)?;
    let list = cx.ints_at("axes", 1, 13)?.ok_or_else(|| Problem::attribute("axes", "missing, but required", FIX))?;
    let rank = shape.len() + list.len();
    if rank > MAX_RANK {
        return Err(Problem::attribute("axes", format!("makes {rank} dimensions"), "use fewer dimensions"));
    }
    let new = axes(&list, rank).map_err(|what| Problem::attribute("axes", what, FIX))?;
    let mut old = shape.iter();
    let out = (0..rank).map(|i| if new.contains(&i) { 1 } else { old.next().copied().unwrap_or(1) }).collect();
    cx.shaped(Op::Reshape, out)
}

fn squeeze(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(1, if cx.opset < 13 { 1 } else { 2 })?;
    let shape = cx.shape(0)?;
    let gone = match cx.ints_at("axes", 1, 13)? {
        None => (0..shape.len()).filter(|&i| shape[i] == 1).collect(),
        Some(list) => axes(&list, shape.len()).map_err(|what| Problem::attribute("axes", what, FIX))?,
    };
    if let Some(&bad) = gone.iter().find(|&&i| shape[i] != 1) {
        return Err(Problem::attribute("axes", format!("axis {bad} of shape {shape:?} is not 1"), FIX));
    }
    let out = (0..shape.len()).filter(|i| !gone.contains(i)).map(|i| shape[i]).collect();
    cx.shaped(Op::Reshape, out)
}

fn concat(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(1, usize::MAX)?;
    let rank = cx.rank(0)?;
    let given = cx.attrs.required_int("axis")?;
    let axis = cx.axis(given, rank)?;
    cx.direct(Op::Concat { axis })
}

fn reshape(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(2, 2)?;
    let allow_zero = cx.opset >= 14 && cx.attrs.flag("allowzero", false)?;
    let (shape, target) = (cx.shape(0)?, cx.ints(1)?);
    let bad = || Problem::input(1, format!("shape {shape:?} cannot become {target:?}"), FIX);
    let mut out = Vec::with_capacity(target.len());
    let mut free = None;
    for (i, &d) in target.iter().enumerate() {
        match d {
            -1 if free.is_none() => {
                free = Some(i);
                out.push(1);
            }
            0 if !allow_zero => out.push(*shape.get(i).ok_or_else(bad)?),
            d => out.push(usize::try_from(d).map_err(|_| bad())?),
        }
    }
    if let Some(i) = free {
        let (have, rest) = (elements(&shape).ok_or_else(bad)?, elements(&out).ok_or_else(bad)?);
        if rest == 0 || have % rest != 0 {
            return Err(bad());
        }
        out[i] = have / rest;
    }
    cx.shaped(Op::Reshape, out)
}

fn flatten(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(1, 1)?;
    let shape = cx.shape(0)?;
    let given = cx.attrs.int("axis", 1)?;
    let at = if given == shape.len() as i64 { shape.len() } else { cx.axis(given, shape.len())? };
    let side = |dims: &[usize]| elements(dims).unwrap_or(0);
    cx.shaped(Op::Flatten, vec![side(&shape[..at]), side(&shape[at..])])
}

fn transpose(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(1, 1)?;
    let rank = cx.rank(0)?;
    let perm = match cx.attrs.ints("perm")? {
        None => (0..rank).rev().collect(),
        Some(list) => {
            let perm: Option<Vec<usize>> = list.iter().map(|&p| axis(p, rank).filter(|_| p >= 0)).collect();
            perm.ok_or_else(|| Problem::attribute("perm", format!("{list:?} does not permute {rank} axes"), FIX))?
        }
    };
    cx.direct(Op::Transpose { perm })
}

fn cast(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(1, 1)?;
    // Both only concern 8-bit floats, which are refused.
    if cx.opset >= 19 {
        cx.attrs.ignore("saturate");
    }
    if cx.opset >= 24 {
        cx.attrs.ignore("round_mode");
    }
    if cx.attrs.is_float16("to") {
        return to_float16(cx);
    }
    let dtype = cx.element_type("to")?.ok_or_else(|| Problem::attribute("to", "missing, but required", FIX))?;
    let x = cx.id(0)?;
    if cx.asm.float16.contains(&x) && dtype != DType::F32 {
        return Err(Problem::attribute(
            "to",
            format!("a cast from float16 to {dtype} is not supported"),
            "cast to float32",
        ));
    }
    cx.emit(0, Op::Cast, &[Some(x)], &Hint { shape: None, dtype: Some(dtype) })
}

/// The value in float16: a float32 number that is one of float16, which only casts may read.
fn to_float16(cx: &mut Context<'_, '_>) -> Done {
    let x = cx.id(0)?;
    if cx.value(0)?.dtype != DType::F32 {
        return Err(Problem::attribute("to", "only float32 is cast to float16", "cast to float32 before"));
    }
    let op = if cx.asm.float16.contains(&x) { Op::Identity } else { Op::ThroughFloat16 };
    cx.direct(op)?;
    let made = cx.outputs[0];
    cx.asm.float16.extend(made);
    Ok(())
}

/// Starts, ends, axes and steps as the file gives them.
fn slice_lists(cx: &mut Context<'_, '_>) -> Result<[Vec<i64>; 4], Problem> {
    let (starts, ends, list, steps);
    if cx.opset < 10 {
        cx.arity(1, 1)?;
        let missing = |name: &str| Problem::attribute(name, "missing, but required", FIX);
        starts = cx.attrs.ints("starts")?.ok_or_else(|| missing("starts"))?.to_vec();
        ends = cx.attrs.ints("ends")?.ok_or_else(|| missing("ends"))?.to_vec();
        list = cx.attrs.ints("axes")?.map(<[i64]>::to_vec);
        steps = None;
    } else {
        cx.arity(3, 5)?;
        (starts, ends) = (cx.ints(1)?, cx.ints(2)?);
        (list, steps) = (cx.opt_ints(3)?, cx.opt_ints(4)?);
    }
    let list = list.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || list.len() != starts.len() || steps.len() != starts.len() {
        return Err(Problem::whole("starts, ends, axes and steps have different lengths", FIX));
    }
    Ok([starts, ends, list, steps])
}

fn slice(cx: &mut Context<'_, '_>) -> Done {
    let mut out = cx.shape(0)?;
    let [from, to, list, by] = slice_lists(cx)?;
    axes(&list, out.len()).map_err(|what| Problem::attribute("axes", what, FIX))?;
    let (mut starts, mut steps) = (vec![0; out.len()], vec![1; out.len()]);
    for k in 0..list.len() {
        let a = cx.axis(list[k], out.len())?;
        let (dim, step) = (out[a] as i64, by[k]);
        if step == 0 {
            return Err(Problem::input(4, "a step is zero", FIX));
        }
        let from_end = |x: i64| if x < 0 { x.saturating_add(dim) } else { x };
        let (start, end) = if step > 0 {
            (from_end(from[k]).clamp(0, dim), from_end(to[k]).clamp(0, dim))
        } else {
            (from_end(from[k]).clamp(-1, dim - 1), from_end(to[k]).clamp(-1, dim - 1))
        };
        out[a] = slice_len(start, end, step);
        (starts[a], steps[a]) = (start, step);
    }
    cx.shaped(Op::Slice { starts, steps }, out)
}

fn pad(cx: &mut Context<'_, '_>) -> Done {
    let shape = cx.shape(0)?;
    let rank = shape.len();
    let mode = cx.attrs.string("mode", "constant")?;
    let (pads, value, list);
    if cx.opset < 11 {
        cx.arity(1, 1)?;
        let given = cx.attrs.ints("pads")?.ok_or_else(|| Problem::attribute("pads", "missing, but required", FIX))?;
        (pads, value, list) = (given.to_vec(), cx.attrs.float("value", 0.0)? as f64, None);
    } else {
        cx.arity(2, if cx.opset < 18 { 3 } else { 4 })?;
        (pads, value, list) = (cx.ints(1)?, pad_value(cx)?, cx.opt_ints(3)?);
    }
    let list = list.unwrap_or_else(|| (0..rank as i64).collect());
    axes(&list, rank).map_err(|what| Problem::input(3, what, FIX))?;
    if pads.len() != 2 * list.len() {
        return Err(Problem::whole(format!("{} pads do not fit {} axes", pads.len(), list.len()), FIX));
    }
    let (mut begin, mut end) = (vec![0; rank], vec![0; rank]);
    for (k, &a) in list.iter().enumerate() {
        let a = cx.axis(a, rank)?;
        (begin[a], end[a]) = (pads[k], pads[k + list.len()]);
    }
    let mode = match mode.as_str() {
        "constant" => PadMode::Constant(value),
        "edge" => PadMode::Edge,
        "reflect" => PadMode::Reflect,
        _ => {
            return Err(Problem::attribute(
                "mode",
                format!("`{mode}` is not supported"),
                "use constant, edge or reflect",
            ));
        }
    };
    let reach = |a: usize| begin[a].max(end[a]) >= shape[a] as i64;
    let beyond = |a: usize| begin[a] < -(shape[a] as i64) || end[a] < -(shape[a] as i64);
    if (mode == PadMode::Reflect && (0..rank).any(|a| reach(a) && begin[a].max(end[a]) > 0)) || (0..rank).any(beyond) {
        return Err(Problem::whole(format!("pads {begin:?} and {end:?} reach beyond shape {shape:?}"), FIX));
    }
    let mixed = |a: usize| begin[a].min(end[a]) < 0 && begin[a].max(end[a]) > 0;
    if !matches!(mode, PadMode::Constant(_)) && (0..rank).any(mixed) {
        return Err(Problem::whole("crops and pads one axis at once", "use Slice to crop"));
    }
    let x = cx.id(0)?;
    cx.emit(0, Op::Pad { begin, end, mode }, &[Some(x)], &Hint::default())
}

fn pad_value(cx: &Context<'_, '_>) -> Result<f64, Problem> {
    if !cx.has(2) {
        return Ok(0.0);
    }
    let fill = cx.value(2)?;
    if fill.dtype != cx.value(0)?.dtype || fill.len() != 1 {
        return Err(Problem::input(2, "the fill value must be one element of the padded type", FIX));
    }
    let Some(value) = cx.known_scalar(2) else {
        return Err(Problem::input(2, "the fill value is not a known constant", "fill with a constant, or with zero"));
    };
    if value.is_finite() && value.abs() <= 2f64.powi(127) * 2.0 {
        return Ok(value);
    }
    Err(Problem::input(2, format!("the fill value {value} is not finite"), "use a finite fill value"))
}

fn split(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(1, if cx.opset < 13 { 1 } else { 2 })?;
    let shape = cx.shape(0)?;
    let given = cx.attrs.int("axis", 0)?;
    let a = cx.axis(given, shape.len())?;
    let (dim, parts) = (shape[a], cx.output_names.len());
    let lengths = match cx.ints_at("split", 1, 13)? {
        Some(list) => {
            let lengths: Option<Vec<usize>> = list.iter().map(|&n| usize::try_from(n).ok()).collect();
            lengths.ok_or_else(|| Problem::attribute("split", "a length is negative", FIX))?
        }
        None if parts == 0 => vec![],
        None => {
            let count = if cx.opset >= 18 { cx.attrs.required_int("num_outputs")? } else { parts as i64 };
            if count != parts as i64 {
                return Err(Problem::attribute("num_outputs", format!("is {count} for {parts} outputs"), FIX));
            }
            let chunk = if cx.opset >= 18 { dim.div_ceil(parts) } else { dim / parts };
            (0..parts).map(|i| chunk.min(dim.saturating_sub(i * chunk))).collect()
        }
    };
    if lengths.len() != parts || lengths.iter().try_fold(0usize, |n, &l| n.checked_add(l)) != Some(dim) {
        return Err(Problem::whole(
            format!("lengths {lengths:?} do not split dimension {dim} into {parts} outputs"),
            FIX,
        ));
    }
    let x = cx.id(0)?;
    let mut at = 0;
    for (k, &length) in lengths.iter().enumerate() {
        let (mut starts, mut out) = (vec![0; shape.len()], shape.clone());
        (starts[a], out[a]) = (at as i64, length);
        at += length;
        let op = Op::Slice { starts, steps: vec![1; shape.len()] };
        cx.emit(k, op, &[Some(x)], &Hint { shape: Some(out), dtype: None })?;
    }
    Ok(())
}

fn expand(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(2, 2)?;
    let target: Option<Vec<usize>> = cx.ints(1)?.iter().map(|&d| usize::try_from(d).ok()).collect();
    let target = target.ok_or_else(|| Problem::input(1, "has a negative dimension", FIX))?;
    let out = broadcast(&cx.shape(0)?, &target).map_err(whole(FIX))?;
    cx.shaped(Op::Expand, out)
}

fn tile(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(2, 2)?;
    let repeats: Option<Vec<usize>> = cx.ints(1)?.iter().map(|&d| usize::try_from(d).ok()).collect();
    let repeats = repeats.ok_or_else(|| Problem::input(1, "has a negative repeat", FIX))?;
    let x = cx.id(0)?;
    cx.emit(0, Op::Tile { repeats }, &[Some(x)], &Hint::default())
}
