//! `quaver verify`, `supports` and `spec` as their users see them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use quaver::vnnlib;
use serde_json::Value;

/// Runs the program in the repository's root.
fn quaver(args: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Command::new(env!("CARGO_BIN_EXE_quaver")).args(args).current_dir(root).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What the program prints when it succeeds.
fn prints(args: &[&str]) -> String {
    let output = quaver(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The message of a refusal, which has exit code 2 and nothing on stdout.
fn refusal(args: &[&str]) -> String {
    let output = quaver(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}");
    assert!(output.stdout.is_empty(), "{args:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

/// A file that a test writes.
fn scratch(name: &str, content: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("verify");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_string()
}

const MODEL: &str = "models/iris_float.onnx";
const QDQ: &str = "models/iris_qdq.onnx";
const ROW: [&str; 6] = ["--inputs", "models/iris_x.npy", "--row", "3", "--radius", "2"];

fn robustness(model: &str, more: &[&str]) -> String {
    prints(&[&["spec", "robustness", model], &ROW[..], more].concat())
}

#[test]
fn a_robustness_query_is_written_in_both_versions() {
    insta::assert_snapshot!("spec_robustness_1", robustness(MODEL, &["--language", "1.0"]));
    insta::assert_snapshot!("spec_robustness_2", robustness(MODEL, &[]));
}

#[test]
fn what_spec_writes_reads_back() {
    let mask = "models/iris_x.npy";
    let polyhedron = [
        "spec",
        "polyhedron",
        QDQ,
        "--range",
        "0,1",
        "--constraint",
        "Y[0] - 2*Y[1] <= X[3]",
        "--constraint",
        "Y[0] = 1",
    ];
    for language in ["1.0", "2.0"] {
        for spec in
            [robustness(QDQ, &["--language", language]), prints(&[&polyhedron[..], &["--language", language]].concat())]
        {
            assert_eq!(vnnlib::write(&vnnlib::parse(&spec).unwrap()), without_remarks(&spec));
        }
    }
    assert!(
        refusal(&["spec", "backdoor", MODEL, "--trigger-mask", mask, "--class", "0"]).contains("elements for 4 inputs")
    );
    assert!(refusal(&["spec", "backdoor", MODEL, "--trigger-mask", mask, "--class", "9"]).contains("3 classes"));
}

fn without_remarks(text: &str) -> String {
    text.lines().filter(|l| !l.starts_with(';')).map(|l| format!("{l}\n")).collect()
}

/// The values of each tensor in the standard's format.
fn tensors(answer: &str) -> Vec<(String, Vec<f64>)> {
    let mut found: Vec<(String, Vec<f64>)> = vec![];
    for line in answer.lines().skip(1) {
        match (line.parse(), found.last_mut()) {
            (Ok(x), Some(last)) => last.1.push(x),
            _ => found.push((line.to_string(), vec![])),
        }
    }
    found
}

#[test]
fn a_counterexample_is_printed_in_the_format_of_the_version() {
    let two = scratch("two.vnnlib", &robustness(MODEL, &[]));
    let answer = prints(&["verify", &two, MODEL]);
    assert_eq!(answer.lines().next(), Some("sat"));
    let [(x, inputs), (y, outputs)] = &tensors(&answer)[..] else { panic!("{answer}") };
    assert_eq!((&x[..], &y[..]), ("X float32 [1,4]", "Y float32 [1,3]"));
    assert!(inputs.iter().all(|&v| f64::from(v as f32) == v), "a float32 query has float32 witnesses: {answer}");
    assert!(outputs[0] <= outputs[1] || outputs[0] <= outputs[2], "{answer}");
    let one = scratch("one.vnnlib", &robustness(MODEL, &["--language", "1.0"]));
    let answer = prints(&["verify", &one, "--network", "whatever=models/iris_float.onnx"]);
    assert!(answer.starts_with("sat\n((X_0 ") && answer.trim_end().ends_with("))"), "{answer}");
    assert_eq!(answer.matches("(X_").count() + answer.matches("(Y_").count(), 7);
}

#[test]
fn what_cannot_be_is_unsat_and_empty_boxes_need_no_search() {
    let query = |name: &str, constraint: &str| {
        let spec = prints(&["spec", "polyhedron", QDQ, "--range", "0,1", "--constraint", constraint]);
        scratch(name, &spec)
    };
    assert_eq!(prints(&["verify", &query("far.vnnlib", "Y[0] >= 10000"), QDQ]), "unsat\n");
    assert_eq!(prints(&["verify", &query("empty.vnnlib", "X[0] > 1"), QDQ]), "unsat\n");
    let json = prints(&["verify", &query("far.vnnlib", "Y[0] >= 10000"), QDQ, "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["verdict"].as_str(), json["profile"].as_str()), (Some("unsat"), Some("real")));
    assert!(json["bound"].as_f64().unwrap() > 0.0 && json["witness"].is_null());
}

#[test]
fn two_networks_share_inputs() {
    let declare =
        |n: &str| format!("(declare-network {n} (declare-input X{n} real [4]) (declare-output Y{n} real [3]))");
    let bounds: String = (0..4).map(|i| format!("(assert (<= 0 Xf[{i}] 1))(assert (== Xf[{i}] Xg[{i}]))\n")).collect();
    let spec = |difference: &str| {
        let claim = format!("(assert (or (>= Yf[0] (+ Yg[0] {difference})) (<= Yf[0] (- Yg[0] {difference}))))");
        format!("(vnnlib-version <2.0>)\n{}\n{}\n{bounds}{claim}", declare("f"), declare("g"))
    };
    let (f, g) = (format!("f={MODEL}"), format!("g={QDQ}"));
    let near = scratch("near.vnnlib", &spec("0.0001"));
    let answer = prints(&["verify", &near, "--network", &f, "--network", &g]);
    let found = tensors(&answer);
    assert_eq!(
        found.iter().map(|t| &t.0[..]).collect::<Vec<_>>(),
        ["Xf real [4]", "Yf real [3]", "Xg real [4]", "Yg real [3]"]
    );
    assert_eq!(found[0].1, found[2].1);
    assert!((found[1].1[0] - found[3].1[0]).abs() >= 0.0001);
    let far = scratch("farther.vnnlib", &spec("1000"));
    assert_eq!(prints(&["verify", &far, "--network", &f, "--network", &g]), "unsat\n");
    assert!(refusal(&["verify", &far, MODEL]).contains("--network NAME=MODEL"));
    assert!(refusal(&["verify", &far, "--network", &f]).contains("network `g` has no model"));
    let third = ["verify", &far, "--network", &f, "--network", &g, "--network", &f];
    assert!(refusal(&third).contains("no model is needed"));
}

#[test]
fn assignments_are_written_as_tensors() {
    let query = scratch("files.vnnlib", &robustness(MODEL, &[]));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("verify/assignment");
    let answer = prints(&["verify", &query, MODEL, "--serialise-assignments", folder.to_str().unwrap()]);
    assert_eq!(answer, "sat\n");
    let x = fs::read(folder.join("X.pb")).unwrap();
    // dims 1 and 4, data_type FLOAT, name, 16 bytes of raw data.
    assert_eq!(&x[..9], [8, 1, 8, 4, 16, 1, 66, 1, b'X']);
    assert_eq!((x.len(), x[9], x[10]), (27, 74, 16));
    assert!(folder.join("Y.pb").exists());
}

#[test]
fn capabilities_are_reported() {
    let asked = [
        "vnnlib-versions",
        "onnx-element-types",
        "hidden-node-theories",
        "multiple-network-theories",
        "arithmetic-complexity-theories",
    ];
    let all: Vec<String> = asked.iter().map(|c| format!("{c}\n{}", prints(&["supports", &format!("--{c}")]))).collect();
    insta::assert_snapshot!("supports", all.join("\n"));
    assert_eq!(prints(&["--name"]), "Quaver\n");
    assert_eq!(prints(&["--version"]), format!("{}\n", env!("CARGO_PKG_VERSION")));
    assert!(refusal(&["supports"]).contains("--vnnlib-versions"));
}

#[test]
fn queries_and_profiles_that_say_nothing_are_refused() {
    let broken = scratch("broken.vnnlib", "(declare-const X_0 Real)\n(assert (<= X_0 1)");
    let message = refusal(&["verify", &broken, MODEL]);
    assert!(message.contains("broken.vnnlib:2:1: this `(` is never closed\n  what to do:"), "{message}");
    assert!(refusal(&["verify", "nowhere.vnnlib", MODEL]).contains("cannot read the file"));
    let typed = scratch("typed.vnnlib", &robustness(MODEL, &[]));
    assert!(refusal(&["verify", &typed, MODEL, "--profile", "real"]).contains("computes with real numbers"));
    assert!(refusal(&["verify", &typed, "models/digits_mlp_float.onnx"]).contains("shape"));
}
