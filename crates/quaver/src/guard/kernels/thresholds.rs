//! Where a layer's integers change, as accumulators: thresholds, and the constants of formulas that may have them.

use super::cuts::Reached;
use super::exact::Line;

/// Factors that are tried on each side of the likeliest.
const FACTORS: u32 = 32;
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
    pub fn values(&self) -> impl Iterator<Item = u16> + use<> {
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
    pub fn roomiest(&self, lift: u16) -> f64 {
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

    /// Float32 factors m around the middle of those for which m R(n + base) has every threshold in its place.
    pub fn factors(&self, base: f64, lift: u16) -> impl Iterator<Item = f64> {
        let (mut least, mut most) = (0.0f64, f64::INFINITY);
        for (half, t) in self.places(lift) {
            for (n, is_reached) in [(t, true), (t - 1, false)] {
                let x = f64::from((n as f64 + base) as f32);
                match (x > 0.0) == is_reached {
                    _ if x == 0.0 => {}
                    true => least = least.max(half / x),
                    false => most = most.min(half / x),
                }
            }
        }
        let middle = if most.is_finite() { least + (most - least) / 2.0 } else { 2.0 * least };
        // Positive numbers have the order of their bits.
        let bits = (middle as f32).max(f32::MIN_POSITIVE).to_bits();
        let near = (0..FACTORS).flat_map(move |k| [bits + k, bits - k]).skip(1);
        near.map(|bits| f64::from(f32::from_bits(bits))).filter(|m| m.is_finite() && *m > 0.0)
    }

    /// The shifts that, without rounding, give every threshold its place: at least the first, below the second.
    pub fn shifts(&self, slope: f64, lift: u16) -> (f64, f64) {
        self.places(lift).fold((f64::NEG_INFINITY, f64::INFINITY), |(least, most), (half, t)| {
            (least.max(half - slope * t as f64), most.min(half - slope * (t - 1) as f64))
        })
    }
}
