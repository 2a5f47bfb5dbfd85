//! Boxes whose elements have a sum within bounds: where a functional is smallest.

use super::Bounds;
use super::backward::{Functionals, Sums};
use crate::net::Patch;
use crate::net::gemm::vectorized;
use crate::num::round::U64;
use crate::property::Region;

/// Bounds on the exact sum of all elements of a net's input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Total {
    /// Not above the sum.
    pub lo: f64,
    /// Not below the sum.
    pub hi: f64,
}

fn sum_and_size(x: &[f64]) -> (f64, f64) {
    x.iter().fold((0.0, 0.0), |(sum, size), v| (sum + v, size + v.abs()))
}

/// Where in a patch each of n elements is, if it is there.
fn places(c: &Patch, n: usize) -> Vec<Option<usize>> {
    let mut places = vec![None; n];
    c.elements.iter().enumerate().for_each(|(k, &e)| places[e as usize] = Some(k));
    places
}

impl Total {
    /// Whether the exact sum of some elements is surely within the bounds.
    ///
    /// # Rounding
    /// A computed sum of n numbers is off by less than n 2^-53 times the sum of their magnitudes.
    pub(crate) fn contains(self, x: &[f64]) -> bool {
        let is_integral = x.iter().all(|v| v.fract() == 0.0 && v.abs() < 2f64.powi(32));
        let (sum, size) = sum_and_size(x);
        let error = if is_integral { 0.0 } else { size * x.len() as f64 * f64::EPSILON };
        self.lo <= sum - error && sum + error <= self.hi
    }

    /// Whether some element of a box may have a sum within the bounds: not if all sums are surely outside.
    ///
    /// # Rounding
    /// As [`Self::contains`].
    pub(crate) fn meets(self, region: &Region) -> bool {
        let (least, most) = (sum_and_size(&region.lo), sum_and_size(&region.hi));
        let error = (least.1 + most.1) * region.lo.len() as f64 * f64::EPSILON;
        !(least.0 - error > self.hi || most.0 + error < self.lo)
    }

    /// For each row of coefficients, the multiplier of the sum with which [`Functionals::concretize_total`] gives the best bound: a hint.
    ///
    /// # Why
    /// The minimum over the box with a sum in [lo, hi] is a fractional knapsack. Its dual is the coefficient of the element that is filled
    /// last, or zero where the sum is no restriction.
    pub(super) fn multipliers(self, c: &Patch, x: &Bounds) -> Vec<f64> {
        let least: f64 = x.lo.iter().sum();
        let most: f64 = x.hi.iter().sum();
        let mut present = vec![false; x.lo.len()];
        c.elements.iter().for_each(|&e| present[e as usize] = true);
        let absent: f64 = (0..x.lo.len()).filter(|&i| !present[i]).map(|i| x.hi[i] - x.lo[i]).sum();
        (0..c.rows).map(|r| self.multiplier(c, r, x, (least, most, absent))).collect()
    }

    fn multiplier(self, c: &Patch, row: usize, x: &Bounds, (least, most, absent): (f64, f64, f64)) -> f64 {
        let coefficient = |k: usize| c.data[k * c.rows + row];
        let width = |k: usize| x.hi[c.elements[k] as usize] - x.lo[c.elements[k] as usize];
        let (mut negative, mut free) = (0.0, absent);
        for k in 0..c.elements.len() {
            match coefficient(k) {
                v if v < 0.0 => negative += width(k),
                0.0 => free += width(k),
                _ => {}
            }
        }
        // The sum where everything negative is at its upper end, and where elements that do not count are, too.
        let (without, with) = (least + negative, least + negative + free);
        let (side, mut over) = match () {
            () if without > self.hi => (-1.0, without - self.hi),
            () if with < self.lo.min(most) => (1.0, self.lo.min(most) - with),
            () => return 0.0,
        };
        let mut order: Vec<(f64, f64)> =
            (0..c.elements.len()).map(|k| (side * coefficient(k), width(k))).filter(|o| o.0 > 0.0).collect();
        order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        for (v, width) in &order {
            over -= width;
            if over <= 0.0 {
                return side * v;
            }
        }
        order.last().map_or(0.0, |o| side * o.0)
    }

    /// The point of the box with such a sum that makes each row smallest; where several do, one of them: a hint.
    pub(super) fn find_corner(self, c: &Patch, x: &Bounds, value: &mut [f64]) {
        let multipliers = self.multipliers(c, x);
        let n = x.lo.len();
        let places = places(c, n);
        let coefficient = |i: usize, row: usize| places[i].map_or(0.0, |k| c.data[k * c.rows + row]);
        for (row, &multiplier) in multipliers.iter().enumerate() {
            let (mut sum, mut open) = (0.0, 0.0);
            for i in 0..n {
                let d = coefficient(i, row) - multiplier;
                value[i * c.rows + row] = if d < 0.0 { x.hi[i] } else { x.lo[i] };
                sum += value[i * c.rows + row];
                open += if d == 0.0 { x.hi[i] - x.lo[i] } else { 0.0 };
            }
            // Elements that do not matter share what is missing; the middle where nothing is.
            let aim = if multiplier == 0.0 {
                (sum + open / 2.0).clamp(self.lo, self.hi)
            } else if multiplier < 0.0 {
                self.hi
            } else {
                self.lo
            };
            let share = if open > 0.0 { ((aim - sum) / open).clamp(0.0, 1.0) } else { 0.0 };
            for i in (0..n).filter(|&i| coefficient(i, row) == multiplier) {
                value[i * c.rows + row] = x.lo[i] + share * (x.hi[i] - x.lo[i]);
            }
        }
    }
}

impl Functionals {
    /// Replaces the input by the point of its box, with a sum in the total, that makes each functional smallest.
    ///
    /// # Claim
    /// For every x of the box with lo <= sum x <= hi, c x >= what is added.
    ///
    /// # Why
    /// For any m, c x = sum_i (c_i - m) x_i + m sum_i x_i, and each product is at least the smaller of its values at both ends.
    ///
    /// # Rounding
    /// c_i - m is rounded once, its product once, and summed with all others.
    pub(super) fn concretize_total(&mut self, c: &Patch, b: &Bounds, total: Total) {
        let multipliers = total.multipliers(c, b);
        let n = b.lo.len();
        let gamma = self.gamma(n + 2);
        let mut sums = Sums::new(self.rows);
        let places = places(c, n);
        let zeros = vec![0.0; self.rows];
        vectorized(
            #[inline(always)]
            || {
                for (i, &place) in places.iter().enumerate() {
                    let run = place.map_or(&zeros[..], |k| &c.data[k * c.rows..][..c.rows]);
                    let (lo, hi, weight) = (b.lo[i], b.hi[i], (gamma + 2.0 * U64) * b.magnitude(i));
                    for (((c, m), sum), error) in run.iter().zip(&multipliers).zip(&mut sums.sum).zip(&mut sums.error) {
                        let d = c - m;
                        let (low, high) = (d * lo, d * hi);
                        *sum += if low < high { low } else { high };
                        *error += d.abs() * weight;
                    }
                }
                for ((m, sum), error) in multipliers.iter().zip(&mut sums.sum).zip(&mut sums.error) {
                    let (low, high) = (m * total.lo, m * total.hi);
                    *sum += if low < high { low } else { high };
                    *error += gamma * low.abs().max(high.abs());
                }
            },
        );
        self.add(&sums);
    }
}
