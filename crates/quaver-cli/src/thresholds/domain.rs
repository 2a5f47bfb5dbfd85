//! Which inputs thresholds are about.

use anyhow::Result;
use quaver::num::Ratio;
use quaver::property::equivalence::InputGrid;

use crate::ball::clip;
use crate::session::fail;

/// A box, perhaps only whole steps of it.
#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// Smallest and largest value of every input element
    #[arg(long = "box", value_name = "LO,HI", default_value = "0,1", value_parser = clip, allow_hyphen_values = true)]
    range: (Ratio, Ratio),
    /// Only inputs whose elements are whole multiples of a step, as pixels are: grid:1/255. A guard takes others for unknown
    #[arg(long, value_name = "grid:STEP", value_parser = step)]
    domain: Option<Ratio>,
}

fn step(text: &str) -> Result<Ratio, String> {
    let wrong = || format!("`{text}` is not a grid: write for example grid:1/255");
    let step: Ratio = text.strip_prefix("grid:").ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
    if step.is_zero() || step.is_negative() { Err(wrong()) } else { Ok(step) }
}

/// Inputs that thresholds hold for.
pub struct Domain {
    pub real: (f64, f64),
    pub grid: Option<InputGrid>,
}

impl Args {
    /// The domain.
    pub fn domain(&self) -> Result<Domain> {
        let real = (self.range.0.approx(), self.range.1.approx());
        let Some(step) = &self.domain else { return Ok(Domain { real, grid: None }) };
        let multiple = |x: f64| {
            let k = (x / step.approx()).round();
            let is_near = ((k * step.approx()) - x).abs() <= 1e-6 * step.approx();
            if is_near {
                Ok(k as i64)
            } else {
                Err(fail(
                    format!("{x} is no multiple of the step"),
                    "give a --box whose ends are multiples of the step",
                ))
            }
        };
        let range = (multiple(real.0)?, multiple(real.1)?);
        Ok(Domain { real, grid: Some(InputGrid { step: step.clone(), range }) })
    }
}

impl Domain {
    /// Ends of an element, in steps where there is a grid.
    pub fn ends(&self) -> (f64, f64) {
        self.grid.as_ref().map_or(self.real, |g| (g.range.0 as f64, g.range.1 as f64))
    }

    /// The sum of an input's elements, in steps where there is a grid.
    pub fn sum(&self, x: &[f64]) -> f64 {
        match &self.grid {
            None => x.iter().sum(),
            Some(g) => x.iter().map(|x| (x / g.step.approx()).round()).sum(),
        }
    }
}
