//! VNN-LIB: the published queries, queries that are written and read back, mutants, and merged nets.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::collection;
use proptest::prelude::*;
use quaver::model::build::ModelBuilder;
use quaver::model::ir::{DType, Op, Tensor as Constant};
use quaver::model::lower::{Lowered, lower};
use quaver::model::profile;
use quaver::net::execute;
use quaver::num::Ratio;
use quaver::property::vnnlib::{Problem, Value};
use quaver::verify::{Options, Verdict, Verifier};
use quaver::vnnlib::{
    Constraint, Decimal, ElementType, Equivalence, Network, Relation, Side, Spec, Tensor, Variable, Version, parse,
    read, write,
};

fn queries(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.to_string_lossy().to_string();
        if path.is_dir() {
            queries(&path, found);
        } else if name.ends_with(".vnnlib") || name.ends_with(".vnnlib.gz") {
            found.push(path);
        }
    }
}

#[test]
fn published_queries_are_read_and_written() {
    let Some(data) = collection() else { return };
    let mut files = vec![];
    queries(&data, &mut files);
    assert!(files.len() >= 200, "{} queries", files.len());
    for file in files {
        let spec = read(&file).unwrap_or_else(|e| panic!("{e}"));
        assert!(!spec.cases.is_empty() && !spec.constraints.is_empty(), "{}", file.display());
        assert_same(&spec, &parse(&write(&spec)).unwrap_or_else(|e| panic!("{}: {e}", file.display())));
    }
}

/// Constraints may be numbered otherwise.
fn assert_same(a: &Spec, b: &Spec) {
    assert_eq!((a.version, &a.networks), (b.version, &b.networks));
    let expanded = |spec: &Spec| -> Vec<Vec<Constraint>> {
        let all = |case: &Vec<u32>| spec.listed(&spec.always).chain(spec.listed(case)).cloned().collect();
        spec.cases.iter().map(all).collect()
    };
    assert_eq!(expanded(a), expanded(b));
}

/// A network with two inputs and an output, of this version's form.
fn networks(version: Version) -> Vec<Network> {
    let tensor =
        |name: &str, shape: &[usize]| Tensor { name: name.into(), element: ElementType::Real, shape: shape.into() };
    match version {
        Version::V1 => {
            vec![Network {
                name: String::new(),
                same: None,
                inputs: vec![tensor("X", &[4])],
                outputs: vec![tensor("Y", &[3])],
            }]
        }
        Version::V2 => {
            let network = |name: &str, same| Network {
                name: name.into(),
                same,
                inputs: vec![tensor(&format!("A_{name}"), &[2, 3]), tensor(&format!("B_{name}"), &[])],
                outputs: vec![tensor(&format!("Y_{name}"), &[1, 4])],
            };
            vec![network("f", None), network("g", Some(Equivalence::IsomorphicTo(0)))]
        }
    }
}

fn decimal() -> impl Strategy<Value = Decimal> {
    (-9999i64..9999, 0usize..12).prop_map(|(n, places)| Decimal::parse(&format!("{n}e-{places}")).expect("a decimal"))
}

fn variable(networks: Vec<Network>) -> impl Strategy<Value = Variable> {
    let mut all = vec![];
    for (network, declared) in networks.iter().enumerate() {
        for side in [Side::Input, Side::Output] {
            for (tensor, t) in declared.tensors(side).iter().enumerate() {
                all.extend((0..t.len()).map(|element| Variable { network, side, tensor, element }));
            }
        }
    }
    proptest::sample::select(all)
}

fn constraint(version: Version) -> impl Strategy<Value = Constraint> {
    let relation = proptest::sample::select(vec![Relation::LessEqual, Relation::Less, Relation::Equal]);
    let terms = proptest::collection::btree_map(variable(networks(version)), decimal(), 1..4);
    (terms, relation, decimal()).prop_filter_map("a constraint on something", |(terms, relation, bound)| {
        let terms: Vec<_> = terms.into_iter().filter(|t| !t.1.is_zero()).collect();
        let unit = |d: &Decimal| d.is_unit();
        let plain = match &terms[..] {
            [] => return None,
            [(_, a)] => unit(a),
            [(_, a), (_, b)] => unit(a) && *b == a.negated() && bound.is_zero(),
            _ => false,
        };
        Some(Constraint { terms, relation, bound, computed: !plain })
    })
}

fn spec(version: Version) -> impl Strategy<Value = Spec> {
    let constraints = proptest::collection::vec(constraint(version), 0..12);
    let cases = proptest::collection::vec(proptest::collection::vec(any::<prop::sample::Index>(), 0..4), 2..5);
    (constraints, cases).prop_map(move |(constraints, cases)| {
        let count = constraints.len();
        let list = |case: Vec<prop::sample::Index>| {
            if count == 0 { vec![] } else { case.iter().map(|i| i.index(count) as u32).collect() }
        };
        let always = (0..count as u32 / 2).collect();
        Spec { version, networks: networks(version), constraints, always, cases: cases.into_iter().map(list).collect() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_written_is_read_back(spec in prop_oneof![spec(Version::V1), spec(Version::V2)]) {
        let text = write(&spec);
        let again = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_same(&spec, &again);
    }
}

/// Texts with a byte or a piece changed.
fn mutant(seed: &str, i: u64) -> String {
    // A linear congruential generator: the mutants are the same in every run.
    let mut state = i.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    let mut next = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n.max(1)
    };
    let mut bytes = seed.as_bytes().to_vec();
    let pieces = [
        "(",
        ")",
        "[",
        "]",
        "\"",
        ";",
        "or",
        "and",
        "*",
        "-",
        "<=",
        "!=",
        "1e400",
        "X[0]",
        "99999999999",
        "\u{e9}",
        "(or (and",
    ];
    for _ in 0..=next(2) {
        let (at, other) = (next(bytes.len()), next(bytes.len()));
        let (first, last) = (at.min(other), at.max(other));
        match next(8) {
            0 => bytes[at] = next(256) as u8,
            1 => drop(bytes.drain(first..last.min(first + 40))),
            2 => bytes.truncate(last),
            3 => {
                let piece = bytes[first..last.min(first + 60)].to_vec();
                bytes.splice(at..at, piece);
            }
            4..=6 => {
                let digit = bytes[at..].iter().position(u8::is_ascii_digit).map(|k| at + k);
                digit.into_iter().for_each(|k| bytes[k] = b'0' + next(10) as u8);
            }
            _ => drop(bytes.splice(at..at, pieces[next(pieces.len())].bytes())),
        }
        if bytes.is_empty() {
            bytes.push(b'(');
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn mutants_are_read_or_refused_soon() {
    let seeds = [
        "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (or (and (<= X_0 0.5)(>= X_0 -1e-2))(<= (+ X_0 (* 2 Y_0)) (- 1))))",
        "(vnnlib-version <2.0>)(declare-network f (declare-input X float32 [1,2])(declare-output Y int8 []))(declare-network g \
         (isomorphic-to f)(declare-input A real [2])(declare-output B real [2]))\n(assert (<= X[0,1] 0.25 1))\
         (assert (or (Y < B[1]) (!= (- Y B[0] 3) (* 0.5 (+ A[0] A[1])))))",
    ];
    let (start, mut accepted) = (Instant::now(), 0);
    for i in 0..10_000 {
        let text = mutant(seeds[i as usize % 2], i);
        let before = Instant::now();
        accepted += usize::from(parse(&text).is_ok());
        assert!(before.elapsed() < Duration::from_secs(2), "slow: {text}");
    }
    assert!(accepted > 100 && accepted < 9_000, "{accepted} of 10000 mutants are queries");
    assert!(start.elapsed() < Duration::from_secs(60));
}

/// y = relu(x W + b) V with weights from a seed.
fn small(name: &str, inputs: usize, seed: usize) -> Arc<Lowered> {
    let mut b = ModelBuilder::new(name);
    let weight = |i: usize| ((i * 37 + seed * 101) % 17) as f32 / 8.0 - 1.0;
    let x = b.input("x", DType::F32, &[1, inputs]).expect("an input");
    let w = b.constant("w", Constant::f32(&[inputs, 5], (0..inputs * 5).map(weight).collect())).expect("weights");
    let v = b.constant("v", Constant::f32(&[5, 3], (0..15).map(|i| weight(i + 7)).collect())).expect("weights");
    let h = b.node(Op::MatMul, &[x, w]).expect("a layer");
    let h = b.node(Op::Relu, &[h]).expect("a layer");
    let y = b.node(Op::MatMul, &[h, v]).expect("a layer");
    b.output(y);
    let model = b.finish().expect("a model");
    Arc::new(lower(&model, &*profile::parse("real").expect("a profile")).expect("a net"))
}

fn pair(asserts: &str) -> Spec {
    let declare =
        |n: &str| format!("(declare-network {n} (declare-input X{n} real [1,2]) (declare-output Y{n} real [3]))");
    let bounds: String = (0..2).map(|i| format!("(assert (<= 0 Xf[0,{i}] 1))")).collect();
    parse(&format!("(vnnlib-version <2.0>){}{}{bounds}{asserts}", declare("f"), declare("g"))).expect("a query")
}

fn floats(values: &[Value]) -> Vec<f64> {
    let one = |v: &Value| match v {
        Value::Float(x) => *x,
        Value::Decimal(d) => d.ratio().approx(),
    };
    values.iter().map(one).collect()
}

#[test]
fn a_merged_net_computes_what_both_compute() {
    let nets = [small("f", 2, 1), small("g", 2, 2)];
    let shared = "(assert (== Xf[0,0] Xg[0,0]))(assert (== Xg[0,1] Xf[0,1]))(assert (<= Yf[0] Yg[0]))";
    let tied = "(assert (<= Xf[0,0] Xg[0,0] 1))(assert (== Xg[0,1] Xf[0,1]))(assert (<= (+ Yf[0] Xf[0,1]) Yg[0]))";
    for (asserts, free, outputs) in [(shared, 2, 6), (tied, 3, 9)] {
        let spec = pair(asserts);
        let problem = Problem::new(&spec, &nets).expect("a problem");
        let [part] = &problem.parts[..] else { panic!("{} parts", problem.parts.len()) };
        let net = &part.lowered.net;
        assert_eq!((net.node(net.inputs()[0]).len(), net.node(net.outputs()[0]).len()), (free, outputs));
        for k in 0..20 {
            let x: Vec<f64> = (0..free).map(|i| f64::from((i * 7 + k * 5) as u32 % 11) / 16.0).collect();
            let y = execute(net, std::slice::from_ref(&x), 1).swap_remove(0).center;
            let assigned = part.assignment(&spec, &x, &y);
            for (n, own) in assigned.chunks(2).enumerate() {
                let alone = execute(&nets[n].net, &[floats(&own[0].values)], 1).swap_remove(0).center;
                assert_eq!(floats(&own[1].values), alone);
            }
            assert_eq!(&y[6..], if outputs > 6 { &x[..] } else { &[] });
        }
    }
}

fn decided(spec: &Spec, nets: &[Arc<Lowered>]) -> Vec<&'static str> {
    let problem = Problem::new(spec, nets).unwrap_or_else(|e| panic!("{e}"));
    let verdict = |part: &quaver::property::vnnlib::Part| {
        let verifier = Verifier::new(&part.lowered).expect("a verifier");
        match verifier.decide(&part.query, &Options::default()).expect("a verdict") {
            Verdict::Holds(_) => "unsat",
            Verdict::Violated(w) if part.settles(w.input(), w.polyhedron()) => "sat",
            Verdict::Violated(_) | Verdict::Undecided(_) => "unknown",
        }
    };
    problem.parts.iter().map(verdict).collect()
}

#[test]
fn equal_networks_on_equal_inputs_have_equal_outputs() {
    let f = small("f", 2, 1);
    let shared = "(assert (== Xf[0,0] Xg[0,0]))(assert (== Xg[0,1] Xf[0,1]))";
    let same = pair(&format!("{shared}(assert (<= Yf[0] Yg[0] Yf[0]))"));
    assert_eq!(decided(&same, &[f.clone(), f.clone()]), ["sat"]);
    // Not even a strict order is possible; bounds see it, as both outputs are one value.
    let above = pair(&format!("{shared}(assert (>= Yf[0] (+ Yg[0] 1000)))"));
    assert_eq!(decided(&above, &[f.clone(), f]), ["unsat"]);
}

#[test]
fn decimals_between_floats_are_judged_on_the_box_around_them() {
    let f = small("f", 2, 3);
    let fixed = "(assert (== Xg[0,0] 0.1))(assert (== Xg[0,1] 0.3))";
    let y = execute(&f.net, &[vec![0.1, 0.3]], 1).swap_remove(0).center[1];
    let near = |d: f64| pair(&format!("{fixed}(assert (<= Yg[1] {:.17}))", y + d));
    assert_eq!(decided(&near(1e-9), &[f.clone(), f.clone()]), ["sat"]);
    assert_eq!(decided(&near(-1e-9), &[f.clone(), f.clone()]), ["unsat"]);
    let problem = Problem::new(&near(1e-9), &[f.clone(), f.clone()]).expect("a problem");
    let assigned = problem.parts[0].assignment(&near(1e-9), &[0.5, 0.5, 0.1, 0.3], &[0.0; 6]);
    assert_eq!(assigned[2].values[0], Value::Decimal(Decimal::parse("0.1").expect("a decimal")));
    // The bound is what the net gives in f64: only exact arithmetic tells, and the box around 0.1 holds both.
    assert_ne!(decided(&near(0.0), &[f.clone(), f]), ["unsat"]);
}

fn refusal(text: &str, nets: &[Arc<Lowered>]) -> String {
    Problem::new(&parse(text).expect("a query"), nets).err().unwrap_or_else(|| panic!("{text} is accepted")).to_string()
}

#[test]
fn queries_that_say_too_little_are_refused() {
    let f = small("f", 2, 1);
    let one = |declared: &str, asserts: &str| format!("(vnnlib-version <2.0>)(declare-network f {declared}){asserts}");
    let tensors = |x: &str, y: &str| format!("(declare-input X {x}) (declare-output Y {y})");
    let real = tensors("real [1,2]", "real [1,3]");
    let bounds = "(assert (<= 0 X[0,0] 1))(assert (<= 0 X[0,1] 1))";
    let nets = [f.clone()];
    let told = |declared: &str, asserts: &str, what: &str| {
        let message = refusal(&one(declared, asserts), &nets);
        assert!(message.contains(what) && message.contains("what to do"), "{message}");
    };
    told(&real, "(assert (<= 0 X[0,0] 1))(assert (<= X[0,1] 1))", "`X[0,1]` has no lower bound");
    told(&tensors("real [1,3]", "real [3]"), bounds, "shape");
    told(
        &tensors("real [1,2]", "real [3]").replace("(declare-output", "(declare-input Z real [1]) (declare-output"),
        "",
        "2 inputs",
    );
    told(&tensors("float32 [1,2]", "real [1,3]"), bounds, "real numbers");
    told(&tensors("int8 [1,2]", "real [1,3]"), bounds, "int8");
    let float32 = lower_as("float32");
    let typed = one(&tensors("float32 [1,2]", "float32 [1,3]"), &format!("{bounds}(assert (<= (+ Y[0,0] 0.5) 1))"));
    let message = refusal(&typed, std::slice::from_ref(&float32));
    assert!(message.contains("rounds"), "{message}");
    let mixed = one(&tensors("float32 [1,2]", "real [1,3]"), bounds);
    assert!(refusal(&mixed, &[float32]).contains("others are not"));
}

fn lower_as(name: &str) -> Arc<Lowered> {
    let mut b = ModelBuilder::new("f");
    let x = b.input("x", DType::F32, &[1, 2]).expect("an input");
    let w = b.constant("w", Constant::f32(&[2, 3], vec![1.0, -1.0, 0.5, 2.0, 0.25, -0.5])).expect("weights");
    let y = b.node(Op::MatMul, &[x, w]).expect("a layer");
    b.output(y);
    let model = b.finish().expect("a model");
    Arc::new(lower(&model, &*profile::parse(name).expect("a profile")).expect("a net"))
}

#[test]
fn boxes_are_rounded_outward_for_proofs_and_inward_for_witnesses() {
    let declared = "(vnnlib-version <2.0>)(declare-network f (declare-input X TYPE [2])(declare-output Y TYPE [3]))";
    let bounds = "(assert (<= 0.1 X[0] 0.7))(assert (< 0.5 X[1] 0.75))(assert (<= Y[0] 0.5))";
    let region = |element: &str, profile: &str| {
        let spec = parse(&format!("{}{bounds}", declared.replace("TYPE", element))).expect("a query");
        let problem = Problem::new(&spec, &[lower_as(profile)]).expect("a problem");
        let query = &problem.parts[0].query;
        (query.region.clone(), query.inside.clone().expect("a region"))
    };
    let (tenth, most): (Ratio, Ratio) = ("0.1".parse().expect("a number"), "0.7".parse().expect("a number"));
    let (outer, inner) = region("real", "real");
    assert_eq!((outer.lo[0], outer.hi[0]), (tenth.f64_down(), most.f64_up()));
    assert_eq!((inner.lo[0], inner.hi[0]), (tenth.ceil_f32().into(), most.floor_f32().into()));
    assert_eq!((outer.lo[1], outer.hi[1]), (0.5, 0.75));
    assert_eq!((inner.lo[1], inner.hi[1]), (0.5f32.next_up().into(), 0.75f32.next_down().into()));
    // In a float32 query a numeral is the float32 next to it.
    let (outer, inner) = region("float32", "float32");
    assert_eq!(outer, inner);
    assert_eq!((outer.lo[0], outer.hi[0]), (0.1f32.into(), 0.7f32.into()));
}

#[test]
fn cases_with_one_box_are_one_question_and_empty_boxes_none() {
    let declared = "(vnnlib-version <2.0>)(declare-network f (declare-input X real [2])(declare-output Y real [3]))";
    let base = "(assert (<= 0 X[0] 1))(assert (<= 0 X[1] 1))";
    let parts = |asserts: &str| -> Vec<usize> {
        let spec = parse(&format!("{declared}{base}{asserts}")).expect("a query");
        let problem = Problem::new(&spec, &[small("f", 2, 1)]).expect("a problem");
        problem.parts.iter().map(|p| p.query.forbidden.len()).collect()
    };
    assert_eq!(
        parts("(assert (or (<= Y[0] 1) (<= Y[1] 1) (and (<= X[0] 0.5) (<= Y[2] 1)) (and (<= X[0] 1) (<= Y[2] 2))))"),
        [3, 1]
    );
    assert_eq!(parts("(assert (or (and (<= X[0] -1) (<= Y[0] 1)) (and (< X[1] 0) (<= Y[1] 1))))"), [] as [usize; 0]);
    assert_eq!(parts("(assert (< X[0] 0))"), [] as [usize; 0]);
}
