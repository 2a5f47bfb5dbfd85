//! From an integer accumulator to the next integer: a formula in binary64, proved equal to the net's own steps.
//!
//! # Claim
//! For every accumulator n that the layer can reach, [`Formula::value`] is the integer that the net denotes, less its smallest one.
//!
//! # Why
//! The net's integer is non-decreasing in n, so it is given by its thresholds t(v): it is at least v if and only if n >= t(v). The formula is
//! non-decreasing as well: n is exact in binary64 (|n| < 2^53), and a product with a non-negative factor, a sum, a clip and a rounding to the nearest integer, each
//! rounded once, are non-decreasing. So it is enough that its value is below v at t(v) - 1 and not below v at t(v), for every v; [`Formula::agrees`]
//! executes the formula there. Where t(v) is not within reach, the ends of the reach are looked at instead.
//!
//! # Rounding
//! The product and the sum are rounded once each (Rust contracts nothing). Adding 1.5 2^52 rounds to the nearest integer, ties to even, and leaves the integer in
//! the last bits.

use super::cuts::Reached;
use super::exact::Line;

/// 1.5 2^52.
const MAGIC: f64 = 6_755_399_441_055_744.0;

/// v within [lo, hi] rounded to the nearest integer, ties to even, modulo 2^16 (`lo` for NaN).
#[inline(always)]
pub(super) fn rounded(v: f64, lo: f64, hi: f64) -> u16 {
    let v = if v > lo { v } else { lo };
    let v = if v < hi { v } else { hi };
    (v + MAGIC).to_bits() as u16
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

    /// Whether the formula is the function with these thresholds (see the module's claim).
    pub fn agrees(&self, thresholds: &Thresholds) -> bool {
        let at = |n: i64| self.value(n as f64);
        let inner = thresholds.inner.iter().zip(thresholds.below + 1..).all(|(&t, v)| at(t) >= v && at(t - 1) < v);
        let (lowest, highest) = (thresholds.below, thresholds.below + thresholds.inner.len() as u16);
        inner && at(thresholds.lo) >= lowest && at(thresholds.hi) <= highest
    }

    /// A formula that agrees, if one of a few candidates does.
    pub fn fit(thresholds: &Thresholds, slope: f64, high: u16, lift: u16) -> Option<Formula> {
        let formula = |factor: f64, shift: f64| Formula { factor, shift, high, lift };
        if thresholds.inner.is_empty() {
            let constant = formula(0.0, f64::from(thresholds.below) - f64::from(lift));
            return constant.agrees(thresholds).then_some(constant);
        }
        let (least, most) = thresholds.shifts(slope, lift);
        let candidates = [least + (most - least) / 2.0, least, most];
        candidates.into_iter().map(|shift| formula(slope, shift)).find(|f| f.agrees(thresholds))
    }
}

/// A function of an accumulator n in [lo, hi] with values from `below` to `below` + the number of thresholds: the least n for each value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Thresholds {
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
    pub fn new(line: &Line, reached: &[Reached], (lo, hi): (i64, i64)) -> Self {
        let first = |r: &Reached| match r {
            Reached::Always => lo,
            Reached::Behind(cut) => line.first_within(*cut, lo, hi),
            Reached::Never => hi + 1,
        };
        let below = reached.partition_point(|r| first(r) <= lo);
        let inside = reached.partition_point(|r| first(r) <= hi);
        let inner = reached[below..inside].iter().map(first).collect();
        // Local invariant: there are at most 65535 values above the smallest.
        Thresholds { lo, hi, below: below as u16, inner }
    }

    /// The value at an accumulator, by its definition.
    pub fn value(&self, n: i64) -> u16 {
        self.below + self.inner.partition_point(|t| *t <= n) as u16
    }

    /// The shifts that, without rounding, give every threshold its place: at least the first, below the second.
    fn shifts(&self, slope: f64, lift: u16) -> (f64, f64) {
        let places = self.inner.iter().zip(self.below + 1..).map(|(&t, v)| (f64::from(v) - f64::from(lift) - 0.5, t));
        places.fold((f64::NEG_INFINITY, f64::INFINITY), |(least, most), (half, t)| {
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
pub(super) struct Requantizer {
    /// For each channel.
    pub factors: Vec<f64>,
    /// For each channel.
    pub shifts: Vec<f64>,
    /// Largest value.
    pub high: u16,
    /// As in [`Formula`].
    pub lift: u16,
    /// Channels whose values are looked up.
    pub tables: Vec<(usize, Thresholds)>,
}

impl Requantizer {
    /// From the thresholds of each channel and slopes near theirs.
    pub fn new(channels: Vec<(Thresholds, f64)>, high: u16) -> Self {
        let fit = |lift: u16| -> Vec<Option<Formula>> {
            channels.iter().map(|(t, slope)| Formula::fit(t, *slope, high, lift)).collect()
        };
        let mut best = (0, fit(0));
        if best.1.iter().any(Option::is_none) {
            let lifted = fit(1);
            if lifted.iter().flatten().count() > best.1.iter().flatten().count() {
                best = (1, lifted);
            }
        }
        let (lift, formulas) = best;
        let factors = formulas.iter().map(|f| f.map_or(0.0, |f| f.factor)).collect();
        let shifts = formulas.iter().map(|f| f.map_or(0.0, |f| f.shift)).collect();
        let without = channels.into_iter().enumerate().filter(|(c, _)| formulas[*c].is_none());
        let tables = without.map(|(c, (thresholds, _))| (c, thresholds)).collect();
        Requantizer { factors, shifts, high, lift, tables }
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

    /// Replaces the values of channels that have no formula.
    pub fn look_up(&self, sums: &[f64], out: &mut [u16]) {
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
        made.look_up(&n, &mut out);
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
        let right = Formula::fit(&thresholds, 1.0 / 16.0, 255, 1).unwrap();
        assert!(right.agrees(&thresholds));
        let off = 1.0 / 32.0;
        for wrong in [
            Formula { shift: right.shift + off, ..right },
            Formula { shift: right.shift - off, ..right },
            Formula { factor: right.factor * (1.0 + 1e-3), ..right },
            Formula { lift: 0, shift: right.shift + 1.0, ..right },
            Formula { high: 254, ..right },
        ] {
            let differs = (-5000..=5000).any(|n: i64| wrong.value(n as f64) != thresholds.value(n));
            assert!(differs && !wrong.agrees(&thresholds), "{wrong:?}");
        }
    }
}
