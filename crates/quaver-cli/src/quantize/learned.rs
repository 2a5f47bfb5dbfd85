//! `--method learned`: each weight goes up or down, as the data want it.

use anyhow::Result;
use quaver::quantize::Quantized;
use quaver::quantize::learned::{self, Options};

use super::{Job, round};

/// The network whose layers give on the data what those of the float network give.
pub fn quantize(job: &Job<'_>) -> Result<Quantized> {
    let options = Options { spread: job.args.spread.approx(), ..Options::default() };
    Ok(learned::learned(&job.quantizer, &round::schemes(job), job.data()?, &options)?)
}
