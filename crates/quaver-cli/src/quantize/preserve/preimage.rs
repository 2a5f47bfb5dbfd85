//! `--method preimage`: bits from what each layer may do.

use std::time::Instant;

use anyhow::Result;
use quaver::model::lower::lower;
use quaver::model::profile::Real;
use quaver::quantize::preimage::{Chain, Choice, LayerChoice, Options, Preimage, Way, choose, preimage};
use quaver::quantize::search::Bits;
use rayon::prelude::*;

use super::wanted::Property;
use super::{Job, Setting};
use crate::session::fail;

/// What the method needs to know.
#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// preimage: how the sets of a layer's values are proved, by linear bounds (`abstraction`), by deciding each condition (`exact`), or first the one and
    /// then the other
    #[arg(long, value_enum, default_value_t = WayArg::Both)]
    preimages: WayArg,
    /// preimage: fewest and most fraction bits of a layer
    #[arg(long, value_name = "LO..HI", default_value = "1..16", value_parser = crate::quantize::refine::widths)]
    fraction_bits: std::ops::RangeInclusive<u8>,
    /// preimage: share of the bounds of a hidden layer that may leave the set (Quadapter*: 0.25)
    #[arg(long, value_name = "SHARE", default_value = "0")]
    relaxed: quaver::num::Ratio,
    /// preimage: choose bits once, as published; else earlier layers get more where a later one finds none
    #[arg(long)]
    one_pass: bool,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum WayArg {
    Abstraction,
    Exact,
    Both,
}

/// The network's layers, and how hard to try.
pub struct Method {
    chain: Chain,
    pub options: Options,
}

/// Bits, why each layer has no fewer, and how long it took to find the sets and the bits.
pub struct Found {
    pub bits: Bits,
    pub why: Vec<String>,
    pub seconds: (f64, f64),
}

impl Method {
    pub fn new(job: &Job<'_>, setting: &Setting) -> Result<Method> {
        let given = &job.args.preserve.preimage;
        if setting.activations.is_some() || !setting.is_fixed_point() {
            return Err(fail(
                "--method preimage is about weights in fixed point (power-of-two) and float activations",
                "leave --activations, --scheme and --bias out, or use --method direct",
            ));
        }
        if job.args.bits.is_some() || job.args.preserve.accuracy_drop.is_some() {
            return Err(fail(
                "--bits and --accuracy-drop say nothing to --method preimage",
                "use --fraction-bits LO..HI, or --method direct",
            ));
        }
        let way = match given.preimages {
            WayArg::Abstraction => Way::Abstraction,
            WayArg::Exact => Way::Exact,
            WayArg::Both => Way::Both,
        };
        let (least, most) = (*given.fraction_bits.start(), *given.fraction_bits.end());
        let relaxed = given.relaxed.approx();
        if !(0.0..1.0).contains(&relaxed) {
            return Err(fail(format!("--relaxed {relaxed}"), "give a share from 0 up to, but not including, 1"));
        }
        let options = Options { way, least, most, relaxed, again: !given.one_pass, ..Options::default() };
        Ok(Method { chain: Chain::new(&lower(job.quantizer.model(), &Real)?)?, options })
    }

    /// The sets of a property, if there are any.
    pub fn preimage(&self, property: &Property) -> Result<Option<Preimage>> {
        Ok(preimage(&self.chain, &property.wanted.query, &self.options)?)
    }

    /// Bits with which every property is proved.
    pub fn choose(&self, job: &Job<'_>, properties: &[Property]) -> Result<Found> {
        let start = Instant::now();
        let made = |p: &Property| match &p.preimage {
            Some(preimage) => Ok(Some(preimage.clone())),
            None => self.preimage(p),
        };
        let found = properties.par_iter().map(made).collect::<Result<Vec<_>>>()?;
        let preimages_took = start.elapsed().as_secs_f64();
        if let Some((property, _)) = properties.iter().zip(&found).find(|(_, f)| f.is_none()) {
            return Err(fail(
                format!(
                    "{}: there is no set of values of some hidden layer that the rest maps to what is wanted",
                    property.wanted.name
                ),
                "leave the property out, give --relaxed 0.25, or use --method direct",
            ));
        }
        let claims: Vec<Preimage> = found.into_iter().flatten().collect();
        let choice = choose(&job.quantizer, &claims, &self.options)?;
        let seconds = (preimages_took, start.elapsed().as_secs_f64() - preimages_took);
        let Some(schemes) = &choice.schemes else { return Err(refused(&choice, properties)) };
        let why = choice.layers.iter().map(|layer| why(layer, properties)).collect();
        Ok(Found { bits: schemes.iter().map(|s| s.bits).collect(), why, seconds })
    }
}

/// Why a layer has no fewer bits.
fn why(layer: &LayerChoice, properties: &[Property]) -> String {
    let Some(trial) = layer.trials.iter().rev().find(|t| t.refused_by.is_some()) else {
        return "the fewest allowed".into();
    };
    let name = trial.refused_by.and_then(|k| properties.get(k)).map_or("a property", |p| &p.wanted.name);
    let bits = layer.integer + trial.fraction;
    format!("with {bits} {} of {} bounds leave the set of {name}", trial.failed, trial.checks)
}

fn refused(choice: &Choice, properties: &[Property]) -> anyhow::Error {
    let (name, reason) = match choice.layers.last() {
        Some(layer) => (layer.name.clone(), why(layer, properties)),
        None => (String::new(), "nothing was tried".into()),
    };
    fail(
        format!("no bits are found for layer `{name}`: {reason}"),
        "give more with --fraction-bits, give --relaxed 0.25, or use --method direct",
    )
}
