//! Scalar functions as comparisons and choices.

use num_bigint::BigInt;
use num_traits::Zero;

use super::net::{Encoder, Scale, Value};
use super::term::{Term, at_least, ceil, exact, floor, literal, sum};
use crate::export::question::ExportError;
use crate::export::sums::{last_bit, last_bit_of};
use crate::net::{Cut, NodeId, Piecewise, Pointwise, ScalarFn, Step};
use crate::num::{Dyadic, float32};

/// A pointwise node.
pub fn encode(e: &mut Encoder<'_>, id: NodeId, p: &Pointwise) -> Result<Value, ExportError> {
    let node = e.net.node(id);
    let x = e.value(p.input).clone();
    let exponent = p.functions.data.iter().filter_map(|f| exponent_of(f, x.scale)).min();
    let straight = p.functions.data.iter().any(|f| matches!(f, ScalarFn::Piecewise(_)));
    if straight && x.scale == Scale::Key {
        let cure = "declare a grid of inputs, as in --grid 1/256";
        return Err(ExportError::at(
            node,
            "is a piecewise linear function of float32 inputs, which have no common unit",
            cure,
        ));
    }
    let exponent = exponent.unwrap_or(0).min(0);
    let elements = (0..node.len()).map(|i| {
        let (function, argument) = (p.functions.at(i), &x.elements[i]);
        let bounds = e.between(id, i, exponent);
        match (function, x.scale) {
            (ScalarFn::Piecewise(f), Scale::Exponent(of_x)) => {
                e.define((id, i), bounds, |w| pieces(f, argument, (of_x, exponent), w))
            }
            (f, scale) => {
                // Bands were refused: a band's lower end stands for it.
                let values: Vec<BigInt> = step(f).values().iter().map(|v| floor(&exact(*v), exponent)).collect();
                let places: Vec<BigInt> = step(f).cuts().iter().map(|c| place(c, scale)).collect();
                e.define((id, i), bounds, |w| stairs(argument, &places, &values, w))
            }
        }
    });
    Ok(Value { scale: Scale::Exponent(exponent), elements: elements.collect() })
}

fn step(f: &ScalarFn) -> &Step {
    match f {
        ScalarFn::Step(s) => s,
        ScalarFn::Band(b) => b.lower(),
        ScalarFn::Piecewise(_) => unreachable!("refused on float32 inputs, else written as pieces"),
    }
}

/// The largest exponent of a unit for all values of a function.
fn exponent_of(f: &ScalarFn, scale: Scale) -> Option<i64> {
    match (f, scale) {
        (ScalarFn::Piecewise(p), Scale::Exponent(e)) => (0..=p.knots.len()).flat_map(|k| of_line(line(p, k), e)).min(),
        (ScalarFn::Piecewise(_), Scale::Key) => None,
        (ScalarFn::Step(s), _) => Some(last_bit_of(s.values().iter())),
        (ScalarFn::Band(b), _) => Some(last_bit_of(b.lower().values().iter())),
    }
}

/// The units of the two parts of a line.
fn of_line((slope, constant): (f64, Dyadic), e: i64) -> Vec<i64> {
    let constant = (constant.signum() != 0).then(|| constant.parts().1);
    last_bit(slope).map(|b| b + e).into_iter().chain(constant).collect()
}

/// The line y = slope x + constant that holds between knots k - 1 and k.
fn line(p: &Piecewise, k: usize) -> (f64, Dyadic) {
    let last = p.knots.len() - 1;
    let (knot, slope) = match k {
        0 => (p.knots[0], p.left),
        k if k > last => (p.knots[last], p.right),
        k => (p.knots[k - 1], if p.knots[k - 1].1 == p.knots[k].1 { 0.0 } else { 1.0 }),
    };
    (slope, &exact(knot.1) - &(&exact(slope) * &exact(knot.0)))
}

/// The smallest integer whose number crosses a cut.
fn place(cut: &Cut, scale: Scale) -> BigInt {
    match scale {
        Scale::Exponent(e) if cut.strict => floor(&exact(cut.at), e) + 1,
        Scale::Exponent(e) => ceil(&exact(cut.at), e),
        Scale::Key => {
            let first = float32::ceil_f64(cut.at);
            let beyond = f64::from(f32::MAX) < cut.at || (cut.strict && f64::from(first) == cut.at);
            BigInt::from(float32::key(first.min(f32::MAX))) + i32::from(beyond)
        }
    }
}

/// `values[k]` where x is at least exactly k of the places: a balanced tree of comparisons over those that x can reach.
pub fn stairs(x: &Term, places: &[BigInt], values: &[BigInt], width: u64) -> String {
    let from = places.partition_point(|p| *p <= x.lo);
    let to = places.partition_point(|p| *p <= x.hi);
    tree(x, &places[from..to], &values[from..=to], width)
}

fn tree(x: &Term, places: &[BigInt], values: &[BigInt], width: u64) -> String {
    if values.iter().all(|v| *v == values[0]) {
        return literal(&values[0], width);
    }
    let k = places.len() / 2;
    let low = tree(x, &places[..k], &values[..=k], width);
    let high = tree(x, &places[k + 1..], &values[k + 1..], width);
    if low == high { low } else { format!("(ite {} {high} {low})", at_least(x, &places[k])) }
}

/// A function with straight pieces, of which those are written that x can reach.
fn pieces(f: &Piecewise, x: &Term, (of_x, exponent): (i64, i64), width: u64) -> String {
    let places: Vec<BigInt> = f.knots.iter().map(|k| ceil(&exact(k.0), of_x)).collect();
    let from = places.partition_point(|p| *p <= x.lo);
    let to = places.partition_point(|p| *p <= x.hi);
    let on_line = |k: usize| {
        let (slope, constant) = line(f, k);
        let constant = floor(&constant, exponent);
        let mut parts = vec![];
        if slope != 0.0 {
            parts.push(x.times(&floor(&exact(slope), exponent - of_x), width));
        }
        if !constant.is_zero() || parts.is_empty() {
            parts.push(literal(&constant, width));
        }
        sum(&parts, width)
    };
    (from..to).rev().fold(on_line(to), |above, k| format!("(ite {} {above} {})", at_least(x, &places[k]), on_line(k)))
}
