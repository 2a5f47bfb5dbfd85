//! `--method refine`: the fewest bits that are proved to keep the network equivalent.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;
use quaver::model::lower::{Lowered, lower};
use quaver::quantize::refine::{Account, Effort, Event, Place, Refinement, Task};
use quaver::quantize::search::nsga2::Options as Nsga2;
use quaver::quantize::search::{
    Answer, Because, Below, Bits, Evolution, Exact, Greedy, Objective, Obstacle, Search, Space, obstacles,
};
use quaver::quantize::{LayerScheme, Quantized};
use quaver::verify::Options;
use serde_json::{Value, json};

use super::{Job, Scheme};
use crate::ball::seconds;
use crate::equivalence::{AreaArgs, Areas, RelationArgs, words};
use crate::format::{self, Table};
use crate::session::{Session, fail};
use crate::{load, progress};

/// What refinement needs to know.
#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    #[command(flatten, next_help_heading = "refine: what must be kept (one of)")]
    pub relation: RelationArgs,
    #[command(flatten, next_help_heading = "refine: where")]
    pub area: AreaArgs,
    #[command(flatten, next_help_heading = "refine: how")]
    pub how: How,
}

/// How bits are searched.
#[derive(clap::Args)]
#[group(skip)]
pub struct How {
    /// Which search proposes bits: every vector in order of cost, from a good vector down, or a genetic algorithm [default: exact up to 3 layers, else greedy]
    #[arg(long, value_enum)]
    pub search: Option<SearchArg>,
    /// What a bit of a layer costs
    #[arg(long, value_enum, default_value_t = Cost::Bits)]
    pub cost: Cost,
    /// Fewest and most bits of a layer, such as 4..8
    #[arg(long, value_name = "LO..HI", default_value = "2..32", value_parser = widths)]
    pub widths: RangeInclusive<u8>,
    /// Seconds for everything
    #[arg(long, value_name = "S", default_value = "60", value_parser = seconds, allow_hyphen_values = true)]
    pub timeout: Duration,
    /// Seconds for one ball or box with one vector of bits
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds, allow_hyphen_values = true)]
    pub verify_timeout: Duration,
    /// Classes of the rows of --data, for accuracy: FILE.npy, FILE.npz or FILE.npz:ARRAY
    #[arg(long, value_name = "Y.npy", requires = "data")]
    pub data_labels: Option<PathBuf>,
    #[arg(long, value_name = "P", value_parser = load::profile_name, help = load::PROFILE_HELP)]
    pub profile: Option<String>,
    /// Seed of the attack and of the genetic algorithm
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum SearchArg {
    Exact,
    Greedy,
    Nsga2,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Cost {
    /// Every bit counts once
    Bits,
    /// A bit counts once for each weight and bias of the layer
    Parameters,
    /// A bit counts once for each output of the layer
    Neurons,
    /// A bit counts once for each multiplication of the layer
    Operations,
    /// Every bit counts once, beside the share of --data that is classified wrongly: nsga2 only
    Accuracy,
}

/// A range of bits, such as 4..8.
pub fn widths(text: &str) -> Result<RangeInclusive<u8>, String> {
    let bad = || format!("`{text}` is not a range of bits: write for example 4..8");
    let (lo, hi) = text.split_once("..").ok_or_else(bad)?;
    let of = |t: &str| t.trim_start_matches('=').parse::<u8>().map_err(|_| bad());
    Ok(of(lo)?..=of(hi)?)
}

/// A search, with what it needs to say why it stopped.
enum Chosen {
    Exact(Exact),
    Greedy(Greedy),
    Evolution(Evolution),
}

impl Chosen {
    fn search(&mut self) -> &mut dyn Search {
        match self {
            Chosen::Exact(s) => s,
            Chosen::Greedy(s) => s,
            Chosen::Evolution(s) => s,
        }
    }

    fn floors(&self) -> &[u8] {
        match self {
            Chosen::Exact(s) => s.floors(),
            Chosen::Greedy(_) | Chosen::Evolution(_) => &[],
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Chosen::Exact(_) => "exact",
            Chosen::Greedy(_) => "greedy",
            Chosen::Evolution(_) => "nsga2",
        }
    }
}

/// What came out, to be shown.
pub struct Refined {
    bits: Bits,
    obstacles: Vec<Obstacle>,
    /// For each obstacle that is a counterexample, where it lies and what it is.
    witnesses: Vec<(usize, Vec<f64>)>,
    account: Account,
    search: &'static str,
    seconds: f64,
    accuracy: Option<(f64, f64)>,
}

/// Verifications of a greedy search at most: what ends it is time.
pub const MOST: usize = 1 << 20;

/// The network with the fewest bits that were proved to be enough.
pub fn quantize(job: &Job<'_>, session: &mut Session<'_>) -> Result<Quantized> {
    let start = Instant::now();
    let (args, how) = (job.args, &job.args.refine.how);
    let relation = args.refine.relation.relation()?;
    let model = job.quantizer.model();
    let profile = load::profile_for(model, how.profile.as_deref())?;
    let original = Arc::new(lower(model, &*profile)?);
    let areas = Areas::new(&args.refine.area, &original, session.files)?;
    let places = (0..areas.len()).map(|i| place(&areas, i, &original)).collect::<Result<Vec<_>>>()?;
    let rule = args.scheme.unwrap_or(Scheme::Ceg4n).into();
    let biases = args.bias.map_or(quaver::quantize::BiasRule::Same, |b| b.0);
    let scheme = LayerScheme { bits: 2, rule, per_channel: args.per_channel, biases };
    let data = job.labelled(&original, session)?;
    if !session.json {
        let count = format::count(places.len(), areas.name());
        session.say(format!("{}: {} on {count}", args.model.display(), words(&relation)))?;
    }
    let (space, mut chosen) = search(job)?;
    let quantizer = &job.quantizer;
    let task = Task { quantizer, scheme, profile: &*profile, original, relation, places, data };
    let threads = rayon::current_num_threads();
    let verification = Options { timeout: how.verify_timeout, seed: how.seed, threads, ..Options::default() };
    let mut refinement = Refinement::new(task, Effort { verification, timeout: how.timeout })?;
    if let Chosen::Exact(exact) = &mut chosen
        && let Some(model) = refinement.sensitivity(&space)?
    {
        exact.certify(model);
    }
    let bar = progress::spinner();
    let mut report = |event: Event<'_>| {
        let Event::Verified { bits, answer, took } = event;
        bar.set_message(format!("{bits:?} {} in {:.2} s", answer_word(answer), took.as_secs_f64()));
    };
    let account = refinement.run(&space, chosen.search(), &mut report)?;
    bar.finish_and_clear();
    let Some(bits) = chosen.search().best().map(<[u8]>::to_vec) else { return Err(hopeless(job, &account)) };
    let refined = refined(&mut refinement, &space, &mut chosen, bits, account, start);
    refined.show(job, session)?;
    Ok(refinement.task().quantized(&refined.bits)?)
}

/// Why there is no result.
fn hopeless(job: &Job<'_>, account: &Account) -> anyhow::Error {
    let most = job.args.refine.how.widths.end();
    match account.changing {
        Some(place) if account.is_hopeless => fail(
            format!(
                "no bits up to {most} are proved to be enough: the class that the model gives changes inside place {place}"
            ),
            "a network with other weights changes it at other inputs, if only a little: give a smaller radius, or --margin M to ask for the same \
             class only where the model's best output leads by more than M",
        ),
        _ => fail(
            format!("no bits up to {most} were proved to be enough ({} vectors verified)", account.verified),
            "give more time with --timeout and --verify-timeout, or more bits with --widths",
        ),
    }
}

pub fn answer_word(answer: Answer) -> &'static str {
    match answer {
        Answer::Accepted => "accepted",
        Answer::Refuted(_) => "refuted",
        Answer::Undecided => "undecided",
    }
}

fn place(areas: &Areas<'_>, i: usize, original: &Lowered) -> Result<Place> {
    let area = areas.at(i, original, original)?;
    Ok(Place { region: area.region, inside: area.inside, center: Some(area.start) })
}

/// What is minimised.
pub fn objective(job: &Job<'_>) -> Objective {
    let (how, layers) = (&job.args.refine.how, job.quantizer.layers());
    let weights = |of: &dyn Fn(&quaver::quantize::Layer) -> usize| layers.iter().map(|l| of(l) as u64).collect();
    match how.cost {
        Cost::Bits => Objective::TotalBits,
        Cost::Parameters => Objective::StoredBits { parameters: weights(&|l| l.parameters()) },
        Cost::Accuracy => Objective::BitsAndAccuracy,
        Cost::Neurons => Objective::NeuronBits { neurons: weights(&|l| l.neurons) },
        Cost::Operations => {
            let model = job.quantizer.model();
            Objective::BitOperations { multiplications: weights(&|l| l.multiplications(model)) }
        }
    }
}

/// The space of bits, and the search that was asked for.
fn search(job: &Job<'_>) -> Result<(Space, Chosen)> {
    let (how, layers) = (&job.args.refine.how, job.quantizer.layers());
    let objective = objective(job);
    if how.cost == Cost::Accuracy && (how.search != Some(SearchArg::Nsga2) || how.data_labels.is_none()) {
        let problem = "--cost accuracy is an aim of the genetic search, measured on data";
        return Err(fail(problem, "give --search nsga2, --data X.npy and --data-labels Y.npy, or another --cost"));
    }
    let space = Space::uniform(objective.weights(layers.len()), how.widths.clone())
        .map_err(|e| fail(e.to_string(), "give --widths within 2..32"))?;
    let default = if layers.len() <= 3 { SearchArg::Exact } else { SearchArg::Greedy };
    let chosen = match how.search.unwrap_or(default) {
        SearchArg::Exact => Chosen::Exact(Exact::new(space.clone())),
        SearchArg::Greedy => Chosen::Greedy(Greedy::new(space.clone(), MOST)),
        SearchArg::Nsga2 => {
            let options = Nsga2 { seed: how.seed, ..Nsga2::small(layers.len()) };
            Chosen::Evolution(Evolution::new(space.clone(), objective, options))
        }
    };
    Ok((space, chosen))
}

fn refined(
    refinement: &mut Refinement<'_>,
    space: &Space,
    chosen: &mut Chosen,
    bits: Bits,
    account: Account,
    start: Instant,
) -> Refined {
    let floors = chosen.floors().to_vec();
    let name = chosen.name();
    let (obstacles, accuracy) = refinement.ask_about(|oracle, has_data| {
        let found = obstacles(chosen.search(), &bits, space, &floors, oracle);
        let most = space.most().to_vec();
        (found, has_data.then(|| (oracle.accuracy(&most), oracle.accuracy(&bits))))
    });
    let known = refinement.known().inputs();
    let witness = |o: &Obstacle| match o.below {
        Below::Refuted(Because::Counterexample(n)) => (known[n].place, known[n].input.clone()),
        _ => (0, vec![]),
    };
    let witnesses = obstacles.iter().map(witness).collect();
    let seconds = start.elapsed().as_secs_f64();
    Refined { bits, obstacles, witnesses, account, search: name, seconds, accuracy }
}

impl Refined {
    fn reason(&self, k: usize) -> String {
        let fewer = self.obstacles[k].fewer;
        match self.obstacles[k].below {
            Below::Refuted(Because::Counterexample(_)) => {
                format!("with {fewer} an input of place {} tells them apart", self.witnesses[k].0)
            }
            Below::Refuted(Because::Floor) => format!("{fewer} are too few whatever the other layers have"),
            Below::Undecided => format!("with {fewer} nothing was proved in time"),
            Below::NotTried => format!("{fewer} was not tried"),
            Below::Accepted => format!("{fewer} would do, and cost as much"),
        }
    }

    fn show(&self, job: &Job<'_>, session: &mut Session<'_>) -> Result<()> {
        if session.json {
            return session.line(&self.json(job));
        }
        let mut table = Table::new(&["layer", ">bits", "why not fewer"]);
        for (l, (layer, bits)) in job.quantizer.layers().iter().zip(&self.bits).enumerate() {
            let why = self.obstacles.iter().position(|o| o.layer == l);
            let why = why.map_or("the fewest allowed".to_string(), |k| self.reason(k));
            table.row([layer.name.clone(), bits.to_string(), why]);
        }
        table.write(session.out)?;
        let Account { verified, refuted, undecided, is_complete, .. } = self.account;
        let end = if is_complete { "to its end" } else { "until time was over" };
        session.say(format!(
            "proved equivalent; {} search {end}: {verified} vectors verified, {refuted} refuted, {undecided} undecided, {:.2} s",
            self.search, self.seconds
        ))?;
        if let Some((before, after)) = self.accuracy {
            session.say(format!("accuracy {:.2} % at {} bits, {:.2} % now", 100.0 * before, 32, 100.0 * after))?;
        }
        Ok(())
    }

    fn json(&self, job: &Job<'_>) -> Value {
        let obstacle = |(k, o): (usize, &Obstacle)| {
            let input = Some(&self.witnesses[k].1).filter(|w| !w.is_empty());
            json!({ "layer": o.layer, "bits": o.bits, "below": o.below, "why": self.reason(k), "input": input })
        };
        json!({
            "equivalent": true,
            "bits": self.bits,
            "layers": job.quantizer.layers().iter().map(|l| &l.name).collect::<Vec<_>>(),
            "obstacles": self.obstacles.iter().enumerate().map(obstacle).collect::<Vec<_>>(),
            "search": self.search,
            "complete": self.account.is_complete,
            "verified": self.account.verified,
            "refuted": self.account.refuted,
            "undecided": self.account.undecided,
            "accuracy_before": self.accuracy.map(|a| a.0),
            "accuracy": self.accuracy.map(|a| a.1),
            "seconds": self.seconds,
        })
    }
}
