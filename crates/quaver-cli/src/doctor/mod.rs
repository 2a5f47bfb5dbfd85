//! `quaver doctor`: which runtimes are installed, and whether each profile still computes what they do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use quaver::model::ir::DType;
use quaver::model::lower::{Lowered, lower};
use quaver::model::{self, ReadOptions, profile};
use quaver::net::{Enclosure, execute};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::format::{self, Table};
use crate::npy::{Array, Writer};
use crate::session::{Files, Session, fail};

mod layers;

use layers::{Format, Kind, Layer, ROWS};

/// What runs the layers: a script for the user's Python.
const RUNNER: &str = include_str!("runner.py");
/// The profiles that are tested, with the format of their layers.
const TESTED: [(&str, Format); 8] = [
    ("tflite-reference", Format::TfLite),
    ("tflite-xnnpack", Format::TfLite),
    ("tflite-micro", Format::TfLite),
    ("ort-fused", Format::Onnx),
    ("torch-fbgemm", Format::Onnx),
    ("torch-onednn", Format::Onnx),
    ("torch-x86", Format::Onnx),
    ("torch-qnnpack", Format::Onnx),
];

/// Find out which runtimes are installed here, and test each profile against them.
///
/// Random layers, with accumulators next to the places where rounding rules differ, are written to files, run by the runtimes that the
/// Python interpreter finds, and compared with what the profiles say, output by output. The envelope `any-engine` is tested too: no
/// output of any runtime may lie outside. Exit code 2 where something differs.
#[derive(clap::Args)]
pub struct Args {
    /// The Python interpreter whose packages are looked at
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: PathBuf,
    /// Layers of each kind
    #[arg(long, value_name = "N", default_value_t = 4)]
    layers: u64,
    /// Seed of the layers
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Keep the layers and what the runtimes made of them in this folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// What a comparison came to.
#[derive(Clone, Copy, Default)]
struct Tally {
    layers: usize,
    outputs: usize,
    differ: usize,
    refused: usize,
    /// Of the envelope: outputs with more than one allowed value.
    open: usize,
}

impl Tally {
    fn add(&mut self, o: &Tally) {
        self.layers += o.layers;
        self.outputs += o.outputs;
        self.differ += o.differ;
        self.refused += o.refused;
        self.open += o.open;
    }
}

/// Tallies by profile; the envelope's by the runtime that is inside.
type Tallies = BTreeMap<String, Tally>;

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let temporary = std::env::temp_dir().join(format!("quaver-doctor-{}", std::process::id()));
    let folder = args.keep.as_deref().unwrap_or(&temporary);
    let found = probe(args, folder)?;
    if !session.json {
        installed(&found, session)?;
    }
    let cases = write_cases(args, folder, &found)?;
    if !cases.is_empty() {
        python(args, &["run", &folder.display().to_string()], folder)?;
    }
    let parts: Vec<Tallies> = cases.par_iter().map(|case| compare(case, folder)).collect::<Result<_>>()?;
    let mut total = Tallies::new();
    for (name, tally) in parts.iter().flatten() {
        total.entry(name.clone()).or_default().add(tally);
    }
    if args.keep.is_none() {
        // What cannot be removed is left to the system's cleaning of its temporary folder.
        let _ = std::fs::remove_dir_all(folder);
    }
    report(&found, &total, session)?;
    match total.iter().find(|t| t.1.differ > 0) {
        Some((name, t)) => Err(fail(
            format!("{name}: {} of {} outputs differ from the runtime installed here", t.differ, t.outputs),
            "do not rely on this profile with this version of the runtime; `--keep DIR` keeps the layers",
        )),
        None => Ok(()),
    }
}

/// Runs the script.
fn python(args: &Args, arguments: &[&str], folder: &Path) -> Result<String> {
    let script = folder.join("runner.py");
    let problem = |e: &dyn std::fmt::Display| {
        fail(format!("{}: {e}", args.python.display()), "name a Python 3 interpreter with --python")
    };
    std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&script, RUNNER)).map_err(|e| {
        fail(format!("{}: cannot be written: {e}", script.display()), "give another folder with --keep")
    })?;
    let output = Command::new(&args.python).arg(&script).args(arguments).output().map_err(|e| problem(&e))?;
    if !output.status.success() {
        return Err(problem(&String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("it failed")));
    }
    // Runtimes may print before the answer.
    Ok(String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or("").to_string())
}

fn probe(args: &Args, folder: &Path) -> Result<Value> {
    let answer = python(args, &["probe"], folder)?;
    serde_json::from_str(&answer).map_err(|e| fail(format!("the probe answered `{answer}`: {e}"), "use Python 3"))
}

/// The runtimes that are installed, with their versions.
fn installed(found: &Value, session: &mut Session<'_>) -> Result<()> {
    session.say(format!("Python {}", found["python"].as_str().unwrap_or("?")))?;
    let packages = [
        ("ai_edge_litert", "LiteRT (ai-edge-litert)", "tflite-reference, tflite-xnnpack"),
        ("tflite_micro", "TensorFlow Lite Micro (tflite-micro)", "tflite-micro"),
        ("onnxruntime", "ONNX Runtime (onnxruntime)", "ort-fused"),
        ("torch", "PyTorch (torch)", "torch-fbgemm, torch-onednn, torch-x86, torch-qnnpack"),
    ];
    let mut table = Table::new(&["runtime", "version", "profiles"]);
    for (key, name, profiles) in packages {
        let version = found[key].as_str().unwrap_or("not installed");
        table.row([name, version, profiles].map(String::from));
    }
    Ok(table.write(session.out)?)
}

/// Whether a profile's runtime is installed.
fn is_installed(profile: &str, found: &Value) -> bool {
    let has = |key: &str| found["numpy"].is_string() && found[key].is_string();
    match profile.split_once('-') {
        Some(("tflite", "micro")) => has("tflite_micro"),
        Some(("tflite", _)) => has("ai_edge_litert"),
        Some(("torch", engine)) => {
            has("torch") && found["torch_engines"].as_array().is_some_and(|e| e.contains(&json!(engine)))
        }
        _ => has("onnxruntime"),
    }
}

/// One layer in the folder.
struct Case {
    id: String,
    format: Format,
    layer: Layer,
    runtimes: Vec<&'static str>,
}

fn write_cases(args: &Args, folder: &Path, found: &Value) -> Result<Vec<Case>> {
    let mut cases = vec![];
    for format in [Format::TfLite, Format::Onnx] {
        let wanted = TESTED.iter().filter(|t| t.1 == format && is_installed(t.0, found));
        let runtimes: Vec<&str> = wanted.map(|t| t.0).collect();
        if runtimes.is_empty() {
            continue;
        }
        for (k, &kind) in Kind::of(format).iter().enumerate() {
            for number in 0..args.layers {
                let seed = args.seed.wrapping_mul(1_000_003).wrapping_add(number * 64 + k as u64);
                let layer = layers::random(format, kind, seed)?;
                let id = format!("{format:?}_{kind:?}_{number}").to_lowercase();
                cases.push(Case { id, format, layer, runtimes: runtimes.clone() });
            }
        }
    }
    cases.iter().try_for_each(|case| write_case(case, folder))?;
    let list: Vec<Value> = cases
        .iter()
        .map(|c| {
            let format = if c.format == Format::TfLite { "tflite" } else { "onnx" };
            json!({"id": c.id, "format": format, "inputs": c.layer.inputs.len(), "torch": c.layer.torch, "runtimes": c.runtimes})
        })
        .collect();
    std::fs::write(folder.join("cases.json"), serde_json::to_string(&list)?)?;
    Ok(cases)
}

fn write_case(case: &Case, folder: &Path) -> Result<()> {
    let path = |ending: &str| folder.join(format!("{}.{ending}", case.id));
    let (ending, dtype) = if case.format == Format::TfLite { ("tflite", DType::I8) } else { ("onnx", DType::U8) };
    std::fs::write(path(ending), &case.layer.file)?;
    let write = |ending: &str, shape: &[usize], dtype: DType, values: &mut dyn Iterator<Item = f64>| -> Result<()> {
        let mut writer = Writer::create(&path(ending), shape, dtype)?;
        for v in values {
            writer.push(v)?;
        }
        writer.finish().map(|_| ())
    };
    for (k, rows) in case.layer.inputs.iter().enumerate() {
        write(&format!("x{k}.npy"), &[ROWS, rows.len() / ROWS], dtype, &mut rows.iter().copied())?;
    }
    if let Some((w, scales, bias)) = &case.layer.weights {
        write("w.npy", &[w.len()], DType::I8, &mut w.iter().map(|&v| f64::from(v)))?;
        write("sw.npy", &[scales.len()], DType::F32, &mut scales.iter().map(|&v| f64::from(v)))?;
        write("b.npy", &[bias.len()], DType::F32, &mut bias.iter().map(|&v| f64::from(v)))?;
    }
    Ok(())
}

/// What the profiles say against what the runtimes said.
fn compare(case: &Case, folder: &Path) -> Result<Tallies> {
    let model = model::read_bytes(&case.layer.file, Path::new(&case.id), &ReadOptions::default())?;
    let lowered = |name: &str| lower(&model, &*profile::parse(name)?).map_err(anyhow::Error::from);
    let run = |l: &Lowered| -> Enclosure { execute(&l.net, &case.layer.inputs, ROWS).swap_remove(0) };
    let envelope = lowered("any-engine").ok();
    let allowed = envelope.as_ref().map(run);
    let mut tallies = Tallies::new();
    for runtime in &case.runtimes {
        let path = folder.join(format!("{}.{runtime}.npy", case.id));
        let own = lowered(runtime).ok();
        let refused = Tally { refused: 1, ..Tally::default() };
        let (Some(own), true) = (own, path.is_file()) else {
            tallies.entry(runtime.to_string()).or_default().add(&refused);
            continue;
        };
        let y = Array::read(Files::Disk, &path)?;
        let values: Vec<f64> = (0..y.len()).map(|i| y.at(i)).collect();
        let outside =
            |e: &Enclosure| values.iter().enumerate().filter(|(i, v)| **v < e.lo(*i) || **v > e.hi(*i)).count();
        let mut tally = Tally { layers: 1, outputs: values.len(), ..Tally::default() };
        tally.differ = outside(&run(&own));
        tallies.entry(runtime.to_string()).or_default().add(&tally);
        if let Some(allowed) = &allowed {
            let open = |r: &Vec<f64>| r.iter().filter(|r| **r > 0.0).count();
            let (differ, open) = (outside(allowed), allowed.radius.as_ref().map_or(0, open));
            let name =
                format!("any-engine ({})", if case.format == Format::TfLite { "TensorFlow Lite" } else { "ONNX" });
            tallies.entry(name).or_default().add(&Tally { differ, open, ..tally });
        }
    }
    Ok(tallies)
}

fn report(found: &Value, total: &Tallies, session: &mut Session<'_>) -> Result<()> {
    if session.json {
        let of = |t: &Tally| json!({"layers": t.layers, "outputs": t.outputs, "differ": t.differ, "refused": t.refused, "two_valued": t.open});
        let profiles: serde_json::Map<String, Value> = total.iter().map(|(k, t)| (k.clone(), of(t))).collect();
        return session.line(&json!({"installed": found, "profiles": profiles}));
    }
    if total.is_empty() {
        session.say("\nnothing to test: install a runtime and numpy, for example pip install numpy ai-edge-litert")?;
    } else {
        session.say("\nself-test on random layers, near-ties included")?;
        let mut table = Table::new(&["profile", ">layers", ">outputs", ">differ", ">refused", ">several values"]);
        for (name, t) in total {
            let open = if name.starts_with("any-engine") {
                format::percent(t.open as u64, t.outputs as u64)
            } else {
                String::new()
            };
            let numbers = [t.layers, t.outputs, t.differ, t.refused].map(format::grouped);
            let [layers, outputs, differ, refused] = numbers;
            table.row([name.clone(), layers, outputs, differ, refused, open]);
        }
        table.write(session.out)?;
        session.say("  (refused: the profile has no exact formula for the layer, or the runtime does not take it)")?;
    }
    session.say("\nprofiles")?;
    let mut table = Table::new(&["name", "what computes like this"]);
    for name in profile::NAMES {
        let what = profile::parse(name).map(|p| p.describe()).unwrap_or_default();
        table.row([name.to_string(), what.to_string()]);
    }
    Ok(table.write(session.out)?)
}
