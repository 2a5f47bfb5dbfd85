//! `quaver spec`: writes VNN-LIB queries.

mod backdoor;
pub mod draft;
mod equivalence;
mod expression;
mod polyhedron;
mod robustness;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use quaver::vnnlib::Version;

use crate::session::{Session, fail};
use draft::Draft;
pub use equivalence::Names;

/// Write a VNN-LIB query about a model or two, for `quaver verify` or another verifier.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand)]
enum Kind {
    Robustness(robustness::Args),
    Backdoor(backdoor::Args),
    Polyhedron(polyhedron::Args),
    Equivalence(Box<equivalence::Args>),
}

/// What the kinds share.
#[derive(clap::Args)]
struct Target {
    /// The model (.onnx, .tflite, or gzipped), with one input and one output
    model: PathBuf,
    /// Version of the language
    #[arg(long, value_enum, default_value_t = Language::V2)]
    language: Language,
    /// Types of the tensors in version 2.0: `real` is about real arithmetic, `model` about the model's own types
    #[arg(long, value_enum)]
    declare: Option<Declare>,
    /// Write the query here instead of printing it
    #[arg(long, short, value_name = "FILE.vnnlib")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Language {
    #[value(name = "1.0")]
    V1,
    #[value(name = "2.0")]
    V2,
}

impl From<Language> for Version {
    fn from(language: Language) -> Version {
        match language {
            Language::V1 => Version::V1,
            Language::V2 => Version::V2,
        }
    }
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Declare {
    Real,
    Model,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Ties {
    Strict,
    First,
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let (out, text) = match &args.kind {
        Kind::Robustness(args) => (&args.target.out, robustness::draft(args, session)?.text()?),
        Kind::Backdoor(args) => (&args.target.out, backdoor::draft(args, session)?.text()?),
        Kind::Polyhedron(args) => (&args.target.out, polyhedron::draft(args, session)?.text()?),
        Kind::Equivalence(args) => (&args.out, equivalence::text(args, session)?),
    };
    match out {
        None => Ok(write!(session.out, "{text}")?),
        Some(path) => std::fs::write(path, text).map_err(|e| {
            fail(format!("{}: cannot write the file: {e}", path.display()), "check that the folder exists and has room")
        }),
    }
}
