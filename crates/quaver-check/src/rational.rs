//! Exact rational numbers, and the f64 numbers around them.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Mul, Neg, Sub};

use num_bigint::{BigInt, BigUint, Sign};
use num_traits::{One, Signed, ToPrimitive, Zero};

/// Largest exponent of ten, of either sign, in a decimal text.
const MAX_EXPONENT: i64 = 5000;
/// Largest number of digits before the exponent of a decimal text.
const MAX_DIGITS: usize = 5000;

/// A fraction in lowest terms.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rational {
    numerator: BigInt,
    /// Never zero.
    denominator: BigUint,
}

impl Rational {
    /// The number 0.
    pub fn zero() -> Rational {
        Rational { numerator: BigInt::zero(), denominator: BigUint::one() }
    }

    /// `numerator / denominator`; nothing if the denominator is zero.
    pub fn new(numerator: BigInt, denominator: BigUint) -> Option<Rational> {
        (!denominator.is_zero()).then(|| Rational::reduced(numerator, denominator))
    }

    /// Reads a decimal text such as `-1.5e-3`, `+.5` or `7`.
    pub fn parse(text: &str) -> Result<Rational, String> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(m, e)| (m, Some(e)));
        let exponent = exponent.map_or(Ok(0), |e| parse_exponent(e, text))?;
        let unsigned = mantissa.strip_prefix(['+', '-']).unwrap_or(mantissa);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let digits = [whole, fraction].concat();
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("`{}` is no number", shown(text)));
        }
        if digits.len() > MAX_DIGITS {
            return Err(format!("`{}` has more than {MAX_DIGITS} digits", shown(text)));
        }
        let magnitude = BigUint::parse_bytes(digits.as_bytes(), 10).unwrap_or_default();
        let sign = if mantissa.starts_with('-') { Sign::Minus } else { Sign::Plus };
        let scale = exponent - fraction.len() as i64;
        let power = BigUint::from(10u32).pow(scale.unsigned_abs() as u32);
        Ok(match scale < 0 {
            true => Rational::reduced(BigInt::from_biguint(sign, magnitude), power),
            false => BigInt::from_biguint(sign, magnitude * power).into(),
        })
    }

    /// The exact value of a finite f64; nothing for infinities and NaN.
    pub fn from_f64(value: f64) -> Option<Rational> {
        if !value.is_finite() {
            return None;
        }
        let bits = value.to_bits();
        let (biased, fraction) = ((bits >> 52 & 0x7ff) as i64, bits & ((1 << 52) - 1));
        let (mantissa, exponent) = if biased == 0 { (fraction, -1074) } else { (fraction | 1 << 52, biased - 1075) };
        let sign = if value < 0.0 { Sign::Minus } else { Sign::Plus };
        let numerator = BigInt::from_biguint(sign, BigUint::from(mantissa) << exponent.max(0));
        Some(Rational::reduced(numerator, BigUint::one() << (-exponent).max(0)))
    }

    /// What is above the line, with the sign.
    pub fn numerator(&self) -> &BigInt {
        &self.numerator
    }

    /// What is below the line; positive.
    pub fn denominator(&self) -> &BigUint {
        &self.denominator
    }

    /// Whether this is 0.
    pub fn is_zero(&self) -> bool {
        self.numerator.is_zero()
    }

    /// -1, 0 or 1.
    pub fn signum(&self) -> i32 {
        match self.numerator.sign() {
            Sign::Minus => -1,
            Sign::NoSign => 0,
            Sign::Plus => 1,
        }
    }

    /// One divided by this; nothing for 0.
    pub fn recip(&self) -> Option<Rational> {
        let numerator = BigInt::from_biguint(self.numerator.sign(), self.denominator.clone());
        (!self.is_zero()).then(|| Rational { numerator, denominator: self.numerator.magnitude().clone() })
    }

    /// Bits of the longer one of numerator and denominator.
    pub fn bits(&self) -> u64 {
        self.numerator.bits().max(self.denominator.bits())
    }

    /// The largest f64 that is not above this: negative infinity below the range of f64, `f64::MAX` above it.
    pub fn down(&self) -> f64 {
        match self.signum() < 0 {
            true => 0.0 - self.magnitude_up(),
            false => self.magnitude_down().0,
        }
    }

    /// The smallest f64 that is not below this: infinity above the range of f64, `f64::MIN` below it.
    pub fn up(&self) -> f64 {
        match self.signum() < 0 {
            true => 0.0 - self.magnitude_down().0,
            false => self.magnitude_up(),
        }
    }

    /// The smallest f64 that is not below the absolute value.
    fn magnitude_up(&self) -> f64 {
        let (down, exact) = self.magnitude_down();
        if exact { down } else { down.next_up() }
    }

    /// The largest finite f64 that is not above the absolute value, and whether it is equal to it.
    ///
    /// The result is `quotient / 2^shift` with a quotient below 2^53. The shift is as large as that allows, and at most
    /// 1074 because f64 has no finer steps. Quotients below 2^52 occur at this limit only; they are the subnormal numbers.
    fn magnitude_down(&self) -> (f64, bool) {
        let top = self.numerator.magnitude();
        if top.is_zero() {
            return (0.0, true);
        }
        let estimate = top.bits() as i64 - self.denominator.bits() as i64;
        let mut shift = (53 - estimate).min(1074);
        let numerator = top << shift.max(0) as u64;
        let denominator = &self.denominator << (-shift).max(0) as u64;
        let quotient = &numerator / &denominator;
        let mut exact = &quotient * &denominator == numerator;
        // The absolute value is below 2^(estimate + 1), so the quotient is below 2^54.
        let mut quotient = quotient.to_u64().unwrap_or(u64::MAX);
        if quotient >> 53 != 0 {
            exact &= quotient & 1 == 0;
            quotient >>= 1;
            shift -= 1;
        }
        if shift < -971 {
            return (f64::MAX, false);
        }
        (f64::from_bits(((1074 - shift) as u64) * (1 << 52) + quotient), exact)
    }

    /// The denominator must not be zero.
    fn reduced(numerator: BigInt, denominator: BigUint) -> Rational {
        if denominator.is_one() {
            return Rational { numerator, denominator };
        }
        let common = gcd(numerator.magnitude().clone(), denominator.clone());
        if common.is_one() {
            return Rational { numerator, denominator };
        }
        let magnitude = numerator.magnitude() / &common;
        Rational { numerator: BigInt::from_biguint(numerator.sign(), magnitude), denominator: denominator / common }
    }
}

fn parse_exponent(exponent: &str, text: &str) -> Result<i64, String> {
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("`{}` is no number", shown(text)));
    }
    match exponent.parse::<i64>() {
        Ok(value) if value.abs() <= MAX_EXPONENT => Ok(value),
        _ => Err(format!("the exponent of `{}` is beyond {MAX_EXPONENT}", shown(text))),
    }
}

/// The start of a text, for a message.
fn shown(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}

/// Euclid's algorithm, on machine words as soon as both numbers fit.
fn gcd(mut a: BigUint, mut b: BigUint) -> BigUint {
    loop {
        if let (Some(mut x), Some(mut y)) = (a.to_u64(), b.to_u64()) {
            while y != 0 {
                (x, y) = (y, x % y);
            }
            return x.into();
        }
        if b.is_zero() {
            return a;
        }
        let rest = &a % &b;
        (a, b) = (b, rest);
    }
}

impl From<BigInt> for Rational {
    fn from(numerator: BigInt) -> Rational {
        Rational { numerator, denominator: BigUint::one() }
    }
}

impl From<i64> for Rational {
    fn from(value: i64) -> Rational {
        BigInt::from(value).into()
    }
}

impl Add for &Rational {
    type Output = Rational;

    fn add(self, other: &Rational) -> Rational {
        if self.denominator == other.denominator {
            return Rational::reduced(&self.numerator + &other.numerator, self.denominator.clone());
        }
        let numerator = &self.numerator * BigInt::from(other.denominator.clone())
            + &other.numerator * BigInt::from(self.denominator.clone());
        Rational::reduced(numerator, &self.denominator * &other.denominator)
    }
}

impl Sub for &Rational {
    type Output = Rational;

    fn sub(self, other: &Rational) -> Rational {
        self + &-other
    }
}

impl Mul for &Rational {
    type Output = Rational;

    fn mul(self, other: &Rational) -> Rational {
        Rational::reduced(&self.numerator * &other.numerator, &self.denominator * &other.denominator)
    }
}

impl Neg for &Rational {
    type Output = Rational;

    fn neg(self) -> Rational {
        Rational { numerator: -&self.numerator, denominator: self.denominator.clone() }
    }
}

impl Ord for Rational {
    fn cmp(&self, other: &Rational) -> Ordering {
        if self.signum() != other.signum() || self.denominator == other.denominator {
            return self.numerator.cmp(&other.numerator);
        }
        let left = self.numerator.magnitude() * &other.denominator;
        let right = other.numerator.magnitude() * &self.denominator;
        if self.numerator.is_negative() { right.cmp(&left) } else { left.cmp(&right) }
    }
}

impl PartialOrd for Rational {
    fn partial_cmp(&self, other: &Rational) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Rational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.denominator.is_one() {
            true => write!(f, "{}", self.numerator),
            false => write!(f, "{}/{}", self.numerator, self.denominator),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fraction(numerator: i64, denominator: i64) -> Rational {
        Rational::new(numerator.into(), BigUint::from(denominator.unsigned_abs())).unwrap()
    }

    /// The definition of `down` and `up`, word for word.
    fn check_neighbours(exact: &Rational) {
        let (down, up) = (exact.down(), exact.up());
        let below = |value: f64| match Rational::from_f64(value) {
            Some(value) => value <= *exact,
            None => value < 0.0,
        };
        let above = |value: f64| match Rational::from_f64(value) {
            Some(value) => value >= *exact,
            None => value > 0.0,
        };
        assert!(below(down) && above(up), "{down} <= {exact} <= {up}");
        assert!(!below(down.next_up()) && !above(up.next_down()), "{down} and {up} are the closest to {exact}");
        assert!(down == up || down.next_up() == up);
    }

    #[test]
    fn reads_decimal_texts() {
        for (text, numerator, denominator) in [
            ("-1.5e-3", -3, 2000),
            ("+.5", 1, 2),
            ("7", 7, 1),
            ("7.", 7, 1),
            ("-0.0", 0, 1),
            ("12e2", 1200, 1),
            ("1E+1", 10, 1),
            ("0.125", 1, 8),
        ] {
            assert_eq!(Rational::parse(text).unwrap(), fraction(numerator, denominator), "{text}");
        }
        assert_eq!(Rational::parse("1e400").unwrap().numerator(), &BigInt::from(10).pow(400));
        for text in ["", "-", ".", "e5", "1e", "1e+", "1e5001", "1e99999999999999999999", "--1", "1.2.3", "0x1", "1_0"]
        {
            assert!(Rational::parse(text).is_err(), "{text}");
        }
        for text in ["inf", "NaN", "1/3", "é", "1e-é", &"1".repeat(5001)] {
            assert!(Rational::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rounds_at_the_ends_of_the_range() {
        let huge = Rational::parse("1e400").unwrap();
        assert_eq!((huge.down(), huge.up()), (f64::MAX, f64::INFINITY));
        assert_eq!(((-&huge).down(), (-&huge).up()), (f64::NEG_INFINITY, f64::MIN));
        let tiny = Rational::parse("1e-400").unwrap();
        assert_eq!((tiny.down(), tiny.up()), (0.0, 5e-324));
        assert_eq!(((-&tiny).down(), (-&tiny).up()), (-5e-324, 0.0));
        assert!((-&tiny).up().is_sign_positive() && Rational::zero().down().is_sign_positive());
        let step = Rational::parse("1e-330").unwrap();
        for edge in [f64::MAX, f64::MIN_POSITIVE, f64::MIN_POSITIVE.next_down(), 5e-324, 1.0, 2f64.powi(53), 0.0] {
            let exact = Rational::from_f64(edge).unwrap();
            for value in [&exact + &step, &exact - &step, exact.clone(), -&exact, &-&exact + &step] {
                check_neighbours(&value);
            }
        }
        assert_eq!(Rational::from_f64(f64::NAN), None);
        assert_eq!(Rational::from_f64(f64::NEG_INFINITY), None);
        assert_eq!(Rational::new(1.into(), BigUint::zero()), None);
        assert_eq!(Rational::zero().recip(), None);
    }

    proptest! {
        #[test]
        fn f64_round_trips(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let exact = Rational::from_f64(value).unwrap();
            prop_assert_eq!((exact.down(), exact.up()), (value, value));
            let shortest = Rational::parse(&format!("{value:e}")).unwrap();
            prop_assert!(shortest.down() == value || shortest.up() == value);
        }

        #[test]
        fn reads_what_rust_reads(digits in "[0-9]{1,25}", point in 0usize..25, exponent in -340i64..320) {
            let point = point.min(digits.len());
            let text = format!("{}.{}e{exponent}", &digits[..point], &digits[point..]);
            let exact = Rational::parse(&text).unwrap();
            let nearest: f64 = text.parse().unwrap();
            prop_assert!(nearest == exact.down() || nearest == exact.up());
            check_neighbours(&exact);
        }

        #[test]
        fn neighbours_of_fractions(n in any::<i64>(), d in 1i64.., shift in -1200i64..1200) {
            let value = fraction(n, d);
            let power = Rational::from(BigInt::one() << shift.unsigned_abs());
            let factor = if shift < 0 { power.recip().unwrap() } else { power };
            check_neighbours(&(&value * &factor));
        }

        #[test]
        fn agrees_with_machine_fractions(a in any::<i32>(), b in 1i32.., c in any::<i32>(), d in 1i32..) {
            let (x, y) = (fraction(a.into(), b.into()), fraction(c.into(), d.into()));
            let (a, b, c, d) = (i128::from(a), i128::from(b), i128::from(c), i128::from(d));
            let equal = |value: &Rational, n: i128, m: i128| {
                value.numerator() * m == BigInt::from(value.denominator().clone()) * n
            };
            prop_assert!(equal(&(&x + &y), a * d + c * b, b * d));
            prop_assert!(equal(&(&x - &y), a * d - c * b, b * d));
            prop_assert!(equal(&(&x * &y), a * c, b * d));
            prop_assert!(equal(&-&x, -a, b));
            prop_assert_eq!(x.cmp(&y), (a * d).cmp(&(c * b)));
            prop_assert_eq!(x.signum(), a.signum() as i32);
            prop_assert_eq!(x.is_zero(), a == 0);
            prop_assert_eq!(x == y, a * d == c * b);
            prop_assert!(x.recip().is_none_or(|r| &r * &x == Rational::from(1)));
            prop_assert_eq!(Rational::parse(&format!("{a}e-3")).unwrap(), &Rational::from(a as i64) * &fraction(1, 1000));
        }
    }
}
