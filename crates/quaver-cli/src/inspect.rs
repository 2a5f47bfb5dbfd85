//! `quaver inspect`: what a model file says, and what a runtime makes of it.

use std::path::PathBuf;

use anyhow::Result;
use quaver::model::ir::{Model, ValueId};
use quaver::model::lower::{IntegerLayer, LowerError, Lowered, Standing, lower};
use quaver::model::profile::{self, Profile};
use quaver::net::{Grid, Node, Op, Quantization, Rounding, Spread};
use serde::Serialize;

use crate::format::{self, Table, grouped, number};
use crate::load;
use crate::session::Session;

/// Show what a model file says, and what a runtime makes of it.
#[derive(clap::Args)]
pub struct Args {
    /// The model (.onnx, .tflite, or gzipped)
    model: PathBuf,
    #[arg(long, value_name = "P", value_parser = load::profile_name, help = load::PROFILE_HELP)]
    profile: Option<String>,
}

#[derive(Serialize)]
struct Report {
    source: SourceReport,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    operations: Vec<Count>,
    parameters: usize,
    profile: ProfileReport,
    /// Absent where the profile refuses the model.
    lowered: Option<LoweredReport>,
    /// Why, where it does.
    refused: Option<String>,
    profiles: Vec<Support>,
}

#[derive(Serialize)]
struct SourceReport {
    path: String,
    format: &'static str,
    opset: i64,
    ir_version: i64,
    producer: String,
    sha256: String,
}

#[derive(Serialize)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    #[serde(rename = "type")]
    dtype: &'static str,
}

#[derive(Serialize)]
struct Count {
    op: String,
    count: usize,
}

#[derive(Serialize)]
struct ProfileReport {
    name: String,
    meaning: &'static str,
    assumptions: Vec<String>,
}

#[derive(Serialize)]
struct LoweredReport {
    executed: Vec<Count>,
    multiplications: usize,
    values: Vec<ValueReport>,
    integer_layers: Vec<LayerReport>,
    softmax_removed: Vec<bool>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct ValueReport {
    name: String,
    made_by: &'static str,
    shape: Vec<usize>,
    numbers: &'static str,
    range: Option<(f64, f64)>,
    scale: Option<(f64, f64)>,
    zero_point: Option<(i64, i64)>,
    channels: usize,
}

#[derive(Serialize)]
struct LayerReport {
    name: String,
    accumulator: (i64, i64),
    bits: u32,
    int32_does_not_wrap: &'static str,
    no_16_bit_pair_saturation: &'static str,
}

#[derive(Serialize)]
struct Support {
    profile: &'static str,
    lowers: bool,
    reason: Option<String>,
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let model = load::model(session.files, &args.model)?;
    let profile = load::profile_for(&model, args.profile.as_deref())?;
    let report = report(&model, &*profile, lower(&model, &*profile));
    if session.json { session.line(&report) } else { Ok(write_text(&report, session)?) }
}

fn report(model: &Model, profile: &dyn Profile, lowered: Result<Lowered, LowerError>) -> Report {
    let tensors = |ids: &[ValueId]| ids.iter().map(|id| tensor(model, *id)).collect();
    let mut operations: Vec<Count> = vec![];
    for node in &model.nodes {
        match operations.iter_mut().find(|o| o.op == node.op.name()) {
            Some(o) => o.count += 1,
            None => operations.push(Count { op: node.op.name().into(), count: 1 }),
        }
    }
    let refused = lowered.as_ref().err().map(|e| load::one_line(e, model));
    let meaning = ProfileReport { name: profile.id(), meaning: profile.describe(), assumptions: profile.assumptions() };
    Report {
        source: source(model),
        inputs: tensors(&model.inputs),
        outputs: tensors(&model.outputs),
        operations,
        parameters: model.parameter_count(),
        profile: meaning,
        lowered: lowered.ok().map(lowered_report),
        refused,
        profiles: profile::NAMES.iter().map(|name| support(model, name)).collect(),
    }
}

fn source(model: &Model) -> SourceReport {
    let s = &model.source;
    SourceReport {
        path: s.path.display().to_string(),
        format: s.format,
        opset: s.opset,
        ir_version: s.ir_version,
        producer: s.producer.clone(),
        sha256: s.sha256.clone(),
    }
}

fn tensor(model: &Model, id: ValueId) -> Tensor {
    let value = model.value(id);
    Tensor { name: value.name.clone(), shape: value.shape.clone(), dtype: value.dtype.name() }
}

fn lowered_report(lowered: Lowered) -> LoweredReport {
    let net = &lowered.net;
    LoweredReport {
        multiplications: net.multiplications(),
        values: net.nodes().iter().map(value).collect(),
        executed: lowered.executed.into_iter().map(|(op, count)| Count { op, count }).collect(),
        integer_layers: lowered.integer_layers.iter().map(layer).collect(),
        softmax_removed: lowered.softmax.iter().map(Option::is_some).collect(),
        notes: lowered.notes,
    }
}

fn value(node: &Node) -> ValueReport {
    let finite = node.range.0.is_finite() && node.range.1.is_finite();
    let quantization = node.quantization.as_ref();
    ValueReport {
        name: node.name.clone(),
        made_by: made_by(&node.op),
        shape: node.shape.clone(),
        numbers: match node.grid {
            Grid::Integer => "integer",
            Grid::Float32 => "float32",
            Grid::Real => "real",
        },
        range: finite.then_some(node.range),
        scale: quantization.map(|q| extremes(&q.scale)),
        zero_point: quantization.map(|q| extremes(&q.zero_point)),
        channels: quantization.map_or(0, channels),
    }
}

fn made_by(op: &Op) -> &'static str {
    match op {
        Op::Input(_) => "input",
        Op::Affine(a) => match a.rounding {
            Rounding::Exact => "affine, exact",
            Rounding::Nearest32 => "affine, rounded once",
            Rounding::Slack { .. } => "affine, bounded error",
        },
        Op::Pointwise(_) => "pointwise",
        Op::Max(_) => "max",
        Op::Move(_) => "move",
    }
}

/// Smallest and largest of the distinct values.
fn extremes<T: Copy + PartialOrd>(spread: &Spread<T>) -> (T, T) {
    let first = spread.data[0];
    spread.data.iter().fold((first, first), |(lo, hi), &x| (if x < lo { x } else { lo }, if x > hi { x } else { hi }))
}

fn channels(q: &Quantization) -> usize {
    q.scale.data.len().max(q.zero_point.data.len())
}

fn layer(layer: &IntegerLayer) -> LayerReport {
    let standing = |s| if s == Standing::Proved { "proved" } else { "assumed" };
    LayerReport {
        name: layer.name.clone(),
        accumulator: layer.accumulator,
        bits: layer.bits,
        int32_does_not_wrap: if layer.bits <= 32 { "proved" } else { "not proved" },
        no_16_bit_pair_saturation: standing(layer.no_pair_saturation),
    }
}

fn support(model: &Model, name: &'static str) -> Support {
    let reason = match profile::parse(name) {
        Ok(profile) => lower(model, &*profile).err().map(|e| load::one_line(&e, model)),
        Err(e) => Some(e.to_string()),
    };
    Support { profile: name, lowers: reason.is_none(), reason }
}

fn write_text(report: &Report, session: &mut Session<'_>) -> std::io::Result<()> {
    let (out, s) = (&mut *session.out, &report.source);
    writeln!(out, "{}", s.path)?;
    let producer = if s.producer.is_empty() { "unnamed producer" } else { &s.producer };
    writeln!(out, "  {} opset {}, IR version {}, {producer}", s.format, s.opset, s.ir_version)?;
    writeln!(out, "  sha256 {}", s.sha256)?;
    let mut table = Table::new(&["", "name", "type", "shape"]);
    for (what, list) in [("input", &report.inputs), ("output", &report.outputs)] {
        for t in list {
            table.row([what.into(), t.name.clone(), t.dtype.into(), format::shape(&t.shape)]);
        }
    }
    table.write(out)?;
    writeln!(out, "  {} parameters", grouped(report.parameters))?;
    writeln!(out, "  in the file: {}", counts(&report.operations))?;
    writeln!(out, "\nprofile {}: {}", report.profile.name, report.profile.meaning)?;
    for assumption in &report.profile.assumptions {
        writeln!(out, "  assumes {assumption}")?;
    }
    match (&report.lowered, &report.refused) {
        (Some(lowered), _) => write_lowered(lowered, out)?,
        (None, reason) => writeln!(out, "  refused: {}", reason.as_deref().unwrap_or("no reason given"))?,
    }
    writeln!(out, "\nprofiles")?;
    let mut table = Table::new(&["profile", "lowers", "reason"]);
    for p in &report.profiles {
        let lowers = if p.lowers { "yes" } else { "no" };
        table.row([p.profile.into(), lowers.into(), p.reason.clone().unwrap_or_default()]);
    }
    table.write(out)
}

fn counts(list: &[Count]) -> String {
    let one = |c: &Count| if c.count == 1 { c.op.clone() } else { format!("{} {}", c.count, c.op) };
    list.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn write_lowered(lowered: &LoweredReport, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    writeln!(out, "  executed: {}", counts(&lowered.executed))?;
    writeln!(out, "  {} multiplications for each input", grouped(lowered.multiplications))?;
    for note in &lowered.notes {
        writeln!(out, "  note: {note}")?;
    }
    writeln!(out, "\nvalues")?;
    let mut table = Table::new(&["name", "made by", "shape", "numbers", "range", "scale", "zero point"]);
    for v in &lowered.values {
        let range = v.range.map_or("-".into(), format::range);
        let scale = v.scale.map_or(String::new(), |s| scale_text(s, v.channels));
        let zero = v
            .zero_point
            .map_or(String::new(), |(lo, hi)| if lo == hi { lo.to_string() } else { format!("{lo} to {hi}") });
        table.row([v.name.clone(), v.made_by.into(), format::shape(&v.shape), v.numbers.into(), range, scale, zero]);
    }
    table.write(out)?;
    if lowered.integer_layers.is_empty() {
        return Ok(());
    }
    writeln!(out, "\ninteger layers, over all inputs")?;
    let headings =
        ["layer", ">accumulator from", ">to", ">bits of 32", "int32 does not wrap", "no 16-bit pair saturation"];
    let mut table = Table::new(&headings);
    for l in &lowered.integer_layers {
        let (lo, hi) = l.accumulator;
        let conditions = (l.int32_does_not_wrap.to_string(), l.no_16_bit_pair_saturation.to_string());
        table.row([l.name.clone(), lo.to_string(), hi.to_string(), l.bits.to_string(), conditions.0, conditions.1]);
    }
    table.write(out)
}

fn scale_text((lo, hi): (f64, f64), channels: usize) -> String {
    if lo == hi { number(lo) } else { format!("{} to {} ({channels} channels)", number(lo), number(hi)) }
}
