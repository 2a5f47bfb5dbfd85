//! The order of classes from integer scores, exactly.

use num_bigint::BigInt;
use num_traits::ToPrimitive;

use super::error::KernelError;
use super::exact::Line;
use crate::net::{Cut, Node};
use crate::num::{Dyadic, Ratio};

/// How integer scores relate to the net's outputs: output k is unit `score_k` + `offsets[k]`, exactly, where [`Self::rounding`] is zero;
/// else that number rounded once to float32, which keeps the order of two outputs and keeps different ones different.
#[derive(Clone, Debug)]
pub struct Scores {
    unit: Dyadic,
    offsets: Vec<Dyadic>,
    /// What is added to an accumulator, so that the offset is in [0, unit).
    bases: Vec<i64>,
    rounding: Dyadic,
    /// `beats[c * classes + k]`.
    beats: Vec<i64>,
}

impl Scores {
    /// From outputs unit acc + offset; they are rounded to float32 where a bound on their magnitude is given.
    pub(super) fn new(
        unit: Dyadic,
        offsets: Vec<Dyadic>,
        largest: Option<Dyadic>,
        node: &Node,
    ) -> Result<Scores, KernelError> {
        let mut scores = Scores { unit, offsets: vec![], bases: vec![], rounding: Dyadic::zero(), beats: vec![] };
        if let Some(largest) = largest {
            // Half a unit in the last place: 2^-24 of the magnitude, or half the smallest subnormal number.
            let part = Dyadic::from_f64(2f64.powi(-24)).map(|u| &u * &largest);
            let least = Dyadic::from_f64(2f64.powi(-150));
            scores.rounding = part.zip(least).map_or_else(Dyadic::zero, |(p, l)| &p + &l);
        }
        for offset in offsets {
            let base = floor(&scores.unit, &offset).to_i64().filter(|b| b.abs() < 1 << 61).ok_or_else(|| {
                let cure = "use a larger scale for the last layer's weights";
                KernelError::new(&node.name, "a bias is too large beside the unit of the scores", cure)
            })?;
            scores.offsets.push(&offset - &(&scores.unit * &Dyadic::from_int(base)));
            scores.bases.push(base);
        }
        let n = scores.offsets.len();
        scores.beats = (0..n * n).map(|i| scores.least_to_beat(i / n, i % n)).collect();
        Ok(scores)
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.offsets.len()
    }

    /// The real number that one more in a score stands for; positive.
    pub fn unit(&self) -> &Dyadic {
        &self.unit
    }

    /// What is added for each class; not negative and below the unit.
    pub fn offsets(&self) -> &[Dyadic] {
        &self.offsets
    }

    /// A bound on the distance between an output and unit score + offset: zero where the network's last operation is not rounded.
    pub fn rounding(&self) -> &Dyadic {
        &self.rounding
    }

    /// What is added to each class's accumulator to make its score.
    pub(in crate::guard) fn bases(&self) -> &[i64] {
        &self.bases
    }

    /// The smallest difference `score_c` - `score_k` for which class c comes before class k: its output is larger, or they are equal and c < k.
    ///
    /// # Panics
    /// If there is no such class.
    pub fn beats(&self, c: usize, k: usize) -> i64 {
        assert!(c < self.classes() && k < self.classes(), "classes {c} and {k} of {}", self.classes());
        self.beats[c * self.classes() + k]
    }

    fn least_to_beat(&self, c: usize, k: usize) -> i64 {
        let line = Line::new(self.unit.clone(), &self.offsets[c] - &self.offsets[k]);
        // Local invariant: offsets are below the unit, so this is -1, 0 or 1.
        line.first(Cut { at: 0.0, strict: c >= k }).to_i64().unwrap_or(i64::MAX)
    }

    /// The smallest integer n such that `score_c` - `score_k` >= n implies `output_c` - `output_k` > t (where outputs are rounded: one that is large
    /// enough for any rounding); `i64::MAX` if it is beyond, or t is not finite.
    ///
    /// # Panics
    /// If there is no such class.
    pub fn at_least_above(&self, c: usize, k: usize, t: f64) -> i64 {
        assert!(c < self.classes() && k < self.classes(), "classes {c} and {k} of {}", self.classes());
        let Some(t) = Ratio::from_f64(t) else { return i64::MAX };
        let slack = Ratio::from_dyadic(&(&self.rounding * &Dyadic::from_int(2)));
        let difference = Ratio::from_dyadic(&(&self.offsets[c] - &self.offsets[k]));
        let wanted = t.plus(&slack).minus(&difference).over(&Ratio::from_dyadic(&self.unit));
        // unit n > wanted unit, strictly.
        let least: BigInt = wanted.floor() + 1;
        least.to_i64().unwrap_or(if least < BigInt::from(0) { i64::MIN } else { i64::MAX })
    }

    /// The class with the largest output, the first of equals.
    ///
    /// # Panics
    /// If there is not one score for each class.
    pub fn argmax(&self, scores: &[i64]) -> usize {
        let n = self.classes();
        assert_eq!(scores.len(), n, "one score for each class");
        let mut best = 0;
        for c in 1..n {
            if scores[c] - scores[best] >= self.beats[c * n + best] {
                best = c;
            }
        }
        best
    }
}

/// The largest integer n with unit n <= x: -n is the smallest m with unit m + x >= 0.
fn floor(unit: &Dyadic, x: &Dyadic) -> BigInt {
    -Line::new(unit.clone(), x.clone()).first(Cut::at(0.0))
}
