//! QuantizeLinear and DequantizeLinear on real numbers.
//!
//! An activation's integer is clamp(rne(x / scale) + zero), ties to the even quotient, with an exact quotient: between two integers it changes at an odd
//! multiple of half the scale, where it may be counted as either. A ReLU or Clip before it only cuts its values off.

use std::rc::Rc;

use super::call::{Call, Known, Stored};
use super::lower::{Lowering, Operator};
use crate::net::{Function, Map, Op, Shape};

const QUANTIZER: &str = "axis block_size output_dtype precision saturate";
/// What integers of a type are between.
const TYPES: [(i64, i64, i64); 4] = [(2, 0, 255), (3, -128, 127), (4, 0, 65_535), (5, -32_768, 32_767)];
/// Products of integers below this and a float32 number are exact in f64.
const EXACT: i64 = 1 << 29;

/// The operators.
pub(super) fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        "QuantizeLinear" => (3, 3, QUANTIZER, Lowering::quantize_real),
        "DequantizeLinear" => (2, 3, QUANTIZER, Lowering::dequantize_real),
        _ => return None,
    })
}

/// Refuses blocks and other types.
fn plain(call: &Call) -> Result<(), String> {
    ["block_size", "output_dtype", "precision"].iter().try_for_each(|name| call.only(name, 0))
}

impl Lowering {
    /// Scale and zero point of an activation, and the ends of its type.
    fn activation_real(&self, call: &Call) -> Result<(f64, i64, (i64, i64)), String> {
        let (_, scales) = call.constant(1)?;
        let kind = call.node.inputs.get(2).and_then(|name| self.kinds.get(name)).copied();
        let ends = TYPES.iter().find(|t| Some(t.0) == kind).ok_or("its zero point is of no 8- or 16-bit type")?;
        match (scales, &call.input(2)?.data) {
            (&[scale], Stored::Ints(zeros)) if zeros.len() == 1 && scale > 0.0 && scale.is_finite() => {
                Ok((scale, zeros[0], (ends.1, ends.2)))
            }
            _ => Err("one positive scale and one zero point are supported for activations".into()),
        }
    }

    fn quantize_real(&mut self, call: &Call) -> Result<Known, String> {
        plain(call)?;
        let (unit, zero, ends) = self.activation_real(call)?;
        let (mut of, known) = call.value(0)?;
        let shape = known.shape.clone();
        // What functions before it leave of its argument.
        let (mut least, mut most) = (f64::NEG_INFINITY, f64::INFINITY);
        while let Op::Function(Function { of: before, pieces }) = &self.net.values[of].op
            && let [Shape::Hinge { left: left @ (0.0 | 1.0), low, high }] = pieces[..]
        {
            let low = if left == 0.0 { low } else { f64::NEG_INFINITY };
            if low > most || high < least {
                break;
            }
            (of, least, most) = (*before, least.max(low), most.min(high));
        }
        let stairs = stairs(unit, zero, ends, (least, most));
        self.room(&[if let Shape::Stairs { values, .. } = &stairs { 2 * values.len() } else { 1 }])?;
        self.pieces(call.name(), of, &shape, vec![stairs])
    }

    fn dequantize_real(&mut self, call: &Call) -> Result<Known, String> {
        plain(call)?;
        let known = call.input(0)?.clone();
        let Some(of) = known.id() else { return self.constant_real(call, &known) };
        let (unit, zero, _) = self.activation_real(call)?;
        if !self.net.values[of].integer {
            return Err("it reads no integers".into());
        }
        let elements = self.room(&known.shape)?;
        // Exact: 16 bits and a float32 number.
        let bias = vec![-(zero as f64) * unit; elements];
        Ok(self.affine(call.name(), known.shape.clone(), (of, Map::Scale(vec![unit; elements])), bias, 0.0))
    }

    /// (stored - zero) scale, one or one for each place along an axis.
    fn constant_real(&mut self, call: &Call, known: &Known) -> Result<Known, String> {
        let Stored::Ints(stored) = &known.data else { return Err("it reads no constant integers".into()) };
        let (_, scales) = call.constant(1)?;
        let zeros = match call.has(2).then(|| call.input(2)).transpose()?.map(|z| &z.data) {
            None => vec![0; scales.len()],
            Some(Stored::Ints(zeros)) => zeros.to_vec(),
            Some(_) => return Err("the zero points are not constant integers".into()),
        };
        let rank = known.shape.len() as i64;
        let axis = call.int("axis", 1)?;
        let axis = if axis < 0 { axis + rank } else { axis };
        let along = match scales.len() {
            1 => 1,
            n if (0..rank).contains(&axis) && known.shape[axis as usize] == n => n,
            n => return Err(format!("{n} scales of a constant of shape {:?}", known.shape)),
        };
        if zeros.len() != scales.len() || scales.iter().any(|s| !(*s > 0.0 && s.is_finite())) {
            return Err("scales and zero points do not fit".into());
        }
        let below: usize = if along == 1 { 1 } else { known.shape[axis as usize + 1..].iter().product() };
        let number = |(i, q): (usize, &i64)| {
            let k = i / below % along;
            let q = q - zeros[k];
            (q.abs() < EXACT).then(|| q as f64 * scales[k]).ok_or("an integer is too large to be exact")
        };
        let numbers = stored.iter().enumerate().map(number).collect::<Result<Vec<f64>, _>>()?;
        Ok(Known { shape: known.shape.clone(), data: Stored::Reals(Rc::new(numbers)) })
    }
}

/// The integers of an argument that is cut off at two ends.
///
/// # Claim
/// For every real x, the integer of x cut off at the ends is the value of the stairs at x, or at a cut one of both values there.
///
/// # Rounding
/// None: an odd multiple below 2^18 of half a float32 number is exact.
fn stairs(unit: f64, zero: i64, (first, last): (i64, i64), (least, most): (f64, f64)) -> Shape {
    let cut = |q: i64| ((q - zero) as f64 - 0.5) * unit;
    // Integers that are reached: above a cut that the smallest argument is above, none below is.
    let reached = |q: &i64| *q == first || cut(*q) <= most;
    let left = |q: &i64| *q == last || cut(*q + 1) >= least;
    let values: Vec<i64> = (first..=last).filter(|q| reached(q) && left(q)).collect();
    let cuts = values.iter().skip(1).map(|q| cut(*q)).collect();
    Shape::Stairs { cuts, values: values.into_iter().map(|q| q as f64).collect(), unit }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rational::Rational;
    use proptest::prelude::*;

    fn exact(x: f64) -> Rational {
        Rational::from_f64(x).unwrap()
    }

    /// rne(x / unit) + zero within the ends, by comparing with multiples.
    fn integer(x: &Rational, unit: f64, zero: i64, (first, last): (i64, i64)) -> i64 {
        let twice = |k: i64| &exact(2.0 * k as f64 - 1.0) * &(&exact(unit) * &exact(0.5));
        // The largest k with (k - 1/2) unit below x, or at it where k is even.
        let mut k = first - zero;
        while k < last - zero && (twice(k + 1) < *x || twice(k + 1) == *x && (k + 1) % 2 == 0) {
            k += 1;
        }
        k + zero
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn stairs_are_the_integers(unit in 0.001f32..3.0, zero in 0i64..12, last in 1i64..20, least in -9.0f64..4.0, width in 0.0f64..40.0,
                cut in any::<bool>(), k in -40i32..60, off in -1.0f64..1.0) {
            let unit = f64::from(unit);
            let ends = if cut { (least, least + width) } else { (f64::NEG_INFINITY, f64::INFINITY) };
            let f = stairs(unit, zero, (0, last), ends);
            for x in [f64::from(k) * unit / 2.0, f64::from(k) * unit / 2.0 + off, ends.0.max(-50.0), ends.1.min(50.0)] {
                let own = x.max(ends.0).min(ends.1);
                let q = integer(&exact(own), unit, zero, (0, last)) as f64;
                prop_assert!(f.at_most(x) <= q && q <= f.at_least(x), "{x} {q} {f:?}");
                prop_assert!(f.at_least(x) - f.at_most(x) <= 1.0);
            }
        }
    }
}
