//! Guards as ONNX files in ONNX Runtime, beside the same guards in Rust.
#![allow(dead_code)] // each program uses a part

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use prost::Message;
use quaver::guard::cells::Cells;
use quaver::guard::kernels::{Compiled, Isa, Scratch};
use quaver::guard::onnx::export;
use quaver::guard::plan::{Domain, FORMAT, Kind, Plan, Source, StagePlan};
use quaver::guard::run::{Answer, Guard, Memory};
use quaver::guard::thresholds::Compared;
use quaver::model::lower::{Lowered, lower};
use quaver::model::onnx::proto::{Dimension, DimensionProto, GraphProto, ModelProto};
use quaver::model::profile::Float32;
use quaver::model::{ReadOptions, read_bytes};
use quaver::verify::Options;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A Python interpreter that has ONNX Runtime, or a message that the test is skipped.
pub fn python() -> Option<String> {
    let python = std::env::var("QUAVER_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let probe = Command::new(&python).args(["-c", "import numpy, onnxruntime"]).output();
    match probe {
        Ok(out) if out.status.success() => Some(python),
        Ok(_) => {
            println!("skipped: {python} has no numpy or no onnxruntime");
            None
        }
        Err(e) => {
            println!("skipped: {python}: {e}");
            None
        }
    }
}

/// A float network and quantized ones, on a domain.
pub struct Parts {
    pub float: Vec<u8>,
    pub stages: Vec<Arc<Lowered>>,
    pub domain: Domain,
    /// Inputs as they come.
    pub data: Vec<f32>,
}

/// A guard in both forms.
pub struct Both {
    pub plan: Plan,
    pub guard: Guard,
    pub bytes: Vec<u8>,
    pub inputs: usize,
}

impl Parts {
    pub fn lowered(&self) -> Lowered {
        let model = read_bytes(&self.float, Path::new("float.onnx"), &ReadOptions::default()).expect("a float network");
        lower(&model, &Float32).expect("a float net")
    }

    fn plan(&self, kind: Kind, float: &Arc<Lowered>, cells: usize) -> Plan {
        let n = float.net.node(float.net.inputs()[0]).len();
        let grid = self.domain.grid().expect("a grid");
        let step = grid.as_ref().map_or(1.0, |g| g.step.approx());
        let sum = |x: &[f32]| -> f64 { x.iter().map(|x| f64::from(*x) / step).sum() };
        let sums = self.data.chunks(n).map(sum).map(|s| if grid.is_some() { s.round() } else { s }).collect();
        let cells = Cells::new(n, self.domain.ends().expect("ends"), grid.is_some(), sums, cells);
        let source = |file: &str| Source { file: file.into(), sha256: String::new(), profile: String::new() };
        let stage = |q: &Arc<Lowered>| {
            let ends = (self.domain.lo, self.domain.hi);
            let compared = Compared::new(float.clone(), q.clone(), ends, grid.as_ref()).expect("networks that fit");
            let bounds = |cell| compared.bounds(cells.total(cell), 1, None, &Options::default()).expect("bounds");
            let bounds = (0..cells.len()).map(bounds).collect();
            StagePlan { network: source("q"), float: source("f"), bits: 8, bounds }
        };
        let stages = self.stages.iter().map(stage).collect();
        let classes = float.net.node(float.net.outputs()[0]).len();
        Plan { format: FORMAT.into(), kind, domain: self.domain.clone(), cells, classes, stages }
    }

    pub fn both(&self, kind: Kind, cells: usize) -> Both {
        let float = Arc::new(self.lowered());
        let plan = self.plan(kind, &float, cells);
        let stages: Vec<&Lowered> = self.stages.iter().map(Arc::as_ref).collect();
        let guard = Guard::new(&plan, &float, &stages, Isa::best()).expect("a guard");
        let bytes = export(&plan, &self.float, &stages).expect("a file");
        Both { plan, inputs: guard.input_len(), guard, bytes }
    }

    /// Inputs of the domain, and others just beside and far from it.
    pub fn rows(&self, n: usize, count: usize, seed: u64) -> Vec<f32> {
        let mut rng = StdRng::seed_from_u64(seed);
        let step = self.domain.grid().expect("a grid").map(|g| g.step.approx());
        let (lo, hi) = (self.domain.lo, self.domain.hi);
        let on_grid = |x: f64| step.map_or(x, |s| (x / s).round() * s) as f32;
        let mut rows = vec![];
        for i in 0..count {
            let sample = &self.data[i * n % self.data.len()..][..n];
            let noise = [0.0, 0.02, 0.1, 2.0][i % 4];
            let mut x: Vec<f32> = sample
                .iter()
                .map(|x| on_grid((f64::from(*x) + noise * rng.random_range(-1.0..1.0)).clamp(lo, hi)))
                .collect();
            let at = rng.random_range(0..n);
            let steps = rng.random_range(1..7);
            match i % 16 {
                4 => x[at] = f32::NAN,
                5 => x[at] = f32::INFINITY,
                6 => x[at] = f32::NEG_INFINITY,
                7 => x[at] = 1e30,
                8 => x[at] = -1e-3 + lo as f32,
                9 => x[at] = hi as f32 + 1e-6,
                10 => x[at] += step.unwrap_or(1.0) as f32 * 0.25,
                11 => x[at] = (0..steps).fold(x[at], |x, _| x.next_up()),
                12 => x[at] = (0..steps).fold(x[at], |x, _| x.next_down()),
                13 => x.iter_mut().for_each(|x| *x = (0..steps).fold(*x, |x, _| x.next_up()).min(hi as f32)),
                14 if i % 5 == 0 => (x[0], x[n - 1]) = (f32::INFINITY, f32::NEG_INFINITY),
                _ => {}
            }
            rows.extend(x);
        }
        rows
    }
}

/// What was compared.
#[derive(Debug, Default)]
pub struct Tally {
    pub rows: usize,
    pub known: usize,
    /// Answers by each network.
    pub stages: Vec<usize>,
    pub unlike: usize,
    /// Rows for which both ask the float network and find different classes.
    pub float_unlike: usize,
    pub float_scores_unlike: u64,
    /// Nodes that ran in branches that were not taken.
    pub astray: Vec<String>,
}

fn bytes_of<const N: usize>(folder: &Path, file: &str) -> Vec<[u8; N]> {
    let bytes = std::fs::read(folder.join(file)).expect("outputs");
    bytes.chunks_exact(N).map(|c| c.try_into().expect("a whole number")).collect()
}

impl Both {
    /// The outputs that the guard in Rust implies: scores of the networks that answer.
    fn expected(&self, parts: &Parts, rows: &[f32]) -> (Vec<Answer>, Vec<Option<Vec<f32>>>) {
        let mut answers = vec![];
        self.guard.run(rows, &mut Memory::default(), &mut answers);
        let networks: Vec<Compiled> =
            parts.stages.iter().map(|s| Compiled::new(s, Isa::best()).expect("kernels")).collect();
        let scores = |(x, a): (&[f32], &Answer)| {
            let (net, lowered) = (networks.get(a.stage as usize)?, &parts.stages[a.stage as usize].net);
            let mut scores = vec![];
            net.run(x, &mut Scratch::new(), &mut scores);
            let meaning = lowered.node(lowered.outputs()[0]).quantization.as_ref();
            let (scale, zero) = meaning.map_or((1.0, 0.0), |q| (q.scale.data[0], q.zero_point.data[0] as f64));
            let real = |(s, o): (&i64, &quaver::num::Dyadic)| {
                let exact = &(net.scores().unit() * &quaver::num::Dyadic::from_int(*s)) + o;
                ((exact.to_f64() - zero) * scale) as f32
            };
            Some(scores.iter().zip(net.scores().offsets()).map(real).collect())
        };
        let scores = rows.chunks(self.inputs).zip(&answers).map(scores).collect();
        (answers, scores)
    }

    /// Runs the file and compares every output with the guard in Rust.
    pub fn compare(&self, parts: &Parts, python: &str, rows: &[f32], folder: &Path) -> Tally {
        let script = include_str!("onnx_guard.py");
        std::fs::create_dir_all(folder).expect("a folder");
        let write = |file: &str, bytes: &[u8]| std::fs::write(folder.join(file), bytes).expect("a file");
        write("guard.onnx", &self.bytes);
        write("float.onnx", &any_rows(&parts.float));
        write("rows.bin", &rows.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>());
        write("stages.txt", parts.stages.len().to_string().as_bytes());
        write("run.py", script.as_bytes());
        let out = Command::new(python).arg(folder.join("run.py")).arg(folder).output().expect("Python");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let found: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.join("found.json")).expect("findings")).expect("JSON");
        let (answers, scores) = self.expected(parts, rows);
        let float = parts.stages.len() as u32;
        let mut tally = Tally { stages: vec![0; parts.stages.len() + 1], ..Tally::default() };
        tally.float_scores_unlike = found["differ"].as_u64().expect("a count");
        tally.astray = astray(&self.bytes, &found["profiled"], parts.stages.len());
        for size in [1, 7, 256] {
            let class = bytes_of::<8>(folder, &format!("class.{size}.bin"));
            let stage = bytes_of::<8>(folder, &format!("stage.{size}.bin"));
            let accepted = bytes_of::<1>(folder, &format!("accepted.{size}.bin"));
            let margin = bytes_of::<8>(folder, &format!("margin.{size}.bin"));
            let out: Vec<f32> =
                bytes_of::<4>(folder, &format!("scores.{size}.bin")).into_iter().map(f32::from_le_bytes).collect();
            assert_eq!(class.len(), answers.len());
            for (i, answer) in answers.iter().enumerate() {
                let made = (i64::from_le_bytes(class[i]), i64::from_le_bytes(stage[i]), accepted[i][0] == 1);
                let is_float = answer.stage == float;
                let wanted = (i64::from(answer.class), i64::from(answer.stage), answer.sure && !is_float);
                let same_scores = scores[i]
                    .as_ref()
                    .is_none_or(|s| s.iter().zip(&out[i * s.len()..]).all(|(a, b)| a.to_bits() == b.to_bits()));
                let fits_margin = is_float || (f64::from_le_bytes(margin[i]) >= 0.0 && answer.known) == made.2;
                let is_same = made.1 == wanted.1 && made.2 == wanted.2 && same_scores && fits_margin;
                tally.rows += 1;
                tally.known += usize::from(answer.known);
                tally.stages[answer.stage as usize] += 1;
                tally.unlike += usize::from(!is_same || (!is_float && made.0 != wanted.0));
                tally.float_unlike += usize::from(is_float && made.0 != wanted.0);
            }
        }
        tally
    }
}

/// A network's file with any number of rows.
fn any_rows(bytes: &[u8]) -> Vec<u8> {
    let mut model = ModelProto::decode(bytes).expect("a model");
    let graph = model.graph.as_mut().expect("a graph");
    graph.value_info.clear();
    let any = || DimensionProto { value: Some(Dimension::DimParam("N".into())) };
    for value in graph.input.iter_mut().chain(&mut graph.output) {
        let shape = value.r#type.as_mut().and_then(|t| t.tensor_type.as_mut()).and_then(|t| t.shape.as_mut());
        shape.expect("a shape").dim[0] = any();
    }
    let shapes: Vec<String> =
        graph.node.iter().filter(|n| n.op_type.as_deref() == Some("Reshape")).map(|n| n.input[1].clone()).collect();
    for tensor in graph.initializer.iter_mut().filter(|t| shapes.contains(&t.name.clone().unwrap_or_default())) {
        match &mut tensor.raw_data {
            Some(bytes) => bytes[..8].fill(0),
            None => tensor.int64_data[0] = 0,
        }
    }
    model.encode_to_vec()
}

/// Names of the nodes by the number of branches around them that run for rows that are left, and of the float network.
pub fn names(graph: &GraphProto, depth: usize, out: &mut Vec<(String, usize)>) {
    for node in &graph.node {
        out.push((node.name.clone().unwrap_or_default(), depth));
        for attribute in &node.attribute {
            let Some(bytes) = &attribute.g else { continue };
            let branch = GraphProto::decode(&bytes[..]).expect("a branch");
            let is_then = attribute.name.as_deref() == Some("then_branch");
            names(&branch, depth + usize::from(is_then), out);
        }
    }
}

/// Nodes within taken branches that ran although the first network is sure of all rows, and nodes of the float network that ran although some
/// quantized network is.
fn astray(bytes: &[u8], profiled: &serde_json::Value, float: usize) -> Vec<String> {
    let model = ModelProto::decode(bytes).expect("a model");
    let mut all = vec![];
    names(&model.graph.expect("a graph"), 0, &mut all);
    let mut wrong = vec![];
    for (stage, nodes) in profiled.as_object().expect("nodes by stage") {
        let stage: usize = stage.parse().expect("a stage");
        for node in nodes.as_array().expect("nodes") {
            let (name, op) = (node[0].as_str().expect("a name"), node[1].as_str().expect("an operator"));
            let depth = all.iter().find(|n| n.0 == name).map_or(0, |n| n.1);
            let of_float = name.contains("float/") || op == "TopK" || op.contains("Gemm") || op.contains("Conv");
            if (stage == 0 && depth > 0) || (stage < float && of_float) {
                wrong.push(format!("{name} ({op}) for stage {stage}"));
            }
        }
    }
    wrong
}
