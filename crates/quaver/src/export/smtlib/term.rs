//! Integers as bit vectors.

use num_bigint::{BigInt, Sign};
use num_traits::{One, Signed, Zero};

use crate::num::Dyadic;

/// An integer of a formula: a constant, or a name of a two's complement bit vector that holds every integer between two bounds.
#[derive(Clone, Debug)]
pub struct Term {
    name: String,
    width: u64,
    /// Lower bound.
    pub lo: BigInt,
    /// Upper bound.
    pub hi: BigInt,
}

/// The smallest width of two's complement that holds all integers between two bounds.
pub fn width(lo: &BigInt, hi: &BigInt) -> u64 {
    let of = |n: &BigInt| if n.is_negative() { (-n - 1u8).bits() } else { n.bits() };
    of(lo).max(of(hi)) + 1
}

impl Term {
    /// A name that was defined with this width, which holds the bounds.
    pub fn named(name: String, width: u64, lo: BigInt, hi: BigInt) -> Term {
        Term { name, width, lo, hi }
    }

    /// A number.
    pub fn constant(n: BigInt) -> Term {
        Term { name: String::new(), width: width(&n, &n), lo: n.clone(), hi: n }
    }

    /// The number, if there is only one.
    pub fn value(&self) -> Option<&BigInt> {
        (self.lo == self.hi).then_some(&self.lo)
    }

    /// Bits that hold it.
    pub fn width(&self) -> u64 {
        self.width
    }

    /// The term modulo 2^width.
    pub fn at(&self, width: u64) -> String {
        if let Some(n) = self.value() {
            return literal(n, width);
        }
        match width {
            w if w == self.width => self.name.clone(),
            w if w > self.width => format!("((_ sign_extend {}) {})", w - self.width, self.name),
            w => format!("((_ extract {} 0) {})", w - 1, self.name),
        }
    }

    /// The term times a number, modulo 2^width.
    pub fn times(&self, factor: &BigInt, width: u64) -> String {
        match () {
            () if factor.is_one() => self.at(width),
            () if (-factor).is_one() => format!("(bvneg {})", self.at(width)),
            () => format!("(bvmul {} {})", self.at(width), literal(factor, width)),
        }
    }
}

/// An integer modulo 2^width.
pub fn literal(n: &BigInt, width: u64) -> String {
    let modulus = BigInt::one() << width as usize;
    format!("(_ bv{} {width})", num_integer::Integer::mod_floor(n, &modulus))
}

/// A sum modulo 2^width as a balanced tree of binary sums.
pub fn sum(parts: &[String], width: u64) -> String {
    match parts {
        [] => literal(&BigInt::zero(), width),
        [only] => only.clone(),
        _ => {
            let (left, right) = parts.split_at(parts.len() / 2);
            format!("(bvadd {} {})", sum(left, width), sum(right, width))
        }
    }
}

/// Whether a term is at least a number, for a number within the term's bounds.
pub fn at_least(term: &Term, n: &BigInt) -> String {
    format!("(bvsge {} {})", term.at(term.width()), literal(n, term.width()))
}

/// x 2^-exponent, rounded down.
pub fn floor(x: &Dyadic, exponent: i64) -> BigInt {
    let (m, e) = x.parts();
    // Shifting a negative integer to the right rounds down.
    if m.sign() == Sign::NoSign {
        BigInt::zero()
    } else if e >= exponent {
        m << (e - exponent) as usize
    } else {
        m >> (exponent - e) as usize
    }
}

/// x 2^-exponent, rounded up.
pub fn ceil(x: &Dyadic, exponent: i64) -> BigInt {
    -floor(&-x, exponent)
}

/// A finite float as an exact number.
pub fn exact(x: f64) -> Dyadic {
    // Local invariant: constants and bounds were checked to be finite.
    Dyadic::from_f64(x).unwrap_or_else(Dyadic::zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_the_smallest() {
        for (lo, hi, bits) in [(0, 0, 1), (-1, 0, 1), (0, 1, 2), (-2, 1, 2), (-128, 127, 8), (-129, 0, 9), (0, 128, 9)]
        {
            assert_eq!(width(&lo.into(), &hi.into()), bits, "{lo} {hi}");
        }
    }

    #[test]
    fn rounding_to_a_grid() {
        for (x, down, up) in [(0.75, 1, 2), (-0.75, -2, -1), (0.5, 1, 1), (3.0, 6, 6), (0.0, 0, 0)] {
            assert_eq!((floor(&exact(x), -1), ceil(&exact(x), -1)), (down.into(), up.into()), "{x}");
        }
        assert_eq!((floor(&exact(5.0), 1), ceil(&exact(5.0), 1)), (2.into(), 3.into()));
    }
}
