//! `quaver run`: execution of a batch, with proved enclosures of what the runtime may compute.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Result;
use quaver::model::ir::DType;
use quaver::model::lower::{Lowered, Softmax};
use quaver::net::{Enclosure, execute};
use quaver::num::float32;
use serde::Serialize;
use serde_json::json;

use crate::format::{self, number};
use crate::inputs::{Inputs, row_shape, rows_at_once};
use crate::load::Loaded;
use crate::npy::Writer;
use crate::session::{Session, fail};
use crate::{load, npy};

/// Rows in text output.
const SHOWN_ROWS: usize = 10;
/// Elements of a row in text output.
const SHOWN_ELEMENTS: usize = 10;

/// Execute a model on a batch, with proved enclosures of what the runtime may compute.
///
/// Files for the second and later outputs get their number before the extension: Y.npy, Y.1.npy, Y.2.npy.
#[derive(clap::Args)]
pub struct Args {
    /// The model (.onnx, .tflite, or gzipped)
    model: PathBuf,
    /// Inputs in the model's own type, [N, shape] or [N, elements]: FILE.npy, FILE.npz or FILE.npz:ARRAY; repeat it for each input of the model
    #[arg(long, value_name = "X.npy", required = true)]
    inputs: Vec<PathBuf>,
    /// Write the outputs, [N, shape], in the output's own type
    #[arg(long, value_name = "Y.npy")]
    outputs: Option<PathBuf>,
    /// Write a proved lower bound of what the runtime may compute, as float32 rounded down
    #[arg(long, value_name = "L.npy")]
    lower: Option<PathBuf>,
    /// Write a proved upper bound of what the runtime may compute, as float32 rounded up
    #[arg(long, value_name = "U.npy")]
    upper: Option<PathBuf>,
    #[arg(long, value_name = "P", value_parser = load::profile_name, help = load::PROFILE_HELP)]
    profile: Option<String>,
    /// Apply the model's final Softmax, in float64, where it was left out (not what a runtime's exponentials give, bit for bit)
    #[arg(long, conflicts_with_all = ["lower", "upper"])]
    softmax: bool,
}

/// What is said about one output.
#[derive(Serialize)]
struct Summary {
    name: String,
    shape: Vec<usize>,
    #[serde(rename = "type")]
    dtype: &'static str,
    elements: usize,
    exactly_determined: usize,
    largest_radius: f64,
}

/// What is said in the end.
struct Report {
    rows: usize,
    outputs: Vec<Summary>,
    written: Vec<PathBuf>,
}

/// The files that one output goes to.
struct Files {
    values: Option<Writer>,
    lower: Option<Writer>,
    upper: Option<Writer>,
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let Loaded { lowered, outputs } = load::lowered(session.files, &args.model, args.profile.as_deref())?;
    if args.softmax && lowered.softmax.iter().all(Option::is_none) {
        let problem = format!("{}: --softmax was given, and no final Softmax was left out", args.model.display());
        return Err(fail(problem, "run without --softmax"));
    }
    let inputs = Inputs::read(session.files, &args.inputs, &lowered)?;
    let mut files =
        (0..lowered.net.outputs().len()).map(|k| files(args, &lowered, k, inputs.rows)).collect::<Result<Vec<_>>>()?;
    let mut summaries: Vec<Summary> = (0..files.len()).map(|k| summary(&lowered, k, &outputs[k])).collect();
    let chunk = rows_at_once(&[&lowered.net]) * rayon::current_num_threads();
    for first in (0..inputs.rows).step_by(chunk) {
        let last = (first + chunk).min(inputs.rows);
        let mut results = execute(&lowered.net, &inputs.batch(first, last), last - first);
        for (k, result) in results.iter_mut().enumerate() {
            summaries[k].add(result);
            if let (true, Some(softmax)) = (args.softmax, &lowered.softmax[k]) {
                apply(softmax, &mut result.center);
            }
            files[k].push(result)?;
        }
        if args.outputs.is_none() {
            show_rows(&summaries, &results, first..last, session)?;
        }
    }
    let mut written = vec![];
    for f in files {
        written.extend(f.finish()?);
    }
    let report = Report { rows: inputs.rows, outputs: summaries, written };
    conclude(args, &lowered, &report, session)
}

/// `Y.npy` for the first output, `Y.k.npy` for output k.
fn numbered(path: &Path, k: usize) -> PathBuf {
    if k == 0 {
        return path.into();
    }
    match path.extension() {
        Some(extension) => path.with_extension(format!("{k}.{}", extension.display())),
        None => path.with_extension(k.to_string()),
    }
}

fn files(args: &Args, lowered: &Lowered, k: usize, rows: usize) -> Result<Files> {
    let node = lowered.net.node(lowered.net.outputs()[k]);
    let shape: Vec<usize> = [rows].iter().chain(row_shape(node)).copied().collect();
    let create = |path: &Option<PathBuf>, dtype| {
        path.as_ref().map(|p| npy::Writer::create(&numbered(p, k), &shape, dtype)).transpose()
    };
    Ok(Files {
        values: create(&args.outputs, lowered.output_types[k])?,
        lower: create(&args.lower, DType::F32)?,
        upper: create(&args.upper, DType::F32)?,
    })
}

impl Files {
    fn push(&mut self, result: &Enclosure) -> Result<()> {
        for i in 0..result.center.len() {
            if let Some(w) = &mut self.values {
                w.push(result.center[i])?;
            }
            if let Some(w) = &mut self.lower {
                w.push(float32::floor_f64(result.lo(i)).into())?;
            }
            if let Some(w) = &mut self.upper {
                w.push(float32::ceil_f64(result.hi(i)).into())?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<PathBuf>> {
        [self.values, self.lower, self.upper].into_iter().flatten().map(Writer::finish).collect()
    }
}

fn summary(lowered: &Lowered, k: usize, name: &str) -> Summary {
    let node = lowered.net.node(lowered.net.outputs()[k]);
    Summary {
        name: name.into(),
        shape: node.shape.clone(),
        dtype: lowered.output_types[k].name(),
        elements: 0,
        exactly_determined: 0,
        largest_radius: 0.0,
    }
}

impl Summary {
    fn add(&mut self, result: &Enclosure) {
        self.elements += result.center.len();
        match &result.radius {
            None => self.exactly_determined += result.center.len(),
            Some(radius) => {
                self.exactly_determined += radius.iter().filter(|r| **r == 0.0).count();
                self.largest_radius = radius.iter().copied().fold(self.largest_radius, f64::max);
            }
        }
    }
}

/// Softmax (or its logarithm) of each group of classes.
fn apply(softmax: &Softmax, values: &mut [f64]) {
    for row in values.chunks_mut(softmax.classes) {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|x| (x - largest).exp()).sum();
        for x in row {
            *x = if softmax.log { *x - largest - sum.ln() } else { (*x - largest).exp() / sum };
        }
    }
}

/// In JSON every row, in text the first.
fn show_rows(outputs: &[Summary], results: &[Enclosure], rows: Range<usize>, session: &mut Session<'_>) -> Result<()> {
    for (r, row) in rows.clone().enumerate() {
        if !session.json && row >= SHOWN_ROWS {
            break;
        }
        let of = |k: usize| {
            let len = results[k].center.len() / rows.len();
            &results[k].center[r * len..(r + 1) * len]
        };
        if session.json {
            let values: serde_json::Map<_, _> =
                outputs.iter().enumerate().map(|(k, o)| (o.name.clone(), json!(of(k)))).collect();
            session.line(&json!({"row": row, "outputs": values}))?;
            continue;
        }
        for (k, output) in outputs.iter().enumerate() {
            let shown = format::first_few(of(k).iter().map(|x| number(*x)), SHOWN_ELEMENTS);
            session.say(format!("row {row}  {}  {shown}", output.name))?;
        }
    }
    Ok(())
}

fn conclude(args: &Args, lowered: &Lowered, report: &Report, session: &mut Session<'_>) -> Result<()> {
    if session.json {
        let summary = json!({
            "rows": report.rows, "profile": lowered.profile, "assumptions": lowered.assumptions, "outputs": report.outputs,
            "notes": lowered.notes, "softmax_applied": args.softmax, "files": report.written,
        });
        return session.line(&json!({ "summary": summary }));
    }
    session.say(format!("{} under profile {}", format::count(report.rows, "row"), lowered.profile))?;
    for s in &report.outputs {
        let determined = if s.exactly_determined == s.elements {
            format!("all {} elements are exactly determined", format::grouped(s.elements))
        } else {
            let (some, all) = (format::grouped(s.exactly_determined), format::grouped(s.elements));
            format!("{some} of {all} elements are exactly determined; largest radius {}", number(s.largest_radius))
        };
        session.say(format!("output {} ({} {}): {determined}", s.name, s.dtype, format::shape(&s.shape)))?;
    }
    if args.softmax {
        session.say("Softmax was applied in float64; what a runtime gives differs in the last digits")?;
    }
    lowered.notes.iter().filter(|_| !args.softmax).try_for_each(|note| session.say(format!("note: {note}")))?;
    report.written.iter().try_for_each(|path| session.say(format!("wrote {}", path.display())))
}
