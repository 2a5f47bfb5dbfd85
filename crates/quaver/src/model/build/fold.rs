//! Evaluation of operations on constants: moving elements about, conversions, and element-wise arithmetic with one
//! rounding per operation. Anything whose result depends on an order of summation is refused.

use super::error::Problem;
use crate::model::ir::{DType, Data, Op, PadMode, Tensor};
use crate::num::float16;

/// Marks an element that comes from no input element.
const FILL: usize = usize::MAX;

/// The value of an operation on constants; `dtype` and `shape` are what inference gave.
pub(super) fn evaluate(op: &Op, inputs: &[&Tensor], dtype: DType, shape: &[usize]) -> Result<Tensor, Problem> {
    let refuse = || {
        Problem::whole(
            format!("{} of constants is not folded, its rounding is the runtime's choice", op.name()),
            "fold constants in the exporting tool",
        )
    };
    let x = *inputs.first().ok_or_else(refuse)?;
    let data = match op {
        Op::Identity | Op::Reshape | Op::Flatten => x.data.clone(),
        Op::Cast => cast(&x.data, dtype)?,
        Op::Transpose { .. } | Op::Slice { .. } | Op::Pad { .. } | Op::Gather { .. } | Op::Expand | Op::Tile { .. } => {
            let fill = if let Op::Pad { mode: PadMode::Constant(c), .. } = op { *c } else { 0.0 };
            let second = inputs.get(1).and_then(|t| t.to_i64()).unwrap_or_default();
            take(&x.data, &sources(op, x, &second, inputs.get(1).map_or(0, |t| t.shape.len()), shape), fill)
        }
        Op::Concat { axis } => concat(inputs, *axis, shape),
        Op::Add | Op::Sub | Op::Mul | Op::Div => {
            let [a, b] = *inputs else { return Err(refuse()) };
            binary(op, a, b, shape)?
        }
        Op::Relu | Op::LeakyRelu { .. } | Op::Clip { .. } | Op::Sign | Op::Neg | Op::ThroughFloat16 => {
            unary(op, &x.data).ok_or_else(refuse)?
        }
        _ => return Err(refuse()),
    };
    Ok(Tensor { shape: shape.to_vec(), data })
}

/// Row-major strides.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut out = vec![1usize; shape.len()];
    for i in (1..shape.len()).rev() {
        out[i - 1] = out[i].saturating_mul(shape[i]);
    }
    out
}

/// Calls `f` with every index of a shape, in row-major order.
fn each_index(shape: &[usize], mut f: impl FnMut(&[usize])) {
    if shape.contains(&0) {
        return;
    }
    let mut index = vec![0; shape.len()];
    loop {
        f(&index);
        let Some(axis) = (0..shape.len()).rev().find(|&i| index[i] + 1 < shape[i]) else { return };
        index[axis] += 1;
        index[axis + 1..].fill(0);
    }
}

/// For each output element, the offset of the input element it is (or [`FILL`]).
fn sources(op: &Op, x: &Tensor, gathered: &[i64], gathered_rank: usize, shape: &[usize]) -> Vec<usize> {
    let (dims, steps) = (&x.shape, strides(&x.shape));
    let mut out = Vec::new();
    each_index(shape, |index| {
        let offset = match op {
            Op::Transpose { perm } => perm.iter().zip(index).map(|(&p, i)| i * steps[p]).sum(),
            Op::Slice { starts, steps: by } => {
                (0..dims.len()).map(|d| (starts[d] + index[d] as i64 * by[d]) as usize * steps[d]).sum()
            }
            Op::Pad { begin, mode, .. } => padded(index, begin, dims, &steps, *mode),
            Op::Gather { axis } => gather_offset(index, *axis, gathered, gathered_rank, shape, dims, &steps),
            Op::Tile { .. } => (0..dims.len()).map(|d| index[d] % dims[d] * steps[d]).sum(),
            _ => broadcast_offset(index, dims, &steps),
        };
        out.push(offset);
    });
    out
}

fn broadcast_offset(index: &[usize], dims: &[usize], steps: &[usize]) -> usize {
    let skip = index.len() - dims.len();
    (0..dims.len()).map(|d| if dims[d] == 1 { 0 } else { index[skip + d] * steps[d] }).sum()
}

fn gather_offset(
    index: &[usize],
    axis: usize,
    list: &[i64],
    list_rank: usize,
    shape: &[usize],
    dims: &[usize],
    steps: &[usize],
) -> usize {
    let position = index[axis..axis + list_rank].iter().zip(&shape[axis..]).fold(0, |p, (i, n)| p * n + i);
    // Inference has checked that indices are in range.
    let picked = list[position] as usize * steps[axis];
    let before: usize = (0..axis).map(|d| index[d] * steps[d]).sum();
    let after: usize = (axis + 1..dims.len()).map(|d| index[d + list_rank - 1] * steps[d]).sum();
    before + picked + after
}

fn padded(index: &[usize], begin: &[i64], dims: &[usize], steps: &[usize], mode: PadMode) -> usize {
    let mut offset = 0;
    for d in 0..dims.len() {
        let (last, i) = (dims[d] as i64 - 1, index[d] as i64 - begin[d]);
        let inside = (0..=last).contains(&i);
        let i = match mode {
            PadMode::Constant(_) if !inside => return FILL,
            PadMode::Constant(_) => i,
            _ if last < 0 => return FILL,
            PadMode::Edge => i.clamp(0, last),
            // The reader has checked that no pad is longer than the axis less one.
            PadMode::Reflect => (if i < 0 { -i } else { last - (last - i).abs() }).clamp(0, last),
        };
        offset += i as usize * steps[d];
    }
    offset
}

/// Applies an expression to the elements of whatever type.
macro_rules! each_type {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            Data::F32($v) => Data::F32($body),
            Data::I8($v) => Data::I8($body),
            Data::U8($v) => Data::U8($body),
            Data::I16($v) => Data::I16($body),
            Data::U16($v) => Data::U16($body),
            Data::I32($v) => Data::I32($body),
            Data::I64($v) => Data::I64($body),
            Data::Bool($v) => Data::Bool($body),
        }
    };
}

trait Fill: Copy {
    fn from_f64(x: f64) -> Self;
}
macro_rules! fill {
    ($($t:ty),*) => { $(impl Fill for $t { fn from_f64(x: f64) -> Self { x as $t } })* };
}
fill!(f32, i8, u8, i16, u16, i32, i64);
impl Fill for bool {
    fn from_f64(x: f64) -> Self {
        x != 0.0
    }
}

fn pick<T: Fill>(from: &[T], sources: &[usize], fill: f64) -> Vec<T> {
    sources.iter().map(|&i| from.get(i).copied().unwrap_or(T::from_f64(fill))).collect()
}

fn take(data: &Data, sources: &[usize], fill: f64) -> Data {
    each_type!(data, v => pick(v, sources, fill))
}

/// Joins tensors of one type; `shape` is the result's.
fn concat(parts: &[&Tensor], axis: usize, shape: &[usize]) -> Data {
    let outer: usize = shape[..axis].iter().product();
    let inner: usize = shape[axis + 1..].iter().product();
    // Offsets into the parts laid end to end.
    let mut starts = Vec::with_capacity(parts.len());
    let mut total = 0;
    for part in parts {
        starts.push(total);
        total += part.len();
    }
    let mut order = Vec::with_capacity(total);
    for o in 0..outer {
        for (part, start) in parts.iter().zip(&starts) {
            let run = part.shape[axis] * inner;
            order.extend(start + o * run..start + (o + 1) * run);
        }
    }
    let mut joined = parts[0].data.clone();
    for part in &parts[1..] {
        match (&mut joined, &part.data) {
            (Data::F32(a), Data::F32(b)) => a.extend(b),
            (Data::I8(a), Data::I8(b)) => a.extend(b),
            (Data::U8(a), Data::U8(b)) => a.extend(b),
            (Data::I16(a), Data::I16(b)) => a.extend(b),
            (Data::U16(a), Data::U16(b)) => a.extend(b),
            (Data::I32(a), Data::I32(b)) => a.extend(b),
            (Data::I64(a), Data::I64(b)) => a.extend(b),
            (Data::Bool(a), Data::Bool(b)) => a.extend(b),
            // Inference has checked that all parts have one type.
            _ => {}
        }
    }
    take(&joined, &order, 0.0)
}

fn binary(op: &Op, a: &Tensor, b: &Tensor, shape: &[usize]) -> Result<Data, Problem> {
    let (steps_a, steps_b) = (strides(&a.shape), strides(&b.shape));
    let mut pairs = Vec::new();
    each_index(shape, |index| {
        pairs.push((broadcast_offset(index, &a.shape, &steps_a), broadcast_offset(index, &b.shape, &steps_b)));
    });
    match (&a.data, &b.data) {
        (Data::F32(x), Data::F32(y)) => {
            let f = |x: f32, y: f32| match op {
                Op::Add => x + y,
                Op::Sub => x - y,
                Op::Mul => x * y,
                _ => x / y,
            };
            Ok(Data::F32(pairs.iter().map(|&(i, j)| f(x[i], y[j])).collect()))
        }
        (Data::I64(x), Data::I64(y)) => {
            pairs.iter().map(|&(i, j)| integer(op, x[i], y[j])).collect::<Result<_, _>>().map(Data::I64)
        }
        (Data::I32(x), Data::I32(y)) => {
            let one = |&(i, j): &(usize, usize)| {
                i32::try_from(integer(op, x[i] as i64, y[j] as i64)?).map_err(|_| overflow())
            };
            pairs.iter().map(one).collect::<Result<_, _>>().map(Data::I32)
        }
        _ => Err(Problem::whole(
            "arithmetic on constants of this type is not supported",
            "fold constants when exporting",
        )),
    }
}

fn overflow() -> Problem {
    Problem::whole("integer arithmetic on constants overflows or divides by zero", "correct the model")
}

fn integer(op: &Op, x: i64, y: i64) -> Result<i64, Problem> {
    match op {
        Op::Add => x.checked_add(y),
        Op::Sub => x.checked_sub(y),
        Op::Mul => x.checked_mul(y),
        _ => x.checked_div(y),
    }
    .ok_or_else(overflow)
}

fn unary(op: &Op, data: &Data) -> Option<Data> {
    let map = |v: &[f32], f: &dyn Fn(f32) -> f32| Some(Data::F32(v.iter().map(|&x| f(x)).collect()));
    match (op, data) {
        (Op::Relu, Data::F32(v)) => map(v, &|x| if x < 0.0 { 0.0 } else { x }),
        (Op::LeakyRelu { alpha }, Data::F32(v)) => map(v, &|x| if x < 0.0 { alpha * x } else { x }),
        (Op::Clip { min, max }, Data::F32(v)) => map(v, &|x| {
            let x = min.map_or(x, |m| if x < m { m } else { x });
            max.map_or(x, |m| if x > m { m } else { x })
        }),
        (Op::Sign, Data::F32(v)) => map(v, &|x| {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                x * 0.0 + 0.0
            }
        }),
        (Op::Neg, Data::F32(v)) => map(v, &|x| -x),
        (Op::ThroughFloat16, Data::F32(v)) => map(v, &float16::nearest),
        (Op::Sign, Data::I64(v)) => Some(Data::I64(v.iter().map(|x| x.signum()).collect())),
        (Op::Sign, Data::I32(v)) => Some(Data::I32(v.iter().map(|x| x.signum()).collect())),
        (Op::Neg, Data::I64(v)) => v.iter().map(|x| x.checked_neg()).collect::<Option<_>>().map(Data::I64),
        (Op::Neg, Data::I32(v)) => v.iter().map(|x| x.checked_neg()).collect::<Option<_>>().map(Data::I32),
        _ => None,
    }
}

/// Conversion of constants; a value that does not fit the new type is an error.
fn cast(data: &Data, to: DType) -> Result<Data, Problem> {
    let refuse = |x: &dyn std::fmt::Display| {
        Problem::attribute("to", format!("the constant {x} does not fit {to}"), "correct the model")
    };
    if let (Data::F32(v), DType::F32) = (data, to) {
        return Ok(Data::F32(v.clone()));
    }
    if let (Data::F32(v), DType::Bool) = (data, to) {
        return Ok(Data::Bool(v.iter().map(|&x| x != 0.0).collect()));
    }
    let ints: Vec<i64> = match data {
        Data::F32(v) => {
            let one = |&x: &f32| {
                // Every float32 in [-2^63, 2^63) truncates into an i64; both bounds are float32 numbers.
                let bound = 9_223_372_036_854_775_808.0;
                if (-bound..bound).contains(&x) { Ok(x as i64) } else { Err(refuse(&x)) }
            };
            v.iter().map(one).collect::<Result<_, _>>()?
        }
        // Every other type converts to i64.
        other => Tensor { shape: vec![], data: other.clone() }.to_i64().unwrap_or_default(),
    };
    fn narrow<T: TryFrom<i64>>(
        v: &[i64],
        refuse: impl Fn(&dyn std::fmt::Display) -> Problem,
    ) -> Result<Vec<T>, Problem> {
        v.iter().map(|x| T::try_from(*x).map_err(|_| refuse(x))).collect()
    }
    Ok(match to {
        DType::F32 => Data::F32(ints.iter().map(|&x| x as f32).collect()),
        DType::I8 => Data::I8(narrow(&ints, refuse)?),
        DType::U8 => Data::U8(narrow(&ints, refuse)?),
        DType::I16 => Data::I16(narrow(&ints, refuse)?),
        DType::U16 => Data::U16(narrow(&ints, refuse)?),
        DType::I32 => Data::I32(narrow(&ints, refuse)?),
        DType::I64 => Data::I64(ints),
        DType::Bool => Data::Bool(ints.iter().map(|&x| x != 0).collect()),
    })
}
