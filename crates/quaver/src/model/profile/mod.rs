//! Arithmetic profiles: which executable a model file means.
//!
//! A profile is one file that implements [`Profile`]. Everything it says ends up as thresholds and rounding terms in the
//! net; no analysis ever sees a profile. The formulas, with what was measured, are in `docs/profiles.md`.

use std::fmt;

use super::ir::Model;
use super::lower::LowerError;
use crate::net::{Cut, Grid, Rounding, Step};
use crate::num::float32;

mod fixed_point;
mod float32_profile;
pub mod ort;
mod ort_fused;
mod real;

pub use fixed_point::FixedPoint;
pub use float32_profile::Float32;
pub use ort_fused::OrtFused;
pub use real::Real;

/// real x -> integer: parameters of a QuantizeLinear.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantizer {
    /// Step width.
    pub scale: f32,
    /// Integer that stands for zero.
    pub zero_point: i64,
    /// Smallest and largest integer.
    pub range: (i64, i64),
}

/// integer accumulator -> integer: what follows an integer dot product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Requantizer {
    /// Scale of the activations that were multiplied.
    pub input_scale: f32,
    /// Scale of the weights that were multiplied (of this channel).
    pub weight_scale: f32,
    /// Scale, zero point and range of the result.
    pub output: Quantizer,
}

/// What must hold for a profile's integer formulas to be the runtime's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// |accumulator| must stay below this.
    pub accumulator: Option<i64>,
    /// Pairs of u8 x s8 products are added in saturating 16-bit arithmetic: they must not saturate.
    pub saturating_pairs: bool,
}

/// One arithmetic.
pub trait Profile: Send + Sync {
    /// The name users type, with parameters.
    fn id(&self) -> String;

    /// One line: what computes like this.
    fn describe(&self) -> &'static str;

    /// The graph that the runtime executes for this file.
    ///
    /// # Errors
    /// If the profile has no meaning for the model.
    fn rewrite(&self, model: &Model) -> Result<Model, LowerError> {
        Ok(model.clone())
    }

    /// What float values are.
    fn float_grid(&self) -> Grid;

    /// What the runtime may do to a sum of this many products; `None` when the sum is too long to bound.
    fn dot(&self, products: usize) -> Option<Rounding>;

    /// What it does to the result of one float operation.
    fn single(&self) -> Rounding;

    /// scale (q - zero point), as a constant is dequantized; `None` when that is not an `f64`.
    fn dequantize(&self, difference: i64, scale: f32) -> Option<f64>;

    /// x -> integer.
    fn quantize(&self, quantizer: &Quantizer) -> Step;

    /// accumulator -> integer.
    fn requantize(&self, requantizer: &Requantizer) -> Step;

    /// Side conditions of the formulas.
    fn limits(&self) -> Limits;

    /// What a verdict under this profile assumes about the machine, for reports.
    fn assumptions(&self) -> Vec<String> {
        vec![]
    }
}

impl fmt::Debug for dyn Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id())
    }
}

/// The text names no profile.
#[derive(Debug, thiserror::Error)]
#[error(
    "unknown profile `{text}`: {problem}; the profiles are real, float32, ort-fused, ort-fused-any-x86 and fixed-point(Q,F)"
)]
pub struct UnknownProfile {
    text: String,
    problem: String,
}

/// The profile with this name, for example `real` or `fixed-point(6,4,weights=5,input=8)`.
///
/// # Errors
/// If there is none.
pub fn parse(text: &str) -> Result<Box<dyn Profile>, UnknownProfile> {
    let fail = |problem: &str| UnknownProfile { text: text.into(), problem: problem.into() };
    Ok(match text.trim() {
        "real" => Box::new(Real),
        "float32" => Box::new(Float32),
        "ort-fused" => Box::new(OrtFused { any_x86: false }),
        "ort-fused-any-x86" => Box::new(OrtFused { any_x86: true }),
        t if t.starts_with("fixed-point") => {
            Box::new(t["fixed-point".len()..].parse::<FixedPoint>().map_err(|e| fail(&e))?)
        }
        _ => return Err(fail("no such name")),
    })
}

/// The profile that fits a model when the user names none: `ort-fused` where there is quantized arithmetic, else `float32`.
pub fn default_for(model: &Model) -> Box<dyn Profile> {
    if model.nodes.iter().any(|n| n.op.is_quantized()) {
        Box::new(OrtFused { any_x86: false })
    } else {
        Box::new(Float32)
    }
}

/// The step function of a monotone function of an int32 accumulator onto [lo, hi]: each threshold is the exact smallest
/// accumulator that reaches the value, found by bisection on the function itself. `guess(k)` should be near it.
///
/// # Claim
/// For every int32 a, the step's value at a is f(a) clipped to [lo, hi], if f is non-decreasing.
pub fn accumulator_step(range: (i64, i64), f: impl Fn(i64) -> i64, guess: impl Fn(i64) -> f64) -> Step {
    let (first, last) = (i64::from(i32::MIN), i64::from(i32::MAX));
    build_step(range, |k| bracketed(first, last, guess(k), |a| f(a) >= k).map(|a| a as f64))
}

/// The step function of a monotone function of a finite float32 (see [`accumulator_step`]).
pub fn float32_step(range: (i64, i64), f: impl Fn(f32) -> i64, guess: impl Fn(i64) -> f64) -> Step {
    let largest = float32::key(f32::MAX);
    build_step(range, |k| {
        let near = float32::key(guess(k) as f32) as f64;
        let key = bracketed(-largest, largest, near, |key| f(float32::from_key(key)) >= k)?;
        Some(float32::from_key(key) as f64)
    })
}

/// Smallest integer of [lo, hi] where a monotone predicate holds, looking near the guess first.
fn bracketed(lo: i64, hi: i64, guess: f64, predicate: impl Fn(i64) -> bool) -> Option<i64> {
    let centre = if guess.is_finite() { (guess.max(lo as f64).min(hi as f64)) as i64 } else { lo };
    let mut reach = 4;
    while reach < hi - lo {
        let (l, h) = ((centre - reach).max(lo), (centre + reach).min(hi));
        if predicate(h) && (l == lo || !predicate(l)) {
            return float32::first_key_true(l, h, predicate);
        }
        reach *= 16;
    }
    float32::first_key_true(lo, hi, predicate)
}

/// Values lo..=hi with the given first argument of each; values that are never reached are left out.
fn build_step((lo, hi): (i64, i64), first: impl Fn(i64) -> Option<f64>) -> Step {
    let cuts: Vec<Cut> = (lo + 1..=hi).map_while(|k| first(k).map(Cut::at)).collect();
    let values = (0..=cuts.len() as i64).map(|k| (lo + k) as f64).collect();
    Step::new(cuts, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accumulator_steps_equal_the_function_everywhere_near_the_jumps() {
        let f = |a: i64| ((a as f32 * 0.0037_f32).round_ties_even() as i64 + 7).clamp(0, 255);
        let step = accumulator_step((0, 255), f, |k| (k as f64 - 7.5) / 0.0037);
        for a in -3000..70_000 {
            assert_eq!(step.values()[step.index(a as f64)], f(a) as f64, "at {a}");
        }
        let blind = accumulator_step((0, 255), f, |_| 0.0);
        assert_eq!(step, blind);
    }

    #[test]
    fn names_are_parsed_or_refused() {
        for name in ["real", "float32", "ort-fused", "ort-fused-any-x86", "fixed-point(8,4)"] {
            assert_eq!(parse(name).unwrap().id(), name);
        }
        for name in ["", "tflite", "fixed-point", "fixed-point(8)", "fixed-point(99,4)", "fixed-point(8,4,weights=x)"] {
            assert!(parse(name).is_err(), "{name}");
        }
    }
}
