//! `quaver guard export`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use quaver::guard::onnx;
use quaver::model::lower::Lowered;
use serde_json::json;

use super::folder::Folder;
use crate::format;
use crate::session::{Session, fail};

/// Write a guard as one file for another runtime.
///
/// An ONNX file has the float network's input, and as outputs `class`, `stage` (which network answered), `accepted` (a quantized network was sure), `margin`
/// (by how much its lead is above the one that is enough) and `scores`. Later networks are in branches that run for the rows that are left alone.
#[derive(clap::Args)]
pub struct Args {
    /// The guard's folder
    guard: PathBuf,
    /// The form of the file
    #[arg(long, value_enum, default_value_t = Format::Onnx)]
    format: Format,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Operators of opset 13 and later, for ONNX Runtime
    Onnx,
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let folder = Folder::read(&args.guard)?;
    let bytes = match args.format {
        Format::Onnx => onnx_file(&folder)?,
    };
    std::fs::write(&args.output, &bytes)
        .with_context(|| format!("{}: cannot write the file", args.output.display()))?;
    let file = args.output.display().to_string();
    if session.json {
        return session.line(&json!({ "file": file, "bytes": bytes.len() }));
    }
    session.say(format!(
        "{file}: {} and the float network in one ONNX file, {} bytes",
        format::count(folder.stages.len(), "quantized network"),
        format::grouped(bytes.len())
    ))
}

fn onnx_file(folder: &Folder) -> Result<Vec<u8>> {
    let cure = "export a guard of ONNX networks";
    let first = folder.plan.stages.first().ok_or_else(|| fail("a guard without networks", cure))?;
    let file = folder.path.join(&first.float.file);
    if file.extension().is_none_or(|e| e != "onnx") {
        return Err(fail(format!("{}: the float network is no plain .onnx file", file.display()), cure));
    }
    let float = read(&file)?;
    let stages: Vec<&Lowered> = folder.stages.iter().collect();
    onnx::export(&folder.plan, &float, &stages).with_context(|| folder.path.display().to_string())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{}: cannot read the file", file.display()))
}
