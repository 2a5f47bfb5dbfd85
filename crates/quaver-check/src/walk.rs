//! Functionals of one value, taken back to the bounds that they depend on; the rules *Walk* and *Constraint*, and in `difference` *Difference*.

use crate::bounds::Bounds;
use crate::lines::{Ends, Line};
use crate::net::{Affine, Net, Op, Source};
use crate::round::{U, gamma};
use crate::threads::{self, vectorized};
use chosen::Lines;
use difference::Joint;

mod chosen;
mod difference;

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
    /// By value.
    enclosed: Vec<Enclosed>,
    /// For each second twin what is known of its elements and those of the first.
    joints: Vec<Vec<Joint>>,
    /// Products in one execution.
    products: usize,
    /// Whether all bounds are of magnitudes for which what underflows in a walk is nothing beside [`UNDERFLOW`].
    is_bounded: bool,
}

/// The largest magnitude of a bound, and what all underflows of a walk come to at most: fewer than 2^40 products, each 2^-1074 away from the exact one and
/// multiplied by at most 1e30.
const LARGEST: f64 = 1e30;
const UNDERFLOW: f64 = 1e-270;

/// Lines for one element of a function.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pair {
    /// Below the function.
    pub lower: Line,
    /// Above it.
    pub upper: Line,
}

/// The lines of a value that is a function after the start; nothing for others.
#[derive(Clone, Debug, Default)]
pub struct Enclosed {
    /// Of every element, for walks that choose none.
    pub lines: Vec<Pair>,
    /// The elements whose lines a walk can choose, increasing, and between which.
    pub open: Vec<(usize, Ends)>,
}

/// side (element - at) <= 0, for an element of a function's argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    /// The function.
    pub function: usize,
    /// Its argument.
    pub of: usize,
    /// Element of both.
    pub element: usize,
    /// What it is compared with.
    pub at: f64,
    /// 1 or -1.
    pub side: f64,
    /// What all cuts so far leave of the element's bounds.
    pub within: (f64, f64),
    /// Between which lines there a walk can choose.
    pub ends: Ends,
}

/// One functional with its choices.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// (element of the value that the batch is about, coefficient).
    pub terms: Vec<(usize, f64)>,
    /// (value before that, element, coefficient).
    pub before: Vec<(usize, usize, f64)>,
    /// Where each open element's lower and upper line is between its ends, in 255ths; or none, for the lines of the frame.
    pub places: Vec<u8>,
    /// Cuts that hold; the last one on an element says what its lines are between.
    pub cuts: Vec<Cut>,
    /// A multiplier for each.
    pub betas: Vec<f64>,
}

impl<'n> Frame<'n> {
    /// A frame with no bounds yet, whose functionals end at a value.
    pub fn from_start(net: &'n Net, start: usize) -> Self {
        let of = |op: &Op| match op {
            Op::Affine(a) => a.terms.iter().map(|(_, map)| map.outputs() * map.terms()).sum(),
            Op::Input | Op::Function(_) | Op::Max { .. } | Op::Move { .. } | Op::Row(_) => 0,
        };
        let products = net.values.iter().map(|v| of(&v.op)).sum();
        Frame {
            net,
            start,
            bounds: vec![],
            errors: vec![],
            enclosed: vec![],
            joints: vec![],
            products,
            is_bounded: true,
        }
    }

    /// Adds the bounds of the next value, for an affine one after the start what [`crate::bounds::interval`] gives with them, and for a function
    /// its lines.
    pub fn push(&mut self, bounds: Bounds, sums: Vec<f64>, enclosed: Enclosed) {
        let errors = match &self.net.values[self.bounds.len()].op {
            Op::Affine(a) => errors(a, sums),
            Op::Input | Op::Function(_) | Op::Max { .. } | Op::Move { .. } | Op::Row(_) => vec![],
        };
        self.is_bounded &= (0..bounds.lo.len()).all(|i| bounds.magnitude(i) <= LARGEST);
        self.bounds.push(bounds);
        self.errors.push(errors);
        self.enclosed.push(enclosed);
        self.joints.push(vec![]);
    }

    /// How many places the first values have: so many does a walk from the last of them need if it chooses any.
    pub fn places(&self, values: usize) -> usize {
        self.enclosed.iter().take(values).map(|e| 2 * e.open.len()).sum()
    }

    /// What some cuts leave of the bounds.
    pub fn within(&self, cuts: &[Cut]) -> Vec<Bounds> {
        let mut bounds = self.bounds.clone();
        cuts.iter().for_each(|c| {
            bounds[c.of].meet(c.element, c.within.0, c.within.1);
        });
        bounds
    }

    /// Rule *Split*: the two halves of what some cuts leave of an element of a function's argument, up to `below` and from `above` on.
    ///
    /// # Errors
    /// If an execution could be in neither.
    pub fn cut(
        &self,
        function: usize,
        element: usize,
        (below, above): (f64, f64),
        cuts: &[Cut],
    ) -> Result<[Cut; 2], String> {
        let Some(Op::Function(f)) = self.net.values.get(function).map(|v| &v.op) else {
            return Err(format!("value {function} is no function"));
        };
        let integer = self.net.values[f.of].integer && below.fract() == 0.0 && above == below + 1.0;
        if !(above <= below || integer) {
            return Err(format!("between {below} and {above} there is a gap"));
        }
        let x = &self.bounds[f.of];
        if element >= x.lo.len() {
            return Err(format!("function {function} has no element {element}"));
        }
        let own = cuts.iter().rfind(|c| c.function == function && c.element == element);
        let (l, u) = own.map_or((x.lo[element], x.hi[element]), |c| c.within);
        let half = |side: f64, at: f64| -> Result<Cut, String> {
            let within = if side > 0.0 { (l, u.min(at)) } else { (l.max(at), u) };
            // Where nothing is left, any lines will do.
            let ends = if within.0 > within.1 { Some(Ends::default()) } else { Ends::new(f.at(element), within) };
            let ends = ends.ok_or_else(|| format!("element {element} of function {function} has no lines"))?;
            Ok(Cut { function, of: f.of, element, at, side, within, ends })
        };
        Ok([half(1.0, below)?, half(-1.0, above)?])
    }

    /// Whether bounds by intervals are the best there are: one affine map of the start, or nothing after it.
    pub fn is_exact(&self, id: usize) -> bool {
        let of_start = |op: &Op| matches!(op, Op::Affine(a) if matches!(&a.terms[..], [(of, _)] if *of == self.start));
        id <= self.start || of_start(&self.net.values[id].op)
    }

    /// Lower bounds on functionals of the value `from`.
    ///
    /// # Claim
    /// For every execution within the frame's bounds that satisfies the cuts of a row, its functional is at least the result.
    ///
    /// # Rounding
    /// Each step adds to `error` what it rounds; see there. The result is lowered by it.
    pub fn walk(&self, from: usize, rows: &[Row]) -> Vec<f64> {
        let chosen = self.places(from + 1);
        let fits = |r: &Row| (r.places.is_empty() || r.places.len() == chosen) && r.betas.len() == r.cuts.len();
        if !self.is_bounded || !rows.iter().all(fits) {
            return vec![f64::NEG_INFINITY; rows.len()];
        }
        let walk = |rows: &&[Row]| {
            let mut batch = Batch::new(self, from, rows);
            for id in (0..=from).rev() {
                batch.step(id);
            }
            batch.results()
        };
        // Other threads have to be woken.
        let batch = if rows.len() * self.products < LITTLE { rows.len().max(1) } else { BATCH };
        let batches: Vec<&[Row]> = rows.chunks(batch).collect();
        threads::map(&batches, walk).concat()
    }
}

/// Functionals that are walked together, and how many products are no work for several threads.
const BATCH: usize = 64;
const LITTLE: usize = 10_000_000;

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
    fn new(frame: &'b Frame<'b>, from: usize, rows: &'b [Row]) -> Self {
        let n = rows.len();
        let zeros = |id: usize| vec![0.0; frame.bounds[id].lo.len() * n];
        let mut coefficients = vec![None; from + 1];
        coefficients[from] = Some(zeros(from));
        let mut error = vec![0.0; n];
        for (r, row) in rows.iter().enumerate() {
            let last = row.terms.iter().map(|(i, a)| (from, *i, *a));
            for (id, i, a) in last.chain(row.before.iter().copied()) {
                let sum: &mut f64 = &mut coefficients[id].get_or_insert_with(|| zeros(id))[i * n + r];
                if *sum != 0.0 {
                    error[r] += 2.0 * U * (sum.abs() + a.abs()) * frame.bounds[id].magnitude(i);
                }
                *sum += a;
            }
        }
        let cuts = rows.iter().map(|r| r.cuts.len()).max().unwrap_or(0);
        let additions = 3 * (from + 1) + cuts;
        Batch { frame, rows, coefficients, constant: vec![0.0; n], error, additions }
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
        self.cancel(id);
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
            Op::Row(of) => self.row(of, &c),
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
            for (cut, beta) in row.cuts.iter().zip(&row.betas).filter(|(c, beta)| c.of == id && **beta > 0.0) {
                let c = self.coefficients[id].get_or_insert_with(|| vec![0.0; x.lo.len() * n]);
                let sum = &mut c[cut.element * n + r];
                *sum += beta * cut.side;
                self.error[r] += 2.0 * U * sum.abs() * x.magnitude(cut.element);
                self.constant[r] -= beta * cut.side * cut.at;
                self.error[r] += gamma * (beta * cut.at).abs();
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
            map.adjoint(c, self.rows.len(), &mut back);
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
    /// One of the two parts of a coefficient is zero: its product with the slope is rounded, and that with the offset, which is summed with all others.
    fn function(&mut self, id: usize, of: usize, mut c: Vec<f64>) {
        let n = self.rows.len();
        let (x, gamma) = (&self.frame.bounds[of], self.gamma(c.len() / n));
        let (mut sum, mut error) = (vec![0.0; n], vec![0.0; n]);
        let mut lines = Lines::new(self, id);
        vectorized(
            #[inline(always)]
            || {
                for (i, c) in c.chunks_mut(n).enumerate() {
                    let (pairs, weight) = (lines.of(i, x.magnitude(i)), 2.0 * U * x.magnitude(i));
                    for (((c, pair), sum), error) in c.iter_mut().zip(pairs).zip(&mut sum).zip(&mut error) {
                        // What is not a number goes to the second part, and from there to every sum.
                        let (up, down) = if *c > 0.0 { (*c, 0.0) } else { (0.0, *c) };
                        let product = up * pair.lower.offset + down * pair.upper.offset;
                        *c = up * pair.lower.slope + down * pair.upper.slope;
                        *sum += product;
                        *error += gamma * product.abs() + weight * c.abs();
                    }
                }
            },
        );
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

    fn row(&mut self, of: &[usize], mut c: &[f64]) {
        for &id in of {
            let (own, rest) = c.split_at(self.frame.bounds[id].lo.len() * self.rows.len());
            self.arrive(id, own.to_vec());
            c = rest;
        }
    }
}

#[cfg(test)]
mod tests;
