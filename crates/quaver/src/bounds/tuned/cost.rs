//! What the lines in place of functions cost.

use super::Tuned;
use crate::bounds::relax::Line;
use crate::bounds::split::Branch;
use crate::net::{NodeId, Op, Pointwise};

/// What the gap between a function and the line in its place costs an objective; hints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// The pointwise node.
    pub reader: NodeId,
    /// Element of it.
    pub element: usize,
    /// Its argument at the relaxation's point.
    pub at: f64,
    /// Coefficient times gap at that argument.
    pub here: f64,
    /// Coefficient times the largest gap.
    pub most: f64,
}

impl Tuned<'_> {
    /// What every open element costs some of the objectives, each with its part.
    pub(super) fn costs(&mut self, parts: &[(usize, &mut Branch)]) -> Vec<Vec<Cost>> {
        self.find_point();
        let rows = self.rows();
        let open = self.state.nodes.iter().flatten().map(|n| n.free.elements.len()).sum();
        let reached = self.prepared.net.ancestors(self.from);
        let mut all: Vec<Vec<Cost>> = parts.iter().map(|_| Vec::with_capacity(open)).collect();
        for (id, node) in self.prepared.net.ids().zip(&self.state.nodes) {
            self.add_costs(id, parts, &mut all);
            let (Some(node), Op::Pointwise(p)) = (node, &self.prepared.net.node(id).op) else { continue };
            if !reached[id.0] {
                continue;
            }
            let (bounds, point) = (&self.analysis.bounds[p.input.0], &self.smooth[p.input.0]);
            for (place, e) in node.free.elements.iter().map(|&e| e as usize).enumerate() {
                let frame = (bounds.lo[e], bounds.hi[e]);
                for ((row, part), costs) in parts.iter().zip(&mut all) {
                    let k = place * rows + row;
                    let (c, x) = (node.coefficients[k], point[e * rows + row]);
                    if !node.is_own[k] {
                        costs.push(cost(p, (id, e), frame, (c, x), node.lines(k)));
                        continue;
                    }
                    let (l, u) = part.interval(self.analysis, p.input, e);
                    if !p.functions.at(e).is_affine_on(l, u) {
                        costs.push(cost(p, (id, e), (l, u), (c, x), node.lines(k)));
                    }
                }
            }
        }
        all
    }
}

fn cost(
    p: &Pointwise,
    (reader, element): (NodeId, usize),
    (l, u): (f64, f64),
    (c, x): (f64, f64),
    (lower, upper): (Line, Line),
) -> Cost {
    let f = p.functions.at(element);
    let at = x.clamp(l, u);
    let line = if c > 0.0 { lower } else { upper };
    let gap = |x: f64| (c.signum() * (f.smooth_hint(x) - line.slope * x - line.offset)).max(0.0);
    // The gap is largest at an end or where the function bends.
    let bends = f.bends().into_iter().flatten().filter(|x| l < *x && *x < u);
    let most = bends.chain([l, u]).map(gap).fold(0.0, f64::max);
    // An element that the objective does not depend on at present comes after all others.
    let size = c.abs().max(1e-30);
    Cost { reader, element, at, here: c.abs() * gap(at), most: size * most.max(1e-30) }
}
