//! `quaver quantize` as its users see it.

mod program;

use std::fs;
use std::path::PathBuf;

use program::{prints, refusal, root};
use serde_json::Value;

fn scratch(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("quantize");
    fs::create_dir_all(&folder).unwrap();
    folder.join(name).to_str().unwrap().to_string()
}

const IRIS: &str = "models/iris_float.onnx";

#[test]
fn a_quantized_file_has_these_bytes() {
    let out = scratch("golden.onnx");
    let text = prints(&["quantize", IRIS, "--output", &out, "--bits", "4,5,8", "--activations", "8", "--box", "0,1"]);
    assert!(text.contains("weights and biases take 156 bytes instead of 556"), "{text}");
    // Written by this very command.
    assert_eq!(fs::read(out).unwrap(), fs::read(root().join("models/golden/quantize/iris_4_5_8.onnx")).unwrap());
}

#[test]
fn json_tells_each_layer_and_what_was_written() {
    let out = scratch("json.onnx");
    let args = ["quantize", IRIS, "--output", &out, "--scheme", "ceg4n", "--bits", "6", "--json"];
    let lines: Vec<Value> = prints(&args).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(
        (lines[0]["name"].as_str(), lines[0]["weights"].as_u64(), lines[0]["biases"].as_u64()),
        (Some("gemm0"), Some(32), Some(8))
    );
    let (error, scale) = (lines[0]["largest_error"].as_f64().unwrap(), lines[0]["scales"][0].as_f64().unwrap());
    assert!(error <= 0.5001 * scale && error > 0.25 * scale, "{error} {scale}");
    assert_eq!(lines[3]["bytes_after"].as_u64(), Some(30 + 54 + 21));
}

#[test]
fn what_is_written_runs_under_every_profile() {
    for (name, options) in [
        ("float", &["--bits", "5", "--scheme", "power-of-two"][..]),
        ("qdq", &["--format", "qdq", "--scheme", "asymmetric", "--per-channel"]),
        ("activations", &["--activations", "8", "--data", "models/iris_x.npy", "--float-outputs"]),
        ("narrow", &["--activations", "5", "--activation-scheme", "symmetric", "--box", "0,1", "--alpha", "0.5"]),
        ("learned", &["--method", "learned", "--bits", "3", "--data", "models/iris_x.npy", "--spread", "0.01"]),
        (
            "gpfq",
            &[
                "--method",
                "gpfq",
                "--bits",
                "3",
                "--data",
                "models/iris_x.npy",
                "--alphabet",
                "median",
                "--alphabet-factor",
                "3",
            ],
        ),
    ] {
        let out = scratch(&format!("{name}.onnx"));
        prints(&[&["quantize", IRIS, "--output", &out], options].concat());
        for profile in ["real", "float32", "ort-fused"] {
            let text = prints(&["run", &out, "--inputs", "models/iris_x.npy", "--profile", profile]);
            assert!(text.contains("50 rows"), "{name} {profile}: {text}");
        }
    }
}

#[test]
fn refusals_say_what_to_do() {
    let out = scratch("refused.onnx");
    for (options, parts) in [
        (&["--bits", "4,4"][..], ["2 numbers", "one for each layer"]),
        (&["--bits", "40"], ["40 bits", "2 to 32"]),
        (&["--scheme", "ceg4n", "--per-channel"], ["one scale", "symmetric"]),
        (&["--activations", "8"], ["--box", "--data"]),
        (&["--activations", "8", "--format", "float", "--box", "0,1"], ["no float format", "qdq"]),
        (&["--activations", "17", "--box", "0,1"], ["17 bits", "2 to 16"]),
        (&["--method", "learned"], ["--data is not given", "--data X.npy"]),
        (&["--method", "gpfq"], ["--data is not given", "--data X.npy"]),
        (&["--method", "gpfq", "--per-channel", "--data", "models/iris_x.npy"], ["one alphabet", "--method round"]),
        (&["--scheme", "asymmetric", "--bits", "20", "--format", "qdq"], ["int32 has none", "at most 16 bits"]),
    ] {
        let message = refusal(&[&["quantize", IRIS, "--output", &out], options].concat());
        assert!(parts.iter().all(|p| message.contains(p)), "{options:?}: {message}");
    }
    let message = refusal(&["quantize", "models/iris_qdq.onnx", "--output", &out]);
    assert!(message.contains("models/iris_qdq.onnx") && message.contains("quantized already"), "{message}");
}
