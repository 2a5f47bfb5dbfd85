//! Questions about linear constraints on a net's output: what every other claim becomes.

use std::ops::Range;

use super::{Region, Robustness, Ties};
use crate::num::Ratio;

/// A linear inequality on the elements of an output: sum of coefficient * element <= bound.
#[derive(Clone, Debug)]
pub struct Constraint {
    /// (element, coefficient); no element twice.
    pub terms: Vec<(usize, Ratio)>,
    /// The bound.
    pub bound: Ratio,
    /// Whether equality does not satisfy it.
    pub strict: bool,
}

/// All points that satisfy every constraint; without constraints, every point. Where there is a ball, only those outside it.
#[derive(Clone, Debug, Default)]
pub struct Polyhedron {
    /// The constraints. Bounds are compared with these alone: where there is a ball, every point outside it must satisfy them.
    pub constraints: Vec<Constraint>,
    /// What decides exactly about a point that satisfies the constraints.
    pub outside: Option<Ball>,
}

/// The points whose elements in a range have a sum of squares of at most `square`.
#[derive(Clone, Debug)]
pub struct Ball {
    /// The elements.
    pub elements: Range<usize>,
    /// The square of the radius.
    pub square: Ratio,
}

impl Polyhedron {
    /// All points that satisfy constraints.
    pub fn new(constraints: Vec<Constraint>) -> Self {
        Polyhedron { constraints, outside: None }
    }
}

/// Is there an input of a region whose output lies in one of the polyhedra? The claim that there is none `holds` or is `violated`.
#[derive(Clone, Debug)]
pub struct Query {
    /// Inputs: a proof covers all of them.
    pub region: Region,
    /// Where witnesses are taken from, if that is not the whole region: a region has `f64` corners, and those of a box that was
    /// written in decimals are rounded outward.
    pub inside: Option<Region>,
    /// Inputs of the region that are tried before anything else, such as the centre of a ball.
    pub candidates: Vec<Vec<f64>>,
    /// The outputs that must not occur: the union of these.
    pub forbidden: Vec<Polyhedron>,
}

impl Robustness {
    /// The claim as a question: for each rival in order, the outputs in which it is not beaten.
    pub fn query(&self, classes: usize) -> Query {
        let integer = |n: i64| Ratio::from_f64(n as f64).unwrap_or_else(|| unreachable!("an integer is a number"));
        let beaten = |rival: usize| {
            // An equal score refutes where the rival is the first of the two, or where any tie does.
            let strict = self.ties == Ties::First && rival > self.label;
            let terms = vec![(self.label, integer(1)), (rival, integer(-1))];
            Polyhedron::new(vec![Constraint { terms, bound: integer(0), strict }])
        };
        let forbidden = (0..classes).filter(|&c| c != self.label).map(beaten).collect();
        let candidates = self.center.iter().cloned().collect();
        Query { region: self.region.clone(), inside: None, candidates, forbidden }
    }

    /// The class that the polyhedron number `index` of [`Robustness::query`] is about.
    pub fn rival(&self, index: usize) -> usize {
        if index < self.label { index } else { index + 1 }
    }
}
