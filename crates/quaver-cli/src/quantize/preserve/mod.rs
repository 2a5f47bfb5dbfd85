//! `--preserve`: the fewest bits with which a quantized network keeps what the original has.

mod backdoor;
mod certificates;
mod folder;
mod preimage;
mod report;
mod strategy;
mod wanted;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Result;
use quaver::model::lower::{Lowered, lower};
use quaver::model::profile::Profile;
use quaver::num::Ratio;
use quaver::quantize::preserve::{
    Account, Candidate, Effort, Event, Floor, Networks, Preservation, Rounding, Task, of_original,
};
use quaver::quantize::search::{Answer, Exact, Greedy, Search, Space};
use quaver::quantize::{BiasRule, LayerScheme, NetworkError, WeightRule, learned};
use quaver::verify::{Options, Verdict};

use super::activations::Activations;
use super::refine::{Cost, MOST, SearchArg, answer_word, objective};
use super::{BitsArg, Job, Method, Scheme};
use crate::certify::Checking;
use crate::session::{Session, fail};
use crate::{load, progress};
use folder::Folder;
use strategy::Strategy;
use wanted::Property;

/// What is kept, and how.
#[derive(clap::Args)]
#[group(skip)]
#[command(next_help_heading = "preserve: what a quantized network keeps (direct and preimage)")]
pub struct Args {
    /// What is kept: `robustness` of the balls that --inputs and --radius say; `backdoor`: that no trigger at a place leads to a class, for as many of
    /// --inputs as a test asks for; or a query (FILE.vnnlib) that no input satisfies; several may be given
    #[arg(long = "preserve", value_name = "WHAT")]
    pub what: Vec<String>,
    /// Classes of the rows of --inputs [default: those that the model gives them]
    #[arg(long, value_name = "Y.npy", requires = "what")]
    labels: Option<PathBuf>,
    /// Share of the rows of --data that the quantized network may get wrong on top of those that the model gets wrong, such as 0.005
    #[arg(long, value_name = "SHARE", requires = "data_labels")]
    accuracy_drop: Option<Ratio>,
    /// What a bit of each layer costs, such as 1,1,2, instead of --cost
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    costs: Vec<u64>,
    /// How weights are rounded: to the nearest level, or where this saves bits up or down as data says (--data, else --inputs)
    #[arg(long, value_enum, default_value_t = RoundingArg::Nearest)]
    rounding: RoundingArg,
    /// Forget what an earlier run found for another question in the folder
    #[arg(long)]
    fresh: bool,
    /// Leave certificates out
    #[arg(long, conflicts_with = "certified")]
    no_certificates: bool,
    #[command(flatten)]
    checking: Checking,
    #[command(flatten)]
    backdoor: backdoor::Args,
    #[command(flatten)]
    preimage: preimage::Args,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum RoundingArg {
    Nearest,
    Learned,
}

/// Runs the method.
pub fn run(job: &Job<'_>, session: &mut Session<'_>) -> Result<()> {
    let start = Instant::now();
    if job.args.preserve.what.is_empty() {
        return Err(fail(
            "what is to be kept is not said",
            "give --preserve robustness or backdoor, or --preserve QUERY.vnnlib",
        ));
    }
    let checker = job.args.preserve.checking.checker()?;
    let setting = Setting::new(job)?;
    let model = job.quantizer.model();
    let original = lower(model, &*load::profile_for(model, Some(setting.original_arithmetic()))?)?;
    // An interrupt ends the search with what it has.
    let stop = crate::verify::stop_on_interrupt()?;
    let options = options(job, &stop);
    let method = (job.args.method() == Method::Preimage).then(|| preimage::Method::new(job, &setting)).transpose()?;
    let (all, failed) = wanted::read(job, &Arc::new(original.clone()), (&options, method.as_ref()), session)?;
    let (properties, mut dropped) = kept(&original, all, &options)?;
    dropped.extend(failed);
    if !session.json {
        let what = if properties.len() == 1 { "property" } else { "properties" };
        session.say(format!("{}: {} {what} to keep", job.args.model.display(), properties.len()))?;
        dropped.iter().try_for_each(|d| session.say(&d.why))?;
    }
    folder::left_out(&job.args.output, &dropped)?;
    if properties.is_empty() {
        return Err(fail(
            format!("nothing to keep: {}", dropped.first().map_or("no property is given", |d| &d.why)),
            "give inputs that the model classifies as --labels say, a smaller --radius, or more --verify-timeout",
        ));
    }
    let floor = floor(job, &original, session)?;
    let networks = setting.networks(job, calibration(job, session, &original)?);
    let folder = Folder::open(job, (&networks, &setting.arithmetic), &properties, &floor)?;
    let task = Task { networks, wanted: properties.iter().map(|p| p.wanted.clone()).collect(), floor };
    let effort = Effort { verification: options.clone(), timeout: job.args.refine.how.timeout, learned: 200 };
    let (known, record) = folder.facts()?;
    let resumed = known.len();
    let mut preservation = Preservation::new(task, effort, known, record);
    let mut strategy = match method {
        None => by_search(job, &mut preservation)?,
        Some(method) => by_preimages(job, &mut preservation, method.choose(job, &properties)?)?,
    };
    (strategy.resumed, strategy.dropped) = (resumed, dropped.into_iter().map(|d| d.why).collect());
    let made = preservation.made(&strategy.best)?;
    folder.write_model(&job.file_model(&made.quantized, setting.activations.as_ref())?)?;
    if !job.args.preserve.no_certificates {
        strategy.certificates = certificates::write(&folder, &properties, &setting, &options, checker)?;
    }
    strategy.seconds = start.elapsed().as_secs_f64();
    folder.write("strategy.json", &serde_json::to_vec_pretty(&strategy.json())?)?;
    report::print(&strategy, &folder, session)
}

/// The strategy of `--method direct`.
fn by_search(job: &Job<'_>, preservation: &mut Preservation<'_>) -> Result<Strategy> {
    let (space, mut search) = search(job)?;
    match choose(job, preservation, &space, &mut *search)? {
        Some((best, account)) => Ok(Strategy::new(job, preservation, &space, &*search, best, account)?),
        None => Err(hopeless(job, preservation, &space)),
    }
}

/// The strategy of `--method preimage`.
fn by_preimages(job: &Job<'_>, preservation: &mut Preservation<'_>, found: preimage::Found) -> Result<Strategy> {
    let most = found.bits.iter().copied().max().unwrap_or(2).max(16);
    let space = Space::uniform(weights(job)?, 2..=most)?;
    let mut search = Exact::new(space.clone());
    search.tell(&found.bits, Answer::Accepted);
    let best = Candidate { bits: found.bits, rounding: Rounding::Nearest };
    let account = Account { is_complete: true, ..Account::default() };
    let mut strategy = Strategy::new(job, preservation, &space, &search, best, account)?;
    strategy.layers.iter_mut().zip(found.why).for_each(|(layer, why)| (layer.why, layer.below) = (why, None));
    strategy.preimages = Some(found.seconds);
    Ok(strategy)
}

/// The scheme and the arithmetic.
struct Setting {
    scheme: LayerScheme,
    activations: Option<Activations>,
    profile: Box<dyn Profile>,
    arithmetic: String,
}

impl Setting {
    fn new(job: &Job<'_>) -> Result<Setting> {
        let args = job.args;
        let activations = Activations::new(job)?;
        let default = if activations.is_some() { Scheme::Symmetric } else { Scheme::PowerOfTwo };
        let rule = WeightRule::from(args.scheme.unwrap_or(default));
        let biases = match args.bias {
            Some(bias) => bias.0,
            None if activations.is_some() && !rule.is_joint() => BiasRule::Accumulator,
            None => BiasRule::Same,
        };
        let scheme = LayerScheme { bits: 2, rule, per_channel: args.per_channel, biases };
        let default = if activations.is_some() { "ort-fused" } else { wanted::arithmetic(&args.preserve.what)? };
        let name = args.refine.how.profile.as_deref().unwrap_or(default);
        let profile = load::profile_for(job.quantizer.model(), Some(name))?;
        Ok(Setting { scheme, activations, profile, arithmetic: name.into() })
    }

    /// Weights and biases in fixed point, as Quadapter has them.
    fn is_fixed_point(&self) -> bool {
        self.scheme.rule == WeightRule::PowerOfTwo && self.scheme.biases == BiasRule::Same
    }

    /// The arithmetic in which the original must have a property: exact where the quantized network's is, else float32.
    fn original_arithmetic(&self) -> &'static str {
        if self.arithmetic == "real" { "real" } else { "float32" }
    }

    fn networks<'t>(&'t self, job: &'t Job<'_>, calibration: Vec<f64>) -> Networks<'t> {
        let activations = self.activations.as_ref().map(|a| (a.scheme, a.ranges.clone()));
        let learning = learned::Options { spread: job.args.spread.approx(), ..learned::Options::default() };
        let (quantizer, scheme, profile) = (&job.quantizer, self.scheme, &*self.profile);
        Networks { quantizer, scheme, activations, profile, calibration, learning }
    }
}

fn options(job: &Job<'_>, stop: &Arc<AtomicBool>) -> Options {
    let how = &job.args.refine.how;
    let threads = rayon::current_num_threads();
    Options { timeout: how.verify_timeout, seed: how.seed, threads, stop: Some(stop.clone()), ..Options::default() }
}

/// A property that is left out.
pub struct Dropped {
    why: String,
    /// An input that refutes it.
    input: Option<Vec<f64>>,
}

/// The properties that the original has, and why the others are left out.
fn kept(original: &Lowered, all: Vec<Property>, options: &Options) -> Result<(Vec<Property>, Vec<Dropped>)> {
    let wanted: Vec<_> = all.iter().map(|p| p.wanted.clone()).collect();
    let verdicts = of_original(original, &wanted, &Options { threads: 1, ..options.clone() })?;
    let (mut kept, mut dropped) = (vec![], vec![]);
    for (property, verdict) in all.into_iter().zip(verdicts) {
        let name = &property.wanted.name;
        match verdict {
            Verdict::Holds(_) => kept.push(property),
            Verdict::Violated(w) => {
                let why = format!("{name}: left out, for the model itself does not have it (an input refutes it)");
                dropped.push(Dropped { why, input: Some(w.input().to_vec()) });
            }
            Verdict::Undecided(u) => {
                let why = format!("{name}: left out, for it is not proved of the model itself: {}", u.why);
                dropped.push(Dropped { why, input: None });
            }
        }
    }
    Ok((kept, dropped))
}

/// How accurate the network must be.
fn floor(job: &Job<'_>, original: &Lowered, session: &Session<'_>) -> Result<Option<Floor>> {
    let drop = match &job.args.preserve.accuracy_drop {
        Some(drop) if (0.0..=1.0).contains(&drop.approx()) => drop.approx(),
        Some(drop) => return Err(fail(format!("--accuracy-drop {}", drop.approx()), "give a share from 0 to 1")),
        // Measured all the same.
        None => 1.0,
    };
    Ok(job.labelled(original, session)?.map(|data| Floor::new(data, original, drop)))
}

/// What rounding learns from.
fn calibration(job: &Job<'_>, session: &Session<'_>, original: &Lowered) -> Result<Vec<f64>> {
    const ROWS: usize = 1000;
    let row = original.net.node(original.net.inputs()[0]).len();
    match (&job.data, &job.args.refine.area.inputs) {
        _ if job.args.preserve.rounding == RoundingArg::Nearest => Ok(vec![]),
        (Some(data), _) => Ok(data[..data.len().min(ROWS * row)].to_vec()),
        (None, Some(path)) => {
            let rows = super::rows(path, job.quantizer.model(), session)?;
            Ok(rows[..rows.len().min(ROWS * row)].to_vec())
        }
        (None, None) => {
            Err(fail("there is nothing to learn rounding from", "give --data X.npy, or --rounding nearest"))
        }
    }
}

/// What a bit of each layer costs.
fn weights(job: &Job<'_>) -> Result<Vec<u64>> {
    let (layers, given) = (job.quantizer.layers().len(), &job.args.preserve.costs);
    match given.len() {
        0 => Ok(objective(job).weights(layers)),
        n if n == layers => Ok(given.clone()),
        n => Err(fail(format!("--costs has {n} numbers, and the model {layers} layers"), "give one for each layer")),
    }
}

/// The space of bits, and the search that was asked for.
fn search(job: &Job<'_>) -> Result<(Space, Box<dyn Search>)> {
    let how = &job.args.refine.how;
    if how.cost == Cost::Accuracy || how.search == Some(SearchArg::Nsga2) {
        return Err(fail(
            "--search nsga2 and --cost accuracy are for --method refine",
            "use exact or greedy, and --accuracy-drop",
        ));
    }
    let (layers, weights) = (job.quantizer.layers().len(), weights(job)?);
    let space = match job.args.bits.clone().unwrap_or(BitsArg::Range(2, 16)) {
        BitsArg::Range(lo, hi) => Space::uniform(weights, lo..=hi),
        BitsArg::List(widths) => Space::among(weights, &widths),
    };
    let space =
        space.map_err(|e| fail(format!("--bits: {e}"), "give a range such as 2..16, or widths such as 4,8,16"))?;
    if space.least().iter().chain(space.most()).any(|b| !(2..=32).contains(b)) {
        return Err(fail("--bits: a weight has 2 to 32 bits", "give a range such as 2..16, or widths such as 4,8,16"));
    }
    let default = if layers <= 4 { SearchArg::Exact } else { SearchArg::Greedy };
    let search: Box<dyn Search> = match how.search.unwrap_or(default) {
        SearchArg::Greedy => Box::new(Greedy::new(space.clone(), MOST)),
        SearchArg::Exact | SearchArg::Nsga2 => Box::new(Exact::new(space.clone())),
    };
    Ok((space, search))
}

/// The best network that is found in time.
fn choose(
    job: &Job<'_>,
    preservation: &mut Preservation<'_>,
    space: &Space,
    search: &mut dyn Search,
) -> Result<Option<(Candidate, Account)>, NetworkError> {
    let bar = progress::spinner();
    let mut report = |event: Event<'_>| {
        let Event { candidate, answer, took } = event;
        bar.set_message(format!("{:?} {} in {:.2} s", candidate.bits, answer_word(answer), took.as_secs_f64()));
    };
    let mut account = preservation.run(space, search, &mut report)?;
    let Some(bits) = search.best().map(<[u8]>::to_vec) else { return Ok(None) };
    let mut best = Candidate { bits, rounding: Rounding::Nearest };
    if job.args.preserve.rounding == RoundingArg::Learned
        && let Some(bits) = preservation.run_learned(space, &best.bits, &mut account, &mut report)?
    {
        best = Candidate { bits, rounding: Rounding::Learned };
    }
    bar.finish_and_clear();
    Ok(Some((best, account)))
}

/// Why there is no result: what stands against the most bits.
fn hopeless(job: &Job<'_>, preservation: &mut Preservation<'_>, space: &Space) -> anyhow::Error {
    let why = preservation.ask_about(Rounding::Nearest, |oracle| oracle.refuted_by(space.most()));
    let what = match why {
        Some(number) => strategy::reason_text(preservation, number),
        None => "nothing refutes it, and it is not proved in time".to_string(),
    };
    fail(
        format!("no bits are proved to be enough; of the network with the most bits: {what}"),
        format!(
            "give more time with --timeout and --verify-timeout, more bits with --bits{}",
            if job.args.preserve.accuracy_drop.is_some() { ", or a larger --accuracy-drop" } else { "" }
        ),
    )
}
