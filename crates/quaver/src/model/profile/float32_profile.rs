//! `float32`: every operation as written in the file, in float32, sums in any order.

use super::{Addition, Average, Averaging, Inexact, Limits, Profile, Quantizer, Requantizer, ort};
use crate::net::ScalarFn;

/// float32 arithmetic with a proved bound on every sum.
#[derive(Clone, Copy, Debug)]
pub struct Float32;

impl Profile for Float32 {
    fn id(&self) -> String {
        "float32".into()
    }

    fn describe(&self) -> &'static str {
        "float32 as written, sums in any order, with or without fused multiply-add"
    }

    fn quantize(&self, q: &Quantizer) -> ScalarFn {
        ScalarFn::Step(ort::quantize(q))
    }

    fn requantize(&self, r: &Requantizer) -> Result<ScalarFn, Inexact> {
        ort::requantize(r)
    }

    fn add(&self, a: &Quantizer, b: &Quantizer, subtract: bool, output: &Quantizer) -> Result<Addition, Inexact> {
        ort::add(a, b, subtract, output)
    }

    fn average(&self, average: &Average) -> Result<Averaging, Inexact> {
        ort::average(average)
    }

    fn rescale(&self, from: &Quantizer, to: &Quantizer) -> Result<ScalarFn, Inexact> {
        ort::rescale(from, to, |v| v)
    }

    fn limits(&self) -> Limits {
        ort::LIMITS
    }
}
