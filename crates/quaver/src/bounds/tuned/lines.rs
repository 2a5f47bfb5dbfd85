//! The lines in use for a batch of functionals, and their way uphill.

use super::choices::{Free, Split};
use crate::bounds::backward::Sums;
use crate::bounds::relax::{Ends, Line, blend};
use crate::net::gemm::vectorized;

/// A line between two is at one of so many places; a certificate holds each in a byte.
const PLACES: f64 = 255.0;

/// The place that is nearest to a share of the way.
pub(super) fn place(t: f64) -> u8 {
    (t * PLACES).round_ties_even() as u8
}

/// A parameter's running means (Adam).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Means {
    first: f64,
    second: f64,
}

impl Means {
    /// The step to take, about 1 in magnitude.
    #[inline(always)]
    pub fn step(&mut self, gradient: f64, (debias1, debias2): (f64, f64)) -> f64 {
        self.first = 0.9 * self.first + 0.1 * gradient;
        self.second = 0.99 * self.second + 0.01 * gradient * gradient;
        let size = (self.second * debias2).sqrt();
        if size > 0.0 { self.first * debias1 / size } else { 0.0 }
    }
}

/// The lower or the upper lines of the open elements of one node; entry `place * rows + row` of each list.
#[derive(Default)]
struct Side {
    /// 1 for upper lines, -1 for lower ones.
    sign: f64,
    /// Whether the two ends of an element, given by its place, are one line.
    fixed: Vec<bool>,
    /// Where the lines are between their ends.
    at: Vec<f64>,
    /// Empty before the first step uphill.
    means: Vec<Means>,
    slopes: Vec<f64>,
    offsets: Vec<f64>,
}

impl Side {
    fn new(sign: f64, free: &Free, rows: usize) -> Self {
        let n = free.elements.len() * rows;
        let mut side = Side { sign, slopes: vec![0.0; n], offsets: vec![0.0; n], at: vec![0.5; n], ..Side::default() };
        for (place, ends) in free.ends.iter().enumerate() {
            let [a, b] = *side.ends(ends);
            side.fixed.push(a == b);
            side.slopes[place * rows..][..rows].fill(a.slope);
            side.offsets[place * rows..][..rows].fill(a.offset);
        }
        side
    }

    fn ends<'e>(&self, ends: &'e Ends) -> &'e [Line; 2] {
        if self.sign > 0.0 { &ends.upper } else { &ends.lower }
    }

    /// Makes the lines of consecutive entries from their ends.
    #[inline(always)]
    fn lay(&mut self, entries: std::ops::Range<usize>, ends: &Ends, magnitude: f64) {
        let [a, b] = *self.ends(ends);
        let sign = self.sign;
        let at = self.at[entries.clone()].iter();
        let lines = self.slopes[entries.clone()].iter_mut().zip(&mut self.offsets[entries]);
        for (t, (slope, offset)) in at.zip(lines) {
            let line = blend(a, b, (t * PLACES).round_ties_even() / PLACES, sign, magnitude);
            (*slope, *offset) = (line.slope, line.offset);
        }
    }

    /// Moves lines of consecutive entries uphill from arguments x and coefficients c: the derivative of the bound with respect to a line is
    /// c (difference of its ends at x).
    #[inline(always)]
    fn climb(
        &mut self,
        entries: std::ops::Range<usize>,
        ends: &Ends,
        x: &[f64],
        c: &[f64],
        rate: f64,
        debias: (f64, f64),
    ) {
        let [a, b] = *self.ends(ends);
        let (slope, offset) = (b.slope - a.slope, b.offset - a.offset);
        let own = self.at[entries.clone()].iter_mut().zip(&mut self.means[entries]);
        for ((t, means), (x, c)) in own.zip(x.iter().zip(c)) {
            // Coefficients of the other sign do not use this side's lines.
            if c * self.sign < 0.0 {
                let step = means.step(c * (slope * x + offset), debias);
                *t = (*t + rate * step).clamp(0.0, 1.0);
            }
        }
    }
}

/// The open elements of one node for a batch of functionals; entry `place * rows + row` of each list.
pub(in crate::bounds) struct Tunable<'t> {
    rows: usize,
    pub(super) free: &'t Free,
    /// Ends that are not those of the frame: (entry, ends), in order.
    own: Vec<(usize, Ends)>,
    pub(super) is_own: Vec<bool>,
    lower: Side,
    upper: Side,
    /// Coefficients on the function's values that arrived last.
    pub(super) coefficients: Vec<f64>,
}

/// The lines of one element.
pub(in crate::bounds) struct Own<'o> {
    lower: (&'o [f64], &'o [f64]),
    upper: (&'o [f64], &'o [f64]),
}

impl Own<'_> {
    /// See [`Sums::replace`].
    #[inline(always)]
    pub fn replace(&self, run: &mut [f64], sums: &mut Sums, gamma: f64, magnitude: f64) {
        let lower = self.lower.0.iter().zip(self.lower.1);
        let upper = self.upper.0.iter().zip(self.upper.1);
        let into = run.iter_mut().zip(&mut sums.sum).zip(&mut sums.error);
        for (((c, sum), error), ((ls, lo), (us, uo))) in into.zip(lower.zip(upper)) {
            let (up, down) = if *c >= 0.0 { (*c, 0.0) } else { (0.0, *c) };
            *c = up * ls + down * us;
            *sum += up * lo + down * uo;
            *error += up * (gamma * lo.abs() + ls * magnitude) - down * (gamma * uo.abs() + us * magnitude);
        }
    }
}

impl<'t> Tunable<'t> {
    pub(super) fn new(free: &'t Free, rows: usize) -> Self {
        let n = free.elements.len() * rows;
        let (lower, upper) = (Side::new(-1.0, free, rows), Side::new(1.0, free, rows));
        Tunable { rows, free, own: vec![], is_own: vec![false; n], lower, upper, coefficients: vec![0.0; n] }
    }

    /// The place of an element, if it is open.
    #[inline(always)]
    pub fn place(&self, element: usize) -> Option<usize> {
        (self.free.places[element] as usize).checked_sub(1)
    }

    /// Gives entries other ends; of several for one entry the last counts.
    pub fn set_own(&mut self, mut own: Vec<(usize, Ends)>) {
        own.sort_by_key(|o| o.0);
        own.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same {
                *first = *later;
            }
            same
        });
        own.iter().for_each(|o| self.is_own[o.0] = true);
        self.own = own;
    }

    /// Sets where the functionals' lines are: for each functional, at each place, lower and upper.
    pub fn put(&mut self, slopes: &[&[u8]]) {
        for place in 0..self.free.elements.len() {
            let entries = place * self.rows..(place + 1) * self.rows;
            let at = self.lower.at[entries.clone()].iter_mut().zip(&mut self.upper.at[entries]);
            for ((lower, upper), slopes) in at.zip(slopes) {
                let at = |k: usize| f64::from(slopes[k]) / PLACES;
                (*lower, *upper) = (at(2 * place), at(2 * place + 1));
            }
        }
    }

    /// Where a functional's lines are (see [`Self::put`]).
    pub fn places(&self, row: usize) -> impl Iterator<Item = u8> {
        let of = |side: &'_ Side, k: usize| place(side.at[k]);
        let entries = (0..self.free.elements.len()).map(move |place| place * self.rows + row);
        entries.flat_map(move |k| [of(&self.lower, k), of(&self.upper, k)])
    }

    /// Forgets the coefficients of the last walk.
    pub fn forget(&mut self) {
        self.coefficients.fill(0.0);
    }

    /// Notes the coefficients that arrive; the lines that replace the element, if it has its own.
    #[inline(always)]
    pub fn replaced(&mut self, element: usize, run: &[f64]) -> Option<Own<'_>> {
        let k = self.place(element)? * self.rows;
        let range = k..k + self.rows;
        self.coefficients[range.clone()].copy_from_slice(run);
        let lower = (&self.lower.slopes[range.clone()], &self.lower.offsets[range.clone()]);
        let upper = (&self.upper.slopes[range.clone()], &self.upper.offsets[range]);
        Some(Own { lower, upper })
    }

    /// Makes the lines from their ends.
    pub fn lay(&mut self) {
        let rows = self.rows;
        vectorized(
            #[inline(always)]
            || {
                for side in [&mut self.lower, &mut self.upper] {
                    for (place, (ends, magnitude)) in self.free.ends.iter().zip(&self.free.magnitudes).enumerate() {
                        if !side.fixed[place] {
                            side.lay(place * rows..(place + 1) * rows, ends, *magnitude);
                        }
                    }
                    for (k, ends) in &self.own {
                        side.lay(*k..*k + 1, ends, self.free.magnitudes[*k / rows]);
                    }
                }
            },
        );
    }

    /// Moves lines uphill, with the relaxation's point at the node's argument.
    pub fn climb(&mut self, x: &[f64], rate: f64, debias: (f64, f64)) {
        let (rows, free) = (self.rows, self.free);
        vectorized(
            #[inline(always)]
            || {
                for side in [&mut self.lower, &mut self.upper] {
                    side.means.resize(side.at.len(), Means::default());
                    // Entries with ends of their own take no step of the frame's.
                    let own: Vec<(f64, Means)> = self.own.iter().map(|(k, _)| (side.at[*k], side.means[*k])).collect();
                    for (place, (&e, ends)) in free.elements.iter().zip(&free.ends).enumerate() {
                        let entries = place * rows..(place + 1) * rows;
                        if !side.fixed[place] {
                            let x = &x[e as usize * rows..][..rows];
                            side.climb(entries.clone(), ends, x, &self.coefficients[entries], rate, debias);
                        }
                    }
                    for ((k, ends), before) in self.own.iter().zip(own) {
                        (side.at[*k], side.means[*k]) = before;
                        let at = free.elements[k / rows] as usize * rows + k % rows;
                        let c = &self.coefficients[*k..*k + 1];
                        if side.ends(ends)[0] != side.ends(ends)[1] {
                            side.climb(*k..*k + 1, ends, &x[at..at + 1], c, rate, debias);
                        }
                    }
                }
            },
        );
    }

    /// The lines of an entry.
    pub fn lines(&self, k: usize) -> (Line, Line) {
        let line = |s: &Side| Line { slope: s.slopes[k], offset: s.offsets[k] };
        (line(&self.lower), line(&self.upper))
    }

    /// The lines in use at arguments.
    #[inline(always)]
    pub fn evaluate(&self, place: usize, run: &mut [f64]) {
        let range = place * self.rows..(place + 1) * self.rows;
        let lower = self.lower.slopes[range.clone()].iter().zip(&self.lower.offsets[range.clone()]);
        let upper = self.upper.slopes[range.clone()].iter().zip(&self.upper.offsets[range.clone()]);
        let lines = lower.zip(upper);
        for ((x, c), ((ls, lo), (us, uo))) in run.iter_mut().zip(&self.coefficients[range.clone()]).zip(lines) {
            let (below, above) = (ls * *x + lo, us * *x + uo);
            *x = if *c >= 0.0 { below } else { above };
        }
    }

    /// The mean magnitude of the coefficients of each functional.
    pub fn means(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.rows];
        for run in self.coefficients.chunks(self.rows) {
            run.iter().zip(&mut sums).for_each(|(c, sum)| *sum += c.abs());
        }
        sums.iter().map(|sum| sum / self.free.elements.len().max(1) as f64).collect()
    }

    /// The size that a multiplier of a split may have: that of the coefficients on its element, or of all on average.
    pub fn scale(&self, split: &Split, row: usize, mean: f64) -> f64 {
        let Some(place) = self.place(split.element) else { return 1.0 };
        let own = self.coefficients[place * self.rows + row].abs();
        own.max(mean) * self.free.ends[place].slope()
    }
}
