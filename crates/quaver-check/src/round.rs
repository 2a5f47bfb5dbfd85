//! f64 on a stated side of the exact result.

/// Unit roundoff, 2^-53.
pub const U: f64 = 1.1102230246251565e-16;

/// A value not below a + b; a + b where that is exact.
///
/// # Why
/// The error of a rounded sum is a float that two-sum finds exactly unless something overflows; then the step up is taken.
pub fn add_up(a: f64, b: f64) -> f64 {
    let sum = a + b;
    let part = sum - a;
    let lost = (a - (sum - part)) + (b - part);
    if lost <= 0.0 { sum } else { sum.next_up() }
}

/// A value not above a + b; a + b where that is exact.
pub fn add_down(a: f64, b: f64) -> f64 {
    -add_up(-a, -b)
}

/// A value not below a b; a b where that is exact and not tiny.
///
/// # Why
/// A fused operation gives the error of a product exactly where it is not below 2^-1000; below that the step up is taken.
pub fn mul_up(a: f64, b: f64) -> f64 {
    let product = a * b;
    if a == 0.0 || b == 0.0 {
        return 0.0;
    }
    let lost = a.mul_add(b, -product);
    if lost <= 0.0 && product.abs() > 1e-280 { product } else { product.next_up() }
}

/// A value not above a b; a b where that is exact and not tiny.
pub fn mul_down(a: f64, b: f64) -> f64 {
    -mul_up(-a, b)
}

/// A value not below n u / (1 - n u), for n < 2^40.
///
/// # Why
/// n u <= 2^-13, so 1 / (1 - n u) <= 1 + 2^-12; the product is rounded up by the last step.
pub fn gamma(n: usize) -> f64 {
    assert!(n < 1 << 40, "{n} terms");
    (n as f64 * U * (1.0 + 2.44140625e-4)).next_up()
}

/// A value not below a sum of products of magnitudes that was computed with at most n roundings on any path.
///
/// # Why
/// computed >= exact (1 - gamma(n)) - n 2^-1074, the latter for products that underflow.
pub fn at_least(computed: f64, n: usize) -> f64 {
    (computed * (1.0 + 2.0 * gamma(n + 2)) + (n + 2) as f64 * f64::MIN_POSITIVE).next_up()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rational::Rational;
    use proptest::prelude::*;
    use std::ops::{Add, Mul};

    fn exact(x: f64) -> Rational {
        Rational::from_f64(x).unwrap()
    }

    proptest! {
        #[test]
        fn directed_operations_are_on_their_side(a in -1e200f64..1e200, b in -1e100f64..1e100) {
            let (sum, product) = (exact(a).add(&exact(b)), exact(a).mul(&exact(b)));
            prop_assert!(exact(add_down(a, b)) <= sum && sum <= exact(add_up(a, b)));
            prop_assert!(exact(mul_down(a, b)) <= product && product <= exact(mul_up(a, b)));
        }

        #[test]
        fn tiny_products_too(a in -1e-150f64..1e-150, b in -1e-160f64..1e-160) {
            let product = exact(a).mul(&exact(b));
            prop_assert!(exact(mul_down(a, b)) <= product && product <= exact(mul_up(a, b)));
        }

        #[test]
        fn sums_of_magnitudes_are_covered(terms in proptest::collection::vec((0.0f64..1e9, 0.0f64..1e-3), 0..60)) {
            let computed: f64 = terms.iter().map(|(a, b)| a * b).sum();
            let sum = terms.iter().fold(exact(0.0), |s, (a, b)| s.add(&exact(*a).mul(&exact(*b))));
            prop_assert!(exact(at_least(computed, terms.len() + 1)) >= sum);
        }
    }

    #[test]
    fn integers_stay() {
        assert_eq!((add_up(3.0, 4.0), mul_down(3.0, -4.0), add_down(0.5, 0.25)), (7.0, -12.0, 0.75));
    }
}
