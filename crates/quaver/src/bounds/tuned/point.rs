//! The point at which a relaxation attains its bound.

use super::Tuned;
use crate::net::gemm::vectorized;
use crate::net::{From, NodeId, Op};

/// How much of the difference between the relaxation's point and the running mean is added to the mean.
const SMOOTHING: f64 = 0.25;

impl Tuned<'_> {
    /// Where the objective takes its bound when every function is replaced by the lines in use.
    pub(super) fn find_point(&mut self) {
        if !self.point.is_empty() {
            return;
        }
        let (net, rows) = (self.prepared.net, self.rows());
        let mut point: Vec<Vec<f64>> = Vec::with_capacity(self.from.0 + 1);
        for id in net.ids().take_while(|&id| id <= self.from) {
            let value = self.value_at_point(id, &point, rows);
            point.push(value);
        }
        match self.smooth.is_empty() {
            true => self.smooth = point.clone(),
            false => {
                let step = |(mean, point): (&mut Vec<f64>, &Vec<f64>)| {
                    mean.iter_mut().zip(point).for_each(|(m, x)| *m += SMOOTHING * (x - *m));
                };
                self.smooth.iter_mut().zip(&point).for_each(step);
            }
        }
        self.point = point;
    }

    /// The running mean of the relaxation's points at the first box that was reached, for one objective.
    pub fn mean(&self, row: usize) -> Vec<f64> {
        let first = (0..self.smooth.len()).find(|&id| self.state.reached[id].is_some() && self.prepared.is_box[id]);
        first.map_or(vec![], |id| self.smooth[id].iter().skip(row).step_by(self.rows()).copied().collect())
    }

    fn value_at_point(&self, id: NodeId, point: &[Vec<f64>], rows: usize) -> Vec<f64> {
        let (node, bounds) = (self.prepared.net.node(id), &self.analysis.bounds[id.0]);
        let n = bounds.lo.len();
        if n == 0 {
            return vec![];
        }
        if self.prepared.is_box[id.0] {
            let mut value: Vec<f64> =
                (0..n).flat_map(|i| std::iter::repeat_n(bounds.lo[i] / 2.0 + bounds.hi[i] / 2.0, rows)).collect();
            for (i, run) in self.state.reached[id.0].iter().flat_map(|c| c.runs()) {
                let (lo, hi) = (bounds.lo[i], bounds.hi[i]);
                for (c, x) in run.iter().zip(&mut value[i * rows..]) {
                    let end = if *c > 0.0 { lo } else { hi };
                    *x = if *c == 0.0 { *x } else { end };
                }
            }
            return value;
        }
        match &node.op {
            Op::Input(_) => vec![],
            Op::Affine(a) => {
                let mut out: Vec<f64> = (0..n).flat_map(|i| std::iter::repeat_n(*a.bias.at(i), rows)).collect();
                a.terms.iter().for_each(|(x, map)| map.apply_columns(&point[x.0], rows, &mut out));
                out
            }
            Op::Pointwise(p) => {
                let mut value = point[p.input.0].clone();
                let (own, lines) = (self.state.nodes[id.0].as_ref(), &self.analysis.lines[id.0]);
                vectorized(
                    #[inline(always)]
                    || {
                        for (i, run) in value.chunks_mut(rows).enumerate() {
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
                value
            }
            Op::Max(m) => {
                let x = &point[m.input.0];
                let largest = |i: usize, r: usize| {
                    m.window(i).iter().map(|&j| x[j as usize * rows + r]).fold(f64::NEG_INFINITY, f64::max)
                };
                (0..n).flat_map(|i| (0..rows).map(move |r| (i, r))).map(|(i, r)| largest(i, r)).collect()
            }
            Op::Move(m) => {
                let of = |f: &From, r: usize| match f {
                    From::Element { source, index } => point[m.sources[*source as usize].0][*index as usize * rows + r],
                    From::Constant(k) => *k,
                };
                m.from.iter().flat_map(|f| (0..rows).map(move |r| (f, r))).map(|(f, r)| of(f, r)).collect()
            }
        }
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
