//! `quaver guard`: quantized networks that answer where they are surely right, and the float network where none is.

mod bench;
mod build;
mod check;
mod export;
mod folder;
mod run;

use anyhow::Result;
use clap::Subcommand;

use crate::session::Session;

/// Build, run and measure guards: integer networks in the place of a float network, with its classes.
///
/// A guard asks quantized networks, the one with the fewest bits first. Where one leads by more than its threshold, proved over all inputs, its class is the
/// float network's, and it answers; else the next is asked, and in the end the float network itself. Inputs that thresholds do not hold for (outside of the
/// box, off the grid, not a number) go to the float network at once.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "made once")]
enum Command {
    Build(build::Args),
    Run(run::Args),
    Bench(bench::Args),
    Check(check::Args),
    Export(export::Args),
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    match &args.command {
        Command::Build(args) => build::run(args, session),
        Command::Run(args) => run::run(args, session),
        Command::Bench(args) => bench::run(args, session),
        Command::Check(args) => check::run(args, session),
        Command::Export(args) => export::run(args, session),
    }
}
