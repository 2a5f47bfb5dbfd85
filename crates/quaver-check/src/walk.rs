//! Functionals of one value, taken back to the bounds that they depend on; the rules *Walk* and *Constraint*.

use crate::bounds::Bounds;
use crate::lines::Line;
use crate::net::{Affine, Net, Op, Source};
use crate::round::{U, gamma};

/// What holds in a part, and what follows from it alone.
#[derive(Clone, Debug)]
pub struct Frame<'n> {
    /// The network.
    pub net: &'n Net,
    /// Of every value up to some.
    pub bounds: Vec<Bounds>,
    /// Functionals end at this value: what comes before it is replaced by its bounds.
    start: usize,
    /// For each affine value: for each element, what a coefficient of magnitude 1 on it loses on the way back.
    errors: Vec<Vec<f64>>,
    /// Whether all bounds are of magnitudes for which what underflows in a walk is nothing beside [`UNDERFLOW`].
    is_bounded: bool,
}

/// The largest magnitude of a bound, and what all underflows of a walk come to at most: fewer than 2^40 products, each 2^-1074 away from the exact one and
/// multiplied by at most 1e30.
const LARGEST: f64 = 1e30;
const UNDERFLOW: f64 = 1e-270;

/// Lines for one element of a function, for all functionals of a batch.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Below the function.
    pub lower: Line,
    /// Above it.
    pub upper: Line,
}

/// side (element - at) <= 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constraint {
    /// The value.
    pub value: usize,
    /// Its element.
    pub element: usize,
    /// What it is compared with.
    pub at: f64,
    /// 1 or -1.
    pub side: f64,
}

/// One functional with its choices.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// (element of the value that the batch is about, coefficient).
    pub terms: Vec<(usize, f64)>,
    /// By value, for functions lines of every element; where there are none, those of the batch count.
    pub lines: Vec<Vec<Pair>>,
    /// Constraints that hold, with multipliers.
    pub constraints: Vec<(Constraint, f64)>,
}

impl<'n> Frame<'n> {
    /// A frame with no bounds yet, whose functionals end at a value.
    pub fn from_start(net: &'n Net, start: usize) -> Self {
        Frame { net, start, bounds: vec![], errors: vec![], is_bounded: true }
    }

    /// Adds the bounds of the next value, and for an affine one after the start what [`crate::bounds::interval`] gives with them.
    pub fn push(&mut self, bounds: Bounds, sums: Vec<f64>) {
        let errors = match &self.net.values[self.bounds.len()].op {
            Op::Affine(a) => errors(a, sums),
            Op::Input | Op::Function(_) | Op::Max { .. } | Op::Move { .. } => vec![],
        };
        self.is_bounded &= (0..bounds.lo.len()).all(|i| bounds.magnitude(i) <= LARGEST);
        self.bounds.push(bounds);
        self.errors.push(errors);
    }

    /// Whether bounds by intervals are the best there are: one affine map of the start, or nothing after it.
    pub fn is_exact(&self, id: usize) -> bool {
        let of_start = |op: &Op| matches!(op, Op::Affine(a) if matches!(&a.terms[..], [(of, _)] if *of == self.start));
        id <= self.start || of_start(&self.net.values[id].op)
    }

    /// Lower bounds on functionals of the value `from`, with lines for each value that is a function, valid for all of them.
    ///
    /// # Claim
    /// For every execution within the frame's bounds that satisfies the constraints of a row, its functional is at least the result.
    ///
    /// # Rounding
    /// Each step adds to `error` what it rounds; see there. The result is lowered by it.
    pub fn walk(&self, from: usize, rows: &[Row], lines: &[Vec<Pair>]) -> Vec<f64> {
        if !self.is_bounded || rows.is_empty() {
            return vec![f64::NEG_INFINITY; rows.len()];
        }
        let mut batch = Batch::new(self, from, rows, lines);
        for id in (0..=from).rev() {
            batch.step(id);
        }
        batch.results()
    }
}

/// For a coefficient of magnitude 1 on an element of an affine value, what the runtime's slack and the rounding of the adjoint lose at most.
///
/// # Why
/// Slack: slack m. Adjoint: each coefficient j is computed with an error of at most gamma |c_i| |W_ij|, summed over i; times |x_j| and summed over
/// j that is gamma m for each |c_i|.
fn errors(a: &Affine, sums: Vec<f64>) -> Vec<f64> {
    let readers = a.terms.iter().map(|t| t.1.readers()).max().unwrap_or(0);
    let factor = gamma(readers + 4) + a.slack;
    sums.into_iter().map(|m| (m * factor).next_up()).collect()
}

/// Functionals on their way: each is at least sum over values of coefficients . value + constant - error.
struct Batch<'b> {
    frame: &'b Frame<'b>,
    rows: &'b [Row],
    lines: &'b [Vec<Pair>],
    /// By value; `rows` neighbouring numbers for each element.
    coefficients: Vec<Option<Vec<f64>>>,
    constant: Vec<f64>,
    /// Sums of non-negative terms.
    error: Vec<f64>,
    /// How often something is added to a constant at most, beside the sums of one step.
    additions: usize,
}

impl<'b> Batch<'b> {
    /// # Rounding
    /// Several terms on one element are added: each sum may lose u of itself.
    fn new(frame: &'b Frame<'b>, from: usize, rows: &'b [Row], lines: &'b [Vec<Pair>]) -> Self {
        let n = rows.len();
        let mut c = vec![0.0; frame.bounds[from].lo.len() * n];
        let mut error = vec![0.0; n];
        for (r, row) in rows.iter().enumerate() {
            for (i, a) in &row.terms {
                let sum: &mut f64 = &mut c[i * n + r];
                if *sum != 0.0 {
                    error[r] += 2.0 * U * (sum.abs() + a.abs()) * frame.bounds[from].magnitude(*i);
                }
                *sum += a;
            }
        }
        let mut coefficients = vec![None; from + 1];
        coefficients[from] = Some(c);
        let constraints = rows.iter().map(|r| r.constraints.len()).max().unwrap_or(0);
        let additions = 3 * (from + 1) + constraints;
        Batch { frame, rows, lines, coefficients, constant: vec![0.0; n], error, additions }
    }

    fn results(&self) -> Vec<f64> {
        let result = |(constant, error): (&f64, &f64)| {
            let bound = (constant - (error * (1.0 + 9.5367431640625e-7) + UNDERFLOW)).next_down();
            if bound.is_nan() { f64::NEG_INFINITY } else { bound }
        };
        self.constant.iter().zip(&self.error).map(result).collect()
    }

    /// The relative error of one of n products that are summed and then added to `constant`.
    fn gamma(&self, n: usize) -> f64 {
        gamma(n + self.additions + 8)
    }

    fn step(&mut self, id: usize) {
        self.constrain(id);
        let Some(c) = self.coefficients[id].take() else { return };
        let frame = self.frame;
        if id <= frame.start {
            return self.concretize(id, &c);
        }
        match &frame.net.values[id].op {
            Op::Input => self.concretize(id, &c),
            Op::Affine(a) => self.affine(id, a, &c),
            Op::Function(f) => self.function(id, f.of, c),
            Op::Max { of, windows } => self.max(id, *of, windows, &c),
            Op::Move { of, from } => self.copy(*of, from, &c),
        }
    }

    /// Rule *Constraint*.
    ///
    /// # Rounding
    /// The coefficient's sum is rounded once, the product with `at` once and with the sum of all.
    fn constrain(&mut self, id: usize) {
        let (n, x) = (self.rows.len(), &self.frame.bounds[id]);
        for (r, row) in self.rows.iter().enumerate() {
            let gamma = self.gamma(0);
            for (constraint, beta) in row.constraints.iter().filter(|c| c.0.value == id && c.1 > 0.0) {
                let c = self.coefficients[id].get_or_insert_with(|| vec![0.0; x.lo.len() * n]);
                let sum = &mut c[constraint.element * n + r];
                *sum += beta * constraint.side;
                self.error[r] += 2.0 * U * sum.abs() * x.magnitude(constraint.element);
                self.constant[r] -= beta * constraint.side * constraint.at;
                self.error[r] += gamma * (beta * constraint.at).abs();
            }
        }
    }

    /// Adds c times a number to the constant of each row, and |c| times another to its error.
    fn add(&mut self, c: &[f64], terms: impl Fn(usize, f64) -> (f64, f64)) {
        let n = self.rows.len();
        let (mut sum, mut error) = (vec![0.0; n], vec![0.0; n]);
        for (i, c) in c.chunks(n).enumerate() {
            for ((c, sum), error) in c.iter().zip(&mut sum).zip(&mut error) {
                let (product, lost) = if *c == 0.0 { (0.0, 0.0) } else { terms(i, *c) };
                *sum += product;
                *error += lost;
            }
        }
        self.settle(&sum, &error);
    }

    /// Adds the sums of one step.
    fn settle(&mut self, sum: &[f64], error: &[f64]) {
        self.constant.iter_mut().zip(sum).for_each(|(k, s)| *k += s);
        self.error.iter_mut().zip(error).for_each(|(k, s)| *k += s);
    }

    fn concretize(&mut self, id: usize, c: &[f64]) {
        let (x, gamma) = (&self.frame.bounds[id], self.gamma(c.len() / self.rows.len()));
        self.add(c, |i, c| {
            let product = c * if c > 0.0 { x.lo[i] } else { x.hi[i] };
            (product, gamma * product.abs())
        });
    }

    fn affine(&mut self, id: usize, a: &Affine, c: &[f64]) {
        let (errors, gamma) = (&self.frame.errors[id], self.gamma(a.bias.len()));
        self.add(c, |i, c| (c * a.bias[i], c.abs() * (gamma * a.bias[i].abs() + errors[i])));
        for (of, map) in &a.terms {
            let mut back = vec![0.0; map.inputs() * self.rows.len()];
            let mut reached = vec![false; map.inputs()];
            map.adjoint(c, self.rows.len(), &mut back, &mut reached);
            self.arrive(*of, back);
        }
    }

    /// Adds coefficients on a value; where there are some, each sum is rounded once.
    fn arrive(&mut self, id: usize, new: Vec<f64>) {
        let Some(mut old) = self.coefficients[id].take() else {
            self.coefficients[id] = Some(new);
            return;
        };
        old.iter_mut().zip(&new).for_each(|(o, n)| *o += n);
        let x = &self.frame.bounds[id];
        self.add(&old, |i, c| (0.0, 2.0 * U * c.abs() * x.magnitude(i)));
        self.coefficients[id] = Some(old);
    }

    /// # Rounding
    /// One product for each coefficient; the products with the offsets are summed.
    fn function(&mut self, id: usize, of: usize, mut c: Vec<f64>) {
        let n = self.rows.len();
        let (x, gamma) = (&self.frame.bounds[of], self.gamma(c.len() / n));
        let (mut sum, mut error) = (vec![0.0; n], vec![0.0; n]);
        for (i, c) in c.chunks_mut(n).enumerate() {
            for (r, c) in c.iter_mut().enumerate().filter(|(_, c)| **c != 0.0) {
                let own = self.rows[r].lines.get(id).and_then(|l| l.get(i));
                let pair = own.unwrap_or_else(|| &self.lines[id][i]);
                let line = if *c > 0.0 { pair.lower } else { pair.upper };
                let product = *c * line.offset;
                *c *= line.slope;
                sum[r] += product;
                error[r] += gamma * product.abs() + 2.0 * U * c.abs() * x.magnitude(i);
            }
        }
        self.settle(&sum, &error);
        self.arrive(of, c);
    }

    /// A member with the largest lower bound stands for the maximum where c > 0, and where c < 0 if no other member can exceed it.
    ///
    /// # Rounding
    /// Windows may share members: the sums of their coefficients are rounded at most as often as there are windows.
    fn max(&mut self, id: usize, of: usize, windows: &[Vec<u32>], c: &[f64]) {
        let n = self.rows.len();
        let (x, own, gamma) = (&self.frame.bounds[of], &self.frame.bounds[id], self.gamma(windows.len()));
        let mut back = vec![0.0; x.lo.len() * n];
        let member = |w: &[u32]| w.iter().map(|&j| j as usize).max_by(|&a, &b| x.lo[a].total_cmp(&x.lo[b]));
        let chosen: Vec<(usize, bool)> = windows
            .iter()
            .map(|w| {
                let best = member(w).unwrap_or(0);
                (best, w.iter().all(|&j| j as usize == best || x.hi[j as usize] <= x.lo[best]))
            })
            .collect();
        let passes = |c: f64, i: usize| c > 0.0 || chosen[i].1;
        self.add(c, |i, c| match passes(c, i) {
            true => (0.0, gamma * c.abs() * x.magnitude(chosen[i].0)),
            false => (c * own.hi[i], gamma * (c * own.hi[i]).abs()),
        });
        for (i, c) in c.chunks(n).enumerate() {
            for (r, c) in c.iter().enumerate().filter(|(_, c)| passes(**c, i)) {
                back[chosen[i].0 * n + r] += c;
            }
        }
        self.arrive(of, back);
    }

    /// # Rounding
    /// As in [`Self::max`], for elements that are copied more than once.
    fn copy(&mut self, of: usize, from: &[Source], c: &[f64]) {
        let (n, x, gamma) = (self.rows.len(), &self.frame.bounds[of], self.gamma(from.len()));
        self.add(c, |i, c| match from[i] {
            Source::Element(j) => (0.0, gamma * c.abs() * x.magnitude(j as usize)),
            Source::Constant(k) => (c * k, gamma * (c * k).abs()),
        });
        let mut back = vec![0.0; x.lo.len() * n];
        for (source, c) in from.iter().zip(c.chunks(n)) {
            if let Source::Element(j) = source {
                back[*j as usize * n..][..n].iter_mut().zip(c).for_each(|(b, c)| *b += c);
            }
        }
        self.arrive(of, back);
    }
}

#[cfg(test)]
mod tests;
