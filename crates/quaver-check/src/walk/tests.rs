//! Every bound of a walk against every input of tiny networks.

use super::*;
use crate::bounds::interval;
use crate::lines::{Ends, default_lines};
use crate::net::{Conv, Function, Map, Shape, Value};
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

fn dense(dice: &mut Dice, inputs: usize, outputs: usize) -> Map {
    Map::Dense { outer: 1, inputs, outputs, weights: dice.ints(inputs * outputs, 3) }
}

fn shape(dice: &mut Dice) -> Shape {
    match dice.roll(4) {
        0 => Shape::Hinge { left: 0.0, low: 0.0, high: f64::INFINITY },
        1 => Shape::Hinge { left: 0.25, low: 0.0, high: f64::INFINITY },
        2 => Shape::Hinge { left: 0.0, low: dice.int(2) - 2.0, high: 3.0 },
        _ => {
            let starts: Vec<f64> = (-4..=4).map(|k| f64::from(3 * k) + f64::from(dice.roll(2) as u32)).collect();
            Shape::Step { values: (0..=starts.len()).map(|k| k as f64 - 4.0).collect(), starts }
        }
    }
}

fn add(net: &mut Net, len: usize, integer: bool, op: Op) -> usize {
    net.values.push(Value { name: String::new(), shape: vec![len], op, integer });
    net.values.len() - 1
}

/// Input, dense, function, dense of two values, function, a copy with a constant, maxima, a convolution.
fn network(dice: &mut Dice) -> Net {
    let mut net = Net::default();
    let x = add(&mut net, 3, true, Op::Input);
    let bias = dice.ints(4, 3);
    let a = add(&mut net, 4, true, Op::Affine(Affine { terms: vec![(x, dense(dice, 3, 4))], bias, slack: 0.0 }));
    let f = add(&mut net, 4, false, Op::Function(Function { of: a, pieces: (0..4).map(|_| shape(dice)).collect() }));
    let terms = vec![(f, dense(dice, 4, 4)), (a, Map::Scale(dice.ints(4, 2)))];
    let bias = dice.ints(4, 3);
    let b = add(&mut net, 4, false, Op::Affine(Affine { terms, bias, slack: 0.0 }));
    let hinge = Shape::Hinge { left: 0.0, low: dice.int(1), high: f64::INFINITY };
    let g = add(&mut net, 4, false, Op::Function(Function { of: b, pieces: vec![hinge] }));
    let from = vec![Source::Element(0), Source::Element(3), Source::Constant(1.0), Source::Element(3)];
    let c = add(&mut net, 4, false, Op::Move { of: g, from });
    let windows = vec![vec![0, 1], vec![1, 2], vec![3], vec![2, 0]];
    let m = add(&mut net, 4, false, Op::Max { of: c, windows });
    let conv = Conv {
        groups: 1,
        in_channels: 2,
        in_size: [1, 2],
        out_channels: 2,
        out_size: [1, 1],
        kernel: [1, 2],
        stride: [1, 1],
        dilation: [1, 1],
        weights: dice.ints(8, 3),
    };
    let bias = dice.ints(2, 3);
    let terms = vec![(m, Map::Conv(conv))];
    net.output = add(&mut net, 2, false, Op::Affine(Affine { terms, bias, slack: 0.0 }));
    net
}

/// All values for an input; exact, because they are small multiples of powers of two.
fn execute(net: &Net, x: &[f64]) -> Vec<Vec<f64>> {
    let mut values: Vec<Vec<f64>> = vec![];
    for value in &net.values {
        let result = match &value.op {
            Op::Input => x.to_vec(),
            Op::Affine(a) => (0..a.bias.len())
                .map(|i| {
                    let mut sum = a.bias[i];
                    a.terms.iter().for_each(|(of, map)| map.for_each(i, |j, w| sum += w * values[*of][j]));
                    sum
                })
                .collect(),
            Op::Function(f) => values[f.of].iter().enumerate().map(|(i, x)| f.at(i).at_most(*x)).collect(),
            Op::Max { of, windows } => {
                let largest = |w: &Vec<u32>| w.iter().map(|&j| values[*of][j as usize]).fold(f64::MIN, f64::max);
                windows.iter().map(largest).collect()
            }
            Op::Move { of, from } => {
                let copy = |s: &Source| match s {
                    Source::Element(i) => values[*of][*i as usize],
                    Source::Constant(k) => *k,
                };
                from.iter().map(copy).collect()
            }
            Op::Row(of) => of.iter().flat_map(|id| values[*id].clone()).collect(),
        };
        values.push(result);
    }
    values
}

/// Lines of a function on the bounds of its argument; some elements are open.
fn enclosed(dice: &mut Dice, f: &Function, x: &Bounds) -> Enclosed {
    let mut enclosed = Enclosed::default();
    for i in 0..x.lo.len() {
        let within = (x.lo[i], x.hi[i]);
        let (lower, upper) = default_lines(f.at(i), within).unwrap();
        enclosed.lines.push(Pair { lower, upper });
        if dice.roll(4) > 0 {
            enclosed.open.push((i, Ends::new(f.at(i), within).unwrap()));
        }
    }
    enclosed
}

/// Cuts at some places, one after the other, each with a multiplier.
fn cuts(dice: &mut Dice, frame: &Frame<'_>) -> (Vec<Cut>, Vec<f64>) {
    let mut cuts = vec![];
    for _ in 0..dice.roll(5) {
        let function = [2, 4][dice.roll(2) as usize];
        let at = dice.int(4);
        let above = if frame.net.values[function - 1].integer { at + dice.roll(2) as f64 } else { at };
        let halves = frame.cut(function, dice.roll(4) as usize, (at, above), &cuts).unwrap();
        cuts.push(halves[dice.roll(2) as usize]);
    }
    let betas = cuts.iter().map(|_| dice.roll(16) as f64 / 8.0).collect();
    (cuts, betas)
}

fn check(seed: u64) {
    let mut dice = Dice(seed);
    let net = network(&mut dice);
    let lo = dice.ints(3, 3);
    let hi: Vec<f64> = lo.iter().map(|l| l + dice.roll(4) as f64).collect();
    let mut frame = Frame::from_start(&net, 0);
    frame.push(Bounds { lo: lo.clone(), hi: hi.clone() }, vec![], Enclosed::default());
    for id in 1..net.values.len() {
        let (bounds, sums) = interval(&net, id, &frame.bounds);
        let enclosed = match &net.values[id].op {
            Op::Function(f) => enclosed(&mut dice, f, &frame.bounds[f.of]),
            Op::Input | Op::Affine(_) | Op::Max { .. } | Op::Move { .. } | Op::Row(_) => Enclosed::default(),
        };
        frame.push(bounds, sums, enclosed);
    }
    let axis = |i: usize| (lo[i] as i64..=hi[i] as i64).map(|x| x as f64);
    let inputs = axis(0).flat_map(|a| axis(1).flat_map(move |b| axis(2).map(move |c| [a, b, c])));
    let runs: Vec<Vec<Vec<f64>>> = inputs.map(|x| execute(&net, &x)).collect();
    for run in &runs {
        for (value, bounds) in run.iter().zip(&frame.bounds) {
            assert!(value.iter().enumerate().all(|(i, x)| bounds.lo[i] <= *x && *x <= bounds.hi[i]), "seed {seed}");
        }
    }
    let row = |dice: &mut Dice| {
        let terms = vec![(0, dice.int(3)), (1, dice.int(3)), (0, dice.int(1))];
        let chosen = if dice.roll(4) == 0 { 0 } else { frame.places(net.output + 1) };
        let places = (0..chosen).map(|_| dice.roll(256) as u8).collect();
        let (cuts, betas) = cuts(dice, &frame);
        Row { terms, places, cuts, betas, ..Row::default() }
    };
    let rows: Vec<Row> = (0..5).map(|_| row(&mut dice)).collect();
    for (row, bound) in rows.iter().zip(frame.walk(net.output, &rows)) {
        for run in &runs {
            let holds = |c: &Cut| c.side * (run[c.of][c.element] - c.at) <= 0.0;
            let value: f64 = row.terms.iter().map(|(i, a)| a * run[net.output][*i]).sum();
            assert!(!row.cuts.iter().all(holds) || bound <= value, "seed {seed}: {bound} > {value}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn walks_are_below_every_execution(seed in any::<u64>()) {
        check(seed);
    }
}

#[test]
fn bounds_beyond_measure_prove_nothing() {
    let mut net = Net::default();
    add(&mut net, 1, false, Op::Input);
    let mut frame = Frame::from_start(&net, 0);
    frame.push(Bounds { lo: vec![-1e31], hi: vec![1.0] }, vec![], Enclosed::default());
    let row = Row { terms: vec![(0, 1.0)], ..Row::default() };
    assert_eq!(frame.walk(0, &[row]), [f64::NEG_INFINITY]);
}
