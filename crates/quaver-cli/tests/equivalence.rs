//! `quaver equivalence` and `quaver spec equivalence` as their users see them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use npyz::{NpyFile, WriteOptions, WriterBuilder};
use serde_json::Value;

/// Runs the program in the repository's root.
fn quaver(args: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Command::new(env!("CARGO_BIN_EXE_quaver")).args(args).current_dir(root).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn prints(args: &[&str]) -> String {
    let output = quaver(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The answers and the summary.
fn objects(args: &[&str]) -> (Vec<Value>, Value) {
    let printed = prints(&[&["equivalence"], args, &["--json"]].concat());
    let mut all: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = all.pop().unwrap()["summary"].take();
    (all, summary)
}

/// The message of a refusal, which has exit code 2 and nothing on stdout.
fn refusal(args: &[&str]) -> String {
    let output = quaver(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stdout));
    assert!(output.stdout.is_empty(), "{args:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

/// A path for a file that a test writes.
fn scratch(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("equivalence");
    fs::create_dir_all(&folder).unwrap();
    folder.join(name).to_str().unwrap().to_string()
}

fn write_npy<T: npyz::AutoSerialize + Copy>(name: &str, shape: &[u64], data: &[T]) -> String {
    let path = scratch(name);
    let file = fs::File::create(&path).unwrap();
    let mut writer = WriteOptions::new().default_dtype().shape(shape).writer(file).begin_nd().unwrap();
    writer.extend(data.iter().copied()).unwrap();
    writer.finish().unwrap();
    path
}

fn read_npy(path: &str) -> (Vec<u64>, Vec<f32>) {
    let file = NpyFile::new(fs::File::open(path).unwrap()).unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

const FLOAT: &str = "models/iris_float.onnx";
const QDQ: &str = "models/iris_qdq.onnx";
const BALLS: [&str; 6] = ["--inputs", "models/iris_x.npy", "--radius", "0.01", "--rows", "0..4"];

fn words(answers: &[Value]) -> Vec<&str> {
    answers.iter().map(|a| a["verdict"].as_str().unwrap()).collect()
}

fn argmax(values: &[f32]) -> usize {
    (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

#[test]
fn help_names_every_relation_and_place() {
    let help = prints(&["equivalence", "--help"]);
    for part in ["--top1", "--top-k", "--epsilon", "--norm", "--strict", "--inputs", "--box", "--lower", "--profile-a"]
    {
        assert!(help.contains(part), "{part}");
    }
    assert!(prints(&["spec", "equivalence", "--help"]).contains("--network f=A --network g=B"));
}

/// A witness is executed again, by `quaver run`, under each network's own profile.
#[test]
fn witnesses_differ_where_they_are_said_to() {
    let path = scratch("witnesses.npy");
    let (answers, summary) = objects(&[&[FLOAT, QDQ, "--top1", "--witnesses", &path], &BALLS[..]].concat());
    assert_eq!(words(&answers), ["holds", "violated", "holds", "holds"]);
    assert_eq!((summary["profile"].as_str(), summary["profile_b"].as_str()), (Some("float32"), Some("ort-fused")));
    assert_eq!((summary["holds"].as_u64(), summary["violated"].as_u64()), (Some(3), Some(1)));
    let (shape, saved) = read_npy(&path);
    assert_eq!(shape, [1, 4]);
    let found = &answers[1];
    let given: Vec<f32> = found["witness"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
    assert_eq!(saved, given);
    assert_eq!(found["witness_profile"], "float32 / ort-fused");
    for (model, class) in [(FLOAT, "witness_class"), (QDQ, "witness_class_b")] {
        let outputs = scratch(&format!("{class}.npy"));
        prints(&["run", model, "--inputs", &path, "--outputs", &outputs]);
        assert_eq!(Some(argmax(&read_npy(&outputs).1) as u64), found[class].as_u64(), "{model}");
    }
    assert_ne!(found["witness_class"], found["witness_class_b"]);
    for held in [0, 2, 3] {
        assert_eq!(answers[held]["class"], answers[held]["class_b"]);
        assert!(answers[held]["bound"].as_f64().unwrap() > 0.0 && answers[held]["witness"].is_null());
    }
}

#[test]
fn distances_are_bounded_and_executed() {
    let epsilon = |norm: &'static str, epsilon: &'static str| {
        let balls = ["--inputs", "models/iris_x.npy", "--radius", "0.0001", "--rows", "1"];
        objects(&[&[FLOAT, QDQ, "--norm", norm, "--epsilon", epsilon], &balls[..]].concat()).0.swap_remove(0)
    };
    // At the centre itself A - B is (-0.0356, -0.0209, 0.0468).
    for (norm, below, above, distance) in
        [("l1", "0.1", "1", 0.1033), ("l2", "0.06", "1", 0.0625), ("linf", "0.046", "1", 0.0468)]
    {
        let far = epsilon(norm, below);
        assert_eq!((far["verdict"].as_str(), far["method"].as_str()), (Some("violated"), None), "{norm}");
        assert!((far["distance"].as_f64().unwrap() - distance).abs() < 1e-3, "{norm}: {far}");
        let near = epsilon(norm, above);
        assert_eq!(near["verdict"], "holds", "{norm}: {near}");
        let most = near["distance_at_most"].as_f64().unwrap();
        assert!(most <= 1.0 && most >= distance, "{norm}: {near}");
    }
}

/// A network agrees with itself on everything, also with integers in and out, and in every runtime that is meant.
#[test]
fn a_network_agrees_with_itself() {
    let int = "models/digits_mlp_int.onnx";
    let (answers, _) = objects(&[int, int, "--strict", "--box", "3,3"]);
    assert_eq!(words(&answers), ["holds"]);
    let point = ["--inputs", "models/iris_x.npy", "--radius", "0", "--rows", "0..2"];
    for relation in
        [&["--strict"][..], &["--epsilon", "0"], &["--epsilon", "0", "--norm", "l2"], &["--top1"], &["--top-k", "2"]]
    {
        let (answers, _) = objects(&[&[QDQ, QDQ], relation, &point[..]].concat());
        assert_eq!(words(&answers), ["holds", "holds"], "{relation:?}");
    }
    let (answers, summary) = objects(&[&[QDQ, QDQ, "--top1", "--profile-b", "any-engine"], &point[..]].concat());
    assert_eq!(words(&answers), ["holds", "holds"]);
    assert_eq!(summary["profile_b"], "any-engine");
}

/// [1, 1, 8, 8] against [1, 64], and boxes from arrays of float64.
#[test]
fn shapes_may_differ_and_boxes_are_files() {
    let (conv, mlp) = ("models/digits_conv_float.onnx", "models/digits_mlp_float.onnx");
    let (lower, upper) = (write_npy("l.npy", &[1, 64], &[0.1f64; 64]), write_npy("u.npy", &[1, 64], &[0.1001f64; 64]));
    let (answers, _) = objects(&[conv, mlp, "--top1", "--lower", &lower, "--upper", &upper]);
    let alike = answers[0]["class"] == answers[0]["class_b"];
    assert_eq!(words(&answers), [if alike { "holds" } else { "violated" }]);
    let line = prints(&["equivalence", conv, mlp, "--top1", "--lower", &lower, "--upper", &upper]);
    assert!(line.contains("1 box"), "{line}");
    let short = write_npy("short.npy", &[2, 64], &[0.2f64; 128]);
    let refused = refusal(&["equivalence", conv, mlp, "--top1", "--lower", &lower, "--upper", &short]);
    assert!(refused.contains("has 1 rows") && refused.contains("has 2"), "{refused}");
    let swapped = refusal(&["equivalence", conv, mlp, "--top1", "--lower", &upper, "--upper", &lower, "--json"]);
    assert!(swapped.contains("no float32 lies between"), "{swapped}");
}

/// What `spec equivalence` writes is what `equivalence` decides.
#[test]
fn a_query_has_the_verdict_of_the_command() {
    for (name, relation, places) in [
        ("top1", &["--top1"][..], &["--inputs", "models/iris_x.npy", "--radius", "0.01"][..]),
        ("top2", &["--top-k", "2"], &["--inputs", "models/iris_x.npy", "--radius", "0.01"]),
        ("linf", &["--epsilon", "0.5"], &["--inputs", "models/iris_x.npy", "--radius", "0.0001"]),
        ("l1", &["--epsilon", "0.1", "--norm", "l1"], &["--inputs", "models/iris_x.npy", "--radius", "0.0001"]),
        ("strict", &["--strict"], &["--inputs", "models/iris_x.npy", "--radius", "0"]),
    ] {
        for row in ["0", "1"] {
            let common = [&[FLOAT, QDQ], relation, places, &["--rows", row]].concat();
            let (answers, _) = objects(&[&common[..], &["--profile", "real"]].concat());
            let query = scratch(&format!("{name}_{row}.vnnlib"));
            prints(&[&["spec", "equivalence"], &common[..], &["--out", &query]].concat());
            let (f, g) = (format!("f={FLOAT}"), format!("g={QDQ}"));
            let answer = prints(&["verify", &query, "--network", &f, "--network", &g, "--timeout", "20"]);
            let word = answer.lines().next().unwrap();
            let expected = match answers[0]["verdict"].as_str().unwrap() {
                "holds" => "unsat",
                "violated" => "sat",
                other => panic!("{name} {row}: {other}"),
            };
            assert_eq!(word, expected, "{name} {row}");
        }
    }
}

#[test]
fn a_query_is_written() {
    let row = ["--inputs", "models/iris_x.npy", "--radius", "0.25", "--rows", "3"];
    let spec = |more: &[&str]| prints(&[&["spec", "equivalence", FLOAT, QDQ], more].concat());
    insta::assert_snapshot!("spec_equivalence_top1", spec(&[&["--top1", "--declare", "model"], &row[..]].concat()));
    insta::assert_snapshot!("spec_equivalence_linf", spec(&["--epsilon", "0.05", "--box", "0,0.1"]));
    let refused = |more: &[&str]| refusal(&[&["spec", "equivalence", FLOAT, QDQ], more].concat());
    assert!(refused(&["--epsilon", "0.05", "--norm", "l2", "--box", "0,1"]).contains("not linear"));
    assert!(refused(&["--epsilon", "1/3", "--box", "0,1"]).contains("cannot be written as a decimal"));
    assert!(refused(&[&["--top1"], &BALLS[..]].concat()).contains("4 are named"));
}

#[test]
fn what_says_nothing_is_refused() {
    let refused = |more: &[&str]| refusal(&[&["equivalence", FLOAT, QDQ], more].concat());
    let inside = ["--box", "0,1"];
    for (more, part) in [
        (&["--top1", "--strict"][..], "cannot be used with"),
        (&["--top1", "--epsilon", "1"], "cannot be used with"),
        (&["--top1", "--norm", "l1"], "cannot be used with"),
        (&["--norm", "l1"], "--epsilon"),
        (&["--top-k", "3"], "the first 3 of 3 classes"),
        (&["--top-k", "0"], "the first 0 of 3 classes"),
        (&["--epsilon", "-1"], "negative"),
        (&["--epsilon", "1e300", "--norm", "l2"], "too large to be squared"),
        (&[], "what to do: give --top1"),
    ] {
        let message = refused(&[more, &inside[..]].concat());
        assert!(message.contains(part), "{more:?}: {message}");
    }
    for (more, part) in [
        (&["--top1"][..], "where the networks are compared is not said"),
        (&["--top1", "--inputs", "models/iris_x.npy"], "--radius"),
        (&["--top1", "--lower", "models/iris_x.npy"], "--upper"),
        (&["--top1", "--box", "0,1", "--inputs", "models/iris_x.npy", "--radius", "1"], "cannot be used with"),
        (&["--top1", "--box", "1,0"], "empty"),
        (&["--top1", "--inputs", "models/iris_x.npy", "--radius", "0.1", "--rows", "50"], "50 rows"),
    ] {
        let message = refused(more);
        assert!(message.contains(part), "{more:?}: {message}");
    }
    let empty = write_npy::<f32>("empty.npy", &[0, 4], &[]);
    assert!(refused(&["--top1", "--inputs", &empty, "--radius", "1"]).contains("no rows"));
    let other = refusal(&["equivalence", FLOAT, "models/digits_mlp_float.onnx", "--top1", "--box", "0,1"]);
    assert!(other.contains("input has shape [1, 4], the second's [1, 64]"), "{other}");
    let types = refusal(&["equivalence", FLOAT, "models/digits_mlp_int.onnx", "--top1", "--box", "0,1"]);
    assert!(types.contains("float32, the second's uint8"), "{types}");
}
