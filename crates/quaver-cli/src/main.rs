//! The `quaver` program. One command is one file; what commands share is in the small modules.

mod anomaly;
mod ball;
mod certify;
mod compare;
mod demo;
mod doctor;
mod engine;
mod equivalence;
mod export;
mod format;
mod guard;
mod inputs;
mod inspect;
mod load;
mod npy;
mod progress;
mod quantize;
mod robustness;
mod run;
mod sensitivity;
mod session;
mod spec;
mod supports;
mod thresholds;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use session::{Files, Session};

/// Searches make and drop large tables all the time; the system's allocator returns each to the system and gets it back page by page.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Quantized neural networks, exactly as they run: inspect, execute, compare and verify.
#[derive(Parser)]
#[command(name = "quaver", arg_required_else_help = true, max_term_width = 120)]
#[command(
    after_help = "Exit code: 0 when the command ran (a verdict is data, whatever it says), 2 for a bad input or usage."
)]
pub struct Cli {
    /// Print one JSON object a line instead of text
    #[arg(long, global = true, display_order = 100)]
    json: bool,
    /// Print the name
    #[arg(long, display_order = 101)]
    name: bool,
    /// Print the version
    #[arg(long, short = 'V', display_order = 102)]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "made once")]
enum Command {
    Inspect(inspect::Args),
    Run(run::Args),
    Compare(compare::Args),
    Robustness(robustness::Args),
    Equivalence(equivalence::Args),
    Verify(verify::Args),
    Supports(supports::Args),
    Spec(spec::Args),
    Quantize(quantize::Args),
    Sensitivity(sensitivity::Args),
    Thresholds(thresholds::Args),
    Guard(guard::Args),
    Anomaly(anomaly::Args),
    Export(export::Args),
    Doctor(doctor::Args),
    Demo(demo::Args),
}

impl Cli {
    /// Runs the command.
    fn run(self, session: &mut Session<'_>) -> anyhow::Result<()> {
        session.json |= self.json;
        if self.name {
            session.say("Quaver")?;
        }
        if self.version {
            session.say(env!("CARGO_PKG_VERSION"))?;
        }
        let Some(command) = self.command else { return without_command(self.name || self.version) };
        match command {
            Command::Inspect(args) => inspect::run(&args, session),
            Command::Run(args) => run::run(&args, session),
            Command::Compare(args) => compare::run(&args, session),
            Command::Robustness(args) => robustness::run(&args, session),
            Command::Equivalence(args) => equivalence::run(&args, session),
            Command::Verify(args) => verify::run(&args, session),
            Command::Supports(args) => supports::run(&args, session),
            Command::Spec(args) => spec::run(&args, session),
            Command::Quantize(args) => quantize::run(&args, session),
            Command::Sensitivity(args) => sensitivity::run(&args, session),
            Command::Thresholds(args) => thresholds::run(&args, session),
            Command::Guard(args) => guard::run(&args, session),
            Command::Anomaly(args) => anomaly::run(&args, session),
            Command::Export(args) => export::run(&args, session),
            Command::Doctor(args) => doctor::run(&args, session),
            Command::Demo(args) => demo::run(&args, session),
        }
    }
}

/// Options may stand alone.
fn without_command(answered: bool) -> anyhow::Result<()> {
    if answered { Ok(()) } else { Err(session::fail("no command is given", "see quaver --help")) }
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn no_two_options_have_one_name() {
        super::Cli::command().debug_assert();
    }
}
