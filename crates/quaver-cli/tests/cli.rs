//! The program as its users see it: what it prints, what it writes, and how it refuses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use npyz::npz::NpzArchive;
use npyz::{NpyFile, WriteOptions, WriterBuilder};
use quaver::model::build::ModelBuilder;
use quaver::model::ir::{DType, Data, Model, Op, Tensor, ValueId};
use quaver::model::{self, ReadOptions, onnx};
use serde_json::Value;

/// A file of the example models; `None`, with a printed reason, where it is absent.
fn model(name: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(name);
    if path.exists() {
        return Some(format!("models/{name}"));
    }
    println!("skipped: {} is absent", path.display());
    None
}

macro_rules! model {
    ($name:expr) => {
        match model($name) {
            Some(path) => path,
            None => return,
        }
    };
}

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
    assert!(output.stderr.is_empty(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The JSON objects that the program prints, one a line.
fn objects(args: &[&str]) -> Vec<Value> {
    let with_json: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    prints(&with_json).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The message of a refusal, which has exit code 2 and nothing on stdout.
fn refusal(args: &[&str]) -> String {
    let output = quaver(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}");
    assert!(output.stdout.is_empty(), "{args:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

#[track_caller]
fn assert_tells(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

/// A path for a file that a test writes.
fn scratch(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cli");
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

fn read_golden(model: &str, array: &str) -> (Vec<u64>, Vec<f32>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../models/golden/{model}.npz"));
    let mut archive = NpzArchive::open(path).unwrap();
    let file = archive.by_name(array).unwrap().unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

fn write_model(name: &str, model: &Model) -> String {
    let path = scratch(name);
    fs::write(&path, onnx::write(model).unwrap()).unwrap();
    path
}

/// Inputs x [1, 2] and y [1, 2]; outputs softmax(x + y) and the int8 of (x + y) / 0.5.
fn two_by_two() -> Model {
    let mut b = ModelBuilder::new("two");
    let inputs: Vec<ValueId> = ["x", "y"].map(|name| b.input(name, DType::F32, &[1, 2]).unwrap()).into();
    let sum = b.node(Op::Add, &inputs).unwrap();
    let softmax = b.node(Op::Softmax { axis: 1 }, &[sum]).unwrap();
    let scale = b.constant("scale", Tensor::scalar(0.5)).unwrap();
    let zero = b.constant("zero", Tensor { shape: vec![], data: Data::I8(vec![0]) }).unwrap();
    let rounded = b.node(Op::QuantizeLinear { axis: 1 }, &[sum, scale, zero]).unwrap();
    b.output(softmax);
    b.output(rounded);
    b.finish().unwrap()
}

#[test]
fn every_command_has_help() {
    for (command, parts) in [
        (None, &["inspect", "run", "compare", "robustness", "anomaly", "doctor", "demo", "--json"][..]),
        (Some("inspect"), &["<MODEL>", "--profile", "ort-fused"]),
        (Some("run"), &["--inputs", "--outputs", "--lower", "--upper", "--softmax", "Y.1.npy"]),
        (Some("compare"), &["--inputs-b", "--profiles", "--tolerance"]),
        (
            Some("robustness"),
            &["--labels", "--radius", "4/255", "--timeout", "--clip", "--ties", "--witnesses", "--correct-only"],
        ),
        (Some("anomaly"), &["--radius", "1step", "--threshold", "--indices", "--profile"]),
        (Some("export"), &["c", "smtlib", "C99", "SMT-LIB"]),
        (Some("doctor"), &["--python", "--layers", "--keep"]),
        (Some("demo"), &["--json"]),
    ] {
        let args: Vec<&str> = command.into_iter().chain(["--help"]).collect();
        assert_tells(&prints(&args), parts);
    }
}

#[test]
fn export_writes_programs_and_formulas_or_says_what_is_missing() {
    let (float, quantized, inputs) = (model!("iris_float.onnx"), model!("iris_qdq.onnx"), model!("iris_x.npy"));
    let (c, smt) = (scratch("iris.c"), scratch("iris.smt2"));
    let near = ["--inputs", &inputs, "--radius", "1/50", "--index", "3"];
    let run = |kind: &[&str], rest: &[&str]| -> Vec<String> {
        ["export"].iter().chain(kind).chain(&near).chain(rest).map(|s| s.to_string()).collect()
    };
    fn refs(args: &[String]) -> Vec<&str> {
        args.iter().map(String::as_str).collect()
    }
    let args = run(&["c", &quantized], &["--epsilon", "1/2", "--output", &c]);
    assert_tells(&prints(&refs(&args)), &[&c, "exact: bit for bit"]);
    assert_tells(&fs::read_to_string(&c).unwrap(), &["static void network_a(", "__ESBMC_assert", "ort-fused"]);
    let args = run(&["c", &float, &quantized], &["--top1", "--output", &c]);
    assert_eq!(objects(&refs(&args))[0]["profiles"], serde_json::json!(["float32", "ort-fused"]));
    let pair = ["smtlib", &float, &quantized, "--profiles", "real,ort-fused"];
    let args = run(&pair, &["--grid", "2^-6", "--top1", "--output", &smt]);
    assert_tells(&prints(&refs(&args)), &[&smt, "sat is a counterexample"]);
    assert_tells(
        &fs::read_to_string(&smt).unwrap(),
        &["(set-logic QF_BV)", "(check-sat)", "; (get-value (x_0 x_1 x_2 x_3))"],
    );
    for (kind, rest, parts) in [
        (&["smtlib", &float][..], &["--top1", "--output", &smt][..], &["`z0`", "--profile real"][..]),
        (&["c", &float], &["--output", &c], &["--top1", "--epsilon", "--strict"]),
        (&["c", &float], &["--top1", "--epsilon", "1", "--output", &c], &["cannot be used with"]),
        (&["c", &float], &["--epsilon", "-1", "--output", &c], &["negative"]),
        (&["smtlib", &quantized], &["--top1", "--grid", "0.3", "--output", &smt], &["0.3", "1/256"]),
    ] {
        assert_tells(&refusal(&refs(&run(kind, rest))), parts);
    }
    let corners = ["export", "c", &float, "--lower", &inputs, "--upper", &inputs, "--top1", "--output", &c];
    assert_tells(&refusal(&corners), &["nothing to compare", "second model"]);
}

#[test]
fn inspect_tells_numbers_formats_and_support() {
    let path = model!("digits_mlp_int.onnx");
    let report = &objects(&["inspect", &path])[0];
    assert_eq!(report["source"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(report["inputs"][0]["type"], "uint8");
    assert_eq!(report["profile"]["name"], "ort-fused");
    let layers = report["lowered"]["integer_layers"].as_array().unwrap();
    assert_eq!(layers.len(), 3);
    assert!(layers.iter().all(|l| l["bits"].as_u64().unwrap() <= 32 && l["int32_does_not_wrap"] == "proved"));
    let profiles = report["profiles"].as_array().unwrap();
    assert_eq!(profiles.len(), 13);
    assert!(profiles.iter().all(|p| p["lowers"].as_bool().unwrap() == p["reason"].is_null()));
}

#[test]
fn inspect_prints_aligned_tables() {
    let path = model!("iris_qdq.onnx");
    let printed = prints(&["inspect", &path]);
    let sha256 = |line: &&str| !line.trim_start().starts_with("sha256");
    insta::assert_snapshot!("inspect_iris", printed.lines().filter(sha256).collect::<Vec<_>>().join("\n"));
}

/// A TensorFlow Lite file: two runtimes compared, one step of every input, and a claim about several runtimes at once.
#[test]
fn a_tensorflow_lite_file_goes_through_every_command() {
    let (path, rows) = (model!("kws_ref_model.tflite"), model!("golden/kws_ref_model.npz") + ":X");
    let compared = &objects(&["compare", &path, "--profiles", "tflite-reference,tflite-xnnpack", "--inputs", &rows])[0];
    assert!(compared["first_difference"].as_str().unwrap().starts_with("functional_1/activation/Relu"));
    let claim = ["robustness", &path, "--inputs", &rows, "--radius", "1step", "--indices", "2", "--timeout", "60"];
    let both = [&claim[..], &["--profile", "any-engine(tflite-reference,tflite-micro)"]].concat();
    let verdict = &objects(&both)[0];
    assert_eq!(verdict["verdict"], "violated");
    assert!(["tflite-reference", "tflite-micro"].contains(&verdict["witness_profile"].as_str().unwrap()));
    let moved = |x: &i8, w: &Value| (f64::from(*x) - w.as_f64().unwrap()).abs() <= 1.0;
    let mut npz =
        NpzArchive::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../").join(&rows[..rows.len() - 2])).unwrap();
    let all: Vec<i8> = npz.by_name("X").unwrap().unwrap().into_vec().unwrap();
    let witness = verdict["witness"].as_array().unwrap();
    assert!(all[2 * 490..3 * 490].iter().zip(witness).all(|(x, w)| moved(x, w)), "the witness is within one step");
    let refused =
        refusal(&["robustness", &path, "--inputs", &rows, "--radius", "1step", "--profile", "any-engine(ort-fused)"]);
    assert_tells(&refused, &["ort-fused does not take this model", "leave it out of the list"]);
}

#[test]
fn anomaly_scores_are_bounded() {
    let (path, rows) = (model!("digits_mlp_float.onnx"), model!("digits_x.npy"));
    let refused = refusal(&["anomaly", &path, "--inputs", &rows, "--radius", "0.1"]);
    assert_tells(&refused, &["an autoencoder returns what it is given", "64 elements, not 10"]);
    let path = scratch("autoencoder.onnx");
    fs::write(&path, onnx::write(&autoencoder()).unwrap()).unwrap();
    let x = write_npy("autoencoder_x.npy", &[2, 2], &[0.5f32, -0.25, 1.0, 1.0]);
    // y = Relu(x) is bounded apart from x, which it is subtracted from: both differences lie within 0.5.
    let lines =
        objects(&["anomaly", &path, "--inputs", &x, "--radius", "0.25", "--threshold", "0.26", "--profile", "real"]);
    assert_eq!(lines[0]["verdict"], "holds");
    let number = |line: &Value, key: &str| line[key].as_f64().unwrap();
    assert!(number(&lines[0], "upper") >= 0.125 && number(&lines[0], "highest_executed") >= 0.12);
    assert_eq!((number(&lines[1], "lower"), lines[1]["verdict"].as_str()), (0.0, Some("holds")));
    let lines = objects(&["anomaly", &path, "--inputs", &x, "--radius", "0.25", "--threshold", "0.1"]);
    assert_eq!(lines[0]["verdict"], "violated");
    assert_tells(&refusal(&["anomaly", &path, "--inputs", &x, "--radius", "1step"]), &["is not an integer", "4/255"]);
}

/// y = Relu(x) on two elements.
fn autoencoder() -> Model {
    let mut b = ModelBuilder::new("autoencoder");
    let x = b.input("x", DType::F32, &[1, 2]).unwrap();
    let y = b.node(Op::Relu, &[x]).unwrap();
    b.output(y);
    b.finish().unwrap()
}

#[test]
fn the_doctor_tells_what_is_missing() {
    let message = refusal(&["doctor", "--python", "/no/such/python"]);
    assert_tells(&message, &["/no/such/python", "--python"]);
}

#[test]
fn run_equals_the_runtime() {
    for name in ["digits_mlp_qdq", "digits_mlp_qop", "digits_mlp_int", "digits_conv_qdq", "iris_qdq"] {
        let path = model!(&format!("{name}.onnx"));
        let inputs = model!(&format!("golden/{name}.npz")) + ":X";
        let [y, l, u] = ["y", "l", "u"].map(|what| scratch(&format!("{name}.{what}.npy")));
        prints(&["run", &path, "--inputs", &inputs, "--outputs", &y, "--lower", &l, "--upper", &u]);
        let (_, golden) = read_golden(name, "y_opt");
        let (shape, outputs) = read_npy(&y);
        assert_eq!(shape.iter().product::<u64>(), golden.len() as u64);
        assert!(outputs == golden, "{name}: outputs are not the runtime's");
        let (lower, upper) = (read_npy(&l).1, read_npy(&u).1);
        assert!(
            (0..golden.len()).all(|i| lower[i] <= golden[i] && golden[i] <= upper[i]),
            "{name}: outside the bounds"
        );
    }
}

#[test]
fn run_bounds_hold_the_runtime_s_floats() {
    for name in ["digits_mlp_float", "digits_conv_float", "iris_float"] {
        let path = model!(&format!("{name}.onnx"));
        let inputs = model!(&format!("golden/{name}.npz")) + ":X";
        let [l, u] = ["l", "u"].map(|what| scratch(&format!("{name}.{what}.npy")));
        prints(&["run", &path, "--inputs", &inputs, "--lower", &l, "--upper", &u]);
        let (lower, upper) = (read_npy(&l).1, read_npy(&u).1);
        for array in ["y_opt", "y_noopt"] {
            let (_, golden) = read_golden(name, array);
            assert!(
                (0..golden.len()).all(|i| lower[i] <= golden[i] && golden[i] <= upper[i]),
                "{name}: outside the bounds"
            );
        }
    }
}

#[test]
fn run_prints_rows_and_a_summary() {
    let (path, inputs) = (model!("iris_qdq.onnx"), model!("iris_x.npy"));
    insta::assert_snapshot!("run_iris", prints(&["run", &path, "--inputs", &inputs]));
    let lines = objects(&["run", &path, "--inputs", &inputs]);
    assert_eq!(lines.len(), 51);
    assert_eq!(lines[49]["row"], 49);
    assert_eq!(lines[49]["outputs"]["logits"].as_array().unwrap().len(), 3);
    assert_eq!(lines[50]["summary"]["rows"], 50);
}

#[test]
fn run_takes_flat_and_shaped_rows_and_both_orders() {
    let (path, inputs) = (model!("digits_conv_qdq.onnx"), model!("digits_x.npy"));
    let (_, data) = read_npy(&format!("{}/../../{inputs}", env!("CARGO_MANIFEST_DIR")));
    let expected = prints(&["run", &path, "--inputs", &inputs]);
    let shaped = write_npy("shaped.npy", &[100, 1, 8, 8], &data);
    assert_eq!(prints(&["run", &path, "--inputs", &shaped]), expected);
    let squeezed = write_npy("squeezed.npy", &[100, 8, 8], &data);
    assert_eq!(prints(&["run", &path, "--inputs", &squeezed]), expected);
    let columns: Vec<f32> = (0..6400).map(|i| data[(i % 100) * 64 + i / 100]).collect();
    let fortran = scratch("fortran.npy");
    let file = fs::File::create(&fortran).unwrap();
    let options = WriteOptions::new().default_dtype().shape(&[100, 64]).order(npyz::Order::Fortran);
    let mut writer = options.writer(file).begin_nd().unwrap();
    writer.extend(columns).unwrap();
    writer.finish().unwrap();
    assert_eq!(prints(&["run", &path, "--inputs", &fortran]), expected);
    let wide: Vec<f64> = data.iter().map(|x| f64::from(*x)).collect();
    let float64 = write_npy("float64.npy", &[100, 64], &wide);
    assert_eq!(prints(&["run", &path, "--inputs", &float64]), expected);
}

#[test]
fn run_takes_and_gives_several_tensors() {
    let model = write_model("two.onnx", &two_by_two());
    let x = write_npy("two_x.npy", &[2, 2], &[1.0f32, 2.0, 3.0, 4.0]);
    let y = write_npy("two_y.npy", &[2, 2], &[0.0f32, 0.5, -3.0, -100.0]);
    let out = scratch("two.out.npy");
    let args = ["run", &model, "--inputs", &x, "--inputs", &y, "--outputs", &out, "--softmax"];
    assert_tells(&prints(&args), &["2 rows", "two.out.npy", "two.out.1.npy", "Softmax was applied"]);
    let (shape, probabilities) = read_npy(&out);
    assert_eq!(shape, [2, 2]);
    assert!((probabilities[0] + probabilities[1] - 1.0).abs() < 1e-6 && probabilities[1] > 0.8);
    let second = NpyFile::new(fs::File::open(scratch("two.out.1.npy")).unwrap()).unwrap();
    assert_eq!(second.into_vec::<i8>().unwrap(), [2, 5, 0, -128]);
    assert_tells(&refusal(&["run", &model, "--inputs", &x]), &["2 inputs", "1 is given", "x, y"]);
    assert_tells(&refusal(&["robustness", &model, "--inputs", &x, "--radius", "1"]), &["one output", "what to do"]);
}

#[test]
fn compare_finds_no_difference_between_a_model_and_itself() {
    let (path, inputs) = (model!("digits_conv_qdq.onnx"), model!("digits_x.npy"));
    let report = &objects(&["compare", &path, &path, "--inputs", &inputs])[0];
    assert_eq!(report["first_difference"], Value::Null);
    assert!(report["layers"].as_array().unwrap().iter().all(|l| l["largest"] == 0.0));
    assert_tells(&prints(&["compare", &path, &path, "--inputs", &inputs]), &["no layer differs", "matched by name"]);
}

#[test]
fn compare_matches_layers_of_float_and_quantized_models() {
    let inputs = model!("digits_x.npy");
    let float = model!("digits_mlp_float.onnx");
    for (other, hidden) in [("digits_mlp_qdq", "h0_QuantizeLinear_Output"), ("digits_mlp_qop", "z0_quantized")] {
        let other = model!(&format!("{other}.onnx"));
        let report = &objects(&["compare", &float, &other, "--inputs", &inputs])[0];
        let layers = report["layers"].as_array().unwrap();
        let names: Vec<&str> = layers.iter().map(|l| l["a"].as_str().unwrap()).collect();
        assert_eq!(names, ["x", "h0", "h1", "logits"]);
        assert_eq!(layers[1]["b"], hidden);
        assert!(layers.iter().all(|l| l["relative"].as_f64().unwrap() < 0.05));
        let ends = &layers[1]["saturation_b"];
        assert!(ends["low"].as_f64().unwrap() > 0.0 && ends["high"].as_f64().unwrap() < 0.1);
    }
}

#[test]
fn compare_matches_layers_in_order_where_names_differ() {
    let (float, inputs, quantized) =
        (model!("digits_mlp_float.onnx"), model!("digits_x.npy"), model!("digits_mlp_qdq.onnx"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut model = model::read(&root.join(&float), &ReadOptions::default()).unwrap();
    model.values.iter_mut().enumerate().for_each(|(i, v)| v.name = format!("t{i}"));
    let renamed = write_model("renamed.onnx", &model);
    let report = &objects(&["compare", &renamed, &quantized, "--inputs", &inputs])[0];
    assert_eq!(report["matched_by"], "order");
    let layers = report["layers"].as_array().unwrap();
    let names: Vec<&str> = layers.iter().map(|l| l["b"].as_str().unwrap()).collect();
    assert_eq!(names, ["h0_QuantizeLinear_Output", "h1_QuantizeLinear_Output", "logits_QuantizeLinear_Output"]);
    assert!(layers.iter().all(|l| l["relative"].as_f64().unwrap() < 0.05), "{report}");
}

#[test]
fn compare_takes_two_profiles_and_other_inputs() {
    let (path, inputs) = (model!("digits_mlp_float.onnx"), model!("digits_x.npy"));
    let args = ["compare", &path, "--inputs", &inputs, "--profiles", "float32,fixed-point(8,4)", "--tolerance", "1/10"];
    let report = &objects(&args)[0];
    assert_eq!((&report["profile_b"], &report["first_departure"]), (&"fixed-point(8,4)".into(), &"logits".into()));
    let (quantized, integer) = (model!("digits_mlp_qop.onnx"), model!("digits_mlp_int.onnx"));
    let (_, data) = read_npy(&format!("{}/../../{inputs}", env!("CARGO_MANIFEST_DIR")));
    let bytes: Vec<u8> = data.iter().map(|x| (x / (1.0 / 255.0)).round_ties_even() as u8).collect();
    let bytes = write_npy("bytes.npy", &[100, 64], &bytes);
    let report = &objects(&["compare", &quantized, &integer, "--inputs", &inputs, "--inputs-b", &bytes])[0];
    assert_eq!(report["outputs"][0]["largest"], 0.0);
    assert_tells(&refusal(&["compare", &quantized, &integer, "--inputs", &inputs]), &["uint8", "--inputs-b"]);
}

#[test]
fn robustness_gives_a_line_for_each_input_and_a_summary() {
    let (path, x, y) = (model!("digits_mlp_qdq.onnx"), model!("digits_x.npy"), model!("digits_y.npy"));
    let witnesses = scratch("witnesses.npy");
    let args = ["robustness", &path, "--inputs", &x, "--labels", &y, "--radius", "0,1/16", "--indices", "0..10,20"];
    let rest = ["--clip", "0,1", "--timeout", "1/2", "--witnesses", &witnesses, "--seed", "7"];
    let lines = objects(&[&args[..], &rest[..]].concat());
    assert_eq!(lines.len(), 23);
    let (last, lines) = lines.split_last().unwrap();
    let count = |verdict: &str| lines.iter().filter(|l| l["verdict"] == verdict).count();
    for verdict in ["holds", "violated", "undecided"] {
        assert_eq!(last["summary"][verdict], count(verdict), "{verdict}");
    }
    let indices: Vec<u64> = lines.iter().map(|l| l["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [(0..10).collect::<Vec<_>>(), vec![20], (0..10).collect(), vec![20]].concat());
    assert!(lines[..11].iter().all(|l| l["verdict"] == "holds"), "radius 0 holds for inputs that get their label");
    for line in lines {
        assert_eq!(line["witness"].is_array(), line["verdict"] == "violated");
    }
    let (shape, saved) = read_npy(&witnesses);
    assert_eq!(shape, [count("violated") as u64, 64]);
    let (_, inputs) = read_npy(&format!("{}/../../{x}", env!("CARGO_MANIFEST_DIR")));
    for (line, witness) in lines.iter().filter(|l| l["verdict"] == "violated").zip(saved.chunks(64)) {
        let row = line["index"].as_u64().unwrap() as usize;
        let far = |(w, x): (&f32, &f32)| (f64::from(*w) - f64::from(*x)).abs() > 1.0 / 16.0 || !(0.0..=1.0).contains(w);
        assert!(!witness.iter().zip(&inputs[row * 64..]).any(far), "row {row}: the witness is outside the region");
    }
    check_witnesses(&path, &witnesses, lines);
}

/// The witnesses get the classes that were said, when they are run.
fn check_witnesses(path: &str, witnesses: &str, lines: &[Value]) {
    let rows = objects(&["run", path, "--inputs", witnesses]);
    for (line, row) in lines.iter().filter(|l| l["verdict"] == "violated").zip(&rows) {
        assert_eq!(line["witness_outputs"], row["outputs"]["logits"]);
        let score = |class: &Value| row["outputs"]["logits"][class.as_u64().unwrap() as usize].as_f64().unwrap();
        assert!(score(&line["witness_class"]) >= score(&line["label"]));
    }
}

#[test]
fn robustness_says_what_it_takes_for_the_label() {
    let (path, x) = (model!("iris_qdq.onnx"), model!("iris_x.npy"));
    let args = ["robustness", &path, "--inputs", &x, "--radius", "0", "--indices", "0..3"];
    assert_tells(&prints(&args), &["no --labels", "radius 0: 3 hold, 0 violated, 0 undecided"]);
    let wrong = write_npy("wrong_labels.npy", &[50], &[2i64; 50]);
    let args = ["robustness", &path, "--inputs", &x, "--labels", &wrong, "--radius", "0", "--correct-only"];
    assert!(objects(&args).last().unwrap()["summary"]["skipped"].as_u64().unwrap() > 0);
}

#[test]
fn demo_runs_what_it_shows() {
    let printed = prints(&["demo"]);
    assert_tells(&printed, &["$ quaver inspect models/", "$ quaver compare models/", "$ quaver robustness models/"]);
    let commands = objects(&["demo"]).iter().filter(|o| o["command"].is_string()).count();
    assert_eq!(commands, printed.lines().filter(|l| l.starts_with("$ ")).count());
}

#[test]
fn model_files_are_refused_with_cause_and_cure() {
    let missing = refusal(&["inspect", "models/nowhere.onnx"]);
    assert_tells(&missing, &["models/nowhere.onnx", "cannot read the file", "what to do: check the path"]);
    let path = model!("digits_mlp_qdq.onnx");
    let bytes = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(&path)).unwrap();
    let cut = scratch("cut.onnx");
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    assert_tells(&refusal(&["inspect", &cut]), &["cut.onnx", "not an ONNX model", "export the model again"]);
}

#[test]
fn inputs_are_refused_with_cause_and_cure() {
    let path = model!("iris_qdq.onnx");
    let run = |inputs: &str| refusal(&["run", &path, "--inputs", inputs]);
    assert_tells(&run("nowhere.npy"), &["nowhere.npy", "cannot read the file", "what to do"]);
    let integers = write_npy("integers.npy", &[2, 4], &[1i64; 8]);
    assert_tells(&run(&integers), &["integers.npy", "int64", "float32", "x.astype(numpy.float32)"]);
    let inexact = write_npy("inexact.npy", &[2, 4], &[0.5, 0.5, 0.5, 0.5, 0.5, 0.1, 0.5, 0.5]);
    assert_tells(&run(&inexact), &["inexact.npy[1, 1] is 0.1", "not a float32", "astype(numpy.float32)"]);
    let nan = write_npy("nan.npy", &[2, 4], &[0.5f32, 0.5, 0.5, f32::NAN, 0.5, 0.5, 0.5, 0.5]);
    assert_tells(&run(&nan), &["nan.npy[0, 3] is NaN", "what to do"]);
    let shape = write_npy("shape.npy", &[2, 5], &[0.5f32; 10]);
    assert_tells(&run(&shape), &["shape.npy", "[2, 5]", "[1, 4]", "[N, 4]"]);
    let bytes = fs::read(&shape).unwrap();
    let short = scratch("short.npy");
    fs::write(&short, &bytes[..bytes.len() - 7]).unwrap();
    assert_tells(&run(&short), &["short.npy", "cut short", "what to do"]);
    let twice = refusal(&["run", &path, "--inputs", &shape, "--inputs", &shape]);
    assert_tells(&twice, &["1 input", "2 are given", "what to do"]);
}

#[test]
fn arrays_of_an_archive_are_named() {
    let (path, archive) = (model!("iris_qdq.onnx"), model!("golden/iris_qdq.npz"));
    assert_tells(&refusal(&["run", &path, "--inputs", &archive]), &["X, y_noopt, y_opt", "iris_qdq.npz:X"]);
    let missing = format!("{archive}:Z");
    assert_tells(&refusal(&["run", &path, "--inputs", &missing]), &["no array `Z`", "X, y_noopt, y_opt"]);
}

#[test]
fn profiles_and_numbers_are_refused_with_cause_and_cure() {
    let (path, x) = (model!("iris_qdq.onnx"), model!("iris_x.npy"));
    assert_tells(
        &refusal(&["inspect", &path, "--profile", "tflite"]),
        &["--profile", "unknown profile `tflite`", "ort-fused"],
    );
    let fixed = refusal(&["run", &path, "--inputs", &x, "--profile", "fixed-point(8,4)"]);
    assert_tells(&fixed, &["iris_qdq.onnx", "node `", "what to do"]);
    let softmax = refusal(&["run", &path, "--inputs", &x, "--softmax"]);
    assert_tells(&softmax, &["iris_qdq.onnx", "--softmax", "what to do"]);
    let robustness = |rest: &[&str]| refusal(&[&["robustness", &path, "--inputs", &x], rest].concat());
    assert_tells(&robustness(&["--radius", "a/b"]), &["--radius", "`a/b` is not a number", "4/255"]);
    assert_tells(&robustness(&["--radius", "-1"]), &["--radius", "negative", "from 0 up"]);
    assert_tells(&robustness(&["--radius", "1", "--clip", "1,0"]), &["--clip", "empty", "must not be above"]);
    assert_tells(&robustness(&["--radius", "1", "--indices", "40..60"]), &["row 59", "50 rows", "up to 49"]);
    assert_tells(&robustness(&["--radius", "1", "--clip", "2,3", "--json"]), &["row 0", "clip", "what to do"]);
    let labels = write_npy("labels.npy", &[50], &[7i64; 50]);
    assert_tells(&robustness(&["--radius", "1", "--labels", &labels]), &["labels.npy[0] is 7", "3 classes", "0 to 2"]);
    assert_tells(&refusal(&["compare", &path, "--inputs", &x]), &["nothing to compare with", "--profiles"]);
}

/// Mixed-integer programs by whatever solver there is: what it says is said, and a missing library is named.
#[test]
fn mixed_integer_programs() {
    let (model, inputs) = (model!("digits_mlp_qdq.onnx"), model!("digits_x.npy"));
    let common = ["robustness", &model, "--inputs", &inputs, "--radius", "1/16", "--indices", "0..2"];
    let with = |more: &[&'static str]| [&common[..], more].concat();
    let missing = refusal(&with(&["--engine", "milp", "--highs", "/nowhere/libhighs.so.1"]));
    assert_tells(&missing, &["/nowhere/libhighs.so.1", "pip install 'highspy==1.15.*'"]);
    assert_tells(&refusal(&with(&["--highs", "x"])), &["--engine milp"]);
    let said = prints(&with(&["--engine", "milp", "--timeout", "2"]));
    assert_tells(&said, &["mixed-integer programs, solved by"]);
    let summary = objects(&with(&["--engine", "milp", "--timeout", "2"])).pop().unwrap();
    assert!(summary["summary"]["solver"].is_string(), "{summary}");
}
