//! Numbers of IEEE 754 binary16, and rounding to the nearest, ties to even.

/// Bits of the significand behind the leading one.
const FRACTION: i32 = 10;
/// Exponent of the smallest normal number.
const LEAST_EXPONENT: i32 = -14;
/// Half a step above the largest number: from here on there is infinity.
const TOO_LARGE: f64 = 65_520.0;

/// The number whose bits are these, without its sign; infinity at 31744.
fn of_bits(bits: u32) -> f64 {
    let (exponent, fraction) = ((bits >> FRACTION) as i32, f64::from(bits & 1023));
    match exponent {
        0 => fraction * 2f64.powi(LEAST_EXPONENT - FRACTION),
        31 => f64::INFINITY,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 1 + LEAST_EXPONENT - FRACTION),
    }
}

/// All numbers in order, infinities at both ends.
pub fn all() -> impl Iterator<Item = f64> {
    (1..=31_744).rev().map(|bits| -of_bits(bits)).chain((0..=31_744).map(of_bits))
}

/// The float16 number that is nearest, ties to even; infinity from 65520 on.
pub fn nearest(x: f32) -> f32 {
    let x = f64::from(x);
    if x.is_nan() || x == 0.0 {
        return x as f32;
    }
    if x.abs() >= TOO_LARGE {
        return f32::INFINITY.copysign(x as f32);
    }
    // The exponent of an f64 that is normal: float32 numbers are.
    let exponent = ((x.abs().to_bits() >> 52) as i32 - 1023).max(LEAST_EXPONENT);
    let step = 2f64.powi(exponent - FRACTION);
    // Both are exact: a power of two, and at most 12 bits.
    ((x / step).round_ties_even() * step) as f32
}

/// The bits of a float16 number.
pub fn bits(x: f32) -> u16 {
    let sign = if x.is_sign_negative() { 0x8000 } else { 0 };
    let size = f64::from(x.abs());
    if size.is_infinite() || size.is_nan() {
        return sign | if size.is_nan() { 0x7e00 } else { 0x7c00 };
    }
    let exponent = ((size.to_bits() >> 52) as i32 - 1023).max(LEAST_EXPONENT);
    let fraction = (size * 2f64.powi(FRACTION - exponent)) as u16;
    // A normal number has its leading one at 1024, which counts the exponent up.
    sign | ((((exponent - LEAST_EXPONENT) as u16) << FRACTION) + fraction)
}

/// The number that bits stand for.
pub fn value(bits: u16) -> f32 {
    let size = if bits & 0x7fff > 0x7c00 { f64::NAN } else { of_bits(u32::from(bits & 0x7fff)) };
    if bits & 0x8000 == 0 { size as f32 } else { -size as f32 }
}

/// Where rounding goes over from one number to the next, and whether that place itself does.
pub fn border(below: f64, above: f64) -> (f64, bool) {
    let middle = match (below.is_infinite(), above.is_infinite()) {
        (true, _) => -TOO_LARGE,
        (_, true) => TOO_LARGE,
        _ => below + (above - below) / 2.0,
    };
    (middle, f64::from(nearest(middle as f32)) == above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_values_are_the_same_numbers() {
        for b in 0..=u16::MAX {
            let x = value(b);
            assert_eq!(bits(x), if x.is_nan() { 0x7e00 | b & 0x8000 } else { b }, "{b:#x}");
            assert!(x.is_nan() || nearest(x).to_bits() == x.to_bits(), "{b:#x}");
        }
        assert_eq!(all().count(), 63_489);
        assert!(all().zip(all().skip(1)).all(|(a, b)| a < b));
    }

    #[test]
    fn rounding_is_to_the_nearest_and_ties_to_even() {
        let all: Vec<f64> = all().collect();
        for w in all.windows(2) {
            let (middle, ties_up) = border(w[0], w[1]);
            let m = middle as f32;
            assert_eq!(f64::from(m), middle, "middles are float32 numbers");
            let even = |x: f64| bits(x as f32) & 1 == 0;
            assert_eq!(ties_up, even(w[1]), "{w:?}");
            assert_eq!(f64::from(nearest(m.next_down())), w[0], "{w:?}");
            assert_eq!(f64::from(nearest(m.next_up())), w[1], "{w:?}");
        }
    }
}
