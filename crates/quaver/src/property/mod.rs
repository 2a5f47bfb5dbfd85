//! Closed statements about a net: a box of inputs and a claim about its outputs.

mod corners;
pub mod equivalence;
mod query;
mod score;
mod stamp;
pub mod vnnlib;

use crate::model::ir::DType;
use crate::model::lower::Lowered;
use crate::net::Node;
use crate::num::Ratio;

pub use corners::{Corners, corners};
pub use query::{Ball, Constraint, Polyhedron, Query};
pub(crate) use score::{is_same_map, score};
pub use stamp::{never_class, stamped};

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
    /// The point of the region that is nearest to x.
    pub fn clamp(&self, x: &[f64]) -> Vec<f64> {
        x.iter().zip(self.lo.iter().zip(&self.hi)).map(|(x, (l, h))| x.clamp(*l, *h)).collect()
    }

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
    /// An input of the region that an attack tries before anything else, such as the centre of a ball.
    pub center: Option<Vec<f64>>,
    /// Output element that must win.
    pub label: usize,
    /// Tie rule.
    pub ties: Ties,
}

/// The ball of a radius around an input in the input's real units: |x' - x| <= radius in every element, clipped.
///
/// A float input is a float32; the corners are the outermost float32 values inside the exact ball. An integer input is measured in
/// real units, scale (q - z), where its first reader in the file gives them, else in integers.
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
        return Err(PropertyError(format!(
            "the model takes {} elements and the input has {}",
            node.len(),
            center.len()
        )));
    }
    if radius.is_negative() {
        return Err(PropertyError("the radius is negative".into()));
    }
    let units = input_units(node);
    let mut region = Region { lo: vec![], hi: vec![] };
    for (i, &x) in center.iter().enumerate() {
        let (lo, hi) = interval(x, dtype, units, radius, clip).ok_or_else(|| {
            PropertyError(format!("element {i} of the input is {x}, outside the clip range or not {dtype}"))
        })?;
        region.lo.push(lo);
        region.hi.push(hi);
    }
    Ok(region)
}

/// Scale and zero point of an integer input, where the model says what it means.
fn input_units(node: &Node) -> Option<(f64, f64)> {
    let q = node.quantization.as_ref()?;
    let ([scale], [zero_point]) = (&q.scale.data[..], &q.zero_point.data[..]) else { return None };
    Some((*scale, *zero_point as f64))
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
