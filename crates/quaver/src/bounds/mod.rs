//! Proved bounds on the values of a net over a box of inputs.
//!
//! Each analysis is one file with one match over the four operations: [`interval`] goes forward element by element; the backward
//! pass carries linear functionals back to the input through lines that enclose each pointwise function.

mod backward;
mod interval;
mod relax;

use crate::net::{LinearMap, Net, NodeId, Op, Spread};
use crate::property::Region;

pub use backward::lower_bounds;
pub use interval::{interval, interval_until};
pub use relax::{Line, Lines, relax};

/// Bounds on every element of one value.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// Lower bounds.
    pub lo: Vec<f64>,
    /// Upper bounds.
    pub hi: Vec<f64>,
}

impl Bounds {
    /// A value not below |x| for element i.
    pub fn magnitude(&self, i: usize) -> f64 {
        self.lo[i].abs().max(self.hi[i].abs())
    }

    /// Whether every bound is a number.
    pub fn is_finite(&self) -> bool {
        self.lo.iter().chain(&self.hi).all(|x| x.is_finite())
    }
}

/// Facts about a net that every bound computation needs, made once.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// The net.
    pub net: &'a Net,
    /// Whether each element of a value is a function of its own element of the input alone, so that its interval bounds are
    /// exact and elements are independent of one another.
    pub is_box: Vec<bool>,
    /// Column norms of each linear map, by node and term.
    pub(crate) column_norms: Vec<Vec<Spread<f64>>>,
    /// For each index map, how often an element of a source is used at most.
    pub(crate) multiplicity: Vec<usize>,
}

impl<'a> Prepared<'a> {
    /// Prepares a net.
    pub fn new(net: &'a Net) -> Self {
        let mut is_box: Vec<bool> = vec![];
        let (mut column_norms, mut multiplicity) = (vec![], vec![]);
        for node in net.nodes() {
            let (mut norms, mut most) = (vec![], 1);
            is_box.push(match &node.op {
                Op::Input(_) => true,
                Op::Affine(a) => {
                    norms = a.terms.iter().map(|t| t.1.column_norms()).collect();
                    matches!(&a.terms[..], [(x, LinearMap::Diagonal { .. })] if is_box[x.0])
                }
                Op::Pointwise(p) => is_box[p.input.0],
                Op::Max(_) => false,
                Op::Move(m) => {
                    most = most_used(net, m);
                    m.sources.len() == 1 && most == 1 && is_box[m.sources[0].0]
                }
            });
            column_norms.push(norms);
            multiplicity.push(most);
        }
        Prepared { net, is_box, column_norms, multiplicity }
    }
}

fn most_used(net: &Net, m: &crate::net::Move) -> usize {
    // A source that is named twice counts by value, not by position.
    let mut counts: Vec<Vec<usize>> = m.sources.iter().map(|&s| vec![0; net.node(s).len()]).collect();
    for from in &m.from {
        if let crate::net::From::Element { source, index } = from {
            let id = m.sources[*source as usize];
            let first = m.sources.iter().position(|&s| s == id).unwrap_or(*source as usize);
            counts[first][*index as usize] += 1;
        }
    }
    counts.into_iter().flatten().max().unwrap_or(1).max(1)
}

/// Bounds on every value: intervals, and a backward pass for each element whose function is not affine between its bounds.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// By node.
    pub bounds: Vec<Bounds>,
    /// Enclosing lines of each pointwise node.
    pub lines: Vec<Option<Lines>>,
}

impl Analysis {
    /// Chooses the lower lines at another place of each interval (see [`relax`]); the bounds stay.
    pub fn choose_lines(&mut self, prepared: &Prepared, place: f64) {
        for (id, lines) in prepared.net.ids().zip(&mut self.lines) {
            if let (Some(lines), Op::Pointwise(p)) = (lines, &prepared.net.node(id).op) {
                *lines = relax(p, prepared.net.node(p.input).grid, &self.bounds[p.input.0], place);
            }
        }
    }
}

/// Rows of a backward pass that are worked on together.
const BATCH: usize = 256;

/// Proved bounds on every value over a box; `None` if some bound is not a number (an overflow).
///
/// # Claim
/// For every execution the net allows on an input of the region, every element is within its bounds.
///
/// # Source
/// Zhang et al., CROWN (NeurIPS 2018), section 3.2; Singh et al., DeepPoly (POPL 2019), section 4.
pub fn analyse(prepared: &Prepared, region: &Region) -> Option<Analysis> {
    let net = prepared.net;
    let mut analysis = Analysis { bounds: vec![], lines: vec![] };
    for id in net.ids() {
        let bounds = interval::of_node(net, id, &analysis.bounds, region);
        if !bounds.is_finite() {
            return None;
        }
        analysis.bounds.push(bounds);
        let node = net.node(id);
        let lines = match &node.op {
            Op::Pointwise(p) if !prepared.is_box[id.0] => {
                tighten(prepared, &mut analysis, p.input, |i, b| !p.functions.at(i).is_affine_on(b.lo[i], b.hi[i]));
                analysis.bounds[id.0] = interval::of_node(net, id, &analysis.bounds, region);
                Some(relax(p, net.node(p.input).grid, &analysis.bounds[p.input.0], 0.5))
            }
            Op::Max(m) => {
                tighten(prepared, &mut analysis, m.input, |i, b| b.lo[i] < b.hi[i]);
                analysis.bounds[id.0] = interval::of_node(net, id, &analysis.bounds, region);
                None
            }
            Op::Input(_) | Op::Affine(_) | Op::Pointwise(_) | Op::Move(_) => None,
        };
        analysis.lines.push(lines);
    }
    Some(analysis)
}

/// Tightens the bounds of those elements of a value that a later function makes use of.
fn tighten(prepared: &Prepared, analysis: &mut Analysis, id: NodeId, wanted: impl Fn(usize, &Bounds) -> bool) {
    if interval_is_exact(prepared, id) {
        return;
    }
    let n = prepared.net.node(id).len();
    let chosen: Vec<usize> = (0..n).filter(|&i| wanted(i, &analysis.bounds[id.0])).collect();
    for chunk in chosen.chunks(BATCH / 2) {
        let mut rows = vec![0.0; 2 * chunk.len() * n];
        for (r, &i) in chunk.iter().enumerate() {
            rows[2 * r * n + i] = 1.0;
            rows[(2 * r + 1) * n + i] = -1.0;
        }
        let found = lower_bounds(prepared, analysis, id, rows, 2 * chunk.len());
        for (r, &i) in chunk.iter().enumerate() {
            let (lo, hi) = crate::net::onto_grid(prepared.net.node(id).grid, found[2 * r], -found[2 * r + 1]);
            let bounds = &mut analysis.bounds[id.0];
            let (lo, hi) = (bounds.lo[i].max(lo), bounds.hi[i].min(hi));
            // Both pairs are valid, so they meet; if floats disagree about an empty box, keep the intervals.
            if lo <= hi {
                (bounds.lo[i], bounds.hi[i]) = (lo, hi);
            }
        }
    }
}

/// Whether the intervals of a value are already the best bounds: it is a box, or one affine map of a box.
fn interval_is_exact(prepared: &Prepared, id: NodeId) -> bool {
    let affine_of_one_box = match &prepared.net.node(id).op {
        Op::Affine(a) => a.terms.len() == 1 && prepared.is_box[a.terms[0].0.0],
        _ => false,
    };
    prepared.is_box[id.0] || affine_of_one_box
}
