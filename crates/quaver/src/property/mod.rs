//! Closed statements about a net: a box of inputs and a claim about the classes.

use crate::model::ir::DType;
use crate::model::lower::Lowered;
use crate::net::{Grid, NodeId, Op, Rounding};
use crate::num::Ratio;

/// All inputs between two corners, on the input's own grid (integers for an integer input, float32 values for a float
/// input), corners included.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// Smallest value of each element.
    pub lo: Vec<f64>,
    /// Largest value of each element.
    pub hi: Vec<f64>,
}

impl Region {
    /// Whether a point lies inside.
    pub fn contains(&self, x: &[f64]) -> bool {
        x.len() == self.lo.len() && x.iter().zip(&self.lo).zip(&self.hi).all(|((x, l), h)| l <= x && x <= h)
    }
}

/// Why there is no such region or claim.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PropertyError(String);

/// How classes with equal scores are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ties {
    /// A class wins only if it is strictly larger than every other.
    Strict,
    /// Among equals the first wins (as argmax does).
    First,
}

/// The claim that a net gives every input of a region the class `label`.
#[derive(Clone, Debug)]
pub struct Robustness {
    /// Inputs.
    pub region: Region,
    /// Output element that must win.
    pub label: usize,
    /// Tie rule.
    pub ties: Ties,
}

/// The ball of a radius around an input in the input's real units: |x' - x| <= radius in every element, clipped.
///
/// A float input is a float32; the corners are the outermost float32 values inside the exact ball. An integer input
/// that the model dequantizes first is measured in real units, scale (q - z); one that it does not, in integers.
///
/// # Errors
/// If the input has the wrong length or is not on the grid, or the clip range is empty.
pub fn ball(
    lowered: &Lowered,
    center: &[f64],
    radius: &Ratio,
    clip: Option<&(Ratio, Ratio)>,
) -> Result<Region, PropertyError> {
    let id = lowered.net.inputs()[0];
    let (node, dtype) = (lowered.net.node(id), lowered.input_types[0]);
    if node.len() != center.len() {
        return Err(PropertyError(format!("the model takes {} elements and the input has {}", node.len(), center.len())));
    }
    if radius.is_negative() {
        return Err(PropertyError("the radius is negative".into()));
    }
    let units = input_units(lowered, id);
    let mut region = Region { lo: vec![], hi: vec![] };
    for (i, &x) in center.iter().enumerate() {
        let (lo, hi) = interval(x, dtype, units, radius, clip)
            .ok_or_else(|| PropertyError(format!("element {i} of the input is {x}, outside the clip range or not {dtype}")))?;
        region.lo.push(lo);
        region.hi.push(hi);
    }
    Ok(region)
}

/// Scale and zero point by which the model dequantizes its integer input, if it does.
fn input_units(lowered: &Lowered, input: NodeId) -> Option<(f64, f64)> {
    let net = &lowered.net;
    let quantized = net.node(input).quantization.as_ref();
    if let Some(q) = quantized.filter(|q| q.scale.data.len() == 1 && q.zero_point.data.len() == 1) {
        return Some((q.scale.data[0], q.zero_point.data[0] as f64));
    }
    net.ids().find_map(|id| match &net.node(id).op {
        Op::Affine(a) if a.terms.len() == 1 && a.terms[0].0 == input && net.node(input).grid == Grid::Integer => {
            let crate::net::LinearMap::Diagonal { scale, .. } = &a.terms[0].1 else { return None };
            let one = scale.data.len() == 1 && a.bias.data.len() == 1 && a.rounding != Rounding::Exact;
            one.then(|| (scale.data[0], -a.bias.data[0] / scale.data[0]))
        }
        _ => None,
    })
}

/// The interval of one element, on its grid.
fn interval(
    x: f64,
    dtype: DType,
    units: Option<(f64, f64)>,
    radius: &Ratio,
    clip: Option<&(Ratio, Ratio)>,
) -> Option<(f64, f64)> {
    let exact = |v: f64| Ratio::from_f64(v);
    let (lo, hi) = match dtype.integer_range() {
        None => {
            if x as f32 as f64 != x {
                return None;
            }
            let (lo, hi) = clipped(exact(x)?.minus(radius), exact(x)?.plus(radius), clip);
            (f64::from(lo.ceil_f32()), f64::from(hi.floor_f32()))
        }
        Some((least, most)) => {
            if x.fract() != 0.0 || x < least as f64 || x > most as f64 {
                return None;
            }
            let (scale, zero) = units.unwrap_or((1.0, 0.0));
            let real = exact((x - zero) * scale)?;
            let (lo, hi) = clipped(real.minus(radius), real.plus(radius), clip);
            let back = |r: Ratio| Some(r.over(&exact(scale)?).plus(&exact(zero)?));
            let as_f64 = |n: num_bigint::BigInt| num_traits::ToPrimitive::to_f64(&n).unwrap_or(f64::NAN);
            (as_f64(back(lo)?.ceil()).max(least as f64), as_f64(back(hi)?.floor()).min(most as f64))
        }
    };
    (lo <= hi).then_some((lo, hi))
}

fn clipped(lo: Ratio, hi: Ratio, clip: Option<&(Ratio, Ratio)>) -> (Ratio, Ratio) {
    match clip {
        None => (lo, hi),
        Some((l, h)) => {
            let larger = |a: Ratio, b: &Ratio| if a.minus(b).is_negative() { b.clone() } else { a };
            let smaller = |a: Ratio, b: &Ratio| if b.minus(&a).is_negative() { b.clone() } else { a };
            (larger(lo, l), smaller(hi, h))
        }
    }
}
