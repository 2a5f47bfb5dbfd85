//! `quaver anomaly`: how large the anomaly score of an autoencoder can get near each input.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use quaver::model::lower::Lowered;
use quaver::num::Ratio;
use quaver::property;
use quaver::verify::{Autoencoder, Options, ScoreBounds};
use serde_json::json;

use crate::ball::{Radius, Rows, clip, in_order, rows, seconds};
use crate::format::{self, number};
use crate::inputs::Inputs;
use crate::session::{Session, fail};
use crate::{load, progress};

/// Bound the anomaly score of an autoencoder for every input within a radius.
///
/// The score is the mean squared difference of the output and the input, in real units. For each input a proved lower and upper bound are
/// given, and the highest score that an executed input within the radius has. With --threshold the claim is that the score stays at most
/// there: `holds`, `violated` (an executed input is above) or `undecided`.
#[derive(clap::Args)]
pub struct Args {
    /// The model (.onnx, .tflite, or gzipped), whose output has the shape of its input
    model: PathBuf,
    /// Inputs in the model's own type, [N, shape] or [N, elements]: FILE.npy, FILE.npz or FILE.npz:ARRAY
    #[arg(long, value_name = "X.npy")]
    inputs: PathBuf,
    /// Radius, such as 4/255, 0.03 or, for an integer input, 1step
    #[arg(long, value_name = "R", allow_hyphen_values = true)]
    radius: Radius,
    /// The score that must not be exceeded
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    threshold: Option<Ratio>,
    /// Rows to look at, such as 0..100 or 3,7,20..30 [default: all]
    #[arg(long, value_name = "ROWS", value_delimiter = ',')]
    indices: Vec<Rows>,
    /// Seconds for the search in each input
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds, allow_hyphen_values = true)]
    timeout: Duration,
    /// Smallest and largest value of an input element, such as 0,1
    #[arg(long, value_name = "LO,HI", value_parser = clip, allow_hyphen_values = true)]
    clip: Option<(Ratio, Ratio)>,
    #[arg(long, value_name = "P", value_parser = load::profile_name, help = load::PROFILE_HELP)]
    profile: Option<String>,
    /// Seed of the search
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let lowered = load::lowered(session.files, &args.model, args.profile.as_deref())?.lowered;
    let autoencoder = Autoencoder::new(&lowered).map_err(|e| {
        fail(format!("{}: {e}", args.model.display()), "give an autoencoder, or use `quaver robustness`")
    })?;
    let inputs = Inputs::read(session.files, std::slice::from_ref(&args.inputs), &lowered)?;
    let (radius, rows) = (args.radius.value(&lowered)?, rows(&args.indices, inputs.rows, &args.inputs)?);
    let start = Instant::now();
    if !session.json {
        announce(args, &lowered, rows.len(), session)?;
    }
    let mut counts = [0usize; 3];
    let bar = progress::bar(rows.len());
    let decide = |i: usize| -> Result<(ScoreBounds, f64)> {
        let start = Instant::now();
        let center = inputs.batch(rows[i], rows[i] + 1).swap_remove(0);
        let region = property::ball(&lowered, &center, &radius, args.clip.as_ref())
            .map_err(|e| fail(format!("row {}: {e}", rows[i]), "change --clip, or leave the row out with --indices"))?;
        let options = Options { timeout: args.timeout, seed: args.seed, ..Options::default() };
        Ok((autoencoder.bound(&region, &center, &options), start.elapsed().as_secs_f64()))
    };
    in_order(rows.len(), decide, |i, outcome| {
        let (bounds, seconds) = outcome?;
        let verdict = verdict(&bounds, args.threshold.as_ref());
        if let Some((k, _)) = verdict {
            counts[k] += 1;
        }
        bar.inc(1);
        bar.suspend(|| show(rows[i], &bounds, seconds, verdict.map(|v| v.1), &lowered, session))
    })?;
    bar.finish_and_clear();
    conclude(args, counts, start.elapsed().as_secs_f64(), &lowered, session)
}

fn announce(args: &Args, lowered: &Lowered, rows: usize, session: &mut Session<'_>) -> Result<()> {
    let rows = format::count(rows, "input");
    session.say(format!("{} under profile {}, {rows}", args.model.display(), lowered.profile))?;
    lowered.assumptions.iter().try_for_each(|assumption| session.say(format!("assumes {assumption}")))?;
    lowered.notes.iter().try_for_each(|note| session.say(format!("note: {note}")))
}

/// Which verdict on the threshold, if there is one.
fn verdict(bounds: &ScoreBounds, threshold: Option<&Ratio>) -> Option<(usize, &'static str)> {
    let threshold = threshold?;
    // Exact comparisons: a score that is not a number settles nothing.
    let above = |score: f64| Ratio::from_f64(score).map(|s| threshold.minus(&s).is_negative());
    Some(match (above(bounds.hi()), above(bounds.witness().score().0)) {
        (Some(false), _) => (0, "holds"),
        (_, Some(true)) => (1, "violated"),
        _ => (2, "undecided"),
    })
}

fn show(
    row: usize,
    bounds: &ScoreBounds,
    seconds: f64,
    verdict: Option<&str>,
    lowered: &Lowered,
    session: &mut Session<'_>,
) -> Result<()> {
    let witness = bounds.witness();
    if session.json {
        return session.line(&json!({
            "index": row, "verdict": verdict, "seconds": seconds, "lower": bounds.lo(), "upper": bounds.hi(),
            "highest_executed": witness.score().0, "witness": witness.input(), "witness_profile": witness.profile(),
        }));
    }
    let runtime = if lowered.members.is_empty() { String::new() } else { format!(" under {}", witness.profile()) };
    let verdict = verdict.map_or(String::new(), |v| format!("{v:<9}  "));
    let (lo, hi, seen) = (number(bounds.lo()), number(bounds.hi()), number(witness.score().0));
    session.say(format!("row {row}  {seconds:.3} s  {verdict}score within [{lo}, {hi}]; {seen} was executed{runtime}"))
}

fn conclude(args: &Args, counts: [usize; 3], seconds: f64, lowered: &Lowered, session: &mut Session<'_>) -> Result<()> {
    let [holds, violated, undecided] = counts;
    if session.json {
        return session.line(&json!({"summary": {
            "holds": holds, "violated": violated, "undecided": undecided, "seconds": seconds, "profile": lowered.profile,
            "assumptions": lowered.assumptions, "threshold": args.threshold.as_ref().map(Ratio::approx),
        }}));
    }
    if let Some(threshold) = &args.threshold {
        let threshold = number(threshold.approx());
        session.say(format!("at most {threshold}: {holds} hold, {violated} violated, {undecided} undecided"))?;
    }
    session.say(format!("{seconds:.2} s"))
}
