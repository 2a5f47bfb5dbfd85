//! The value that decides the class.

use crate::net::{Affine, Grid, LinearMap, Net, NodeId, Op, Rounding};

/// The earliest value whose elements are ordered exactly as the output's: strictly increasing element-wise maps that are the
/// same for all elements are taken off the end.
///
/// # Claim
/// For all i, j: score_i < score_j if and only if output_i < output_j, and likewise for equality.
///
/// # Why
/// A real map s x + b with s > 0 is strictly increasing. Rounded once to float32, s (q - z) stays strictly increasing on integers
/// |q - z| <= 2^20: two neighbours are s apart, and values of magnitude at most s 2^20 are rounded by at most s 2^-4 each.
pub(crate) fn score(net: &Net, output: NodeId) -> NodeId {
    let mut id = output;
    while let Op::Affine(a) = &net.node(id).op {
        match strictly_increasing(net, a) {
            Some(argument) => id = argument,
            None => break,
        }
    }
    id
}

fn strictly_increasing(net: &Net, a: &Affine) -> Option<NodeId> {
    let [(argument, LinearMap::Diagonal { scale, .. })] = &a.terms[..] else { return None };
    let ([s], [b]) = (&scale.data[..], &a.bias.data[..]) else { return None };
    if *s <= 0.0 {
        return None;
    }
    let integers = || {
        let source = net.node(*argument);
        let z = -b / s;
        let reach = source.range.0.abs().max(source.range.1.abs()) + z.abs();
        source.grid == Grid::Integer
            && z.fract() == 0.0
            && -z * s == *b
            && reach <= 1_048_576.0
            && (1e-25..1e25).contains(s)
    };
    match a.rounding {
        Rounding::Exact => Some(*argument),
        Rounding::Nearest32 => integers().then_some(*argument),
        Rounding::Slack { .. } => None,
    }
}
