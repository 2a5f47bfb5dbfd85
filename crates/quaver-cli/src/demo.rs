//! `quaver demo`: the other commands on small networks that are part of the program.

use anyhow::Result;
use clap::Parser;
use serde_json::json;

use crate::Cli;
use crate::session::{Files, Session};

/// Show the other commands on small networks that are part of the program.
///
/// The networks recognize handwritten digits of 8 x 8 pixels.
#[derive(clap::Args)]
pub struct Args {}

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        &[$((concat!("models/", $name), include_bytes!(concat!("../../../models/", $name)) as &[u8])),*]
    };
}

const FILES: &[(&str, &[u8])] =
    embedded!["digits_mlp_float.onnx", "digits_mlp_qdq.onnx", "digits_conv_qdq.onnx", "digits_x.npy", "digits_y.npy",];

/// What is shown, and why.
const COMMANDS: [(&str, &str); 4] = [
    ("What does the quantized network compute, and in which numbers?", "quaver inspect models/digits_mlp_qdq.onnx"),
    (
        "How far is it from the float network, and where does it depart?",
        "quaver compare models/digits_mlp_float.onnx models/digits_mlp_qdq.onnx --inputs models/digits_x.npy",
    ),
    (
        "Can a change of 1/16 (one grey level) in every pixel change its answer?",
        "quaver robustness models/digits_mlp_qdq.onnx --inputs models/digits_x.npy --labels models/digits_y.npy --radius 1/16 \
         --clip 0,1 --indices 0..20 --timeout 1/5",
    ),
    (
        "And that of a convolutional network?",
        "quaver robustness models/digits_conv_qdq.onnx --inputs models/digits_x.npy --labels models/digits_y.npy --radius 1/16 \
         --clip 0,1 --indices 0..10 --timeout 1/5",
    ),
];

/// Runs the command.
pub fn run(_: &Args, session: &mut Session<'_>) -> Result<()> {
    for (question, command) in COMMANDS {
        if session.json {
            session.line(&json!({"question": question, "command": command}))?;
        } else {
            session.say(format!("# {question}\n$ {command}\n"))?;
        }
        let mut inner = Session { files: Files::Embedded(FILES), out: &mut *session.out, json: session.json };
        Cli::try_parse_from(command.split_whitespace())?.run(&mut inner)?;
        if !session.json {
            session.say("")?;
        }
    }
    Ok(())
}
