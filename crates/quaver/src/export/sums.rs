//! Where sums are dyadic numbers with a known last bit.

use crate::net::{Affine, Grid, Net, NodeId};
use crate::num::Dyadic;

/// The exponent of the last bit that is set; `None` for zero.
pub(super) fn last_bit(x: f64) -> Option<i64> {
    Dyadic::from_f64(x).filter(|d| d.signum() != 0).map(|d| d.parts().1)
}

/// The smallest exponent of the last bits of some numbers; 0 if all are zero.
pub(super) fn last_bit_of<'a>(numbers: impl Iterator<Item = &'a f64>) -> i64 {
    numbers.filter_map(|&x| last_bit(x)).min().unwrap_or(0)
}

/// The exponent e such that every product and the bias of an affine node with integer arguments is a multiple of 2^e.
pub(super) fn exponent_of_integer_sum(net: &Net, a: &Affine) -> Option<i64> {
    let integers = |id: &NodeId| net.node(*id).grid == Grid::Integer;
    let all = a.terms.iter().all(|(id, _)| integers(id));
    all.then(|| last_bit_of(a.bias.data.iter().chain(a.terms.iter().flat_map(|t| t.1.weights()))))
}
