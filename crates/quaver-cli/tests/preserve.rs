//! `quaver quantize --preserve` as its users see it.

mod program;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use npyz::WriterBuilder;
use program::{command, prints, refusal};
use quaver::model::build::ModelBuilder;
use quaver::model::ir::{DType, Op, Tensor};
use quaver::model::onnx;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

/// A folder that is not there yet.
fn scratch(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("preserve").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    folder.to_str().unwrap().to_string()
}

const MODEL: &str = "models/digits_mlp_float.onnx";
const X: &str = "models/digits_x.npy";
const Y: &str = "models/digits_y.npy";

fn balls<'a>(out: &'a str, rows: &'a str, radius: &'a str) -> Vec<&'a str> {
    let kept = ["quantize", MODEL, "--preserve", "robustness", "--inputs", X, "--labels", Y, "--clip", "0,1"];
    [&kept[..], &["--indices", rows, "--radius", radius, "--output", out]].concat()
}

fn strategy(out: &str) -> Value {
    serde_json::from_slice(&fs::read(Path::new(out).join("strategy.json")).unwrap()).unwrap()
}

fn bits(strategy: &Value) -> Vec<u64> {
    strategy["bits"].as_array().unwrap().iter().map(|b| b.as_u64().unwrap()).collect()
}

/// Whether the checker is there to be asked.
fn checked() -> &'static [&'static str] {
    let checker = Path::new(env!("CARGO_BIN_EXE_quaver")).with_file_name("quaver-check");
    if checker.exists() {
        return &["--certified"];
    }
    println!("skipped: {} is not built, certificates are written and not checked", checker.display());
    &[]
}

/// Every ball is proved of the written network by the command that is for that.
fn holds_everywhere(out: &str, rows: &str, radius: &str, profile: &str) {
    let model = Path::new(out).join("model.onnx");
    let model = model.to_str().unwrap();
    let claim = ["--inputs", X, "--labels", Y, "--clip", "0,1", "--indices", rows, "--radius", radius];
    let text = prints(&[&["robustness", model, "--profile", profile][..], &claim].concat());
    assert!(text.contains(" 0 violated, 0 undecided"), "{text}");
}

#[test]
fn one_network_keeps_all_balls_and_its_accuracy() {
    let out = scratch("balls");
    let data = ["--data", X, "--data-labels", Y, "--accuracy-drop", "0.02"];
    let text = prints(&[&balls(&out, "1..7", "1/32")[..], &data, checked()].concat());
    assert!(text.contains("6 of 6 properties proved"), "{text}");
    let found = strategy(&out);
    assert!(found["accuracy"].as_f64() >= Some(found["accuracy_of_the_model"].as_f64().unwrap() - 0.02));
    let certificates = fs::read_dir(Path::new(&out).join("certificates")).unwrap().count();
    assert_eq!((certificates, found["certificates"]["count"].as_u64()), (12, Some(6)));
    holds_everywhere(&out, "1..7", "1/32", "real");
    // Cheaper networks of the front give something up.
    let total = found["total_bits"].as_u64().unwrap();
    for mark in found["front"].as_array().unwrap() {
        let is_worse = mark["proved"].as_u64() < Some(6) || mark["accuracy"].as_f64() < found["accuracy"].as_f64();
        assert!(mark["total_bits"].as_u64().unwrap() >= total || is_worse, "{mark}");
    }
    for layer in found["layers"].as_array().unwrap().iter().filter(|l| l["bits"].as_u64() > Some(2)) {
        assert!(layer["fewer"]["what"].is_object(), "{layer}");
    }
}

#[test]
fn integer_networks_run_as_they_were_proved() {
    let out = scratch("integers");
    let more = ["--activations", "8", "--bits", "2..8"];
    prints(&[&balls(&out, "1..7", "1/32")[..], &more, checked()].concat());
    assert!(bits(&strategy(&out)).iter().all(|b| (2..=8).contains(b)));
    holds_everywhere(&out, "1..7", "1/32", "ort-fused");
    let kinds = prints(&["inspect", Path::new(&out).join("model.onnx").to_str().unwrap()]);
    assert!(kinds.contains("QuantizeLinear"), "{kinds}");
}

#[test]
fn widths_of_a_target_are_kept_to() {
    let out = scratch("widths");
    prints(&[&balls(&out, "1..7", "1/32")[..], &["--bits", "4,8,16", "--cost", "operations"]].concat());
    assert!(bits(&strategy(&out)).iter().all(|b| [4, 8, 16].contains(b)));
}

#[test]
fn preimages_give_bits_that_hold() {
    let out = scratch("relaxed");
    let more = ["--method", "preimage", "--relaxed", "0.25", "--fraction-bits", "2..16"];
    let text = prints(&[&balls(&out, "1,2", "1/128")[..], &more, checked()].concat());
    assert!(text.contains("2 of 2 properties proved"), "{text}");
    assert!(strategy(&out)["preimage_seconds"].is_f64());
    holds_everywhere(&out, "1,2", "1/128", "real");
}

/// Two dense layers whose weights fixed point holds without clipping: the classes are whether x0 is above x1.
fn comparison(path: &str) {
    let mut b = ModelBuilder::new("comparison");
    let mut x = b.input("x", DType::F32, &[1, 2]).unwrap();
    for (k, w) in [[0.9, -0.8, -0.7, 0.9], [0.8, -0.3, -0.2, 0.7]].into_iter().enumerate() {
        let w = b.constant(&format!("w{k}"), Tensor::f32(&[2, 2], w.to_vec())).unwrap();
        let c = b.constant(&format!("c{k}"), Tensor::f32(&[2], vec![0.1, 0.1])).unwrap();
        x = b.node(Op::MatMul, &[x, w]).unwrap();
        x = b.node(Op::Add, &[x, c]).unwrap();
        if k == 0 {
            x = b.node(Op::Relu, &[x]).unwrap();
        }
    }
    b.output(x);
    fs::write(path, onnx::write(&b.finish().unwrap()).unwrap()).unwrap();
}

#[test]
fn strict_preimages_give_bits_that_hold() {
    let (model, inputs, out) = (scratch("comparison.onnx"), scratch("two.npy"), scratch("strict"));
    comparison(&model);
    let file = fs::File::create(&inputs).unwrap();
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(&[2, 2]).writer(file).begin_nd().unwrap();
    writer.extend([0.75_f32, 0.25, 0.125, 0.5]).unwrap();
    writer.finish().unwrap();
    for way in ["abstraction", "exact", "both"] {
        let kept = ["quantize", &model, "--preserve", "robustness", "--inputs", &inputs, "--radius", "1/32"];
        let how = ["--method", "preimage", "--preimages", way, "--output", &out, "--fresh"];
        let text = prints(&[&kept[..], &how, checked()].concat());
        assert!(text.contains("2 of 2 properties proved"), "{text}");
        assert!(bits(&strategy(&out)).iter().all(|b| (2..=17).contains(b)), "{text}");
    }
}

#[test]
fn no_trigger_leads_to_a_class() {
    let out = scratch("backdoor");
    let kept = ["quantize", MODEL, "--preserve", "backdoor", "--inputs", X, "--clip", "0,1", "--target", "3"];
    let text = prints(&[&kept[..], &["--trigger", "2x2@0,0", "--output", &out, "--seed", "1"], checked()].concat());
    assert!(text.contains("the test accepts: 12 of 12 batches"), "{text}");
    // Every pixel may be anything: some picture is of the class.
    let text = refusal(&[&kept[..], &["--trigger", "8x8@0,0", "--output", &out, "--fresh"]].concat());
    assert!(text.contains("the test refuses"), "{text}");
}

#[test]
fn queries_are_kept_too() {
    let query = scratch("query.vnnlib");
    let claim = ["--inputs", X, "--row", "2", "--radius", "1/64", "--clip", "0,1"];
    let out = scratch("queries");
    for (declare, more) in [("real", checked()), ("model", &[])] {
        let text = prints(&[&["spec", "robustness", MODEL, "--declare", declare][..], &claim].concat());
        fs::write(&query, text).unwrap();
        let kept = ["quantize", MODEL, "--preserve", &query, "--output", &out, "--fresh"];
        let text = prints(&[&kept[..], more].concat());
        assert!(text.contains("1 of 1 properties proved"), "{text}");
    }
}

#[test]
fn what_the_model_does_not_have_is_left_out_with_an_input() {
    let out = scratch("left_out");
    let text = refusal(&balls(&out, "1..3", "1/2"));
    assert!(text.contains("nothing to keep") && text.contains("an input refutes it"), "{text}");
    let told: Value = serde_json::from_slice(&fs::read(Path::new(&out).join("left_out.json")).unwrap()).unwrap();
    assert_eq!((told.as_array().unwrap().len(), told[0]["input"].as_array().unwrap().len()), (2, 64));
}

/// What facts of a folder say is proved, and that nothing is said twice.
fn proved(out: &str) -> HashSet<String> {
    let text = fs::read(Path::new(out).join("facts.jsonl")).unwrap_or_default();
    let whole = text.split_inclusive(|b| *b == b'\n').filter(|l| l.ends_with(b"\n")).skip(1);
    let mut seen = HashSet::new();
    for line in whole {
        let fact: Value = serde_json::from_slice(line).unwrap();
        if let Some(holds) = fact.get("holds") {
            assert!(seen.insert(format!("{} {}", holds["of"], holds["property"])), "proved again: {holds}");
        }
    }
    seen
}

#[test]
fn a_run_that_was_killed_goes_on_where_it_was() {
    let (out, whole) = (scratch("killed"), scratch("whole"));
    let more = ["--data", X, "--data-labels", Y, "--accuracy-drop", "0.01", "--timeout", "600"];
    let all = |out| [&balls(out, "1..100", "1/24")[..], &more].concat();
    let mut rng = StdRng::seed_from_u64(7);
    let mut known = 0;
    for _ in 0..10 {
        let mut run = command(&all(&out)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(rng.random_range(50..600)));
        run.kill().unwrap();
        run.wait().unwrap();
        let now = proved(&out).len();
        assert!(now >= known, "{now} of {known}");
        known = now;
    }
    prints(&all(&out));
    prints(&all(&whole));
    assert!(proved(&out).len() >= known);
    let (resumed, fresh) = (strategy(&out), strategy(&whole));
    assert_eq!((bits(&resumed), &resumed["accuracy"]), (bits(&fresh), &fresh["accuracy"]));
    // What is known stays.
    let before = proved(&out);
    prints(&all(&out));
    assert!(proved(&out).is_superset(&before));
}

#[test]
fn refusals_say_what_to_do() {
    let out = scratch("refusals");
    let at = |more: &[&str]| refusal(&[&["quantize", MODEL, "--output", &out][..], more].concat());
    for (args, wanted) in [
        (&["--method", "direct"][..], "give --preserve robustness"),
        (&["--preserve", "robustness"], "give --inputs X.npy and --radius R"),
        (&["--preserve", "robustness", "--inputs", X], "give --radius R"),
        (&["--preserve", "nothing.vnnlib"], "it is neither `robustness` nor `backdoor`, and no file"),
        (&["--preserve", "backdoor", "--inputs", X], "--target CLASS"),
        (&["--preserve", "robustness", "--method", "gpfq"], "use direct or preimage"),
    ] {
        let text = at(args);
        assert!(text.contains(wanted) && text.contains("what to do"), "{args:?}: {text}");
    }
    for (more, wanted) in [
        (&["--bits", "1..4"][..], "a weight has 2 to 32 bits"),
        (&["--costs", "1,2"], "--costs has 2 numbers, and the model 3 layers"),
        (&["--accuracy-drop", "2", "--data", X, "--data-labels", Y], "give a share from 0 to 1"),
        (&["--method", "preimage", "--activations", "8"], "use --method direct"),
        (
            &["--bits", "2..3", "--accuracy-drop", "0", "--data", X, "--data-labels", Y],
            "no bits are proved to be enough",
        ),
        (&["--search", "nsga2"], "use exact or greedy"),
    ] {
        let text = refusal(&[&balls(&out, "1..4", "1/64")[..], &["--fresh"], more].concat());
        assert!(text.contains(wanted) && text.contains("what to do"), "{more:?}: {text}");
    }
    prints(&[&balls(&out, "1..3", "1/64")[..], &["--fresh"]].concat());
    let text = refusal(&balls(&out, "1..4", "1/64"));
    assert!(text.contains("facts about another question") && text.contains("--fresh"), "{text}");
}
