//! Backward linear bounds, rigorous in f64.

use super::{Analysis, Bounds, Prepared};
use crate::net::{Affine, From, LinearMap, Max, Move, NodeId, Op, Pointwise, Spread, slack_bound};
use crate::num::round::{self, U64, gamma64, sub_down};

/// Functionals on their way back: for every row, the exact functional that was asked for is at least
/// sum over values (coefficients . value) + constant - error.
struct Functionals {
    rows: usize,
    /// By node, row-major; `None` where no functional has arrived.
    coefficients: Vec<Option<Vec<f64>>>,
    constant: Vec<f64>,
    /// Upper bound on everything that was rounded away, itself computed in plain f64 from non-negative terms.
    error: Vec<f64>,
    /// Sum of the magnitudes of what was added to `constant`, and how many times.
    magnitude: Vec<f64>,
    additions: usize,
}

/// Lower bounds of the functionals `rows` (row-major, one coefficient for each element of the value `from`).
///
/// # Claim
/// For every execution the net allows on an input of the region that `analysis` was made for, row . value >= result.
///
/// # Why
/// Each step replaces a value by a lower bound of its functional in terms of its arguments: affine maps by their adjoint,
/// pointwise functions by the line on the side of the coefficient's sign, maxima by one member or their upper bound, index maps by
/// scattering. Values that are boxes are replaced by their bounds.
///
/// # Rounding
/// fl(c W) differs from c W in column j by at most gamma ||c|| ||W_j||, which changes the functional by at most
/// gamma ||c|| sum_j ||W_j|| |x_j|: one number for each row. All other roundings are bounded term by term in `error`. The terms of `error` are
/// non-negative and pass fewer than 2^30 roundings, so it is off by a relative 2^-22 at most: the end adds 2^-20.
///
/// # Source
/// The lines and the order: CROWN, DeepPoly. The error term: Higham, section 3.5 (matrix products), with Cauchy-Schwarz.
pub fn lower_bounds(prepared: &Prepared, analysis: &Analysis, from: NodeId, rows: Vec<f64>, count: usize) -> Vec<f64> {
    let mut f = Functionals {
        rows: count,
        coefficients: vec![None; from.0 + 1],
        constant: vec![0.0; count],
        error: vec![0.0; count],
        magnitude: vec![0.0; count],
        additions: 1,
    };
    f.coefficients[from.0] = Some(rows);
    for id in (0..=from.0).rev().map(NodeId) {
        let Some(c) = f.coefficients[id.0].take() else { continue };
        let bounds = &analysis.bounds;
        if prepared.is_box[id.0] {
            f.concretize(&c, &bounds[id.0]);
            continue;
        }
        match &prepared.net.node(id).op {
            Op::Input(_) => f.concretize(&c, &bounds[id.0]),
            Op::Affine(a) => f.affine(&c, a, &prepared.column_norms[id.0], bounds),
            Op::Pointwise(p) => match &analysis.lines[id.0] {
                Some(lines) => f.pointwise(&c, p, lines, bounds),
                None => f.concretize(&c, &bounds[id.0]),
            },
            Op::Max(m) => f.max(&c, m, &bounds[id.0], bounds),
            Op::Move(m) => f.moved(&c, m, prepared.multiplicity[id.0], bounds),
        }
    }
    (0..count).map(|r| f.result(r)).collect()
}

impl Functionals {
    fn result(&self, r: usize) -> f64 {
        let summed = gamma64(self.additions + 2) * self.magnitude[r];
        let error = (self.error[r] + summed) * (1.0 + 9.5367431640625e-7) + f64::MIN_POSITIVE * 1e30;
        let bound = sub_down(self.constant[r], error);
        if bound.is_nan() { f64::NEG_INFINITY } else { bound }
    }

    /// Adds a sum of n products to the constant of a row, given the sum of their magnitudes.
    fn add(&mut self, r: usize, sum: f64, magnitude: f64, n: usize) {
        self.constant[r] += sum;
        self.magnitude[r] += magnitude;
        self.error[r] += gamma64(n + 2) * magnitude;
    }

    /// Adds coefficients on a value; where some are there already, each sum is rounded once.
    fn arrive(&mut self, id: NodeId, new: Vec<f64>, bounds: &Bounds) {
        match &mut self.coefficients[id.0] {
            slot @ None => *slot = Some(new),
            Some(old) => {
                let n = bounds.lo.len();
                for r in 0..self.rows {
                    let mut error = 0.0;
                    for (i, (o, v)) in old[r * n..(r + 1) * n].iter_mut().zip(&new[r * n..]).enumerate() {
                        *o += v;
                        error += o.abs() * bounds.magnitude(i);
                    }
                    self.error[r] += U64 * error;
                }
            }
        }
    }

    /// Replaces a value by the end of its bounds that makes each product smallest.
    fn concretize(&mut self, c: &[f64], b: &Bounds) {
        let n = b.lo.len();
        self.additions += 1;
        for r in 0..self.rows {
            let (mut sum, mut magnitude) = (0.0, 0.0);
            for (c, (l, h)) in c[r * n..(r + 1) * n].iter().zip(b.lo.iter().zip(&b.hi)) {
                let product = (c * l).min(c * h);
                sum += product;
                magnitude += product.abs();
            }
            self.add(r, sum, magnitude, n);
        }
    }

    /// c (W x + b + slack) >= (c W) x + c b - |c| slack.
    fn affine(&mut self, c: &[f64], a: &Affine, norms: &[Spread<f64>], bounds: &[Bounds]) {
        let n = c.len() / self.rows.max(1);
        let slack = slacks(a, n, bounds);
        self.additions += 1;
        for r in 0..self.rows {
            let c = &c[r * n..(r + 1) * n];
            let (mut sum, mut magnitude) = (0.0, 0.0);
            for (i, c) in c.iter().enumerate() {
                let product = c * a.bias.at(i);
                sum += product;
                magnitude += product.abs();
            }
            self.add(r, sum, magnitude, n);
            self.error[r] += c.iter().zip(&slack).map(|(c, s)| c.abs() * s).sum::<f64>();
        }
        for ((id, map), norms) in a.terms.iter().zip(norms) {
            let x = &bounds[id.0];
            let mut back = vec![0.0; self.rows * map.inputs()];
            map.adjoint(c, self.rows, &mut back);
            let reach: f64 = (0..map.inputs()).map(|j| norms.at(j) * x.magnitude(j)).sum();
            let diagonal = matches!(map, LinearMap::Diagonal { .. });
            for r in 0..self.rows {
                let c = &c[r * n..(r + 1) * n];
                self.error[r] += if diagonal {
                    // One product for each element: its own rounding, not the norm's.
                    let sum: f64 = c.iter().enumerate().map(|(j, c)| c.abs() * norms.at(j) * x.magnitude(j)).sum();
                    2.0 * U64 * sum
                } else {
                    gamma64(map.fan_out() + 2) * round::norm_up(c) * reach
                };
            }
            self.arrive(*id, back, x);
        }
    }

    /// c f(x) >= c (slope x + offset) with the lower line where c > 0 and the upper where c < 0.
    fn pointwise(&mut self, c: &[f64], p: &Pointwise, lines: &super::Lines, bounds: &[Bounds]) {
        let x = &bounds[p.input.0];
        let n = x.lo.len();
        let mut back = vec![0.0; c.len()];
        self.additions += 1;
        for r in 0..self.rows {
            let (mut sum, mut magnitude, mut error) = (0.0, 0.0, 0.0);
            let row = r * n..(r + 1) * n;
            for (i, (c, back)) in c[row.clone()].iter().zip(&mut back[row]).enumerate() {
                let line = if *c >= 0.0 { lines.lower[i] } else { lines.upper[i] };
                *back = c * line.slope;
                let offset = c * line.offset;
                sum += offset;
                magnitude += offset.abs();
                error += back.abs() * x.magnitude(i);
            }
            self.add(r, sum, magnitude, n);
            self.error[r] += 2.0 * U64 * error;
        }
        self.arrive(p.input, back, x);
    }

    /// max(x) >= any member; max(x) <= the member that is surely largest, or the upper bound of all.
    fn max(&mut self, c: &[f64], m: &Max, own: &Bounds, bounds: &[Bounds]) {
        let x = &bounds[m.input.0];
        let (n, inputs) = (own.lo.len(), x.lo.len());
        let best: Vec<(usize, bool)> = (0..n).map(|i| best_member(m.window(i), x)).collect();
        let mut back = vec![0.0; self.rows * inputs];
        self.additions += 1;
        for r in 0..self.rows {
            let (mut sum, mut magnitude, mut error) = (0.0, 0.0, 0.0);
            for (i, c) in c[r * n..(r + 1) * n].iter().enumerate() {
                let (member, sure) = best[i];
                if *c >= 0.0 || sure {
                    let slot = &mut back[r * inputs + member];
                    *slot += c;
                    // Windows may share a member: every addition is rounded.
                    error += slot.abs() * x.magnitude(member);
                } else {
                    sum += c * own.hi[i];
                    magnitude += (c * own.hi[i]).abs();
                }
            }
            self.add(r, sum, magnitude, n);
            self.error[r] += 2.0 * U64 * error;
        }
        self.arrive(m.input, back, x);
    }

    fn moved(&mut self, c: &[f64], m: &Move, multiplicity: usize, bounds: &[Bounds]) {
        let n = m.from.len();
        let lens: Vec<usize> = m.sources.iter().map(|s| bounds[s.0].lo.len()).collect();
        let mut back: Vec<Vec<f64>> = lens.iter().map(|len| vec![0.0; self.rows * len]).collect();
        self.additions += 1;
        for r in 0..self.rows {
            let (mut sum, mut magnitude, mut error) = (0.0, 0.0, 0.0);
            for (c, from) in c[r * n..(r + 1) * n].iter().zip(&m.from) {
                match from {
                    From::Element { source, index } => {
                        let (s, i) = (*source as usize, *index as usize);
                        back[s][r * lens[s] + i] += c;
                        error += c.abs() * bounds[m.sources[s].0].magnitude(i);
                    }
                    From::Constant(k) => {
                        sum += c * k;
                        magnitude += (c * k).abs();
                    }
                }
            }
            self.add(r, sum, magnitude, n);
            if multiplicity > 1 {
                self.error[r] += gamma64(multiplicity) * error;
            }
        }
        for (id, back) in m.sources.iter().zip(back) {
            self.arrive(*id, back, &bounds[id.0]);
        }
    }
}

/// The member with the largest lower bound, and whether no other can exceed it.
fn best_member(window: &[u32], x: &Bounds) -> (usize, bool) {
    let best = window.iter().map(|&j| j as usize).max_by(|&a, &b| x.lo[a].total_cmp(&x.lo[b])).unwrap_or(0);
    (best, window.iter().all(|&j| j as usize == best || x.hi[j as usize] <= x.lo[best]))
}

/// For each element of an affine node, a value not below how far a result may be from the exact one.
fn slacks(a: &Affine, n: usize, bounds: &[Bounds]) -> Vec<f64> {
    if a.rounding == crate::net::Rounding::Exact {
        return vec![0.0; n];
    }
    let mut magnitude: Vec<f64> = (0..n).map(|i| a.bias.at(i).abs()).collect();
    let mut products = 2;
    for (id, map) in &a.terms {
        let x: Vec<f64> = (0..map.inputs()).map(|j| bounds[id.0].magnitude(j)).collect();
        map.apply(crate::net::Sign::Absolute, &x, 1, &mut magnitude, true);
        products += map.fan_in() + 1;
    }
    magnitude.iter().enumerate().map(|(i, &m)| slack_bound(&a.rounding, i, round::inflate(m, products))).collect()
}
