//! `quaver-check MODEL PROPERTY CERTIFICATE`: whether a certificate proves a property of a model.
//!
//! Exits with 0 only if it proves that the property holds; with 1 if it proves nothing, with 2 if a file cannot be read, and with 3 if it holds a
//! counterexample that was executed.

use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

const USAGE: &str = "usage: quaver-check MODEL PROPERTY CERTIFICATE
  MODEL        the model (.onnx, may be gzipped)
  PROPERTY     the property (.vnnlib, may be gzipped)
  CERTIFICATE  what `quaver verify --certificate` wrote";

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let [model, property, certificate] = &files[..] else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let read = |path: &String| std::fs::read(path).map_err(|e| format!("{path}: {e}"));
    let open = || File::open(certificate).map_err(|e| format!("{certificate}: {e}"));
    let inputs = read(model).and_then(|m| Ok((m, read(property)?, open()?)));
    let (model, property, certificate) = match inputs {
        Ok(inputs) => inputs,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    match quaver_check::check(&model, &property, BufReader::new(certificate)) {
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
