//! `quaver-check MODEL PROPERTY CERTIFICATE`: whether a certificate proves a property of a model, or of two with `NAME=MODEL NAME=MODEL`.
//!
//! Exits with 0 only if it proves that the property holds; with 1 if it proves nothing, with 2 if a file cannot be read, and with 3 if it holds a
//! counterexample that was executed.

use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

use quaver_check::Given;

const USAGE: &str = "usage: quaver-check MODEL PROPERTY CERTIFICATE
  MODEL        the model (.onnx, may be gzipped); NAME=MODEL for each of a property's two networks
  PROPERTY     the property (.vnnlib, may be gzipped)
  CERTIFICATE  what `quaver verify --certificate` wrote";

/// The network and the path of `f=model.onnx`; a file of that very name is only a path.
fn named(argument: &str) -> (Option<&str>, &str) {
    let is_name = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    match argument.split_once('=') {
        Some((name, path)) if is_name(name) && !std::path::Path::new(argument).exists() => (Some(name), path),
        _ => (None, argument),
    }
}

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let [models @ .., property, certificate] = &files[..] else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if models.is_empty() {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    let read = |path: &str| std::fs::read(path).map_err(|e| format!("{path}: {e}"));
    let open = || File::open(certificate).map_err(|e| format!("{certificate}: {e}"));
    let model = |argument: &String| {
        let (name, path) = named(argument);
        read(path).map(|bytes| Given { name: name.map(str::to_string), bytes })
    };
    let models: Result<Vec<Given>, String> = models.iter().map(model).collect();
    let inputs = models.and_then(|m| Ok((m, read(property)?, open()?)));
    let (models, property, certificate) = match inputs {
        Ok(inputs) => inputs,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    match quaver_check::check_all(&models, &property, BufReader::new(certificate)) {
        Ok(proved) => {
            let word = if proved.holds { "holds" } else { "violated" };
            println!("{word}: {} cases, {} records, profile {}", proved.cases, proved.records, proved.profile);
            proved.assumptions.iter().for_each(|a| println!("assumes {a}"));
            if proved.holds { ExitCode::SUCCESS } else { ExitCode::from(3) }
        }
        Err(error) => {
            println!("refused: {error}");
            ExitCode::from(1)
        }
    }
}
