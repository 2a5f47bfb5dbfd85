//! `quaver sensitivity` as its users see it.

mod program;

use std::fs;
use std::path::PathBuf;

use program::{command, prints};
use serde_json::{Value, json};

fn objects(args: &[&str]) -> Vec<Value> {
    let with_json = [args, &["--json"]].concat();
    prints(&with_json).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn scratch(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("sensitivity");
    fs::create_dir_all(&folder).unwrap();
    folder.join(name).to_str().unwrap().to_string()
}

const IRIS: [&str; 6] =
    ["sensitivity", "models/iris_float.onnx", "--data", "models/iris_x.npy", "--data-labels", "models/iris_y.npy"];
const BALLS: [&str; 6] = ["--radius", "0.01", "--indices", "0..10", "--bits", "2..5"];

#[test]
fn tables_and_advice() {
    let config = scratch("iris.json");
    let text = prints(&[&IRIS[..], &BALLS, &["--config", &config]].concat());
    // Margins depend on the order of sums, which is not the same on every machine.
    let (before, after) = text.split_once("least proved margin\n").unwrap();
    let after = &after[after.find("balls that stay").unwrap()..];
    let is_stable = |line: &&str| !line.ends_with(" s") && !line.starts_with("wrote");
    fn without_margin(line: &str) -> &str {
        line.split(", least margin").next().unwrap_or(line)
    }
    let lines: Vec<&str> = before.lines().chain(after.lines()).filter(is_stable).map(without_margin).collect();
    insta::assert_snapshot!("iris", lines.join("\n"));
    insta::assert_snapshot!("config", fs::read_to_string(config).unwrap());
}

/// The measurement of a layer at some bits.
fn at(lines: &[Value], layer: usize, bits: u64) -> &Value {
    lines.iter().find(|l| l["layer"] == json!(layer) && l["bits"] == json!(bits)).unwrap()
}

#[test]
fn json_is_what_the_other_commands_say() {
    let lines = objects(&[&IRIS[..], &BALLS, &["--bias", "same", "--timeout", "5"]].concat());
    assert_eq!(lines.len(), 1 + 3 * (4 + 1) + 1);
    // One layer at 2 bits, the others so wide that nothing changes.
    let out = scratch("one.onnx");
    prints(&["quantize", "models/iris_float.onnx", "--output", &out, "--bits", "2,30,30"]);
    let balls = ["--labels", "models/iris_y.npy", "--inputs", "models/iris_x.npy"];
    let robust = objects(&[&["robustness", &out][..], &balls, &BALLS[..4]].concat());
    let found = at(&lines, 0, 2);
    let holds = robust.iter().filter(|l| l["verdict"] == json!("holds")).count() as u64;
    assert!(found["proved"].as_u64().unwrap() <= holds, "{found} {holds}");
    let proved = |l: &&Value| l["verdict"] == json!("holds") && l["bound"].is_number();
    let least = robust.iter().filter(proved).map(|l| l["bound"].as_f64().unwrap()).fold(f64::INFINITY, f64::min);
    // Tuned bounds are no worse, if all balls are proved.
    assert!(holds < 10 || found["margin"].as_f64().unwrap() >= least - 1e-4, "{found} {least}");
    let last = lines.iter().filter(|l| l["recommended"].is_string()).count();
    assert_eq!(last, 3);
}

#[test]
fn a_drop_that_nothing_meets_leaves_layers_float() {
    // Balls of which none is proved at 16 bits would be needed; a negative drop does the same.
    let config = scratch("float.json");
    prints(&[&IRIS[..], &["--bits", "2..2", "--max-drop=-2", "--config", &config]].concat());
    let written: Value = serde_json::from_str(&fs::read_to_string(config).unwrap()).unwrap();
    assert_eq!(written["nodes_to_exclude"], json!(["gemm0", "gemm1", "gemm2"]));
    assert_eq!(written["TensorQuantOverrides"], json!({}));
}

#[test]
fn refusals_say_what_to_do() {
    for (options, parts) in [
        (&[][..], ["nothing to measure", "--radius R"]),
        (&["--radius", "0.1"], ["no inputs", "--inputs X.npy"]),
        (&["--data", "models/iris_x.npy"], ["--data-labels", "required"]),
        (&["--bits", "9"], ["not a range of bits", "4..8"]),
        (&["--radius", "0.1", "--inputs", "models/digits_x.npy"], ["does not fit input", "[N, 4]"]),
    ] {
        let output = command(&[&IRIS[..2], options].concat()).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{options:?}: {message}");
        assert!(parts.iter().all(|p| message.contains(p)), "{options:?}: {message}");
    }
}
