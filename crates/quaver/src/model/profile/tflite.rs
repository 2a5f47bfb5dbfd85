//! TensorFlow Lite: three runtimes that compute three functions from one int8 file (see `docs/profiles.md`).
//!
//! Notation. R(x): x rounded once to float32, to nearest, ties to even; D(x): to float64. rne: to the nearest integer, ties to even;
//! raz: ties away from zero.

use super::{
    Addition, Average, Averaging, Bias, Inexact, Kernel, Limits, Pool, Profile, Quantizer, Requantizer, Rescale,
    accumulator_step, float32_step, normal_factor,
};
use crate::model::ir::{DType, Model, Node, Op};
use crate::model::lower::LowerError;
use crate::net::{Rounding, ScalarFn};

/// A TensorFlow Lite runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TfLite {
    /// The reference kernels of LiteRT.
    Reference,
    /// LiteRT's default: XNNPACK kernels, and the built-in ones for what XNNPACK does not take.
    Xnnpack,
    /// The reference kernels of TensorFlow Lite for Microcontrollers.
    Micro,
}

impl Profile for TfLite {
    fn id(&self) -> String {
        match self {
            TfLite::Reference => "tflite-reference",
            TfLite::Xnnpack => "tflite-xnnpack",
            TfLite::Micro => "tflite-micro",
        }
        .into()
    }

    fn describe(&self) -> &'static str {
        match self {
            TfLite::Reference => "TensorFlow Lite (LiteRT), reference kernels",
            TfLite::Xnnpack => "TensorFlow Lite (LiteRT), default kernels (XNNPACK)",
            TfLite::Micro => "TensorFlow Lite for Microcontrollers, reference kernels",
        }
    }

    fn rewrite(&self, model: &Model) -> Result<Model, LowerError> {
        let fused = super::qdq::fuse(model, super::qdq::Biases::AsStored)?;
        match fused.nodes.iter().find_map(|n| has_no_kernel(&fused, n).map(|why| (n, why))) {
            None => Ok(fused),
            Some((node, why)) => {
                Err(LowerError::new(&fused, node, why, "use the profile of the runtime that runs the file"))
            }
        }
    }

    /// Reference, Micro: clip(raz(R(x / s)) + z). XNNPACK: clip(rne(R(x R(1 / s))) + z).
    fn quantize(&self, q: &Quantizer) -> ScalarFn {
        let inverse = 1.0 / q.scale;
        let f = |x: f32| {
            let rounded = match self {
                TfLite::Reference | TfLite::Micro => (x / q.scale).round(),
                TfLite::Xnnpack => (x * inverse).round_ties_even(),
            };
            // f32 -> i64 saturates, which the clip makes harmless.
            (rounded as i64).saturating_add(q.zero_point).clamp(q.range.0, q.range.1)
        };
        let guess = |k: i64| (k as f64 - q.zero_point as f64 - 0.5) * f64::from(q.scale);
        ScalarFn::Step(float32_step(q.range, f, guess))
    }

    fn requantize(&self, r: &Requantizer) -> Result<ScalarFn, Inexact> {
        if let Bias::Float(_) = r.bias {
            return Err(Inexact::new("TensorFlow Lite's integer kernels take int32 biases"));
        }
        let (si, sw, so) = (r.input_scale, r.weight_scale, r.output.scale);
        // The product of two float32 is exact in f64.
        let k64 = f64::from(si) * f64::from(sw) / f64::from(so);
        normal_factor(k64 as f32)?;
        match (self, r.kernel) {
            (TfLite::Xnnpack, _) if si * sw / so >= 256.0 => {
                Err(Inexact::new("XNNPACK takes no factor of 256 and more"))
            }
            (TfLite::Xnnpack, _) => single32(normal_factor(si * sw / so)?, r),
            (TfLite::Reference, Kernel::Dense) => Ok(step(0, &r.output, |a| (a as f64 * k64).round() as i64, k64)),
            (TfLite::Reference | TfLite::Micro, _) => double(k64, r),
        }
    }

    /// Reference, Micro: z + raz(R(f / s)). XNNPACK: rne(R(R(f / s) + z)).
    fn clip_end(&self, end: f32, q: &Quantizer) -> (i64, i64) {
        let rounded = match self {
            TfLite::Reference | TfLite::Micro => ((end / q.scale).round() as i64).saturating_add(q.zero_point),
            TfLite::Xnnpack => (end / q.scale + q.zero_point as f32).round_ties_even() as i64,
        };
        (rounded, rounded)
    }

    fn add(&self, a: &Quantizer, b: &Quantizer, subtract: bool, output: &Quantizer) -> Result<Addition, Inexact> {
        match self {
            TfLite::Xnnpack if delegated(a, output) && delegated(b, output) => Ok(add_xnnpack(a, b, subtract, output)),
            _ => add_fixed_point(a, b, subtract, output),
        }
    }

    /// AVERAGE_POOL_2D: the mean of the stored integers, ties away from zero: raz(S / n). No scale is used.
    fn average(&self, average: &Average) -> Result<Averaging, Inexact> {
        let (n, x, out) = (average.count as i64, average.input, average.output);
        match (average.pool, self) {
            (Pool::Mean, TfLite::Xnnpack) => return mean_float(average),
            (Pool::Mean, _) => return mean_fixed_point(average),
            _ => {}
        }
        if x.scale != out.scale || x.zero_point != out.zero_point {
            return Err(Inexact::new("an average whose result has another scale than its argument"));
        }
        let f = |s: i64| (round_away(s, n)).clamp(out.range.0, out.range.1);
        Ok(Averaging::OfSum(ScalarFn::Step(accumulator_step(out.range, f, |k| (k as f64 - 0.5) * n as f64))))
    }

    /// Reference, Micro: fixed point, rounded twice, with D(s / s'). XNNPACK: floor(((q - z) rne(256 R(s / s')) + 128) / 256).
    fn rescale(&self, from: &Quantizer, to: &Quantizer) -> Result<ScalarFn, Inexact> {
        let ratio = normal_factor(from.scale / to.scale)?;
        if *self == TfLite::Xnnpack {
            if !(2f32.powi(-8)..=2f32.powi(7)).contains(&ratio) {
                return Err(Inexact::new(format!("XNNPACK does not take a change of scale by {ratio}")));
            }
            let m = (256.0 * f64::from(ratio)).round_ties_even() as i64;
            return Ok(step(from.zero_point, to, |d| (d * m + 128) >> 8, f64::from(ratio)));
        }
        let k = f64::from(from.scale) / f64::from(to.scale);
        let multiplier = Multiplier::new(k);
        if !multiplier.fits((-255, 255)) {
            return Err(Inexact::new("the fixed-point multiplication may leave 32 bits"));
        }
        Ok(step(from.zero_point, to, |d| multiplier.apply(d), k))
    }

    fn limits(&self) -> Limits {
        Limits { accumulator: Some(1 << 31), saturating_pairs: false }
    }

    fn assumptions(&self) -> Vec<String> {
        vec![match self {
            TfLite::Reference => "LiteRT 2.3 reference kernels on x86-64".into(),
            TfLite::Xnnpack => "LiteRT 2.3 default kernels (XNNPACK) on x86-64".into(),
            TfLite::Micro => {
                "TensorFlow Lite Micro reference kernels, without vendor kernels (CMSIS-NN and others)".into()
            }
        }]
    }
}

/// Why TensorFlow Lite has no int8 kernel for a node, which only files of other formats have.
fn has_no_kernel(model: &Model, node: &Node) -> Option<&'static str> {
    let input = |k: usize| node.inputs.get(k).copied().flatten();
    let unsigned = input(0).is_some_and(|x| model.value(x).dtype == DType::U8);
    match node.op {
        Op::QGemm { .. } if input(7).is_none() => Some("TensorFlow Lite has no integer product with a float result"),
        Op::QLinearLeakyRelu { .. } | Op::MatMulInteger | Op::ConvInteger { .. } => {
            Some("TensorFlow Lite has no kernel like this that was measured")
        }
        Op::QLinearConcat { .. } if !super::qdq::concatenates_alike(model, node) => {
            Some("TensorFlow Lite concatenates values of equal scales and zero points only")
        }
        Op::QLinearAveragePool { .. } | Op::QLinearGlobalAveragePool { .. } | Op::QLinearMean { .. } if unsigned => {
            Some("TensorFlow Lite averages int8, and rounds away from the stored zero: uint8 would round otherwise")
        }
        _ => None,
    }
}

/// The step clip(f(a - offset) + z) of an accumulator, with f(d) near k d.
fn step(offset: i64, out: &Quantizer, f: impl Fn(i64) -> i64, k: f64) -> ScalarFn {
    let whole = |a: i64| f(a - offset).saturating_add(out.zero_point).clamp(out.range.0, out.range.1);
    let guess = |v: i64| (v as f64 - 0.5 - out.zero_point as f64) / k + offset as f64;
    ScalarFn::Step(accumulator_step(out.range, whole, guess))
}

/// A fixed-point multiplier M 2^(e - 31), M < 2^31, for a positive k: k = f 2^e with 1/2 <= f < 1, M = raz(f 2^31).
#[derive(Clone, Copy, Debug)]
pub(super) struct Multiplier {
    m: i64,
    e: i32,
}

impl Multiplier {
    /// The multiplier next to k, a normal positive number.
    pub fn new(k: f64) -> Self {
        let e = ((k.to_bits() >> 52) & 0x7ff) as i32 - 1022;
        let f = k / 2f64.powi(e);
        let m = (f * 2f64.powi(31)).round() as i64;
        match (m == 1 << 31, e < -31) {
            (_, true) => Multiplier { m: 0, e: 0 },
            (true, _) => Multiplier { m: 1 << 30, e: e + 1 },
            _ => Multiplier { m, e },
        }
    }

    /// x M 2^(e - 31), rounded twice: floor((x 2^max(e, 0) M + 2^30) / 2^31), then divided by 2^-e with ties away from zero.
    pub fn apply(self, x: i64) -> i64 {
        // Wide enough for every int32 x, and for what a bisection tries beyond.
        let wide = i128::from(x) << self.e.max(0);
        let high = ((wide * i128::from(self.m) + (1 << 30)) >> 31).clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        if self.e >= 0 { high } else { round_away(high, 1 << -self.e) }
    }

    /// Whether x 2^max(e, 0) stays an int32 for every x of a range.
    fn fits(self, (lo, hi): (i64, i64)) -> bool {
        let largest = i128::from(lo.unsigned_abs().max(hi.unsigned_abs()));
        self.e < 31 && largest << self.e.max(0) < 1 << 31
    }
}

/// x / n to the nearest integer, ties away from zero.
fn round_away(x: i64, n: i64) -> i64 {
    let half = n / 2;
    if x >= 0 { (x + half) / n } else { -((-x + half) / n) }
}

/// Fixed point, rounded twice.
fn double(k: f64, r: &Requantizer) -> Result<ScalarFn, Inexact> {
    let multiplier = Multiplier::new(k);
    if !multiplier.fits(r.accumulator) {
        return Err(Inexact::new("the fixed-point multiplication may leave 32 bits"));
    }
    Ok(step(0, &r.output, |a| multiplier.apply(a), k))
}

/// rne(R(R(a) k)). The runtime takes the minimum with the upper end before it rounds, which changes nothing.
fn single32(k: f32, r: &Requantizer) -> Result<ScalarFn, Inexact> {
    let largest = r.accumulator.0.unsigned_abs().max(r.accumulator.1.unsigned_abs()) as f64;
    if largest * f64::from(k) * (1.0 + 1e-6) >= 2_147_483_648.0 {
        return Err(Inexact::new("the scaled accumulator may leave 32 bits"));
    }
    Ok(step(0, &r.output, |a| (a as f32 * k).round_ties_even() as i64, f64::from(k)))
}

/// m = 2 max(sa, sb); each operand becomes (q - z) 2^20 times the multiplier of D(s / m), the sum is multiplied by that of
/// D(m / (2^20 so)).
fn add_fixed_point(a: &Quantizer, b: &Quantizer, subtract: bool, out: &Quantizer) -> Result<Addition, Inexact> {
    const SHIFT: i64 = 20;
    let (sa, sb, so) = (f64::from(a.scale), f64::from(b.scale), f64::from(out.scale));
    let m = 2.0 * sa.max(sb);
    let last = Multiplier::new(m / ((1 << SHIFT) as f64 * so));
    let operand = |o: &Quantizer, s: f64, sign: f64| {
        let multiplier = Multiplier::new(s / m);
        Rescale::table(o.range, sign, |q| multiplier.apply((q - o.zero_point) << SHIFT))
    };
    let operands = [operand(a, sa, 1.0), operand(b, sb, if subtract { -1.0 } else { 1.0 })];
    // The runtime ends the process for a last factor of 1 and more.
    if last.e > 0 {
        return Err(Inexact::new("the scale of the sum is more than 2^19 times smaller than those of its operands"));
    }
    let k = m / ((1 << SHIFT) as f64 * so);
    Ok(Addition { operands, bias: 0.0, rounding: Rounding::Exact, finish: step(0, out, |u| last.apply(u), k) })
}

/// M of D(s / s') is divided by n: with t = min(floor(log2 n), 32, 31 + e), floor(M 2^t / n) 2^(e - t - 31) multiplies S - n z.
fn mean_fixed_point(average: &Average) -> Result<Averaging, Inexact> {
    let (n, x, out) = (average.count as i64, average.input, average.output);
    let k = f64::from(x.scale) / f64::from(out.scale);
    let whole = Multiplier::new(k);
    let t = (63 - n.leading_zeros() as i32).min(32).min(31 + whole.e);
    let part = Multiplier { m: ((i128::from(whole.m) << t) / i128::from(n)) as i64, e: whole.e - t };
    if !part.fits((-256 * n, 256 * n)) {
        return Err(Inexact::new("the fixed-point mean may leave 32 bits"));
    }
    Ok(Averaging::OfSum(step(n * x.zero_point, &out, |d| part.apply(d), k / n as f64)))
}

/// m = R(R(s / s') R(1 / n)); rne(R(R(S m) + R(z' - R(z n m)))): the zero point is added before rounding.
fn mean_float(average: &Average) -> Result<Averaging, Inexact> {
    let (n, x, out) = (average.count as i64, average.input, average.output);
    if n >= 1 << 16 {
        return Err(Inexact::new("a mean of more than 2^16 elements was not measured"));
    }
    let m = normal_factor(x.scale / out.scale * (1.0 / n as f32))?;
    let bias = out.zero_point as f32 - (x.zero_point * n) as f32 * m;
    let f = |s: i64| ((s as f32 * m + bias).round_ties_even() as i64).clamp(out.range.0, out.range.1);
    let guess = |k: i64| (k as f64 - 0.5 - f64::from(bias)) / f64::from(m);
    Ok(Averaging::OfSum(ScalarFn::Step(accumulator_step(out.range, f, guess))))
}

/// Whether XNNPACK takes an operand of a sum: its scale ratio is in [2^-10, 2^8).
fn delegated(o: &Quantizer, out: &Quantizer) -> bool {
    (2f32.powi(-10)..2f32.powi(8)).contains(&(o.scale / out.scale))
}

/// r = R(s / so); n = 20 - floor(log2(max r)); m = rne(r 2^n); floor((ma (qa - za) + mb (qb - zb) + 2^(n - 1)) / 2^n).
fn add_xnnpack(a: &Quantizer, b: &Quantizer, subtract: bool, out: &Quantizer) -> Addition {
    let (ra, rb) = (a.scale / out.scale, b.scale / out.scale);
    let n = 20 - (((ra.max(rb).to_bits() >> 23) & 0xff) as i32 - 127);
    let scaled = |r: f32| (f64::from(r) * 2f64.powi(n)).round_ties_even();
    let operand = |o: &Quantizer, scale: f64| Rescale::Affine {
        scale,
        bias: -scale * o.zero_point as f64,
        rounding: Rounding::Exact,
    };
    let operands = [operand(a, scaled(ra)), operand(b, if subtract { -scaled(rb) } else { scaled(rb) })];
    let f = |sum: i64| (sum + (1 << (n - 1))) >> n;
    Addition { operands, bias: 0.0, rounding: Rounding::Exact, finish: step(0, out, f, 2f64.powi(-n)) }
}
