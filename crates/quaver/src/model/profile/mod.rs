//! Arithmetic profiles: which executable a model file means.
//!
//! A profile is one file that implements [`Profile`]. Everything it says ends up as thresholds and rounding terms in the
//! net; no analysis ever sees a profile. The formulas, with what was measured, are in `docs/profiles.md`.

use std::fmt;

use super::ir::Model;
use super::lower::{LowerError, Lowered};
use crate::net::{Cut, Grid, Rounding, ScalarFn, Spread, Step};
use crate::num::float32;
use crate::num::round::gamma32;

mod any_engine;
mod fixed_point;
mod float32_profile;
mod graph;
pub mod ort;
mod ort_fused;
mod qdq;
mod real;
mod tflite;
mod torch;

pub use any_engine::AnyEngine;
pub use fixed_point::FixedPoint;
pub use float32_profile::Float32;
pub use ort_fused::OrtFused;
pub use real::Real;
pub use tflite::TfLite;
pub use torch::{Engine, Torch};

/// real x -> integer: parameters of a quantized value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantizer {
    /// Step width.
    pub scale: f32,
    /// Integer that stands for zero.
    pub zero_point: i64,
    /// Smallest and largest integer.
    pub range: (i64, i64),
}

/// What computes an integer product: runtimes have kernels of their own for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Matrix products.
    Dense,
    /// Convolutions, depthwise ones too.
    Convolution,
    /// Products of two elements.
    Elementwise,
}

/// The bias of an integer product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bias {
    /// An integer, which is part of the accumulator.
    Integer(i64),
    /// A float32 that the runtime adds to the accumulator by its own formula.
    Float(f32),
}

/// integer accumulator -> integer: what follows an integer dot product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Requantizer {
    /// What made the accumulator.
    pub kernel: Kernel,
    /// Whether each output channel has a weight scale of its own.
    pub per_channel: bool,
    /// Scale of the activations that were multiplied.
    pub input_scale: f32,
    /// Their zero point: some runtimes choose another kernel where it is 0.
    pub input_zero_point: i64,
    /// Scale of the weights that were multiplied (of this channel).
    pub weight_scale: f32,
    /// Bias of this channel.
    pub bias: Bias,
    /// Smallest and largest accumulator over all inputs and channels.
    pub accumulator: (i64, i64),
    /// Scale, zero point and range of the result.
    pub output: Quantizer,
}

/// An element-wise map of an operand, ahead of a sum.
#[derive(Clone, Debug)]
pub enum Rescale {
    /// A function of the stored integer, times a sign.
    Table {
        /// The function.
        step: Step,
        /// 1 or -1.
        sign: f64,
    },
    /// scale q + bias.
    Affine {
        /// Exact factor.
        scale: f64,
        /// Exact offset.
        bias: f64,
        /// What the runtime does to the result.
        rounding: Rounding,
    },
}

impl Rescale {
    /// The table of a non-decreasing function of an operand's integers, times a sign.
    fn table((lo, hi): (i64, i64), sign: f64, f: impl Fn(i64) -> i64) -> Self {
        let cuts = (lo + 1..=hi).map(|q| Cut::at(q as f64)).collect();
        Rescale::Table { step: Step::new(cuts, (lo..=hi).map(|q| f(q) as f64).collect()), sign }
    }
}

/// How a runtime adds (or subtracts) two quantized values: finish(round(f(a) + g(b) + bias)).
#[derive(Clone, Debug)]
pub struct Addition {
    /// f and g.
    pub operands: [Rescale; 2],
    /// Exact.
    pub bias: f64,
    /// What the runtime does to the sum.
    pub rounding: Rounding,
    /// sum -> integer.
    pub finish: ScalarFn,
}

/// What is averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// A sliding window.
    Window,
    /// The whole image.
    Global,
    /// Axes of a tensor (an operation of its own in TensorFlow Lite).
    Mean,
}

/// Averaging quantized values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Average {
    /// What is averaged.
    pub pool: Pool,
    /// How many elements.
    pub count: usize,
    /// Parameters of the elements.
    pub input: Quantizer,
    /// Parameters of the result.
    pub output: Quantizer,
}

/// How a runtime averages.
#[derive(Clone, Debug)]
pub enum Averaging {
    /// A function of the exact sum of the stored integers.
    OfSum(ScalarFn),
    /// Dequantized elements are added one after the other in float32, in row-major order of the window; then a function of that sum.
    OfFloatSum(ScalarFn),
}

/// What must hold for a profile's integer formulas to be the runtime's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// |accumulator| must stay below this.
    pub accumulator: Option<i64>,
    /// Pairs of u8 x s8 products are added in saturating 16-bit arithmetic: they must not saturate.
    pub saturating_pairs: bool,
}

/// Roundings beyond the products and the bias that a runtime may add by folding neighbouring operations into a sum
/// (alpha, beta, a batch normalization, a constant factor).
const FOLDED: usize = 8;

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

    /// What float values are: float32 where a profile does not say otherwise, as in the next three.
    fn float_grid(&self) -> Grid {
        Grid::Float32
    }

    /// What the runtime may do to a sum of this many products; `None` when the sum is too long to bound.
    ///
    /// In float32 |result - exact| <= gamma32(products + 8) (sum |w||x| + |b|) + (products + 8) 2^-149 (gradual underflow).
    fn dot(&self, products: usize) -> Option<Rounding> {
        let absolute = (products + FOLDED) as f64 * f64::from(f32::from_bits(1));
        Some(Rounding::Slack { relative: gamma32(products + FOLDED)?, absolute: Spread::all(absolute) })
    }

    /// What it does to the result of one float operation.
    fn single(&self) -> Rounding {
        Rounding::Nearest32
    }

    /// scale (q - zero point), as a constant is dequantized; `None` when that is not an `f64`.
    fn dequantize(&self, difference: i64, scale: f32) -> Option<f64> {
        Some(f64::from(difference as f32 * scale))
    }

    /// x -> integer.
    fn quantize(&self, quantizer: &Quantizer) -> ScalarFn;

    /// accumulator -> integer.
    ///
    /// # Errors
    /// Why the profile has no exact formula here.
    fn requantize(&self, requantizer: &Requantizer) -> Result<ScalarFn, Inexact>;

    /// The integer that an end of a fused activation is rounded to: the smallest and largest that a runtime of the profile may choose.
    fn clip_end(&self, end: f32, quantizer: &Quantizer) -> (i64, i64) {
        let whole = Quantizer { range: (i64::MIN, i64::MAX), ..*quantizer };
        let rounded = ort::quantize_value(end, &whole);
        (rounded, rounded)
    }

    /// a + b, or a - b if `subtract`.
    ///
    /// # Errors
    /// Why the profile has no exact formula here.
    fn add(&self, a: &Quantizer, b: &Quantizer, subtract: bool, output: &Quantizer) -> Result<Addition, Inexact> {
        let _ = (a, b, subtract, output);
        Err(Inexact::new("the sum of quantized values has no exact formula"))
    }

    /// The mean of quantized values.
    ///
    /// # Errors
    /// Why the profile has no exact formula here.
    fn average(&self, average: &Average) -> Result<Averaging, Inexact> {
        let _ = average;
        Err(Inexact::new("the mean of quantized values has no exact formula"))
    }

    /// integer -> integer of other parameters.
    ///
    /// # Errors
    /// Why the profile has no exact formula here.
    fn rescale(&self, from: &Quantizer, to: &Quantizer) -> Result<ScalarFn, Inexact> {
        let _ = (from, to);
        Err(Inexact::new("a change of scale has no exact formula"))
    }

    /// Whether its integer kernels add float32 biases ([`Bias::Float`]) instead of having them in the accumulator.
    fn takes_float_biases(&self) -> bool {
        false
    }

    /// Whether functions of an accumulator depend on the integer bias in it.
    fn reads_biases(&self) -> bool {
        false
    }

    /// What this profile means for a model, where it stands for several others.
    ///
    /// # Errors
    /// If it has no meaning for the model.
    fn resolve(&self, model: &Model) -> Result<Option<Resolved>, LowerError> {
        let _ = model;
        Ok(None)
    }

    /// Side conditions of the formulas.
    fn limits(&self) -> Limits;

    /// What a verdict under this profile assumes about the machine, for reports.
    fn assumptions(&self) -> Vec<String> {
        vec![]
    }
}

/// Why a profile has no exact formula for an operation.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Inexact(String);

impl Inexact {
    /// A reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Inexact(reason.into())
    }
}

/// A profile that stands for others, for one model.
pub struct Resolved {
    /// The profile that allows every execution of the members.
    pub profile: Box<dyn Profile>,
    /// The model under each of the others that take it: each computes one of the results that the profile allows.
    pub members: Vec<Lowered>,
    /// Whether nothing but the members' own results is meant, so that a proof for each of them is a proof.
    pub is_conjunction: bool,
}

impl fmt::Debug for dyn Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id())
    }
}

/// The profiles that reports and messages name, with parameters where they have some.
pub const NAMES: [&str; 13] = [
    "real",
    "float32",
    "ort-fused",
    "ort-fused-any-x86",
    "tflite-reference",
    "tflite-xnnpack",
    "tflite-micro",
    "torch-fbgemm",
    "torch-onednn",
    "torch-x86",
    "torch-qnnpack",
    "any-engine",
    "fixed-point(8,4)",
];

/// The text names no profile.
#[derive(Debug, thiserror::Error)]
#[error(
    "unknown profile `{text}`: {problem}; the profiles are {}, and any-engine(P,Q,...) for several of them",
    NAMES.join(", ")
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
        "tflite-reference" => Box::new(TfLite::Reference),
        "tflite-xnnpack" => Box::new(TfLite::Xnnpack),
        "tflite-micro" => Box::new(TfLite::Micro),
        "any-engine" => Box::new(AnyEngine::all()),
        t if t.starts_with("any-engine(") && t.ends_with(')') => {
            let names = t["any-engine(".len()..t.len() - 1].split(',');
            let members = names.map(parse).collect::<Result<Vec<_>, _>>()?;
            Box::new(AnyEngine::of(members))
        }
        t if t.starts_with("fixed-point") => {
            Box::new(t["fixed-point".len()..].parse::<FixedPoint>().map_err(|e| fail(&e))?)
        }
        t => Box::new(Torch::named(t).ok_or_else(|| fail("no such name"))?),
    })
}

/// The profile that fits a model when the user names none: where there is quantized arithmetic the default runtime of the file's
/// format, `ort-fused` or `tflite-xnnpack`, else `float32`.
pub fn default_for(model: &Model) -> Box<dyn Profile> {
    match (model.nodes.iter().any(|n| n.op.is_quantized()), model.source.format) {
        (true, "tflite") => Box::new(TfLite::Xnnpack),
        (true, _) => Box::new(OrtFused { any_x86: false }),
        (false, _) => Box::new(Float32),
    }
}

/// A factor made of scales must be a normal float32: otherwise the formulas are not monotone, or lose all meaning.
pub(crate) fn normal_factor(factor: f32) -> Result<f32, Inexact> {
    if factor.is_normal() && factor > 0.0 {
        return Ok(factor);
    }
    Err(Inexact::new(format!("the scales combine to {factor}, and must to a normal float32")))
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
        for name in ["real", "float32", "ort-fused", "ort-fused-any-x86", "torch-x86", "fixed-point(8,4)"] {
            assert_eq!(parse(name).unwrap().id(), name);
        }
        for name in ["", "tflite", "fixed-point", "fixed-point(8)", "fixed-point(99,4)", "fixed-point(8,4,weights=x)"] {
            assert!(parse(name).is_err(), "{name}");
        }
    }
}
