//! `quaver verify`: whether a VNN-LIB query can be satisfied.

mod assignment;
mod certified;
pub mod decide;
pub mod networks;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use quaver::property::vnnlib::Problem;
use quaver::verify::Options;
use quaver::vnnlib::{self, Spec};
use serde_json::json;

use crate::ball::seconds;
use crate::certify::Checking;
use crate::load;
use crate::session::{Session, fail};
use certified::Certified;
use decide::{Answer, Outcome};

/// No time limit: a hundred years.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Decide a VNN-LIB query (1.0 or 2.0) about one or several networks.
///
/// The first line of the answer is sat, unsat, unknown or timed-out. After sat follow the inputs and outputs that satisfy the query, with all
/// digits. Everything else goes to stderr. A query of `real` tensors (and every query of version 1.0) is about real arithmetic, a query of
/// machine types about float32 arithmetic in any order of summation; --profile chooses another.
#[derive(clap::Args)]
pub struct Args {
    /// The query (.vnnlib, or gzipped)
    query: PathBuf,
    /// The model of a query with one network, instead of --network
    model: Option<PathBuf>,
    /// The model of a declared network; once for each that is not declared equal to another
    #[arg(long, value_name = "NAME=MODEL", value_parser = networks::named)]
    network: Vec<(String, PathBuf)>,
    /// Seconds for the whole query [default: no limit]
    #[arg(long, value_name = "S", value_parser = seconds, allow_hyphen_values = true)]
    timeout: Option<Duration>,
    /// Seed of the attack
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Threads [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[arg(long, value_name = "P", value_parser = load::profile_name, help = "Arithmetic of the runtime [default: real for a query of `real` \
                                                                             tensors, else float32]")]
    profile: Option<String>,
    /// Write a certificate of the answer to this file, for quaver-check (one network, arithmetic real, ort-fused or
    /// fixed-point; or two with equal inputs, arithmetic real)
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    #[command(flatten)]
    checking: Checking,
    /// Write the assignment as NAME.pb files (ONNX TensorProto) into this folder instead of printing it
    #[arg(long, value_name = "FOLDER")]
    serialise_assignments: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let start = Instant::now();
    let spec = vnnlib::read(&args.query)?;
    let profile = args.profile.clone().unwrap_or_else(|| networks::default_profile(&spec).into());
    let nets = networks::load(args, &spec, &profile, session.files)?;
    let problem = Problem::new(&spec, &nets).map_err(|e| fail_in(&args.query, &e))?;
    tell(&profile, &problem, &nets[0].assumptions);
    let threads = threads(args);
    let options = Options {
        timeout: args.timeout.unwrap_or(FOREVER).saturating_sub(start.elapsed()),
        seed: args.seed,
        threads,
        stop: Some(stop_on_interrupt()?),
        ..Options::default()
    };
    let mut certified = Certified::begin(args, &spec, &profile, &problem, &nets[0].assumptions)?;
    let recorded = certified.as_mut().map(|c| &mut c.certificate);
    let outcome = decide::decide(&problem, &options, recorded).map_err(|e| fail_in(&args.query, &e))?;
    let outcome = match certified {
        Some(certified) => certified.end(args, &problem, outcome)?,
        None => outcome,
    };
    show(
        args,
        &spec,
        &problem,
        &Outcome { profile: outcome.profile.or(Some(profile)), ..outcome },
        start.elapsed(),
        session,
    )
}

/// How many threads there are, for bounds too.
fn threads(args: &Args) -> usize {
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.unwrap_or_else(all).max(1);
    // Only a first pool can be set; a second one would be as large as the first.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    threads
}

fn fail_in(query: &std::path::Path, error: &dyn std::fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("{}: {error}", query.display())
}

/// What the answer rests on, for people.
fn tell(profile: &str, problem: &Problem, assumptions: &[String]) {
    eprintln!("profile {profile}");
    assumptions.iter().for_each(|a| eprintln!("assumes {a}"));
    problem.notes.iter().for_each(|note| eprintln!("note: {note}"));
    if problem.parts.is_empty() {
        eprintln!("no input satisfies the query's own bounds");
    }
}

/// Set by the first interrupt; the second ends the program.
pub fn stop_on_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    let handler = move || {
        if seen.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping with what is known; interrupt again to end at once");
    };
    ctrlc::set_handler(handler).map_err(|e| fail(format!("cannot listen for interrupts: {e}"), "run it in a shell"))?;
    Ok(stop)
}

fn show(
    args: &Args,
    spec: &Spec,
    problem: &Problem,
    outcome: &Outcome,
    took: Duration,
    session: &mut Session<'_>,
) -> Result<()> {
    let assigned = match &outcome.answer {
        Answer::Sat(found) => {
            problem.parts[found.part].assignment(spec, found.witness.input(), found.witness.outputs())
        }
        Answer::Unsat | Answer::Unknown | Answer::TimedOut => vec![],
    };
    if session.json {
        session.line(&json!({
            "verdict": outcome.answer.word(), "seconds": took.as_secs_f64(), "bound": outcome.bound, "method": outcome.method,
            "why": outcome.why, "subproblems": outcome.subproblems, "profile": outcome.profile,
            "witness": assignment::json(spec, &assigned),
        }))?;
    } else {
        session.say(outcome.answer.word())?;
    }
    eprintln!("{}", outcome.summary(took));
    match &args.serialise_assignments {
        Some(folder) if !assigned.is_empty() => assignment::serialise(spec, &assigned, folder),
        _ if session.json => Ok(()),
        _ => assignment::print(spec, &assigned, session),
    }
}
