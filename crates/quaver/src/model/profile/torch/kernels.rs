//! The formulas of PyTorch's quantized CPU kernels, bit for bit (see `docs/profiles.md` for what was measured).

use super::Engine;
use crate::model::profile::{
    Addition, Average, Averaging, Bias, Inexact, Kernel, Pool, Quantizer, Requantizer, Rescale, accumulator_step,
    float32_step, normal_factor,
};
use crate::net::{Rounding, ScalarFn};

/// quantize_per_tensor: clip(rne(R(x R(1/s))) + z). The runtime wraps from 2^31 - 128 steps on if z > 127; this saturates.
pub(super) fn quantize(x: f32, q: &Quantizer) -> i64 {
    // f32 -> i64 saturates, which the clip makes harmless.
    ((x * (1.0 / q.scale)).round_ties_even() as i64).saturating_add(q.zero_point).clamp(q.range.0, q.range.1)
}

/// Linear and Conv: the engine's formula, accumulator -> integer.
pub(super) fn requantize(r: &Requantizer, engine: Engine) -> Result<ScalarFn, Inexact> {
    let bias = match r.bias {
        Bias::Float(b) => b,
        Bias::Integer(0) => 0.0,
        Bias::Integer(_) => return Err(Inexact::new("PyTorch's kernels take float biases")),
    };
    let ats = normal_factor(r.input_scale * r.weight_scale)?;
    let m = normal_factor(ats / r.output.scale)?;
    let reach = f64::from(bias / ats).abs() + r.accumulator.0.abs().max(r.accumulator.1.abs()) as f64;
    if reach >= 16_777_216.0 {
        let problem = format!("the accumulator with its bias may reach {reach:.0}, and the formula holds below 2^24");
        return Err(Inexact::new(problem));
    }
    // Conversions to int32 wrap beyond 2^31.
    if reach * f64::from(m) >= 1_073_741_824.0 {
        return Err(Inexact::new(format!("the result may reach {:.3e} steps, beyond int32", reach * f64::from(m))));
    }
    let (zero, (lo, hi)) = (r.output.zero_point, r.output.range);
    let (m64, b64) = (f64::from(m), f64::from(bias) / f64::from(ats));
    let guess = |k: i64| (k as f64 - zero as f64 - 0.5) / m64 - b64;
    let real = real_result(r, bias, ats, engine)?;
    let after = |a: i64| ((real(a).round_ties_even() as i64) + zero).clamp(lo, hi);
    let before = |a: i64| ((real(a) + zero as f32).round_ties_even() as i64).clamp(lo, hi);
    Ok(ScalarFn::Step(match engine {
        Engine::Onednn => accumulator_step(r.output.range, before, guess),
        _ => accumulator_step(r.output.range, after, guess),
    }))
}

/// accumulator -> result in steps of the output, before rounding and zero point.
///
/// - fbgemm, per channel: R(R(R(acc) + R(b/ats)) R(ats/sy)); per tensor: R(fma(b, R(1/ats), R(acc)) R(ats/sy)).
/// - onednn: y = R(R(R(acc s(sx)) sw) + b), with s(s) = R(1/R(1/s)); convolution: R(y R(1/sy)); linear: s(sw) for sw, and
///   R(y R(1/sy)) where zx = 0, R(y / s(sy)) elsewhere.
/// - qnnpack: bi = rne(R(b R(1/ats))); R(R(acc + bi) R(ats R(1/sy))).
fn real_result(r: &Requantizer, b: f32, ats: f32, engine: Engine) -> Result<Box<dyn Fn(i64) -> f32>, Inexact> {
    let (sw, sy) = (r.weight_scale, r.output.scale);
    let twice = |s: f32| 1.0 / (1.0 / s);
    let sx = twice(r.input_scale);
    Ok(match (engine, r.kernel) {
        (_, Kernel::Elementwise) => return Err(Inexact::new("PyTorch's products of elements were not measured")),
        (Engine::X86, _) => return real_result(r, b, ats, Engine::X86.of(r.kernel)),
        (Engine::Fbgemm, _) if r.per_channel => {
            let (bias, m) = (b / ats, ats / sy);
            Box::new(move |a| (a as f32 + bias) * m)
        }
        (Engine::Fbgemm, _) => {
            let (inverse, m) = (1.0 / ats, ats / sy);
            Box::new(move |a| b.mul_add(inverse, a as f32) * m)
        }
        (Engine::Onednn, Kernel::Convolution) => {
            let inverse = 1.0 / sy;
            Box::new(move |a| (a as f32 * sx * sw + b) * inverse)
        }
        (Engine::Onednn, Kernel::Dense) if r.input_zero_point == 0 => {
            let (sw, inverse) = (twice(sw), 1.0 / sy);
            Box::new(move |a| (a as f32 * sx * sw + b) * inverse)
        }
        (Engine::Onednn, Kernel::Dense) => {
            let (sw, sy) = (twice(sw), twice(sy));
            Box::new(move |a| (a as f32 * sx * sw + b) / sy)
        }
        (Engine::Qnnpack, _) => {
            let (bias, m) = ((b * (1.0 / ats)).round_ties_even() as i64, normal_factor(ats * (1.0 / sy))?);
            Box::new(move |a| (a + bias) as f32 * m)
        }
    })
}

/// fma(q, s, -R(s z)): an operand as the vector code dequantizes it.
fn vector_operand(o: &Quantizer) -> (f32, f32) {
    (o.scale, -(o.scale * o.zero_point as f32))
}

/// quantized::add: clip(rne(R(R(f(a) + f(b)) R(1/sc))) + zc) with f(q) = fma(q, s, -R(s z)).
pub(super) fn add(a: &Quantizer, b: &Quantizer, out: &Quantizer) -> Result<Addition, Inexact> {
    normal_factor(1.0 / out.scale)?;
    let of = |o: &Quantizer| {
        let (scale, bias) = vector_operand(o);
        Rescale::Affine { scale: f64::from(scale), bias: f64::from(bias), rounding: Rounding::Nearest32 }
    };
    let guess = |k: i64| (k as f64 - out.zero_point as f64 - 0.5) * f64::from(out.scale);
    Ok(Addition {
        operands: [of(a), of(b)],
        bias: 0.0,
        rounding: Rounding::Nearest32,
        finish: ScalarFn::Step(float32_step(out.range, |x| quantize(x, out), guess)),
    })
}

/// Whether the last elements of a tensor, which no vector holds, are added alike: there f(q) is R((q - z) s).
pub(super) fn adds_everywhere_alike(a: &Quantizer, b: &Quantizer, out: &Quantizer) -> bool {
    let both = |o: &Quantizer| {
        let (scale, bias) = vector_operand(o);
        let of = |q: i64| ((q as f32).mul_add(scale, bias), (q - o.zero_point) as f32 * scale);
        (o.range.0..=o.range.1).map(of).collect::<Vec<_>>()
    };
    let (a, b) = (both(a), both(b));
    a.iter().all(|x| b.iter().all(|y| quantize(x.0 + y.0, out) == quantize(x.1 + y.1, out)))
}

/// avg_pool2d and adaptive_avg_pool2d: S = exact sum of (x - z) over n elements. With channels last clip(rne(R(S/n)) + z), else
/// clip(rne(R(R(S/n) + z))): exact where both are the same for every S, which fails at ties (n even) of an odd z.
pub(super) fn average(average: &Average) -> Result<Averaging, Inexact> {
    let (n, x, out) = (average.count as i64, average.input, average.output);
    if average.pool == Pool::Mean {
        return Err(Inexact::new("PyTorch's mean of quantized values was not measured"));
    }
    if (x.scale, x.zero_point, x.range) != (out.scale, out.zero_point, out.range) {
        return Err(Inexact::new("PyTorch's pooling keeps scale and zero point, and these differ"));
    }
    if n > 1 << 12 {
        return Err(Inexact::new(format!("a mean of {n} elements was not measured")));
    }
    let (z, (lo, hi)) = (x.zero_point, x.range);
    let last = |s: i64| (((s as f32) / n as f32).round_ties_even() as i64).saturating_add(z).clamp(lo, hi);
    let variants = |s: i64| {
        let (divided, scaled) = (s as f32 / n as f32, s as f32 * (1.0 / n as f32));
        let before = |v: f32| ((v + z as f32).round_ties_even() as i64).clamp(lo, hi);
        let after = |v: f32| (v.round_ties_even() as i64).saturating_add(z).clamp(lo, hi);
        [after(scaled), before(divided), before(scaled)]
    };
    if !(n * (lo - z)..=n * (hi - z)).all(|s| variants(s) == [last(s); 3]) {
        let problem = format!("PyTorch rounds means of {n} elements with zero point {z} as the memory format decides");
        return Err(Inexact::new(problem));
    }
    let guess = |k: i64| (k as f64 - 0.5) * n as f64;
    Ok(Averaging::OfSum(ScalarFn::Step(accumulator_step((lo, hi), |s| last(s - n * z), guess))))
}

/// A part of quantized::cat: clip(rne(R(v R(1/so))) + zo), where v is R((q - z) s) or, with channels last, fma(q, s, -R(s z)):
/// exact where both give the same for every q.
pub(super) fn rescale(from: &Quantizer, to: &Quantizer) -> Result<ScalarFn, Inexact> {
    let (scale, bias) = vector_operand(from);
    let plain = |q: i64| quantize((q - from.zero_point) as f32 * from.scale, to);
    let vector = |q: i64| quantize((q as f32).mul_add(scale, bias), to);
    if !(from.range.0..=from.range.1).all(|q| plain(q) == vector(q)) {
        return Err(Inexact::new("PyTorch rescales these parts of a concatenation as the memory format decides"));
    }
    let guess = |k| (k - to.zero_point) as f64 * f64::from(to.scale / from.scale) + from.zero_point as f64;
    Ok(ScalarFn::Step(accumulator_step(to.range, plain, guess)))
}
