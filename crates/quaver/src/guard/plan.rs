//! What a guard is made of, as it is kept in a file: networks, the inputs that thresholds hold for, and the thresholds.

use serde::{Deserialize, Serialize};

use super::cells::Cells;
use super::exact;
use super::kernels::MAGIC;
use super::thresholds::Bounds;
use crate::num::Ratio;
use crate::property::equivalence::{INPUT_SLACK, InputGrid};

/// The format of the file.
pub const FORMAT: &str = "quaver guard 1";

/// The inputs that thresholds hold for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Domain {
    /// Smallest value of an element.
    #[serde(with = "exact::one")]
    pub lo: f64,
    /// Largest value.
    #[serde(with = "exact::one")]
    pub hi: f64,
    /// What elements are multiples of, such as `1/255`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// A network's file, and what it must hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The file, beside the guard's.
    pub file: String,
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
    /// The arithmetic that it runs in.
    pub profile: String,
}

/// A quantized network with its thresholds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StagePlan {
    /// The network.
    pub network: Source,
    /// The float network that its thresholds are about.
    pub float: Source,
    /// Bits of the numbers that it multiplies.
    pub bits: u8,
    /// For each cell.
    pub bounds: Vec<Bounds>,
}

/// What happens where no quantized network is sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The float network is executed: adaptive precision refinement.
    Refinement,
    /// The first network's class is given, and that it is not sure: an ensemble of networks that were trained alike.
    Ensemble,
}

/// A guard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// [`FORMAT`].
    pub format: String,
    /// What happens in the end.
    pub kind: Kind,
    /// Which inputs.
    pub domain: Domain,
    /// Parts of them.
    pub cells: Cells,
    /// Number of classes.
    pub classes: usize,
    /// Networks, in the order in which they are asked.
    pub stages: Vec<StagePlan>,
}

/// How an input is seen before any network runs.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    pub(super) ends: (f64, f64),
    /// The step and the reciprocal; the first and last multiple.
    pub(super) grid: Option<(f64, f64, (f64, f64))>,
}

/// Of a grid's tolerance what surely is not beyond it, whatever binary64 rounds here.
pub(super) const SURE: f64 = 1.0 - 1.0 / 1_048_576.0;

impl Domain {
    /// The grid of multiples, if there is one.
    ///
    /// # Errors
    /// If the step is not a positive number that divides both ends.
    pub fn grid(&self) -> Result<Option<InputGrid>, String> {
        let Some(text) = &self.step else { return Ok(None) };
        let step: Ratio = text.parse().map_err(|_| format!("`{text}` is not a step"))?;
        if step.is_zero() || step.is_negative() {
            return Err(format!("the step {text} is not positive"));
        }
        let multiple = |x: f64| {
            let k = (x / step.approx()).round();
            let is_near = (k * step.approx() - x).abs() <= 1e-6 * step.approx();
            is_near.then_some(k as i64).ok_or_else(|| format!("{x} is no multiple of {text}"))
        };
        let range = (multiple(self.lo)?, multiple(self.hi)?);
        Ok(Some(InputGrid { step, range }))
    }

    /// How inputs are seen.
    ///
    /// # Errors
    /// As [`Self::grid`].
    pub fn gate(&self) -> Result<Gate, String> {
        let grid = self.grid()?.map(|g| {
            let step = g.step.approx();
            (step, 1.0 / step, (g.range.0 as f64, g.range.1 as f64))
        });
        Ok(Gate { ends: (self.lo, self.hi), grid })
    }

    /// Ends of an element, in steps where there is a grid.
    ///
    /// # Errors
    /// As [`Self::grid`].
    pub fn ends(&self) -> Result<(f64, f64), String> {
        Ok(self.grid()?.map_or((self.lo, self.hi), |g| (g.range.0 as f64, g.range.1 as f64)))
    }
}

impl Gate {
    /// Smallest and largest value of an element.
    pub fn ends(&self) -> (f64, f64) {
        self.ends
    }

    /// A number near x that may be an element: on the grid where there is one, and between the ends.
    pub fn nearest(&self, x: f64) -> f32 {
        let x = match self.grid {
            Some((step, reciprocal, _)) => ((x * reciprocal).round() * step) as f32,
            None => x as f32,
        };
        match f64::from(x) {
            v if v < self.ends.0 => x.next_up(),
            v if v > self.ends.1 => x.next_down(),
            _ => x,
        }
    }

    /// The sum of an input's elements (of multiples, where there is a grid), if thresholds hold for it.
    ///
    /// # Claim
    /// A sum is given only if every element is between the ends, and within a relative 2^-22 of a multiple of the step where there is one; then it is
    /// as exact as [`Cells`] ask for.
    ///
    /// # Why
    /// NaN fails every comparison. Near a multiple k s the difference to it is exact but for rounding k s, and the tolerance is
    /// smaller than it might be by more than that.
    #[inline]
    pub fn sum(&self, x: &[f32]) -> Option<f64> {
        let (lo, hi) = self.ends;
        let (mut fits, mut sum) = (true, 0.0);
        match self.grid {
            None => {
                for &x in x {
                    let x = f64::from(x);
                    fits &= lo <= x && x <= hi;
                    sum += x;
                }
            }
            Some((step, reciprocal, (first, last))) => {
                let tolerance = step * INPUT_SLACK * SURE;
                for &x in x {
                    let x = f64::from(x);
                    let k = (x * reciprocal + MAGIC) - MAGIC;
                    fits &=
                        lo <= x && x <= hi && first <= k && k <= last && (x - k * step).abs() <= k.abs() * tolerance;
                    sum += k;
                }
            }
        }
        fits.then_some(sum)
    }
}
