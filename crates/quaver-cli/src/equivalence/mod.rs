//! `quaver equivalence`: whether two networks agree on every input of balls or boxes.

mod area;
mod relation;
mod report;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use quaver::model::lower::Lowered;
use quaver::property::equivalence::{Pair, Question, Relation};
use quaver::verify::{Options, Verdict, Verifier};
use serde::Serialize;

use crate::ball::{in_order, seconds};
use crate::robustness::write_witnesses;
use crate::session::{Session, fail};
use crate::{engine, progress};
pub use area::{Area, Areas};
pub use relation::{Networks, words};

/// What two networks must have in common.
pub type RelationArgs = relation::Args;
/// Where.
pub type AreaArgs = area::Args;

/// Decide whether two networks agree on every input of balls around inputs, or of boxes.
///
/// A line for each ball or box says `holds` (proved for every input of it), `violated` (an executed input on which the networks differ is given)
/// or `undecided`. The networks are called A and B; both get the same input, each in its own arithmetic. Outputs that are integers with a scale
/// are compared as the real numbers that they stand for, and for classes as integers.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    networks: Networks,
    #[command(flatten, next_help_heading = "What the networks must have in common (one of)")]
    relation: RelationArgs,
    #[command(flatten, next_help_heading = "Where")]
    area: AreaArgs,
    #[command(flatten, next_help_heading = "How")]
    how: How,
    #[command(flatten)]
    engine: engine::Args,
}

/// How the answers are found and kept.
#[derive(clap::Args)]
struct How {
    /// Seconds for each ball or box
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds, allow_hyphen_values = true)]
    timeout: Duration,
    /// With --epsilon or --strict: print proved bounds on each difference B - A of outputs, too, as tight as they are without branching
    #[arg(long, conflicts_with_all = ["top1", "top_k"])]
    bounds: bool,
    /// Seed of the attack
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write all witnesses, [violated, shape], in the input's own type
    #[arg(long, value_name = "FILE.npy")]
    witnesses: Option<PathBuf>,
}

/// One answer.
struct Outcome {
    area: Area,
    /// What both give at the start of the area.
    outputs: [Vec<f64>; 2],
    verdict: Verdict,
    seconds: f64,
    /// Of every difference B - A, with the seconds that they took.
    bounds: Option<(Vec<(f64, f64)>, f64)>,
}

#[derive(Default, Clone, Copy, Serialize)]
struct Counts {
    holds: usize,
    violated: usize,
    undecided: usize,
}

/// Everything that the answers are made from.
struct Job<'a> {
    args: &'a Args,
    pair: &'a Pair,
    relation: &'a Relation,
    question: &'a Question,
    verifier: Verifier<'a>,
    engine: engine::Chosen,
    areas: Areas<'a>,
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let relation = args.relation.relation()?;
    let pair = args.networks.pair(session.files)?;
    let question = pair.question(&relation).map_err(|e| args.networks.fail(&e))?;
    let verifier = Verifier::new(question.lowered()).map_err(|e| args.networks.fail(&e))?;
    let areas = Areas::new(&args.area, first(&pair), session.files)?;
    let engine = args.engine.choose()?;
    let job = Job { args, pair: &pair, relation: &relation, question: &question, verifier, engine, areas };
    if let Some(path) = &args.how.witnesses {
        // Found out now, not after hours.
        write_witnesses(path, first(&pair), &[])?;
    }
    let start = Instant::now();
    if !session.json {
        job.announce(session)?;
    }
    let mut counts = vec![Counts::default(); job.areas.radii.len().max(1)];
    let mut witnesses = vec![];
    let bar = progress::bar(job.areas.len());
    in_order(
        job.areas.len(),
        |i| job.decide(i),
        |_, outcome| {
            let outcome = outcome?;
            let count = &mut counts[outcome.area.radius];
            match &outcome.verdict {
                Verdict::Holds(_) => count.holds += 1,
                Verdict::Violated(w) => (count.violated += 1, witnesses.push(w.input().to_vec())).0,
                Verdict::Undecided(_) => count.undecided += 1,
            }
            bar.inc(1);
            bar.suspend(|| job.show(&outcome, session))
        },
    )?;
    bar.finish_and_clear();
    if let Some(path) = &args.how.witnesses {
        write_witnesses(path, first(&pair), &witnesses)?;
    }
    job.conclude(&counts, start.elapsed().as_secs_f64(), session)
}

/// The first network, whose input the areas are measured in.
fn first(pair: &Pair) -> &Lowered {
    pair.nets()[0]
}

impl Job<'_> {
    fn decide(&self, i: usize) -> Result<Outcome> {
        let start = Instant::now();
        let area = self.areas.at(i, first(self.pair), self.question.lowered())?;
        let outputs = self.pair.execute(&area.start, &self.question.lowered().profile);
        let query = self.question.query(area.region.clone(), area.inside.clone(), vec![area.start.clone()]);
        // Many areas go to a thread each.
        let threads = if self.areas.len() == 1 { rayon::current_num_threads() } else { 1 };
        let (timeout, engine) = (self.args.how.timeout, self.engine.engine.clone());
        let options = Options { timeout, seed: self.args.how.seed, engine, threads, ..Options::default() };
        let verdict = self.verifier.decide(&query, &options).map_err(|e| self.args.networks.fail(&e))?;
        let seconds = start.elapsed().as_secs_f64();
        let bounds = self.args.how.bounds.then(|| self.bounds(&area, &options)).transpose()?;
        Ok(Outcome { area, outputs, verdict, seconds, bounds })
    }

    fn bounds(&self, area: &Area, options: &Options) -> Result<(Vec<(f64, f64)>, f64)> {
        let start = Instant::now();
        let Some(differences) = self.pair.differences_of_outputs() else {
            let problem = "--bounds: an output is an integer with a scale";
            return Err(fail(problem, "end both models with a DequantizeLinear"));
        };
        let found = self.verifier.enclose(&area.region, &differences, options);
        Ok((found.map_err(|e| self.args.networks.fail(&e))?, start.elapsed().as_secs_f64()))
    }
}
