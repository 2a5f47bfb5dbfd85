//! The point at which a relaxation attains its bound.

use super::Tuned;
use crate::net::gemm::vectorized;
use crate::net::{From, NodeId, Op};

/// How much of the difference between the relaxation's point and the running mean is added to the mean.
const SMOOTHING: f64 = 0.25;

impl Tuned<'_> {
    /// Where the objective takes its bound when every function is replaced by the lines in use.
    pub(super) fn find_point(&mut self) {
        if std::mem::replace(&mut self.point_is_known, true) {
            return;
        }
        let prepared = self.prepared;
        // Boxes and arguments of functions; a value may be both.
        let mut averaged = prepared.is_box.clone();
        for node in &prepared.net.nodes()[..=self.from.0] {
            if let Op::Pointwise(p) = &node.op {
                averaged[p.input.0] = true;
            }
        }
        for id in (0..=self.from.0).map(NodeId) {
            let mut value = std::mem::take(&mut self.point[id.0]);
            self.find_value(id, &mut value);
            self.mend_twins(id, &mut value);
            self.point[id.0] = value;
            if averaged[id.0] {
                self.smoothen(id);
            }
        }
    }

    /// Moves the running mean of a value.
    fn smoothen(&mut self, id: NodeId) {
        let (mean, point) = (&mut self.smooth[id.0], &self.point[id.0]);
        if mean.is_empty() {
            mean.extend_from_slice(point);
        }
        mean.iter_mut().zip(point).for_each(|(m, x)| *m += SMOOTHING * (x - *m));
    }

    /// The running mean of the relaxation's points at the first box that was reached, for one objective.
    pub fn mean(&self, row: usize) -> Vec<f64> {
        let first = (0..self.smooth.len()).find(|&id| self.state.reached[id].is_some() && self.prepared.is_box[id]);
        first.map_or(vec![], |id| self.smooth[id].iter().skip(row).step_by(self.rows()).copied().collect())
    }

    /// Computes the point at a value from the point at its arguments.
    fn find_value(&self, id: NodeId, value: &mut Vec<f64>) {
        let (node, rows, point) = (self.prepared.net.node(id), self.rows(), &self.point);
        // Zero where the analysis has not been.
        let n = self.analysis.bounds[id.0].lo.len();
        value.resize(n * rows, 0.0);
        if n * rows == 0 {
            return;
        }
        if self.prepared.is_box[id.0] {
            return self.find_corner(id, value);
        }
        match &node.op {
            Op::Input(_) => {}
            Op::Affine(a) => {
                value.chunks_mut(rows).enumerate().for_each(|(i, run)| run.fill(*a.bias.at(i)));
                a.terms.iter().for_each(|(x, map)| map.apply_columns(&point[x.0], rows, value));
            }
            Op::Pointwise(p) => {
                value.copy_from_slice(&point[p.input.0]);
                self.evaluate_lines(id, value);
            }
            Op::Max(m) => {
                let x = &point[m.input.0];
                for (i, run) in value.chunks_mut(rows).enumerate() {
                    run.fill(f64::NEG_INFINITY);
                    for &j in m.window(i) {
                        run.iter_mut().zip(&x[j as usize * rows..]).for_each(|(y, x)| *y = x.max(*y));
                    }
                }
            }
            Op::Move(m) => {
                for (from, run) in m.from.iter().zip(value.chunks_mut(rows)) {
                    match from {
                        From::Element { source, index } => {
                            let x = &point[m.sources[*source as usize].0];
                            run.copy_from_slice(&x[*index as usize * rows..][..rows]);
                        }
                        From::Constant(k) => run.fill(*k),
                    }
                }
            }
        }
    }

    /// The corner of a box that makes each objective smallest; the middle along elements that it does not read.
    fn find_corner(&self, id: NodeId, value: &mut [f64]) {
        let (bounds, rows) = (&self.analysis.bounds[id.0], self.rows());
        if let (Some(total), Some(c)) = (self.prepared.total, &self.state.reached[id.0]) {
            return total.find_corner(c, bounds, value);
        }
        let middle = |i: usize| bounds.lo[i] / 2.0 + bounds.hi[i] / 2.0;
        value.chunks_mut(rows).enumerate().for_each(|(i, run)| run.fill(middle(i)));
        for (i, run) in self.state.reached[id.0].iter().flat_map(|c| c.runs()) {
            let (lo, hi) = (bounds.lo[i], bounds.hi[i]);
            for (c, x) in run.iter().zip(&mut value[i * rows..]) {
                let end = if *c > 0.0 { lo } else { hi };
                *x = if *c == 0.0 { *x } else { end };
            }
        }
    }

    /// The lines in place of a function, at arguments.
    fn evaluate_lines(&self, id: NodeId, value: &mut [f64]) {
        let (own, lines) = (self.state.nodes[id.0].as_ref(), &self.analysis.lines[id.0]);
        vectorized(
            #[inline(always)]
            || {
                for (i, run) in value.chunks_mut(self.rows()).enumerate() {
                    match (own.and_then(|o| Some((o, o.place(i)?))), lines) {
                        (Some((own, place)), _) => own.evaluate(place, run),
                        (None, Some(lines)) => {
                            let line = lines.lower[i];
                            run.iter_mut().for_each(|x| *x = line.slope * *x + line.offset);
                        }
                        (None, None) => {}
                    }
                }
            },
        );
    }

    /// The relaxation's point at a value, for one objective, as of the last [`Self::bounds`].
    pub fn point(&mut self, id: NodeId, row: usize) -> Vec<f64> {
        self.find_point();
        self.point[id.0].iter().skip(row).step_by(self.rows()).copied().collect()
    }

    /// How fast an objective changes with an element of a box: a hint.
    pub fn steepness(&self, id: NodeId, element: usize, row: usize) -> f64 {
        let Some(c) = &self.state.reached[id.0] else { return 0.0 };
        let place = if c.elements.get(element) == Some(&(element as u32)) {
            Some(element)
        } else {
            c.elements.iter().position(|&e| e as usize == element)
        };
        place.map_or(0.0, |k| c.data[k * c.rows + row].abs())
    }
}
