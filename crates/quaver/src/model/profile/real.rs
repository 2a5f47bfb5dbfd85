//! `real`: exact real arithmetic on the stored numbers, rounding to integers to nearest, ties to even.

use super::{Addition, Average, Averaging, Bias, Inexact, Limits, Profile, Quantizer, Requantizer, Rescale};
use crate::net::{Cut, Grid, Rounding, ScalarFn, Step};
use crate::num::{Dyadic, Ratio};

/// Exact real arithmetic.
#[derive(Clone, Copy, Debug)]
pub struct Real;

impl Profile for Real {
    fn id(&self) -> String {
        "real".into()
    }

    fn describe(&self) -> &'static str {
        "exact real arithmetic on the stored numbers"
    }

    fn float_grid(&self) -> Grid {
        Grid::Real
    }

    fn dot(&self, _products: usize) -> Option<Rounding> {
        Some(Rounding::Exact)
    }

    fn single(&self) -> Rounding {
        Rounding::Exact
    }

    fn dequantize(&self, difference: i64, scale: f32) -> Option<f64> {
        let exact = &Dyadic::from_int(difference) * &Dyadic::from_f64(scale as f64)?;
        let value = exact.to_f64();
        (Dyadic::from_f64(value)? == exact).then_some(value)
    }

    fn quantize(&self, q: &Quantizer) -> ScalarFn {
        ScalarFn::Step(half_integer_step(q, |j, _| j % 2 != 0))
    }

    fn requantize(&self, r: &Requantizer) -> Result<ScalarFn, Inexact> {
        Ok(ScalarFn::Step(nearest_requantize(r, |j| j % 2 == 0)?))
    }

    /// The nearest integer to (sa (a - za) +- sb (b - zb)) / sc + zc.
    fn add(&self, a: &Quantizer, b: &Quantizer, subtract: bool, output: &Quantizer) -> Result<Addition, Inexact> {
        // 24 + 9 bits each.
        let of = |o: &Quantizer, sign: f64| {
            let scale = sign * f64::from(o.scale);
            Rescale::Affine { scale, bias: -scale * o.zero_point as f64, rounding: Rounding::Exact }
        };
        let operands = [of(a, 1.0), of(b, if subtract { -1.0 } else { 1.0 })];
        Ok(Addition { operands, bias: 0.0, rounding: Rounding::Exact, finish: self.quantize(output) })
    }

    fn average(&self, average: &Average) -> Result<Averaging, Inexact> {
        let (n, x) = (average.count as i64, average.input);
        let unit = exact(x.scale).over(&Ratio::from_f64(n as f64).unwrap_or_else(|| unreachable!("a count")));
        Ok(Averaging::OfSum(ScalarFn::Step(nearest_step(&unit, n * x.zero_point, &average.output, |j| j % 2 == 0))))
    }

    fn rescale(&self, from: &Quantizer, to: &Quantizer) -> Result<ScalarFn, Inexact> {
        Ok(ScalarFn::Step(nearest_step(&exact(from.scale), from.zero_point, to, |j| j % 2 == 0)))
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }
}

/// Rounding of x / scale to the nearest integer in exact arithmetic; `strict(j, tie)` says whether the tie at j - 1/2 goes down.
/// (j - 1/2) scale is exact: j has at most 17 bits and the scale 24.
pub(super) fn half_integer_step(q: &Quantizer, strict: impl Fn(i64, f64) -> bool) -> Step {
    let (lo, hi) = q.range;
    let cut = |k: i64| {
        let j = k - q.zero_point;
        Cut { at: (j as f64 - 0.5) * q.scale as f64, strict: strict(j, j as f64 - 0.5) }
    };
    Step::new((lo + 1..=hi).map(cut).collect(), (lo..=hi).map(|v| v as f64).collect())
}

/// Rounding of a sx sw / sy to the nearest integer.
pub(super) fn nearest_requantize(r: &Requantizer, tie_goes_up: impl Fn(i64) -> bool) -> Result<Step, Inexact> {
    if let Bias::Float(_) = r.bias {
        return Err(Inexact::new("a float bias inside an integer kernel"));
    }
    Ok(nearest_step(&exact(r.input_scale).times(&exact(r.weight_scale)), 0, &r.output, tie_goes_up))
}

/// Rounding of (a - offset) unit / scale to the nearest integer in exact rational arithmetic: the threshold of j is the smallest
/// integer a with (a - offset) unit >= (j - 1/2) scale, or > where `tie_goes_up(j)` is false.
pub(super) fn nearest_step(unit: &Ratio, offset: i64, output: &Quantizer, tie_goes_up: impl Fn(i64) -> bool) -> Step {
    let (lo, hi) = output.range;
    let cut = |k: i64| {
        let j = k - output.zero_point;
        let place = exact_half(2 * j - 1).times(&exact(output.scale)).over(unit);
        let (floor, ceil) = (place.floor(), place.ceil());
        let first = if floor == ceil && !tie_goes_up(j) { ceil + 1 } else { ceil } + offset;
        // Thresholds beyond int32 are never reached: any place beyond is as good.
        let limit = i64::from(i32::MAX) * 2;
        Cut::at(i64::try_from(first).unwrap_or(if j > 0 { limit } else { -limit }).clamp(-limit, limit) as f64)
    };
    Step::new((lo + 1..=hi).map(cut).collect(), (lo..=hi).map(|v| v as f64).collect())
}

/// Local invariant: scales are finite and positive, checked when the model is lowered.
pub(super) fn exact(x: f32) -> Ratio {
    Ratio::from_f64(x as f64).unwrap_or_else(|| unreachable!("scales are finite"))
}

fn exact_half(twice: i64) -> Ratio {
    Ratio::from_f64(twice as f64 / 2.0).unwrap_or_else(|| unreachable!("halves of small integers are floats"))
}
