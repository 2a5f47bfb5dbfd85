//! Every analysis against exact execution, with tolerance zero: random nets of all four operations, random boxes, random
//! points, corners; and every verdict against enumeration on nets with few integer inputs.

#[path = "common/random_nets.rs"]
mod random_nets;

use proptest::prelude::*;
use quaver::bounds::{Bounds, Prepared, analyse, interval, lower_bounds};
use quaver::model::lower::Lowered;
use quaver::net::{
    Affine, Dense, Grid, LinearMap, Net, Node, Op, Rounding, Spread, Weights, execute_all, execute_exact_choosing,
};
use quaver::num::Dyadic;
use quaver::property::{Region, Robustness, Ties};
use quaver::verify::{Options, Verdict, robustness};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use random_nets::{Kind, enumerate, exact, lowered, member, random_net, random_region};

fn inside(x: &Dyadic, b: &Bounds, i: usize) -> bool {
    exact(b.lo[i]) <= *x && *x <= exact(b.hi[i])
}

/// Points of a box: its corners (some), its middle and random ones; `integer` snaps them.
fn points(region: &Region, integer: bool, rng: &mut StdRng) -> Vec<Vec<f64>> {
    let snap = |x: f64, i: usize| (if integer { x.round() } else { x }).clamp(region.lo[i], region.hi[i]);
    let n = region.lo.len();
    let mut all: Vec<Vec<f64>> = (0..8)
        .map(|c| (0..n).map(|i| if c >> (i % 3) & 1 == 0 { region.lo[i] } else { region.hi[i] }).collect())
        .collect();
    for _ in 0..12 {
        all.push((0..n).map(|i| snap(region.lo[i] + rng.random::<f64>() * (region.hi[i] - region.lo[i]), i)).collect());
    }
    all
}

fn check_bounds(seed: u64, integer: bool, bands: bool) {
    let net = random_net(seed, &Kind { integer, bands, ..Kind::new(4, 3) });
    let mut rng = StdRng::seed_from_u64(seed ^ 0x9e37_79b9);
    let region = random_region(4, integer, &mut rng);
    let prepared = Prepared::new(&net);
    let intervals = interval(&net, &region);
    let analysis = analyse(&prepared, &region).expect("small numbers do not overflow");
    let output = net.outputs()[0];
    let rows: Vec<f64> = (0..6 * 3).map(|_| f64::from(rng.random_range(-1.0f32..1.0))).collect();
    let functionals = lower_bounds(&prepared, &analysis, output, rows.clone(), 6);
    for x in points(&region, integer, &mut rng) {
        let x_exact = [x.iter().map(|&v| exact(v)).collect()];
        let values = execute_exact_choosing(&net, &x_exact, &mut || rng.random_bool(0.5));
        let run = execute_all(&net, std::slice::from_ref(&x), 1);
        for id in net.ids() {
            let enclosure = run.value(id);
            for (i, v) in values[id.0].iter().enumerate() {
                assert!(inside(v, &intervals[id.0], i), "seed {seed}: interval of node {} misses an execution", id.0);
                assert!(inside(v, &analysis.bounds[id.0], i), "seed {seed}: linear bounds of node {} miss one", id.0);
                let within = exact(enclosure.lo(i)) <= *v && *v <= exact(enclosure.hi(i));
                assert!(within, "seed {seed}: the enclosure of node {} misses the exact value", id.0);
                assert!(!integer || bands || enclosure.radius.is_none(), "seed {seed}: an integer net is not exact");
            }
        }
        for (r, row) in rows.chunks(3).enumerate() {
            let sum = row.iter().zip(&values[output.0]).fold(Dyadic::zero(), |s, (c, v)| &s + &(&exact(*c) * v));
            assert!(exact(functionals[r]) <= sum, "seed {seed}: functional {r} goes below its bound");
        }
    }
}

/// Returns which verdict was given, after comparing it with enumeration.
fn check_verdict(seed: u64, ties: Ties) -> &'static str {
    let net = random_net(seed, &Kind::new(4, 3));
    let mut rng = StdRng::seed_from_u64(seed ^ 0x51ed_270b);
    let region = random_region(4, true, &mut rng);
    let all = enumerate(&region);
    let outputs = execute_all(&net, &[all.concat()], all.len());
    let scores: Vec<&[f64]> = outputs.value(net.outputs()[0]).center.chunks(3).collect();
    let first = scores[scores.len() / 2];
    let label = (0..3).max_by(|&a, &b| first[a].total_cmp(&first[b]).then(b.cmp(&a))).unwrap();
    let wins = |s: &&[f64]| {
        (0..3).all(|k| k == label || s[label] > s[k] || (ties == Ties::First && label < k && s[label] == s[k]))
    };
    let truth = scores.iter().all(wins);
    let claim = Robustness { region, center: None, label, ties };
    let lowered = lowered(net);
    match robustness(&lowered, &claim, &Options::default()).expect("a classifier") {
        Verdict::Holds(_) => {
            assert!(truth, "seed {seed}: `holds` is wrong");
            "holds"
        }
        Verdict::Violated(witness) => {
            assert!(claim.region.contains(witness.input()), "seed {seed}: the witness is outside");
            let at = all.iter().position(|p| p == witness.input()).expect("an integer point of the box");
            assert!(!wins(&scores[at]), "seed {seed}: the witness does not refute");
            "violated"
        }
        Verdict::Undecided(_) => "undecided",
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn bounds_hold_for_exact_executions_of_real_nets(seed in any::<u64>()) {
        check_bounds(seed, false, false);
    }

    #[test]
    fn bounds_hold_for_exact_executions_of_integer_nets(seed in any::<u64>()) {
        check_bounds(seed, true, false);
    }

    #[test]
    fn bounds_hold_for_every_choice_inside_bands(seed in any::<u64>(), integer in any::<bool>()) {
        check_bounds(seed, integer, true);
    }
}

/// A claim about several runtimes at once holds for each of them, or is refuted by one that is named.
fn check_envelope(seed: u64, is_conjunction: bool) -> &'static str {
    let net = random_net(seed, &Kind { bands: true, ..Kind::new(4, 3) });
    let mut rng = StdRng::seed_from_u64(seed ^ 0x1234_5678);
    let region = random_region(4, true, &mut rng);
    let all = enumerate(&region);
    let mut members: Vec<Lowered> = (0..3).map(|_| lowered(member(&net, &mut rng))).collect();
    members.iter_mut().enumerate().for_each(|(k, m)| m.profile = format!("{k}"));
    let scores: Vec<Vec<f64>> = members
        .iter()
        .map(|m| execute_all(&m.net, &[all.concat()], all.len()).value(m.net.outputs()[0]).center.clone())
        .collect();
    let first = &scores[0][..3];
    let label = (0..3).max_by(|&a, &b| first[a].total_cmp(&first[b]).then(b.cmp(&a))).unwrap();
    let wins = |s: &[f64]| (0..3).all(|k| k == label || s[label] > s[k]);
    let claim = Robustness { region, center: None, label, ties: Ties::Strict };
    let envelope = Lowered { members, is_conjunction, ..lowered(net) };
    match robustness(&envelope, &claim, &Options::default()).expect("a classifier") {
        Verdict::Holds(_) => {
            assert!(scores.iter().all(|s| s.chunks(3).all(wins)), "seed {seed}: `holds` is wrong for a member");
            "holds"
        }
        Verdict::Violated(w) => {
            let at = all.iter().position(|p| p == w.input()).expect("an integer point of the box");
            let member: usize = w.profile().parse().expect("a member's name");
            assert!(!wins(&scores[member][3 * at..3 * at + 3]), "seed {seed}: the witness does not refute");
            "violated"
        }
        Verdict::Undecided(_) => "undecided",
    }
}

#[test]
fn verdicts_about_several_runtimes_agree_with_enumeration() {
    let mut counts = std::collections::BTreeMap::new();
    for seed in 0..1500 {
        for is_conjunction in [false, true] {
            *counts.entry(check_envelope(seed, is_conjunction)).or_insert(0) += 1;
        }
    }
    println!("{counts:?}");
    assert!(counts["holds"] > 150 && counts["violated"] > 150, "{counts:?}");
}

#[test]
fn verdicts_agree_with_enumeration() {
    let mut counts = std::collections::BTreeMap::new();
    for seed in 0..1500 {
        for ties in [Ties::Strict, Ties::First] {
            *counts.entry(check_verdict(seed, ties)).or_insert(0) += 1;
        }
    }
    println!("{counts:?}");
    // The test is worth something only if both verdicts occur often.
    assert!(counts["holds"] > 300 && counts["violated"] > 300, "{counts:?}");
}

/// A float32 sum that may overflow in some order is enclosed by everything, and nothing is proved from it.
#[test]
fn overflow_opens_the_enclosure() {
    let mut net = Net::new();
    let node = |shape: usize, op, range| Node {
        name: String::new(),
        shape: vec![shape],
        op,
        grid: Grid::Float32,
        range,
        quantization: None,
    };
    let everything = (f64::NEG_INFINITY, f64::INFINITY);
    let x = net.add(node(3, Op::Input(0), everything));
    // Partial sums reach 6e38, beyond the largest float32; the whole is small.
    let weights = Weights::new(vec![1e38, 1e38, -2e38, 1.0, 0.0, 0.0]);
    let terms = vec![(x, LinearMap::Dense(Dense { outer: 1, n_in: 3, n_out: 2, weights }))];
    let rounding = Rounding::Slack { relative: 1e-6, absolute: Spread::all(1e-40) };
    let y = net.add(node(2, Op::Affine(Affine { terms, bias: Spread::all(0.0), rounding }), everything));
    net.set_outputs(vec![y]);
    let run = execute_all(&net, &[vec![3.0, 3.0, 3.0]], 1);
    assert_eq!((run.value(y).lo(0), run.value(y).hi(0)), everything);
    assert!(run.value(y).hi(1) < 3.1);
    let region = Region { lo: vec![3.0; 3], hi: vec![3.0; 3] };
    assert!(analyse(&Prepared::new(&net), &region).is_none());
}
