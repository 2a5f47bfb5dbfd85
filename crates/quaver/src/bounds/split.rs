//! Where the functions of a part are split.

use super::relax::Ends;
use super::tuned::{Cost, Split};
use crate::net::{Grid, Net, NodeId, Op, ScalarFn};

/// The constraints on the two halves of a part.
pub(crate) type Cut = [Split; 2];

/// Splits of a part that are worth trying, at most `tried(jumps)` of them: where the relaxation costs most, at its point and at worst.
/// `interval` is what is left of the bounds of an element of a value; `jumps` whether a function that costs anything is not continuous.
pub(crate) fn cuts(
    net: &Net,
    interval: impl Fn(NodeId, usize) -> (f64, f64),
    mut costs: Vec<Cost>,
    tried: impl Fn(bool) -> usize,
) -> Vec<Cut> {
    let tried = tried(costs.iter().any(|c| jumps(net, c)));
    let mut chosen: Vec<Cost> = Vec::with_capacity(tried);
    let keys: [fn(&Cost) -> f64; 2] = [|c| c.here, |c| c.most];
    for (key, wanted) in keys.into_iter().zip([tried.div_ceil(2), tried]) {
        let descending = |a: &Cost, b: &Cost| key(b).total_cmp(&key(a));
        let known = |c: &Cost| chosen.iter().any(|o| (o.reader, o.element) == (c.reader, c.element));
        costs.retain(|c| !known(c));
        let more = wanted.saturating_sub(chosen.len()).min(costs.len());
        if 0 < more && more < costs.len() {
            costs.select_nth_unstable_by(more - 1, descending);
        }
        let mut top: Vec<Cost> = costs[..more].iter().filter(|c| key(c) > 0.0).copied().collect();
        top.sort_by(descending);
        chosen.extend(top);
    }
    chosen.iter().flat_map(|c| cuts_of(net, &interval, c)).take(tried).collect()
}

fn jumps(net: &Net, cost: &Cost) -> bool {
    match &net.node(cost.reader).op {
        Op::Pointwise(p) => !p.functions.at(cost.element).is_continuous(),
        Op::Input(_) | Op::Affine(_) | Op::Max(_) | Op::Move(_) => false,
    }
}

fn cuts_of(net: &Net, interval: &impl Fn(NodeId, usize) -> (f64, f64), cost: &Cost) -> Vec<Cut> {
    let Cost { reader, element, at, .. } = *cost;
    let Op::Pointwise(p) = &net.node(reader).op else { return vec![] };
    let (f, grid) = (p.functions.at(element), net.node(p.input).grid);
    let (l, u) = interval(p.input, element);
    let split = |side: f64, at: f64| {
        let interval = if side > 0.0 { (l, at) } else { (at, u) };
        let ends = Ends::new(f, grid, interval.0, interval.1);
        Split { reader, value: p.input, element, at, side, interval, ends, beta: 0.0 }
    };
    places(f, grid, (l, u), at).into_iter().map(|(below, above)| [split(1.0, below), split(-1.0, above)]).collect()
}

/// Where a function on [l, u] may be cut: the last argument of the lower part and the first of the upper.
fn places(f: &ScalarFn, grid: Grid, (l, u): (f64, f64), x: f64) -> Vec<(f64, f64)> {
    let mut all: Vec<(f64, f64)> = f.breaks(grid).filter(|(below, above)| l <= *below && *above <= u).collect();
    all.retain(|(below, above)| *below < u && l < *above);
    if all.len() <= 2 {
        return all;
    }
    // Where the relaxation's point is, and where plateaus end.
    let (first, last) = (all[0], all[all.len() - 1]);
    let nearest = all.iter().min_by(|a, b| (a.0 - x).abs().total_cmp(&(b.0 - x).abs()));
    let mut chosen: Vec<(f64, f64)> = nearest.into_iter().copied().collect();
    let wide = 0.2 * (u - l);
    if first.0 - l > wide {
        chosen.push(first);
    }
    if u - last.1 > wide {
        chosen.push(last);
    }
    chosen
}
