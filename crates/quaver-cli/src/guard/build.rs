//! `quaver guard build`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use quaver::guard::plan::{Kind, Plan, StagePlan};
use serde_json::json;

use super::folder::{Folder, write};
use crate::format;
use crate::session::{Session, fail};
use crate::thresholds::{Problem, ProblemArgs, Work};

/// Prove thresholds and write a guard: a folder with the networks and a plan.
#[derive(clap::Args)]
pub struct Args {
    /// The float model (.onnx, .tflite, or gzipped)
    float: PathBuf,
    /// Quantized models of it; the ones with fewer bits are asked first
    #[arg(required = true)]
    quantized: Vec<PathBuf>,
    #[command(flatten, next_help_heading = "Which inputs")]
    problem: ProblemArgs,
    /// Take the bounds that `quaver thresholds --output` wrote, instead of proving them again
    #[arg(long, value_name = "FILE.json", conflicts_with = "member")]
    thresholds: Option<PathBuf>,
    /// Another float model that was trained alike, and its quantized one: the guard is an ensemble. It never runs a float network; where no member is sure
    /// it gives the first one's class, and says so
    #[arg(long, value_name = "FLOAT,QUANT", value_parser = pair)]
    member: Vec<(PathBuf, PathBuf)>,
    /// The folder to write
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

fn pair(text: &str) -> Result<(PathBuf, PathBuf), String> {
    let parts = text.split_once(',').ok_or_else(|| format!("`{text}` is not two files: write FLOAT,QUANT"))?;
    Ok((parts.0.into(), parts.1.into()))
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let mut plan = match &args.thresholds {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            let cure = "give a file that `quaver thresholds --output` wrote";
            let plan: Plan = serde_json::from_str(&text).map_err(|e| fail(format!("{}: {e}", path.display()), cure))?;
            same_files(args, &plan, path)?;
            plan
        }
        None => {
            let problem = Problem::new(&args.problem, &args.float, &args.quantized, session)?;
            prove(&problem, Kind::Refinement)?
        }
    };
    match args.member.is_empty() {
        true => plan.stages.sort_by_key(|stage| stage.bits),
        false => ensemble(args, &mut plan, session)?,
    }
    write(plan, &args.output)?;
    // What was written can be read and runs.
    let folder = Folder::read(&args.output)?;
    let guard = folder.guard(quaver::guard::kernels::Isa::best())?;
    if session.json {
        let stages: Vec<&String> = folder.plan.stages.iter().map(|s| &s.network.file).collect();
        return session
            .line(&json!({ "guard": args.output.display().to_string(), "stages": stages, "bits": guard.bits() }));
    }
    session.say(format!(
        "{}: {}",
        args.output.display(),
        format::count(folder.plan.stages.len(), "quantized network")
    ))?;
    for (name, bits) in folder.names().iter().zip(guard.bits()) {
        session.say(format!("  {name}: {bits} bits"))?;
    }
    Ok(())
}

fn prove(problem: &Problem, kind: Kind) -> Result<Plan> {
    let bounds = problem.quantized.iter().map(|q| Work::bounds(problem, &problem.compared(q)?));
    problem.plan(kind, bounds.collect::<Result<_>>()?)
}

/// Adds the members of an ensemble, each with thresholds against its own float network, in the cells of the first.
fn ensemble(args: &Args, plan: &mut Plan, session: &Session<'_>) -> Result<()> {
    plan.kind = Kind::Ensemble;
    for (float, quantized) in &args.member {
        let mut problem = Problem::new(&args.problem, float, std::slice::from_ref(quantized), session)?;
        problem.cells = plan.cells.clone();
        let member = prove(&problem, Kind::Ensemble)?;
        if member.classes != plan.classes {
            let problem =
                format!("{}: {} classes, and the first network has {}", float.display(), member.classes, plan.classes);
            return Err(fail(problem, "give members for one task"));
        }
        plan.stages.extend(member.stages);
    }
    Ok(())
}

/// Refuses bounds of other files.
fn same_files(args: &Args, plan: &Plan, path: &std::path::Path) -> Result<()> {
    let known = |stage: &StagePlan| [stage.network.sha256.clone(), stage.float.sha256.clone()];
    let known: Vec<String> = plan.stages.iter().flat_map(known).collect();
    for file in args.quantized.iter().chain([&args.float]) {
        if !known.contains(&crate::certify::digest(file)?) {
            let problem = format!("{} has no bounds for {}", path.display(), file.display());
            return Err(fail(problem, "leave --thresholds out, or give the files that the bounds were proved for"));
        }
    }
    Ok(())
}
