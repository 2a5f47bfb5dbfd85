//! From float32 inputs to the first integers of a network.
//!
//! # Claim
//! For every finite float32 x, and for both infinities as the limits of the finite ones, [`InputQuantizer::apply`] gives the integer that the net denotes,
//! less its
//! smallest one. NaN gives the smallest.
//!
//! # Why
//! As in `formula.rs`: the quotient by a positive scale, rounded once to binary64 or float32, and what follows are non-decreasing, and the formula is
//! executed at every threshold of the net's quantizer and at the float32 number before it, and at both infinities.

use super::cuts::Reached;
use super::formula::{rounded, rounded_single};
use crate::net::Cut;
use crate::num::float32;

/// How x is divided by the scale, and rounded.
#[derive(Clone, Copy, Debug)]
pub(in crate::guard) enum Quotient {
    /// x (1 / s), in float32.
    MultiplySingle(f32),
    /// x (1 / s), in binary64.
    Multiply(f64),
    /// x / s, in float32.
    Single(f32),
    /// x / s, in binary64.
    Double(f64),
}

/// rne(clip(quotient)) + zero.
#[derive(Clone, Copy, Debug)]
pub(in crate::guard) struct Formula {
    pub quotient: Quotient,
    /// What 0 becomes.
    pub zero: i64,
    pub high: u16,
}

impl Formula {
    #[inline(always)]
    fn values(&self, x: impl Iterator<Item = f32>, out: &mut [u16]) {
        let (zero, lo, hi) = (self.zero as u16, -self.zero as f64, (i64::from(self.high) - self.zero) as f64);
        let single = |v: f32| rounded_single(v, lo as f32, hi as f32).wrapping_add(zero);
        let double = |v: f64| rounded(v, lo, hi).wrapping_add(zero);
        // One loop for each way to divide, so that each can become vectors.
        match self.quotient {
            Quotient::MultiplySingle(factor) => x.zip(out).for_each(|(x, out)| *out = single(x * factor)),
            Quotient::Multiply(factor) => x.zip(out).for_each(|(x, out)| *out = double(f64::from(x) * factor)),
            Quotient::Single(scale) => x.zip(out).for_each(|(x, out)| *out = single(x / scale)),
            Quotient::Double(scale) => x.zip(out).for_each(|(x, out)| *out = double(f64::from(x) / scale)),
        }
    }

    fn value(&self, x: f32) -> u16 {
        let mut out = [0];
        self.values(std::iter::once(x), &mut out);
        out[0]
    }

    /// Whether the formula has these thresholds: the smallest float32 that reaches each value, infinite where none does, negatively where all do.
    fn agrees(&self, thresholds: &[f32]) -> bool {
        let at = |x: f32| usize::from(self.value(x));
        let reaches = |(k, &t): (usize, &f32)| {
            let v = k + 1;
            match t {
                f32::NEG_INFINITY => at(t) >= v,
                f32::INFINITY => at(t) < v,
                t => at(t) >= v && at(t.next_down()) < v,
            }
        };
        thresholds.iter().enumerate().all(reaches)
    }
}

#[derive(Clone, Debug)]
pub(in crate::guard) enum Method {
    Formula(Formula),
    Table(Vec<f32>),
}

/// The quantizer of a network's input.
#[derive(Clone, Debug)]
pub(in crate::guard) struct InputQuantizer {
    pub method: Method,
    /// The formula that divides in float32, if it gives the same integers as well.
    pub divides: Option<Formula>,
}

impl InputQuantizer {
    /// From what reaches each value above the smallest, and the quantizer's scale and zero point (less the smallest value) where they are known.
    pub(super) fn new(reached: &[Reached], parameters: Option<(f64, i64)>) -> Self {
        let thresholds: Vec<f32> = reached.iter().map(first).collect();
        // Local invariant: there are at most 65535 values above the smallest.
        let high = thresholds.len() as u16;
        let parameters = parameters.filter(|(scale, zero)| *scale > 0.0 && zero.abs() < 1 << 20);
        let candidates = parameters.into_iter().flat_map(|(scale, zero)| {
            let (single, factor) = (scale as f32, 1.0 / scale);
            let multiply = [Quotient::MultiplySingle(factor as f32), Quotient::Multiply(factor)];
            let divide = [Quotient::Single(single), Quotient::Double(scale)];
            multiply.into_iter().chain(divide).map(move |quotient| Formula { quotient, zero, high })
        });
        let fitting: Vec<Formula> = candidates.filter(|f| f.agrees(&thresholds)).collect();
        let divides = fitting.iter().find(|f| matches!(f.quotient, Quotient::Single(_))).copied();
        let method = fitting.first().map_or(Method::Table(thresholds), |f| Method::Formula(*f));
        InputQuantizer { method, divides }
    }

    /// For inputs that are integers in [lo, lo + high] already: others are rounded and clipped.
    pub fn of_integers(lo: i64, high: u16) -> Self {
        let formula = Formula { quotient: Quotient::Multiply(1.0), zero: -lo, high };
        InputQuantizer { method: Method::Formula(formula), divides: None }
    }

    /// Whether it is a formula, and not a search in a table.
    #[cfg(test)]
    pub fn is_formula(&self) -> bool {
        matches!(self.method, Method::Formula(_))
    }

    /// The integers of some inputs.
    #[inline(always)]
    pub fn apply(&self, x: &[f32], out: &mut [u16]) {
        self.each(x.iter().copied(), out);
    }

    /// The integers of inputs picked from a row.
    pub fn gather(&self, x: &[f32], from: &[u32], out: &mut [u16]) {
        self.each(from.iter().map(|&i| x[i as usize]), out);
    }

    #[inline(always)]
    fn each(&self, x: impl Iterator<Item = f32>, out: &mut [u16]) {
        match &self.method {
            Method::Formula(f) => f.values(x, out),
            Method::Table(t) => x.zip(out).for_each(|(x, out)| {
                let x = if x.is_nan() { x } else { x.clamp(f32::MIN, f32::MAX) };
                *out = t.partition_point(|t| *t <= x) as u16;
            }),
        }
    }
}

/// The smallest float32 that reaches a value: infinite where none does, negatively where all do.
fn first(reached: &Reached) -> f32 {
    match *reached {
        Reached::Always => f32::NEG_INFINITY,
        Reached::Never => f32::INFINITY,
        Reached::Behind(Cut { at, strict }) => match float32::ceil_f64(at) {
            x if strict && f64::from(x) == at => x.next_up(),
            x => x,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// rne(x / scale) + zero, on exact quotients.
    fn reached(scale: f32, zero: i64, high: i64) -> Vec<Reached> {
        let cut = |v: i64| {
            let k = v - zero;
            Reached::Behind(Cut { at: (k as f64 - 0.5) * f64::from(scale), strict: k % 2 != 0 })
        };
        (1..=high).map(cut).collect()
    }

    fn compare(quantizer: &InputQuantizer, reached: &[Reached]) {
        let thresholds: Vec<f32> = reached.iter().map(first).collect();
        let around = thresholds.iter().flat_map(|&t| [t.next_down(), t, t.next_up()]);
        let x: Vec<f32> = around.chain([f32::NEG_INFINITY, f32::INFINITY, f32::MAX, f32::NAN, -0.0]).collect();
        let mut out = vec![0; x.len()];
        quantizer.apply(&x, &mut out);
        for (x, out) in x.iter().zip(&out) {
            assert_eq!(usize::from(*out), thresholds.iter().filter(|t| *t <= x).count(), "{x}");
        }
    }

    #[test]
    fn quantizers_have_formulas() {
        for (scale, zero, high) in
            [(1.0 / 255.0, 0, 255), (0.25, 3, 255), (0.1, 100, 4095), (1.0 / 65_535.0, 0, 65_535)]
        {
            let reached = reached(scale, zero, high);
            let made = InputQuantizer::new(&reached, Some((scale.into(), zero)));
            assert!(made.is_formula(), "{scale} {zero}");
            compare(&made, &reached);
        }
    }

    #[test]
    fn wrong_parameters_are_found_out() {
        let reached = reached(0.1, 5, 255);
        for wrong in [None, Some((0.100001, 5)), Some((f64::from(0.1f32), 4)), Some((-0.1, 5)), Some((f64::NAN, 0))] {
            let made = InputQuantizer::new(&reached, wrong);
            assert!(!made.is_formula(), "{wrong:?}");
            compare(&made, &reached);
        }
    }

    #[test]
    fn integers_are_kept() {
        let mut out = vec![0; 4];
        InputQuantizer::of_integers(-128, 255).apply(&[-128.0, 0.0, 127.0, 500.0], &mut out);
        assert_eq!(out, [0, 128, 255, 255]);
    }
}
