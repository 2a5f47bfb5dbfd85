//! `quaver compare`: two models, or one model under two profiles, layer by layer.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Result;
use indicatif::ProgressBar;
use quaver::model::lower::Lowered;
use quaver::net::execute_all;
use quaver::num::Ratio;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::format::{self, Table, argmax, number, percent};
use crate::inputs::{Inputs, rows_at_once};
use crate::load::{self, Loaded};
use crate::progress;
use crate::session::{Session, fail};

mod layers;
mod statistics;

use layers::{Matching, Pair};
use statistics::{Difference, Saturation, in_real_units};

/// Largest number of rows that are executed together.
const CHUNK: usize = 32;
/// Disagreements in text output.
const SHOWN: usize = 20;

/// Compare two models, or one model under two profiles, layer by layer.
///
/// Integers are compared as the real numbers they stand for, scale (q - zero point). Layers are matched by name, without the endings
/// that quantizers add; where names differ, by their order. A row's class is the position of the first largest element of the output.
#[derive(clap::Args)]
pub struct Args {
    /// The reference model
    a: PathBuf,
    /// The other model; the same one where it is left out
    b: Option<PathBuf>,
    /// Inputs in the models' own type, [N, shape] or [N, elements]; repeat it for each input of the model
    #[arg(long, value_name = "X.npy", required = true)]
    inputs: Vec<PathBuf>,
    /// Inputs of B, where they are not those of A (integers for a model that takes integers)
    #[arg(long, value_name = "X.npy", requires = "b")]
    inputs_b: Vec<PathBuf>,
    #[arg(long, value_name = "P", value_parser = load::profile_name, conflicts_with = "profiles", help = load::PROFILE_HELP)]
    profile: Option<String>,
    /// Profile of A and profile of B, as in real,ort-fused
    #[arg(long, value_name = "P,Q", value_parser = load::profile_pair)]
    profiles: Option<(String, String)>,
    /// A layer departs where the mean difference exceeds this share of its mean magnitude
    #[arg(long, value_name = "R", default_value = "1/20")]
    tolerance: Ratio,
}

/// The two nets and what to look at.
struct Comparison {
    a: Lowered,
    b: Lowered,
    outputs: Vec<Pair>,
    /// Names of the outputs in the files.
    output_names: Vec<(String, String)>,
    layers: Vec<Pair>,
    matching: Matching,
}

/// What was gathered.
#[derive(Clone)]
struct Tally {
    outputs: Vec<Difference>,
    /// For each output: row, class in A, class in B.
    disagreements: Vec<Vec<(usize, usize, usize)>>,
    layers: Vec<Difference>,
    saturation: Vec<[Option<Saturation>; 2]>,
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let comparison = Comparison::new(args, session)?;
    let inputs_a = Inputs::read(session.files, &args.inputs, &comparison.a)?;
    let paths_b = if args.inputs_b.is_empty() { &args.inputs } else { &args.inputs_b };
    let inputs_b = Inputs::read(session.files, paths_b, &comparison.b).map_err(|e| {
        if args.inputs_b.is_empty() { e.context("the inputs do not fit B (--inputs-b gives B others)") } else { e }
    })?;
    if inputs_a.rows != inputs_b.rows {
        let problem = format!("A is given {} and B {}", format::count(inputs_a.rows, "row"), inputs_b.rows);
        return Err(fail(problem, "give the same rows to both"));
    }
    let bar = progress::bar(inputs_a.rows);
    let tally = comparison.run([&inputs_a, &inputs_b], &bar);
    bar.finish_and_clear();
    if session.json {
        session.line(&comparison.json(&tally, inputs_a.rows, args.tolerance.approx()))
    } else {
        comparison.write(&tally, inputs_a.rows, args, session)
    }
}

impl Comparison {
    fn new(args: &Args, session: &Session<'_>) -> Result<Comparison> {
        let (profile_a, profile_b) = match (&args.profiles, &args.profile) {
            (Some((p, q)), _) => (Some(p.as_str()), Some(q.as_str())),
            (None, p) => (p.as_deref(), p.as_deref()),
        };
        if args.b.is_none() && args.profiles.is_none() {
            return Err(fail(
                "there is nothing to compare with",
                "give a second model, or two profiles with --profiles P,Q",
            ));
        }
        let path_b = args.b.as_deref().unwrap_or(&args.a);
        let Loaded { lowered: a, outputs: names_a } = load::lowered(session.files, &args.a, profile_a)?;
        let Loaded { lowered: b, outputs: names_b } = load::lowered(session.files, path_b, profile_b)?;
        let (outs_a, outs_b) = (a.net.outputs(), b.net.outputs());
        let sizes = |l: &Lowered| -> Vec<usize> { l.net.outputs().iter().map(|&o| l.net.node(o).len()).collect() };
        if sizes(&a) != sizes(&b) {
            let problem = format!("outputs of A have {:?} elements, and outputs of B {:?}", sizes(&a), sizes(&b));
            return Err(fail(problem, "compare models with the same outputs"));
        }
        let outputs = outs_a.iter().zip(outs_b).map(|(&a, &b)| Pair { a, b }).collect();
        let (layers, matching) = layers::matched(&a.net, &b.net);
        Ok(Comparison { a, b, outputs, output_names: names_a.into_iter().zip(names_b).collect(), layers, matching })
    }

    fn empty(&self) -> Tally {
        let ends = |p: &Pair| [Saturation::of(self.a.net.node(p.a)), Saturation::of(self.b.net.node(p.b))];
        Tally {
            outputs: vec![Difference::default(); self.outputs.len()],
            disagreements: vec![vec![]; self.outputs.len()],
            layers: vec![Difference::default(); self.layers.len()],
            saturation: self.layers.iter().map(ends).collect(),
        }
    }

    /// All rows, a few at a time on each thread.
    fn run(&self, inputs: [&Inputs; 2], bar: &ProgressBar) -> Tally {
        let rows = inputs[0].rows;
        let threads = rayon::current_num_threads();
        let most = rows_at_once(&[&self.a.net, &self.b.net]).min(CHUNK);
        let chunk = rows.div_ceil(threads).clamp(1, most);
        let mut total = self.empty();
        for first in (0..rows).step_by(chunk * threads) {
            let wave = first..(first + chunk * threads).min(rows);
            let starts: Vec<usize> = wave.clone().step_by(chunk).collect();
            let parts: Vec<Tally> =
                starts.into_par_iter().map(|f| self.chunk(inputs, f..(f + chunk).min(wave.end))).collect();
            parts.iter().for_each(|part| total.merge(part));
            bar.inc(wave.len() as u64);
        }
        total
    }

    fn chunk(&self, inputs: [&Inputs; 2], rows: Range<usize>) -> Tally {
        let a = execute_all(&self.a.net, &inputs[0].batch(rows.start, rows.end), rows.len());
        let b = execute_all(&self.b.net, &inputs[1].batch(rows.start, rows.end), rows.len());
        let mut tally = self.empty();
        let reals = |p: &Pair| {
            let real_a = in_real_units(self.a.net.node(p.a), a.value(p.a));
            (real_a, in_real_units(self.b.net.node(p.b), b.value(p.b)), self.a.net.node(p.a).len())
        };
        for (k, pair) in self.outputs.iter().enumerate() {
            let (x, y, len) = reals(pair);
            tally.outputs[k].add(rows.start, len, &x, &y);
            for (r, (x, y)) in x.chunks(len).zip(y.chunks(len)).enumerate() {
                let (class_a, class_b) = (argmax(x), argmax(y));
                if class_a != class_b {
                    tally.disagreements[k].push((rows.start + r, class_a, class_b));
                }
            }
        }
        for (k, pair) in self.layers.iter().enumerate() {
            let (x, y, len) = reals(pair);
            tally.layers[k].add(rows.start, len, &x, &y);
            let [ends_a, ends_b] = &mut tally.saturation[k];
            ends_a.iter_mut().for_each(|s| s.add(self.a.net.node(pair.a), &a.value(pair.a).center));
            ends_b.iter_mut().for_each(|s| s.add(self.b.net.node(pair.b), &b.value(pair.b).center));
        }
        tally
    }

    fn name_a(&self, pair: &Pair) -> &str {
        &self.a.net.node(pair.a).name
    }

    fn name_b(&self, pair: &Pair) -> &str {
        &self.b.net.node(pair.b).name
    }

    /// The first layer with any difference, and the first whose mean difference is beyond the tolerance.
    fn departures(&self, tally: &Tally, tolerance: f64) -> [Option<usize>; 2] {
        let beyond = |d: &Difference| d.relative().is_none_or(|r| r > tolerance);
        [tally.layers.iter().position(|d| d.different > 0), tally.layers.iter().position(beyond)]
    }

    fn json(&self, tally: &Tally, rows: usize, tolerance: f64) -> Value {
        let [differs, departs] = self.departures(tally, tolerance).map(|d| d.map(|k| self.name_a(&self.layers[k])));
        let outputs: Vec<Value> = (0..self.outputs.len()).map(|k| self.output_json(tally, k)).collect();
        let layers: Vec<Value> = (0..self.layers.len()).map(|k| self.layer_json(tally, k)).collect();
        json!({
            "rows": rows, "profile_a": self.a.profile, "profile_b": self.b.profile, "outputs": outputs, "layers": layers,
            "matched_by": if self.matching == Matching::Names { "names" } else { "order" },
            "first_difference": differs, "tolerance": tolerance, "first_departure": departs,
        })
    }

    fn output_json(&self, tally: &Tally, k: usize) -> Value {
        let (a, b) = &self.output_names[k];
        let mut value = difference_json(&tally.outputs[k], a, b);
        let of = |d: &(usize, usize, usize)| json!({"row": d.0, "a": d.1, "b": d.2});
        value["argmax_disagreements"] = tally.disagreements[k].iter().map(of).collect();
        value
    }

    fn layer_json(&self, tally: &Tally, k: usize) -> Value {
        let pair = &self.layers[k];
        let mut value = difference_json(&tally.layers[k], self.name_a(pair), self.name_b(pair));
        value["saturation_a"] = saturation_json(&tally.saturation[k][0]);
        value["saturation_b"] = saturation_json(&tally.saturation[k][1]);
        value
    }

    fn write(&self, tally: &Tally, rows: usize, args: &Args, session: &mut Session<'_>) -> Result<()> {
        let path = |p: &Path| p.display().to_string();
        session.say(format!("A: {} under profile {}", path(&args.a), self.a.profile))?;
        session.say(format!("B: {} under profile {}", path(args.b.as_deref().unwrap_or(&args.a)), self.b.profile))?;
        session.say(format!("{}\n\noutputs", format::count(rows, "row")))?;
        let mut table = Table::new(&["A", "B", ">largest difference", "at", ">mean", ">relative", ">other class"]);
        for (k, (a, b)) in self.output_names.iter().enumerate() {
            let [largest, at, mean, relative] = cells(&tally.outputs[k]);
            let other = format!("{} of {rows}", tally.disagreements[k].len());
            table.row([a.clone(), b.clone(), largest, at, mean, relative, other]);
        }
        table.write(session.out)?;
        for ((name, _), disagreements) in self.output_names.iter().zip(&tally.disagreements).filter(|d| !d.1.is_empty())
        {
            let of = |d: &(usize, usize, usize)| format!("row {} ({} and {})", d.0, d.1, d.2);
            let list = format::first_few(disagreements.iter().map(of), SHOWN);
            session.say(format!("  classes of {name} differ at {list}"))?;
        }
        let how =
            if self.matching == Matching::Names { "matched by name" } else { "matched in order, because names differ" };
        if self.layers.is_empty() {
            return session.say("\nno layers correspond");
        }
        session.say(format!("\nlayers, {how}"))?;
        self.write_layers(tally, session)?;
        self.write_departures(tally, &args.tolerance, session)
    }

    fn write_layers(&self, tally: &Tally, session: &mut Session<'_>) -> Result<()> {
        let headings = [
            "A",
            "B",
            ">largest difference",
            "at",
            ">mean",
            ">relative",
            ">A at low end",
            ">high",
            ">B at low end",
            ">high",
        ];
        let mut table = Table::new(&headings);
        for (k, pair) in self.layers.iter().enumerate() {
            let [largest, at, mean, relative] = cells(&tally.layers[k]);
            let [a, b] = tally.saturation[k].map(ends);
            let names = (self.name_a(pair).into(), self.name_b(pair).into());
            table.row([names.0, names.1, largest, at, mean, relative, a.0, a.1, b.0, b.1]);
        }
        table.write(session.out)?;
        session.say("  (relative: mean difference over mean magnitude in A; low end: for a layer with a Relu, where it is inactive)")
    }

    fn write_departures(&self, tally: &Tally, tolerance: &Ratio, session: &mut Session<'_>) -> Result<()> {
        let [differs, departs] = self.departures(tally, tolerance.approx());
        let name = |k: usize| format::short(self.name_a(&self.layers[k]));
        match differs {
            None => session.say("no layer differs"),
            Some(k) => session.say(format!("first layer that differs at all: {}", name(k))),
        }?;
        let share = number(100.0 * tolerance.approx());
        match departs {
            None => session.say(format!("no layer departs by more than {share} % on average")),
            Some(k) => session.say(format!("first layer that departs by more than {share} % on average: {}", name(k))),
        }
    }
}

impl Tally {
    /// Adds later rows.
    fn merge(&mut self, other: &Tally) {
        self.outputs.iter_mut().zip(&other.outputs).for_each(|(x, y)| x.merge(y));
        self.layers.iter_mut().zip(&other.layers).for_each(|(x, y)| x.merge(y));
        self.disagreements.iter_mut().zip(&other.disagreements).for_each(|(x, y)| x.extend(y));
        let ends = self.saturation.iter_mut().flatten().zip(other.saturation.iter().flatten());
        ends.for_each(|(x, y)| x.iter_mut().zip(y).for_each(|(x, y)| x.merge(y)));
    }
}

fn difference_json(d: &Difference, a: &str, b: &str) -> Value {
    json!({
        "a": a, "b": b, "elements": d.elements, "different": d.different, "largest": d.largest,
        "largest_at": {"row": d.at.0, "element": d.at.1}, "mean": d.mean(), "relative": d.relative(),
    })
}

fn saturation_json(s: &Option<Saturation>) -> Value {
    let share = |part: u64, of: u64| if of == 0 { 0.0 } else { part as f64 / of as f64 };
    s.map_or(Value::Null, |s| json!({"low": share(s.low, s.elements), "high": share(s.high, s.elements)}))
}

/// Largest difference, its place, mean and relative difference.
fn cells(d: &Difference) -> [String; 4] {
    let at = if d.different == 0 { String::new() } else { format!("row {} [{}]", d.at.0, d.at.1) };
    let relative = d.relative().map_or("-".into(), |r| format!("{} %", number(100.0 * r)));
    [number(d.largest), at, number(d.mean()), relative]
}

fn ends(s: Option<Saturation>) -> (String, String) {
    s.map_or((String::new(), String::new()), |s| (percent(s.low, s.elements), percent(s.high, s.elements)))
}
