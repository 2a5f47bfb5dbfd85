//! Distances as one number: nodes behind both networks that sum the magnitudes, or bound the squares, of the differences.

use super::{Norm, PairError, refused};
use crate::net::{
    Affine, Dense, From, Grid, LinearMap, Move, Net, Node, NodeId, Op, Piecewise, Pointwise, Quantization, Rounding,
    ScalarFn, Spread, Weights,
};
use crate::num::Ratio;
use crate::property::{Ball, Constraint, Polyhedron};

/// The sum of squares is bounded to within about this part of epsilon squared, where that takes no more than so many pieces of all outputs.
const TOLERANCE: f64 = 1e-3;
const PIECES: usize = 8192;
/// Epsilon for squares: its square and all places are far from the ends of the number range.
const LARGEST: f64 = 1e15;
const SMALLEST: f64 = 1e-15;

/// A sum over the differences d of the outputs that tells how large their norm is.
///
/// # Claim
/// L1: the sum is the norm. L2: `step` times the sum is above epsilon^2 wherever the sum of squares is, and where no |d| is above epsilon it is at
/// most outputs `step`^2 / 4 above the sum of squares.
///
/// # Why
/// L1: |d| = max(d, 0) + max(-d, 0). L2: let h be `step`, K `pieces`, and p(x) = h (max(x, 0) + 2 sum over k = 1 .. K - 1 of max(x - k h, 0)), so
/// that `step` times the sum is the sum of all p(d) + p(-d). On x >= 0, p is convex and linear between neighbouring multiples of h, the slope after
/// k h being (2 k + 1) h = ((k + 1)^2 - k^2) h: it meets x^2 at 0, h, .., K h, and between them it is above x^2 by at most h^2 / 4. Beyond it rises,
/// and K h >= epsilon. If some |d| > epsilon then p(|d|) > p(epsilon) >= epsilon^2, and no other summand is negative. Else every p(|d|) >= d^2.
pub(super) struct Summed {
    norm: Norm,
    outputs: usize,
    /// Distance of the places where the square is met.
    step: f64,
    /// How many there are.
    pieces: usize,
}

impl Summed {
    pub fn new(norm: Norm, outputs: usize, epsilon: &Ratio) -> Result<Summed, PairError> {
        if norm != Norm::L2 {
            return Ok(Summed { norm, outputs, step: 1.0, pieces: 1 });
        }
        if !(SMALLEST..=LARGEST).contains(&epsilon.approx()) {
            let problem = format!("epsilon {} is too small or too large to be squared", epsilon.approx());
            return Err(refused(problem, format!("give a bound from {SMALLEST:e} to {LARGEST:e}, or 0")));
        }
        let pieces = (outputs as f64 / (4.0 * TOLERANCE)).sqrt().ceil() as usize;
        let pieces = pieces.min(PIECES / outputs.max(1)).max(1);
        // A float32, so that its small multiples are exact.
        let count = Ratio::from_f64(pieces as f64).unwrap_or_else(|| unreachable!("a count is a number"));
        let step = f64::from(epsilon.over(&count).ceil_f32());
        Ok(Summed { norm, outputs, step, pieces })
    }

    /// Where the norm is above epsilon; for squares the linear constraint follows from that, and a ball says it exactly.
    pub fn forbidden(&self, epsilon: &Ratio) -> Polyhedron {
        let exact = |x: f64| Ratio::from_f64(x).unwrap_or_else(|| unreachable!("{x} is finite"));
        let below = |factor: f64, bound: Ratio| {
            vec![Constraint { terms: vec![(0, exact(-factor))], bound: bound.negated(), strict: true }]
        };
        if self.norm != Norm::L2 {
            return Polyhedron::new(below(1.0, epsilon.clone()));
        }
        let square = epsilon.times(epsilon);
        let ball = Ball { elements: 1..self.outputs + 1, square: square.clone() };
        Polyhedron { constraints: below(self.step, square), outside: Some(ball) }
    }

    /// Puts the nodes behind a net that gives the outputs of both in a row. Its output is the sum; for squares the differences follow.
    pub fn append(&self, net: &mut Net, meanings: &[Option<Quantization>; 2]) -> Result<(), PairError> {
        let (m, both) = (self.outputs, net.outputs()[0]);
        let reals = dequantized(net, both, m, meanings)?;
        // All differences A - B, then all B - A.
        let [a, b] = [0, m].map(|first| moved(net, reals, (0..2 * m).map(|i| first + i % m)));
        let sign = |x: f64| {
            let scale = (0..2 * m).map(|i| if i < m { x } else { -x }).collect();
            LinearMap::Diagonal { len: 2 * m, scale: Spread::each(scale) }
        };
        let differences = affine(net, "differences", vec![(a, sign(1.0)), (b, sign(-1.0))], Spread::all(0.0));
        let positive = self.positive_parts(net, differences);
        let weight = |i: usize| if i < 2 * m { 1.0 } else { 2.0 };
        let n_in = 2 * m * self.pieces;
        let weights = Weights::new((0..n_in).map(weight).collect());
        let sum = LinearMap::Dense(Dense { outer: 1, n_in, n_out: 1, weights });
        let sum = affine(net, "distance", vec![(positive, sum)], Spread::all(0.0));
        let output = if self.norm == Norm::L2 { self.with_differences(net, sum, differences) } else { sum };
        net.set_outputs(vec![output]);
        Ok(())
    }

    /// max(d - k step, 0) for every difference and every k.
    fn positive_parts(&self, net: &mut Net, differences: NodeId) -> NodeId {
        let (n, all) = (2 * self.outputs, 2 * self.outputs * self.pieces);
        let mut shifted = differences;
        if self.pieces > 1 {
            let copies = moved(net, differences, (0..all).map(|i| i % n));
            let places = Spread::axis((0..self.pieces).map(|k| -(k as f64) * self.step).collect(), n);
            let same = LinearMap::Diagonal { len: all, scale: Spread::all(1.0) };
            shifted = affine(net, "shifted", vec![(copies, same)], places);
        }
        let functions = Spread::all(ScalarFn::Piecewise(Piecewise::relu()));
        added(net, "positive", all, Op::Pointwise(Pointwise { input: shifted, functions }))
    }

    fn with_differences(&self, net: &mut Net, sum: NodeId, differences: NodeId) -> NodeId {
        let element = |i: usize| From::Element { source: 1, index: i as u32 };
        let first = std::iter::once(From::Element { source: 0, index: 0 });
        let from = first.chain((0..self.outputs).map(element)).collect();
        added(
            net,
            "distance and differences",
            1 + self.outputs,
            Op::Move(Move { sources: vec![sum, differences], from }),
        )
    }
}

/// The real numbers that both outputs stand for, exactly.
fn dequantized(
    net: &mut Net,
    both: NodeId,
    m: usize,
    meanings: &[Option<Quantization>; 2],
) -> Result<NodeId, PairError> {
    if meanings.iter().all(Option::is_none) {
        return Ok(both);
    }
    let of = |i: usize| match &meanings[i / m] {
        None => Some((1.0, 0.0)),
        Some(q) => {
            let (scale, zero) = (*q.scale.at(i % m), *q.zero_point.at(i % m));
            let offset = Ratio::from_f64(scale)?.times(&Ratio::from_f64(-(zero as f64))?);
            let exact = offset.f64_down() == offset.f64_up() && zero.abs() < 1 << 53;
            exact.then(|| (scale, offset.f64_up()))
        }
    };
    let all: Option<Vec<(f64, f64)>> = (0..2 * m).map(of).collect();
    let Some(all) = all else {
        let problem = "a scale times a zero point of an output needs more than 53 bits";
        return Err(refused(problem, "use --norm linf, or end the models with a DequantizeLinear"));
    };
    let (scale, bias): (Vec<f64>, Vec<f64>) = all.into_iter().unzip();
    let map = LinearMap::Diagonal { len: 2 * m, scale: Spread::each(scale) };
    Ok(affine(net, "real outputs", vec![(both, map)], Spread::each(bias)))
}

fn moved(net: &mut Net, source: NodeId, elements: impl Iterator<Item = usize>) -> NodeId {
    let from: Vec<From> = elements.map(|i| From::Element { source: 0, index: i as u32 }).collect();
    added(net, "arranged", from.len(), Op::Move(Move { sources: vec![source], from }))
}

/// An exact affine map.
fn affine(net: &mut Net, name: &str, terms: Vec<(NodeId, LinearMap)>, bias: Spread<f64>) -> NodeId {
    let len = terms[0].1.outputs();
    added(net, name, len, Op::Affine(Affine { terms, bias, rounding: Rounding::Exact }))
}

fn added(net: &mut Net, name: &str, len: usize, op: Op) -> NodeId {
    let grid = if net.makes_integers(&op) { Grid::Integer } else { Grid::Real };
    let range = net.range_of(&op);
    net.add(Node { name: name.into(), shape: vec![len], op, grid, range, quantization: None })
}
