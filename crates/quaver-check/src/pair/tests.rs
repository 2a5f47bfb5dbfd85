//! Bounds on two networks against every input of tiny ones.

use super::*;
use crate::analysis::{Analysis, Extent};
use crate::bounds::Bounds;
use crate::net::{Affine, Function, Map, Shape};
use crate::walk::{Cut, Row};
use proptest::prelude::*;

/// A source of small numbers, so that every value of the networks is an exact f64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }

    fn int(&mut self, most: i64) -> f64 {
        (self.roll(2 * most as u64 + 1) as i64 - most) as f64
    }

    fn ints(&mut self, n: usize, most: i64) -> Vec<f64> {
        (0..n).map(|_| self.int(most)).collect()
    }
}

const WIDTH: usize = 4;
const INPUTS: usize = 3;

fn add(net: &mut Net, op: Op) -> usize {
    let len = if matches!(op, Op::Input) { INPUTS } else { WIDTH };
    net.values.push(Value { name: String::new(), shape: vec![len], op, integer: false });
    net.values.len() - 1
}

/// Three layers with weights in eighths, and a network like it: of other weights by up to 2/64, and with one layer less now and then.
fn nets(dice: &mut Dice) -> [Net; 2] {
    let mut nets = [Net::default(), Net::default()];
    let mut last = nets.each_mut().map(|net| add(net, Op::Input));
    let skipped = dice.roll(6);
    for layer in 0..3 {
        let inputs = if layer == 0 { INPUTS } else { WIDTH };
        let weights: Vec<f64> = dice.ints(inputs * WIDTH, 8).iter().map(|w| w / 8.0).collect();
        let bias = dice.ints(WIDTH, 2);
        let shape = match dice.roll(4) {
            0 => Shape::Hinge { left: 0.25, low: 0.0, high: f64::INFINITY },
            1 => Shape::Hinge { left: 0.0, low: dice.int(1) - 1.0, high: 2.0 },
            _ => Shape::Hinge { left: 0.0, low: 0.0, high: f64::INFINITY },
        };
        for k in 0..2 {
            if k == 1 && layer == 1 && skipped == 0 {
                continue;
            }
            let off = |dice: &mut Dice, w: &f64| w + if k == 1 { dice.int(2) / 64.0 } else { 0.0 };
            let weights = weights.iter().map(|w| off(dice, w)).collect();
            let map = Map::Dense { outer: 1, inputs, outputs: WIDTH, weights };
            let affine = Affine { terms: vec![(last[k], map)], bias: bias.clone(), slack: 0.0 };
            let of = add(&mut nets[k], Op::Affine(affine));
            last[k] = add(&mut nets[k], Op::Function(Function { of, pieces: vec![shape.clone()] }));
        }
    }
    for (net, last) in nets.iter_mut().zip(last) {
        net.output = last;
    }
    nets
}

/// All values for an input.
fn execute(net: &Net, x: &[f64]) -> Vec<Vec<f64>> {
    let mut values: Vec<Vec<f64>> = vec![];
    for value in &net.values {
        let made = match &value.op {
            Op::Input => x.to_vec(),
            Op::Affine(a) => (0..a.bias.len())
                .map(|i| {
                    let mut sum = a.bias[i];
                    a.terms.iter().for_each(|(of, map)| map.for_each(i, |j, w| sum += w * values[*of][j]));
                    sum
                })
                .collect(),
            Op::Function(f) => values[f.of].iter().enumerate().map(|(i, x)| f.at(i).at_most(*x)).collect(),
            Op::Row(of) => of.iter().flat_map(|id| values[*id].clone()).collect(),
            Op::Max { .. } | Op::Move { .. } => unreachable!("there is none"),
        };
        values.push(made);
    }
    values
}

/// Cuts at some places, one after the other.
fn cuts(dice: &mut Dice, analysis: &Analysis<'_>) -> Vec<Cut> {
    let (functions, mut cuts) = (analysis.frame.net.functions(), vec![]);
    for _ in 0..dice.roll(5) {
        let function = functions[dice.roll(functions.len() as u64) as usize];
        let at = dice.int(8) / 4.0;
        let halves = analysis.frame.cut(function, dice.roll(WIDTH as u64) as usize, (at, at), &cuts).unwrap();
        cuts.push(halves[dice.roll(2) as usize]);
    }
    cuts
}

/// The difference of both outputs that occurs, and what is proved of it.
fn check(seed: u64) -> (f64, f64) {
    let mut dice = Dice(seed);
    let [first, second] = nets(&mut dice);
    let inputs = |lo: &[f64], hi: &[f64]| -> Vec<Vec<f64>> {
        let axis = |i: usize| (0..=(hi[i] - lo[i]) as i64).map(|k| lo[i] + k as f64).collect::<Vec<_>>();
        let all = [axis(0), axis(1), axis(2)];
        (0..all.iter().map(Vec::len).product())
            .map(|k| {
                vec![
                    all[0][k % all[0].len()],
                    all[1][k / all[0].len() % all[1].len()],
                    all[2][k / all[0].len() / all[1].len()],
                ]
            })
            .collect()
    };
    let lo = dice.ints(INPUTS, 2);
    let hi: Vec<f64> = lo.iter().map(|l| l + dice.roll(3) as f64).collect();
    let runs: Vec<Vec<f64>> =
        inputs(&lo, &hi).iter().map(|x| [&first, &second].map(|n| execute(n, x)[n.output].clone()).concat()).collect();
    let net = merged(first, second).unwrap();
    assert!(net.twins.len() >= 2, "{seed}");
    let all: Vec<Vec<Vec<f64>>> = inputs(&lo, &hi).iter().map(|x| execute(&net, x)).collect();
    let mut analysis = Analysis::new(&net, net.input);
    let region = Bounds { lo, hi };
    analysis.finish(Extent { before: &[], region: &region, known: None }).unwrap();
    assert!(!analysis.is_empty, "{seed}");
    for (values, run) in all.iter().zip(&runs) {
        assert_eq!(&values[net.output], run, "{seed}");
        for (value, bounds) in values.iter().zip(&analysis.frame.bounds) {
            assert!(value.iter().enumerate().all(|(i, x)| bounds.lo[i] <= *x && *x <= bounds.hi[i]), "{seed}");
        }
    }
    let mut rows: Vec<Row> = (0..WIDTH)
        .flat_map(|i| [1.0, -1.0].map(|s| Row { terms: vec![(i, -s), (WIDTH + i, s)], ..Row::default() }))
        .collect();
    for _ in 0..4 {
        let terms = (0..2 * WIDTH).map(|i| (i, dice.int(2))).collect();
        let cuts = cuts(&mut dice, &analysis);
        let betas = cuts.iter().map(|_| dice.roll(16) as f64 / 8.0).collect();
        rows.push(Row { terms, cuts, betas, ..Row::default() });
    }
    let found = analysis.frame.walk(net.output, &rows);
    for (row, bound) in rows.iter().zip(&found) {
        for values in &all {
            let holds = |c: &Cut| c.side * (values[c.of][c.element] - c.at) <= 0.0;
            let value: f64 = row.terms.iter().map(|(i, a)| a * values[net.output][*i]).sum();
            assert!(!row.cuts.iter().all(holds) || *bound <= value, "{seed}: {bound} > {value}");
        }
    }
    let spread = |i: usize| {
        let of = |run: &Vec<f64>| run[WIDTH + i] - run[i];
        runs.iter().map(of).fold(f64::MIN, f64::max) - runs.iter().map(of).fold(f64::MAX, f64::min)
    };
    let proved = (0..WIDTH).map(|i| -found[2 * i + 1] - found[2 * i]).sum();
    ((0..WIDTH).map(spread).sum(), proved)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bounds_on_two_networks_hold(seed in any::<u64>()) {
        check(seed);
    }
}

#[test]
fn differences_are_bounded_far_better_than_each_network() {
    let (occurs, proved) = (0..40).map(check).fold((0.0, 0.0), |s, c| (s.0 + c.0, s.1 + c.1));
    assert!(proved < 6.0 * occurs, "{proved} for {occurs}");
}

#[test]
fn twins_are_a_longest_common_subsequence() {
    let chain = |sizes: &[usize]| {
        let mut net = Net::default();
        let value = |op, len| Value { name: String::new(), shape: vec![len], op, integer: false };
        net.values.push(value(Op::Input, 1));
        for &len in sizes {
            let map = Map::Dense {
                outer: 1,
                inputs: net.values[net.output].len(),
                outputs: len,
                weights: vec![1.0; len * net.values[net.output].len()],
            };
            let affine = Affine { terms: vec![(net.output, map)], bias: vec![0.0; len], slack: 0.0 };
            net.values.push(value(Op::Affine(affine), len));
            let of = net.values.len() - 1;
            net.values.push(value(
                Op::Function(Function { of, pieces: vec![Shape::Hinge { left: 0.0, low: 0.0, high: f64::INFINITY }] }),
                len,
            ));
            net.output = net.values.len() - 1;
        }
        net
    };
    let pairs = |a: &[usize], b: &[usize]| {
        twins(&chain(a), &chain(b)).iter().map(|t| t.map(|id| id / 2 - 1)).collect::<Vec<_>>()
    };
    assert_eq!(pairs(&[2, 3, 4], &[2, 3, 4]), [[0, 0], [1, 1], [2, 2]]);
    assert_eq!(pairs(&[2, 3, 4], &[2, 4]), [[0, 0], [2, 1]]);
    assert_eq!(pairs(&[3, 2], &[2, 3]), [[1, 0]]);
    let net = merged(chain(&[2, 3, 4]), chain(&[2, 4])).unwrap();
    // Input; two layers; the second network's first function right after its twin.
    assert_eq!(net.twins, [[2, 4], [8, 10]]);
    assert_eq!((net.output, net.values[net.output].len()), (11, 8));
    assert!(
        merged(
            chain(&[2]),
            Net { values: vec![Value { shape: vec![2], ..chain(&[1]).values[0].clone() }], ..Net::default() }
        )
        .is_err()
    );
}
