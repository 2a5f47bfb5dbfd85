//! `quaver thresholds`: how far quantized networks can lead with a class that the float network does not give.

mod bound;
mod certificates;
mod problem;
mod programs;
mod report;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::ValueEnum;
use quaver::guard::plan::Kind;

use crate::certify::Checking;
use crate::progress;
use crate::session::{Session, fail};
pub use bound::Work;
pub use problem::Problem;

/// What thresholds are asked for.
pub type ProblemArgs = problem::Args;

/// Bound every disagreement of quantized networks and their float network, over all inputs of a box.
///
/// For each quantized network q, and for each cell of inputs, upper bounds are proved on its lead with a class c where the float network f puts
/// another class k first: D(c, k) on the lead over k, and L(c, k) on the least lead, over all others. If q leads by more, f gives the same class. The
/// float network is the float32 program: whatever its roundings and the order of its sums are, they are inside the bounds. Lower bounds
/// are leads that an executed input has. docs/thresholds.md has the claims and their proofs.
#[derive(clap::Args)]
pub struct Args {
    /// The float model (.onnx, .tflite, or gzipped), a classifier with one input and one output
    float: PathBuf,
    /// Quantized models of it
    #[arg(required = true)]
    quantized: Vec<PathBuf>,
    #[command(flatten, next_help_heading = "Which inputs, and how long")]
    problem: problem::Args,
    #[command(flatten, next_help_heading = "How")]
    engine: programs::Args,
    /// Print the bound d for each class, or for each pair of classes
    #[arg(long, value_enum, default_value_t = Per::Class)]
    per: Per,
    /// Stop looking for disagreements, and for better bounds, when all gaps are below this share of the bounds
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    gap: f64,
    /// Write the bounds here, as a guard has them (JSON)
    #[arg(long, value_name = "FILE.json")]
    output: Option<PathBuf>,
    /// Write a query for each pair of classes, about the networks on real numbers and the whole box, and its certificate into this folder; quaver-check proves
    /// them again
    #[arg(long, value_name = "FOLDER")]
    certificates: Option<PathBuf>,
    #[command(flatten)]
    checking: Checking,
    /// Seed of the attack
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// What is printed.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Per {
    Class,
    Pair,
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let problem = Problem::new(&args.problem, &args.float, &args.quantized, session)?;
    let report = report::Report { args, problem: &problem };
    let milp = args.engine.milp()?;
    let checker = args.checking.checker()?;
    if checker.is_some() && args.certificates.is_none() {
        return Err(fail("--certified without certificates", "add --certificates FOLDER"));
    }
    report.begin(session)?;
    let mut all = vec![];
    for q in &problem.quantized {
        let start = Instant::now();
        let compared = problem.compared(q)?;
        let bar = progress::spinner();
        let mut work = Work::new(&problem, q, &compared, args.seed);
        let (mut told, mut first) = (None, 0.0);
        match &milp {
            Some(milp) => told = Some(programs::improve(&mut work, milp, args.per, args.problem.timeout)?),
            None => {
                work.begin()?;
                first = start.elapsed().as_secs_f64();
                work.improve(args.problem.timeout, args.gap, &bar)?;
            }
        }
        bar.finish_and_clear();
        let checked = |folder: &PathBuf| certificates::write(&problem, q, (folder, checker.as_ref()), session);
        let certified = args.certificates.as_ref().map(checked).transpose()?;
        report.show(q, &work, told.as_ref(), (first, start.elapsed().as_secs_f64()), session)?;
        report.certified(certified.as_deref(), session)?;
        all.push(work.found.into_iter().map(|f| f.proved).collect());
    }
    match &args.output {
        None => Ok(()),
        Some(path) => {
            let plan = problem.plan(Kind::Refinement, all)?;
            let text = serde_json::to_string_pretty(&plan)?;
            std::fs::write(path, text).with_context(|| format!("{}: cannot write the file", path.display()))
        }
    }
}
