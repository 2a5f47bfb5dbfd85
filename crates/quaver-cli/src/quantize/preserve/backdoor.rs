//! `--preserve backdoor`: no trigger at a place leads to a class, for enough inputs.

use std::path::PathBuf;

use anyhow::Result;
use quaver::model::lower::Lowered;
use quaver::property::{never_class, stamped};
use quaver::quantize::preserve::{Wanted, of_original};
use quaver::quantize::sprt::{Decision, Sprt};
use quaver::verify::{Options, Verdict};
use rand::rngs::StdRng;
use rand::seq::index::sample;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;

use super::Job;
use super::preimage::Method;
use super::wanted::{Property, draft};
use crate::inputs::Inputs;
use crate::npy::Array;
use crate::session::{Session, fail};

/// The trigger and the test.
#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// backdoor: where the trigger is, such as 3x3@4,20 for rows 4 to 6 and columns 20 to 22 of every channel, counted from 0
    #[arg(long, value_name = "HxW@ROW,COLUMN", conflicts_with = "trigger_mask")]
    trigger: Option<Patch>,
    /// backdoor: a trigger of any shape: not zero there, with the shape of one input
    #[arg(long, value_name = "M.npy")]
    trigger_mask: Option<PathBuf>,
    /// backdoor: the class that a trigger aims at
    #[arg(long, value_name = "K")]
    target: Option<usize>,
    /// backdoor: least share of inputs that a trigger must lead to the class
    #[arg(long, value_name = "SHARE", default_value_t = 0.9)]
    theta: f64,
    /// backdoor: inputs that are looked at together
    #[arg(long, value_name = "N", default_value_t = 5)]
    batch: u32,
    /// backdoor: error of the first kind
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    sigma: f64,
    /// backdoor: error of the second kind
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    rho: f64,
    /// backdoor: half of the width of the region of indifference
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    delta: f64,
    /// backdoor: least scaling of the first layer's set (preimage)
    #[arg(long, value_name = "E", default_value_t = 0.01)]
    least_scaling: f64,
}

/// A rectangle.
#[derive(Clone, Copy, Debug)]
struct Patch {
    size: (usize, usize),
    at: (usize, usize),
}

impl std::str::FromStr for Patch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = |t: &str, by: char| -> Option<(usize, usize)> {
            let (a, b) = t.split_once(by)?;
            Some((a.trim().parse().ok()?, b.trim().parse().ok()?))
        };
        let parsed = text.split_once('@').and_then(|(size, at)| Some((pair(size, 'x')?, pair(at, ',')?)));
        let (size, at) = parsed.filter(|(s, _)| s.0 > 0 && s.1 > 0).ok_or_else(|| {
            format!("`{text}` is no place of a trigger: write for example 3x3@4,20 (height x width @ row, column)")
        })?;
        Ok(Patch { size, at })
    }
}

/// Inputs on which no trigger leads to the class, one of each batch, until the test is decided.
///
/// # Source
/// Quadapter, algorithm 2.
pub fn collect(
    job: &Job<'_>,
    original: &Lowered,
    options: &Options,
    method: Option<&Method>,
    session: &mut Session<'_>,
) -> Result<Vec<Property>> {
    let given = &job.args.preserve.backdoor;
    let (Some(path), Some(target)) = (&job.args.refine.area.inputs, given.target) else {
        let problem = "backdoor-freeness of what is not said";
        return Err(fail(
            problem,
            "give --inputs X.npy, --target CLASS, and --trigger HxW@ROW,COLUMN or --trigger-mask M.npy",
        ));
    };
    let inputs = Inputs::read(session.files, std::slice::from_ref(path), original)?;
    let elements = elements(job, original, session)?;
    let mut sprt = Sprt::new(given.theta, given.batch, given.sigma, given.rho, given.delta)?;
    let mut rng = StdRng::seed_from_u64(job.args.refine.how.seed);
    let mut found: Vec<Property> = vec![];
    let decision = loop {
        let rows = batch(&mut rng, inputs.rows, given.batch as usize);
        let stamps = rows.iter().map(|&row| stamp(job, original, &inputs, row, &elements, target));
        let stamps = stamps.collect::<Result<Vec<_>>>()?;
        let best = match method {
            None => freest(original, stamps, options)?,
            Some(method) => widest(method, stamps, given.least_scaling)?,
        };
        let success = best.is_some();
        // A row may be drawn again.
        found.extend(best.filter(|b| found.iter().all(|f| f.wanted.name != b.wanted.name)));
        if let Some(decision) = sprt.tell(success) {
            break decision;
        }
    };
    let told = format!(
        "{} of {} batches have an input that no trigger leads to class {target}",
        sprt.successes(),
        sprt.batches()
    );
    if decision == Decision::Reject {
        return Err(fail(
            format!("the test refuses: {told}"),
            "give another place or class: there may be a backdoor, or it is not proved",
        ));
    }
    if !session.json {
        session.say(format!("the test accepts: {told}"))?;
    }
    Ok(found)
}

/// Rows at random, none twice where there are enough.
fn batch(rng: &mut StdRng, rows: usize, count: usize) -> Vec<usize> {
    if rows >= count {
        sample(rng, rows, count).into_vec()
    } else {
        (0..count).map(|_| rng.random_range(0..rows)).collect()
    }
}

/// Of the inputs on which the claim is proved, the one with the largest margin.
fn freest(original: &Lowered, stamps: Vec<Property>, options: &Options) -> Result<Option<Property>> {
    let wanted: Vec<Wanted> = stamps.iter().map(|s| s.wanted.clone()).collect();
    let verdicts = of_original(original, &wanted, &Options { threads: 1, ..options.clone() })?;
    let margin = |v: &Verdict| match v {
        Verdict::Holds(proof) => Some(proof.margin()),
        Verdict::Violated(_) | Verdict::Undecided(_) => None,
    };
    let proved = stamps.into_iter().zip(&verdicts).filter_map(|(s, v)| Some((margin(v)?, s)));
    Ok(proved.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, s)| s))
}

/// The input with the widest set of the first layer, if that is wide enough.
fn widest(method: &Method, stamps: Vec<Property>, epsilon: f64) -> Result<Option<Property>> {
    let made = stamps.par_iter().map(|s| method.preimage(s)).collect::<Result<Vec<_>>>()?;
    let with = stamps.into_iter().zip(made).filter_map(|(s, p)| {
        let p = p.filter(|p| p.proved.iter().all(|proved| *proved))?;
        Some((p.scalings.first().copied().unwrap_or(0.0), Property { preimage: Some(p), ..s }))
    });
    Ok(with.filter(|(chi, _)| *chi >= epsilon).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, s)| s))
}

/// The claim about one input.
fn stamp(
    job: &Job<'_>,
    original: &Lowered,
    inputs: &Inputs,
    row: usize,
    elements: &[usize],
    target: usize,
) -> Result<Property> {
    let range =
        job.args.refine.area.clip.as_ref().map_or((0.0, 1.0), |(lo, hi)| (lo.ceil_f32().into(), hi.floor_f32().into()));
    let x = inputs.batch(row, row + 1).swap_remove(0);
    let classes = original.net.node(original.net.outputs()[0]).len();
    let wrong = |e| fail(format!("row {row}: {e}"), "change --trigger, --clip or --target");
    let region = stamped(&x, elements, range).map_err(wrong)?;
    let mut draft = draft(original);
    draft.bound(&region)?;
    for rival in (0..classes).filter(|&c| c != target) {
        draft.assertions.push(format!("(>= {} {})", draft.y(target), draft.y(rival)));
    }
    let mut query = never_class(region, target, classes).map_err(wrong)?;
    query.candidates.push(x);
    Ok(Property {
        wanted: Wanted { name: format!("row{row}_target{target}"), query },
        text: draft.plain(),
        preimage: None,
    })
}

/// The elements of the trigger.
fn elements(job: &Job<'_>, original: &Lowered, session: &Session<'_>) -> Result<Vec<usize>> {
    let given = &job.args.preserve.backdoor;
    let node = original.net.node(original.net.inputs()[0]);
    if let Some(path) = &given.trigger_mask {
        let mask = Array::read(session.files, path)?;
        let set: Vec<usize> = (0..mask.len()).filter(|&i| mask.at(i) != 0.0).collect();
        return match mask.len() == node.len() && !set.is_empty() {
            true => Ok(set),
            false => Err(fail(
                format!(
                    "{}: {} elements, {} of them set, for {} inputs",
                    mask.place,
                    mask.len(),
                    set.len(),
                    node.len()
                ),
                "give an array of the shape of one input that is not zero where the trigger is",
            )),
        };
    }
    let Some(patch) = given.trigger else {
        return Err(fail("where the trigger is, is not said", "give --trigger HxW@ROW,COLUMN or --trigger-mask M.npy"));
    };
    let Some((height, width)) = picture(&node.shape) else {
        return Err(fail(
            format!("an input of shape {} is no picture", crate::format::shape(&node.shape)),
            "give --trigger-mask M.npy with the shape of one input",
        ));
    };
    let (bottom, right) = (patch.at.0 + patch.size.0, patch.at.1 + patch.size.1);
    if bottom > height || right > width {
        let problem = format!("the trigger ends at row {bottom} and column {right} of a picture of {height} x {width}");
        return Err(fail(problem, "rows and columns are counted from 0: give a place inside"));
    }
    let inside = |i: &usize| {
        let (row, column) = (i / width % height, i % width);
        (patch.at.0..bottom).contains(&row) && (patch.at.1..right).contains(&column)
    };
    Ok((0..node.len()).filter(inside).collect())
}

/// Height and width: the last two axes, or those of a square.
fn picture(shape: &[usize]) -> Option<(usize, usize)> {
    let long: Vec<usize> = shape.iter().copied().filter(|n| *n > 1).collect();
    match long[..] {
        [n] => {
            let side = n.isqrt();
            (side * side == n).then_some((side, side))
        }
        [.., height, width] => Some((height, width)),
        [] => None,
    }
}
