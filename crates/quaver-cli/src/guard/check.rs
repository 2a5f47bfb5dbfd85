//! `quaver guard check`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use quaver::guard::kernels::Isa;
use quaver::guard::plan::Kind;
use quaver::guard::refute::Attempts;
use serde_json::json;

use super::folder::Folder;
use super::run::rows;
use crate::format::{self, Table, number};
use crate::session::{Session, fail};

/// Try to refute a guard: random inputs, and inputs at the border of two classes from which leads are driven up. All networks are executed on each.
#[derive(clap::Args)]
pub struct Args {
    /// The guard's folder
    guard: PathBuf,
    /// Random inputs
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    random: u64,
    /// Attacks
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    attacked: u64,
    /// Rows to begin from, float32
    #[arg(long, value_name = "X.npy")]
    inputs: Option<PathBuf>,
    /// Seed of random numbers
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let folder = Folder::read(&args.guard)?;
    if folder.plan.kind == Kind::Ensemble {
        let problem =
            format!("{}: members of an ensemble answer for float networks of their own", args.guard.display());
        return Err(fail(problem, "build a guard of each member alone, and check that"));
    }
    let guard = folder.guard(Isa::best())?;
    let data = args.inputs.as_ref().map(|path| rows(path, guard.input_len(), session)).transpose()?;
    let start = Instant::now();
    let attempts = Attempts { random: args.random, attacked: args.attacked, seed: args.seed };
    let found = guard.refute(data.as_deref().unwrap_or_default(), attempts);
    let seconds = start.elapsed().as_secs_f64();
    let wrong = |stage: usize| found.wrong.iter().filter(|w| w.0 == stage).count();
    if session.json {
        let wrong: Vec<usize> = (0..guard.stages_len()).map(wrong).collect();
        return session.line(&json!({
            "executed": found.tried, "random": args.random, "attacked": args.attacked, "differ": found.differ, "wrong": wrong,
            "nearest": found.nearest, "seconds": seconds,
        }));
    }
    let mut table = Table::new(&["network", ">other class", ">sure of it", ">largest share of a threshold"]);
    for (i, name) in folder.names().iter().take(guard.stages_len()).enumerate() {
        let differ = format::grouped(found.differ[i] as usize);
        table.row([name.clone(), differ, format::grouped(wrong(i)), number(found.nearest[i])]);
    }
    table.write(session.out)?;
    let executed = format::count(found.tried as usize, "input");
    session.say(format!("  {executed} executed in {} s; sure and wrong: {}", number(seconds), found.wrong.len()))?;
    match found.wrong.first() {
        Some((stage, x)) => session.say(format!("  refuted: stage {stage} at {x:?}")),
        None => Ok(()),
    }
}
