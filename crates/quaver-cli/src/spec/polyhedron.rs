//! `quaver spec polyhedron`: linear constraints on the outputs of a box of inputs.

use std::path::PathBuf;

use anyhow::Result;
use quaver::num::Ratio;
use quaver::property::Region;

use super::expression::Comparison;
use super::{Declare, Draft, Target};
use crate::ball::clip;
use crate::npy::Array;
use crate::session::{Session, fail};

/// Write the query whether an input of a box satisfies linear constraints: unsat means that none does.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub target: Target,
    /// Smallest and largest value of every input element, such as 0,1
    #[arg(long, value_name = "LO,HI", value_parser = clip, allow_hyphen_values = true, required_unless_present_all = ["lo", "hi"])]
    range: Option<(Ratio, Ratio)>,
    /// Smallest value of each input element
    #[arg(long, value_name = "L.npy", requires = "hi", conflicts_with = "range")]
    lo: Option<PathBuf>,
    /// Largest value of each input element
    #[arg(long, value_name = "H.npy", requires = "lo")]
    hi: Option<PathBuf>,
    /// A constraint, such as `Y[0] - 2*Y[1] <= 0.5` or `X[3] < Y[0]`; elements are counted in row-major order
    #[arg(long, value_name = "C", required = true, allow_hyphen_values = true)]
    constraint: Vec<Comparison>,
    /// One of the constraints suffices
    #[arg(long)]
    any: bool,
}

/// The query.
pub fn draft(args: &Args, session: &Session<'_>) -> Result<Draft> {
    let (mut draft, _) = Draft::new(&args.target, Declare::Real, session.files)?;
    let inputs = draft.size().0;
    let corner = |path: &PathBuf| {
        let array = Array::read(session.files, path)?;
        if array.len() != inputs {
            let problem = format!("{}: {} elements for {inputs} inputs", array.place, array.len());
            return Err(fail(problem, "give one value for each input element"));
        }
        Ok((0..inputs).map(|i| array.at(i)).collect::<Vec<f64>>())
    };
    let region = match (&args.range, &args.lo, &args.hi) {
        (None, Some(lo), Some(hi)) => Region { lo: corner(lo)?, hi: corner(hi)? },
        (Some((lo, hi)), _, _) => Region { lo: vec![lo.f64_up(); inputs], hi: vec![hi.f64_down(); inputs] },
        (None, _, _) => return Err(fail("no box of inputs", "give --range, or --lo and --hi")),
    };
    draft.bound(&region)?;
    let texts = args.constraint.iter().map(|c| c.prefix(&draft)).collect::<Result<Vec<_>>>()?;
    if args.any {
        draft.assertions.push(format!("(or {})", texts.join(" ")));
    } else {
        draft.assertions.extend(texts);
    }
    Ok(draft)
}
