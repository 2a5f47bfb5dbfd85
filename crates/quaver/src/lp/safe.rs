//! Rigorous bounds from any dual vector.

use super::Program;
use crate::num::round::{add_down, mul_down, mul_up, sub_down, sub_up};

/// A lower bound on the objective over all points of the program; minus infinity where the vector proves nothing.
///
/// # Claim
/// For every x within the column bounds that satisfies every row, c x >= the result, for any vector `duals` at all.
///
/// # Why
/// c x = y (A x) + (c - A'y) x. The first part is at least the sum of y_i times that side of row i which y_i's sign asks for, lo for y_i > 0
/// and hi for y_i < 0; a y_i that asks for an infinite side is set to 0. The second is at least the sum over columns of the least product
/// of a reduced cost and a value of the column's box.
///
/// # Rounding
/// Every product and sum is rounded outward. A reduced cost is enclosed by two floats; the least product over a box is concave in the
/// reduced cost, so that one of the two ends attains it.
///
/// # Source
/// Neumaier and Shcherbina, Safe bounds in linear and mixed-integer linear programming (2004), section 3.
pub fn safe_bound(program: &Program, duals: &[f64]) -> f64 {
    bound(program, duals, |j| program.columns[j].cost)
}

/// Whether a vector proves that the program has no point.
///
/// # Claim
/// If true, no x within the column bounds satisfies every row, for any vector `ray` at all.
///
/// # Why
/// The objective 0 is 0 at every point; a lower bound on it above 0 leaves no point (see [`safe_bound`]). The negated vector is tried too,
/// so that a solver's sign convention does not matter.
pub fn safe_infeasible(program: &Program, ray: &[f64]) -> bool {
    let negated: Vec<f64> = ray.iter().map(|y| -y).collect();
    [ray, &negated].into_iter().any(|y| bound(program, y, |_| 0.0) > 0.0)
}

fn bound(program: &Program, duals: &[f64], cost: impl Fn(usize) -> f64) -> f64 {
    let mut reduced: Vec<(f64, f64)> = (0..program.columns.len()).map(|j| (cost(j), cost(j))).collect();
    let mut sum = 0.0;
    for (row, &y) in program.rows().zip(duals) {
        let side = if y > 0.0 { row.lo } else { row.hi };
        if y == 0.0 || !y.is_finite() || !side.is_finite() {
            continue;
        }
        sum = add_down(sum, mul_down(y, side));
        for (j, a) in row.terms() {
            let (lo, hi) = reduced[j];
            reduced[j] = (sub_down(lo, mul_up(y, a)), sub_up(hi, mul_down(y, a)));
        }
    }
    for (column, (lo, hi)) in program.columns.iter().zip(reduced) {
        let (a, b) = (least(lo, column.lo, column.hi), least(hi, column.lo, column.hi));
        // Not f64::min, which would lose a NaN.
        sum = add_down(sum, if a <= b { a } else { b });
        if lo.is_nan() || hi.is_nan() {
            return f64::NEG_INFINITY;
        }
    }
    if sum.is_nan() { f64::NEG_INFINITY } else { sum }
}

/// A value not above the least product of a number and a value between two bounds.
fn least(d: f64, lo: f64, hi: f64) -> f64 {
    if d == 0.0 { 0.0 } else { mul_down(d, if d > 0.0 { lo } else { hi }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lp::Column;
    use crate::num::Dyadic;
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn exact(x: f64) -> Dyadic {
        Dyadic::from_f64(x).expect("finite")
    }

    /// Numbers of very different sizes, zeros and integers among them.
    fn number(rng: &mut StdRng) -> f64 {
        match rng.random_range(0..5) {
            0 => 0.0,
            1 => f64::from(rng.random_range(-9i32..=9)),
            2 => rng.random_range(-1.0..1.0) * 2f64.powi(rng.random_range(-60..60)),
            _ => rng.random_range(-3.0..3.0),
        }
    }

    fn random_program(rng: &mut StdRng) -> Program {
        let mut p = Program::new();
        for _ in 0..rng.random_range(1..4) {
            let lo = rng.random_range(-3i32..3);
            let hi = lo + rng.random_range(0..4);
            p.add_column(Column { lo: lo.into(), hi: hi.into(), cost: number(rng), integer: true });
        }
        for _ in 0..rng.random_range(0..5) {
            let terms: Vec<(usize, f64)> = (0..p.columns.len()).map(|j| (j, number(rng))).collect();
            let side = number(rng);
            match rng.random_range(0..4) {
                0 => p.add_row(f64::NEG_INFINITY, &terms, side),
                1 => p.add_row(side, &terms, f64::INFINITY),
                2 => p.add_row(side, &terms, side + number(rng).abs()),
                _ => p.add_row(-1.0, &terms, 2.0),
            }
        }
        p
    }

    /// Every integer point of the box.
    fn points(p: &Program) -> Vec<Vec<f64>> {
        p.columns.iter().fold(vec![vec![]], |all, c| {
            let values = c.lo as i64..=c.hi as i64;
            all.iter().flat_map(|x| values.clone().map(move |v| [&x[..], &[v as f64]].concat())).collect()
        })
    }

    fn sum(terms: impl Iterator<Item = (f64, f64)>) -> Dyadic {
        terms.fold(Dyadic::zero(), |s, (a, x)| &s + &(&exact(a) * &exact(x)))
    }

    fn feasible(p: &Program, x: &[f64]) -> bool {
        p.rows().all(|r| {
            let value = sum(r.terms().map(|(j, a)| (a, x[j])));
            (r.lo == f64::NEG_INFINITY || exact(r.lo) <= value) && (r.hi == f64::INFINITY || value <= exact(r.hi))
        })
    }

    /// The bound in exact arithmetic: sum of y b, plus the least (c - A'y) x over the box.
    fn lagrangian(p: &Program, duals: &[f64]) -> Dyadic {
        let used = |(row, y): (crate::lp::Row<'_>, &f64)| if *y > 0.0 { row.lo } else { row.hi };
        let sides: Vec<f64> = p.rows().zip(duals).map(used).collect();
        let y: Vec<f64> = duals.iter().zip(&sides).map(|(y, b)| if b.is_finite() { *y } else { 0.0 }).collect();
        let mut total = sum(y.iter().zip(&sides).filter(|(_, b)| b.is_finite()).map(|(y, b)| (*y, *b)));
        for (j, c) in p.columns.iter().enumerate() {
            let column =
                p.rows().zip(&y).flat_map(|(r, y)| r.terms().filter(move |t| t.0 == j).map(move |t| (*y, t.1)));
            let reduced = &exact(c.cost) - &sum(column);
            let ends = [&reduced * &exact(c.lo), &reduced * &exact(c.hi)];
            total = &total + &ends.into_iter().min().expect("two ends");
        }
        total
    }

    /// The best duals that a coordinate search finds: bounds near the optimum, where a wrong rounding would show.
    fn good_duals(p: &Program, rng: &mut StdRng) -> Vec<f64> {
        let mut y: Vec<f64> = (0..p.row_count()).map(|_| number(rng)).collect();
        for _ in 0..60 {
            let Some(i) = (!y.is_empty()).then(|| rng.random_range(0..y.len())) else { break };
            let mut other = y.clone();
            other[i] = number(rng);
            if safe_bound(p, &other) > safe_bound(p, &y) {
                y = other;
            }
        }
        y
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn no_point_is_below_the_bound(seed in any::<u64>()) {
            let mut rng = StdRng::seed_from_u64(seed);
            let p = random_program(&mut rng);
            let random: Vec<f64> = (0..p.row_count()).map(|_| number(&mut rng)).collect();
            let feasible: Vec<Vec<f64>> = points(&p).into_iter().filter(|x| feasible(&p, x)).collect();
            for y in [random, good_duals(&p, &mut rng)] {
                let bound = safe_bound(&p, &y);
                prop_assert!(bound == f64::NEG_INFINITY || exact(bound) <= lagrangian(&p, &y));
                for x in &feasible {
                    let objective = sum(p.columns.iter().zip(x).map(|(c, x)| (c.cost, *x)));
                    prop_assert!(bound == f64::NEG_INFINITY || exact(bound) <= objective);
                }
                prop_assert!(feasible.is_empty() || !safe_infeasible(&p, &y));
            }
        }
    }

    #[test]
    fn duals_of_an_optimum_give_the_optimum() {
        // min x + y with x + 2y >= 3 in [0, 4]^2: 1.5 at (0, 1.5), dual 1/2.
        let mut p = Program::new();
        let column = Column { lo: 0.0, hi: 4.0, cost: 1.0, integer: false };
        let (x, y) = (p.add_column(column), p.add_column(column));
        p.add_row(3.0, &[(x, 1.0), (y, 2.0)], f64::INFINITY);
        assert_eq!(safe_bound(&p, &[0.5]), 1.5);
        // The wrong sign asks for the infinite side and counts as zero.
        assert_eq!(safe_bound(&p, &[-0.5]), 0.0);
        assert_eq!(safe_bound(&p, &[f64::NAN]), 0.0);
        p.add_row(13.0, &[(x, 1.0), (y, 2.0)], f64::INFINITY);
        assert!(safe_infeasible(&p, &[0.0, 1.0]) && safe_infeasible(&p, &[0.0, -1.0]));
        assert!(!safe_infeasible(&p, &[1.0, 0.0]));
    }

    #[test]
    fn nothing_is_proved_from_infinities() {
        let mut p = Program::new();
        let x = p.add_column(Column { lo: f64::NEG_INFINITY, hi: f64::INFINITY, cost: 1.0, integer: false });
        p.add_row(f64::MAX, &[(x, f64::MAX)], f64::INFINITY);
        assert_eq!(safe_bound(&p, &[f64::MAX]), f64::NEG_INFINITY);
        assert_eq!(safe_bound(&p, &[0.0]), f64::NEG_INFINITY);
    }
}
