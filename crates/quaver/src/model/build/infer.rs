//! Output type and shape of an operation from those of its inputs; refuses what does not fit together.

use super::error::Problem;
use super::infer_quant;
use super::shape::{broadcast, broadcasts_to, check_pooling, elements, matmul, slide};
use crate::model::ir::{DType, Op, Value, Window};

/// What the inputs alone do not say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hint {
    /// Output shape, for operations that carry it (Reshape, Expand, Slice, reductions without kept axes).
    pub shape: Option<Vec<usize>>,
    /// Output type, for Cast and for QuantizeLinear without zero point.
    pub dtype: Option<DType>,
}

/// Type and shape.
pub(super) type Kind = (DType, Vec<usize>);

const FIX: &str = "correct the model, or export it again";

/// The inputs of a node, with checked access.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a>(pub &'a [Option<&'a Value>]);

impl<'a> Inputs<'a> {
    /// Refuses a wrong number of inputs.
    pub fn arity(self, min: usize, max: usize) -> Result<(), Problem> {
        let n = self.0.len();
        if n < min || n > max {
            let wanted = if min == max { format!("{min}") } else { format!("{min} to {max}") };
            return Err(Problem::whole(format!("has {n} inputs, needs {wanted}"), FIX));
        }
        Ok(())
    }

    /// An optional input.
    pub fn opt(self, i: usize) -> Option<&'a Value> {
        self.0.get(i).copied().flatten()
    }

    /// A required input.
    pub fn get(self, i: usize) -> Result<&'a Value, Problem> {
        self.opt(i).ok_or_else(|| Problem::input(i, "missing, but required", FIX))
    }

    /// A required input of one of these types.
    pub fn typed(self, i: usize, types: &[DType]) -> Result<&'a Value, Problem> {
        let value = self.get(i)?;
        check_type(i, value, types)?;
        Ok(value)
    }

    /// A required float32 input.
    pub fn float(self, i: usize) -> Result<&'a Value, Problem> {
        self.typed(i, &[DType::F32])
    }
}

/// Refuses a value that has none of these types.
pub(super) fn check_type(i: usize, value: &Value, types: &[DType]) -> Result<(), Problem> {
    if types.contains(&value.dtype) {
        return Ok(());
    }
    let names: Vec<_> = types.iter().map(|t| t.name()).collect();
    let what = format!("`{}` is {}, only {} is supported", value.name, value.dtype, names.join(" or "));
    Err(Problem::input(i, what, "change the element type in the exporting tool"))
}

/// Refuses a value whose shape is not as wanted.
pub(super) fn bad_shape(i: usize, value: &Value, wanted: &str) -> Problem {
    Problem::input(i, format!("`{}` has shape {:?}, {wanted}", value.name, value.shape), FIX)
}

fn mismatch(what: String) -> Problem {
    Problem::whole(what, FIX)
}

/// The output's type and shape.
pub(crate) fn infer(op: &Op, inputs: &[Option<&Value>], hint: &Hint) -> Result<Kind, Problem> {
    let inputs = Inputs(inputs);
    match op {
        Op::Identity
        | Op::Reshape
        | Op::Flatten
        | Op::Transpose { .. }
        | Op::Concat { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Gather { .. }
        | Op::Expand
        | Op::Tile { .. }
        | Op::Cast => layout(op, inputs, hint),
        Op::Relu | Op::LeakyRelu { .. } | Op::Clip { .. } | Op::ThroughFloat16 => {
            inputs.arity(1, 1)?;
            Ok((DType::F32, inputs.float(0)?.shape.clone()))
        }
        Op::Sign | Op::Neg => {
            inputs.arity(1, 1)?;
            let x = inputs.typed(0, &[DType::F32, DType::I32, DType::I64])?;
            Ok((x.dtype, x.shape.clone()))
        }
        Op::Add | Op::Sub | Op::Mul | Op::Div => binary(inputs),
        Op::MatMul | Op::Gemm { .. } | Op::Conv { .. } | Op::BatchNormalization { .. } => linear(op, inputs),
        Op::MaxPool { .. } | Op::AveragePool { .. } | Op::GlobalAveragePool | Op::GlobalMaxPool => pool(op, inputs),
        Op::ReduceMean { axes } | Op::ReduceSum { axes } => reduce(op, axes, inputs, hint),
        Op::Softmax { axis } | Op::LogSoftmax { axis } => {
            inputs.arity(1, 1)?;
            let x = inputs.float(0)?;
            if *axis >= x.shape.len() {
                return Err(mismatch(format!("axis {axis} is out of range for shape {:?}", x.shape)));
            }
            Ok((DType::F32, x.shape.clone()))
        }
        _ => infer_quant::infer(op, inputs, hint),
    }
}

fn binary(inputs: Inputs<'_>) -> Result<Kind, Problem> {
    inputs.arity(2, 2)?;
    let types = [DType::F32, DType::I32, DType::I64];
    let (a, b) = (inputs.typed(0, &types)?, inputs.typed(1, &types)?);
    if a.dtype != b.dtype {
        return Err(mismatch(format!("inputs have different types, {} and {}", a.dtype, b.dtype)));
    }
    Ok((a.dtype, broadcast(&a.shape, &b.shape).map_err(mismatch)?))
}

/// Output shape of a matrix product with optional transpositions and an added C.
pub(super) fn gemm(
    inputs: Inputs<'_>,
    b: usize,
    c: usize,
    trans_a: bool,
    trans_b: bool,
) -> Result<Vec<usize>, Problem> {
    let matrix = |i: usize, transposed: bool| {
        let x = inputs.get(i)?;
        match (&x.shape[..], transposed) {
            (&[r, c], false) | (&[c, r], true) => Ok((r, c)),
            _ => Err(bad_shape(i, x, "a matrix is needed")),
        }
    };
    let ((m, k), (inner, n)) = (matrix(0, trans_a)?, matrix(b, trans_b)?);
    if k != inner {
        return Err(mismatch(format!("inner dimensions {k} and {inner} differ")));
    }
    let out = vec![m, n];
    match inputs.opt(c) {
        Some(value) if !broadcasts_to(&value.shape, &out) => {
            Err(bad_shape(c, value, &format!("which does not broadcast to {out:?}")))
        }
        _ => Ok(out),
    }
}

/// Output shape of a convolution of input 0 with the weights at `w`.
pub(super) fn conv(
    inputs: Inputs<'_>,
    w: usize,
    b: usize,
    window: &Window,
    group: usize,
) -> Result<Vec<usize>, Problem> {
    let (x, weights) = (inputs.get(0)?, inputs.get(w)?);
    let rank = x.shape.len();
    if !(3..=4).contains(&rank) {
        return Err(bad_shape(0, x, "only 1-D and 2-D convolution is supported ([N, C, spatial])"));
    }
    if weights.shape.len() != rank || weights.shape[2..] != window.kernel[..] {
        return Err(bad_shape(w, weights, &format!("which does not fit the kernel {:?}", window.kernel)));
    }
    let (channels, filters) = (x.shape[1], weights.shape[0]);
    if group == 0 || weights.shape[1].checked_mul(group) != Some(channels) || filters % group != 0 || filters == 0 {
        return Err(bad_shape(w, weights, &format!("which does not fit {channels} channels in {group} groups")));
    }
    if let Some(bias) = inputs.opt(b).filter(|bias| bias.shape != [filters]) {
        return Err(bad_shape(b, bias, &format!("[{filters}] is needed")));
    }
    let mut out = vec![x.shape[0], filters];
    out.extend(slide(window, &x.shape[2..]).map_err(mismatch)?);
    check_padding(&x.shape[2..], window)?;
    Ok(out)
}

fn linear(op: &Op, inputs: Inputs<'_>) -> Result<Kind, Problem> {
    let shape = match op {
        Op::MatMul => {
            inputs.arity(2, 2)?;
            matmul(&inputs.float(0)?.shape, &inputs.float(1)?.shape).map_err(mismatch)?
        }
        Op::Gemm { trans_a, trans_b, .. } => {
            inputs.arity(2, 3)?;
            gemm(inputs, 1, 2, *trans_a, *trans_b)?
        }
        Op::Conv { window, group } => {
            inputs.arity(2, 3)?;
            conv(inputs, 1, 2, window, *group)?
        }
        _ => batch_normalization(inputs)?,
    };
    for (i, value) in inputs.0.iter().enumerate() {
        if let Some(value) = value {
            check_type(i, value, &[DType::F32])?;
        }
    }
    Ok((DType::F32, shape))
}

fn batch_normalization(inputs: Inputs<'_>) -> Result<Vec<usize>, Problem> {
    inputs.arity(5, 5)?;
    let x = inputs.float(0)?;
    let channels = match x.shape[..] {
        [] => return Err(bad_shape(0, x, "at least one dimension is needed")),
        [_] => 1,
        [_, c, ..] => c,
    };
    for i in 1..5 {
        let v = inputs.float(i)?;
        if v.shape != [channels] {
            return Err(bad_shape(i, v, &format!("[{channels}] is needed")));
        }
        if v.constant.is_none() {
            return Err(Problem::input(i, format!("`{}` is not a constant", v.name), "export for inference"));
        }
    }
    Ok(x.shape.clone())
}

/// Refuses windows that are mostly padding: a few numbers in a file must not make huge tensors.
fn check_padding(input: &[usize], window: &Window) -> Result<(), Problem> {
    let pads = window.pads_begin.iter().zip(&window.pads_end).map(|(b, e)| b.saturating_add(*e));
    let padded: Vec<usize> = input.iter().zip(pads).map(|(d, p)| d.saturating_add(p)).collect();
    let limit = elements(input).unwrap_or(0).saturating_mul(16).max(4096);
    match elements(&padded) {
        Some(n) if n <= limit => Ok(()),
        _ => Err(mismatch(format!(
            "an image of {input:?} elements is padded to {padded:?}, which is nearly all padding"
        ))),
    }
}

/// Output shape of pooling over a shape [N, C, spatial].
pub(super) fn pooled(x: &Value, window: &Window) -> Result<Vec<usize>, Problem> {
    if !(3..=4).contains(&x.shape.len()) {
        return Err(bad_shape(0, x, "only 1-D and 2-D pooling is supported ([N, C, spatial])"));
    }
    let spatial = slide(window, &x.shape[2..]).map_err(mismatch)?;
    if elements(&spatial).is_none_or(|n| n > 1 << 28) {
        return Err(mismatch(format!("the output's spatial shape {spatial:?} is too large")));
    }
    check_padding(&x.shape[2..], window)?;
    check_pooling(window, &x.shape[2..], &spatial).map_err(mismatch)?;
    Ok([&x.shape[..2], &spatial].concat())
}

fn pool(op: &Op, inputs: Inputs<'_>) -> Result<Kind, Problem> {
    inputs.arity(1, 1)?;
    let x = match op {
        Op::MaxPool { .. } => inputs.typed(0, &[DType::F32, DType::I8, DType::U8])?,
        _ => inputs.float(0)?,
    };
    match op {
        Op::MaxPool { window } | Op::AveragePool { window, .. } => Ok((x.dtype, pooled(x, window)?)),
        _ if !(3..=4).contains(&x.shape.len()) => {
            Err(bad_shape(0, x, "only 1-D and 2-D pooling is supported ([N, C, spatial])"))
        }
        _ => Ok((x.dtype, [&x.shape[..2], &vec![1; x.shape.len() - 2][..]].concat())),
    }
}

fn reduce(op: &Op, axes: &[usize], inputs: Inputs<'_>, hint: &Hint) -> Result<Kind, Problem> {
    inputs.arity(1, 1)?;
    let x = match op {
        Op::ReduceSum { .. } => inputs.typed(0, &[DType::F32, DType::I32, DType::I64])?,
        _ => inputs.float(0)?,
    };
    Ok((x.dtype, reduced(&x.shape, axes, hint)?))
}

/// Shape after a reduction over axes, which are kept with length 1 unless the hint says that they are dropped.
pub(super) fn reduced(shape: &[usize], axes: &[usize], hint: &Hint) -> Result<Vec<usize>, Problem> {
    let distinct = axes.iter().enumerate().all(|(i, a)| *a < shape.len() && !axes[..i].contains(a));
    if !distinct || axes.is_empty() {
        return Err(mismatch(format!("axes {axes:?} do not fit shape {shape:?}")));
    }
    let on = |i: &usize| axes.contains(i);
    let kept: Vec<usize> = (0..shape.len()).map(|i| if on(&i) { 1 } else { shape[i] }).collect();
    let dropped: Vec<usize> = (0..shape.len()).filter(|i| !on(i)).map(|i| shape[i]).collect();
    match &hint.shape {
        Some(wanted) if *wanted == dropped => Ok(dropped),
        Some(wanted) if *wanted != kept => Err(mismatch(format!("reducing {shape:?} gives {kept:?}, not {wanted:?}"))),
        _ => Ok(kept),
    }
}

fn layout(op: &Op, inputs: Inputs<'_>, hint: &Hint) -> Result<Kind, Problem> {
    let x = inputs.get(0)?;
    let many = matches!(op, Op::Concat { .. });
    let count = if matches!(op, Op::Gather { .. }) { 2 } else { 1 };
    inputs.arity(count, if many { usize::MAX } else { count })?;
    let rank = x.shape.len();
    let needs = || mismatch("the output's shape or type must be given".into());
    let shape = match op {
        Op::Reshape | Op::Flatten => {
            let shape = hint.shape.clone().ok_or_else(needs)?;
            if elements(&shape).is_none() || elements(&shape) != elements(&x.shape) {
                return Err(mismatch(format!("shape {:?} cannot become {shape:?}", x.shape)));
            }
            shape
        }
        Op::Transpose { perm } => {
            if perm.len() != rank || (0..rank).any(|i| !perm.contains(&i)) {
                return Err(mismatch(format!("{perm:?} does not permute the axes of {:?}", x.shape)));
            }
            perm.iter().map(|&p| x.shape[p]).collect()
        }
        Op::Concat { axis } => concat(inputs.0, *axis, 0, 1)?,
        Op::Slice { starts, steps } => slice(&x.shape, starts, steps, hint.shape.as_deref())?,
        Op::Pad { begin, end, .. } => pad(&x.shape, begin, end)?,
        Op::Gather { axis } => gather(inputs, *axis)?,
        Op::Expand => {
            let shape = hint.shape.clone().ok_or_else(needs)?;
            if !broadcasts_to(&x.shape, &shape) {
                return Err(mismatch(format!("shape {:?} does not expand to {shape:?}", x.shape)));
            }
            shape
        }
        Op::Tile { repeats } => {
            if repeats.len() != rank {
                return Err(mismatch(format!("{} repeats for rank {rank}", repeats.len())));
            }
            let dims = x.shape.iter().zip(repeats).map(|(d, r)| d.checked_mul(*r)).collect::<Option<_>>();
            dims.ok_or_else(|| mismatch("the tiled shape overflows".into()))?
        }
        _ => x.shape.clone(),
    };
    let dtype = if matches!(op, Op::Cast) { hint.dtype.ok_or_else(needs)? } else { x.dtype };
    Ok((dtype, shape))
}

/// Shape of the concatenation of every `every`-th input from `first` on.
pub(super) fn concat(
    values: &[Option<&Value>],
    axis: usize,
    first: usize,
    every: usize,
) -> Result<Vec<usize>, Problem> {
    let inputs = Inputs(values);
    let head = inputs.get(first)?;
    let mut shape = head.shape.clone();
    if axis >= shape.len() {
        return Err(mismatch(format!("axis {axis} is out of range for shape {shape:?}")));
    }
    for i in (first + every..values.len()).step_by(every) {
        let part = inputs.typed(i, &[head.dtype])?;
        let fits = part.shape.len() == shape.len() && (0..shape.len()).all(|d| d == axis || part.shape[d] == shape[d]);
        if !fits {
            return Err(bad_shape(
                i,
                part,
                &format!("which does not concatenate with {:?} on axis {axis}", head.shape),
            ));
        }
        shape[axis] =
            shape[axis].checked_add(part.shape[axis]).ok_or_else(|| mismatch("the joined shape overflows".into()))?;
    }
    Ok(shape)
}

fn slice(x: &[usize], starts: &[i64], steps: &[i64], wanted: Option<&[usize]>) -> Result<Vec<usize>, Problem> {
    let bad = || mismatch(format!("slice {starts:?} by {steps:?} to {wanted:?} does not fit shape {x:?}"));
    if starts.len() != x.len() || steps.len() != x.len() || wanted.is_some_and(|w| w.len() != x.len()) {
        return Err(bad());
    }
    let one = |i: usize| {
        let (dim, start, step) = (x[i] as i64, starts[i], steps[i]);
        let longest = match step {
            0 => return Err(bad()),
            _ if start < 0 || start >= dim => 0,
            s if s > 0 => super::shape::slice_len(start, dim, s),
            s => super::shape::slice_len(start, -1, s),
        };
        match wanted {
            None => Ok(longest),
            Some(w) if w[i] <= longest => Ok(w[i]),
            Some(_) => Err(bad()),
        }
    };
    (0..x.len()).map(one).collect()
}

fn pad(x: &[usize], begin: &[i64], end: &[i64]) -> Result<Vec<usize>, Problem> {
    if begin.len() != x.len() || end.len() != x.len() {
        return Err(mismatch(format!("pads do not fit rank {}", x.len())));
    }
    let dim = |i: usize| {
        let total = (x[i] as i64).checked_add(begin[i])?.checked_add(end[i])?;
        usize::try_from(total).ok()
    };
    let shape = (0..x.len()).map(dim).collect::<Option<_>>();
    shape.ok_or_else(|| mismatch(format!("padding {x:?} by {begin:?} and {end:?} is not possible")))
}

fn gather(inputs: Inputs<'_>, axis: usize) -> Result<Vec<usize>, Problem> {
    let (x, indices) = (inputs.get(0)?, inputs.typed(1, &[DType::I64])?);
    let Some(&dim) = x.shape.get(axis) else {
        return Err(mismatch(format!("axis {axis} is out of range for shape {:?}", x.shape)));
    };
    let Some(list) = indices.constant.as_ref().and_then(|t| t.to_i64()) else {
        return Err(Problem::input(1, "indices are not constant", "only constant indices are supported"));
    };
    if let Some(bad) = list.iter().find(|&&i| usize::try_from(i).map_or(true, |i| i >= dim)) {
        return Err(Problem::input(1, format!("index {bad} is out of range for dimension {dim}"), FIX));
    }
    Ok([&x.shape[..axis], &indices.shape, &x.shape[axis + 1..]].concat())
}
