//! The formulas of a layer's channels together.
//!
//! # Claim
//! For every accumulator within the reach of its channel, [`Requantizer::apply`] followed by [`Requantizer::correct`] gives the integer of the net, less its
//! smallest one.
//!
//! # Why
//! A channel's formula has its thresholds but for the exceptions that were found with it (`formula.rs`), which are replaced; a channel without formula is
//! looked
//! up.

use super::cuts::Reached;
use super::exact::Line;
use super::formula::{Arithmetic, EXCEPTIONS, Fit, Formula, rounded, rounded_single};
use super::thresholds::Thresholds;
use crate::net::Cut;

/// The thresholds of a channel, and hints for formulas.
pub(super) struct Channel {
    pub thresholds: Thresholds,
    /// Values for each unit of the accumulator, from the outermost cuts.
    slope: f64,
    /// What the accumulator lacks to the real number on its unit.
    base: f64,
}

impl Channel {
    /// From a line, what reaches each value of a chain of functions behind it, and the ends of the accumulator.
    pub fn new(line: &Line, reached: &[Reached], reach: (i64, i64)) -> Channel {
        let cut = |(v, r): (usize, &Reached)| match r {
            Reached::Behind(cut) => Some((v as f64, line.place_near(*cut))),
            Reached::Always | Reached::Never => None,
        };
        let first = reached.iter().enumerate().find_map(cut);
        let last = reached.iter().enumerate().rev().find_map(cut);
        let slope = match first.zip(last) {
            Some((a, b)) if b.0 > a.0 && b.1 > a.1 => (b.0 - a.0) / (b.1 - a.1),
            _ => 1.0,
        };
        let base = -line.place_near(Cut::at(0.0)).round();
        Channel { thresholds: Thresholds::new(line, reached, reach), slope, base }
    }
}

/// The formulas of a layer's channels; channels that no candidate fits keep their thresholds.
#[derive(Clone, Debug)]
pub(in crate::guard) struct Requantizer {
    pub arithmetic: Arithmetic,
    /// For each channel.
    pub factors: Vec<f64>,
    /// For each channel.
    pub shifts: Vec<f64>,
    /// Largest value.
    pub high: u16,
    /// As in [`Formula`].
    pub lift: u16,
    /// Channel, accumulator and value where the formula is wrong.
    pub exceptions: Vec<(usize, f64, u16)>,
    /// Channels whose values are looked up.
    pub tables: Vec<(usize, Thresholds)>,
}

impl Requantizer {
    /// From the channels, the largest value, and the value for the real number 0 (a hint).
    pub(super) fn new(channels: Vec<Channel>, high: u16, zero: u16) -> Self {
        let double = |lift| move |c: &Channel| Formula::fit(&c.thresholds, c.slope, high, lift);
        let single = |c: &Channel| Formula::fit_single(&c.thresholds, c.base, high, zero);
        let cost = |fits: &[Fit]| fits.iter().map(|f| f.as_ref().map_or(1 + EXCEPTIONS, |f| f.1.len())).sum::<usize>();
        let mut best = (Arithmetic::Double, 0, channels.iter().map(double(0)).collect::<Vec<Fit>>());
        let mut consider = |arithmetic, lift, fits: &mut dyn Iterator<Item = Fit>, most: usize| {
            if cost(&best.2) > most {
                let fits: Vec<Fit> = fits.collect();
                if cost(&fits) < cost(&best.2) {
                    best = (arithmetic, lift, fits);
                }
            }
        };
        // Perhaps the zero point is odd.
        consider(Arithmetic::Double, 1, &mut channels.iter().map(double(1)), channels.len());
        consider(Arithmetic::Single, zero, &mut channels.iter().map(single), 0);
        let (arithmetic, lift, fits) = best;
        Requantizer::of(arithmetic, (high, lift), channels, &fits)
    }

    fn of(arithmetic: Arithmetic, (high, lift): (u16, u16), channels: Vec<Channel>, fits: &[Fit]) -> Self {
        let factors = fits.iter().map(|f| f.as_ref().map_or(0.0, |f| f.0.factor)).collect();
        let shifts = fits.iter().map(|f| f.as_ref().map_or(0.0, |f| f.0.shift)).collect();
        let found = fits.iter().enumerate().flat_map(|(c, fit)| fit.iter().map(move |fit| (c, &fit.1)));
        let exceptions = found.flat_map(|(c, e)| e.iter().map(move |e| (c, e.0 as f64, e.1))).collect();
        let without = channels.into_iter().enumerate().filter(|(c, _)| fits[*c].is_none());
        let tables = without.map(|(c, channel)| (c, channel.thresholds)).collect();
        Requantizer { arithmetic, factors, shifts, high, lift, exceptions, tables }
    }

    /// Writes the values of rows of accumulators; row r starts at `r * factors.len()` in both.
    #[inline(always)]
    pub fn apply(&self, sums: &[f64], out: &mut [u16]) {
        let (channels, lift) = (self.factors.len(), f64::from(self.lift));
        let (lo, hi) = (-lift, f64::from(self.high) - lift);
        for (sums, out) in sums.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
            let each = sums.iter().zip(out).zip(self.factors.iter().zip(&self.shifts));
            // One loop for each arithmetic, so that each can become vectors.
            match self.arithmetic {
                Arithmetic::Double => each.for_each(|((n, out), (factor, shift))| {
                    *out = rounded(n * factor + shift, lo, hi).wrapping_add(self.lift);
                }),
                Arithmetic::Single => each.for_each(|((n, out), (factor, shift))| {
                    let v = (n + shift) as f32 * *factor as f32;
                    *out = rounded_single(v, lo as f32, hi as f32).wrapping_add(self.lift);
                }),
            }
        }
    }

    /// Replaces the values where formulas are wrong or missing.
    pub fn correct(&self, sums: &[f64], out: &mut [u16]) {
        if !self.exceptions.is_empty() {
            for (sums, out) in sums.chunks_exact(self.factors.len()).zip(out.chunks_exact_mut(self.factors.len())) {
                for &(channel, n, value) in &self.exceptions {
                    out[channel] = if sums[channel] == n { value } else { out[channel] };
                }
            }
        }
        for (channel, thresholds) in &self.tables {
            let step = self.factors.len();
            let values = sums.iter().skip(*channel).step_by(step).zip(out.iter_mut().skip(*channel).step_by(step));
            values.for_each(|(n, out)| *out = thresholds.value(*n as i64));
        }
    }

    /// Adds channels without meaning, up to a multiple of the kernels' width.
    pub fn pad(&mut self, layout: impl Fn(usize) -> usize, width: usize) {
        let spread = |old: &[f64]| {
            let mut new = vec![0.0; width];
            old.iter().enumerate().for_each(|(c, x)| new[layout(c)] = *x);
            new
        };
        (self.factors, self.shifts) = (spread(&self.factors), spread(&self.shifts));
        self.tables.iter_mut().for_each(|t| t.0 = layout(t.0));
        self.exceptions.iter_mut().for_each(|e| e.0 = layout(e.0));
    }
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::Dyadic;

    fn line(unit: f64, offset: f64) -> Line {
        Line::new(Dyadic::from_f64(unit).unwrap(), Dyadic::from_f64(offset).unwrap())
    }

    /// Nearest integers with ties to the even quotient, behind a zero point.
    fn quantizer(scale: f64, zero: i64, high: u16) -> Vec<Reached> {
        let cut = |v: i64| {
            let k = v - zero;
            Reached::Behind(Cut { at: (k as f64 - 0.5) * scale, strict: k % 2 != 0 })
        };
        (1..=i64::from(high)).map(cut).collect()
    }

    fn check(line: &Line, reached: &[Reached], reach: (i64, i64), high: u16) -> Requantizer {
        let thresholds = Thresholds::new(line, reached, reach);
        let made = Requantizer::new(vec![Channel::new(line, reached, reach)], high, 0);
        let n: Vec<f64> = (reach.0..=reach.1).map(|n| n as f64).collect();
        let mut out = vec![0; n.len()];
        made.apply(&n, &mut out);
        made.correct(&n, &mut out);
        for (n, out) in n.iter().zip(&out) {
            assert_eq!(*out, thresholds.value(*n as i64), "at {n}");
        }
        made
    }

    #[test]
    fn ties_to_even_behind_any_zero_point_have_a_formula() {
        for zero in [0, 1, 7, 128] {
            let made = check(&line(0.25, 0.0), &quantizer(0.5, zero, 255), (-3000, 3000), 255);
            assert!(made.tables.is_empty(), "zero point {zero}");
            assert_eq!(made.lift, (zero % 2) as u16);
        }
    }

    #[test]
    fn scales_that_are_no_powers_of_two_have_a_formula() {
        for (k, high) in [(3, 255u16), (5, 4095), (7, 65_535)] {
            let scale = f64::from(0.1f32) / f64::from(k);
            let made = check(&line(scale * 0.37, 0.001), &quantizer(scale, 0, high), (-500, 200_000), high);
            assert!(made.tables.is_empty());
        }
    }

    #[test]
    fn what_is_no_line_is_looked_up() {
        let jump = |at: f64| vec![Reached::Behind(Cut::at(at)); 9];
        assert!(check(&line(1.0, 0.0), &jump(10.0), (-50, 50), 9).tables.is_empty(), "one jump is a steep line");
        let jumps = [jump(10.0), jump(40.0)].concat();
        assert_eq!(check(&line(1.0, 0.0), &jumps, (-50, 50), 18).tables.len(), 1);
        let out_of_reach = [Reached::Always, Reached::Behind(Cut::at(1e9)), Reached::Never];
        assert!(check(&line(1.0, 0.0), &out_of_reach, (-50, 50), 3).tables.is_empty());
    }

    #[test]
    fn integer_cuts_and_large_accumulators_have_formulas() {
        // Thresholds that were rounded up to integers already, as those of integer kernels.
        let cut = |v: i64| Reached::Behind(Cut::at(((v as f64 - 0.5) * 511.3 - 40_000.25).ceil()));
        let made = check(&line(1.0, 0.0), &(1..=255).map(cut).collect::<Vec<_>>(), (-70_000, 110_000), 255);
        assert!(made.tables.is_empty() && made.exceptions.is_empty());
        let (scale, mut exceptions) = (f64::from(8.3e-5f32), 0);
        for k in 1..8 {
            let (line, reached) = (line(scale * 5.1e-7 * f64::from(k), 0.037), quantizer(scale, 0, u16::MAX));
            let thresholds = Thresholds::new(&line, &reached, (-1 << 40, 1 << 40));
            let made = Requantizer::new(vec![Channel::new(&line, &reached, (-1 << 40, 1 << 40))], u16::MAX, 0);
            assert!(made.tables.is_empty());
            exceptions += made.exceptions.len();
            for &t in &thresholds.inner {
                let n = [t - 1, t, t + 1].map(|n| n as f64);
                let mut out = [0; 3];
                made.apply(&n, &mut out);
                made.correct(&n, &mut out);
                assert_eq!(out, [t - 1, t, t + 1].map(|n| thresholds.value(n)));
            }
        }
        println!("{exceptions} exceptions of {} thresholds", 7 * 65_535);
    }

    #[test]
    fn accumulators_that_are_scaled_in_float32_have_formulas() {
        for (factor, zero) in [(3.1e-6f32, 0u16), (7.77e-6, 128), (1.13e-5, 77)] {
            let base = -123_457;
            let of = |n: i64| ((((n + base) as f32) * factor).round_ties_even() as i64 + i64::from(zero)).clamp(0, 255);
            // The smallest n for each value, by bisection.
            let first = |v: i64| {
                let (mut lo, mut hi) = (-1i64 << 27, 1i64 << 27);
                while hi - lo > 1 {
                    let middle = lo + (hi - lo) / 2;
                    if of(middle) >= v { hi = middle } else { lo = middle }
                }
                hi
            };
            let reached: Vec<Reached> = (1..=255).map(|v| Reached::Behind(Cut::at((first(v) + base) as f64))).collect();
            let reach = (-60_000_000, 60_000_000);
            let channel = || Channel::new(&line(1.0, base as f64), &reached, reach);
            let made = Requantizer::new(vec![channel()], 255, zero);
            assert!(made.tables.is_empty() && made.exceptions.is_empty(), "{factor}");
            let mut out = [0];
            for n in (reach.0..=reach.1).step_by(99_991).chain((1..=255).map(first)) {
                made.apply(&[n as f64], &mut out);
                assert_eq!(i64::from(out[0]), of(n), "{factor} at {n}");
            }
        }
    }
}
