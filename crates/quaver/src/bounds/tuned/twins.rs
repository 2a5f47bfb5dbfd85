//! Functions of nearly the same argument in a batch of functionals.

use super::lines::Means;
use super::{Cost, Row, Tuned};
use crate::bounds::difference::{Joint, Twins};
use crate::bounds::split::Branch;
use crate::bounds::{Analysis, Prepared};
use crate::net::{NodeId, Op};

/// What became of two twins' coefficients in the last walk; entry `element * rows + row` of each list.
pub(in crate::bounds) struct TwinUse {
    rows: usize,
    /// How much may go to the difference.
    most: Vec<f64>,
    /// Whether that is all of the second's coefficient.
    all_of_second: Vec<bool>,
    /// What is known under the splits of a row: one more than the place in `own`, 0 where that is what the frame knows.
    places: Vec<u32>,
    own: Vec<Joint>,
    /// The share that goes to the difference; empty where that is not chosen.
    shares: Vec<f64>,
    means: Vec<Means>,
}

impl TwinUse {
    fn new(elements: usize, rows: usize) -> Self {
        let n = elements * rows;
        TwinUse {
            rows,
            most: vec![0.0; n],
            all_of_second: vec![false; n],
            places: vec![0; n],
            own: vec![],
            shares: vec![],
            means: vec![],
        }
    }

    /// Lets the shares be chosen.
    pub fn set_free(&mut self) {
        // Not yet chosen.
        self.shares = vec![f64::NAN; self.most.len()];
        self.means = vec![Means::default(); self.most.len()];
    }

    /// Whether shares are chosen.
    pub fn is_free(&self) -> bool {
        !self.shares.is_empty()
    }

    /// How much of two coefficients goes to the difference (see [`Joint::most`]), for the next step uphill noted.
    pub fn take(&mut self, element: usize, row: usize, joint: &Joint, [c, c2]: [f64; 2]) -> f64 {
        let k = element * self.rows + row;
        self.most[k] = joint.most(c, c2);
        self.all_of_second[k] = c.abs() >= c2.abs();
        self.taken(k, joint)
    }

    /// How much went there.
    fn taken(&self, k: usize, joint: &Joint) -> f64 {
        self.most[k] * self.share(k, joint)
    }

    /// The share that was chosen, or else all or nothing, as [`Joint::share`] has it.
    fn share(&self, k: usize, joint: &Joint) -> f64 {
        let rule = if joint.plane(self.most[k]).is_useful { 1.0 } else { 0.0 };
        self.shares.get(k).filter(|s| !s.is_nan()).copied().unwrap_or(rule)
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
        self.most.fill(0.0);
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
        for (k, &most) in use_.most.iter().enumerate().filter(|(_, t)| **t != 0.0) {
            let (element, row) = (k / rows, k % rows);
            let Some(joint) = self.joint(id, use_, element, row) else { continue };
            let t = use_.taken(k, &joint);
            if t.abs() < 0.5 * most.abs() || t == 0.0 {
                continue;
            }
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
        for element in 0..use_.most.len() / rows.max(1) {
            for ((row, part), costs) in parts.iter().zip(all.iter_mut()) {
                let k = element * rows + row;
                let Some(joint) = self.joint(id, use_, element, *row).filter(|_| use_.most[k] != 0.0) else { continue };
                let t = use_.taken(k, &joint);
                if t == 0.0 {
                    continue;
                }
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

    /// Moves shares uphill: the derivative of the bound is what the bound on the difference gains over a line for each function.
    pub(super) fn climb_twins(&mut self, rate: f64, debias: (f64, f64)) {
        let rows = self.rows();
        for id in (0..self.state.twins.len()).map(NodeId) {
            let Some(mut use_) = self.state.twins[id.0].take_if(|u| u.is_free()) else { continue };
            if let Some(twins) = &self.prepared.twins[id.0] {
                for k in (0..use_.most.len()).filter(|k| use_.most[*k] != 0.0).collect::<Vec<_>>() {
                    let (element, row, most) = (k / rows, k % rows, use_.most[k]);
                    let Some(joint) = self.joint(id, &use_, element, row) else { continue };
                    let x = twins.arguments.map(|x| self.point[x.0][k]);
                    let [q, q2] = twins.value_units(element);
                    let each = q2 * self.line_at(twins.nodes[1], (element, row), most, x[1])
                        - q * self.line_at(twins.nodes[0], (element, row), -most, x[0]);
                    let gain = most * (twins.bound_at(element, &joint, most, x) - each);
                    let step = rate * use_.means[k].step(gain, debias);
                    use_.shares[k] = (use_.share(k, &joint) + step).clamp(0.0, 1.0);
                }
            }
            self.state.twins[id.0] = Some(use_);
        }
    }

    /// The value at an argument of the line that is in use for a coefficient of a sign.
    fn line_at(&self, id: NodeId, (element, row): (usize, usize), coefficient: f64, x: f64) -> f64 {
        let own = self.state.nodes[id.0].as_ref().and_then(|n| Some(n.lines(n.place(element)? * self.rows() + row)));
        let frame = || self.analysis.lines[id.0].as_ref().map(|l| (l.lower[element], l.upper[element]));
        let Some((lower, upper)) = own.or_else(frame) else { return 0.0 };
        let line = if coefficient > 0.0 { lower } else { upper };
        line.slope * x + line.offset
    }
}
