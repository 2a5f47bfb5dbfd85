//! Functions of nearly the same argument in a batch of functionals.

use super::{Cost, Row, Tuned};
use crate::bounds::difference::{Joint, Twins};
use crate::bounds::split::Branch;
use crate::bounds::{Analysis, Prepared};
use crate::net::{NodeId, Op};

/// What became of two twins' coefficients in the last walk; entry `element * rows + row` of each list.
pub(in crate::bounds) struct TwinUse {
    rows: usize,
    /// How much went to the difference.
    taken: Vec<f64>,
    /// Whether that was all of the second's coefficient.
    all_of_second: Vec<bool>,
    /// What is known under the splits of a row: one more than the place in `own`, 0 where that is what the frame knows.
    places: Vec<u32>,
    own: Vec<Joint>,
}

impl TwinUse {
    fn new(elements: usize, rows: usize) -> Self {
        let n = elements * rows;
        TwinUse { rows, taken: vec![0.0; n], all_of_second: vec![false; n], places: vec![0; n], own: vec![] }
    }

    /// What is known of an element under the splits of a row.
    fn set_own(&mut self, element: usize, row: usize, joint: Joint) {
        self.own.push(joint);
        self.places[element * self.rows + row] = self.own.len() as u32;
    }

    /// What is known of an element under the splits of a row, if that is more than without.
    pub fn own(&self, element: usize, row: usize) -> Option<&Joint> {
        (self.places[element * self.rows + row] as usize).checked_sub(1).map(|k| &self.own[k])
    }

    /// Whether a row has splits on an element.
    pub fn has_own(&self, element: usize) -> bool {
        !self.own.is_empty() && self.places[element * self.rows..][..self.rows].iter().any(|p| *p != 0)
    }

    /// Forgets the last walk.
    pub fn forget(&mut self) {
        self.taken.fill(0.0);
    }

    /// Notes that t was taken from both coefficients.
    pub fn note(&mut self, element: usize, row: usize, t: f64, all_of_second: bool) {
        let k = element * self.rows + row;
        (self.taken[k], self.all_of_second[k]) = (t, all_of_second);
    }
}

/// The twins that a walk from a value meets.
pub(super) fn uses(prepared: &Prepared, analysis: &Analysis, from: NodeId, rows: &[Row<'_>]) -> Vec<Option<TwinUse>> {
    let of = |id: NodeId| {
        let (twins, frame) = (prepared.twins[id.0].as_ref()?, analysis.differences.get(id.0)?.as_ref()?);
        let mut use_ = TwinUse::new(frame.joints.len(), rows.len());
        for (r, row) in rows.iter().enumerate() {
            let here = row.branch.splits.iter().filter(|s| twins.nodes.contains(&s.reader));
            for element in here.map(|s| s.element) {
                let bounds = twins.arguments.map(|x| row.branch.interval(analysis, x, element));
                let joint = twins.joint(prepared.net, element, bounds, frame.joints[element].range);
                use_.set_own(element, r, joint);
            }
        }
        Some(use_)
    };
    (0..=from.0).map(NodeId).map(of).collect()
}

impl Tuned<'_> {
    /// The twins whose second is a node, with what became of their coefficients.
    fn twins_at(&self, id: NodeId) -> Option<(&Twins, &TwinUse)> {
        Some((self.prepared.twins[id.0].as_ref()?, self.state.twins[id.0].as_ref()?))
    }

    /// What is known of a difference in a row.
    fn joint(&self, id: NodeId, use_: &TwinUse, element: usize, row: usize) -> Option<Joint> {
        let frame = || self.analysis.differences[id.0].as_ref().map(|d| d.joints[element]);
        use_.own(element, row).copied().or_else(frame)
    }

    /// Gives twins, at the relaxation's point, the difference of their line where that is in use.
    pub(super) fn mend_twins(&mut self, id: NodeId, value: &mut [f64]) {
        let Some((twins, use_)) = self.twins_at(id) else { return };
        let rows = self.rows();
        let mut first = vec![];
        for (k, &t) in use_.taken.iter().enumerate().filter(|(_, t)| **t != 0.0) {
            let (element, row) = (k / rows, k % rows);
            let Some(joint) = self.joint(id, use_, element, row) else { continue };
            let between = twins.bound_at(element, &joint, t, twins.arguments.map(|x| self.point[x.0][k]));
            if use_.all_of_second[k] {
                value[k] = twins.other(element, true, self.point[twins.nodes[0].0][k], between);
            } else {
                first.push((k, twins.other(element, false, value[k], between)));
            }
        }
        let node = twins.nodes[0].0;
        first.into_iter().for_each(|(k, v)| self.point[node][k] = v);
    }

    /// Adds what lines for differences cost some of the objectives, for either function that can be split.
    pub(super) fn add_costs(&self, id: NodeId, parts: &[(usize, &mut Branch)], all: &mut [Vec<Cost>]) {
        let Some((twins, use_)) = self.twins_at(id) else { return };
        let (net, rows) = (self.prepared.net, self.rows());
        for element in 0..use_.taken.len() / rows.max(1) {
            for ((row, part), costs) in parts.iter().zip(all.iter_mut()) {
                let k = element * rows + row;
                let (t, joint) = (use_.taken[k], self.joint(id, use_, element, *row));
                let Some(joint) = joint.filter(|_| t != 0.0) else { continue };
                let x = twins.arguments.map(|x| self.smooth[x.0][k]);
                let gap = twins.smooth_difference(net, element, x) - twins.bound_at(element, &joint, t, x);
                let here = (t * gap).max(0.0);
                for n in [0, 1] {
                    let Op::Pointwise(p) = &net.node(twins.nodes[n]).op else { continue };
                    let (l, u) = part.interval(self.analysis, twins.arguments[n], element);
                    if !p.functions.at(element).is_affine_on(l, u) {
                        let most = t.abs() * (joint.range.1 - joint.range.0);
                        costs.push(Cost { reader: twins.nodes[n], element, at: x[n].clamp(l, u), here, most });
                    }
                }
            }
        }
    }
}
