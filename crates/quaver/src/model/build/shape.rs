//! Shape arithmetic: products, axes, broadcasting and sliding windows, all checked against overflow.

use super::error::Problem;
use crate::model::ir::Window;

/// Largest number of dimensions of a tensor.
pub(crate) const MAX_RANK: usize = 16;

/// Number of elements of a shape; `None` when the product of the non-zero dimensions does not fit.
pub(crate) fn elements(shape: &[usize]) -> Option<usize> {
    let product = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))?;
    if product > isize::MAX as usize {
        return None;
    }
    Some(if shape.contains(&0) { 0 } else { product })
}

/// The axis, counted from the end when negative.
pub(crate) fn axis(value: i64, rank: usize) -> Option<usize> {
    let rank_i = i64::try_from(rank).ok()?;
    let value = if value < 0 { value.checked_add(rank_i)? } else { value };
    usize::try_from(value).ok().filter(|&a| a < rank)
}

/// Distinct axes in ascending order.
pub(crate) fn axes(values: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    let mut out = Vec::new();
    for &value in values {
        let a = axis(value, rank).ok_or_else(|| format!("axis {value} is out of range for rank {rank}"))?;
        if out.contains(&a) {
            return Err(format!("axis {value} is given twice"));
        }
        out.push(a);
    }
    out.sort_unstable();
    Ok(out)
}

/// The numpy broadcast of two shapes.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| if i + s.len() < rank { 1 } else { s[i + s.len() - rank] };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(format!("shapes {a:?} and {b:?} do not broadcast")),
        })
        .collect()
}

/// Whether `from` broadcasts to exactly `to`.
pub(crate) fn broadcasts_to(from: &[usize], to: &[usize]) -> bool {
    broadcast(from, to).is_ok_and(|s| s == to)
}

/// The extent of a dilated kernel.
pub(crate) fn extent(kernel: usize, dilation: usize) -> Option<usize> {
    kernel.checked_sub(1)?.checked_mul(dilation)?.checked_add(1)
}

/// Number of windows along one axis.
fn windows(window: &Window, i: usize, input: usize) -> Result<usize, String> {
    let (kernel, stride, dilation) = (window.kernel[i], window.strides[i], window.dilations[i]);
    if kernel == 0 || stride == 0 || dilation == 0 {
        return Err("kernel, strides and dilations must be positive".into());
    }
    let overflow = || "the window overflows".to_string();
    let extent = extent(kernel, dilation).ok_or_else(overflow)?;
    let padded = input.checked_add(window.pads_begin[i]).and_then(|x| x.checked_add(window.pads_end[i]));
    let padded = padded.ok_or_else(overflow)?;
    let room = padded
        .checked_sub(extent)
        .ok_or_else(|| format!("a kernel that extends over {extent} elements does not fit {padded} padded elements"))?;
    let mut count =
        if window.ceil_mode { room.div_ceil(stride) } else { room / stride }.checked_add(1).ok_or_else(overflow)?;
    let starts_inside = |count: usize| {
        (count - 1).checked_mul(stride).zip(input.checked_add(window.pads_begin[i])).is_some_and(|(s, end)| s < end)
    };
    if window.ceil_mode && count > 1 && !starts_inside(count) {
        count -= 1;
    }
    Ok(count)
}

/// Spatial output shape of a sliding window over the spatial shape `input`.
pub(crate) fn slide(window: &Window, input: &[usize]) -> Result<Vec<usize>, String> {
    let n = input.len();
    let lists = [&window.kernel, &window.strides, &window.dilations, &window.pads_begin, &window.pads_end];
    if lists.iter().any(|list| list.len() != n) {
        return Err(format!("the window does not have {n} spatial axes"));
    }
    (0..n).map(|i| windows(window, i, input[i])).collect()
}

/// Refuses pooling windows that lie wholly in the padding.
pub(crate) fn check_pooling(window: &Window, input: &[usize], output: &[usize]) -> Result<(), String> {
    for i in 0..input.len() {
        let (kernel, dilation, begin) = (window.kernel[i], window.dilations[i], window.pads_begin[i]);
        if begin >= kernel || window.pads_end[i] >= kernel {
            return Err(format!("padding must be smaller than the kernel ({kernel})"));
        }
        // `slide` has checked that the last window's start does not overflow.
        let touches = |o: usize| {
            let start = o * window.strides[i];
            let first = begin.saturating_sub(start).div_ceil(dilation);
            first < kernel && start + first * dilation < begin + input[i]
        };
        // Windows without gaps touch the input if the first and the last do.
        let last = output[i].saturating_sub(1);
        let all = if dilation == 1 { touches(0) && touches(last) } else { (0..=last).all(touches) };
        if !all {
            return Err("a window lies wholly in the padding".into());
        }
    }
    Ok(())
}

/// Padding for `auto_pad` SAME along one axis: (begin, end).
pub(crate) fn same_padding(input: usize, extent: usize, stride: usize, upper: bool) -> Option<(usize, usize)> {
    let output = input.div_ceil(stride);
    let total = output.checked_sub(1)?.checked_mul(stride)?.checked_add(extent)?.saturating_sub(input);
    let small = total / 2;
    Some(if upper { (small, total - small) } else { (total - small, small) })
}

/// Output shape of a matrix product of these shapes, numpy style.
pub(crate) fn matmul(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let mismatch = || format!("shapes {a:?} and {b:?} do not multiply");
    if a.is_empty() || b.is_empty() {
        return Err(mismatch());
    }
    let (left, k) = (&a[..a.len() - 1], a[a.len() - 1]);
    let inner = if b.len() == 1 { b[0] } else { b[b.len() - 2] };
    if k != inner {
        return Err(mismatch());
    }
    let batch_a = if a.len() > 2 { &a[..a.len() - 2] } else { &[] };
    let batch_b = if b.len() > 2 { &b[..b.len() - 2] } else { &[] };
    let mut out = broadcast(batch_a, batch_b).map_err(|_| mismatch())?;
    if a.len() > 1 {
        out.push(left[left.len() - 1]);
    }
    if b.len() > 1 {
        out.push(b[b.len() - 1]);
    }
    Ok(out)
}

/// Length of a slice that takes `start`, `start + step`, ... while before `end`.
pub(crate) fn slice_len(start: i64, end: i64, step: i64) -> usize {
    let (span, stride) = if step > 0 {
        (end as i128 - start as i128, step as i128)
    } else {
        (start as i128 - end as i128, -(step as i128))
    };
    if span <= 0 || stride == 0 { 0 } else { ((span + stride - 1) / stride) as usize }
}

/// `Problem`s from messages about the whole node.
pub(crate) fn whole(cure: &'static str) -> impl Fn(String) -> Problem {
    move |what| Problem::whole(what, cure)
}
