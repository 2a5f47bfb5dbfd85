//! From an integer accumulator to the next integer: a formula in binary64, proved equal to the net's own steps.
//!
//! # Claim
//! For every accumulator n that the layer can reach, [`Formula::value`] is the integer that the net denotes, less its smallest one.
//!
//! # Why
//! The net's integer is non-decreasing in n, so it is given by its thresholds t(v): it is at least v if and only if n >= t(v). The formula is
//! non-decreasing as well: n is exact in binary64 (|n| < 2^53), and a product with a non-negative factor, a sum, a clip and a rounding to the nearest integer, each
//! rounded once, are non-decreasing. So it is enough that its value is below v at t(v) - 1 and not below v at t(v), for every v; [`Formula::exceptions`]
//! executes the formula there. Where t(v) is not within reach, the ends of the reach are looked at instead. Where the formula reaches v one accumulator
//! sooner or later (with 16 bits, a few of many thousand thresholds are nearer to a tie than binary64 can tell), that accumulator is an exception, whose
//! value is corrected.
//!
//! # Rounding
//! The product and the sum are rounded once each (Rust contracts nothing). Adding 1.5 2^52 rounds to the nearest integer, ties to even, and leaves the integer in
//! the last bits.

use super::cuts::Reached;
use super::exact::Line;

/// Most accumulators of a channel whose values are corrected after the formula.
const EXCEPTIONS: usize = 16;

/// 1.5 2^52.
const MAGIC: f64 = 6_755_399_441_055_744.0;

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

/// rne(clip(factor n + shift)) + lift, from 0 to `high`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Formula {
    pub factor: f64,
    pub shift: f64,
    /// Largest value.
    pub high: u16,
    /// Added behind the rounding, so that ties go to the side of the zero point's parity.
    pub lift: u16,
}

impl Formula {
    /// The value at an accumulator.
    #[inline(always)]
    pub fn value(&self, n: f64) -> u16 {
        let lift = f64::from(self.lift);
        rounded(n * self.factor + self.shift, -lift, f64::from(self.high) - lift).wrapping_add(self.lift)
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

    /// The candidate with the fewest exceptions.
    pub fn fit(thresholds: &Thresholds, slope: f64, high: u16, lift: u16) -> Option<(Formula, Vec<(i64, u16)>)> {
        let formula = |factor: f64, shift: f64| Formula { factor, shift, high, lift };
        if thresholds.inner.is_empty() {
            let constant = formula(0.0, f64::from(thresholds.below) - f64::from(lift));
            return constant.exceptions(thresholds).map(|e| (constant, e));
        }
        let mut best: Option<(Formula, Vec<(i64, u16)>)> = None;
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
}

/// A function of an accumulator n in [lo, hi] with values from `below` to `below` + the number of thresholds: the least n for each value.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::guard) struct Thresholds {
    /// Smallest accumulator.
    pub lo: i64,
    /// Largest accumulator.
    pub hi: i64,
    /// The value at `lo`.
    pub below: u16,
    /// For each value above `below` that is reached the smallest accumulator that reaches it: above lo, at most hi, not decreasing.
    pub inner: Vec<i64>,
}

impl Thresholds {
    /// Those of a chain of functions behind a line, for accumulators in [lo, hi]: `reached[v - 1]` says what reaches the value v.
    pub(super) fn new(line: &Line, reached: &[Reached], (lo, hi): (i64, i64)) -> Self {
        let first = |r: &Reached| match r {
            Reached::Always => lo,
            Reached::Behind(cut) => line.first_within(*cut, lo, hi),
            Reached::Never => hi + 1,
        };
        let below = reached.partition_point(|r| first(r) <= lo);
        let inside = below + reached[below..].partition_point(|r| first(r) <= hi);
        let inner = reached[below..inside].iter().map(first).collect();
        // Local invariant: there are at most 65535 values above the smallest.
        Thresholds { lo, hi, below: below as u16, inner }
    }

    /// The values that the thresholds are of.
    fn values(&self) -> impl Iterator<Item = u16> + use<> {
        // Local invariant: the value that a threshold is of fits into 16 bits; the one behind the last need not.
        (u32::from(self.below) + 1..).map(|v| v as u16)
    }

    /// The value at an accumulator, by its definition.
    pub fn value(&self, n: i64) -> u16 {
        self.below + self.inner.partition_point(|t| *t <= n) as u16
    }

    /// The slope for which the range of [`Self::shifts`] is widest.
    ///
    /// # Why
    /// The range's width is a concave function of the slope: its ends are the extreme ones of lines. Bisection follows the sign of its derivative.
    fn roomiest(&self, lift: u16) -> f64 {
        let (n, last) = (self.inner.len() as f64 - 1.0, self.inner[self.inner.len() - 1]);
        let run = (last - self.inner[0]) as f64;
        // Between the slopes of lines that pass the outermost thresholds at the latest and at the soonest.
        let (mut lo, mut hi) = (n / (run + 1.0), if run > 1.0 { n / (run - 1.0) } else { 2.0 * n.max(1.0) });
        for _ in 0..60 {
            let middle = lo + (hi - lo) / 2.0;
            if middle <= lo || middle >= hi {
                break;
            }
            let (mut least, mut most) = ((f64::NEG_INFINITY, 0), (f64::INFINITY, 0));
            for (half, t) in self.places(lift) {
                let (at, before) = (half - middle * t as f64, half - middle * (t - 1) as f64);
                least = if at > least.0 { (at, t) } else { least };
                most = if before < most.0 { (before, t - 1) } else { most };
            }
            if least.1 > most.1 { lo = middle } else { hi = middle }
        }
        lo + (hi - lo) / 2.0
    }

    /// What factor n + shift has to reach at each threshold.
    fn places(&self, lift: u16) -> impl Iterator<Item = (f64, i64)> {
        self.inner.iter().zip(self.values()).map(move |(&t, v)| (f64::from(v) - f64::from(lift) - 0.5, t))
    }

    /// The shifts that, without rounding, give every threshold its place: at least the first, below the second.
    fn shifts(&self, slope: f64, lift: u16) -> (f64, f64) {
        self.places(lift).fold((f64::NEG_INFINITY, f64::INFINITY), |(least, most), (half, t)| {
            (least.max(half - slope * t as f64), most.min(half - slope * (t - 1) as f64))
        })
    }
}

/// Values per unit of the accumulator, from the outermost cuts of a chain: a hint.
pub(super) fn slope_near(line: &Line, reached: &[Reached]) -> f64 {
    let cut = |(v, r): (usize, &Reached)| match r {
        Reached::Behind(cut) => Some((v as f64, line.place_near(*cut))),
        Reached::Always | Reached::Never => None,
    };
    let first = reached.iter().enumerate().find_map(cut);
    let last = reached.iter().enumerate().rev().find_map(cut);
    match first.zip(last) {
        Some((a, b)) if b.0 > a.0 && b.1 > a.1 => (b.0 - a.0) / (b.1 - a.1),
        _ => 1.0,
    }
}

/// The formulas of a layer's channels; channels that no candidate fits keep their thresholds.
#[derive(Clone, Debug)]
pub(in crate::guard) struct Requantizer {
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
    /// From the thresholds of each channel and slopes near theirs.
    pub fn new(channels: Vec<(Thresholds, f64)>, high: u16) -> Self {
        type Fit = Option<(Formula, Vec<(i64, u16)>)>;
        let fit =
            |lift: u16| -> Vec<Fit> { channels.iter().map(|(t, slope)| Formula::fit(t, *slope, high, lift)).collect() };
        let cost = |fits: &[Fit]| fits.iter().map(|f| f.as_ref().map_or(1 + EXCEPTIONS, |f| f.1.len())).sum::<usize>();
        let mut best = (0, fit(0));
        if cost(&best.1) > channels.len() {
            // Perhaps the zero point is odd.
            let lifted = fit(1);
            if cost(&lifted) < cost(&best.1) {
                best = (1, lifted);
            }
        }
        let (lift, fits) = best;
        let factors = fits.iter().map(|f| f.as_ref().map_or(0.0, |f| f.0.factor)).collect();
        let shifts = fits.iter().map(|f| f.as_ref().map_or(0.0, |f| f.0.shift)).collect();
        let of = |(c, f): (usize, &Fit)| f.iter().flat_map(move |f| &f.1).map(move |e| (c, e.0 as f64, e.1)).collect();
        let exceptions = fits.iter().enumerate().flat_map(|f| -> Vec<(usize, f64, u16)> { of(f) }).collect();
        let without = channels.into_iter().enumerate().filter(|(c, _)| fits[*c].is_none());
        let tables = without.map(|(c, (thresholds, _))| (c, thresholds)).collect();
        Requantizer { factors, shifts, high, lift, exceptions, tables }
    }

    /// Writes the values of rows of accumulators; row r starts at `r * factors.len()` in both.
    #[inline(always)]
    pub fn apply(&self, sums: &[f64], out: &mut [u16]) {
        let (channels, lift) = (self.factors.len(), f64::from(self.lift));
        let (lo, hi) = (-lift, f64::from(self.high) - lift);
        for (sums, out) in sums.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
            let constants = self.factors.iter().zip(&self.shifts);
            for ((n, out), (factor, shift)) in sums.iter().zip(out).zip(constants) {
                *out = rounded(n * factor + shift, lo, hi).wrapping_add(self.lift);
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
    use crate::net::Cut;
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
        let slope = slope_near(line, reached);
        let made = Requantizer::new(vec![(thresholds.clone(), slope)], high);
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
        let jump = vec![Reached::Behind(Cut::at(10.0)); 9];
        assert_eq!(check(&line(1.0, 0.0), &jump, (-50, 50), 9).tables.len(), 1);
        let out_of_reach = [Reached::Always, Reached::Behind(Cut::at(1e9)), Reached::Never];
        assert!(check(&line(1.0, 0.0), &out_of_reach, (-50, 50), 3).tables.is_empty());
    }

    #[test]
    fn a_wrong_constant_is_found_out() {
        let (line, reached) = (line(1.0, 0.0), quantizer(16.0, 3, 255));
        let thresholds = Thresholds::new(&line, &reached, (-5000, 5000));
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
    fn integer_cuts_and_large_accumulators_have_formulas() {
        // Thresholds that were rounded up to integers already, as those of integer kernels.
        let cut = |v: i64| Reached::Behind(Cut::at(((v as f64 - 0.5) * 511.3 - 40_000.25).ceil()));
        let made = check(&line(1.0, 0.0), &(1..=255).map(cut).collect::<Vec<_>>(), (-70_000, 110_000), 255);
        assert!(made.tables.is_empty() && made.exceptions.is_empty());
        let (scale, mut exceptions) = (f64::from(8.3e-5f32), 0);
        for k in 1..8 {
            let (line, reached) = (line(scale * 5.1e-7 * f64::from(k), 0.037), quantizer(scale, 0, u16::MAX));
            let thresholds = Thresholds::new(&line, &reached, (-1 << 40, 1 << 40));
            let made = Requantizer::new(vec![(thresholds.clone(), slope_near(&line, &reached))], u16::MAX);
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
    fn exceptions_are_where_a_formula_is_off_by_one_accumulator() {
        let thresholds = Thresholds { lo: -100, hi: 100, below: 0, inner: vec![0, 11, 20, 29, 40] };
        let (formula, exceptions) = Formula::fit(&thresholds, 0.1, 5, 0).unwrap();
        assert!(!exceptions.is_empty());
        for n in -100..=100 {
            let value = exceptions.iter().find(|e| e.0 == n).map_or(formula.value(n as f64), |e| e.1);
            assert_eq!(value, thresholds.value(n), "at {n}");
        }
    }
}
