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
pub fn score(net: &Net, output: NodeId) -> NodeId {
    let mut id = output;
    while let Op::Affine(a) = &net.node(id).op {
        match strictly_increasing(net, a) {
            Some(argument) => id = argument,
            None => break,
        }
    }
    id
}

/// Whether outputs of several nets come from their scores by the same map, so that two outputs are equal exactly where the scores are.
///
/// # Why
/// The map is strictly increasing: different scores are different outputs.
pub fn is_same_map<'n>(nets: impl IntoIterator<Item = &'n Net>) -> bool {
    let tails: Vec<Vec<&Affine>> = nets.into_iter().map(tail).collect();
    tails.windows(2).all(|t| t[0].len() == t[1].len() && t[0].iter().zip(&t[1]).all(|(a, b)| acts_alike(a, b)))
}

/// The maps between a net's output and its score.
fn tail(net: &Net) -> Vec<&Affine> {
    let (mut id, mut maps) = (net.outputs()[0], vec![]);
    while let Op::Affine(a) = &net.node(id).op {
        let Some(argument) = strictly_increasing(net, a) else { break };
        (id, maps) = (argument, [&maps[..], &[a]].concat());
    }
    maps
}

fn acts_alike(a: &Affine, b: &Affine) -> bool {
    let scale = |a: &Affine| match &a.terms[..] {
        [(_, LinearMap::Diagonal { scale, .. })] => scale.data.clone(),
        _ => unreachable!("a strictly increasing map has one scale"),
    };
    scale(a) == scale(b) && a.bias.data == b.bias.data && a.rounding == b.rounding
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
