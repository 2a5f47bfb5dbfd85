//! Two aircraft and a collision avoidance system of five neural networks: the guard flies exactly as the float networks do, with few bits.
//!
//! `acas_closed_loop --networks DIR | --originals DIR [--encounters N] [--seconds N] [--seed N] [--cells N] [--boxes N] [--per-channel]
//! [--svg FILE] [--draw N]`; docs/acas-closed-loop.md says what the table means.
//!
//! # Source
//! Kabaha and Drachsler Cohen, Quantization with Guaranteed Floating-Point Neural Network Classifications (OOPSLA 2025), case study.

mod draw;
mod dynamics;
mod networks;
mod systems;

use std::path::{Path, PathBuf};
use std::time::Instant;

use draw::{Line, svg};
use dynamics::{Craft, Encounter, Random, Turn, turns};
use networks::{BITS, Classifier, Effort, Fallible, distilled, float, originals};
use quaver::guard::kernels::float::FloatNet;
use quaver::guard::run::FLOAT_BITS;
use quaver::model::ir::Model;
use rayon::prelude::*;
use systems::{Flight, Pilot, System, Tally, advised, fly};

/// Encounters that cells are made from; they have another seed.
const FOR_CELLS: u64 = 1000;

/// Closer than this is a near miss, in feet.
const NEAR: f64 = 500.0;

struct Arguments {
    networks: Option<PathBuf>,
    originals: Option<PathBuf>,
    encounters: u64,
    seconds: usize,
    seed: u64,
    effort: Effort,
    svg: Option<PathBuf>,
    draw: Option<usize>,
}

impl Arguments {
    fn parse() -> Fallible<Arguments> {
        let effort = Effort { cells: 8, boxes: 1, per_channel: false };
        let (encounters, seconds, seed) = (10_000, 300, 0);
        let mut a =
            Arguments { networks: None, originals: None, encounters, seconds, seed, effort, svg: None, draw: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--networks" => a.networks = Some(value()?.into()),
                "--originals" => a.originals = Some(value()?.into()),
                "--encounters" => a.encounters = value()?.parse()?,
                "--seconds" => a.seconds = value()?.parse()?,
                "--seed" => a.seed = value()?.parse()?,
                "--cells" => a.effort.cells = value()?.parse()?,
                "--boxes" => a.effort.boxes = value()?.parse::<usize>()?.max(1),
                "--per-channel" => a.effort.per_channel = true,
                "--svg" => a.svg = Some(value()?.into()),
                "--draw" => a.draw = Some(value()?.parse()?),
                _ => return Err(format!("`{word}` is not an option").into()),
            }
        }
        Ok(a)
    }

    fn models(&self) -> Fallible<Vec<Model>> {
        match (&self.networks, &self.originals) {
            (Some(folder), None) => distilled(folder),
            (None, Some(folder)) => originals(folder),
            _ => Err("give --networks DIR or --originals DIR".into()),
        }
    }
}

/// The number-th encounter of a seed: the first that is drawn whose first advisory by the float network is clear of conflict. Also how many were drawn.
fn start(first: &FloatNet, seed: u64, number: u64) -> (Encounter, u64) {
    let mut random = Random::new(seed, number);
    let mut drawn = 0;
    loop {
        drawn += 1;
        let encounter = random.encounter();
        if encounter.input().is_none_or(|x| advised(first, &x) == 0) {
            return (encounter, drawn);
        }
    }
}

/// The inputs of each classifier that float networks meet.
fn met(models: &[Model], args: &Arguments) -> Fallible<Vec<Vec<[f32; 5]>>> {
    let floats = models.iter().map(float).collect::<Fallible<Vec<_>>>()?;
    let mut met = vec![vec![]; 5];
    for number in 0..FOR_CELLS {
        let (encounter, _) = start(&floats[0], args.seed.wrapping_add(1), number);
        fly(&encounter, args.seconds, &turns(), |previous, x| {
            met[previous].push(*x);
            advised(&floats[previous], x)
        });
    }
    Ok(met)
}

struct Simulation<'a> {
    starts: Vec<Encounter>,
    classifiers: &'a [Classifier],
    seconds: usize,
    turns: [Turn; 5],
}

/// All flights of a system, beside the float networks' ones.
struct Outcome {
    tally: Tally,
    asked: u64,
    /// Sums of distances in each flight.
    apart: Vec<f64>,
    /// Flights with a state that is not the same, bit for bit.
    different: usize,
    near: usize,
    seconds: f64,
}

impl Simulation<'_> {
    fn flight(&self, system: System, start: &Encounter) -> (Flight, Tally) {
        let mut pilot = Pilot::new(system, self.classifiers);
        let flight = fly(start, self.seconds, &self.turns, |previous, x| pilot.advise(previous, x));
        (flight, pilot.tally)
    }

    fn flights(&self, system: System) -> (Vec<(Flight, Tally)>, f64) {
        let clock = Instant::now();
        let flights = self.starts.par_iter().map(|start| self.flight(system, start)).collect();
        (flights, clock.elapsed().as_secs_f64())
    }

    fn outcome(&self, system: System, float: &[(Flight, Tally)]) -> Outcome {
        let (flights, seconds) = self.flights(system);
        let both = || flights.iter().zip(float).map(|(a, b)| (&a.0.path, &b.0.path));
        let differ = |(a, b): (&Vec<Craft>, &Vec<Craft>)| a.iter().zip(b).any(|(a, b)| a.bits() != b.bits());
        Outcome {
            tally: flights.iter().fold(Tally::default(), |all, f| all.plus(&f.1)),
            asked: flights.iter().map(|f| f.0.asked).sum(),
            apart: both().map(|(a, b)| a.iter().zip(b).map(|(a, b)| a.distance(b)).sum()).collect(),
            different: both().filter(|&b| differ(b)).count(),
            near: flights.iter().filter(|f| f.0.closest < NEAR).count(),
            seconds,
        }
    }
}

/// The root of the mean of the squared bits of all networks that are executed for an answer, and the share of answers by each network.
fn bits_and_shares(tally: &Tally, asked: u64) -> (f64, Vec<f64>) {
    let bits: Vec<u8> = BITS.into_iter().chain([FLOAT_BITS]).collect();
    let cost = |from: usize, last: usize| bits[from..=last].iter().map(|&b| f64::from(b).powi(2)).sum::<f64>();
    let all = (0..5).flat_map(|from| (from..5).map(move |last| (from, last)));
    let total: f64 = all.map(|(from, last)| cost(from, last) * tally.answers[from][last] as f64).sum();
    let share = |last: usize| (0..5).map(|from| tally.answers[from][last]).sum::<u64>() as f64 / asked as f64;
    ((total / asked as f64).sqrt(), (0..5).map(|last| 100.0 * share(last)).collect())
}

fn report(system: System, o: &Outcome) {
    let n = o.apart.len() as f64;
    let mean = o.apart.iter().sum::<f64>() / n;
    println!(
        "{:<28} {:>7} {:>12.0} {:>6} {:>8.1} {:>11.0}",
        system.name(),
        o.different,
        mean,
        o.near,
        o.seconds,
        o.asked as f64 / o.seconds
    );
    if matches!(system, System::Anew(_) | System::Continuous(_)) {
        let (bits, shares) = bits_and_shares(&o.tally, o.asked);
        let shown: Vec<String> = shares.iter().map(|s| format!("{s:.2}")).collect();
        println!(
            "    effective bits {bits:.2}; answered by INT4, 8, 12, 16, float32: {} %; outside the box: {}",
            shown.join(", "),
            o.tally.outside
        );
    }
}

/// The encounter whose path by INT8 is as far from the float networks' one as that of half of those that differ.
fn typical(apart: &[f64]) -> usize {
    let mut order: Vec<usize> = (0..apart.len()).filter(|&i| apart[i] > 0.0).collect();
    order.sort_by(|&a, &b| apart[a].total_cmp(&apart[b]));
    order.get(order.len() / 2).copied().unwrap_or(0)
}

fn picture(simulation: &Simulation<'_>, number: usize, path: &Path) -> Fallible<()> {
    let start = &simulation.starts[number];
    let fly = |system| simulation.flight(system, start).0.path;
    let straight = |c: &Craft| Some(c.after(simulation.turns[0]));
    let intruder = std::iter::successors(Some(start.intruder), straight).skip(1).take(simulation.seconds).collect();
    let line = |system: System, style| Line { name: system.name(), style, path: fly(system) };
    let lines = [
        Line { name: "intruder".into(), style: "stroke=\"#999999\" stroke-width=\"2\"", path: intruder },
        line(System::Plain(0), "stroke=\"#d55e00\" stroke-width=\"2\""),
        line(System::Plain(1), "stroke=\"#e69f00\" stroke-width=\"2\""),
        line(System::Float, "stroke=\"#56b4e9\" stroke-width=\"6\""),
        line(System::Continuous(1), "stroke=\"black\" stroke-width=\"1.5\" stroke-dasharray=\"6 4\""),
    ];
    let title = format!("Encounter {number}, {} s", simulation.seconds);
    std::fs::write(path, svg(&lines, &title))?;
    println!("{}: encounter {number}", path.display());
    Ok(())
}

/// Flies with each system beside the float networks' flights; gives a typical encounter where INT8 differs.
fn compare(simulation: &Simulation<'_>, float: &[(Flight, Tally)]) -> Fallible<usize> {
    let mut number = 0;
    let guards = [System::Continuous(1), System::Continuous(0), System::Anew(1), System::Anew(0)];
    for system in guards.into_iter().chain((0..BITS.len()).map(System::Plain)) {
        let outcome = simulation.outcome(system, float);
        report(system, &outcome);
        if system == System::Plain(1) {
            number = typical(&outcome.apart);
        }
        if matches!(system, System::Anew(_) | System::Continuous(_)) && outcome.different > 0 {
            return Err("a guarded flight differs from the float networks' one".into());
        }
    }
    Ok(number)
}

fn main() -> Fallible<()> {
    let args = Arguments::parse()?;
    let models = args.models()?;
    let clock = Instant::now();
    let met = met(&models, &args)?;
    let made = models.par_iter().zip(&met).map(|(model, met)| Classifier::new(model, met, args.effort));
    let classifiers = made.collect::<Fallible<Vec<_>>>()?;
    println!(
        "thresholds: {:.1} s, {} cells, {} boxes",
        clock.elapsed().as_secs_f64(),
        args.effort.cells,
        args.effort.boxes
    );
    let first = &classifiers[0].float;
    let (starts, drawn): (Vec<_>, Vec<_>) = (0..args.encounters).map(|k| start(first, args.seed, k)).unzip();
    let simulation = Simulation { starts, classifiers: &classifiers, seconds: args.seconds, turns: turns() };
    let (float, seconds) = simulation.flights(System::Float);
    let asked: u64 = float.iter().map(|f| f.0.asked).sum();
    let near = float.iter().filter(|f| f.0.closest < NEAR).count();
    println!(
        "{} encounters (of {} drawn) of {} s; {asked} of {} steps ask a network",
        args.encounters,
        drawn.iter().sum::<u64>(),
        args.seconds,
        args.encounters * args.seconds as u64
    );
    let head = ["system", "differ", "mean ft", "near", "seconds", "inferences/s"];
    println!("{:<28} {:>7} {:>12} {:>6} {:>8} {:>11}", head[0], head[1], head[2], head[3], head[4], head[5]);
    println!("{:<28} {:>7} {:>12} {near:>6} {seconds:>8.1} {:>11.0}", "float32", 0, 0, asked as f64 / seconds);
    let typical = compare(&simulation, &float)?;
    match (&args.svg, args.draw.unwrap_or(typical)) {
        (Some(path), number) => picture(&simulation, number, path),
        _ => Ok(()),
    }
}
