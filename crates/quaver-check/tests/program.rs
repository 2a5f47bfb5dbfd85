//! The program: what it says and how it exits where there is nothing to accept. What it accepts is tested where certificates are made.

use std::process::{Command, Output};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/iris_float.onnx");

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quaver-check")).args(arguments).output().unwrap()
}

#[test]
fn without_three_files_there_is_a_usage() {
    let output = run(&[MODEL]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage: quaver-check MODEL PROPERTY CERTIFICATE"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = run(&[MODEL, "missing.vnnlib", "missing.cert"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("missing.vnnlib"));
}

#[test]
fn garbage_is_refused() {
    let output = run(&[MODEL, MODEL, MODEL]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("refused: header"));
}
