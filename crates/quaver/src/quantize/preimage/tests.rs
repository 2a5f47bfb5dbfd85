//! Sets and bits against exact arithmetic on points and corners.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::check::{Check, Rows};
use super::*;
use crate::model::build::ModelBuilder;
use crate::model::ir::{DType, Model, Op, Tensor};
use crate::model::lower::lower;
use crate::model::profile::{Float32, Real};
use crate::net::execute_exact;
use crate::num::{Dyadic, Ratio};
use crate::property::{Robustness, Ties, never_class, stamped};
use crate::quantize::Quantizer;

const SIZES: [usize; 4] = [2, 4, 3, 3];

/// Layers with a ReLU between, some with their biases in an Add.
fn model(seed: u64) -> Model {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut b = ModelBuilder::new("net");
    let mut x = b.input("x", DType::F32, &[1, SIZES[0]]).unwrap();
    for layer in 0..3 {
        let (n, m) = (SIZES[layer], SIZES[layer + 1]);
        let mut numbers = |k: usize| (0..k).map(|_| rng.random_range(-1.5_f32..1.5)).collect::<Vec<f32>>();
        let w = b.constant(&format!("w{layer}"), Tensor::f32(&[n, m], numbers(n * m))).unwrap();
        let c = b.constant(&format!("c{layer}"), Tensor::f32(&[m], numbers(m))).unwrap();
        if layer == 1 {
            x = b.node(Op::MatMul, &[x, w]).unwrap();
            x = b.node(Op::Add, &[x, c]).unwrap();
        } else {
            x = b.node(Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false }, &[x, w, c]).unwrap();
        }
        if layer < 2 {
            x = b.node(Op::Relu, &[x]).unwrap();
        }
    }
    b.output(x);
    b.finish().unwrap()
}

/// A claim that is true of the network at the centre of its region.
fn claim(chain: &Chain, seed: u64) -> Query {
    let mut rng = StdRng::seed_from_u64(seed ^ 77);
    let centre: Vec<f64> = (0..SIZES[0]).map(|_| f64::from(rng.random_range(-1.0_f32..1.0))).collect();
    let radius = 0.02 * f64::from(rng.random_range(1_u8..4));
    let corner = |side: f64| centre.iter().map(|c| f64::from((c + side * radius) as f32)).collect::<Vec<f64>>();
    let region = Region { lo: corner(-1.0), hi: corner(1.0) };
    let scores = chain.sketch(&centre);
    let best = |sign: f64| (0..SIZES[3]).max_by(|a, b| (sign * scores[*a]).total_cmp(&(sign * scores[*b]))).unwrap();
    match seed % 3 {
        0 => never_class(region, best(-1.0), SIZES[3]).unwrap(),
        kind => {
            let ties = if kind == 1 { Ties::Strict } else { Ties::First };
            Robustness { region, center: None, label: best(1.0), ties }.query(SIZES[3])
        }
    }
}

fn exact(x: f64) -> Ratio {
    Ratio::from_f64(x).unwrap()
}

fn dot(a: &[f64], x: &[Ratio], constant: f64) -> Ratio {
    a.iter().zip(x).fold(exact(constant), |s, (a, x)| s.plus(&exact(*a).times(x)))
}

fn relu(x: Ratio) -> Ratio {
    if x.is_negative() { exact(0.0) } else { x }
}

/// Whether a forbidden polyhedron contains an output.
fn is_violated(query: &Query, y: &[Ratio]) -> bool {
    let satisfied = |c: &crate::property::Constraint| {
        let sum = c.terms.iter().fold(exact(0.0), |s, (i, a)| s.plus(&a.times(&y[*i])));
        let room = c.bound.minus(&sum);
        !(room.is_negative() || c.strict && room.is_zero())
    };
    query.forbidden.iter().any(|p| p.constraints.iter().all(satisfied))
}

fn random_point(region: &Region, rng: &mut StdRng) -> Vec<f64> {
    let of = |(l, h): (&f64, &f64)| match rng.random_range(0..4) {
        0 => *l,
        1 => *h,
        _ => l + (h - l) * f64::from(rng.random_range(0..=64_u8)) / 64.0,
    };
    region.lo.iter().zip(&region.hi).map(of).collect()
}

/// A random value of a layer in its set at an input, mostly at sides of it; `None` where the set is empty.
fn random_value(template: &Template, chi: f64, x: &[Ratio], rng: &mut StdRng) -> Option<Vec<Ratio>> {
    let (n, sides) = (template.neurons(), template.sides(chi));
    let side = |j: usize| dot(&template.lines.exact()[j * x.len()..][..x.len()], x, sides[j]);
    (0..n)
        .map(|j| {
            let (upper, lower) = (side(j), side(n + j));
            let share = exact(f64::from([0, 4, rng.random_range(0..=4_u8)][rng.random_range(0..3)]) / 4.0);
            let width = upper.minus(&lower);
            (!width.is_negative()).then(|| lower.plus(&width.times(&share)))
        })
        .collect()
}

fn options(way: Way) -> Options {
    Options { way, relaxed: 0.0, ..Options::default() }
}

#[test]
fn no_value_of_a_set_leads_to_a_forbidden_output() {
    let (mut found, mut points) = (0, 0);
    for seed in 0..60 {
        let chain = Chain::new(&lower(&model(seed), &Real).unwrap()).unwrap();
        let query = claim(&chain, seed);
        let way = [Way::Abstraction, Way::Both][seed as usize % 2];
        let Some(sets) = preimage(&chain, &query, &options(way)).unwrap() else { continue };
        found += 1;
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..400 {
            let x: Vec<Ratio> = random_point(&query.region, &mut rng).into_iter().map(exact).collect();
            let layer = rng.random_range(0..2);
            let Some(z) = random_value(&sets.templates[layer], sets.scalings[layer], &x, &mut rng) else { continue };
            let next = |z: Vec<Ratio>, l: &Layer| {
                let z: Vec<Ratio> = z.into_iter().map(relu).collect();
                (0..l.outputs()).map(|k| dot(l.row(k), &z, l.bias[k])).collect()
            };
            let y = chain.layers[layer + 1..].iter().fold(z, next);
            assert!(!is_violated(&query, &y), "seed {seed}, layer {layer}");
            points += 1;
        }
    }
    assert!(found > 25 && points > 5000, "{found} sets, {points} points");
}

/// The last set: a larger scaling by deciding, and as large as the inputs of a fine grid allow.
#[test]
fn deciding_finds_the_largest_scaling() {
    let (mut found, mut larger) = (0, 0);
    for seed in (0..60).filter(|s| s % 3 != 0) {
        let chain = Chain::new(&lower(&model(seed), &Real).unwrap()).unwrap();
        let query = claim(&chain, seed);
        let by = |way| preimage(&chain, &query, &options(way)).unwrap();
        let Some(both) = by(Way::Both) else { continue };
        let chi = both.scalings[1];
        let alone = by(Way::Exact).map_or(0.0, |p| p.scalings[1]);
        assert!((alone - chi).abs() <= 0.011 * chi.max(alone) + 1e-3, "seed {seed}: {alone} alone, {chi} by both");
        if let Some(bounds) = by(Way::Abstraction) {
            assert!(bounds.scalings[1] <= chi, "seed {seed}");
            larger += usize::from(bounds.scalings[1] < 0.95 * chi);
        }
        let rows = Rows::into_goals(&chain.layers[2], both.goals());
        let check = Check::new(chain.input(), &both.templates[1], &rows);
        let mut limit = 100.0;
        for i in 0..=40 {
            for j in 0..=40 {
                let at = |k: usize, s: i32| {
                    query.region.lo[k] + (query.region.hi[k] - query.region.lo[k]) * f64::from(s) / 40.0
                };
                let x = [at(0, i), at(1, j)];
                for row in 0..rows.constants.len() {
                    limit = check.likely_limit(limit, &query.region, row, Some(&x));
                }
            }
        }
        assert!(chi <= limit * (1.0 + 1e-9) && chi >= 0.98 * limit - 1e-3, "seed {seed}: {chi} and {limit}");
        found += 1;
    }
    assert!(found > 15 && larger > 0, "{found} found, {larger} larger");
}

#[test]
fn no_input_violates_what_chosen_bits_prove() {
    let mut solved = 0;
    for seed in 0..60 {
        let model = model(seed);
        let chain = Chain::new(&lower(&model, &Real).unwrap()).unwrap();
        let query = claim(&chain, seed);
        let relaxed = [0.0, 0.25][seed as usize / 2 % 2];
        let options = Options { relaxed, ..options(Way::Both) };
        let Some(sets) = preimage(&chain, &query, &options).unwrap() else { continue };
        let quantizer = Quantizer::new(&model).unwrap();
        let choice = choose(&quantizer, &[sets], &options).unwrap();
        let Some(schemes) = choice.schemes else { continue };
        solved += 1;
        assert!(choice.layers.iter().zip(&schemes).all(|(l, s)| l.fraction.map(|f| f + l.integer) == Some(s.bits)));
        assert!(choice.layers[2].trials.last().unwrap().failed == 0);
        let net = lower(&quantizer.at(&schemes).unwrap().model, &Real).unwrap().net;
        let output = net.outputs()[0].0;
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..200 {
            let x = random_point(&query.region, &mut rng);
            let x: Vec<Dyadic> = x.into_iter().map(|x| Dyadic::from_f64(x).unwrap()).collect();
            let y: Vec<Ratio> = execute_exact(&net, &[x])[output].iter().map(Ratio::from_dyadic).collect();
            assert!(!is_violated(&query, &y), "seed {seed}");
        }
    }
    assert!(solved > 20, "{solved} solved");
}

/// Bits for two claims are proved for each of them, and a later claim cannot take bits away.
#[test]
fn all_claims_share_their_bits() {
    let mut compared = 0;
    for seed in 0..30 {
        let model = model(seed);
        let chain = Chain::new(&lower(&model, &Real).unwrap()).unwrap();
        let options = Options { again: false, ..options(Way::Abstraction) };
        let sets: Vec<Preimage> =
            (0..2).filter_map(|k| preimage(&chain, &claim(&chain, seed + 100 * k), &options).unwrap()).collect();
        let quantizer = Quantizer::new(&model).unwrap();
        let first = |claims: &[Preimage]| choose(&quantizer, claims, &options).unwrap().layers[0].fraction;
        let [one, two] = &sets[..] else { continue };
        let (one, two, both) = (first(std::slice::from_ref(one)), first(std::slice::from_ref(two)), first(&sets));
        if let (Some(one), Some(two), Some(both)) = (one, two, both) {
            assert!(both >= one.max(two), "seed {seed}");
            compared += 1;
        }
    }
    assert!(compared > 3, "{compared}");
}

/// An output in all of a polyhedron's half-spaces meets no functional of its goal.
#[test]
fn functionals_exclude_their_polyhedron() {
    let chain = Chain::new(&lower(&model(3), &Real).unwrap()).unwrap();
    let region = stamped(&[0.25, 0.5], &[1], (0.0, 1.0)).unwrap();
    let query = never_class(region, 1, SIZES[3]).unwrap();
    let goals = goals(&chain, &query).unwrap();
    assert!(goals.len() == 1 && goals[0].functionals.len() > 2);
    let mut rng = StdRng::seed_from_u64(5);
    for _ in 0..2000 {
        let y: Vec<f64> = (0..SIZES[3]).map(|_| f64::from(rng.random_range(-3_i8..=3))).collect();
        let inside = y.iter().all(|other| *other <= y[1]);
        let sum = |f: &Functional| f.coefficients.iter().zip(&y).map(|(c, y)| c * y).sum::<f64>();
        let met = goals[0].functionals.iter().any(|f| f.is_met(sum(f)));
        assert!(!(inside && met), "{y:?}");
        assert!(met || inside || goals[0].functionals.len() > 1);
    }
    assert!(!goals[0].functionals[0].is_met(f64::NAN));
}

#[test]
fn other_networks_are_refused_by_name() {
    let mut b = ModelBuilder::new("net");
    let x = b.input("x", DType::F32, &[1, 2]).unwrap();
    let w = b.constant("w", Tensor::f32(&[2, 2], vec![1.0, 0.5, 0.25, 1.0])).unwrap();
    let y = b.node(Op::MatMul, &[x, w]).unwrap();
    let z = b.node(Op::LeakyRelu { alpha: 0.5 }, &[y]).unwrap();
    let z = b.node(Op::MatMul, &[z, w]).unwrap();
    b.output(z);
    let lowered = lower(&b.finish().unwrap(), &Real).unwrap();
    let error = Chain::new(&lowered).unwrap_err().to_string();
    assert!(error.contains("not ReLU") && error.contains("what to do"), "{error}");
    let error = Chain::new(&lower(&model(0), &Float32).unwrap()).unwrap_err().to_string();
    assert!(error.contains("rounded"), "{error}");
}

#[test]
fn a_convolution_is_a_matrix() {
    let mut b = ModelBuilder::new("net");
    let x = b.input("x", DType::F32, &[1, 1, 3, 3]).unwrap();
    let filters: Vec<f32> = (0..8).map(|k| (k as f32 - 3.0) / 4.0).collect();
    let w = b.constant("w", Tensor::f32(&[2, 1, 2, 2], filters)).unwrap();
    let window = crate::model::ir::Window {
        kernel: vec![2, 2],
        strides: vec![1, 1],
        dilations: vec![1, 1],
        pads_begin: vec![0, 0],
        pads_end: vec![0, 0],
        ceil_mode: false,
    };
    let y = b.node(Op::Conv { window, group: 1 }, &[x, w]).unwrap();
    let y = b.node(Op::Relu, &[y]).unwrap();
    let y = b.reshape(y, &[1, 8]).unwrap();
    let v = b.constant("v", Tensor::f32(&[8, 2], (0..16).map(|k| (k as f32 - 7.0) / 8.0).collect())).unwrap();
    let y = b.node(Op::MatMul, &[y, v]).unwrap();
    b.output(y);
    let lowered = lower(&b.finish().unwrap(), &Real).unwrap();
    let chain = Chain::new(&lowered).unwrap();
    let x: Vec<f64> = (0..9).map(|k| f64::from(k) / 8.0).collect();
    let output = crate::net::execute(&lowered.net, std::slice::from_ref(&x), 1)[0].center.clone();
    assert_eq!(chain.sketch(&x), output);
    let net = Arc::new(chain.net().0);
    assert_eq!(crate::net::execute(&net, &[x], 1)[0].center, output);
}
