//! The `quaver` program. One command is one file; what commands share is in the small modules.

mod anomaly;
mod ball;
mod compare;
mod demo;
mod doctor;
mod engine;
mod format;
mod inputs;
mod inspect;
mod load;
mod npy;
mod progress;
mod robustness;
mod run;
mod session;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use session::{Files, Session};

/// Quantized neural networks, exactly as they run: inspect, execute, compare and verify.
#[derive(Parser)]
#[command(name = "quaver", version, arg_required_else_help = true, max_term_width = 120)]
#[command(
    after_help = "Exit code: 0 when the command ran (a verdict is data, whatever it says), 2 for a bad input or usage."
)]
pub struct Cli {
    /// Print one JSON object a line instead of text
    #[arg(long, global = true, display_order = 100)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Inspect(inspect::Args),
    Run(run::Args),
    Compare(compare::Args),
    Robustness(robustness::Args),
    Anomaly(anomaly::Args),
    Doctor(doctor::Args),
    Demo(demo::Args),
}

impl Cli {
    /// Runs the command.
    fn run(self, session: &mut Session<'_>) -> anyhow::Result<()> {
        session.json |= self.json;
        match self.command {
            Command::Inspect(args) => inspect::run(&args, session),
            Command::Run(args) => run::run(&args, session),
            Command::Compare(args) => compare::run(&args, session),
            Command::Robustness(args) => robustness::run(&args, session),
            Command::Anomaly(args) => anomaly::run(&args, session),
            Command::Doctor(args) => doctor::run(&args, session),
            Command::Demo(args) => demo::run(&args, session),
        }
    }
}

fn main() -> ExitCode {
    let mut out = std::io::stdout().lock();
    let mut session = Session { files: Files::Disk, out: &mut out, json: false };
    match Cli::parse().run(&mut session) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has seen enough, as `head` does.
        Err(error) if session::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", session::chain(&error));
            ExitCode::from(2)
        }
    }
}
