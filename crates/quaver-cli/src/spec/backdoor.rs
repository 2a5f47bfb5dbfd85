//! `quaver spec backdoor`: an input with a trigger that gets the target class.

use std::path::PathBuf;

use anyhow::Result;
use quaver::model::lower::Lowered;
use quaver::num::Ratio;
use quaver::property::{self, Region};

use super::{Declare, Draft, Target, Ties, robustness};
use crate::ball::{Radius, clip};
use crate::inputs::Inputs;
use crate::npy::Array;
use crate::session::{Session, fail};

/// Write the query whether an input that carries a trigger gets the target class: unsat means that it never does.
///
/// The trigger is the patch where --trigger-mask is not zero. Its elements have the given values, or any value of the range. The others are those of
/// a row of --inputs, or within --radius of them; without --inputs, anything in the range.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub target: Target,
    /// Where the trigger is: not zero in the patch, with the shape of one input
    #[arg(long, value_name = "M.npy")]
    trigger_mask: PathBuf,
    /// Values of the trigger, with the shape of one input [default: any value of the range]
    #[arg(long, value_name = "V.npy")]
    trigger_values: Option<PathBuf>,
    /// The class that a backdoor aims at
    #[arg(long, value_name = "K")]
    class: usize,
    /// Inputs that the trigger is put on, in the model's own type
    #[arg(long, value_name = "X.npy")]
    inputs: Option<PathBuf>,
    /// The row
    #[arg(long, value_name = "N", default_value_t = 0, requires = "inputs")]
    row: usize,
    /// How far the other elements may be from the row's
    #[arg(long, value_name = "R", default_value = "0", requires = "inputs", allow_hyphen_values = true)]
    radius: Radius,
    /// Smallest and largest value of an input element [default: 0,1 for a float input, the type's range for an integer one]
    #[arg(long, value_name = "LO,HI", value_parser = clip, allow_hyphen_values = true)]
    clip: Option<(Ratio, Ratio)>,
    /// Whether the class must be strictly larger than every other to be missed, or wins as the first of equals
    #[arg(long, value_enum, default_value_t = Ties::Strict)]
    ties: Ties,
}

/// The query.
pub fn draft(args: &Args, session: &Session<'_>) -> Result<Draft> {
    let (mut draft, lowered) = Draft::new(&args.target, Declare::Model, session.files)?;
    let (inputs, classes) = draft.size();
    if args.class >= classes {
        let problem = format!("class {}, and the model has {classes} classes", args.class);
        return Err(fail(problem, format!("use classes from 0 to {}", classes.saturating_sub(1))));
    }
    let range = range(args, &lowered);
    let mut region = match &args.inputs {
        None => Region { lo: vec![range.0; inputs], hi: vec![range.1; inputs] },
        Some(path) => {
            let all = Inputs::read(session.files, std::slice::from_ref(path), &lowered)?;
            let center = robustness::row(&all, args.row, path)?;
            property::ball(&lowered, &center, &args.radius.value(&lowered)?, args.clip.as_ref())
                .map_err(|e| fail(format!("row {}: {e}", args.row), "change --clip or --row"))?
        }
    };
    let patch = stamp(args, range, &mut region, session)?;
    draft
        .remarks
        .push(format!("a trigger of {patch} elements and class {}; unsat means that it is never given", args.class));
    draft.bound(&region)?;
    for rival in (0..classes).filter(|&c| c != args.class) {
        let word = if args.ties == Ties::First && rival < args.class { ">" } else { ">=" };
        draft.assertions.push(format!("({word} {} {})", draft.y(args.class), draft.y(rival)));
    }
    Ok(draft)
}

/// The range of an input element.
fn range(args: &Args, lowered: &Lowered) -> (f64, f64) {
    let integer = lowered.input_types[0].integer_range();
    match (&args.clip, integer) {
        (None, None) => (0.0, 1.0),
        (None, Some((lo, hi))) => (lo as f64, hi as f64),
        (Some((lo, hi)), None) => (lo.ceil_f32().into(), hi.floor_f32().into()),
        (Some((lo, hi)), Some(_)) => (lo.f64_up().ceil(), hi.f64_down().floor()),
    }
}

/// Puts the trigger into the region; gives its number of elements.
fn stamp(args: &Args, range: (f64, f64), region: &mut Region, session: &Session<'_>) -> Result<usize> {
    let read = |path: &PathBuf| {
        let array = Array::read(session.files, path)?;
        if array.len() != region.lo.len() {
            let problem = format!("{}: {} elements for {} inputs", array.place, array.len(), region.lo.len());
            return Err(fail(problem, "give the shape of one input"));
        }
        Ok(array)
    };
    let mask = read(&args.trigger_mask)?;
    let values = args.trigger_values.as_ref().map(read).transpose()?;
    let patch: Vec<usize> = (0..mask.len()).filter(|&i| mask.at(i) != 0.0).collect();
    for &i in &patch {
        (region.lo[i], region.hi[i]) = values.as_ref().map_or(range, |v| (v.at(i), v.at(i)));
    }
    if patch.is_empty() {
        return Err(fail(format!("{}: no element of the mask is set", mask.place), "set the trigger's elements to 1"));
    }
    Ok(patch.len())
}
