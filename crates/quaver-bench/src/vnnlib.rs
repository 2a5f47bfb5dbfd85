//! Suites of VNN-LIB queries: `quaver verify`, one process for each.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::measure::{Run, measured};
use crate::report::{Kind, Line, Report};
use crate::suite::{Instance, instances};
use crate::{Common, create};

/// A process is killed when it has taken this much longer than it was allowed.
const PATIENCE: f64 = 1.25;

#[derive(clap::Args)]
pub struct Args {
    /// A folder with an instances.csv, or such a file: columns onnx,vnnlib,timeout_s and perhaps expected
    #[arg(required = true)]
    suite: Option<PathBuf>,
    /// Only instances whose line contains this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Use the time limits of the file
    #[arg(long)]
    own_timeout: bool,
    #[command(flatten)]
    common: Common,
}

/// Whether no verdict contradicts a published one.
pub fn run(args: &Args) -> Result<bool> {
    let program = args.common.program()?;
    let mut chosen = instances(args.suite.as_deref().unwrap_or(Path::new(".")))?;
    chosen.retain(|i| args.filter.as_ref().is_none_or(|text| i.name.contains(text)));
    chosen.truncate(args.common.limit.unwrap_or(usize::MAX));
    let file = args.common.csv.as_deref().map(create).transpose()?;
    let mut report = Report::new(Kind { settled: ["sat", "unsat"] }, file)?;
    for instance in &chosen {
        let timeout =
            instance.timeout_s.filter(|_| args.own_timeout).map_or(args.common.timeout, Duration::from_secs_f64);
        let run = measured(&program, &arguments(instance, timeout, &args.common.more), timeout.mul_f64(PATIENCE))?;
        report.used(run.cpu_s, run.rss_mb);
        report.add(line(instance, &run), chosen.len())?;
    }
    Ok(report.finish())
}

fn arguments(instance: &Instance, timeout: Duration, more: &[String]) -> Vec<String> {
    let path = |p: &Path| p.display().to_string();
    let mut arguments = vec!["verify".into(), path(&instance.query)];
    for (network, model) in &instance.models {
        match network.is_empty() {
            true => arguments.push(path(model)),
            false => arguments.extend(["--network".into(), format!("{network}={}", path(model))]),
        }
    }
    arguments.extend(["--timeout".into(), timeout.as_secs_f64().to_string(), "--json".into()]);
    arguments.extend_from_slice(more);
    arguments
}

fn line(instance: &Instance, run: &Run) -> Line {
    let answer: Option<Value> = run.stdout.lines().next().and_then(|line| serde_json::from_str(line).ok());
    let verdict = match (&answer, run.code) {
        (Some(answer), _) => answer["verdict"].as_str().unwrap_or("error").to_string(),
        (None, None) => "killed".into(),
        (None, Some(_)) => {
            eprintln!("{}", run.stderr.trim());
            "error".into()
        }
    };
    let settled = |word: &str| word == "sat" || word == "unsat";
    Line {
        name: instance.name.clone(),
        expected: instance.expected.clone(),
        wrong: settled(&verdict) && settled(&instance.expected) && verdict != instance.expected,
        verdict,
        wall_s: run.wall_s,
        cpu_s: Some(run.cpu_s),
        rss_mb: Some(run.rss_mb),
        subproblems: answer.and_then(|a| a["subproblems"].as_u64()),
    }
}
