//! A net and a forbidden polyhedron as a mixed-integer program.

use std::sync::Arc;

use super::function::{Shape, binary, tie};
use super::sum::{Element, Sum};
use crate::bounds::Bounds;
use crate::lp::{Column, Program};
use crate::net::{Affine, From, Grid, Max, Net, NodeId, Op, Pointwise, Rounding, slack_bound};
use crate::num::round::{add_up, mul_up, sub_up};

/// Writes elements of a net's values as columns and rows, each when it is first asked for: what nobody reads is left out.
///
/// # Claim
/// For every execution that the net allows on an input of the region there are values of all columns that satisfy every row, in which the columns
/// of elements are those elements.
///
/// # Why
/// Each row is implied by one operation within bounds that hold for all executions; coefficients that are not floats are rounded into the sides of
/// the row ([`Sum`]), and what a runtime may round away widens them.
pub(super) struct Encoder<'e> {
    net: &'e Net,
    /// Bounds on every value; finite.
    bounds: &'e [Bounds],
    /// The value whose elements are independent of one another, each anything on its grid within its bounds.
    start: NodeId,
    pub program: Program,
    elements: Vec<Vec<Option<Element>>>,
    /// Values that only a scalar function reads.
    written_out: Vec<bool>,
    style: Style,
}

/// How steps of integers are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Style {
    /// Integers are real numbers, which leaves a parallelogram of each step's stairs.
    pub relaxed: bool,
    /// Clipping at the upper end is a line, without a 0-1 column, where that adds less than this to the value, in real units.
    pub trapezoid: f64,
}

impl Style {
    /// Integers are integers.
    pub const EXACT: Style = Style { relaxed: false, trapezoid: 0.0 };
}

impl<'e> Encoder<'e> {
    pub fn new(net: &'e Net, bounds: &'e [Bounds], start: NodeId, style: Style) -> Self {
        let elements = bounds.iter().map(|b| vec![None; b.lo.len()]).collect();
        let mut written_out = vec![true; bounds.len()];
        for node in net.nodes() {
            let by_function = matches!(node.op, Op::Pointwise(_));
            node.arguments().iter().for_each(|a| written_out[a.0] &= by_function);
        }
        Encoder { net, bounds, start, program: Program::new(), elements, written_out, style }
    }

    /// Bounds on a value, and its grid.
    pub fn about(&self, id: NodeId) -> (&'e Bounds, Grid) {
        (&self.bounds[id.0], self.net.node(id).grid)
    }

    /// The elements of the start; `None` where nothing depends on one.
    pub fn start_elements(&self) -> &[Option<Element>] {
        &self.elements[self.start.0]
    }

    /// An element of a value.
    pub fn element(&mut self, id: NodeId, i: usize) -> Element {
        if let Some(known) = &self.elements[id.0][i] {
            return known.clone();
        }
        let (lo, hi) = (self.bounds[id.0].lo[i], self.bounds[id.0].hi[i]);
        let made = if lo == hi { Element::Constant(lo) } else { self.make(id, i) };
        self.elements[id.0][i] = Some(made.clone());
        made
    }

    fn make(&mut self, id: NodeId, i: usize) -> Element {
        let net = self.net;
        let node = net.node(id);
        if id == self.start {
            return self.column(id, i, node.grid == Grid::Integer);
        }
        match &node.op {
            Op::Input(_) => self.column(id, i, node.grid == Grid::Integer),
            Op::Affine(a) => self.affine(id, i, a),
            Op::Pointwise(p) => self.pointwise(id, i, p),
            Op::Max(m) => self.max(id, i, m),
            Op::Move(m) => match m.from[i] {
                From::Element { source, index } => self.element(m.sources[source as usize], index as usize),
                From::Constant(c) => Element::Constant(c),
            },
        }
    }

    /// A column for an element.
    fn column(&mut self, id: NodeId, i: usize, integer: bool) -> Element {
        let (lo, hi) = (self.bounds[id.0].lo[i], self.bounds[id.0].hi[i]);
        self.between((lo, hi), integer)
    }

    fn between(&mut self, (lo, hi): (f64, f64), integer: bool) -> Element {
        let integer = integer && !self.style.relaxed;
        Element::Column(self.program.add_column(Column { lo, hi, cost: 0.0, integer }))
    }

    /// y = sum of W x + b, up to what a runtime may round away. An exact sum that only a scalar function reads has no column (the papers leave it
    /// out, too); integer sums need no integrality of their own.
    fn affine(&mut self, id: NodeId, i: usize, a: &Affine) -> Element {
        let mut products = vec![];
        for (x, map) in &a.terms {
            map.for_each_term(i, |j, w| products.push((*x, j, w)));
        }
        let bias = *a.bias.at(i);
        let (mut sum, mut magnitude) = (Sum::constant(bias), bias.abs());
        for (x, j, w) in products.into_iter().filter(|p| p.2 != 0.0) {
            sum.add(&self.element(x, j), w);
            if a.rounding != Rounding::Exact {
                magnitude = add_up(magnitude, mul_up(w.abs(), self.bounds[x.0].magnitude(j)));
            }
        }
        if a.rounding == Rounding::Exact && self.written_out[id.0] {
            return Element::Sum(Arc::new(sum));
        }
        let y = self.column(id, i, false);
        let slack = slack_bound(&a.rounding, i, magnitude);
        sum.with(&y, -1.0).within(&mut self.program, -slack, slack);
        y
    }

    fn pointwise(&mut self, id: NodeId, i: usize, p: &Pointwise) -> Element {
        let x = self.element(p.input, i);
        let (l, u) = (self.bounds[p.input.0].lo[i], self.bounds[p.input.0].hi[i]);
        let grids = (self.net.node(p.input).grid, self.net.node(id).grid);
        let f = p.functions.at(i);
        let y = self.column(id, i, grids.1 == Grid::Integer);
        let unit = self.net.node(id).quantization.as_ref().map_or(1.0, |q| *q.scale.at(i));
        let shape = Shape { grids, relaxed: self.style.relaxed, trapezoid: self.style.trapezoid / unit };
        let lower = f.segments(false, l, u, grids.0);
        if !f.is_band() {
            tie(&mut self.program, &lower, shape, &x, &y);
            return y;
        }
        // Anything between the two ends.
        for (side, segments) in [(1.0, lower), (-1.0, f.segments(true, l, u, grids.0))] {
            let (lo, hi) = (segments[0].value.0, segments[segments.len() - 1].value.1);
            let integer = grids.1 == Grid::Integer;
            let end = self.between((lo, hi), integer);
            tie(&mut self.program, &segments, shape, &x, &end);
            Sum::constant(0.0).with(&end, side).with(&y, -side).not_positive(&mut self.program);
        }
        y
    }

    /// The largest of a window: not below any member, and not above the one that a 0-1 column chooses.
    fn max(&mut self, id: NodeId, i: usize, m: &Max) -> Element {
        let x = &self.bounds[m.input.0];
        let best = m.window(i).iter().map(|&j| x.lo[j as usize]).fold(f64::NEG_INFINITY, f64::max);
        let top = m.window(i).iter().map(|&j| x.hi[j as usize]).fold(f64::NEG_INFINITY, f64::max);
        let mut members: Vec<usize> = m.window(i).iter().map(|&j| j as usize).filter(|&j| x.hi[j] >= best).collect();
        members.sort_unstable();
        members.dedup();
        if let [only] = members[..] {
            return self.element(m.input, only);
        }
        let y = self.column(id, i, false);
        let mut chosen = Sum::constant(-1.0);
        for j in members {
            let member = self.element(m.input, j);
            Sum::constant(0.0).with(&member, 1.0).with(&y, -1.0).not_positive(&mut self.program);
            let z = binary(&mut self.program);
            chosen.add(&z, 1.0);
            let most = sub_up(top, self.bounds[m.input.0].lo[j]);
            let above = Sum::constant(-most).with(&y, 1.0).with(&member, -1.0).with(&z, most);
            above.not_positive(&mut self.program);
        }
        chosen.zero(&mut self.program);
        y
    }
}
