//! The exact engine against enumeration: random nets with few integer inputs, every verdict. Tests that need HiGHS say so where it is not there;
//! `QUAVER_TEST_PYTHON` names a Python that has the package highspy (default: python3).

#[path = "common/random_nets.rs"]
mod random_nets;
#[path = "common/highs.rs"]
mod solver;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quaver::lp::{Column, Highs, Micro, MilpStatus, Program, RelaxationAnswer, Solver, safe_bound, safe_infeasible};
use quaver::net::{Net, execute_all};
use quaver::num::Ratio;
use quaver::property::{Constraint, Polyhedron, Query, Region, Robustness, Ties};
use quaver::verify::{Answers, BigM, Engine, Milp, Options, Verdict, Verifier};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use random_nets::{Kind, enumerate, lowered, random_net, random_region};
use solver::highs;

fn options(solver: &Arc<dyn Solver>, bounds: BigM, answers: Answers) -> Options {
    let milp = Milp { solver: solver.clone(), bounds, attack: false, answers };
    Options { timeout: Duration::from_secs(5), subproblems: 3000, engine: Engine::Milp(milp), ..Options::default() }
}

/// Three classes and a random label, on a random box of integers.
struct Case {
    net: Net,
    claim: Robustness,
    points: Vec<Vec<f64>>,
    scores: Vec<Vec<f64>>,
}

impl Case {
    fn new(seed: u64, bands: bool) -> Case {
        let net = random_net(seed, &Kind { bands, ..Kind::new(4, 3) });
        let mut rng = StdRng::seed_from_u64(seed ^ 0x2545_f491);
        let region = random_region(4, true, &mut rng);
        let points = enumerate(&region);
        let outputs = execute_all(&net, &[points.concat()], points.len());
        let scores: Vec<Vec<f64>> = outputs.value(net.outputs()[0]).center.chunks(3).map(<[f64]>::to_vec).collect();
        let first = &scores[scores.len() / 2];
        let label = (0..3).max_by(|&a, &b| first[a].total_cmp(&first[b]).then(b.cmp(&a))).expect("three classes");
        let ties = if seed.is_multiple_of(2) { Ties::Strict } else { Ties::First };
        Case { net, claim: Robustness { region, center: None, label, ties }, points, scores }
    }

    fn wins(&self, s: &[f64]) -> bool {
        let label = self.claim.label;
        let first = |k: usize| self.claim.ties == Ties::First && label < k && s[label] == s[k];
        (0..3).all(|k| k == label || s[label] > s[k] || first(k))
    }

    /// The verdict's name after comparing it with enumeration.
    fn check(&self, seed: u64, options: &Options) -> &'static str {
        let lowered = lowered(self.net.clone());
        let verdict = Verifier::new(&lowered).expect("one output").robustness(&self.claim, options);
        match verdict.expect("a classifier") {
            Verdict::Holds(_) => {
                assert!(self.scores.iter().all(|s| self.wins(s)), "seed {seed}: `holds` is wrong");
                "holds"
            }
            Verdict::Violated(w) => {
                let at = self.points.iter().position(|p| p == w.input()).expect("an integer point of the box");
                assert!(!self.wins(&self.scores[at]), "seed {seed}: the witness does not refute");
                "violated"
            }
            Verdict::Undecided(_) => "undecided",
        }
    }
}

#[test]
fn proofs_and_witnesses_agree_with_enumeration() {
    let Some(solver) = highs() else { return };
    let mut counts = BTreeMap::new();
    for seed in 0..500 {
        let case = Case::new(seed, false);
        for bounds in [BigM::Types, BigM::Intervals, BigM::Linear] {
            let answers = if seed % 3 == 0 { Answers::Both } else { Answers::Proof };
            *counts
                .entry((case.check(seed, &options(&solver, bounds, answers)), format!("{bounds:?}")))
                .or_insert(0) += 1;
        }
    }
    println!("{counts:?}");
    let of = |verdict: &str| counts.iter().filter(|(k, _)| k.0 == verdict).map(|(_, n)| n).sum::<i32>();
    assert!(of("holds") > 300 && of("violated") > 300, "{counts:?}");
    // Of 1,500: the trees that are cut short.
    assert!(of("undecided") < 30, "{counts:?}");
}

/// Where the net is a band, `holds` covers both ends, and a witness is one for every choice.
#[test]
fn bands_are_covered() {
    let Some(solver) = highs() else { return };
    let mut counts = BTreeMap::new();
    for seed in 0..150 {
        let case = Case::new(seed, true);
        let lowered = lowered(case.net.clone());
        let verdict = Verifier::new(&lowered)
            .expect("one output")
            .robustness(&case.claim, &options(&solver, BigM::Linear, Answers::Proof))
            .expect("a classifier");
        if matches!(verdict, Verdict::Holds(_)) {
            let mut rng = StdRng::seed_from_u64(seed);
            for x in &case.points {
                let exact = [x.iter().map(|&v| quaver::num::Dyadic::from_f64(v).expect("finite")).collect()];
                let values = quaver::net::execute_exact_choosing(&case.net, &exact, &mut || rng.random_bool(0.5));
                let scores: Vec<f64> = values[case.net.outputs()[0].0].iter().map(|v| v.to_f64()).collect();
                assert!(case.wins(&scores), "seed {seed}: an execution refutes a proof");
            }
        }
        let name = match verdict {
            Verdict::Holds(_) => "holds",
            Verdict::Violated(_) => "violated",
            Verdict::Undecided(_) => "undecided",
        };
        *counts.entry(name).or_insert(0) += 1;
    }
    println!("{counts:?}");
    assert!(counts["holds"] > 30, "{counts:?}");
}

/// Polyhedra of several rows, strict ones among them, against enumeration.
#[test]
fn polyhedra_agree_with_enumeration() {
    let Some(solver) = highs() else { return };
    let mut counts = BTreeMap::new();
    for seed in 0..300 {
        let case = Case::new(seed, false);
        let mut rng = StdRng::seed_from_u64(seed);
        let exact = |x: f64| Ratio::from_f64(x).expect("finite");
        let at = &case.scores[rng.random_range(0..case.scores.len())];
        let mut row = || {
            let terms: Vec<(usize, f64)> = (0..3).map(|i| (i, f64::from(rng.random_range(-2i32..=2)))).collect();
            let near: f64 = terms.iter().map(|(i, a)| a * at[*i]).sum();
            (terms, near + f64::from(rng.random_range(-6i32..=3)), rng.random_bool(0.5))
        };
        let rows = [row(), row()];
        let constraint = |(terms, bound, strict): &(Vec<(usize, f64)>, f64, bool)| Constraint {
            terms: terms.iter().map(|(i, a)| (*i, exact(*a))).collect(),
            bound: exact(*bound),
            strict: *strict,
        };
        let forbidden = vec![Polyhedron::new(rows.iter().map(constraint).collect())];
        let inside = |s: &Vec<f64>| {
            rows.iter().all(|(terms, bound, strict)| {
                let sum: f64 = terms.iter().map(|(i, a)| a * s[*i]).sum();
                sum < *bound || (!strict && sum == *bound)
            })
        };
        let truth = case.scores.iter().any(inside);
        let query = Query { region: case.claim.region.clone(), inside: None, candidates: vec![], forbidden };
        let lowered = lowered(case.net.clone());
        let verifier = Verifier::new(&lowered).expect("one output");
        let name = match verifier.decide(&query, &options(&solver, BigM::Linear, Answers::Proof)).expect("it fits") {
            Verdict::Holds(_) => {
                assert!(!truth, "seed {seed}: `holds` is wrong");
                "holds"
            }
            Verdict::Violated(_) => {
                assert!(truth, "seed {seed}: there is no such output");
                "violated"
            }
            Verdict::Undecided(_) => "undecided",
        };
        *counts.entry(name).or_insert(0) += 1;
    }
    println!("{counts:?}");
    assert!(counts["holds"] > 50 && counts["violated"] > 50, "{counts:?}");
    assert!(counts.get("undecided").is_none_or(|n| *n < 6), "{counts:?}");
}

/// On nets of reals `holds` is never refuted by a sampled execution.
#[test]
fn proofs_about_real_nets_cover_samples() {
    let Some(solver) = highs() else { return };
    let mut counts = BTreeMap::new();
    for seed in 0..200 {
        let net = random_net(seed, &Kind { integer: false, ..Kind::new(4, 3) });
        let mut rng = StdRng::seed_from_u64(seed);
        let region: Region = random_region(4, false, &mut rng);
        let sample = |_| (0..4).map(|i| region.lo[i] + rng.random::<f64>() * (region.hi[i] - region.lo[i])).collect();
        let points: Vec<Vec<f64>> = (0..64).map(sample).collect();
        let run = execute_all(&net, &[points.concat()], points.len());
        let scores = run.value(net.outputs()[0]).clone();
        let first = &scores.center[..3];
        let label = (0..3).max_by(|&a, &b| first[a].total_cmp(&first[b])).expect("three classes");
        let claim = Robustness { region, center: None, label, ties: Ties::Strict };
        let lowered = lowered(net);
        let verifier = Verifier::new(&lowered).expect("one output");
        let bounds = if seed % 2 == 0 { BigM::Linear } else { BigM::Types };
        let verdict = verifier.robustness(&claim, &options(&solver, bounds, Answers::Proof)).expect("classes");
        let name = match verdict {
            Verdict::Holds(_) => {
                for p in 0..64 {
                    let beaten = (0..3).any(|k| k != label && scores.hi(3 * p + label) < scores.lo(3 * p + k));
                    assert!(!beaten, "seed {seed}: sample {p} refutes a proof");
                }
                "holds"
            }
            Verdict::Violated(_) => "violated",
            Verdict::Undecided(_) => "undecided",
        };
        *counts.entry(name).or_insert(0) += 1;
    }
    println!("{counts:?}");
    assert!(counts["holds"] > 100 && counts["violated"] > 5, "{counts:?}");
}

/// microlp proves nothing, and what it finds is executed.
#[test]
fn microlp_only_finds() {
    let solver: Arc<dyn Solver> = Arc::new(Micro);
    let mut counts = BTreeMap::new();
    for seed in 0..200 {
        let case = Case::new(seed, false);
        let verdict = case.check(seed, &options(&solver, BigM::Types, Answers::Both));
        *counts.entry(verdict).or_insert(0) += 1;
    }
    println!("{counts:?}");
    assert!(counts["violated"] > 30 && !counts.contains_key("holds"), "{counts:?}");
}

/// What every backend must do: x + 2y >= 3 on [0, 4]^2.
#[test]
fn backends_conform() {
    let backends: Vec<Arc<dyn Solver>> = highs().into_iter().chain([Arc::new(Micro) as Arc<dyn Solver>]).collect();
    for solver in backends {
        let mut p = Program::new();
        let column = Column { lo: 0.0, hi: 4.0, cost: 1.0, integer: true };
        let (x, y) = (p.add_column(column), p.add_column(column));
        p.add_row(3.0, &[(x, 1.0), (y, 2.0)], f64::INFINITY);
        let limit = Duration::from_secs(10);
        let mut relaxation = solver.relaxation(&p).expect("a small program");
        let mut solve = |bounds: (f64, f64)| {
            relaxation.set_bounds(y, bounds.0, bounds.1);
            (p.columns[y].lo, p.columns[y].hi) = bounds;
            (relaxation.solve(limit), p.clone())
        };
        for (bounds, best) in [((0.0, 4.0), 1.5), ((0.0, 1.0), 2.0), ((0.0, 0.0), 3.0), ((2.0, 4.0), 2.0)] {
            let (RelaxationAnswer::Optimal { point, duals }, now) = solve(bounds) else { panic!("{}", solver.name()) };
            assert!((point[x] + point[y] - best).abs() < 1e-6, "{}", solver.name());
            assert_eq!(duals.is_some(), solver.gives_evidence());
            let bound = duals.map_or(best, |duals| safe_bound(&now, &duals));
            assert!(best - 1e-6 < bound && bound <= best, "{}: {bound} for {best}", solver.name());
        }
        let answer = solver.search(&p, limit);
        assert_eq!((answer.status, answer.point.map(|p| p[y].round())), (MilpStatus::Optimal, Some(2.0)));

        p.add_row(f64::NEG_INFINITY, &[(x, 1.0), (y, 1.0)], 1.0);
        let mut relaxation = solver.relaxation(&p).expect("a small program");
        let RelaxationAnswer::Infeasible { ray } = relaxation.solve(limit) else { panic!("{}", solver.name()) };
        assert!(ray.map_or(!solver.gives_evidence(), |ray| safe_infeasible(&p, &ray)), "{}", solver.name());
        assert_eq!(solver.search(&p, limit).status, MilpStatus::Infeasible);
    }
}

/// A library that is not HiGHS is refused.
#[test]
fn other_libraries_are_refused() {
    let missing = Highs::load(Some(std::path::Path::new("/nowhere/libhighs.so.1"))).expect_err("no such file");
    assert!(missing.to_string().contains("/nowhere/libhighs.so.1"), "{missing}");
}
