//! Quantized activations: their ends, from a proof or from data.

use anyhow::Result;
use quaver::model::lower::lower;
use quaver::model::profile::Float32;
use quaver::num::Ratio;
use quaver::property::Region;
use quaver::quantize::activations::{ActivationScheme, Ranges, from_data, proved};

use super::{ActivationRule, Job, Source};
use crate::session::fail;

/// What was chosen.
pub struct Activations {
    pub scheme: ActivationScheme,
    pub ranges: Ranges,
}

impl Activations {
    /// `None` if activations stay float.
    pub fn new(job: &Job<'_>) -> Result<Option<Activations>> {
        let args = job.args;
        let Some(bits) = args.activations else { return Ok(None) };
        let symmetric = args.activation_scheme == ActivationRule::Symmetric;
        let scheme = ActivationScheme {
            bits,
            symmetric,
            outputs: !args.float_outputs,
            input_step: args.input_step.as_ref().map(Ratio::approx),
        };
        let source = args.ranges.unwrap_or(if args.data.is_some() { Source::Data } else { Source::Proved });
        let model = job.quantizer.model();
        let ranges = match source {
            Source::Data => from_data(model, scheme.outputs, job.data()?)?,
            Source::Proved => {
                let lowered = lower(model, &Float32)?;
                let len = lowered.net.inputs().first().map_or(0, |&id| lowered.net.node(id).len());
                let area = &args.refine.area;
                let Some((lo, hi)) = area.range.as_ref().or(area.clip.as_ref()) else {
                    return Err(fail(
                        "proved ranges need the inputs they are proved for",
                        "give --box LO,HI, or --clip LO,HI with balls, or --data X.npy",
                    ));
                };
                let corner = |x: f32| vec![f64::from(x); len];
                proved(model, scheme.outputs, &Region { lo: corner(lo.ceil_f32()), hi: corner(hi.floor_f32()) })?
            }
        };
        let alpha = args.alpha.approx();
        if !(alpha.is_finite() && alpha > 0.0) {
            return Err(fail(format!("--alpha is {alpha}"), "give a number above 0"));
        }
        // Inputs that are multiples of a step are to be exact.
        let exact = if scheme.input_step.is_some() { &model.inputs[..] } else { &[] };
        Ok(Some(Activations { scheme, ranges: ranges.scaled_but(alpha, exact) }))
    }
}
