//! The formulas of ONNX Runtime's CPU kernels, bit for bit (see `docs/profiles.md` for what was measured).

use super::{Limits, Quantizer, Requantizer, accumulator_step, float32_step};
use crate::net::Step;

/// Accumulators are int32 and must not wrap. Beyond 2^24 the conversion R(acc) rounds, which the formulas below contain.
pub const LIMITS: Limits = Limits { accumulator: Some(1 << 31), saturating_pairs: false };

/// QuantizeLinear: clip(rne(R(x / s)) + z).
pub fn quantize(q: &Quantizer) -> Step {
    float32_step(q.range, |x| quantize_value(x, q), |k| (k as f64 - q.zero_point as f64 - 0.5) * q.scale as f64)
}

/// One value of QuantizeLinear.
pub fn quantize_value(x: f32, q: &Quantizer) -> i64 {
    // f32 -> i64 saturates, which the clip makes harmless.
    ((x / q.scale).round_ties_even() as i64).saturating_add(q.zero_point).clamp(q.range.0, q.range.1)
}

/// The float32 factor R(R(sx sw) / sy).
pub fn multiplier(r: &Requantizer) -> f32 {
    r.input_scale * r.weight_scale / r.output.scale
}

/// QLinearMatMul, QLinearConv, QGemm: clip(rne(R(R(acc + bias) R(R(sx sw) / sy))) + zy).
pub fn requantize(r: &Requantizer) -> Step {
    let (m, q) = (multiplier(r), r.output);
    let f = |a: i64| ((a as f32 * m).round_ties_even() as i64 + q.zero_point).clamp(q.range.0, q.range.1);
    accumulator_step(q.range, f, |k| (k as f64 - q.zero_point as f64 - 0.5) / f64::from(m))
}
