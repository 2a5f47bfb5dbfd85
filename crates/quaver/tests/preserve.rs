//! Bits that keep properties, against trying every vector of bits.

#[path = "common/two_layers.rs"]
mod two_layers;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quaver::model::ir::Model;
use quaver::model::lower::lower;
use quaver::model::profile::{Profile, Real};
use quaver::net::execute;
use quaver::property::{Region, Robustness, Ties};
use quaver::quantize::preserve::{
    Candidate, Effort, Fact, Floor, Networks, Preservation, Record, Rounding, Task, Wanted, of_original,
};
use quaver::quantize::search::{Exact, Greedy, Search, Space};
use quaver::quantize::{Data, LayerScheme, Quantizer, WeightRule, learned};
use quaver::verify::{Options, Verdict, Verifier};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use two_layers::two_layers;

const INPUTS: usize = 3;
const CLASSES: usize = 3;

fn options() -> Options {
    Options { timeout: Duration::from_secs(20), threads: 1, ..Options::default() }
}

fn effort() -> Effort {
    Effort { verification: options(), timeout: Duration::from_secs(120), learned: 50 }
}

fn scheme(bits: u8) -> LayerScheme {
    LayerScheme::new(bits, WeightRule::PowerOfTwo)
}

fn first_largest(y: &[f64]) -> usize {
    (0..y.len()).fold(0, |best, i| if y[i] > y[best] { i } else { best })
}

/// A network, claims that it satisfies, and data that it classifies.
struct Case {
    model: Model,
    quantizer: Quantizer,
    wanted: Vec<Wanted>,
    data: Data,
}

impl Case {
    fn new(seed: u64) -> Case {
        let mut rng = StdRng::seed_from_u64(seed);
        let model = two_layers(&mut rng, INPUTS, CLASSES);
        let original = lower(&model, &Real).unwrap();
        let mut point = || (0..INPUTS).map(|_| f64::from(rng.random_range(-1.0_f32..1.0))).collect::<Vec<f64>>();
        let class = |x: &[f64]| first_largest(&execute(&original.net, &[x.to_vec()], 1)[0].center);
        let wanted = |k: usize, center: Vec<f64>| {
            let corner = |side: f64| center.iter().map(|c| c + side * 0.03125).collect();
            let region = Region { lo: corner(-1.0), hi: corner(1.0) };
            let claim = Robustness { region, label: class(&center), center: Some(center), ties: Ties::Strict };
            Wanted { name: k.to_string(), query: claim.query(CLASSES) }
        };
        let all: Vec<Wanted> = (0..6).map(|k| wanted(k, point())).collect();
        let holds = |v: &Verdict| matches!(v, Verdict::Holds(_));
        let verdicts = of_original(&original, &all, &options()).unwrap();
        let wanted = all.into_iter().zip(&verdicts).filter(|(_, v)| holds(v)).map(|(w, _)| w).collect();
        let rows: Vec<Vec<f64>> = (0..40).map(|_| point()).collect();
        let labels = rows.iter().map(|x| class(x)).collect();
        let data = Data { rows: rows.concat(), labels };
        Case { quantizer: Quantizer::new(&model).unwrap(), model, wanted, data }
    }

    fn networks<'t>(&'t self, profile: &'t dyn Profile) -> Networks<'t> {
        Networks {
            quantizer: &self.quantizer,
            scheme: scheme(2),
            activations: None,
            profile,
            calibration: self.data.rows.clone(),
            learning: learned::Options::default(),
        }
    }

    fn task(&self, drop: Option<f64>) -> Task<'_> {
        let original = lower(&self.model, &Real).unwrap();
        let floor = drop.map(|drop| Floor::new(self.data.clone(), &original, drop));
        Task { networks: self.networks(&Real), wanted: self.wanted.clone(), floor }
    }

    /// Whether a network has all properties and gets at most so many rows wrong.
    fn is_good(&self, candidate: &Candidate, most_wrong: usize) -> bool {
        let lowered = self.networks(&Real).make(candidate).unwrap().lowered;
        let outputs = &execute(&lowered.net, std::slice::from_ref(&self.data.rows), 40)[0].center;
        let wrong = outputs.chunks(CLASSES).zip(&self.data.labels).filter(|(y, l)| first_largest(y) != **l).count();
        let verifier = Verifier::new(&lowered).unwrap();
        let holds = |w: &Wanted| matches!(verifier.decide(&w.query, &options()).unwrap(), Verdict::Holds(_));
        wrong <= most_wrong && self.wanted.iter().all(holds)
    }
}

fn nobody() -> Record<'static> {
    Box::new(|_| {})
}

fn nearest(bits: &[u8]) -> Candidate {
    Candidate { bits: bits.to_vec(), rounding: Rounding::Nearest }
}

fn found(task: Task<'_>, space: &Space, known: Vec<Fact>, record: Record<'_>) -> Option<Vec<u8>> {
    let mut search = Exact::new(space.clone());
    let account = Preservation::new(task, effort(), known, record).run(space, &mut search, &mut |_| {}).unwrap();
    assert!(account.is_complete && account.undecided == 0, "{account:?}");
    search.best().map(<[u8]>::to_vec)
}

#[test]
fn the_bits_are_the_fewest_of_all_vectors() {
    let mut without_floor_is_cheaper = 0;
    for seed in 0..12 {
        let case = Case::new(seed);
        if case.wanted.is_empty() {
            continue;
        }
        let space = Space::uniform(vec![3, 2], 2..=8).unwrap();
        let vectors: Vec<Vec<u8>> = (2..=8).flat_map(|a| (2..=8).map(move |b| vec![a, b])).collect();
        let cheapest = |most_wrong: usize| {
            vectors.iter().filter(|b| case.is_good(&nearest(b), most_wrong)).map(|b| space.cost(b)).min()
        };
        let mut costs = vec![];
        for (drop, most_wrong) in [(None, usize::MAX), (Some(0.05), 2), (Some(0.0), 0)] {
            let best = found(case.task(drop), &space, vec![], nobody());
            assert!(best.iter().all(|b| case.is_good(&nearest(b), most_wrong)), "seed {seed}: {best:?}");
            let cost = best.map(|b| space.cost(&b));
            assert_eq!(cost, cheapest(most_wrong), "seed {seed}, drop {drop:?}");
            costs.push(cost);
        }
        without_floor_is_cheaper += usize::from(costs[0] < costs[2]);
    }
    assert!(without_floor_is_cheaper > 0);
}

#[test]
fn only_widths_of_a_set_are_chosen() {
    for seed in 0..6 {
        let case = Case::new(seed);
        let space = Space::among(vec![3, 2], &[8, 3, 5]).unwrap();
        let vectors = [3, 5, 8].iter().flat_map(|a| [3, 5, 8].map(|b| vec![*a, b]));
        let cheapest = vectors.filter(|b| case.is_good(&nearest(b), 1)).map(|b| space.cost(&b)).min();
        let exact = found(case.task(Some(0.025)), &space, vec![], nobody());
        assert_eq!(exact.map(|b| space.cost(&b)), cheapest, "seed {seed}");
        let mut greedy = Greedy::new(space.clone(), 100);
        let mut run = Preservation::new(case.task(Some(0.025)), effort(), vec![], nobody());
        run.run(&space, &mut greedy, &mut |_| {}).unwrap();
        let best = greedy.best().map(<[u8]>::to_vec);
        assert!(best.iter().all(|b| b.iter().all(|w| [3, 5, 8].contains(w)) && case.is_good(&nearest(b), 1)));
    }
}

#[test]
fn what_was_found_before_is_not_found_again() {
    for seed in 0..6 {
        let case = Case::new(seed);
        let space = Space::uniform(vec![1, 1], 2..=9).unwrap();
        let all = Arc::new(Mutex::new(vec![]));
        let keep = |all: &Arc<Mutex<Vec<Fact>>>| -> Record<'static> {
            let all = all.clone();
            Box::new(move |fact| all.lock().unwrap().push(fact.clone()))
        };
        let best = found(case.task(Some(0.025)), &space, vec![], keep(&all));
        let all = all.lock().unwrap().clone();
        // As a run is told of them that goes on after any of them.
        for known in (0..=all.len()).map(|n| &all[..n]) {
            let text: Vec<String> = known.iter().map(|f| serde_json::to_string(f).unwrap()).collect();
            let read: Vec<Fact> = text.iter().map(|t| serde_json::from_str(t).unwrap()).collect();
            assert_eq!(read, known);
            let new = Arc::new(Mutex::new(vec![]));
            assert_eq!(found(case.task(Some(0.025)), &space, read, keep(&new)), best, "seed {seed}");
            let proved = |f: &Fact| match f {
                Fact::Holds { of, property, .. } => Some((of.clone(), *property)),
                Fact::Refuted { .. } | Fact::Classified { .. } => None,
            };
            let before: Vec<_> = known.iter().filter_map(proved).collect();
            assert!(new.lock().unwrap().iter().filter_map(proved).all(|p| !before.contains(&p)), "seed {seed}");
        }
    }
}

#[test]
fn learned_rounding_keeps_everything_too() {
    let mut saved = 0;
    for seed in 0..12 {
        let case = Case::new(seed);
        let space = Space::uniform(vec![1, 1], 2..=9).unwrap();
        let mut search = Exact::new(space.clone());
        let mut run = Preservation::new(case.task(Some(0.0)), effort(), vec![], nobody());
        let mut account = run.run(&space, &mut search, &mut |_| {}).unwrap();
        let Some(best) = search.best() else { continue };
        if let Some(bits) = run.run_learned(&space, best, &mut account, &mut |_| {}).unwrap() {
            assert!(space.cost(&bits) < space.cost(best));
            assert!(case.is_good(&Candidate { bits, rounding: Rounding::Learned }, 0), "seed {seed}");
            saved += 1;
        }
    }
    assert!(saved > 0);
}

#[test]
fn marks_are_what_networks_achieve() {
    let case = Case::new(3);
    let space = Space::uniform(vec![1, 1], 2..=9).unwrap();
    let mut search = Exact::new(space.clone());
    let mut run = Preservation::new(case.task(Some(0.0)), effort(), vec![], nobody());
    run.run(&space, &mut search, &mut |_| {}).unwrap();
    let best = nearest(search.best().unwrap());
    let marks = run.survey(&space, std::slice::from_ref(&best)).unwrap();
    assert_eq!((&marks[0].candidate, marks[0].certified), (&best, case.wanted.len()));
    assert_eq!(marks[0].wrong, Some(0));
    assert!(marks.len() > 1);
    for mark in &marks[1..] {
        assert!(space.cost(&mark.candidate.bits) < space.cost(&best.bits));
        assert!(mark.certified < case.wanted.len() || mark.wrong > Some(0), "{mark:?}");
    }
}
