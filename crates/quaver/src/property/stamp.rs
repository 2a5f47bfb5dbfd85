//! Claims about triggers: a stamp of any values at a fixed place must not lead to a class.

use super::{Constraint, Polyhedron, PropertyError, Query, Region};
use crate::num::Ratio;

/// All inputs that agree with one input but for some elements, which may be anything in a range: the input under every stamp that covers these.
///
/// # Errors
/// If an element is not there, or the range is empty or not finite.
pub fn stamped(input: &[f64], elements: &[usize], range: (f64, f64)) -> Result<Region, PropertyError> {
    if !(range.0 <= range.1 && range.0.is_finite() && range.1.is_finite()) {
        return Err(PropertyError(format!("no number is between {} and {}", range.0, range.1)));
    }
    let mut region = Region { lo: input.to_vec(), hi: input.to_vec() };
    for &i in elements {
        let (Some(lo), Some(hi)) = (region.lo.get_mut(i), region.hi.get_mut(i)) else {
            return Err(PropertyError(format!("the stamp covers element {i} of an input of {}", input.len())));
        };
        (*lo, *hi) = range;
    }
    Ok(region)
}

/// The claim that a class never wins: some other output is larger, always. A tie of all others with it, or below it, violates the claim.
///
/// # Errors
/// If the class is not one of at least two.
pub fn never_class(region: Region, class: usize, classes: usize) -> Result<Query, PropertyError> {
    if classes < 2 || class >= classes {
        return Err(PropertyError(format!("class {class} of {classes} classes")));
    }
    let integer = |n: i64| Ratio::from_f64(n as f64).unwrap_or_else(|| unreachable!("an integer is a number"));
    let beaten = |other: usize| {
        let terms = vec![(class, integer(-1)), (other, integer(1))];
        Constraint { terms, bound: integer(0), strict: false }
    };
    let forbidden = vec![Polyhedron::new((0..classes).filter(|c| *c != class).map(beaten).collect())];
    Ok(Query { region, inside: None, candidates: vec![], forbidden })
}
