//! From an integer accumulator to the next integer: a formula in binary64 or float32, proved equal to the net's own steps.
//!
//! # Claim
//! For every accumulator n that the layer can reach, [`Formula::value`] is the integer that the net denotes, less its smallest one.
//!
//! # Why
//! The net's integer is non-decreasing in n, so it is given by its thresholds t(v): it is at least v if and only if n >= t(v). The formula is
//! non-decreasing as well: n is exact in binary64 (|n| < 2^53), and a product with a non-negative factor, a sum, a conversion to float32, a clip and a rounding
//! to the nearest integer, each rounded once, are non-decreasing. So it is enough that its value is below v at t(v) - 1 and not below v at t(v), for every
//! v; [`Formula::exceptions`]
//! executes the formula there. Where t(v) is not within reach, the ends of the reach are looked at instead. Where the formula reaches v one accumulator
//! sooner or later (with 16 bits, a few of many thousand thresholds are nearer to a tie than binary64 can tell), that accumulator is an exception, whose
//! value is corrected.
//!
//! # Rounding
//! The product and the sum are rounded once each (Rust contracts nothing). Adding 1.5 2^52 (in float32, 1.5 2^23) rounds to the nearest integer, ties to even,
//! and leaves the integer in the last bits.

use super::thresholds::Thresholds;

/// Most accumulators of a channel whose values are corrected after the formula.
pub(super) const EXCEPTIONS: usize = 16;

/// 1.5 2^52: adding it rounds to the nearest integer.
pub(in crate::guard) const MAGIC: f64 = 6_755_399_441_055_744.0;

/// 1.5 2^23.
const MAGIC_SINGLE: f32 = 12_582_912.0;

/// v within [lo, hi] rounded to the nearest integer, ties to even, modulo 2^16 (`lo` for NaN).
#[inline(always)]
pub(super) fn rounded(v: f64, lo: f64, hi: f64) -> u16 {
    let v = if v > lo { v } else { lo };
    let v = if v < hi { v } else { hi };
    (v + MAGIC).to_bits() as u16
}

/// [`rounded`] in float32, for ends of at most 2^21 in magnitude.
#[inline(always)]
pub(super) fn rounded_single(v: f32, lo: f32, hi: f32) -> u16 {
    let v = if v > lo { v } else { lo };
    let v = if v < hi { v } else { hi };
    (v + MAGIC_SINGLE).to_bits() as u16
}

/// What a formula computes before it clips and rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::guard) enum Arithmetic {
    /// factor n + shift, in binary64.
    Double,
    /// factor (n + shift), the sum rounded to float32, the product in float32: as runtimes scale accumulators.
    Single,
}

/// rne(clip(what [`Arithmetic`] says)) + lift, from 0 to `high`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Formula {
    pub arithmetic: Arithmetic,
    pub factor: f64,
    pub shift: f64,
    /// Largest value.
    pub high: u16,
    /// Added behind the rounding, so that ties go to the side of the zero point's parity.
    pub lift: u16,
}

/// A formula and its exceptions, if one was found.
pub(super) type Fit = Option<(Formula, Vec<(i64, u16)>)>;

impl Formula {
    /// The value at an accumulator.
    #[inline(always)]
    pub fn value(&self, n: f64) -> u16 {
        let (lo, hi) = (-f64::from(self.lift), f64::from(self.high) - f64::from(self.lift));
        let value = match self.arithmetic {
            Arithmetic::Double => rounded(n * self.factor + self.shift, lo, hi),
            Arithmetic::Single => rounded_single((n + self.shift) as f32 * self.factor as f32, lo as f32, hi as f32),
        };
        value.wrapping_add(self.lift)
    }

    /// The accumulators at which the formula is not the function with these thresholds, with the function's values (see the module's claim);
    /// `None` if they are many.
    pub fn exceptions(&self, thresholds: &Thresholds) -> Option<Vec<(i64, u16)>> {
        let Thresholds { lo, hi, below, inner } = thresholds;
        let at = |n: i64| self.value(n as f64);
        let mut found = vec![];
        for (&t, v) in inner.iter().zip(thresholds.values()) {
            if at(t) < v {
                // The formula reaches v one later.
                let is_next = t < *hi && at(t + 1) >= v;
                found.push((t, thresholds.value(t)));
                is_next.then_some(())?;
            }
            if at(t - 1) >= v {
                // One sooner.
                let is_before = t - 1 > *lo && at(t - 2) < v;
                found.push((t - 1, thresholds.value(t - 1)));
                is_before.then_some(())?;
            }
            (found.len() <= EXCEPTIONS).then_some(())?;
        }
        let ends_fit = at(*lo) >= *below && at(*hi) <= below + inner.len() as u16;
        ends_fit.then_some(found)
    }

    /// The candidate in binary64 with the fewest exceptions.
    pub fn fit(thresholds: &Thresholds, slope: f64, high: u16, lift: u16) -> Fit {
        let formula = |factor, shift| Formula { arithmetic: Arithmetic::Double, factor, shift, high, lift };
        if thresholds.inner.is_empty() {
            let constant = formula(0.0, f64::from(thresholds.below) - f64::from(lift));
            return constant.exceptions(thresholds).map(|e| (constant, e));
        }
        let mut best: Fit = None;
        let mut consider = |slope: f64, (least, most): (f64, f64)| {
            for shift in [least + (most - least) / 2.0, least, most] {
                let candidate = formula(slope, shift);
                let Some(exceptions) = candidate.exceptions(thresholds) else { continue };
                if best.as_ref().is_none_or(|b| exceptions.len() < b.1.len()) {
                    best = Some((candidate, exceptions));
                }
                if best.as_ref().is_some_and(|b| b.1.is_empty()) {
                    return true;
                }
            }
            false
        };
        if !consider(slope, thresholds.shifts(slope, lift)) {
            let slope = thresholds.roomiest(lift);
            consider(slope, thresholds.shifts(slope, lift));
        }
        best
    }

    /// The candidate in float32 with the fewest exceptions; `base` is the shift, and an accumulator of its opposite becomes `lift`.
    pub fn fit_single(thresholds: &Thresholds, base: f64, high: u16, lift: u16) -> Fit {
        let formula = |factor, shift| Formula { arithmetic: Arithmetic::Single, factor, shift, high, lift };
        if thresholds.inner.is_empty() {
            // What is small beside the shift is rounded away.
            let shift = (f64::from(thresholds.below) - f64::from(lift)) * 2f64.powi(45);
            let constant = formula(2f64.powi(-45), shift);
            return constant.exceptions(thresholds).map(|e| (constant, e));
        }
        let candidates = thresholds.factors(base, lift).map(|factor| formula(factor, base));
        let mut fits = candidates.filter_map(|f| f.exceptions(thresholds).map(|e| (f, e)));
        let first = fits.next()?;
        if first.1.is_empty() {
            return Some(first);
        }
        let best = fits.try_fold(first, |best, fit| {
            // An error ends the search.
            if fit.1.is_empty() { Err(fit) } else { Ok(if fit.1.len() < best.1.len() { fit } else { best }) }
        });
        Some(best.unwrap_or_else(|fit| fit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_constant_is_found_out() {
        // rne(n / 16) + 3.
        let inner = (1..=255).map(|v: i64| 16 * (v - 3) - 8 + (v - 3).rem_euclid(2)).collect();
        let thresholds = Thresholds { lo: -5000, hi: 5000, below: 0, inner };
        let (right, exceptions) = Formula::fit(&thresholds, 1.0 / 16.0, 255, 1).unwrap();
        assert!(exceptions.is_empty());
        let off = 1.0 / 32.0;
        for wrong in [
            Formula { shift: right.shift + off, ..right },
            Formula { shift: right.shift - off, ..right },
            Formula { factor: right.factor * (1.0 + 1e-3), ..right },
            Formula { lift: 0, shift: right.shift + 1.0, ..right },
            Formula { high: 254, ..right },
        ] {
            let differs = (-5000..=5000).any(|n: i64| wrong.value(n as f64) != thresholds.value(n));
            assert!(differs && wrong.exceptions(&thresholds).is_none_or(|e| !e.is_empty()), "{wrong:?}");
        }
    }

    #[test]
    fn exceptions_are_where_a_formula_is_off_by_one_accumulator() {
        let thresholds = Thresholds { lo: -100, hi: 100, below: 0, inner: vec![0, 11, 20, 29, 40] };
        let (formula, exceptions) = Formula::fit(&thresholds, 0.1, 5, 0).unwrap();
        assert!(!exceptions.is_empty());
        for n in -100..=100 {
            let value = exceptions.iter().find(|e| e.0 == n).map_or(formula.value(n as f64), |e| e.1);
            assert_eq!(value, thresholds.value(n), "at {n}");
        }
    }

    /// rne(R(R(n + base) factor)) + zero, as a runtime computes it.
    #[test]
    fn channels_that_never_change_have_formulas_in_float32() {
        for (below, zero) in [(0, 0), (255, 0), (7, 128), (255, 255)] {
            let thresholds = Thresholds { lo: -30_000_000, hi: 30_000_000, below, inner: vec![] };
            let (formula, exceptions) = Formula::fit_single(&thresholds, 3.0, 255, zero).unwrap();
            assert!(exceptions.is_empty() && [-30_000_000.0, 0.0, 3e7].iter().all(|&n| formula.value(n) == below));
        }
    }
}
