//! `quaver spec robustness`: an input near a given one that gets another class.

use std::path::PathBuf;

use anyhow::Result;
use quaver::net::execute;
use quaver::num::Ratio;
use quaver::property;

use super::{Declare, Draft, Target, Ties};
use crate::ball::{Radius, clip};
use crate::format;
use crate::inputs::Inputs;
use crate::npy::Array;
use crate::session::{Session, fail};

/// Write the query whether an input within a radius gets another class: unsat means robust.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub target: Target,
    /// Inputs in the model's own type: FILE.npy, FILE.npz or FILE.npz:ARRAY
    #[arg(long, value_name = "X.npy")]
    inputs: PathBuf,
    /// The row
    #[arg(long, value_name = "N", default_value_t = 0)]
    row: usize,
    /// The input's class [default: the class that the model gives it]
    #[arg(long, value_name = "K", conflicts_with = "labels")]
    label: Option<usize>,
    /// Classes of the inputs, one integer for each
    #[arg(long, value_name = "Y.npy")]
    labels: Option<PathBuf>,
    /// Radius, such as 4/255, 0.03 or, for an integer input, 1step
    #[arg(long, value_name = "R", allow_hyphen_values = true)]
    radius: Radius,
    /// Smallest and largest value of an input element, such as 0,1
    #[arg(long, value_name = "LO,HI", value_parser = clip, allow_hyphen_values = true)]
    clip: Option<(Ratio, Ratio)>,
    /// Whether a class must be strictly larger than every other, or wins as the first of equals
    #[arg(long, value_enum, default_value_t = Ties::Strict)]
    ties: Ties,
}

/// The query.
pub fn draft(args: &Args, session: &Session<'_>) -> Result<Draft> {
    let (mut draft, lowered) = Draft::new(&args.target, Declare::Model, session.files)?;
    let inputs = Inputs::read(session.files, std::slice::from_ref(&args.inputs), &lowered)?;
    let center = row(&inputs, args.row, &args.inputs)?;
    let classes = draft.size().1;
    let label = match (args.label, &args.labels) {
        (Some(label), _) => label,
        (None, None) => format::argmax(&execute(&lowered.net, std::slice::from_ref(&center), 1)[0].center),
        (None, Some(path)) => {
            let label = Array::read(session.files, path)?;
            let integer = (args.row < label.len()).then(|| label.integer(args.row)).flatten();
            integer.and_then(|l| usize::try_from(l).ok()).ok_or_else(|| {
                fail(format!("{}: no label for row {}", label.place, args.row), "give one integer for each input")
            })?
        }
    };
    if label >= classes {
        let problem = format!("label {label}, and the model has {classes} classes");
        return Err(fail(problem, format!("use labels from 0 to {}", classes.saturating_sub(1))));
    }
    let radius = args.radius.value(&lowered)?;
    let region = property::ball(&lowered, &center, &radius, args.clip.as_ref())
        .map_err(|e| fail(format!("row {}: {e}", args.row), "change --clip or --row"))?;
    draft.remarks.push(format!("robustness of row {} of {}", args.row, args.inputs.display()));
    draft.remarks.push(format!("class {label}, radius {}; unsat means robust", args.radius.text));
    draft.bound(&region)?;
    draft.contest(label, args.ties == Ties::First);
    Ok(draft)
}

/// One row of the inputs.
pub fn row(inputs: &Inputs, row: usize, path: &std::path::Path) -> Result<Vec<f64>> {
    if row >= inputs.rows {
        let problem = format!("--row {row}, and {} has {} rows", path.display(), inputs.rows);
        return Err(fail(problem, format!("rows are counted from 0: use rows up to {}", inputs.rows - 1)));
    }
    Ok(inputs.batch(row, row + 1).swap_remove(0))
}
