//! Branch and bound against enumeration, with tolerance zero: random integer nets with few inputs, and claims that some output meets exactly.
//!
//! What is claimed of every verdict: `holds` where no input of the region has a forbidden output, `violated` with an input that has one, and no
//! proved bound above the true margin; for nets of integers there is nothing else, however hard the claim is.
//!
//! The long run: `cargo test --release -p quaver --test enumeration -- --ignored --nocapture`.

#[path = "common/claims.rs"]
mod claims;
#[path = "common/listener.rs"]
mod listener;
#[path = "common/random_nets.rs"]
mod random_nets;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use claims::{GRAIN, Inequality, PARTS, Union, grains, is_forbidden, margin, polyhedra, random_union, ratio};
use listener::Listener;
use quaver::certificate::Tracer;
use quaver::model::lower::Lowered;
use quaver::net::{
    Affine, Dense, Grid, LinearMap, Net, Node, NodeId, Op, Piecewise, Pointwise, Rounding, ScalarFn, Spread, Weights,
    execute_all, execute_exact,
};
use quaver::num::Ratio;
use quaver::property::{Constraint, Polyhedron, Query, Region, Robustness, Ties};
use quaver::verify::{Options, Verdict, Verifier};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use random_nets::{Kind, enumerate, exact, lowered, member, random_net};
use rayon::prelude::*;

/// A region and everything that can come out, by each of some nets.
struct Case {
    region: Region,
    points: Vec<Vec<f64>>,
    outputs: Vec<Vec<i128>>,
    classes: usize,
}

impl Case {
    fn new<'n>(nets: impl IntoIterator<Item = &'n Net>, region: Region, rng: &mut StdRng) -> Self {
        let points = enumerate(&region);
        let mut case = Case { region, points, outputs: vec![], classes: 0 };
        for net in nets {
            let output = net.outputs()[0];
            case.classes = net.node(output).len();
            let run = execute_all(net, &[case.points.concat()], case.points.len());
            case.outputs.push(run.value(output).center.iter().map(|&y| grains(y)).collect());
            case.check_execution(net, rng);
        }
        case
    }

    /// The enumeration itself, at one point, against exact arithmetic.
    fn check_execution(&self, net: &Net, rng: &mut StdRng) {
        let at = rng.random_range(0..self.points.len());
        let values = execute_exact(net, &[self.points[at].iter().map(|&x| exact(x)).collect()]);
        let expected: Vec<i128> = values[net.outputs()[0].0].iter().map(|y| grains(y.to_f64())).collect();
        assert_eq!(self.outputs.last().map(|o| &o[at * self.classes..][..self.classes]), Some(&expected[..]));
    }

    fn rows(&self, net: usize) -> impl Iterator<Item = &[i128]> {
        self.outputs[net].chunks(self.classes)
    }

    fn forbidden(&self, net: usize, union: &Union) -> bool {
        self.rows(net).any(|y| is_forbidden(union, y))
    }

    /// The least margin of all outputs of all nets, as a multiple of 1 / (PARTS GRAIN).
    fn margin(&self, union: &Union) -> Option<i128> {
        (0..self.outputs.len()).flat_map(|net| self.rows(net)).map(|y| margin(union, y)).min().expect("an output")
    }

    fn query(&self, union: &Union) -> Query {
        let forbidden = polyhedra(union);
        Query { region: self.region.clone(), inside: None, candidates: vec![], forbidden }
    }

    /// The same question with witnesses from one point only, so that the proof is on its own.
    fn blind(&self, union: &Union, at: usize) -> Query {
        let (lo, hi) = (self.points[at].clone(), self.points[at].clone());
        Query { inside: Some(Region { lo, hi }), ..self.query(union) }
    }
}

/// The outputs that refute a robustness claim, a polyhedron for each rival.
fn rivals(label: usize, classes: usize, ties: Ties) -> Union {
    let beats = |rival: usize| {
        let strict = ties == Ties::First && rival > label;
        vec![Inequality { terms: vec![(label, PARTS), (rival, -PARTS)], bound: 0, strict }]
    };
    (0..classes).filter(|&c| c != label).map(beats).collect()
}

/// Verdicts, and what is wrong with some.
#[derive(Default, Debug)]
struct Tally {
    holds: usize,
    violated: usize,
    undecided: usize,
    searched: usize,
    subproblems: u64,
    longest: f64,
    wrong: Vec<String>,
    /// Claims about nets of integers that were not decided.
    missed: Vec<String>,
}

/// What is known about a question before it is asked.
struct Truth<'c> {
    case: &'c Case,
    union: &'c Union,
    /// Whether no output of any net is forbidden.
    holds: bool,
    /// Where witnesses may come from, if not everywhere.
    only: Option<usize>,
    /// Whether outputs are integers, so that margins are in their units and every question can be decided.
    is_exact: bool,
}

impl Truth<'_> {
    /// What is wrong with a verdict.
    fn fault(&self, verdict: &Verdict) -> Option<String> {
        match verdict {
            Verdict::Holds(_) if !self.holds => Some("`holds` is wrong".into()),
            Verdict::Holds(p) if self.exceeds_margin(p.margin()) => Some(format!("margin {}", p.margin())),
            Verdict::Undecided(u) if self.exceeds_margin(u.bound) => Some(format!("bound {} ({})", u.bound, u.why)),
            Verdict::Violated(w) => {
                let position = self.case.points.iter().position(|p| p == w.input());
                let Some(at) = position.filter(|&at| self.only.is_none_or(|only| only == at)) else {
                    return Some(format!("a witness outside: {:?}", w.input()));
                };
                let net = w.profile().parse().unwrap_or(0);
                let y = self.case.rows(net).nth(at).expect("an output");
                let named = self.union.get(w.polyhedron()).is_some_and(|p| p.iter().all(|c| c.satisfied(y)));
                (!named).then(|| format!("the witness {:?} does not refute", w.input()))
            }
            Verdict::Holds(_) | Verdict::Undecided(_) => None,
        }
    }

    /// Whether a proved bound is above the least margin.
    fn exceeds_margin(&self, bound: f64) -> bool {
        if !self.is_exact || bound == f64::NEG_INFINITY {
            return false;
        }
        match (self.case.margin(self.union), Ratio::from_f64(bound)) {
            (Some(least), Some(bound)) => ratio(least, PARTS * GRAIN).minus(&bound).is_negative(),
            (None, _) | (_, None) => true,
        }
    }

    /// What makes a question hard that was not decided.
    fn difficulty(&self) -> &'static str {
        match self.case.margin(self.union) {
            Some(1..PARTS) => "holds by less than a grain",
            Some(0) if self.holds => "holds because bounds are strict",
            _ if self.holds => "holds",
            _ => "violated",
        }
    }

    /// Whether a complete search must have an answer.
    fn must_decide(&self) -> bool {
        let (case, at) = (self.case, self.only);
        let refutes =
            |at: usize| (0..case.outputs.len()).any(|n| is_forbidden(self.union, case.rows(n).nth(at).expect("one")));
        self.is_exact && (self.holds || at.is_none_or(refutes))
    }
}

impl Tally {
    fn note(&mut self, verdict: &Verdict, truth: &Truth, context: &str) {
        let subproblems = match verdict {
            Verdict::Holds(p) => p.subproblems(),
            Verdict::Undecided(u) => u.subproblems,
            Verdict::Violated(_) => 0,
        };
        self.subproblems += subproblems;
        self.searched += usize::from(subproblems > 0);
        if let Some(fault) = truth.fault(verdict) {
            self.wrong.push(format!("{context}: {fault}; {verdict:?}; {:?}", truth.union));
        }
        match verdict {
            Verdict::Holds(_) => self.holds += 1,
            Verdict::Violated(_) => self.violated += 1,
            Verdict::Undecided(_) => self.undecided += 1,
        }
    }

    /// The same, for a search without limits.
    fn note_complete(&mut self, verdict: &Verdict, truth: &Truth, context: &str) {
        self.note(verdict, truth, context);
        if let Verdict::Undecided(u) = verdict
            && truth.must_decide()
        {
            self.missed.push(format!("{}: {context}: {u:?}; {:?}", truth.difficulty(), truth.union));
        }
    }

    fn with(mut self, other: Tally) -> Tally {
        self.holds += other.holds;
        self.violated += other.violated;
        self.undecided += other.undecided;
        self.searched += other.searched;
        self.subproblems += other.subproblems;
        self.longest = self.longest.max(other.longest);
        self.wrong.extend(other.wrong);
        self.missed.extend(other.missed);
        self
    }

    fn print(&self, name: &str, started: Instant) {
        let Tally { holds, violated, undecided, searched, subproblems, longest, wrong, missed } = self;
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{name}: {holds} hold, {violated} violated, {undecided} undecided ({} that need not be), {} wrong; {searched} searched with \
             {subproblems} subproblems; {seconds:.1} s, longest seed {longest:.2} s",
            missed.len(),
            wrong.len()
        );
        let mut kinds = BTreeMap::new();
        let kind = |m: &String| {
            format!("{}{}", m.split(':').next().unwrap_or(""), if m.contains("classes") { ", classes" } else { "" })
        };
        missed.iter().for_each(|m| *kinds.entry(kind(m)).or_insert(0) += 1);
        println!("  undecided: {kinds:?}");
        missed
            .iter()
            .filter(|m| m.contains("classes") || m.starts_with("holds:"))
            .take(12)
            .for_each(|m| println!("  undecided: {m}"));
        wrong.iter().take(12).for_each(|w| println!("  wrong: {w}"));
    }
}

/// Checks seeds one by one, panics included.
fn survey(name: &str, seeds: std::ops::Range<u64>, check: impl Fn(u64, &mut Tally)) -> Tally {
    let (started, mut tally) = (Instant::now(), Tally::default());
    for seed in seeds {
        let begun = Instant::now();
        if catch_unwind(AssertUnwindSafe(|| check(seed, &mut tally))).is_err() {
            tally.wrong.push(format!("seed {seed}: a panic"));
        }
        tally.longest = tally.longest.max(begun.elapsed().as_secs_f64());
    }
    tally.print(name, started);
    tally
}

/// [`survey`] on all cores, told of in parts, so that a long run shows where it is.
fn long_survey(name: &str, seeds: std::ops::Range<u64>, check: impl Fn(u64, &mut Tally) + Sync) -> Tally {
    let started = Instant::now();
    let starts: Vec<u64> = seeds.clone().step_by(PART as usize).collect();
    let part = |&first: &u64| survey(&format!("{name} from {first}"), first..seeds.end.min(first + PART), &check);
    let tallies: Vec<Tally> = starts.par_iter().with_max_len(1).map(part).collect();
    let total = tallies.into_iter().reduce(Tally::with).unwrap_or_default();
    total.print(name, started);
    total
}

/// Seeds of a part of a long run.
const PART: u64 = 250;

/// A box with at most `most` points.
fn random_box(inputs: usize, most: f64, rng: &mut StdRng) -> Region {
    let target = most.powf(rng.random_range(0.1..1.0));
    let width = target.powf(1.0 / inputs as f64).floor() as i32 - 1;
    let ends = |rng: &mut StdRng| {
        let narrow = if rng.random_bool(0.1) { 0 } else { width.max(1) };
        let narrow = if most.log2() < f64::from(inputs as u32) { 0 } else { narrow };
        let lo = -rng.random_range(0..=narrow + 3);
        (f64::from(lo), f64::from(lo + narrow))
    };
    let (lo, hi): (Vec<f64>, Vec<f64>) = (0..inputs).map(|_| ends(rng)).unzip();
    let mut region = Region { lo, hi };
    let count = |r: &Region| r.lo.iter().zip(&r.hi).map(|(l, h)| h - l + 1.0).product::<f64>();
    while count(&region) > most {
        let i = rng.random_range(0..inputs);
        region.hi[i] = region.lo[i];
    }
    region
}

/// Six inputs at most and 2^16 points.
fn small_case(seed: u64, bands: bool) -> (Kind, Region, StdRng) {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x51ed_270b);
    let inputs = rng.random_range(1..=6);
    let region = random_box(inputs, 65536.0, &mut rng);
    let reach = region.lo.iter().chain(&region.hi).fold(8.0, |m: f64, x| m.max(x.abs()));
    let dequantized = !bands && rng.random_bool(0.15);
    let classes = rng.random_range(2..=4);
    (Kind { bands, reach, depth: 1..5, dequantized, ..Kind::new(inputs, classes) }, region, rng)
}

/// Without a limit on time: what is claimed is that the search ends. Some searches are traced, as for a certificate.
fn options(rng: &mut StdRng) -> Options {
    let threads = if rng.random_bool(0.1) { 2 } else { 1 };
    let timeout = Duration::from_secs(3600);
    let tracer = rng.random_bool(0.4).then(|| Arc::new(Listener::default()) as Arc<dyn Tracer>);
    Options { threads, timeout, tracer, ..Options::default() }
}

/// A robustness claim, a union of polyhedra, and the same union where the attack cannot help.
fn check_exact(net: Net, region: Region, is_exact: bool, seed: u64, rng: &mut StdRng, tally: &mut Tally) {
    let case = Case::new([&net], region, rng);
    let lowered = lowered(net);
    let verifier = Verifier::new(&lowered).expect("a classifier");
    let options = options(rng);
    let any = rng.random_range(0..case.points.len());
    let y = case.rows(0).nth(any).expect("an output");
    let label = (0..case.classes).max_by_key(|&c| (y[c], std::cmp::Reverse(c))).expect("a class");
    for ties in [Ties::Strict, Ties::First] {
        let union = rivals(label, case.classes, ties);
        let claim = Robustness { region: case.region.clone(), center: None, label, ties };
        let verdict = verifier.robustness(&claim, &options).expect("a classifier");
        let truth = Truth { case: &case, union: &union, holds: !case.forbidden(0, &union), only: None, is_exact };
        tally.note_complete(&verdict, &truth, &format!("seed {seed}, classes, {ties:?}"));
    }
    let union = random_union(&case.outputs[0], case.classes, rng);
    let holds = !case.forbidden(0, &union);
    for (query, only) in [(case.query(&union), None), (case.blind(&union, any), Some(any))] {
        let verdict = verifier.decide(&query, &options).expect("a query that fits");
        let truth = Truth { case: &case, union: &union, holds, only, is_exact };
        tally.note_complete(&verdict, &truth, &format!("seed {seed}, only {only:?}"));
    }
}

fn check_small(seed: u64, tally: &mut Tally) {
    let (kind, region, mut rng) = small_case(seed, false);
    check_exact(random_net(seed, &kind), region, !kind.dequantized, seed, &mut rng, tally);
}

/// Seventeen inputs with two values each: too many for splits of inputs alone.
fn wide_case(seed: u64) -> (Kind, Region, StdRng) {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x7f4a_7c15);
    let lo: Vec<f64> = (0..17).map(|_| f64::from(rng.random_range(-3i32..=2))).collect();
    let hi = lo.iter().map(|l| l + 1.0).collect();
    (Kind { depth: 2..5, ..Kind::new(17, rng.random_range(2..=3)) }, Region { lo, hi }, rng)
}

fn check_wide(seed: u64, tally: &mut Tally) {
    let (kind, region, mut rng) = wide_case(seed);
    check_exact(random_net(seed, &kind), region, true, seed, &mut rng, tally);
}

/// No verdict is wrong, and at most so many that the search could give are missing.
fn assert_right(tally: &Tally, most_missed: usize) {
    assert!(tally.wrong.is_empty(), "{:?}", tally.wrong.first());
    assert!(tally.missed.len() <= most_missed, "{:?}", tally.missed.first());
    let (fewer, more) = (tally.holds.min(tally.violated), tally.holds.max(tally.violated));
    assert!(20 * fewer > more && tally.searched > 0, "one-sided");
}

#[test]
fn verdicts_equal_enumeration() {
    assert_right(&survey("small nets", 0..300, check_small), 0);
}

#[test]
fn verdicts_on_many_inputs_equal_enumeration() {
    // Some of these hold by less than 2^-40 of the numbers in them: only exhaustion would show it.
    assert_right(&survey("many inputs", 0..6, check_wide), 4);
}

/// Two constraints of this one are compared as a sum, whose gap is that of both together.
#[test]
fn the_margin_of_a_sum_of_two_constraints_is_that_of_one() {
    let mut tally = Tally::default();
    check_small(15950, &mut tally);
    assert!(tally.wrong.is_empty(), "{:?}", tally.wrong.first());
}

#[test]
#[ignore = "minutes"]
fn many_verdicts_equal_enumeration() {
    assert_right(&long_survey("small nets", 0..20_000, check_small), 0);
}

#[test]
#[ignore = "minutes"]
fn many_verdicts_on_many_inputs_equal_enumeration() {
    assert_right(&long_survey("many inputs", 0..400, check_wide), 100);
}

/// An envelope of three members and more functions of it that no member is: `holds` is true for all, or with a conjunction for each member;
/// `violated` for the member that is named. A conjunction is always decided; an envelope whose members are all right need not be.
fn check_envelope(seed: u64, tally: &mut Tally) {
    let (kind, region, mut rng) = small_case(seed, true);
    let net = random_net(seed, &kind);
    let functions: Vec<Net> = (0..6).map(|_| member(&net, &mut rng)).collect();
    let case = Case::new(&functions, region, &mut rng);
    let of_members = |case: &Case| Case {
        region: case.region.clone(),
        points: case.points.clone(),
        outputs: case.outputs[..3].to_vec(),
        classes: case.classes,
    };
    let members_case = of_members(&case);
    let members: Vec<Lowered> = functions
        .iter()
        .take(3)
        .enumerate()
        .map(|(k, m)| Lowered { profile: k.to_string(), ..lowered(m.clone()) })
        .collect();
    let union = random_union(&case.outputs[0], case.classes, &mut rng);
    let options = options(&mut rng);
    let at = rng.random_range(0..case.points.len());
    for is_conjunction in [false, true] {
        let envelope = Lowered { members: members.clone(), is_conjunction, ..lowered(net.clone()) };
        let verifier = Verifier::new(&envelope).expect("a classifier");
        let case = if is_conjunction { &members_case } else { &case };
        let holds = (0..case.outputs.len()).all(|n| !case.forbidden(n, &union));
        for (query, only) in [(case.query(&union), None), (case.blind(&union, at), Some(at))] {
            let verdict = verifier.decide(&query, &options).expect("a query that fits");
            let truth = Truth { case, union: &union, holds, only, is_exact: true };
            let context = format!("seed {seed}, conjunction {is_conjunction}, only {only:?}");
            if is_conjunction {
                tally.note_complete(&verdict, &truth, &context);
            } else {
                tally.note(&verdict, &truth, &context);
                let refuted = (0..3).any(|n| members_case.forbidden(n, &union));
                if only.is_none() && refuted && matches!(verdict, Verdict::Undecided(_)) {
                    tally.missed.push(format!("a member is wrong: {context}: {verdict:?}; {union:?}"));
                }
            }
        }
    }
}

#[test]
fn verdicts_about_envelopes_equal_enumeration() {
    assert_right(&survey("envelopes", 0..120, check_envelope), 0);
}

#[test]
#[ignore = "minutes"]
fn many_verdicts_about_envelopes_equal_enumeration() {
    assert_right(&long_survey("envelopes", 0..6000, check_envelope), 0);
}

/// Searches that are cut short: each answer is right or `undecided`, and what is said to be proved is.
fn check_limits(seed: u64, tally: &mut Tally) {
    let (kind, region, mut rng) =
        if seed.is_multiple_of(50) { wide_case(seed) } else { small_case(seed, seed % 5 == 1) };
    let net = random_net(seed, &kind);
    let functions: Vec<Net> =
        if kind.bands { (0..3).map(|_| member(&net, &mut rng)).collect() } else { vec![net.clone()] };
    let case = Case::new(&functions, region, &mut rng);
    let members = functions.iter().enumerate().map(|(k, m)| Lowered { profile: k.to_string(), ..lowered(m.clone()) });
    let is_conjunction = rng.random_bool(0.5);
    let lowered = Lowered { members: members.collect(), is_conjunction, ..lowered(net) };
    let verifier = Verifier::new(&lowered).expect("a classifier");
    let union = random_union(&case.outputs[0], case.classes, &mut rng);
    let at = rng.random_range(0..case.points.len());
    let holds = (0..case.outputs.len()).all(|n| !case.forbidden(n, &union));
    for options in limits() {
        for (query, only) in [(case.query(&union), None), (case.blind(&union, at), Some(at))] {
            let verdict = verifier.decide(&query, &options).expect("a query that fits");
            let truth = Truth { case: &case, union: &union, holds, only, is_exact: !kind.dequantized };
            tally.note(
                &verdict,
                &truth,
                &format!("seed {seed}, conjunction {is_conjunction}, only {only:?}, {options:?}"),
            );
        }
    }
}

fn limits() -> Vec<Options> {
    let few =
        |subproblems: u64| Options { subproblems, threads: 1 + (subproblems == 20) as usize, ..Options::default() };
    let mut all: Vec<Options> = [0, 1, 2, 5, 20, 100].map(few).to_vec();
    all.push(Options { memory: 1, ..Options::default() });
    all.push(Options { memory: 2000, ..Options::default() });
    all.push(Options { timeout: Duration::ZERO, ..Options::default() });
    all.push(Options { stop: Some(Arc::new(AtomicBool::new(true))), ..Options::default() });
    all
}

#[test]
fn searches_that_are_cut_short_are_right() {
    let tally = survey("limits", 0..150, check_limits);
    assert!(tally.wrong.is_empty(), "{:?}", tally.wrong.first());
    assert!(tally.undecided > 100, "the limits are never reached");
}

#[test]
#[ignore = "minutes"]
fn many_searches_that_are_cut_short_are_right() {
    let tally = long_survey("limits", 0..4000, check_limits);
    assert!(tally.wrong.is_empty(), "{:?}", tally.wrong.first());
}

fn dense(net: &mut Net, x: NodeId, rows: &[&[f64]], bias: &[f64]) -> NodeId {
    let (n_in, n_out) = (net.node(x).len(), rows.len());
    let dense = Dense { outer: 1, n_in, n_out, weights: Weights::new(rows.concat()) };
    let bias = Spread::each(bias.to_vec());
    add(net, n_out, Op::Affine(Affine { terms: vec![(x, LinearMap::Dense(dense))], bias, rounding: Rounding::Exact }))
}

fn relu(net: &mut Net, x: NodeId) -> NodeId {
    let functions = Spread::all(ScalarFn::Piecewise(Piecewise::relu()));
    add(net, net.node(x).len(), Op::Pointwise(Pointwise { input: x, functions }))
}

fn add(net: &mut Net, len: usize, op: Op) -> NodeId {
    let range = net.range_of(&op);
    net.add(Node { name: String::new(), shape: vec![len], op, grid: Grid::Integer, range, quantization: None })
}

fn decide(net: Net, region: Region, terms: &[(usize, &str)], bound: &str) -> Verdict {
    let number = |text: &str| text.parse::<Ratio>().expect("a number");
    let terms = terms.iter().map(|(i, a)| (*i, number(a))).collect();
    let forbidden = vec![Polyhedron::new(vec![Constraint { terms, bound: number(bound), strict: false }])];
    let query = Query { region, inside: None, candidates: vec![], forbidden };
    let lowered = lowered(net);
    Verifier::new(&lowered).expect("one input").decide(&query, &Options::default()).expect("a query that fits")
}

/// -2^20 / 3 + 349525 is -1/3, and with the float below a third it is 2e-11 more.
#[test]
fn coefficients_that_no_float_holds_exclude_nothing() {
    let mut net = Net::new();
    let x = add(&mut net, 2, Op::Input(0));
    net.set_outputs(vec![x]);
    let region = Region { lo: vec![-1_048_576.0, 349_525.0], hi: vec![-1_048_576.0, 349_526.0] };
    let verdict = decide(net, region, &[(0, "1/3"), (1, "1")], "-1/3");
    assert!(matches!(verdict, Verdict::Violated(_)), "{verdict:?}");
}

/// Splits of functions where every function of the second layer is affine on its bounds: with s the sum of the inputs less 8, the output is
/// |s| - 2 max(s - 1, 0) - 1.
#[test]
fn a_layer_with_nothing_to_tune() {
    let mut net = Net::new();
    let x = add(&mut net, 17, Op::Input(0));
    let (up, down) = (vec![1.0; 17], vec![-1.0; 17]);
    let first = dense(&mut net, x, &[&up, &down, &up], &[-8.0, 8.0, -9.0]);
    let first = relu(&mut net, first);
    let second = dense(&mut net, first, &[&[1.0, 1.0, 0.0], &[0.0, 0.0, 1.0]], &[1.0, 1.0]);
    let second = relu(&mut net, second);
    let y = dense(&mut net, second, &[&[1.0, -2.0]], &[0.0]);
    net.set_outputs(vec![y]);
    let region = Region { lo: vec![0.0; 17], hi: vec![1.0; 17] };
    let verdict = decide(net, region, &[(0, "1")], "-9");
    assert!(matches!(verdict, Verdict::Holds(_)), "{verdict:?}");
}

/// What is proved of the first member says nothing of those that were not reached.
#[test]
fn a_conjunction_that_is_cut_short_bounds_every_member() {
    let mut tally = Tally::default();
    check_limits(2691, &mut tally);
    assert!(tally.wrong.is_empty(), "{:?}", tally.wrong.first());
}
