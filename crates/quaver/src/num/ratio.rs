//! Exact rationals as users write them: `4/255`, `0.03`, `1e-3`.

use std::fmt;
use std::str::FromStr;

use num_bigint::BigInt;
use num_traits::{Signed, ToPrimitive, Zero};

use super::{Dyadic, float32};

/// An exact rational number with a positive denominator.
#[derive(Clone, Debug)]
pub struct Ratio {
    numerator: BigInt,
    denominator: BigInt,
}

/// The text is not a number.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a number: write a decimal such as 0.03 or 1e-3, or a fraction such as 4/255")]
pub struct ParseRatioError(String);

impl Ratio {
    /// The exact value of a finite float.
    pub fn from_f64(x: f64) -> Option<Self> {
        Dyadic::from_f64(x).map(|d| Ratio::from_dyadic(&d))
    }

    /// A dyadic number.
    pub fn from_dyadic(d: &Dyadic) -> Self {
        let (m, e) = d.parts();
        let one = BigInt::from(1);
        if e >= 0 {
            Ratio { numerator: m << e as usize, denominator: one }
        } else {
            Ratio { numerator: m.clone(), denominator: one << (-e) as usize }
        }
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.numerator.is_negative()
    }

    /// self + sign * other, exactly.
    fn combine(&self, other: &Ratio, sign: i32) -> Ratio {
        Ratio {
            numerator: &self.numerator * &other.denominator + &other.numerator * &self.denominator * sign,
            denominator: &self.denominator * &other.denominator,
        }
    }

    /// self + other, exactly.
    pub fn plus(&self, other: &Ratio) -> Ratio {
        self.combine(other, 1)
    }

    /// self - other, exactly.
    pub fn minus(&self, other: &Ratio) -> Ratio {
        self.combine(other, -1)
    }

    /// self other, exactly.
    pub fn times(&self, other: &Ratio) -> Ratio {
        Ratio { numerator: &self.numerator * &other.numerator, denominator: &self.denominator * &other.denominator }
    }

    /// self / other, exactly.
    ///
    /// # Panics
    /// If the other is zero.
    pub fn over(&self, other: &Ratio) -> Ratio {
        assert!(!other.numerator.is_zero(), "division by zero");
        let sign = if other.numerator.is_negative() { -1 } else { 1 };
        Ratio {
            numerator: &self.numerator * &other.denominator * sign,
            denominator: &self.denominator * other.numerator.abs(),
        }
    }

    /// Compare with a finite float, exactly.
    fn at_least(&self, x: f64) -> bool {
        // Local invariant: callers pass finite floats.
        let x = Ratio::from_f64(x).unwrap_or_else(|| Ratio { numerator: BigInt::zero(), denominator: BigInt::from(1) });
        &self.numerator * &x.denominator >= &x.numerator * &self.denominator
    }

    /// Largest finite float32 not above the number (the smallest float32 if there is none).
    pub fn floor_f32(&self) -> f32 {
        let largest = float32::key(f32::MAX);
        match float32::first_key_true(-largest, largest, |k| !self.at_least(float32::from_key(k) as f64)) {
            Some(k) => float32::from_key(k - 1),
            None => f32::MAX,
        }
    }

    /// Smallest finite float32 not below the number.
    pub fn ceil_f32(&self) -> f32 {
        -self.negated().floor_f32()
    }

    /// Smallest f64 that is not below the number (infinity above all of them).
    pub fn f64_up(&self) -> f64 {
        // Subtracting from zero gives 0 for 0, not -0.
        0.0 - self.negated().f64_down()
    }

    /// Largest f64 that is not above the number (minus infinity below all of them).
    pub fn f64_down(&self) -> f64 {
        let is_largest = |x: f64| x.is_finite() && self.at_least(x) && !(x < f64::MAX && self.at_least(x.next_up()));
        // The quotient of two rounded integers is within two units of the number, if they are not huge.
        let near = self.approx();
        let (below, above) = (near.next_down(), near.next_up());
        let nearby = [near, below, above, below.next_down(), above.next_up()];
        if let Some(x) = nearby.into_iter().find(|&x| is_largest(x)) {
            return x + 0.0;
        }
        // Bits as integers in the order of the floats.
        let from_key = |k: i128| {
            let magnitude = f64::from_bits(k.unsigned_abs() as u64);
            if k >= 0 { magnitude } else { -magnitude }
        };
        let (mut low, mut high) = (-i128::from(f64::INFINITY.to_bits()), i128::from(f64::INFINITY.to_bits()));
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.at_least(from_key(middle)) { low = middle } else { high = middle }
        }
        from_key(low)
    }

    /// The number with the other sign.
    pub fn negated(&self) -> Ratio {
        Ratio { numerator: -&self.numerator, denominator: self.denominator.clone() }
    }

    /// Whether the number is zero.
    pub fn is_zero(&self) -> bool {
        self.numerator.is_zero()
    }

    /// Largest integer not above the number.
    pub fn floor(&self) -> BigInt {
        num_integer::Integer::div_floor(&self.numerator, &self.denominator)
    }

    /// Smallest integer not below the number.
    pub fn ceil(&self) -> BigInt {
        -num_integer::Integer::div_floor(&-&self.numerator, &self.denominator)
    }

    /// A nearby float, for printing and hints.
    pub fn approx(&self) -> f64 {
        num_ratio_to_f64(&self.numerator, &self.denominator)
    }
}

fn num_ratio_to_f64(n: &BigInt, d: &BigInt) -> f64 {
    let shift = (n.bits().max(d.bits()) as i64 - 900).max(0) as usize;
    (n >> shift).to_f64().unwrap_or(f64::NAN) / (d >> shift).to_f64().unwrap_or(f64::NAN)
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.approx())
    }
}

impl FromStr for Ratio {
    type Err = ParseRatioError;

    fn from_str(text: &str) -> Result<Self, ParseRatioError> {
        let bad = || ParseRatioError(text.to_string());
        match text.split_once('/') {
            None => decimal(text).ok_or_else(bad),
            Some((n, d)) => {
                let (n, d) = (decimal(n).ok_or_else(bad)?, decimal(d).ok_or_else(bad)?);
                if d.numerator.is_zero() {
                    return Err(bad());
                }
                let (numerator, denominator) = (n.numerator * &d.denominator, n.denominator * &d.numerator);
                Ok(if denominator.is_negative() {
                    Ratio { numerator: -numerator, denominator: -denominator }
                } else {
                    Ratio { numerator, denominator }
                })
            }
        }
    }
}

/// `[+-]digits[.digits][e[+-]digits]`, exactly.
fn decimal(text: &str) -> Option<Ratio> {
    let text = text.trim();
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((m, e)) => (m, e.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(&digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) || exponent.abs() > 400 || text.len() > 500
    {
        return None;
    }
    let numerator: BigInt = digits.strip_prefix('+').unwrap_or(&digits).parse().ok()?;
    let power = exponent - fraction.len() as i32;
    let ten = BigInt::from(10).pow(power.unsigned_abs());
    let one = BigInt::from(1);
    Some(if power >= 0 {
        Ratio { numerator: numerator * ten, denominator: one }
    } else {
        Ratio { numerator, denominator: ten }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_users_write() {
        for (text, value) in [("4/255", 4.0 / 255.0), ("0.03", 0.03), ("-1e-3", -0.001), ("+2.5", 2.5), ("1/-2", -0.5)]
        {
            assert_eq!(text.parse::<Ratio>().unwrap().approx(), value, "{text}");
        }
        for text in ["", "x", "1/0", "1//2", "0x10", "1e", "--1", "1e999", "nan", "-"] {
            assert!(text.parse::<Ratio>().is_err(), "{text}");
        }
    }

    #[test]
    fn f64_neighbours_are_exact() {
        for text in ["1/3", "-1/3", "0.1", "2.5", "0", "1e-300", "-1e-310", "1e-400", "1e300", "0.679857769"] {
            let exact: Ratio = text.parse().unwrap();
            let (down, up) = (exact.f64_down(), exact.f64_up());
            assert!(exact.at_least(down) && exact.negated().at_least(-up), "{text}");
            assert!(down == up || down.next_up() == up, "{text}");
        }
        let huge: Ratio = "1e400".parse().unwrap();
        assert_eq!((huge.f64_down(), huge.f64_up()), (f64::MAX, f64::INFINITY));
    }

    #[test]
    fn float32_neighbours_are_exact() {
        let third: Ratio = "1/3".parse().unwrap();
        assert!((third.floor_f32() as f64) < 1.0 / 3.0 && third.ceil_f32() == third.floor_f32().next_up());
        let half: Ratio = "1/2".parse().unwrap();
        assert_eq!((half.floor_f32(), half.ceil_f32()), (0.5, 0.5));
        let seven: Ratio = "-7/2".parse().unwrap();
        assert_eq!((seven.floor(), seven.ceil()), (BigInt::from(-4), BigInt::from(-3)));
    }
}
