//! Verdicts on nets of real numbers against exact executions, with tolerance zero: random small nets with every kind of rounding, random boxes,
//! and claims whose bounds are near the least that sampling finds, or just that.
//!
//! The long run: `cargo test --release -p quaver --test real_nets -- --ignored --nocapture`.

#[path = "common/random_nets.rs"]
mod random_nets;

use std::time::{Duration, Instant};

use quaver::net::{Net, execute_all, execute_exact_choosing};
use quaver::num::{Dyadic, Ratio};
use quaver::property::{Constraint, Polyhedron, Query, Region};
use quaver::verify::{Options, Verdict, Verifier};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use random_nets::{Kind, exact, lowered, member, random_net};

fn region(inputs: usize, rng: &mut StdRng) -> Region {
    let single = |x: f64| f64::from(x as f32);
    let ends = |rng: &mut StdRng| {
        let (lo, width) = (rng.random_range(-4.0f64..4.0), rng.random_range(0.0f64..1.0).powi(3) * 3.0);
        (single(lo), single(lo + width))
    };
    let (lo, hi) = (0..inputs).map(|_| ends(rng)).unzip();
    Region { lo, hi }
}

/// Corners of a box, random points of it, and points that differ from a corner in one element.
fn points(region: &Region, count: usize, rng: &mut StdRng) -> Vec<Vec<f64>> {
    let n = region.lo.len();
    let corner =
        |c: usize| (0..n).map(|i| if c >> i & 1 == 0 { region.lo[i] } else { region.hi[i] }).collect::<Vec<_>>();
    let random = |i: usize, rng: &mut StdRng| {
        f64::from((region.lo[i] + rng.random::<f64>() * (region.hi[i] - region.lo[i])) as f32)
            .clamp(region.lo[i], region.hi[i])
    };
    let mut all: Vec<Vec<f64>> = (0..1usize << n).map(corner).collect();
    for k in 0..count {
        let mut point: Vec<f64> = (0..n).map(|i| random(i, rng)).collect();
        if k % 2 == 0 {
            let edge = corner(rng.random_range(0..1 << n));
            let free = rng.random_range(0..n);
            (0..n).filter(|&i| i != free).for_each(|i| point[i] = edge[i]);
        }
        all.push(point);
    }
    all
}

/// Where every constraint is nearest to being met: the largest excess, smallest first; hints.
fn nearest(net: &Net, points: &[Vec<f64>], all: &Polyhedron) -> Vec<Vec<f64>> {
    let (run, output) = (execute_all(net, &[points.concat()], points.len()), net.outputs()[0]);
    let excess = |y: &[f64]| {
        let of = |c: &Constraint| c.terms.iter().map(|(i, a)| a.approx() * y[*i]).sum::<f64>() - c.bound.approx();
        all.constraints.iter().map(of).fold(f64::NEG_INFINITY, f64::max)
    };
    let each: Vec<f64> = run.value(output).center.chunks(net.node(output).len()).map(excess).collect();
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| each[a].total_cmp(&each[b]));
    order.into_iter().map(|i| points[i].clone()).collect()
}

fn output_of(net: &Net, point: &[f64]) -> Vec<Dyadic> {
    let x = [point.iter().map(|&x| exact(x)).collect()];
    execute_exact_choosing(net, &x, &mut || false).swap_remove(net.outputs()[0].0)
}

fn sum(c: &Constraint, y: &[Dyadic]) -> Ratio {
    let zero = Ratio::from_dyadic(&Dyadic::zero());
    c.terms.iter().fold(zero, |sum, (i, a)| sum.plus(&a.times(&Ratio::from_dyadic(&y[*i]))))
}

fn satisfied(c: &Constraint, y: &[Dyadic]) -> bool {
    let room = c.bound.minus(&sum(c, y));
    !(room.is_negative() || c.strict && room.is_zero())
}

fn is_forbidden(all: &Polyhedron, y: &[Dyadic]) -> bool {
    all.constraints.iter().all(|c| satisfied(c, y))
}

/// Constraints that the output of a sampled extreme point meets exactly, or misses by a little.
fn random_polyhedron(net: &Net, points: &[Vec<f64>], classes: usize, rng: &mut StdRng) -> Polyhedron {
    let mut all = Polyhedron::default();
    for _ in 0..rng.random_range(1..=2) {
        let coefficient = |rng: &mut StdRng| ["1", "-1", "1/3", "-0.1", "2", "-7/5"][rng.random_range(0..6)];
        let mut terms: Vec<(usize, Ratio)> =
            (0..classes).map(|i| (i, coefficient(rng).parse().expect("a number"))).collect();
        if rng.random_bool(0.5) {
            terms.truncate(1);
        }
        let zero = Ratio::from_dyadic(&Dyadic::zero());
        let c = Constraint { terms, bound: zero, strict: rng.random_bool(0.5) };
        let all_before = Polyhedron::new([all.constraints.clone(), vec![c.clone()]].concat());
        let least = sum(&c, &output_of(net, &nearest(net, points, &all_before)[0]));
        let off = ["0", "0", "0", "1e-7", "0.001", "0.01", "0.1", "-0.001"][rng.random_range(0..8)];
        all.constraints.push(Constraint { bound: least.minus(&off.parse().expect("a number")), ..c });
    }
    all
}

/// `holds` against many executions of several of the functions that the net allows, `violated` against the witness's in each.
fn check(seed: u64) -> (&'static str, u64) {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x2545_f491);
    let inputs = rng.random_range(1..=4);
    let kind = Kind { integer: false, depth: 2..6, ..Kind::new(inputs, 2) };
    let net = random_net(seed, &kind);
    let region = region(inputs, &mut rng);
    let sampled = points(&region, 200, &mut rng);
    let forbidden = vec![random_polyhedron(&net, &sampled, 2, &mut rng)];
    let functions: Vec<Net> = (0..3).map(|_| member(&net, &mut rng)).collect();
    let query = Query { region: region.clone(), inside: None, candidates: vec![], forbidden: forbidden.clone() };
    let options = Options { timeout: Duration::from_millis(500), subproblems: 300, ..Options::default() };
    let lowered = lowered(net);
    match Verifier::new(&lowered).expect("one input").decide(&query, &options).expect("a query that fits") {
        Verdict::Holds(p) => {
            for f in functions.iter().chain([&lowered.net]) {
                let all = [sampled.clone(), points(&region, 500, &mut rng)].concat();
                for x in nearest(f, &all, &forbidden[0]).iter().take(12) {
                    assert!(
                        !is_forbidden(&forbidden[0], &output_of(f, x)),
                        "seed {seed}: `holds` is wrong at {x:?}; {p:?}"
                    );
                }
            }
            ("holds", p.subproblems())
        }
        Verdict::Violated(w) => {
            assert!(region.contains(w.input()), "seed {seed}: the witness is outside");
            for f in functions.iter().chain([&lowered.net]) {
                let y = output_of(f, w.input());
                assert!(is_forbidden(&forbidden[w.polyhedron()], &y), "seed {seed}: the witness does not refute");
            }
            ("violated", 0)
        }
        Verdict::Undecided(u) => ("undecided", u.subproblems),
    }
}

fn survey(seeds: std::ops::Range<u64>) {
    let (started, mut counts, mut searched) = (Instant::now(), std::collections::BTreeMap::new(), 0);
    for seed in seeds {
        let (verdict, subproblems) = check(seed);
        *counts.entry(verdict).or_insert(0) += 1;
        searched += usize::from(verdict == "holds" && subproblems > 0);
    }
    println!("{counts:?}, {searched} proved by a search; {:.1} s", started.elapsed().as_secs_f64());
    assert!(counts["holds"] > 10 && counts["violated"] > 10, "{counts:?}");
}

#[test]
fn verdicts_agree_with_exact_executions() {
    survey(0..150);
}

#[test]
#[ignore = "minutes"]
fn many_verdicts_agree_with_exact_executions() {
    survey(0..3000);
}
