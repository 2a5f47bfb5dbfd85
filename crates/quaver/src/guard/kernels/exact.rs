//! Exact arithmetic at compile time: weights as multiples of a unit, and where a line crosses a cut.

use num_bigint::BigInt;
use num_integer::Integer;
use num_traits::ToPrimitive;

use crate::net::Cut;
use crate::num::Dyadic;

/// 2^e, where it is an `f64`.
fn power_of_two(e: i64) -> f64 {
    match e {
        -1074..=-1023 => f64::from_bits(1 << (e + 1074)),
        -1022..=1023 => f64::from_bits(((e + 1023) as u64) << 52),
        _ => unreachable!("an exponent of an f64"),
    }
}

/// The odd integer m and e with x = m 2^e; `None` for zero (and for what is not finite).
fn odd_mantissa(x: f64) -> Option<(i64, i64)> {
    let bits = x.to_bits();
    let (raw, fraction) = ((bits >> 52 & 0x7ff) as i64, (bits & ((1 << 52) - 1)) as i64);
    let (magnitude, exponent) = if raw == 0 { (fraction, -1074) } else { (fraction | 1 << 52, raw - 1075) };
    if magnitude == 0 || raw == 0x7ff {
        return None;
    }
    let shift = magnitude.trailing_zeros();
    let odd = magnitude >> shift;
    Some((if x < 0.0 { -odd } else { odd }, exponent + i64::from(shift)))
}

/// The largest unit that all numbers are integer multiples of, and the multiples (unit 1 where all are zero).
///
/// # Claim
/// `numbers[i]` = unit `multiples[i]`, exactly. `None` where a multiple has more than 32 bits.
pub(super) fn multiples(numbers: &[f64]) -> Option<(Dyadic, Vec<i64>)> {
    let parts: Vec<Option<(i64, i64)>> = numbers.iter().map(|&x| odd_mantissa(x)).collect();
    let Some(least) = parts.iter().flatten().map(|p| p.1).min() else {
        return Some((Dyadic::from_int(1), vec![0; numbers.len()]));
    };
    let common = parts.iter().flatten().map(|p| p.0).fold(0i64, |g, m| g.gcd(&m));
    // All mantissas are odd, and so is their greatest common divisor: it divides a shifted mantissa if and only if it divides the mantissa.
    let multiple = |part: &Option<(i64, i64)>| {
        let Some((m, e)) = part else { return Some(0) };
        let (m, shift) = (m / common, e - least);
        (shift < 32 && m.abs() < 1 << 31 && (m << shift).abs() < 1 << 31).then_some(m << shift)
    };
    let multiples = parts.iter().map(multiple).collect::<Option<Vec<i64>>>()?;
    let power = Dyadic::from_f64(power_of_two(least))?;
    Some((&Dyadic::from_int(common) * &power, multiples))
}

/// The real number unit n + offset for each integer n; the unit is positive.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub unit: Dyadic,
    pub offset: Dyadic,
    /// Unit and offset as integers times 2^exponent, where they are small.
    small: Option<(i128, i128, i64)>,
}

impl Line {
    pub fn new(unit: Dyadic, offset: Dyadic) -> Self {
        let exponent = if offset.signum() == 0 { unit.parts().1 } else { unit.parts().1.min(offset.parts().1) };
        let small = |d: &Dyadic| {
            let shift = if d.signum() == 0 { 0 } else { d.parts().1 - exponent };
            shifted(d.parts().0.to_i128()?, shift)
        };
        let small = small(&unit).zip(small(&offset)).map(|(u, o)| (u, o, exponent));
        Line { unit, offset, small }
    }

    /// The smallest integer n with unit n + offset >= cut (> where the cut is strict).
    pub fn first(&self, cut: Cut) -> BigInt {
        match self.first_small(cut) {
            Some(n) => BigInt::from(n),
            None => self.first_big(cut),
        }
    }

    /// [`Self::first`] within [lo, hi + 1]: `lo` where it is not above, `hi + 1` where it is above `hi`.
    pub fn first_within(&self, cut: Cut, lo: i64, hi: i64) -> i64 {
        match self.first_small(cut) {
            Some(n) => n.clamp(lo.into(), i128::from(hi) + 1) as i64,
            None => self.first_big(cut).clamp(BigInt::from(lo), BigInt::from(hi) + 1).to_i64().unwrap_or(hi + 1),
        }
    }

    /// A nearby number of the real place of a cut: a hint.
    pub fn place_near(&self, cut: Cut) -> f64 {
        (cut.at - self.offset.to_f64()) / self.unit.to_f64()
    }

    fn first_small(&self, cut: Cut) -> Option<i128> {
        let (unit, offset, exponent) = self.small?;
        let (at, at_exponent) = odd_mantissa(cut.at).unwrap_or((0, exponent));
        let lowest = exponent.min(at_exponent);
        let (unit, offset) = (shifted(unit, exponent - lowest)?, shifted(offset, exponent - lowest)?);
        let rest = shifted(at.into(), at_exponent - lowest)?.checked_sub(offset)?;
        Some(first_multiple(rest, unit, cut.strict))
    }

    fn first_big(&self, cut: Cut) -> BigInt {
        // Local invariant: cuts are finite.
        let rest = &Dyadic::from_f64(cut.at).unwrap_or_else(Dyadic::zero) - &self.offset;
        let ((r, re), (u, ue)) = (rest.parts(), self.unit.parts());
        let lowest = re.min(ue);
        let (rest, unit) = (r << (re - lowest) as usize, u << (ue - lowest) as usize);
        let (quotient, remainder) = rest.div_mod_floor(&unit);
        if remainder == BigInt::from(0) && !cut.strict { quotient } else { quotient + 1 }
    }
}

/// x 2^shift, where it keeps a wide margin to overflow.
fn shifted(x: i128, shift: i64) -> Option<i128> {
    let room = i64::from(x.unsigned_abs().leading_zeros()) - 3;
    (shift >= 0 && shift < room).then(|| x << shift).or((x == 0).then_some(0))
}

/// The smallest n with n unit >= rest (> where strict).
fn first_multiple(rest: i128, unit: i128, strict: bool) -> i128 {
    // A quotient in binary64 is a guess that is nearly always right, and is looked at exactly.
    let guess = (rest as f64 / unit as f64).floor() as i128;
    let over = guess.checked_mul(unit).and_then(|product| rest.checked_sub(product));
    let (quotient, remainder) = match over {
        Some(over) if (0..unit).contains(&over) => (guess, over),
        _ => (rest.div_euclid(unit), rest.rem_euclid(unit)),
    };
    if remainder == 0 && !strict { quotient } else { quotient + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_the_largest() {
        let (unit, k) = multiples(&[0.75, -1.5, 0.0, 6.0]).unwrap();
        assert_eq!((unit.to_f64(), k), (0.75, vec![1, -2, 0, 8]));
        assert_eq!(multiples(&[0.0]).unwrap().1, [0]);
        assert!(multiples(&[1.0, 1e-12]).is_none());
        assert_eq!(multiples(&[f64::from_bits(3), f64::from_bits(6)]).unwrap().1, [1, 2]);
    }

    proptest! {
        #[test]
        fn weights_are_found_again(scale in 1e-6f32..1e3, q in proptest::collection::vec(-32767i64..32768, 1..20)) {
            let numbers: Vec<f64> = q.iter().map(|&q| f64::from(scale) * q as f64).collect();
            let (unit, k) = multiples(&numbers).unwrap();
            for (x, k) in numbers.iter().zip(&k) {
                prop_assert_eq!(&unit * &Dyadic::from_int(*k), Dyadic::from_f64(*x).unwrap());
            }
            prop_assert!(k.iter().zip(&q).all(|(k, q)| k.abs() <= q.abs()));
        }

        #[test]
        fn both_ways_to_find_the_first_agree(
            u in 1e-9f32..1e3, s in 1e-6f32..1.0, offset in -1e3f32..1e3, at in -1e6f64..1e6, on in -1000i64..1000, exactly in any::<bool>(), strict in any::<bool>()
        ) {
            let unit = &Dyadic::from_f64(u.into()).unwrap() * &Dyadic::from_f64(s.into()).unwrap();
            let line = Line::new(unit, Dyadic::from_f64(offset.into()).unwrap());
            let place = (&(&line.unit * &Dyadic::from_int(on)) + &line.offset).to_f64();
            let cut = Cut { at: if exactly { place } else { at }, strict };
            let first = line.first_big(cut);
            if let Some(small) = line.first_small(cut) {
                prop_assert_eq!(BigInt::from(small), first.clone());
            }
            if let Some(n) = first.to_i64() {
                let at = Dyadic::from_f64(cut.at).unwrap();
                let crossed = |n: i64| {
                    let y = &(&line.unit * &Dyadic::from_int(n)) + &line.offset;
                    if strict { y > at } else { y >= at }
                };
                prop_assert!(crossed(n) && !crossed(n - 1));
            }
        }
    }
}
