//! Interval bounds, forward.

use super::Bounds;
use crate::net::{Enclosure, From, Net, NodeId, Op, affine_enclosure, onto_grid};
use crate::num::round::sub_up;
use crate::property::Region;

/// Interval bounds on every value.
pub fn interval(net: &Net, region: &Region) -> Vec<Bounds> {
    interval_until(net, region, NodeId(net.nodes().len().saturating_sub(1)))
}

/// Interval bounds on every value up to one.
pub fn interval_until(net: &Net, region: &Region, last: NodeId) -> Vec<Bounds> {
    let mut bounds = vec![];
    for id in net.ids().take_while(|&id| id <= last) {
        let next = of_node(net, id, &bounds, region);
        bounds.push(next);
    }
    bounds
}

/// Interval bounds on one value from those of its arguments.
///
/// # Claim
/// If every argument is within its bounds, every result that the node allows is within the result's.
///
/// # Rounding
/// Affine nodes by [`affine_enclosure`]; pointwise functions are monotone and evaluated outward; maxima and index maps
/// are exact. Bounds on an integer grid are moved inward to integers.
pub(super) fn of_node(net: &Net, id: NodeId, bounds: &[Bounds], region: &Region) -> Bounds {
    let node = net.node(id);
    let n = node.len();
    match &node.op {
        Op::Input(_) => Bounds { lo: region.lo.clone(), hi: region.hi.clone() },
        Op::Affine(a) => {
            let enclosures: Vec<Enclosure> = a.terms.iter().map(|t| enclosure(&bounds[t.0.0])).collect();
            let terms: Vec<_> = a.terms.iter().map(|t| &t.1).zip(&enclosures).collect();
            let result = affine_enclosure(n, a, &terms, 1);
            let of = |i| onto_grid(node.grid, result.lo(i), result.hi(i));
            let (lo, hi) = (0..n).map(of).unzip();
            Bounds { lo, hi }
        }
        Op::Pointwise(p) => {
            let x = &bounds[p.input.0];
            Bounds {
                lo: (0..n).map(|i| p.functions.at(i).value_down(x.lo[i])).collect(),
                hi: (0..n).map(|i| p.functions.at(i).value_up(x.hi[i])).collect(),
            }
        }
        Op::Max(m) => {
            let x = &bounds[m.input.0];
            let largest = |v: &[f64], i| m.window(i).iter().map(|&j| v[j as usize]).fold(f64::NEG_INFINITY, f64::max);
            Bounds { lo: (0..n).map(|i| largest(&x.lo, i)).collect(), hi: (0..n).map(|i| largest(&x.hi, i)).collect() }
        }
        Op::Move(m) => {
            let of = |f: &From| match f {
                From::Element { source, index } => {
                    let x = &bounds[m.sources[*source as usize].0];
                    (x.lo[*index as usize], x.hi[*index as usize])
                }
                From::Constant(c) => (*c, *c),
            };
            let (lo, hi) = m.from.iter().map(of).unzip();
            Bounds { lo, hi }
        }
    }
}

/// Bounds as a centre and a radius that covers both ends.
fn enclosure(b: &Bounds) -> Enclosure {
    let center: Vec<f64> = b.lo.iter().zip(&b.hi).map(|(l, h)| l + (h - l) / 2.0).collect();
    let radius = center.iter().enumerate().map(|(i, &c)| sub_up(b.hi[i], c).max(sub_up(c, b.lo[i]))).collect();
    Enclosure { center, radius: Some(radius) }
}
