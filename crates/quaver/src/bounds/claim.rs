//! Bounds as a certificate states them, with what proves them.

use super::Analysis;
use super::sharpen::{ProvedPart, Sharpened};
use crate::net::{Grid, NodeId};

/// Bounds on one element of a function's argument.
pub(crate) struct Claim {
    pub element: usize,
    pub ends: [f32; 2],
    /// For each end, parts that cover all executions; none where the bounds that every analysis gives imply it.
    pub proofs: [Option<Vec<ProvedPart>>; 2],
}

/// Sees the bounds that an analysis gives the arguments of a function.
pub(crate) trait Journal: Sync {
    /// They hold of every execution within the bounds of values before.
    fn claims(&self, function: NodeId, claims: Vec<Claim>);
}

/// How much is given away so that another program, which rounds otherwise, proves the same: a share of the width, and so many times what a
/// step back rounds.
const SHARE: f64 = 1e-7;
const ROUNDINGS: f64 = 16.0;

/// Widens the bounds of some elements a little, to float32 numbers, and meets them with what was found for each and its negative.
///
/// # Claim
/// If the bounds and what was found hold, so do the new bounds; where one is above the other, nothing is left.
pub(super) fn claim(
    analysis: &mut Analysis,
    (id, grid): (NodeId, Grid),
    elements: &[usize],
    found: Vec<Sharpened>,
) -> Vec<Claim> {
    let (bounds, errors) = (&mut analysis.bounds[id.0], &analysis.affine_errors[id.0]);
    let mut found = found.into_iter();
    let mut claims = vec![];
    for &i in elements {
        let (lo, hi) = (bounds.lo[i], bounds.hi[i]);
        let loss = SHARE * (hi - lo) + ROUNDINGS * errors.get(i).unwrap_or(&0.0);
        let mut proofs = [None, None];
        // The least of an element and of its negative.
        let mut ends = [lo, -hi];
        for (end, proof) in ends.iter_mut().zip(&mut proofs) {
            let sharpened = found.next().filter(|s| s.bound - loss > *end);
            let real = sharpened.as_ref().map_or(*end, |s| s.bound) - loss;
            match grid {
                Grid::Integer if sharpened.is_none() => {}
                Grid::Integer => *end = real.ceil().max(*end),
                Grid::Float32 | Grid::Real => *end = real,
            }
            *proof = sharpened.map(|s| s.parts);
        }
        let ends = [down(ends[0]), -down(ends[1])];
        (bounds.lo[i], bounds.hi[i]) = (ends[0].into(), ends[1].into());
        claims.push(Claim { element: i, ends, proofs });
    }
    claims
}

/// The largest float32 that is not above a number.
fn down(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) > x { near.next_down() } else { near }
}
