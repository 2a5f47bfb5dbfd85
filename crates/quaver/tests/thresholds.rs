//! Thresholds against enumeration on tiny networks, with tolerance zero: no execution leads by more than is proved, and the largest lead is found. Tests of
//! programs say so where HiGHS is not there; `QUAVER_TEST_PYTHON` names a Python that has the package highspy (default: python3).

#[path = "common/highs.rs"]
mod solver;
#[path = "common/two_layers.rs"]
mod two_layers;

use std::sync::Arc;
use std::time::Duration;

use quaver::guard::cells::Cells;
use quaver::guard::kernels::float::FloatNet;
use quaver::guard::plan::Domain;
use quaver::guard::programs::Asked;
use quaver::guard::thresholds::{Bounds, Compared};
use quaver::guard::witness::Shown;
use quaver::lp::Solver;
use quaver::model::ir::Model;
use quaver::model::lower::{Lowered, lower};
use quaver::model::profile;
use quaver::net::{Enclosure, execute};
use quaver::property::Region;
use quaver::quantize::activations::{ActivationScheme, proved};
use quaver::quantize::qdq::to_qdq;
use quaver::quantize::{BiasRule, LayerScheme, Quantizer, WeightRule};
use quaver::verify::{BigM, LeadMilp, Options, Relations};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use solver::highs;

const INPUTS: usize = 3;
const CLASSES: usize = 3;
const STEPS: i64 = 15;

/// A float network and its quantized one.
struct Case {
    float: Arc<Lowered>,
    quantized: Arc<Lowered>,
    /// All multiples, row by row, the numbers that they stand for, and what both networks give.
    multiples: Vec<f64>,
    numbers: Vec<f64>,
    f: Enclosure,
    q: Enclosure,
}

fn quantized(model: &Model, bits: u8, alpha: f64) -> Model {
    let quantizer = Quantizer::new(model).unwrap();
    let scheme = LayerScheme { biases: BiasRule::Float, ..LayerScheme::new(bits, WeightRule::Fitted) };
    let made = quantizer.at(&vec![scheme; quantizer.layers().len()]).unwrap();
    let region = Region { lo: vec![0.0; INPUTS], hi: vec![1.0; INPUTS] };
    let ranges = proved(quantizer.model(), false, &region).unwrap().scaled(alpha);
    let activations = ActivationScheme { bits, symmetric: true, outputs: false, input_step: Some(1.0 / STEPS as f64) };
    to_qdq(&quantizer, &made, Some((&activations, &ranges))).unwrap()
}

fn case(seed: u64, float_profile: &str) -> Case {
    let mut rng = StdRng::seed_from_u64(seed);
    let model = two_layers::two_layers(&mut rng, INPUTS, CLASSES);
    let bits = [2, 3, 4, 6, 8, 12][rng.random_range(0..6)];
    let alpha = if rng.random_range(0..3) == 0 { 0.7 } else { 1.0 };
    let lowered = |model: &Model, name: &str| Arc::new(lower(model, &*profile::parse(name).unwrap()).unwrap());
    let (float, quantized) = (lowered(&model, float_profile), lowered(&quantized(&model, bits, alpha), "real"));
    let side = STEPS as usize + 1;
    let digit = |i: usize, k: usize| (i / side.pow(k as u32) % side) as f64;
    let multiples: Vec<f64> = (0..side.pow(3)).flat_map(|i| (0..INPUTS).map(move |k| digit(i, k))).collect();
    let numbers: Vec<f64> = multiples.iter().map(|k| f64::from((k / STEPS as f64) as f32)).collect();
    let rows = multiples.len() / INPUTS;
    let q = execute(&quantized.net, std::slice::from_ref(&numbers), rows).swap_remove(0);
    let f = match float_profile {
        "float32" => {
            let x: Vec<f32> = numbers.iter().map(|&x| x as f32).collect();
            Enclosure::exact(FloatNet::new(&float).unwrap().run(&x).into_iter().map(f64::from).collect())
        }
        _ => execute(&float.net, std::slice::from_ref(&numbers), rows).swap_remove(0),
    };
    Case { float, quantized, multiples, numbers, f, q }
}

impl Case {
    fn compared(&self, grid: bool) -> Compared {
        let step = grid.then(|| format!("1/{STEPS}"));
        let grid = Domain { lo: 0.0, hi: 1.0, step }.grid().unwrap();
        Compared::new(self.float.clone(), self.quantized.clone(), (0.0, 1.0), grid.as_ref()).unwrap()
    }

    fn cells(&self, count: usize, grid: bool) -> Cells {
        let (x, ends) = if grid { (&self.multiples, (0.0, STEPS as f64)) } else { (&self.numbers, (0.0, 1.0)) };
        let sums = x.chunks_exact(INPUTS).map(|x| x.iter().sum()).collect();
        Cells::new(INPUTS, ends, grid, sums, count)
    }

    /// The largest leads of each cell by enumeration; inputs with a tie that no enclosure decides are left out.
    fn enumerated(&self, cells: &Cells, grid: bool) -> Vec<Bounds> {
        let none = || Bounds { pair: vec![f64::NEG_INFINITY; 9], least: vec![f64::NEG_INFINITY; 9] };
        let mut all: Vec<Bounds> = (0..cells.len()).map(|_| none()).collect();
        let x = if grid { &self.multiples } else { &self.numbers };
        for (row, x) in x.chunks_exact(INPUTS).enumerate() {
            let bounds = &mut all[cells.of(x.iter().sum())];
            let at = |k: usize| row * CLASSES + k;
            for c in 0..CLASSES {
                // Below the true lead, and as good as equal to it.
                let lead = |k: usize| (self.q.lo(at(c)) - self.q.hi(at(k))).next_down();
                let least = (0..CLASSES).filter(|&k| k != c).map(lead).fold(f64::INFINITY, f64::min);
                for k in (0..CLASSES).filter(|&k| k != c && self.f.hi(at(c)) <= self.f.lo(at(k))) {
                    let i = c * CLASSES + k;
                    bounds.pair[i] = bounds.pair[i].max(lead(k));
                    bounds.least[i] = bounds.least[i].max(least);
                }
            }
        }
        all
    }

    fn proved(&self, compared: &Compared, cells: &Cells, cell: usize, parts: usize) -> Bounds {
        let options = Options { timeout: Duration::from_secs(600), ..Options::default() };
        compared.bounds(cells.total(cell), parts, None, &options).unwrap()
    }
}

fn pairs() -> impl Iterator<Item = usize> {
    (0..CLASSES * CLASSES).filter(|i| i % (CLASSES + 1) != 0)
}

/// No enumerated lead is above a bound, for the real numbers and for a float32 program, on a grid and on all reals.
#[test]
fn no_execution_leads_by_more_than_is_proved() {
    let mut tight = 0.0;
    for seed in 0..60 {
        let case = case(seed, if seed % 2 == 0 { "float32" } else { "real" });
        for (grid, count) in [(true, 1), (true, 3), (false, 1), (false, 3)] {
            let (compared, cells) = (case.compared(grid), case.cells(count, grid));
            let enumerated = case.enumerated(&cells, grid);
            for (cell, truth) in enumerated.iter().enumerate() {
                for parts in [1, 20] {
                    let bounds = case.proved(&compared, &cells, cell, parts);
                    for i in pairs() {
                        assert!(
                            truth.pair[i] <= bounds.pair[i],
                            "seed {seed} {grid} cell {cell} {i}: {truth:?} {bounds:?}"
                        );
                        assert!(
                            truth.least[i] <= bounds.least[i],
                            "seed {seed} {grid} cell {cell} {i}: {truth:?} {bounds:?}"
                        );
                        tight += f64::from(u8::from(truth.pair[i] == bounds.pair[i]));
                    }
                }
            }
        }
    }
    println!("{tight} bounds are reached");
}

/// With enough parts the bound on a grid is the largest lead: but for what is rounded outward, and the slack of the numbers that multiples stand for.
#[test]
fn the_bound_is_the_largest_lead_of_all_inputs() {
    for seed in 100..112 {
        let case = case(seed, "real");
        let (compared, cells) = (case.compared(true), case.cells(2, true));
        for (cell, truth) in case.enumerated(&cells, true).iter().enumerate() {
            let bounds = case.proved(&compared, &cells, cell, 40_000);
            for i in pairs() {
                let (most, found) = (truth.pair[i], bounds.pair[i]);
                // Below zero nobody needs to know better.
                assert!(
                    found <= most.max(0.0) + 4e-6 * (1.0 + most.abs()),
                    "seed {seed} cell {cell} pair {i}: {most} {found}"
                );
            }
        }
    }
}

/// What executed inputs show is never above the truth, and search finds most of it.
#[test]
fn shown_leads_occur() {
    for seed in 200..206 {
        let case = case(seed, "real");
        let compared = case.compared(true);
        let cells = case.cells(1, true);
        let truth = &case.enumerated(&cells, true)[0];
        let mut shown = Shown::new(CLASSES);
        compared.show(&case.multiples, &mut shown);
        for i in pairs() {
            assert!(shown.bounds.pair[i] <= truth.pair[i] && shown.bounds.least[i] <= truth.least[i]);
            let near =
                |shown: f64, truth: f64| truth == f64::NEG_INFINITY || shown >= truth - 1e-6 * (1.0 + truth.abs());
            assert!(near(shown.bounds.pair[i], truth.pair[i]), "seed {seed} {i}: {shown:?} {truth:?}");
            assert!(near(shown.bounds.least[i], truth.least[i]), "seed {seed} {i}: {shown:?} {truth:?}");
        }
    }
}

/// The paper's variants, from programs alone to all relaxations.
fn variants(solver: &Arc<dyn Solver>) -> Vec<LeadMilp> {
    let milp = |relations, parallelogram, trapezoid| LeadMilp {
        solver: solver.clone(),
        bounds: if parallelogram { BigM::Linear } else { BigM::Intervals },
        relations,
        relation_time: Duration::from_millis(50),
        parallelogram,
        trapezoid,
        report: false,
    };
    vec![
        milp(Relations::None, false, 0.0),
        milp(Relations::Solved, false, 0.0),
        milp(Relations::Propagated, true, 0.0),
        milp(Relations::Solved, true, 0.1),
        milp(Relations::Solved, true, f64::INFINITY),
    ]
}

impl Case {
    fn by_programs(&self, grid: bool, (cells, cell): (&Cells, usize), milp: &LeadMilp, time: Duration) -> [Bounds; 2] {
        let compared = self.compared(grid);
        [Asked::Classes, Asked::Pairs].map(|asked| {
            let mut shown = Shown::new(CLASSES);
            let asked = (cells.total(cell), asked);
            compared.by_programs(asked, milp, &mut shown, time, &|_, _, _| {}).unwrap().bounds
        })
    }
}

/// No enumerated lead is above a bound by programs, whatever is relaxed and however little time there is.
#[test]
fn no_execution_leads_by_more_than_programs_say() {
    let Some(solver) = highs() else { return };
    let mut better = 0;
    for seed in 300..316 {
        let case = case(seed, if seed % 2 == 0 { "float32" } else { "real" });
        for (grid, count) in [(true, 1), (false, 2)] {
            let cells = case.cells(count, grid);
            for (cell, truth) in case.enumerated(&cells, grid).iter().enumerate() {
                for (v, milp) in variants(&solver).iter().enumerate() {
                    for (bounds, time) in [2, 200].map(Duration::from_millis).into_iter().flat_map(|time| {
                        case.by_programs(grid, (&cells, cell), milp, time).into_iter().map(move |b| (b, time))
                    }) {
                        for i in pairs() {
                            let what = format!("seed {seed} {grid} cell {cell} {i} variant {v} {time:?}");
                            assert!(truth.pair[i] <= bounds.pair[i], "{what}: {truth:?} {bounds:?}");
                            assert!(truth.least[i] <= bounds.least[i], "{what}: {truth:?} {bounds:?}");
                            better += usize::from(bounds.least[i] < bounds.pair[i]);
                        }
                    }
                }
            }
        }
    }
    assert!(better > 0, "no program found anything");
}

/// Programs with integers find the largest lead, up to the solver's tolerances.
#[test]
fn programs_find_the_largest_lead_of_all_inputs() {
    let Some(solver) = highs() else { return };
    let (mut reached, mut all) = (0, 0);
    for seed in 100..106 {
        let case = case(seed, "real");
        let cells = case.cells(1, true);
        let truth = &case.enumerated(&cells, true)[0];
        let milp = &variants(&solver)[1];
        let [_, bounds] = case.by_programs(true, (&cells, 0), milp, Duration::from_secs(12));
        for i in pairs().filter(|&i| truth.pair[i] > 0.0) {
            let near = |found: f64, most: f64| found <= most + 1e-4 * (1.0 + most.abs());
            reached += usize::from(near(bounds.pair[i], truth.pair[i]));
            all += 1;
        }
    }
    println!("{reached} of {all} bounds are reached");
    assert!(reached * 10 >= all * 9, "{reached} of {all}");
}
