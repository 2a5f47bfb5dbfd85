//! Operators that only make sense on constants: shapes and the arithmetic on them.

use super::context::{Context, FIX};
use crate::model::build::Hint;
use crate::model::build::Problem;
use crate::model::build::shape::{broadcast, elements, whole};
use crate::model::ir::{DType, Data, Op, Tensor};

type Done = Result<(), Problem>;

/// Evaluates the node.
pub(super) fn convert(op_type: &str, cx: &mut Context<'_, '_>) -> Done {
    match op_type {
        "Constant" => constant(cx),
        "ConstantOfShape" => constant_of_shape(cx),
        "Shape" => shape(cx),
        "Size" => {
            cx.arity(1, 1)?;
            let n = cx.value(0)?.len() as i64;
            cx.bind(Tensor { shape: vec![], data: Data::I64(vec![n]) })
        }
        "Range" => range(cx),
        "Equal" => equal(cx),
        _ => choose(cx),
    }
}

fn constant(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(0, 0)?;
    let mut found = Vec::new();
    if let Some(proto) = cx.attrs.tensor("value")? {
        found.push(cx.tensors.read(proto).map_err(|p| Problem::attribute("value", p.what, p.cure))?);
    }
    if let Some(x) = cx.attrs.opt_float("value_float")? {
        found.push(Tensor::scalar(x));
    }
    if let Some(x) = cx.attrs.opt_int("value_int")? {
        found.push(Tensor { shape: vec![], data: Data::I64(vec![x]) });
    }
    if let Some(list) = cx.attrs.floats("value_floats")? {
        found.push(Tensor { shape: vec![list.len()], data: Data::F32(list.to_vec()) });
    }
    if let Some(list) = cx.attrs.ints("value_ints")? {
        found.push(Tensor { shape: vec![list.len()], data: Data::I64(list.to_vec()) });
    }
    cx.attrs.finish()?;
    match (found.pop(), found.is_empty()) {
        (Some(tensor), true) => cx.bind(tensor),
        _ => Err(Problem::whole("a Constant needs exactly one value attribute", FIX)),
    }
}

/// Refuses shapes above the limit on elements.
fn check_size(cx: &Context<'_, '_>, shape: &[usize]) -> Result<usize, Problem> {
    elements(shape).filter(|&n| n <= cx.asm.max_elements()).ok_or_else(|| {
        let what = format!("shape {shape:?} has more than {} elements", cx.asm.max_elements());
        Problem::whole(what, "raise `max_elements` if the model is meant to be this large")
    })
}

fn constant_of_shape(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(1, 1)?;
    let dims: Option<Vec<usize>> = cx.ints(0)?.iter().map(|&d| usize::try_from(d).ok()).collect();
    let dims = dims.ok_or_else(|| Problem::input(0, "has a negative dimension", FIX))?;
    let fill = match cx.attrs.tensor("value")? {
        None => Tensor::scalar(0.0),
        Some(proto) => cx.tensors.read(proto).map_err(|p| Problem::attribute("value", p.what, p.cure))?,
    };
    if fill.len() != 1 {
        return Err(Problem::attribute("value", format!("has {} elements, one is needed", fill.len()), FIX));
    }
    check_size(cx, &dims)?;
    // Made by expanding the one element, so that the limit on folded constants holds.
    let fill = cx.new_constant("fill", Tensor { shape: vec![], data: fill.data });
    cx.emit(0, Op::Expand, &[Some(fill)], &Hint { shape: Some(dims), dtype: None })
}

fn shape(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(1, 1)?;
    let shape = cx.shape(0)?;
    let rank = shape.len() as i64;
    let (mut start, mut end) = (0, rank);
    if cx.opset >= 15 {
        start = cx.attrs.int("start", 0)?;
        end = cx.attrs.int("end", rank)?;
    }
    let bound = |x: i64| (if x < 0 { x.saturating_add(rank) } else { x }).clamp(0, rank) as usize;
    let (start, end) = (bound(start), bound(end));
    let dims: Vec<i64> = shape.get(start..end).unwrap_or_default().iter().map(|&d| d as i64).collect();
    cx.bind(Tensor { shape: vec![dims.len()], data: Data::I64(dims) })
}

fn range(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(3, 3)?;
    let mut ends = [0i64; 3];
    for (i, end) in ends.iter_mut().enumerate() {
        let tensor = cx.constant(i)?;
        *end = match &tensor.data {
            Data::I64(v) if v.len() == 1 => v[0],
            _ => return Err(Problem::input(i, "one constant int64 is needed", "only int64 ranges are supported")),
        };
    }
    let [start, limit, delta] = ends;
    if delta == 0 {
        return Err(Problem::input(2, "the step is zero", FIX));
    }
    let n = crate::model::build::shape::slice_len(start, limit, delta);
    check_size(cx, &[n])?;
    // `start + i * delta` lies between `start` and `limit`.
    let list = (0..n as i64).map(|i| start + i * delta).collect();
    cx.bind(Tensor { shape: vec![n], data: Data::I64(list) })
}

/// Constant input expanded to a shape.
fn expanded(cx: &mut Context<'_, '_>, i: usize, shape: &[usize]) -> Result<Data, Problem> {
    cx.constant(i)?;
    let x = cx.id(i)?;
    let id = cx.intermediate(Op::Expand, &[Some(x)], &Hint { shape: Some(shape.to_vec()), dtype: None })?;
    let tensor = cx.asm.value(id).constant.as_ref();
    tensor.map(|t| t.data.clone()).ok_or_else(|| Problem::input(i, "is not a constant", FIX))
}

fn equal(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(2, 2)?;
    let shape = broadcast(&cx.shape(0)?, &cx.shape(1)?).map_err(whole(FIX))?;
    let (a, b) = (expanded(cx, 0, &shape)?, expanded(cx, 1, &shape)?);
    let same = match (&a, &b) {
        (Data::I64(a), Data::I64(b)) => a.iter().zip(b).map(|(x, y)| x == y).collect(),
        (Data::I32(a), Data::I32(b)) => a.iter().zip(b).map(|(x, y)| x == y).collect(),
        (Data::Bool(a), Data::Bool(b)) => a.iter().zip(b).map(|(x, y)| x == y).collect(),
        (Data::F32(a), Data::F32(b)) => a.iter().zip(b).map(|(x, y)| x == y).collect(),
        _ => return Err(Problem::whole("Equal of these types is not supported", "only shape arithmetic is supported")),
    };
    cx.bind(Tensor { shape, data: Data::Bool(same) })
}

fn choose(cx: &mut Context<'_, '_>) -> Done {
    cx.arity(3, 3)?;
    let shape = broadcast(&cx.shape(0)?, &cx.shape(1)?).map_err(whole(FIX))?;
    let shape = broadcast(&shape, &cx.shape(2)?).map_err(whole(FIX))?;
    if cx.value(0)?.dtype != DType::Bool {
        return Err(Problem::input(0, "the condition is not boolean", FIX));
    }
    let parts = (expanded(cx, 0, &shape)?, expanded(cx, 1, &shape)?, expanded(cx, 2, &shape)?);
    fn pick<T: Copy>(c: &[bool], a: &[T], b: &[T]) -> Vec<T> {
        c.iter().zip(a.iter().zip(b)).map(|(&c, (&x, &y))| if c { x } else { y }).collect()
    }
    let data = match &parts {
        (Data::Bool(c), Data::I64(a), Data::I64(b)) => Data::I64(pick(c, a, b)),
        (Data::Bool(c), Data::I32(a), Data::I32(b)) => Data::I32(pick(c, a, b)),
        (Data::Bool(c), Data::F32(a), Data::F32(b)) => Data::F32(pick(c, a, b)),
        _ => return Err(Problem::whole("Where of these types is not supported", "only shape arithmetic is supported")),
    };
    cx.bind(Tensor { shape, data })
}
