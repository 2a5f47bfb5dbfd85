//! Exact decimal numbers: what a query file can write.

use std::cmp::Ordering;
use std::fmt;

use num_bigint::BigInt;
use num_traits::{Signed, Zero};

use crate::num::Ratio;

/// Most digits before and after the point: float32 values need 150, and hostile files must not make numbers grow without end.
pub(super) const DIGITS: usize = 400;

/// An exact decimal number, mantissa / 10^places, in lowest terms.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decimal {
    mantissa: BigInt,
    places: usize,
}

impl Decimal {
    /// An integer.
    pub fn from_int(n: i64) -> Decimal {
        Decimal { mantissa: BigInt::from(n), places: 0 }
    }

    /// The exact value of a float; `None` if it is not finite or needs too many digits.
    pub fn from_f64(x: f64) -> Option<Decimal> {
        // This many places write every dyadic number of the length that is allowed.
        if x.is_finite() { Decimal::parse(&format!("{x:.DIGITS$}")).filter(|d| d.is_value(x)) } else { None }
    }

    /// A rational; `None` if no decimal of the allowed length is equal to it.
    pub fn from_ratio(r: &Ratio) -> Option<Decimal> {
        let unit: Ratio = format!("1e{DIGITS}").parse().ok()?;
        let mantissa = r.times(&unit).floor();
        Decimal { mantissa, places: DIGITS }.checked().filter(|d| r.minus(&d.ratio()).is_zero())
    }

    fn is_value(&self, x: f64) -> bool {
        Ratio::from_f64(x).is_some_and(|exact| exact.minus(&self.ratio()).is_zero())
    }

    /// Reads `[+-]digits[.digits][e[+-]digits]`; `None` for anything else, and for numbers of too many digits.
    pub fn parse(text: &str) -> Option<Decimal> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((m, e)) => (m, e.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let unsigned = whole.strip_prefix(['+', '-']).unwrap_or(whole);
        let has_digits = !(unsigned.is_empty() && fraction.is_empty());
        let fraction = fraction.trim_end_matches('0');
        let is_number = has_digits && unsigned.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit());
        if !is_number || exponent.unsigned_abs() as usize > DIGITS || text.len() > 3 * DIGITS {
            return None;
        }
        let mut digits = format!("{unsigned}{fraction}");
        let mut places = fraction.len() as i64 - i64::from(exponent);
        while places < 0 {
            digits.push('0');
            places += 1;
        }
        let magnitude: BigInt = digits.parse().ok()?;
        let mantissa = if whole.starts_with('-') { -magnitude } else { magnitude };
        Decimal { mantissa, places: places as usize }.checked()
    }

    /// In lowest terms; `None` if it has too many digits.
    pub(super) fn checked(mut self) -> Option<Decimal> {
        let ten = BigInt::from(10);
        while self.places > 0 && (&self.mantissa % &ten).is_zero() {
            if self.mantissa.is_zero() {
                self.places = 0;
                break;
            }
            self.mantissa /= &ten;
            self.places -= 1;
        }
        let fits = self.places <= DIGITS && self.mantissa.bits() <= (DIGITS as u64) * 332 / 100;
        fits.then_some(self)
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.mantissa.is_zero()
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.mantissa.is_negative()
    }

    /// Whether it is 1 or -1.
    pub fn is_unit(&self) -> bool {
        self.places == 0 && self.mantissa.magnitude() == BigInt::from(1).magnitude()
    }

    /// Whether it is an integer.
    pub fn is_integer(&self) -> bool {
        self.places == 0
    }

    /// With the other sign.
    pub fn negated(&self) -> Decimal {
        Decimal { mantissa: -&self.mantissa, places: self.places }
    }

    /// self + other, not in lowest terms.
    pub(super) fn plus(&self, other: &Decimal) -> Decimal {
        let (a, b, places) = self.aligned(other);
        Decimal { mantissa: a + b, places }
    }

    /// self other; `None` if it has too many digits.
    pub(super) fn times(&self, other: &Decimal) -> Option<Decimal> {
        Decimal { mantissa: &self.mantissa * &other.mantissa, places: self.places + other.places }.checked()
    }

    /// The mantissas for the same number of places.
    fn aligned(&self, other: &Decimal) -> (BigInt, BigInt, usize) {
        let places = self.places.max(other.places);
        let grown = |d: &Decimal| match places - d.places {
            0 => d.mantissa.clone(),
            more => &d.mantissa * BigInt::from(10).pow(more as u32),
        };
        (grown(self), grown(other), places)
    }

    /// As a rational.
    pub fn ratio(&self) -> Ratio {
        // Local invariant: the length was checked, and `Ratio` reads longer ones.
        format!("{}e-{}", self.mantissa, self.places)
            .parse()
            .unwrap_or_else(|_| unreachable!("a decimal is a rational"))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b, _) = self.aligned(other);
        a.cmp(&b)
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Decimal {
    /// All digits, without an exponent, and always with a point: `-0.25`, `3.0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:0>width$}", self.mantissa.magnitude().to_string(), width = self.places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - self.places);
        let sign = if self.is_negative() { "-" } else { "" };
        write!(f, "{sign}{whole}.{}", if fraction.is_empty() { "0" } else { fraction })
    }
}
