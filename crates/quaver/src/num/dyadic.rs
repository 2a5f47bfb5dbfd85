//! Exact numbers m 2^e with an unbounded integer m.

use std::cmp::Ordering;
use std::ops::{Add, Mul, Neg, Sub};

use num_bigint::{BigInt, Sign};
use num_traits::{ToPrimitive, Zero};

/// An exact dyadic rational m 2^e. Every finite float is one, and so is every sum and product of them.
#[derive(Clone, Debug)]
pub struct Dyadic {
    mantissa: BigInt,
    exponent: i64,
}

impl Dyadic {
    /// Zero.
    pub fn zero() -> Self {
        Dyadic { mantissa: BigInt::zero(), exponent: 0 }
    }

    /// The exact value of a finite float; `None` for an infinity or NaN.
    pub fn from_f64(x: f64) -> Option<Self> {
        if !x.is_finite() {
            return None;
        }
        let bits = x.to_bits();
        let (raw, fraction) = ((bits >> 52 & 0x7ff) as i64, bits & ((1 << 52) - 1));
        let (magnitude, exponent) = if raw == 0 { (fraction, -1074) } else { (fraction | 1 << 52, raw - 1075) };
        let shift = if magnitude == 0 { 0 } else { magnitude.trailing_zeros() };
        let mantissa = BigInt::from(magnitude >> shift);
        Some(Dyadic { mantissa: if x < 0.0 { -mantissa } else { mantissa }, exponent: exponent + shift as i64 })
    }

    /// An integer.
    pub fn from_int(x: i64) -> Self {
        Dyadic { mantissa: BigInt::from(x), exponent: 0 }
    }

    /// The mantissas of two numbers on their common exponent.
    fn aligned(&self, other: &Self) -> (BigInt, BigInt, i64) {
        let e = self.exponent.min(other.exponent);
        (&self.mantissa << (self.exponent - e) as usize, &other.mantissa << (other.exponent - e) as usize, e)
    }

    /// -1, 0 or 1.
    pub fn signum(&self) -> i32 {
        match self.mantissa.sign() {
            Sign::Minus => -1,
            Sign::NoSign => 0,
            Sign::Plus => 1,
        }
    }

    /// Mantissa and exponent of m 2^e.
    pub fn parts(&self) -> (&BigInt, i64) {
        (&self.mantissa, self.exponent)
    }

    /// Round to nearest, ties to even, on a binary format with `precision` bits and smallest exponent `min_exponent`
    /// (the exponent of the last bit of a subnormal). The result's magnitude is returned as (integer, exponent).
    fn round_magnitude(&self, precision: u64, min_exponent: i64) -> (u64, i64) {
        let magnitude = self.mantissa.magnitude();
        let bits = magnitude.bits();
        let drop = (bits as i64 - precision as i64).max(min_exponent - self.exponent).max(0) as u64;
        if drop == 0 {
            // Local invariant: at most `precision` <= 53 bits are left.
            return (magnitude.to_u64().unwrap_or(u64::MAX), self.exponent);
        }
        let kept = (magnitude >> drop).to_u64().unwrap_or(u64::MAX);
        let half = magnitude.bit(drop - 1);
        let sticky = magnitude.trailing_zeros().is_some_and(|z| z < drop - 1);
        let up = half && (sticky || kept & 1 == 1);
        (kept + u64::from(up), self.exponent + drop as i64)
    }

    /// The nearest float32, ties to even, infinite beyond the largest.
    pub fn to_f32(&self) -> f32 {
        if self.mantissa.is_zero() {
            return 0.0;
        }
        if self.mantissa.bits() as i64 + self.exponent > 129 {
            return if self.signum() < 0 { f32::NEG_INFINITY } else { f32::INFINITY };
        }
        let (m, e) = self.round_magnitude(24, -149);
        // m < 2^25 and e >= -149: the f64 product is exact; the cast overflows to infinity exactly where binary32 does.
        let value = if m == 0 { 0.0 } else { m as f64 * 2f64.powi(e as i32) };
        (if self.signum() < 0 { -value } else { value }) as f32
    }

    /// The nearest f64, ties to even (subnormals are rounded to a multiple of 2^-1074).
    pub fn to_f64(&self) -> f64 {
        if self.mantissa.is_zero() {
            return 0.0;
        }
        let (m, e) = self.round_magnitude(53, -1074);
        let value = if self.mantissa.bits() as i64 + self.exponent > 1025 {
            f64::INFINITY
        } else {
            // Two factors keep each power in range.
            let first = e.clamp(-1000, 900);
            m as f64 * 2f64.powi(first as i32) * 2f64.powi((e - first) as i32)
        };
        if self.signum() < 0 { -value } else { value }
    }
}

impl PartialEq for Dyadic {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Dyadic {}
impl PartialOrd for Dyadic {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Dyadic {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.signum() != other.signum() {
            return self.signum().cmp(&other.signum());
        }
        let (a, b, _) = self.aligned(other);
        a.cmp(&b)
    }
}
impl Add for &Dyadic {
    type Output = Dyadic;
    fn add(self, other: &Dyadic) -> Dyadic {
        let (a, b, exponent) = self.aligned(other);
        Dyadic { mantissa: a + b, exponent }
    }
}
impl Sub for &Dyadic {
    type Output = Dyadic;
    fn sub(self, other: &Dyadic) -> Dyadic {
        self + &-other
    }
}
impl Neg for &Dyadic {
    type Output = Dyadic;
    fn neg(self) -> Dyadic {
        Dyadic { mantissa: -&self.mantissa, exponent: self.exponent }
    }
}
impl Mul for &Dyadic {
    type Output = Dyadic;
    fn mul(self, other: &Dyadic) -> Dyadic {
        Dyadic { mantissa: &self.mantissa * &other.mantissa, exponent: self.exponent + other.exponent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn floats_survive(bits in any::<u64>(), small in any::<u32>()) {
            let x = f64::from_bits(bits);
            if let Some(d) = Dyadic::from_f64(x) {
                prop_assert_eq!(d.to_f64(), x);
                prop_assert_eq!(d.to_f32(), x as f32);
            }
            let y = f32::from_bits(small);
            if y.is_finite() {
                prop_assert_eq!(Dyadic::from_f64(y as f64).unwrap().to_f32(), y);
            }
        }

        #[test]
        fn f32_rounding_of_exact_products_and_sums_is_the_machines(a in any::<u32>(), b in any::<u32>()) {
            let (x, y) = (f32::from_bits(a), f32::from_bits(b));
            if x.is_finite() && y.is_finite() {
                let (dx, dy) = (Dyadic::from_f64(x as f64).unwrap(), Dyadic::from_f64(y as f64).unwrap());
                prop_assert_eq!((&dx + &dy).to_f32(), x + y);
                prop_assert_eq!((&dx * &dy).to_f32(), x * y);
                prop_assert_eq!(dx.cmp(&dy), x.partial_cmp(&y).unwrap());
            }
        }
    }
}
