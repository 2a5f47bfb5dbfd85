//! Directed rounding in `f64` and a-priori error constants.

/// Unit roundoff of binary64, 2^-53.
pub const U64: f64 = 1.1102230246251565e-16;
/// Unit roundoff of binary32, 2^-24.
pub const U32: f64 = 5.960464477539063e-8;
/// Below this magnitude the error of a product is no longer representable: 2^-960.
const TINY: f64 = 1.0261342003245941e-289;

/// A value not below a + b, and equal to it when the sum is exact.
///
/// # Why
/// Knuth's two-sum gives the exact error of the rounded sum (barring overflow); a positive error means it was rounded down.
pub fn add_up(a: f64, b: f64) -> f64 {
    let s = a + b;
    let t = s - a;
    let error = (a - (s - t)) + (b - t);
    if error > 0.0 || error.is_nan() { s.next_up() } else { s }
}

/// A value not above a + b, and equal to it when the sum is exact.
pub fn add_down(a: f64, b: f64) -> f64 {
    -add_up(-a, -b)
}

/// A value not below a - b.
pub fn sub_up(a: f64, b: f64) -> f64 {
    add_up(a, -b)
}

/// A value not above a - b.
pub fn sub_down(a: f64, b: f64) -> f64 {
    add_down(a, -b)
}

/// A value not below a * b, and equal to it when the product is exact.
///
/// # Why
/// fma(a, b, -p) is the exact error of p = a * b while p is far from the subnormal range; nearer to it we step up always.
pub fn mul_up(a: f64, b: f64) -> f64 {
    let p = a * b;
    if p.abs() < TINY {
        return if a == 0.0 || b == 0.0 { 0.0 } else { p.next_up() };
    }
    let error = f64::mul_add(a, b, -p);
    if error > 0.0 || error.is_nan() { p.next_up() } else { p }
}

/// A value not above a * b, and equal to it when the product is exact.
pub fn mul_down(a: f64, b: f64) -> f64 {
    -mul_up(-a, b)
}

/// a / b rounded upward.
pub fn div_up(a: f64, b: f64) -> f64 {
    (a / b).next_up()
}

/// a / b rounded downward.
pub fn div_down(a: f64, b: f64) -> f64 {
    (a / b).next_down()
}

/// A value not below n u / (1 - n u) with u = 2^-53: the relative error of a sum of n products in any order, with or
/// without fused multiply-add.
///
/// # Source
/// Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1 (any order of summation).
///
/// # Panics
/// If n is 2^40 or more.
pub fn gamma64(n: usize) -> f64 {
    assert!(n < 1 << 40, "a sum of {n} terms");
    // n * 2^-53 is exact; 1 / (1 - n 2^-53) <= 1 + 2^-12 for n < 2^40.
    (n as f64) * U64 * (1.0 + 2.44140625e-4)
}

/// A value not below n u / (1 - n u) with u = 2^-24; `None` where n u >= 1/2.
pub fn gamma32(n: usize) -> Option<f64> {
    let nu = (n as f64) * U32;
    // Three roundings, each covered by one step up.
    (nu < 0.5).then(|| (nu / (1.0 - nu).next_down()).next_up().next_up())
}

/// A value not below the sum of the products |a_i| |b_i|.
pub fn dot_abs_up(a: &[f64], b: &[f64]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(x, y)| (x * y).abs()).sum();
    inflate(sum, a.len() + 2)
}

/// A value not below the Euclidean norm of a.
pub fn norm_up(a: &[f64]) -> f64 {
    let sum: f64 = a.iter().map(|x| x * x).sum();
    inflate(sum, a.len() + 2).sqrt().next_up()
}

/// A value not below s, when `computed` is the result in `f64` of an s that sums non-negative terms through at most n
/// roundings on any path (products that underflowed are covered too).
///
/// # Claim
/// s <= computed (1 + gamma) + n 2^-1022.
pub fn inflate(computed: f64, n: usize) -> f64 {
    let relative = computed * (1.0 + 2.0 * gamma64(n + 2));
    (relative + (n as f64) * f64::MIN_POSITIVE).next_up()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::Dyadic;
    use proptest::prelude::*;

    fn exact(x: f64) -> Dyadic {
        Dyadic::from_f64(x).unwrap()
    }

    proptest! {
        #[test]
        fn directed_operations_enclose_the_exact_result(a in -1e200f64..1e200, b in -1e100f64..1e100) {
            let (sum, product) = (&exact(a) + &exact(b), &exact(a) * &exact(b));
            prop_assert!(exact(add_down(a, b)) <= sum && sum <= exact(add_up(a, b)));
            prop_assert!(exact(mul_down(a, b)) <= product && product <= exact(mul_up(a, b)));
        }

        #[test]
        fn small_products_are_enclosed(a in -1e-150f64..1e-150, b in -1e-160f64..1e-160) {
            let product = &exact(a) * &exact(b);
            prop_assert!(exact(mul_down(a, b)) <= product && product <= exact(mul_up(a, b)));
        }

        #[test]
        fn norms_and_dots_are_upper_bounds(a in proptest::collection::vec(-1e3f64..1e3, 1..50)) {
            let squares = a.iter().fold(Dyadic::zero(), |s, &x| &s + &(&exact(x) * &exact(x)));
            let norm = exact(norm_up(&a));
            prop_assert!(&norm * &norm >= squares);
            prop_assert!(exact(dot_abs_up(&a, &a)) >= squares);
        }
    }

    #[test]
    fn exact_integers_stay_exact() {
        assert_eq!(add_up(3.0, 4.0), 7.0);
        assert_eq!(mul_down(3.0, -4.0), -12.0);
    }

    #[test]
    fn gamma_covers_the_definition() {
        for n in [1usize, 100, 10_000] {
            let nu = n as f64 * U64;
            assert!(gamma64(n) >= nu / (1.0 - nu));
        }
        assert!(gamma32(1 << 24).is_none());
    }
}
