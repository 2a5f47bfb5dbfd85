//! `quaver robustness`: whether the class of each input can change within a radius.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;
use indicatif::ProgressBar;
use quaver::model::lower::Lowered;
use quaver::net::execute;
use quaver::num::Ratio;
use quaver::property::{self, Robustness};
use quaver::quantize::Data;
use quaver::verify::{Options, Verdict, Verifier, Witness};
use serde::Serialize;
use serde_json::{Value, json};

use crate::ball::{Radius, Rows, clip, in_order, rows, seconds};
use crate::certify::Checking;
use crate::format::{self, number};
use crate::inputs::{Inputs, row_shape, rows_at_once};
use crate::npy::{Array, Writer};
use crate::session::{Session, fail};
use crate::{engine, load, progress};

mod certified;

use certified::Certifying;

/// Elements of a witness in text output.
const SHOWN: usize = 6;

/// Decide for each input whether the class can change within a radius.
///
/// A line for each input says `holds` (proved for every input within the radius), `violated` (an executed input with another class is
/// given) or `undecided`. The radius is measured in the input's real units: |x' - x| <= R in every element. Margins are in the units of
/// the value that decides the class: integer steps of a quantized network's logits.
#[derive(clap::Args)]
pub struct Args {
    /// The model (.onnx, .tflite, or gzipped), with one input and one output
    model: PathBuf,
    /// Inputs in the model's own type, [N, shape] or [N, elements]: FILE.npy, FILE.npz or FILE.npz:ARRAY
    #[arg(long, value_name = "X.npy")]
    inputs: PathBuf,
    /// Classes of the inputs, one integer for each [default: the class that the model gives the input]
    #[arg(long, value_name = "Y.npy")]
    labels: Option<PathBuf>,
    /// Radius, such as 4/255, 0.03 or, for an integer input, 1step; several are separated by commas
    #[arg(long, value_name = "R", required = true, value_delimiter = ',', allow_hyphen_values = true)]
    radius: Vec<Radius>,
    /// Rows to look at, such as 0..100 or 3,7,20..30 [default: all]
    #[arg(long, value_name = "ROWS", value_delimiter = ',')]
    indices: Vec<Rows>,
    /// Seconds for each input
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds, allow_hyphen_values = true)]
    timeout: Duration,
    /// Smallest and largest value of an input element, such as 0,1
    #[arg(long, value_name = "LO,HI", value_parser = clip, allow_hyphen_values = true)]
    clip: Option<(Ratio, Ratio)>,
    /// Whether a class must be strictly larger than every other, or wins as the first of equals
    #[arg(long, value_enum, default_value_t = Ties::Strict)]
    ties: Ties,
    #[arg(long, value_name = "P", value_parser = load::profile_name, help = load::PROFILE_HELP)]
    profile: Option<String>,
    /// Leave out inputs that the model does not give their label
    #[arg(long, requires = "labels")]
    correct_only: bool,
    /// Seed of the attack
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write all witnesses, [violated, shape], in the input's own type
    #[arg(long, value_name = "FILE.npy")]
    witnesses: Option<PathBuf>,
    /// Write into this folder, for each answer, the property as a query and the certificate, for quaver-check (arithmetic real, ort-fused or
    /// fixed-point)
    #[arg(long, value_name = "FOLDER")]
    certificate: Option<PathBuf>,
    #[command(flatten)]
    checking: Checking,
    #[command(flatten)]
    engine: engine::Args,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Ties {
    Strict,
    First,
}

/// One question.
struct Case {
    row: usize,
    radius: usize,
    label: usize,
    /// The class of the input itself.
    class: usize,
}

/// One answer.
struct Outcome {
    claim: Robustness,
    center: Vec<f64>,
    verdict: Verdict,
    seconds: f64,
}

impl Outcome {
    /// The class that a witness is given.
    fn class(&self, witness: &Witness) -> usize {
        self.claim.rival(witness.polyhedron())
    }
}

/// One answer in JSON; numbers that are not finite become null.
#[derive(Serialize)]
struct Line<'a> {
    index: usize,
    radius: f64,
    label: usize,
    class: usize,
    verdict: &'static str,
    seconds: f64,
    bound: Option<f64>,
    method: Option<&'static str>,
    why: Option<&'a str>,
    subproblems: Option<u64>,
    witness: Option<&'a [f64]>,
    witness_class: Option<usize>,
    witness_outputs: Option<&'a [f64]>,
    witness_profile: Option<&'a str>,
}

#[derive(Default, Serialize)]
struct Counts {
    holds: usize,
    violated: usize,
    undecided: usize,
}

/// Everything that the answers are made from.
struct Job<'a> {
    args: &'a Args,
    lowered: &'a Lowered,
    verifier: Verifier<'a>,
    engine: engine::Chosen,
    inputs: Inputs,
    /// In real units.
    radii: Vec<Ratio>,
    cases: Vec<Case>,
    skipped: usize,
    certifying: Option<Certifying>,
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let lowered = load::lowered(session.files, &args.model, args.profile.as_deref())?.lowered;
    let job = Job::new(args, &lowered, session)?;
    if let Some(path) = &args.witnesses {
        // Found out now, not after hours.
        write_witnesses(path, job.lowered, &[])?;
    }
    let start = Instant::now();
    if !session.json {
        job.announce(session)?;
    }
    let mut counts: Vec<Counts> = args.radius.iter().map(|_| Counts::default()).collect();
    let mut witnesses = vec![];
    let bar = progress::bar(job.cases.len());
    in_order(
        job.cases.len(),
        |i| job.decide(&job.cases[i]),
        |i, outcome| {
            let (case, outcome) = (&job.cases[i], outcome?);
            let count = &mut counts[case.radius];
            match &outcome.verdict {
                Verdict::Holds(_) => count.holds += 1,
                Verdict::Violated(w) => (count.violated += 1, witnesses.push(w.input().to_vec())).0,
                Verdict::Undecided(_) => count.undecided += 1,
            }
            job.show(case, &outcome, &bar, session)
        },
    )?;
    bar.finish_and_clear();
    if let Some(path) = &args.witnesses {
        write_witnesses(path, job.lowered, &witnesses)?;
    }
    job.conclude(&counts, start.elapsed().as_secs_f64(), session)
}

impl<'a> Job<'a> {
    fn new(args: &'a Args, lowered: &'a Lowered, session: &Session<'_>) -> Result<Job<'a>> {
        let verifier = Verifier::new(lowered).map_err(|e| {
            fail(format!("{}: {e}", args.model.display()), "give a model that ends in one score for each class")
        })?;
        let inputs = Inputs::read(session.files, std::slice::from_ref(&args.inputs), lowered)?;
        let rows = rows(&args.indices, inputs.rows, &args.inputs)?;
        let classes = classes(lowered, &inputs, &rows);
        let labels = match &args.labels {
            Some(path) => labels(&Array::read(session.files, path)?, inputs.rows, lowered)?,
            None => vec![],
        };
        let label = |k: usize| labels.get(rows[k]).copied().unwrap_or(classes[k]);
        let kept: Vec<usize> = (0..rows.len()).filter(|&k| !args.correct_only || label(k) == classes[k]).collect();
        let case = |radius, k: usize| Case { row: rows[k], radius, label: label(k), class: classes[k] };
        let cases = (0..args.radius.len()).flat_map(|r| kept.iter().map(move |&k| case(r, k))).collect();
        let radii = args.radius.iter().map(|r| r.value(lowered)).collect::<Result<_>>()?;
        let engine = args.engine.choose()?;
        let certifying = Certifying::new(args, lowered)?;
        Ok(Job { args, radii, skipped: rows.len() - kept.len(), lowered, verifier, engine, inputs, cases, certifying })
    }

    fn announce(&self, session: &mut Session<'_>) -> Result<()> {
        let rows = format::count(self.cases.len() / self.args.radius.len().max(1), "input");
        session.say(format!("{} under profile {}, {rows}", self.args.model.display(), self.lowered.profile))?;
        for assumption in &self.lowered.assumptions {
            session.say(format!("assumes {assumption}"))?;
        }
        if self.args.labels.is_none() {
            session.say("no --labels: the claim is that the model's own class at the input does not change")?;
        }
        if let Some(solver) = &self.engine.solver {
            session.say(format!("mixed-integer programs, solved by {solver}"))?;
        }
        self.lowered.notes.iter().chain(&self.engine.note).try_for_each(|note| session.say(format!("note: {note}")))
    }

    fn decide(&self, case: &Case) -> Result<Outcome> {
        let start = Instant::now();
        let center = self.inputs.batch(case.row, case.row + 1).swap_remove(0);
        let region =
            property::ball(self.lowered, &center, &self.radii[case.radius], self.args.clip.as_ref()).map_err(|e| {
                fail(format!("row {}: {e}", case.row), "change --clip, or leave the row out with --indices")
            })?;
        let ties = match self.args.ties {
            Ties::Strict => property::Ties::Strict,
            Ties::First => property::Ties::First,
        };
        let (timeout, engine) = (self.args.timeout, self.engine.engine.clone());
        let options = Options { timeout, seed: self.args.seed, engine, ..Options::default() };
        let claim = Robustness { region, center: Some(center.clone()), label: case.label, ties };
        let decide = |options: &Options| {
            self.verifier.robustness(&claim, options).map_err(|e| {
                fail(format!("{}: row {}: {e}", self.args.model.display(), case.row), "see `quaver inspect`")
            })
        };
        let verdict = match &self.certifying {
            None => decide(&options)?,
            Some(certifying) => {
                let name = format!("row{}_radius{}", case.row, case.radius);
                certifying.decide(&name, &claim, &options, decide)?
            }
        };
        Ok(Outcome { claim, center, verdict, seconds: start.elapsed().as_secs_f64() })
    }

    fn show(&self, case: &Case, outcome: &Outcome, bar: &ProgressBar, session: &mut Session<'_>) -> Result<()> {
        bar.inc(1);
        bar.suspend(|| match session.json {
            true => session.line(&self.json(case, outcome)),
            false => session.say(self.text(case, outcome)),
        })
    }

    fn json<'o>(&self, case: &Case, outcome: &'o Outcome) -> Line<'o> {
        let line = Line {
            index: case.row,
            radius: self.radii[case.radius].approx(),
            label: case.label,
            class: case.class,
            verdict: "undecided",
            seconds: outcome.seconds,
            bound: None,
            method: None,
            why: None,
            subproblems: None,
            witness: None,
            witness_class: None,
            witness_outputs: None,
            witness_profile: None,
        };
        // Adding zero turns -0 into 0.
        match &outcome.verdict {
            Verdict::Holds(proof) => {
                let (bound, method) = (Some(proof.margin() + 0.0), Some(proof.method()));
                Line { verdict: "holds", bound, method, subproblems: Some(proof.subproblems()), ..line }
            }
            Verdict::Violated(w) => {
                let witness_class = Some(outcome.class(w));
                Line {
                    verdict: "violated",
                    witness: Some(w.input()),
                    witness_class,
                    witness_outputs: Some(w.outputs()),
                    witness_profile: Some(w.profile()),
                    ..line
                }
            }
            Verdict::Undecided(u) => {
                let (bound, why) = (Some(u.bound + 0.0), Some(&u.why[..]));
                Line { bound, why, subproblems: Some(u.subproblems), ..line }
            }
        }
    }

    fn text(&self, case: &Case, outcome: &Outcome) -> String {
        let radius = if self.args.radius.len() > 1 {
            format!("  radius {}", self.args.radius[case.radius].text)
        } else {
            String::new()
        };
        let what = match &outcome.verdict {
            Verdict::Holds(proof) => {
                format!("holds      margin at least {} ({})", number(proof.margin()), proof.method())
            }
            Verdict::Violated(w) => {
                let start = if case.class == case.label {
                    String::new()
                } else {
                    format!(" (the input itself: {})", case.class)
                };
                let runtime = match self.lowered.members.is_empty() {
                    true => String::new(),
                    false => format!(" under {}", w.profile()),
                };
                let place = changes(&outcome.center, w.input());
                format!("violated   class {}{start}{runtime} at {place}", outcome.class(w))
            }
            Verdict::Undecided(u) => format!("undecided  margin at least {}; {}", number(u.bound), u.why),
        };
        let width = (self.inputs.rows - 1).to_string().len();
        format!("row {:<width$}{radius}  class {}  {:.3} s  {what}", case.row, case.label, outcome.seconds)
    }

    fn conclude(&self, counts: &[Counts], seconds: f64, session: &mut Session<'_>) -> Result<()> {
        let sum = |of: fn(&Counts) -> usize| counts.iter().map(of).sum::<usize>();
        let radii = || self.args.radius.iter().zip(&self.radii).zip(counts);
        if session.json {
            let by_radius: Vec<Value> = radii().map(|((_, r), c)| json!({"radius": r.approx(), "counts": c})).collect();
            return session.line(&json!({"summary": {
                "holds": sum(|c| c.holds), "violated": sum(|c| c.violated), "undecided": sum(|c| c.undecided), "seconds": seconds,
                "skipped": self.skipped, "profile": self.lowered.profile, "assumptions": self.lowered.assumptions,
                "labels": if self.args.labels.is_some() { "given" } else { "own class" }, "by_radius": by_radius,
                "solver": self.engine.solver, "note": self.engine.note,
            }}));
        }
        for ((radius, _), c) in radii() {
            let verdicts = format!("{} hold, {} violated, {} undecided", c.holds, c.violated, c.undecided);
            session.say(format!("radius {}: {verdicts}", radius.text))?;
        }
        if self.args.correct_only {
            session.say(format!(
                "{} left out: the model does not give them their label",
                format::count(self.skipped, "input")
            ))?;
        }
        session.say(format!("{seconds:.2} s"))
    }
}

/// The class that each row is given, the first largest: by the first member of several runtimes, else by the net's reference values.
pub fn classes(lowered: &Lowered, inputs: &Inputs, rows: &[usize]) -> Vec<usize> {
    let lowered = lowered.members.first().unwrap_or(lowered);
    let len = lowered.net.node(lowered.net.outputs()[0]).len();
    let of = |rows: &[usize]| -> Vec<usize> {
        let batch: Vec<f64> = rows.iter().flat_map(|&r| inputs.batch(r, r + 1).swap_remove(0)).collect();
        execute(&lowered.net, &[batch], rows.len())[0].center.chunks(len).map(format::argmax).collect()
    };
    let chunk = rows_at_once(&[&lowered.net]) * rayon::current_num_threads();
    rows.chunks(chunk).flat_map(of).collect()
}

/// The labels, checked.
pub fn labels(array: &Array, rows: usize, lowered: &Lowered) -> Result<Vec<usize>> {
    if array.len() != rows || array.shape.first() != Some(&rows) {
        let problem = format!("{}: shape {} for {rows} inputs", array.place, format::shape(&array.shape));
        return Err(fail(problem, format!("give one label for each input, shape [{rows}]")));
    }
    let classes = lowered.net.node(lowered.net.outputs()[0]).len();
    let label = |i: usize| {
        let Some(label) = array.integer(i) else {
            let problem = format!("{}: labels are {}", array.place, array.type_name());
            return Err(fail(problem, "save integers, as in y.astype(numpy.int64)"));
        };
        usize::try_from(label).ok().filter(|l| *l < classes).ok_or_else(|| {
            let problem = format!("{} is {label}, and the model has {classes} classes", array.element(i));
            fail(problem, format!("use labels from 0 to {}", classes - 1))
        })
    };
    (0..array.len()).map(label).collect()
}

/// Rows and the class of each, if both are named.
pub fn labelled(
    data: &Option<PathBuf>,
    labelled: &Option<PathBuf>,
    lowered: &Lowered,
    session: &Session<'_>,
) -> Result<Option<Data>> {
    let (Some(path), Some(of)) = (data, labelled) else { return Ok(None) };
    let inputs = Inputs::read(session.files, std::slice::from_ref(path), lowered)?;
    let labels = labels(&Array::read(session.files, of)?, inputs.rows, lowered)?;
    Ok(Some(Data { rows: inputs.batch(0, inputs.rows).swap_remove(0), labels }))
}

/// `[3] 0.25 -> 0.5, ...` for the elements that differ.
pub fn changes(from: &[f64], to: &[f64]) -> String {
    let changed: Vec<usize> = (0..from.len()).filter(|&i| from[i] != to[i]).collect();
    if changed.is_empty() {
        return "the input itself".into();
    }
    let one = |i: &usize| format!("[{i}] {} -> {}", number(from[*i]), number(to[*i]));
    format::first_few(changed.iter().map(one), SHOWN)
}

pub fn write_witnesses(path: &std::path::Path, lowered: &Lowered, witnesses: &[Vec<f64>]) -> Result<()> {
    let node = lowered.net.node(lowered.net.inputs()[0]);
    let shape: Vec<usize> = [witnesses.len()].iter().chain(row_shape(node)).copied().collect();
    let mut writer = Writer::create(path, &shape, lowered.input_types[0])?;
    witnesses.iter().flatten().try_for_each(|x| writer.push(*x))?;
    writer.finish().map(|_| ())
}
