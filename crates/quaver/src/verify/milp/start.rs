//! Where a program begins: the elements that everything else depends on.

use super::encode::Encoder;
use super::sum::Element;
use crate::bounds::Bounds;
use crate::lp::Program;
use crate::net::{Grid, NodeId};

/// Where each element of the start is, and its bounds.
pub(super) struct Start {
    elements: Vec<Option<Element>>,
    bounds: Bounds,
    grid: Grid,
}

impl Start {
    /// The start of what an encoder has written so far.
    pub fn of(encoder: &Encoder<'_>, start: NodeId) -> Self {
        let (bounds, grid) = encoder.about(start);
        Start { elements: encoder.start_elements().to_vec(), bounds: bounds.clone(), grid }
    }

    /// The columns of elements.
    pub fn columns(&self) -> impl Iterator<Item = usize> {
        self.elements.iter().flatten().filter_map(|e| if let Element::Column(j) = e { Some(*j) } else { None })
    }

    /// The values, if the bounds of a program's columns leave only one for each.
    pub fn only(&self, program: &Program) -> Option<Vec<f64>> {
        let of = |(i, e): (usize, &Option<Element>)| match e {
            Some(Element::Column(j)) => (program.columns[*j].lo, program.columns[*j].hi),
            Some(Element::Constant(c)) => (*c, *c),
            // Nothing that is asked about depends on it.
            Some(Element::Sum(_)) | None => (self.bounds.lo[i], self.bounds.lo[i]),
        };
        let ends = self.elements.iter().enumerate().map(of);
        ends.map(|(lo, hi)| (lo == hi).then_some(lo)).collect()
    }

    /// The values at a point of the program, on their grid: a hint.
    pub fn values(&self, point: &[f64]) -> Vec<f64> {
        let b = &self.bounds;
        let of = |(i, e): (usize, &Option<Element>)| {
            let x = match e {
                Some(Element::Column(j)) => point[*j],
                Some(Element::Constant(c)) => *c,
                Some(Element::Sum(_)) | None => b.lo[i],
            };
            let x = if self.grid == Grid::Integer { x.round() } else { f64::from(x as f32) };
            x.clamp(b.lo[i], b.hi[i])
        };
        self.elements.iter().enumerate().map(of).collect()
    }
}
