//! Where the functions of a part are split.

use std::sync::Arc;

use super::Analysis;
use super::relax::Ends;
use super::tuned::{Cost, Split};
use crate::net::{Grid, Net, NodeId, Op, ScalarFn};

/// The constraints that cut off a part, and where the lines of its last bound stood.
#[derive(Clone, Debug)]
pub(crate) struct Branch {
    /// Of those on one element the last says what the function's lines are.
    pub splits: Vec<Split>,
    /// See [`super::Choices::best`].
    pub slopes: Arc<Vec<u8>>,
}

impl Branch {
    /// Nothing is cut off.
    pub fn whole(slopes: Arc<Vec<u8>>) -> Self {
        Branch { splits: vec![], slopes }
    }

    /// The part of it that satisfies one more constraint.
    pub fn half(&self, split: Split) -> Self {
        Branch { splits: self.splits.iter().cloned().chain([split]).collect(), slopes: self.slopes.clone() }
    }

    /// What the constraints leave of the bounds of an element.
    pub fn interval(&self, analysis: &Analysis, value: NodeId, element: usize) -> (f64, f64) {
        let own = |s: &&Split| s.value == value && s.element == element;
        let bounds = &analysis.bounds[value.0];
        self.splits.iter().rfind(own).map_or((bounds.lo[element], bounds.hi[element]), |s| s.interval)
    }
}

/// The constraints on the two halves of a part.
pub(crate) type Cut = [Split; 2];

/// Where a part is split: at the function whose relaxation costs most at the relaxation's point, else at worst.
///
/// One walk for each half of several candidates chose worse than this, at many times the cost.
pub(super) fn cut(net: &Net, analysis: &Analysis, part: &Branch, mut costs: Vec<Cost>) -> Option<Cut> {
    loop {
        let order = |a: &Cost, b: &Cost| a.here.total_cmp(&b.here).then(a.most.total_cmp(&b.most));
        let best = (0..costs.len()).max_by(|&a, &b| order(&costs[a], &costs[b]))?;
        if let Some(cut) = cut_at(net, analysis, part, &costs.swap_remove(best)) {
            return Some(cut);
        }
    }
}

fn cut_at(net: &Net, analysis: &Analysis, part: &Branch, cost: &Cost) -> Option<Cut> {
    let Cost { reader, element, at, .. } = *cost;
    let Op::Pointwise(p) = &net.node(reader).op else { return None };
    let (f, grid) = (p.functions.at(element), net.node(p.input).grid);
    let (l, u) = part.interval(analysis, p.input, element);
    let split = |side: f64, at: f64| {
        let interval = if side > 0.0 { (l, at) } else { (at, u) };
        let ends = Ends::new(f, grid, interval.0, interval.1);
        Split { reader, value: p.input, element, at, side, interval, ends, beta: 0.0 }
    };
    let (below, above) = place(f, grid, (l, u), at)?;
    Some([split(1.0, below), split(-1.0, above)])
}

/// Where a function on [l, u] is cut, near x: the last argument of the lower part and the first of the upper.
fn place(f: &ScalarFn, grid: Grid, (l, u): (f64, f64), x: f64) -> Option<(f64, f64)> {
    let inside = f.breaks(grid).filter(|(below, above)| l <= *below && *below < u && l < *above && *above <= u);
    inside.min_by(|a, b| (a.0 - x).abs().total_cmp(&(b.0 - x).abs()))
}
