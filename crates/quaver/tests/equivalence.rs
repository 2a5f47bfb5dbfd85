//! Equivalence of random pairs of integer nets against enumeration, with tolerance zero: every relation, both directions of every tie, and bounds
//! that the farthest input meets exactly.

#[path = "common/random_nets.rs"]
mod random_nets;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quaver::model::ir::DType;
use quaver::model::lower::{Lowered, Softmax};
use quaver::net::{
    Affine, Grid, LinearMap, Net, Node, Op, Piecewise, Pointwise, Quantization, Rounding, ScalarFn, Spread,
    execute_all, execute_exact,
};
use quaver::num::Ratio;
use quaver::property::equivalence::{Norm, Pair, Question, Relation};
use quaver::property::{Region, corners};
use quaver::verify::{Options, Verdict, Verifier};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use random_nets::{Kind, enumerate, exact, lowered, random_net, random_region};
use rayon::prelude::*;

/// Outputs in real numbers are multiples of 1 / GRAIN.
const GRAIN: i128 = 1 << 30;

fn grains(y: f64) -> i128 {
    let scaled = y * GRAIN as f64;
    assert!(scaled.fract() == 0.0 && scaled.abs() < 1e18, "{y} is no multiple of the grain");
    scaled as i128
}

fn ratio(n: i128, d: i128) -> Ratio {
    format!("{n}/{d}").parse().expect("a fraction")
}

/// A pair, a box, and everything that both give on it.
struct Case {
    pair: Pair,
    region: Region,
    points: Vec<Vec<f64>>,
    /// For each point the outputs of A and of B: as they are (for classes) and in grains of real numbers.
    outputs: Vec<[Vec<f64>; 2]>,
    reals: Vec<[Vec<i128>; 2]>,
}

/// The same net with another last node.
fn with_last(net: &Net, change: impl FnOnce(&mut Node)) -> Net {
    let mut out = Net::new();
    let last = net.outputs()[0];
    let mut change = Some(change);
    for id in net.ids() {
        let mut node = net.node(id).clone();
        if id == last
            && let Some(change) = change.take()
        {
            change(&mut node);
        }
        out.add(node);
    }
    out.set_outputs(vec![last]);
    out
}

/// The net with one output one higher or lower on some inputs only: plus step(that output).
fn nearly(net: &Net, rng: &mut StdRng) -> Net {
    let mut out = net.clone();
    let last = net.outputs()[0];
    let n = net.node(last).len();
    let at = f64::from(rng.random_range(-20i32..20));
    let step = ScalarFn::Piecewise(Piecewise { knots: vec![(at, 0.0), (at + 1.0, 1.0)], left: 0.0, right: 0.0 });
    let op = Op::Pointwise(Pointwise { input: last, functions: Spread::all(step) });
    let range = out.range_of(&op);
    let grid = if out.makes_integers(&op) { Grid::Integer } else { Grid::Real };
    let bumps = out.add(Node { name: "bumps".into(), shape: vec![n], op, grid, range, quantization: None });
    let chosen = rng.random_range(0..n);
    let sign = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
    let scale = Spread::each((0..n).map(|i| if i == chosen { sign } else { 0.0 }).collect());
    let same = LinearMap::Diagonal { len: n, scale: Spread::all(1.0) };
    let terms = vec![(last, same), (bumps, LinearMap::Diagonal { len: n, scale })];
    let op = Op::Affine(Affine { terms, bias: Spread::all(0.0), rounding: Rounding::Exact });
    let (range, grid) = (out.range_of(&op), if out.makes_integers(&op) { Grid::Integer } else { Grid::Real });
    let bumped = out.add(Node { name: "bumped".into(), shape: vec![n], op, grid, range, quantization: None });
    out.set_outputs(vec![bumped]);
    out
}

/// A meaning for integers, which differs from output to output or not.
fn meaning(n: usize, rng: &mut StdRng) -> Quantization {
    let mut scale = || [0.25, 2.0, 1.0, f64::from(0.1f32)][rng.random_range(0..4)];
    let scale =
        if n.is_multiple_of(2) { Spread::all(scale()) } else { Spread::each((0..n).map(|_| scale()).collect()) };
    Quantization { scale, zero_point: Spread::all(rng.random_range(-3..=3)) }
}

impl Case {
    fn new(seed: u64) -> Case {
        let mut rng = StdRng::seed_from_u64(seed);
        let (inputs, classes) = (rng.random_range(1..=3), rng.random_range(1..=4));
        let kind = Kind { depth: 1..4, dequantized: seed.is_multiple_of(4), ..Kind::new(inputs, classes) };
        let a = random_net(seed, &kind);
        let b = match rng.random_range(0..5) {
            0 => a.clone(),
            1 | 2 => nearly(&a, &mut rng),
            3 => random_net(seed ^ 77, &Kind { dequantized: false, ..kind.clone() }),
            _ => random_net(seed ^ 99, &kind),
        };
        let mut nets = [a, b];
        let meaningful = seed % 4 == 1;
        if meaningful {
            let first = meaning(classes, &mut rng);
            let second = if rng.random_bool(0.5) { first.clone() } else { meaning(classes, &mut rng) };
            nets =
                [(&nets[0], first), (&nets[1], second)].map(|(n, q)| with_last(n, |last| last.quantization = Some(q)));
        }
        // An integer without a meaning cannot be compared with a real number.
        if nets[0].node(nets[0].outputs()[0]).grid != nets[1].node(nets[1].outputs()[0]).grid {
            nets[1] = nets[0].clone();
        }
        let region = random_region(inputs, true, &mut rng);
        let points = enumerate(&region);
        let run = |net: &Net| {
            let run = execute_all(net, &[points.concat()], points.len());
            run.value(net.outputs()[0]).center.chunks(classes).map(<[f64]>::to_vec).collect::<Vec<_>>()
        };
        let (of_a, of_b) = (run(&nets[0]), run(&nets[1]));
        let at = rng.random_range(0..points.len());
        for (net, outputs) in nets.iter().zip([&of_a, &of_b]) {
            let values = execute_exact(net, &[points[at].iter().map(|&x| exact(x)).collect()]);
            let exactly: Vec<f64> = values[net.outputs()[0].0].iter().map(quaver::num::Dyadic::to_f64).collect();
            assert_eq!(outputs[at], exactly, "the enumeration itself");
        }
        let real = |k: usize, y: &[f64]| -> Vec<i128> {
            let q: Option<&Quantization> = nets[k].node(nets[k].outputs()[0]).quantization.as_ref();
            let of = |(i, &y): (usize, &f64)| match q {
                None => grains(y),
                Some(q) => grains(*q.scale.at(i)) * (grains(y) / GRAIN - i128::from(*q.zero_point.at(i))),
            };
            y.iter().enumerate().map(of).collect()
        };
        let reals = of_a.iter().zip(&of_b).map(|(a, b)| [real(0, a), real(1, b)]).collect();
        let outputs = of_a.into_iter().zip(of_b).map(|(a, b)| [a, b]).collect();
        let [a, b] = nets.map(|net| Arc::new(lowered(net)));
        Case { pair: Pair::new(a, b).expect("a pair"), region, points, outputs, reals }
    }

    fn differences(&self, at: usize) -> Vec<i128> {
        let [a, b] = &self.reals[at];
        a.iter().zip(b).map(|(a, b)| a - b).collect()
    }

    /// The norm of the difference in grains, of the square for L2.
    fn norm(&self, norm: Norm, at: usize) -> i128 {
        let d = self.differences(at);
        match norm {
            Norm::L1 => d.iter().map(|d| d.abs()).sum(),
            Norm::L2 => d.iter().map(|d| d * d).sum(),
            Norm::LInf => d.iter().map(|d| d.abs()).max().unwrap_or(0),
        }
    }

    /// The largest norm, in grains; for L2 the least whole number whose square is not below.
    fn farthest(&self, norm: Norm) -> i128 {
        let most = (0..self.points.len()).map(|at| self.norm(norm, at)).max().expect("a point");
        if norm == Norm::L2 { root(most) } else { most }
    }

    /// Whether a point violates a relation, told from the definition; epsilon is in grains.
    fn violates(&self, relation: &Stated, at: usize) -> bool {
        match relation {
            Stated::Strict => self.differences(at).iter().any(|d| *d != 0),
            Stated::Epsilon(Norm::L2, epsilon) => self.norm(Norm::L2, at) > epsilon * epsilon,
            Stated::Epsilon(norm, epsilon) => self.norm(*norm, at) > *epsilon,
            Stated::First(k) => {
                let order = |y: &[f64]| {
                    let mut order: Vec<usize> = (0..y.len()).collect();
                    // A stable sort leaves the first of equals in front.
                    order.sort_by(|&i, &j| y[j].total_cmp(&y[i]));
                    order
                };
                let [a, b] = &self.outputs[at];
                !order(b)[..*k].contains(&order(a)[0])
            }
        }
    }
}

fn root(square: i128) -> i128 {
    let mut root = (square as f64).sqrt() as i128;
    while root * root < square {
        root += 1;
    }
    while root > 0 && (root - 1) * (root - 1) >= square {
        root -= 1;
    }
    root
}

/// A relation with a bound in grains.
#[derive(Debug)]
enum Stated {
    Strict,
    Epsilon(Norm, i128),
    First(usize),
}

impl Stated {
    fn relation(&self) -> Relation {
        match self {
            Stated::Strict => Relation::Strict,
            Stated::Epsilon(norm, epsilon) => Relation::Epsilon { norm: *norm, epsilon: ratio(*epsilon, GRAIN) },
            Stated::First(1) => Relation::Top1,
            Stated::First(k) => Relation::TopK(*k),
        }
    }
}

/// Relations that matter for a case: bounds that the farthest point meets, just misses, or nearly.
fn stated(case: &Case, rng: &mut StdRng) -> Vec<Stated> {
    let mut all = vec![Stated::Strict];
    for norm in [Norm::L1, Norm::L2, Norm::LInf] {
        let most = case.farthest(norm);
        let off = [0, -1, 1, GRAIN / 3, -GRAIN / 3][rng.random_range(0..5)];
        all.push(Stated::Epsilon(norm, most.max(0)));
        all.push(Stated::Epsilon(norm, (most + off).max(0)));
        all.push(Stated::Epsilon(norm, most / 2));
    }
    all.extend((1..case.pair.outputs()).map(Stated::First));
    all
}

/// What came out, and what is wrong with it.
type Seen = (String, Option<String>);

fn check(case: &Case, stated: &Stated, seed: u64) -> Vec<Seen> {
    let question = case.pair.question(&stated.relation()).expect("a question");
    let verifier = Verifier::new(question.lowered()).expect("one input and one output");
    let violating: Vec<bool> = (0..case.points.len()).map(|at| case.violates(stated, at)).collect();
    let truth = !violating.contains(&true);
    let options =
        |blind: bool| Options { timeout: Duration::from_secs(if blind { 1 } else { 20 }), seed, ..Options::default() };
    let name = format!("{stated:?}").split(['(', ',']).take(2).collect::<Vec<_>>().join(" ");
    let mut seen = vec![];
    // Once with witnesses from everywhere, once from one point, so that proofs are on their own.
    let only = seed as usize % case.points.len();
    let at = |at: usize| Region { lo: case.points[at].clone(), hi: case.points[at].clone() };
    for inside in [None, Some(at(only))] {
        let blind = inside.is_some();
        let verdict =
            verifier.decide(&question.query(case.region.clone(), inside, vec![]), &options(blind)).expect("a verdict");
        let fault = match &verdict {
            Verdict::Holds(_) if !truth => Some("`holds` is wrong".into()),
            Verdict::Holds(p) => excess(case, stated, p.margin()),
            Verdict::Undecided(u) if !blind => Some(format!("undecided: {}", u.why)),
            Verdict::Undecided(u) => excess(case, stated, u.bound),
            Verdict::Violated(w) => {
                let place = case.points.iter().position(|p| p == w.input());
                let right = place.is_some_and(|at| violating[at] && (!blind || at == only));
                let shown = place.is_some_and(|at| shows(case, &question, w.polyhedron(), at));
                (!right || !shown).then(|| format!("a wrong witness {:?}", w.input()))
            }
        };
        let word = match verdict {
            Verdict::Holds(_) => "holds",
            Verdict::Violated(_) => "violated",
            Verdict::Undecided(_) => "undecided",
        };
        seen.push((
            format!("{name} {word}{}", if blind { " blind" } else { "" }),
            fault.map(|f| format!("{stated:?}: {f}")),
        ));
    }
    seen
}

/// Whether a proved margin of a distance is above the true one.
fn excess(case: &Case, stated: &Stated, margin: f64) -> Option<String> {
    let Stated::Epsilon(norm, epsilon) = stated else { return None };
    let most = (0..case.points.len()).map(|at| case.norm(*norm, at)).max().expect("a point");
    let (true_margin, grain) = match norm {
        // Below the square of epsilon, what is proved is a bound on the sum of squares.
        Norm::L2 if margin < 0.0 || *epsilon == 0 => return None,
        Norm::L2 => (epsilon * epsilon - most, GRAIN * GRAIN),
        Norm::L1 if *epsilon == 0 => return None,
        Norm::L1 | Norm::LInf => (epsilon - most, GRAIN),
    };
    let proved = Ratio::from_f64(margin)?;
    ratio(true_margin, grain).minus(&proved).is_negative().then(|| format!("margin {margin} is above the true one"))
}

/// Whether what a polyhedron is said to mean is so at a point.
fn shows(case: &Case, question: &Question, polyhedron: usize, at: usize) -> bool {
    use quaver::property::equivalence::Difference;
    let grains = |r: &Ratio, x: i128| ratio(x, GRAIN).minus(r).is_negative();
    match question.difference(polyhedron) {
        Difference::Output { output, reversed, by } => {
            let d = case.differences(at)[*output];
            !grains(by, if *reversed { -d } else { d })
        }
        Difference::Distance(..) => true,
        Difference::Classes { class, before } => {
            let [a, b] = &case.outputs[at];
            let puts = |y: &[f64], j: usize, i: usize| y[j] > y[i] || (y[j] == y[i] && j < i);
            (0..a.len()).all(|k| k == *class || puts(a, *class, k)) && before.iter().all(|&j| puts(b, j, *class))
        }
    }
}

fn campaign(seeds: std::ops::Range<u64>) -> BTreeMap<String, usize> {
    let of = |seed: u64| -> Vec<Seen> {
        let case = Case::new(seed);
        let mut rng = StdRng::seed_from_u64(seed ^ 5);
        let name = |(what, fault): Seen| (what, fault.map(|f| format!("seed {seed}: {f}")));
        stated(&case, &mut rng).iter().flat_map(|s| check(&case, s, seed)).map(name).collect()
    };
    let all: Vec<Seen> = seeds.into_par_iter().flat_map_iter(of).collect();
    let wrong: Vec<&String> = all.iter().filter_map(|s| s.1.as_ref()).collect();
    assert!(wrong.is_empty(), "{} wrong:\n{wrong:#?}", wrong.len());
    all.into_iter().fold(BTreeMap::new(), |mut tally, (what, _)| {
        *tally.entry(what).or_default() += 1;
        tally
    })
}

#[test]
fn verdicts_are_those_of_enumeration() {
    let tally = campaign(0..120);
    println!("{tally:#?}");
    for relation in ["Strict", "Epsilon L1", "Epsilon L2", "Epsilon LInf", "First 1)", "First 2)", "First 3)"] {
        for word in ["holds", "violated"] {
            let often = tally.get(&format!("{relation} {word}")).copied().unwrap_or(0);
            assert!(often >= 3, "{relation} {word}: {often}");
        }
    }
}

/// `cargo test --release -p quaver --test equivalence -- --ignored --nocapture`.
#[test]
#[ignore = "minutes"]
fn verdicts_are_those_of_enumeration_at_length() {
    println!("{:#?}", campaign(1000..9000));
}

/// y = x, or with classes in the other order.
fn copying(n: usize, grid: Grid, reversed: bool) -> Net {
    let mut net = Net::new();
    let node = |name: &str, op, range| Node { name: name.into(), shape: vec![n], op, grid, range, quantization: None };
    let x = net.add(node("x", Op::Input(0), (-9.0, 9.0)));
    let from =
        (0..n).map(|i| quaver::net::From::Element { source: 0, index: if reversed { n - 1 - i } else { i } as u32 });
    let op = Op::Move(quaver::net::Move { sources: vec![x], from: from.collect() });
    let range = net.range_of(&op);
    let y = net.add(node("y", op, range));
    net.set_outputs(vec![y]);
    net
}

fn as_float(net: Net) -> Lowered {
    Lowered { input_types: vec![DType::F32], output_types: vec![DType::F32], ..lowered(net) }
}

fn decided(pair: &Pair, relation: &Relation, lo: &str, hi: &str) -> &'static str {
    let question = pair.question(relation).expect("a question");
    let all = |text: &str| vec![text.parse::<Ratio>().expect("a number"); pair.outputs()];
    let c = corners(question.lowered(), &all(lo), &all(hi)).expect("a box");
    let query = question.query(c.region, Some(c.inside), vec![c.middle]);
    let options = Options { timeout: Duration::from_secs(5), ..Options::default() };
    match Verifier::new(question.lowered()).expect("a net").decide(&query, &options).expect("a verdict") {
        Verdict::Holds(_) => "holds",
        Verdict::Violated(_) => "violated",
        Verdict::Undecided(_) => "undecided",
    }
}

/// On a single tie both say the first class, whichever input it comes from; one step away the reversed net says another.
#[test]
fn ties_are_exact() {
    let pair = |grid| {
        let [a, b] = [false, true].map(|reversed| Arc::new(as_float(copying(2, grid, reversed))));
        Pair::new(a, b).expect("a pair")
    };
    for grid in [Grid::Float32, Grid::Real] {
        assert_eq!(decided(&pair(grid), &Relation::Top1, "0.5", "0.5"), "holds");
        assert_eq!(decided(&pair(grid), &Relation::Top1, "0.5", "0.50001"), "violated");
    }
}

/// A net of real numbers and one of float32 values are compared on float32 values.
#[test]
fn the_finer_grid_is_common() {
    let [a, b] = [Grid::Real, Grid::Float32].map(|grid| Arc::new(as_float(copying(3, grid, false))));
    let pair = Pair::new(a, b).expect("a pair");
    let question = pair.question(&Relation::Strict).expect("a question");
    let net = &question.lowered().net;
    assert_eq!(net.node(net.inputs()[0]).grid, Grid::Float32);
    assert_eq!(decided(&pair, &Relation::Strict, "0.5", "0.5"), "holds");
    let bound = |text: &str| vec![text.parse::<Ratio>().expect("a number"); 3];
    assert!(corners(question.lowered(), &bound("0.1"), &bound("0.1")).is_err(), "no float32 is 0.1");
}

/// The distance of (x, y, z) and (z, y, x) is |x - z| times 2, root 2, 1: bounds about the exact most, 2 apart.
#[test]
fn distances_of_real_nets_are_decided_up_to_the_stated_gap() {
    let [a, b] = [false, true].map(|reversed| Arc::new(as_float(copying(3, Grid::Real, reversed))));
    let pair = Pair::new(a, b).expect("a pair");
    for (norm, above, below) in
        [(Norm::L1, "4.001", "3.99"), (Norm::LInf, "2.001", "1.99"), (Norm::L2, "2.8299", "2.82")]
    {
        let epsilon = |text: &str| Relation::Epsilon { norm, epsilon: text.parse().expect("a number") };
        assert_eq!(decided(&pair, &epsilon(above), "-1", "1"), "holds", "{norm} above");
        assert_eq!(decided(&pair, &epsilon(below), "-1", "1"), "violated", "{norm} below");
        assert_eq!(decided(&pair, &epsilon("0"), "-1", "1"), "violated", "{norm}");
        assert_eq!(decided(&pair, &epsilon("0"), "0.5", "0.5"), "holds", "{norm}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let net = |n, grid| as_float(copying(n, grid, false));
    let two = |a: Lowered, b: Lowered| Pair::new(Arc::new(a), Arc::new(b));
    let said = |pair: Result<Pair, _>| -> String {
        pair.err().map_or(String::new(), |e: quaver::property::equivalence::PairError| e.to_string())
    };
    assert!(said(two(net(2, Grid::Real), net(3, Grid::Real))).contains("input has shape [2], the second's [3]"));
    assert!(
        said(two(net(2, Grid::Real), lowered(copying(2, Grid::Integer, false)))).contains("float32, the second's int8")
    );
    let pair = two(net(2, Grid::Real), net(2, Grid::Real)).expect("a pair");
    let refused = |pair: &Pair, relation| pair.question(&relation).expect_err("refused").to_string();
    assert!(refused(&pair, Relation::TopK(2)).contains("the first 2 of 2 classes"));
    let negative = Relation::Epsilon { norm: Norm::L1, epsilon: ratio(-1, 2) };
    assert!(refused(&pair, negative).contains("negative"));
    let huge = Relation::Epsilon { norm: Norm::L2, epsilon: "1e300".parse().expect("a number") };
    assert!(refused(&pair, huge).contains("too large to be squared"));
    let softmax = || Lowered { softmax: vec![Some(Softmax { classes: 2, log: false })], ..net(2, Grid::Real) };
    let pair = two(softmax(), net(2, Grid::Real)).expect("a pair");
    assert!(refused(&pair, Relation::Strict).contains("Softmax"));
    assert!(pair.question(&Relation::Top1).is_ok());
    let rows = Lowered { softmax: vec![Some(Softmax { classes: 1, log: false })], ..net(2, Grid::Real) };
    assert!(refused(&two(rows, net(2, Grid::Real)).expect("a pair"), Relation::Top1).contains("several rows"));
    let bare = Lowered { input_types: vec![DType::F32], ..lowered(rounding_net()) };
    let pair = two(net(2, Grid::Float32), bare).expect("a pair");
    assert!(refused(&pair, Relation::Strict).contains("does not say what the integers"));
}

/// Integers from float32 values.
fn rounding_net() -> Net {
    let mut net = copying(2, Grid::Float32, false);
    let cuts = vec![quaver::net::Cut::at(0.5)];
    let step = ScalarFn::Step(quaver::net::Step::new(cuts, vec![0.0, 1.0]));
    let op = Op::Pointwise(Pointwise { input: net.outputs()[0], functions: Spread::all(step) });
    let range = net.range_of(&op);
    let y = net.add(Node { name: "q".into(), shape: vec![2], op, grid: Grid::Integer, range, quantization: None });
    net.set_outputs(vec![y]);
    net
}
