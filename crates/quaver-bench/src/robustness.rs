//! Suites of robustness claims: `quaver robustness` on the rows of a file, compared with published verdicts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use quaver::num::Ratio;
use serde_json::Value;

use crate::measure::measured;
use crate::report::{Kind, Line, Report};
use crate::suite::Table;
use crate::{Common, create};

/// Run quaver robustness on published claims, and compare each verdict.
#[derive(clap::Args)]
pub struct Args {
    /// The model
    model: PathBuf,
    /// Inputs, as for quaver robustness
    inputs: PathBuf,
    /// Classes of the inputs
    #[arg(long, value_name = "Y.npy")]
    labels: Option<PathBuf>,
    /// Published verdicts: row, radius and robust, vulnerable, timeout or misclassified
    #[arg(long, value_name = "FILE.csv")]
    expected: PathBuf,
    /// What a radius of 1 in that file is in the model's input, such as 1/256
    #[arg(long, value_name = "R", default_value = "1")]
    unit: String,
    #[command(flatten)]
    common: Common,
}

/// A published claim.
struct Claim {
    row: usize,
    verdict: String,
}

/// Whether no verdict contradicts a published one.
pub fn run(args: &Args) -> Result<bool> {
    let program = args.common.program()?;
    let file = args.common.csv.as_deref().map(create).transpose()?;
    let mut report = Report::new(Kind { settled: ["robust", "vulnerable"] }, file)?;
    let claims = claims(args)?;
    let total = claims.values().map(Vec::len).sum();
    for (radius, rows) in &claims {
        // Rows run side by side; the time limit is each row's own.
        let kill = args.common.timeout.saturating_mul(rows.len() as u32).saturating_add(Duration::from_secs(60));
        let run = measured(&program, &arguments(args, radius, rows), kill)?;
        if run.code != Some(0) {
            bail!("radius {radius}: {}", run.stderr.trim());
        }
        let answers: Vec<Value> = run.stdout.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        report.used(run.cpu_s, run.rss_mb);
        let lines = rows.iter().map(|claim| compared(radius, claim, &answers)).collect::<Result<Vec<_>>>()?;
        lines.into_iter().try_for_each(|line| report.add(line, total))?;
        println!("radius {radius}: {:.2} s, {:.2} s of CPU, {:.0} MB", run.wall_s, run.cpu_s, run.rss_mb);
    }
    Ok(report.finish())
}

/// The published claims of each radius.
fn claims(args: &Args) -> Result<BTreeMap<String, Vec<Claim>>> {
    let table =
        Table::read(&args.expected, &["row", "radius", "expected"], &["test_id", "eps_pixels", "published_result"])?;
    let mut claims: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
    for (i, row) in table.rows().enumerate().take(args.common.limit.unwrap_or(usize::MAX)) {
        let field = |names: [&str; 2]| names.iter().find_map(|n| row.get(n).copied()).unwrap_or_default();
        let bad = || format!("{}: line {} of the claims names no row", args.expected.display(), i + 1);
        let claim = Claim {
            row: field(["row", "test_id"]).parse().ok().with_context(bad)?,
            verdict: field(["expected", "published_result"]).to_string(),
        };
        claims.entry(field(["radius", "eps_pixels"]).to_string()).or_default().push(claim);
    }
    Ok(claims)
}

fn arguments(args: &Args, radius: &str, rows: &[Claim]) -> Vec<String> {
    let rows: Vec<String> = rows.iter().map(|c| c.row.to_string()).collect();
    let path = |p: &PathBuf| p.display().to_string();
    let mut arguments =
        vec!["robustness".into(), path(&args.model), "--inputs".into(), path(&args.inputs), "--json".into()];
    arguments.extend(args.labels.iter().flat_map(|l| ["--labels".into(), path(l)]));
    arguments.extend(["--radius".into(), scaled(radius, &args.unit), "--indices".into(), rows.join(",")]);
    arguments.extend(["--timeout".into(), args.common.timeout.as_secs_f64().to_string()]);
    arguments.extend_from_slice(&args.common.more);
    arguments
}

/// The radius in the model's units, as a fraction where both are.
fn scaled(radius: &str, unit: &str) -> String {
    match (unit, unit.split_once('/')) {
        ("1", _) => radius.into(),
        (_, Some(("1", denominator))) if !radius.contains('/') => format!("{radius}/{denominator}"),
        _ => {
            let number = |t: &str| t.parse::<Ratio>().ok();
            number(radius).zip(number(unit)).map_or(radius.into(), |(r, u)| r.times(&u).approx().to_string())
        }
    }
}

fn compared(radius: &str, claim: &Claim, answers: &[Value]) -> Result<Line> {
    let answer = answers.iter().find(|a| a["index"].as_u64() == Some(claim.row as u64));
    let answer = answer.with_context(|| format!("radius {radius}: no answer on row {}", claim.row))?;
    let misclassified = answer["class"] != answer["label"];
    let verdict = match answer["verdict"].as_str() {
        _ if misclassified => "misclassified",
        Some("holds") => "robust",
        Some("violated") => "vulnerable",
        _ => "undecided",
    };
    let published = &claim.verdict[..];
    let settled = |v: &str| matches!(v, "robust" | "vulnerable" | "misclassified");
    Ok(Line {
        name: format!("row {} radius {radius}", claim.row),
        expected: published.into(),
        wrong: settled(verdict) && settled(published) && verdict != published,
        verdict: verdict.into(),
        wall_s: answer["seconds"].as_f64().unwrap_or(0.0),
        cpu_s: None,
        rss_mb: None,
        subproblems: answer["subproblems"].as_u64(),
    })
}
