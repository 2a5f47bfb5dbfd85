//! Proved bounds on the values of a net over a box of inputs.
//!
//! Each analysis is one file with one match over the four operations: [`interval`] goes forward element by element; the backward
//! pass carries linear functionals back to the input through lines that enclose each pointwise function.

mod backward;
mod claim;
mod difference;
mod interval;
mod relax;
mod sharpen;
mod split;
mod total;
mod tuned;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rayon::prelude::*;

use crate::net::{Grid, LinearMap, Net, NodeId, Op, Patch};
use crate::property::Region;

pub use backward::lower_bounds;
pub(crate) use claim::{Claim, Journal};
pub(crate) use difference::TwinRanges;
pub use interval::{interval, interval_until};
pub use relax::{Ends, Line, Lines, relax};
pub(crate) use sharpen::{Effort, ProvedPart};
pub(crate) use split::Branch;
pub use total::Total;
pub(crate) use tuned::{Choices, Functional, Objective, Row, Split, Tuned};

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

    /// Narrows one element to what is within other proved bounds, too.
    pub(crate) fn meet_element(&mut self, i: usize, lo: f64, hi: f64) -> Result<(), NoBounds> {
        (self.lo[i], self.hi[i]) = (self.lo[i].max(lo), self.hi[i].min(hi));
        if self.lo[i] <= self.hi[i] { Ok(()) } else { Err(NoBounds::Empty) }
    }

    /// The elements that are wanted, given their numbers and bounds.
    fn chosen(&self, wanted: impl Fn(usize, f64, f64) -> bool) -> Vec<usize> {
        (0..self.lo.len()).filter(|&i| wanted(i, self.lo[i], self.hi[i])).collect()
    }

    /// Narrows elements by lower bounds on each and on its negative in turn; those at the end may be missing.
    fn meet_found(&mut self, elements: &[usize], found: &[f64], grid: Grid) -> Result<(), NoBounds> {
        elements.iter().zip(found.chunks(2)).try_for_each(|(&i, found)| {
            let (lo, hi) = crate::net::onto_grid(grid, found[0], -found[1]);
            self.meet_element(i, lo, hi)
        })
    }

    fn meet(&mut self, other: &Bounds) -> Result<(), NoBounds> {
        (0..self.lo.len()).try_for_each(|i| self.meet_element(i, other.lo[i], other.hi[i]))
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
    /// exact and elements are independent of one another, and of no other value of that element.
    pub is_box: Vec<bool>,
    /// For each index map and each maximum, how often an element of an argument is used at most.
    pub(crate) multiplicity: Vec<usize>,
    /// Functions whose arguments differ little from those of functions before them, by node.
    pub(crate) twins: Vec<Option<difference::Twins>>,
    /// What is known of the sum of the input's elements.
    pub(crate) total: Option<Total>,
}

impl<'a> Prepared<'a> {
    /// Prepares a net.
    pub fn new(net: &'a Net) -> Self {
        let mut is_box: Vec<bool> = vec![];
        let mut multiplicity = vec![];
        let readers = readers(net);
        for node in net.nodes() {
            let mut most = 1;
            // What several values make of one element must meet there: their values apart say nothing of their difference.
            let is_box_alone = |x: NodeId| is_box[x.0] && readers[x.0] <= 1;
            is_box.push(match &node.op {
                Op::Input(_) => true,
                Op::Affine(a) => {
                    matches!(&a.terms[..], [(x, LinearMap::Diagonal { .. })] if is_box_alone(*x))
                }
                Op::Pointwise(p) => is_box_alone(p.input),
                Op::Max(m) => {
                    most = largest_count(net.node(m.input).len(), m.members.iter().map(|&i| i as usize));
                    false
                }
                Op::Move(m) => {
                    most = most_used(net, m);
                    m.sources.len() == 1 && most == 1 && is_box_alone(m.sources[0])
                }
            });
            multiplicity.push(most);
        }
        Prepared { net, is_box, multiplicity, twins: difference::Twins::of(net), total: None }
    }

    /// Prepares a net for inputs whose elements have a sum within bounds: then only the input itself is a box.
    pub fn within(net: &'a Net, total: Total) -> Self {
        let is_box = net.nodes().iter().map(|node| matches!(node.op, Op::Input(_))).collect();
        Prepared { is_box, total: Some(total), ..Prepared::new(net) }
    }
}

/// How many of the nodes that an output depends on read each node.
fn readers(net: &Net) -> Vec<usize> {
    let mut readers = vec![0; net.nodes().len()];
    for (node, _) in net.nodes().iter().zip(net.needed()).filter(|(_, needed)| *needed) {
        node.arguments().iter().for_each(|x| readers[x.0] += 1);
    }
    readers
}

/// How often the most frequent of the numbers below n occurs; 1 if there is none.
fn largest_count(n: usize, numbers: impl Iterator<Item = usize>) -> usize {
    let mut counts = vec![0; n];
    numbers.for_each(|i| counts[i] += 1);
    counts.into_iter().max().unwrap_or(1).max(1)
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
    /// For each element of an affine node, the error of a backward step for a coefficient of magnitude 1 (empty for other nodes).
    pub(crate) affine_errors: Vec<Vec<f64>>,
    /// What is known of the difference of twins, by the second of both.
    pub(crate) differences: Vec<Option<difference::Differences>>,
}

impl Analysis {
    fn push(&mut self, bounds: Bounds, affine_errors: Vec<f64>, lines: Option<Lines>) {
        self.bounds.push(bounds);
        self.affine_errors.push(affine_errors);
        self.lines.push(lines);
        self.differences.push(None);
    }

    /// Chooses the lower lines at another place of each interval (see [`relax`]); the bounds stay.
    pub fn choose_lines(&mut self, prepared: &Prepared, place: f64) {
        for (id, lines) in prepared.net.ids().zip(&mut self.lines) {
            if let (Some(lines), Op::Pointwise(p)) = (lines, &prepared.net.node(id).op) {
                *lines = relax(p, prepared.net.node(p.input).grid, &self.bounds[p.input.0], place);
            }
        }
    }
}

/// Why there are no bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBounds {
    /// Some bound is not a number (an overflow).
    Overflow,
    /// Two proved bounds exclude each other: no execution is left.
    Empty,
}

/// When work that has no end of its own should stop.
#[derive(Clone, Copy, Default)]
pub(crate) struct Until<'u> {
    /// At this time.
    pub deadline: Option<Instant>,
    /// When this is set.
    pub stop: Option<&'u AtomicBool>,
}

impl Until<'_> {
    /// Whether to stop.
    pub fn is_over(&self) -> bool {
        self.deadline.is_some_and(|d| Instant::now() >= d) || self.stop.is_some_and(|s| s.load(Ordering::Relaxed))
    }
}

/// Where an analysis begins and ends.
#[derive(Clone, Copy)]
pub(crate) struct Extent<'e> {
    /// The value that everything after it depends on alone; values before it get no bounds.
    pub start: NodeId,
    /// What it may be.
    pub region: &'e Region,
    /// The last value that is looked at.
    pub last: NodeId,
    /// Whether values that the last does not depend on are looked at, too.
    pub all: bool,
    /// What is done for the bounds of each element after those with lines of least area.
    pub effort: Effort,
    /// When to be content with what there is.
    pub until: Until<'e>,
    /// Sees the bounds of functions' arguments, which are then a little wider.
    pub journal: Option<&'e dyn Journal>,
}

/// Proved bounds on every value over a box; `None` if some bound is not a number (an overflow).
///
/// # Claim
/// For every execution the net allows on an input of the region, every element is within its bounds.
///
/// # Source
/// Zhang et al., CROWN (NeurIPS 2018), section 3.2; Singh et al., DeepPoly (POPL 2019), section 4.
pub fn analyse(prepared: &Prepared, region: &Region) -> Option<Analysis> {
    analyse_until(prepared, region, None)
}

/// [`analyse`] with backward passes up to a deadline only; values that are not reached in time keep their intervals, which follow from
/// tightened ones and hold all the same.
pub fn analyse_until(prepared: &Prepared, region: &Region, deadline: Option<Instant>) -> Option<Analysis> {
    let net = prepared.net;
    let (start, last) = (*net.inputs().first()?, NodeId(net.nodes().len() - 1));
    let until = Until { deadline, stop: None };
    analyse_within(
        prepared,
        Extent { start, region, last, all: true, effort: Effort::NONE, until, journal: None },
        None,
    )
    .ok()
}

/// [`analyse`] between two values. Bounds that are `known` to hold are not lost.
///
/// # Claim
/// For every execution with the start's value in the region and every value within its known bounds, every element is within its bounds;
/// there is none if the result is [`NoBounds::Empty`].
pub(crate) fn analyse_within(
    prepared: &Prepared,
    extent: Extent<'_>,
    known: Option<&[Bounds]>,
) -> Result<Analysis, NoBounds> {
    let net = prepared.net;
    let needed = net.ancestors(extent.last);
    let mut analysis = Analysis { bounds: vec![], lines: vec![], affine_errors: vec![], differences: vec![] };
    let mut sharpened = 0;
    for id in net.ids().take_while(|&id| id <= extent.last) {
        if id < extent.start || !(extent.all || needed[id.0]) {
            analysis.push(Bounds { lo: vec![], hi: vec![] }, vec![], None);
            continue;
        }
        let fresh = |analysis: &Analysis| -> Result<Bounds, NoBounds> {
            let mut bounds = match id == extent.start {
                true => Bounds { lo: extent.region.lo.clone(), hi: extent.region.hi.clone() },
                false => interval::of_node(net, id, &analysis.bounds, extent.region),
            };
            if !bounds.is_finite() {
                return Err(NoBounds::Overflow);
            }
            known.map_or(Ok(()), |known| bounds.meet(&known[id.0]))?;
            Ok(bounds)
        };
        let node = net.node(id);
        match &node.op {
            Op::Pointwise(p) if !prepared.is_box[id.0] && id != extent.start => {
                let wanted = |i: usize, lo: f64, hi: f64| !p.functions.at(i).is_affine_on(lo, hi);
                tighten(prepared, &mut analysis, p.input, extent.until, wanted)?;
                let extent = Extent { effort: extent.effort.after(sharpened), ..extent };
                sharpened += usize::from(tune(prepared, &mut analysis, (id, p.input), extent, wanted)?);
                let lines = relax(p, net.node(p.input).grid, &analysis.bounds[p.input.0], 0.5);
                let bounds = fresh(&analysis)?;
                analysis.push(bounds, vec![], Some(lines));
                if let Some(twins) = &prepared.twins[id.0] {
                    analysis.differences[id.0] = difference::differences(prepared, &analysis, twins, extent.until)?;
                }
            }
            Op::Max(m) if id != extent.start => {
                tighten(prepared, &mut analysis, m.input, extent.until, |_, lo, hi| lo < hi)?;
                let bounds = fresh(&analysis)?;
                analysis.push(bounds, vec![], None);
            }
            Op::Affine(a) if !prepared.is_box[id.0] && id != extent.start => {
                let errors = backward::affine_errors(a, node.len(), &analysis.bounds);
                let bounds = fresh(&analysis)?;
                analysis.push(bounds, errors, None);
            }
            Op::Input(_) | Op::Affine(_) | Op::Pointwise(_) | Op::Max(_) | Op::Move(_) => {
                let bounds = fresh(&analysis)?;
                analysis.push(bounds, vec![], None);
            }
        }
    }
    Ok(analysis)
}

/// Tightens the bounds of those elements of a value that a later function makes use of. Batches are independent of one another and run on the
/// threads of the current pool.
pub(crate) fn tighten(
    prepared: &Prepared,
    analysis: &mut Analysis,
    id: NodeId,
    until: Until<'_>,
    wanted: impl Fn(usize, f64, f64) -> bool,
) -> Result<(), NoBounds> {
    if interval_is_exact(prepared, id) {
        return Ok(());
    }
    let node = prepared.net.node(id);
    let batches = batches(prepared.net, id, analysis.bounds[id.0].chosen(wanted));
    let search = |batch: &Vec<usize>| match until.is_over() {
        true => vec![],
        false => backward::lower_bounds_of_patch(prepared, analysis, id, Patch::signed_units(batch)),
    };
    let found: Vec<Vec<f64>> = match &batches[..] {
        // Another thread would have to be woken for nothing.
        [only] => vec![search(only)],
        _ => batches.par_iter().map(search).collect(),
    };
    let bounds = &mut analysis.bounds[id.0];
    batches.iter().zip(&found).try_for_each(|(batch, found)| bounds.meet_found(batch, found, node.grid))
}

/// [`tighten`] with lines that are tuned for each element of a function's argument, and by branch and bound. Whether there was something to do.
fn tune(
    prepared: &Prepared,
    analysis: &mut Analysis,
    (function, id): (NodeId, NodeId),
    extent: Extent<'_>,
    wanted: impl Fn(usize, f64, f64) -> bool + Sync,
) -> Result<bool, NoBounds> {
    let (node, keep) = (prepared.net.node(id), extent.journal.is_some());
    let chosen = analysis.bounds[id.0].chosen(&wanted);
    let can_gain =
        extent.effort.climbs > 0 && !interval_is_exact(prepared, id) && id > extent.start && !chosen.is_empty();
    let mut found = vec![];
    if can_gain {
        let enough = |i: usize, lo: f64, hi: f64| !wanted(i, lo, hi);
        let (analysis, effort) = (&*analysis, (extent.effort, keep));
        found = sharpen::sharpen((prepared, analysis), id, &chosen, effort, extent.until, enough);
    }
    match extent.journal {
        None => {
            let found: Vec<f64> = found.iter().map(|s| s.bound).collect();
            analysis.bounds[id.0].meet_found(&chosen, &found, node.grid)?;
        }
        Some(journal) => {
            journal.claims(function, claim::claim(analysis, (id, node.grid), &chosen, found));
            let bounds = &analysis.bounds[id.0];
            if chosen.iter().any(|&i| bounds.lo[i] > bounds.hi[i]) {
                return Err(NoBounds::Empty);
            }
        }
    }
    Ok(can_gain)
}

/// Elements of a value in groups that are worked on together (two functionals for each). In a picture neighbours of one line go together, because what
/// they depend on is nearly the same patch.
fn batches(net: &Net, id: NodeId, mut chosen: Vec<usize>) -> Vec<Vec<usize>> {
    let Some([height, width]) = picture(net, id) else {
        return chosen.chunks(backward::BATCH / 2).map(<[usize]>::to_vec).collect();
    };
    let line = |i: &usize| i / width % height;
    chosen.sort_by_key(|i| (line(i), i % width, i / (height * width)));
    let lines = chosen.chunk_by(|a, b| line(a) == line(b));
    lines.flat_map(|l| l.chunks(PICTURE_BATCH / 2)).map(<[usize]>::to_vec).collect()
}

/// Functionals of one batch in a picture: enough for fast products, few enough for a small patch.
const PICTURE_BATCH: usize = 128;

/// The size of the pictures that a value consists of, one for each channel, if it comes from convolutions: a hint.
fn picture(net: &Net, id: NodeId) -> Option<[usize; 2]> {
    let node = net.node(id);
    match &node.op {
        Op::Affine(a) => a.terms.iter().find_map(|(x, map)| match map {
            LinearMap::Conv(c) => Some(c.geometry.out_size),
            LinearMap::Diagonal { .. } => picture(net, *x),
            LinearMap::Dense(_) => None,
        }),
        Op::Pointwise(p) => picture(net, p.input),
        Op::Input(_) | Op::Max(_) | Op::Move(_) => match node.shape[..] {
            [_, height, width] => Some([height, width]),
            _ => None,
        },
    }
}

/// Whether the intervals of a value are already the best bounds: it is a box, or one affine map of a box.
fn interval_is_exact(prepared: &Prepared, id: NodeId) -> bool {
    let affine_of_one_box = match &prepared.net.node(id).op {
        Op::Affine(a) => a.terms.len() == 1 && prepared.is_box[a.terms[0].0.0] && prepared.total.is_none(),
        _ => false,
    };
    prepared.is_box[id.0] || affine_of_one_box
}
