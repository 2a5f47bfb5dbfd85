//! `quaver-bench`: the program on suites of published instances, each in its own process, compared with the published verdicts.
//!
//! See `docs/bench.md`.

mod measure;
mod report;
mod robustness;
mod suite;
mod vnnlib;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

/// Run the quaver program on a suite of instances, and compare its verdicts with the published ones.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    suite: vnnlib::Args,
}

#[derive(Subcommand)]
enum Command {
    Robustness(robustness::Args),
    #[command(hide = true)]
    Measure(measure::Args),
}

/// What both kinds of suites share.
#[derive(clap::Args)]
struct Common {
    /// The program [default: quaver beside this one]
    #[arg(long, value_name = "PATH")]
    quaver: Option<PathBuf>,
    /// Seconds for each instance
    #[arg(long, value_name = "S", default_value = "60", value_parser = seconds)]
    timeout: Duration,
    /// Only so many instances
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Write a table of all instances
    #[arg(long, value_name = "FILE.csv")]
    csv: Option<PathBuf>,
    /// Further arguments for quaver, after --
    #[arg(last = true, value_name = "ARGS")]
    more: Vec<String>,
}

impl Common {
    /// The program to run.
    fn program(&self) -> Result<PathBuf> {
        let path = match &self.quaver {
            Some(path) => path.clone(),
            None => std::env::current_exe().context("where this program is")?.with_file_name("quaver"),
        };
        if !path.is_file() {
            bail!(
                "{}: no such program\n  what to do: build it with cargo build --release, or name it with --quaver",
                path.display()
            );
        }
        Ok(path)
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse::<f64>().map_err(|e| e.to_string())?;
    Duration::try_from_secs_f64(number).map_err(|e| e.to_string())
}

/// Whether every verdict agrees.
fn run(cli: Cli) -> Result<bool> {
    match cli.command {
        None => vnnlib::run(&cli.suite),
        Some(Command::Robustness(args)) => robustness::run(&args),
        Some(Command::Measure(args)) => measure::run(&args).map(|()| true),
    }
}

/// Creates a file for results, before hours of work.
fn create(path: &Path) -> Result<std::fs::File> {
    std::fs::File::create(path).with_context(|| format!("{}: cannot write the file", path.display()))
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
