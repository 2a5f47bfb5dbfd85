//! The formulas of ONNX Runtime's CPU kernels, bit for bit (see `docs/profiles.md` for what was measured).

use super::{
    Addition, Average, Averaging, Bias, Inexact, Limits, Pool, Quantizer, Requantizer, Rescale, accumulator_step,
    float32_step, normal_factor,
};
use crate::net::{Rounding, ScalarFn, Step};

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

/// QLinearMatMul, QLinearConv, QGemm: clip(rne(R(R(acc + bias) R(R(sx sw) / sy))) + zy).
pub fn requantize(r: &Requantizer) -> Result<ScalarFn, Inexact> {
    if let Bias::Float(_) = r.bias {
        return Err(Inexact::new("ONNX Runtime's integer kernels take int32 biases"));
    }
    let (m, q) = (normal_factor(r.input_scale * r.weight_scale / r.output.scale)?, r.output);
    // f32 -> i64 saturates, which the clip makes harmless.
    let rounded = |a: i64| ((a as f32 * m).round_ties_even() as i64).saturating_add(q.zero_point);
    let f = |a: i64| rounded(a).clamp(q.range.0, q.range.1);
    Ok(ScalarFn::Step(accumulator_step(q.range, f, |k| (k as f64 - q.zero_point as f64 - 0.5) / f64::from(m))))
}

/// QLinearAdd: p = R(sa/sc), q = R(sb/sc), c = R(zc - fma(p, za, R(q zb))); clip(rne(fma(p, a, fma(q, b, c)))).
pub fn add(a: &Quantizer, b: &Quantizer, subtract: bool, out: &Quantizer) -> Result<Addition, Inexact> {
    if subtract {
        return Err(Inexact::new("ONNX Runtime has no kernel for the difference of quantized values"));
    }
    let (p, q) = (normal_factor(a.scale / out.scale)?, normal_factor(b.scale / out.scale)?);
    let inner = p.mul_add(a.zero_point as f32, q * b.zero_point as f32);
    let c = out.zero_point as f32 - inner;
    let f = |v: f32| (v.round_ties_even() as i64).clamp(out.range.0, out.range.1);
    Ok(Addition {
        operands: [
            Rescale::Affine { scale: f64::from(p), bias: 0.0, rounding: Rounding::Exact },
            Rescale::Affine { scale: f64::from(q), bias: f64::from(c), rounding: Rounding::Nearest32 },
        ],
        bias: 0.0,
        rounding: Rounding::Nearest32,
        finish: ScalarFn::Step(float32_step(out.range, f, |k| k as f64 - 0.5)),
    })
}

/// QLinearAveragePool: taps R((x - zx) sx) summed in float32 in row-major window order, then clip(rne(R(R(R(f / n) / sy) + zy))).
/// QLinearGlobalAveragePool: S = exact sum of (x - zx); m = R(sx / R(sy n)); clip(rne(R(S m)) + zy).
pub fn average(average: &Average) -> Result<Averaging, Inexact> {
    let (n, x, out) = (average.count, average.input, average.output);
    match average.pool {
        Pool::Window => {
            let f = |f: f32| {
                let v = f / n as f32 / out.scale + out.zero_point as f32;
                (v.round_ties_even() as i64).clamp(out.range.0, out.range.1)
            };
            let guess = |k: i64| (k as f64 - 0.5 - out.zero_point as f64) * f64::from(out.scale) * n as f64;
            Ok(Averaging::OfFloatSum(ScalarFn::Step(float32_step(out.range, f, guess))))
        }
        Pool::Global => {
            let m = normal_factor(x.scale / (out.scale * n as f32))?;
            let zeros = n as i64 * x.zero_point;
            let f = |s: i64| {
                (((s - zeros) as f32 * m).round_ties_even() as i64)
                    .saturating_add(out.zero_point)
                    .clamp(out.range.0, out.range.1)
            };
            let guess = |k: i64| (k as f64 - 0.5 - out.zero_point as f64) / f64::from(m) + zeros as f64;
            Ok(Averaging::OfSum(ScalarFn::Step(accumulator_step(out.range, f, guess))))
        }
        Pool::Mean => Err(Inexact::new("ONNX Runtime's mean of quantized values was not measured")),
    }
}

/// q -> quantize(g(R((q - z) s))) for a non-decreasing float32 function g.
pub fn rescale(from: &Quantizer, to: &Quantizer, g: impl Fn(f32) -> f32) -> Result<ScalarFn, Inexact> {
    let (s, z) = (from.scale, from.zero_point);
    let f = |q: i64| quantize_value(g((q - z) as f32 * s), to);
    let guess = |k| (k - to.zero_point) as f64 * f64::from(to.scale / s) + z as f64;
    Ok(ScalarFn::Step(accumulator_step(to.range, f, guess)))
}
