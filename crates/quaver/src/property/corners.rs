//! Regions from exact bounds of every input element.

use super::vnnlib::boxes::{Element, End, Interval, middle};
use super::{PropertyError, Region};
use crate::model::lower::Lowered;
use crate::num::Ratio;

/// A box of inputs.
#[derive(Clone, Debug)]
pub struct Corners {
    /// Every input of the box: a proof covers these.
    pub region: Region,
    /// Where witnesses are taken from.
    pub inside: Region,
    /// An input near the middle.
    pub middle: Vec<f64>,
}

/// All inputs between two corners, both included. Where inputs are on a grid, those of the grid that lie between.
///
/// # Errors
/// If the number of bounds is wrong, or nothing lies between them.
pub fn corners(lowered: &Lowered, lo: &[Ratio], hi: &[Ratio]) -> Result<Corners, PropertyError> {
    let node = lowered.net.node(lowered.net.inputs()[0]);
    if lo.len() != node.len() || hi.len() != node.len() {
        let given = lo.len().min(hi.len());
        return Err(PropertyError(format!("the model takes {} elements and the box has {given}", node.len())));
    }
    let element = Element { grid: node.grid, dtype: lowered.input_types[0] };
    let empty = || Region { lo: vec![], hi: vec![] };
    let mut found = Corners { region: empty(), inside: empty(), middle: vec![] };
    for (i, (lo, hi)) in lo.iter().zip(hi).enumerate() {
        let end = |value: &Ratio| Some(End { value: value.clone(), strict: false });
        let rounded = Interval { lo: end(lo), hi: end(hi) }.rounded(element);
        let Some(r) = rounded.filter(|r| r.between.is_none()) else {
            let (lo, hi, dtype) = (lo.approx(), hi.approx(), element.dtype);
            return Err(PropertyError(format!("element {i}: no {dtype} lies between {lo} and {hi}")));
        };
        for (region, (lo, hi)) in [(&mut found.region, r.region), (&mut found.inside, r.inside)] {
            region.lo.push(lo);
            region.hi.push(hi);
        }
        found.middle.push(middle(r.inside, element));
    }
    Ok(found)
}
