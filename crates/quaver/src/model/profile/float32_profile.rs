//! `float32`: every operation as written in the file, in float32, sums in any order.

use super::{Addition, Average, Averaging, Inexact, Limits, Operand, Profile, Quantizer, Requantizer, ort};
use crate::net::{Grid, Rounding, ScalarFn, Spread};
use crate::num::round::gamma32;

/// float32 arithmetic with a proved bound on every sum.
#[derive(Clone, Copy, Debug)]
pub struct Float32;

/// Roundings beyond the products and the bias that a runtime may add by folding neighbouring operations into a sum
/// (alpha, beta, a batch normalization, a constant factor).
const FOLDED: usize = 8;

impl Profile for Float32 {
    fn id(&self) -> String {
        "float32".into()
    }

    fn describe(&self) -> &'static str {
        "float32 as written, sums in any order, with or without fused multiply-add"
    }

    fn float_grid(&self) -> Grid {
        Grid::Float32
    }

    /// |result - exact| <= gamma32(products + 8) (sum |w||x| + |b|) + (products + 8) 2^-149 (gradual underflow).
    fn dot(&self, products: usize) -> Option<Rounding> {
        let absolute = (products + FOLDED) as f64 * f64::from(f32::from_bits(1));
        Some(Rounding::Slack { relative: gamma32(products + FOLDED)?, absolute: Spread::all(absolute) })
    }

    fn single(&self) -> Rounding {
        Rounding::Nearest32
    }

    fn dequantize(&self, difference: i64, scale: f32) -> Option<f64> {
        Some(f64::from(difference as f32 * scale))
    }

    fn quantize(&self, q: &Quantizer) -> ScalarFn {
        ScalarFn::Step(ort::quantize(q))
    }

    fn requantize(&self, r: &Requantizer) -> Result<ScalarFn, Inexact> {
        ort::requantize(r)
    }

    fn add(&self, a: &Operand, b: &Operand, subtract: bool, output: &Quantizer) -> Result<Addition, Inexact> {
        ort::add(a, b, subtract, output)
    }

    fn average(&self, average: &Average) -> Result<Averaging, Inexact> {
        ort::average(average)
    }

    fn rescale(&self, from: &Operand, to: &Quantizer) -> Result<ScalarFn, Inexact> {
        ort::rescale(from, to, |v| v)
    }

    fn limits(&self) -> Limits {
        ort::LIMITS
    }
}
