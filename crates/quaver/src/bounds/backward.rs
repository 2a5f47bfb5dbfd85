//! Backward linear bounds, rigorous in f64.

use super::tuned::{State, Tunable};
use super::{Analysis, Bounds, Line, Prepared};
use crate::net::gemm::vectorized;
use crate::net::{Affine, From, Max, Move, NodeId, Op, Patch, Pointwise, Sign, slack_bound};
use crate::num::round::{self, U64, gamma64, sub_down};
use rayon::prelude::*;

/// Functionals that are worked on together.
pub(super) const BATCH: usize = 256;

/// Functionals on their way back: for every row, the exact functional that was asked for is at least
/// sum over values (coefficients . value) + constant - error.
pub(super) struct Functionals {
    pub rows: usize,
    /// By node; `None` where no functional has arrived.
    coefficients: Vec<Option<Patch>>,
    constant: Vec<f64>,
    /// Upper bound on everything that was rounded away, itself computed in plain f64 from non-negative terms.
    pub error: Vec<f64>,
    /// How often something is added to `constant` at most.
    additions: usize,
}

/// Lower bounds of the functionals `rows` (row-major, one coefficient for each element of the value `from`).
///
/// # Claim
/// For every execution the net allows on an input of the region that `analysis` was made for, row . value >= result.
pub fn lower_bounds(prepared: &Prepared, analysis: &Analysis, from: NodeId, rows: Vec<f64>, count: usize) -> Vec<f64> {
    let n = prepared.net.node(from).len();
    let of = |part: &[f64]| lower_bounds_of_patch(prepared, analysis, from, Patch::dense(part, part.len() / n.max(1)));
    if count <= BATCH { of(&rows) } else { rows.par_chunks(BATCH * n).flat_map_iter(of).collect() }
}

/// [`lower_bounds`] of functionals that read some elements only.
///
/// # Why
/// Each step replaces a value by a lower bound of its functional in terms of its arguments: affine maps by their adjoint,
/// pointwise functions by the line on the side of the coefficient's sign, maxima by one member or their upper bound, index maps by
/// scattering. Values that are boxes are replaced by their bounds. Elements that no functional of the batch reads have coefficient zero and add
/// nothing to any of the sums, so each step works on the others only: the patch of a picture that an output of a convolution depends on.
///
/// # Rounding
/// Every rounding is bounded by |coefficient| times a number known for its element, and these are summed in `error`: one number for each row.
/// For an affine step, fl(c W) differs from c W in column j by at most gamma sum_i |c_i| |W_ij|, which changes the functional by at most
/// gamma sum_i |c_i| sum_j |W_ij| |x_j|; the inner sum is known before the search ([`affine_errors`]). The terms of `error` are
/// non-negative and pass fewer than 2^30 roundings, so it is off by a relative 2^-22 at most: the end adds 2^-20.
///
/// # Source
/// The lines and the order: CROWN, DeepPoly. The error term: Higham, section 3.5 (matrix products).
pub(super) fn lower_bounds_of_patch(prepared: &Prepared, analysis: &Analysis, from: NodeId, rows: Patch) -> Vec<f64> {
    let functionals = Functionals::new(from, rows);
    walk(prepared, analysis, from, functionals, None)
}

/// Takes functionals from a value back to the boxes that it depends on; with tuned lines and multipliers, if there are any.
pub(super) fn walk(
    prepared: &Prepared,
    analysis: &Analysis,
    from: NodeId,
    mut f: Functionals,
    mut tuned: Option<&mut State<'_>>,
) -> Vec<f64> {
    for id in (0..=from.0).rev().map(NodeId) {
        let Some(mut c) = f.coefficients[id.0].take() else {
            tuned.as_mut().into_iter().for_each(|tuned| tuned.pass(id));
            continue;
        };
        let bounds = &analysis.bounds;
        if let Some(tuned) = &mut tuned {
            c = tuned.add_splits(&mut f, id, c, &bounds[id.0]);
        }
        if let (Some(twins), Some(differences)) = (&prepared.twins[id.0], &analysis.differences[id.0]) {
            f.cancel((twins, differences), &mut c, bounds, tuned.as_deref_mut().and_then(|t| t.twins(id)));
        }
        let op = &prepared.net.node(id).op;
        if prepared.is_box[id.0] || matches!(op, Op::Input(_)) {
            match prepared.total {
                Some(total) => f.concretize_total(&c, &bounds[id.0], total),
                None => f.concretize(&c, &bounds[id.0]),
            }
            if let Some(tuned) = &mut tuned {
                tuned.reached(id, c);
            }
            continue;
        }
        match op {
            Op::Input(_) => {}
            Op::Affine(a) => f.affine(&c, a, &analysis.affine_errors[id.0], bounds),
            Op::Pointwise(p) => match (&analysis.lines[id.0], tuned.as_deref_mut().and_then(|t| t.node(id))) {
                (Some(lines), Some(own)) => f.pointwise_tuned(c, p, (lines, own), bounds),
                (Some(lines), None) => f.pointwise(c, p, lines, bounds),
                (None, _) => f.concretize(&c, &bounds[id.0]),
            },
            Op::Max(m) => {
                f.max(&c, m, prepared.multiplicity[id.0], &bounds[id.0], bounds);
                if let Some(tuned) = &mut tuned {
                    tuned.reached(id, c);
                }
            }
            Op::Move(m) => f.moved(&c, m, prepared.multiplicity[id.0], bounds),
        }
    }
    (0..f.rows).map(|r| f.result(r)).collect()
}

/// What one step adds to the constant and the error of each row.
pub(super) struct Sums {
    pub sum: Vec<f64>,
    pub error: Vec<f64>,
}

impl Sums {
    pub fn new(rows: usize) -> Self {
        Sums { sum: vec![0.0; rows], error: vec![0.0; rows] }
    }

    /// Adds c times a factor, and |c| times a weight to the error.
    #[inline(always)]
    fn add(&mut self, run: &[f64], factor: f64, weight: f64) {
        for ((c, sum), error) in run.iter().zip(&mut self.sum).zip(&mut self.error) {
            *sum += c * factor;
            *error += c.abs() * weight;
        }
    }

    /// Replaces coefficients on f(x) by those on x: by the lower line where they are positive, by the upper where they are negative.
    ///
    /// # Rounding
    /// One of the two parts of c is zero, so only the product of slope and coefficient is rounded, and the product with the offset.
    #[inline(always)]
    fn replace(&mut self, run: &mut [f64], lower: Line, upper: Line, gamma: f64, magnitude: f64) {
        let weight = |line: Line| gamma * line.offset.abs() + line.slope * magnitude;
        let (below, above) = (weight(lower), weight(upper));
        for ((c, sum), error) in run.iter_mut().zip(&mut self.sum).zip(&mut self.error) {
            // What is not a number goes to the second part and from there to every sum.
            let (up, down) = if *c >= 0.0 { (*c, 0.0) } else { (0.0, *c) };
            *c = up * lower.slope + down * upper.slope;
            *sum += up * lower.offset + down * upper.offset;
            *error += up * below - down * above;
        }
    }

    /// Adds |c| times a weight to the error.
    #[inline(always)]
    pub fn add_error(&mut self, run: &[f64], weight: f64) {
        run.iter().zip(&mut self.error).for_each(|(c, error)| *error += c.abs() * weight);
    }
}

impl Functionals {
    /// Functionals on one value.
    pub fn new(from: NodeId, rows: Patch) -> Self {
        Functionals::on(from, rows, None)
    }

    /// Functionals that are sums of those on one value and on another one before it.
    pub fn on(from: NodeId, rows: Patch, before: Option<(NodeId, Patch)>) -> Self {
        let count = rows.rows;
        let mut coefficients = vec![None; from.0 + 1];
        coefficients[from.0] = Some(rows);
        if let Some((id, rows)) = before {
            coefficients[id.0] = Some(rows);
        }
        let (constant, error) = (vec![0.0; count], vec![0.0; count]);
        Functionals { rows: count, coefficients, constant, error, additions: 3 * (from.0 + 1) }
    }

    /// Takes out what has arrived at a value.
    pub fn take(&mut self, id: NodeId) -> Option<Patch> {
        self.coefficients[id.0].take()
    }

    /// Puts back what [`Self::take`] took out.
    pub fn put(&mut self, id: NodeId, c: Patch) {
        self.coefficients[id.0] = Some(c);
    }

    fn result(&self, r: usize) -> f64 {
        let error = self.error[r] * (1.0 + 9.5367431640625e-7) + f64::MIN_POSITIVE * 1e30;
        let bound = sub_down(self.constant[r], error);
        if bound.is_nan() { f64::NEG_INFINITY } else { bound }
    }

    /// The relative error of a product that is summed with n - 1 others and then, with all other sums, in the constant.
    pub fn gamma(&self, n: usize) -> f64 {
        gamma64(n + self.additions + 4)
    }

    pub fn add(&mut self, sums: &Sums) {
        self.constant.iter_mut().zip(&sums.sum).for_each(|(c, s)| *c += s);
        self.error.iter_mut().zip(&sums.error).for_each(|(e, s)| *e += s);
    }

    /// Adds coefficients on a value; where some are there already, each sum is rounded once.
    pub fn arrive(&mut self, id: NodeId, new: Patch, bounds: &Bounds) {
        let Some(old) = self.coefficients[id.0].take() else {
            self.coefficients[id.0] = Some(new);
            return;
        };
        let (most, least) = if old.elements.len() < new.elements.len() { (new, old) } else { (old, new) };
        let mut sums = Sums::new(self.rows);
        let mut joined = Collector::onto(most, bounds.lo.len());
        for (i, run) in least.runs() {
            if let Some(sum) = joined.add(i, run) {
                sums.add_error(sum, U64 * bounds.magnitude(i));
            }
        }
        self.add(&sums);
        self.coefficients[id.0] = Some(joined.patch);
    }

    /// Replaces a value by the end of its bounds that makes each product smallest.
    fn concretize(&mut self, c: &Patch, b: &Bounds) {
        let gamma = self.gamma(c.elements.len());
        let mut sums = Sums::new(self.rows);
        vectorized(
            #[inline(always)]
            || {
                for (i, run) in c.runs() {
                    let (lo, hi, weight) = (b.lo[i], b.hi[i], gamma * b.magnitude(i));
                    for ((c, sum), error) in run.iter().zip(&mut sums.sum).zip(&mut sums.error) {
                        let (low, high) = (c * lo, c * hi);
                        *sum += if low < high { low } else { high };
                        *error += c.abs() * weight;
                    }
                }
            },
        );
        self.add(&sums);
    }

    /// c (W x + b + slack) >= (c W) x + c b - |c| slack.
    fn affine(&mut self, c: &Patch, a: &Affine, errors: &[f64], bounds: &[Bounds]) {
        let gamma = self.gamma(c.elements.len());
        let mut sums = Sums::new(self.rows);
        vectorized(
            #[inline(always)]
            || {
                for (i, run) in c.runs() {
                    let bias = *a.bias.at(i);
                    sums.add(run, bias, gamma * bias.abs() + errors[i]);
                }
            },
        );
        self.add(&sums);
        for (id, map) in &a.terms {
            self.arrive(*id, map.adjoint_patch(c), &bounds[id.0]);
        }
    }

    /// c f(x) >= c (slope x + offset) with the lower line where c > 0 and the upper where c < 0.
    fn pointwise(&mut self, mut c: Patch, p: &Pointwise, lines: &super::Lines, bounds: &[Bounds]) {
        let x = &bounds[p.input.0];
        let gamma = self.gamma(c.elements.len());
        let mut sums = Sums::new(self.rows);
        vectorized(
            #[inline(always)]
            || {
                for (i, run) in c.runs_mut() {
                    sums.replace(run, lines.lower[i], lines.upper[i], gamma, 2.0 * U64 * x.magnitude(i));
                }
            },
        );
        self.add(&sums);
        self.arrive(p.input, c, x);
    }

    /// [`Self::pointwise`] where some elements have lines of their own for each functional.
    fn pointwise_tuned(
        &mut self,
        mut c: Patch,
        p: &Pointwise,
        (lines, own): (&super::Lines, &mut Tunable<'_>),
        bounds: &[Bounds],
    ) {
        let x = &bounds[p.input.0];
        let gamma = self.gamma(c.elements.len());
        let mut sums = Sums::new(self.rows);
        own.forget();
        vectorized(
            #[inline(always)]
            || {
                for (i, run) in c.runs_mut() {
                    let magnitude = 2.0 * U64 * x.magnitude(i);
                    match own.replaced(i, run) {
                        Some(l) => l.replace(run, &mut sums, gamma, magnitude),
                        None => sums.replace(run, lines.lower[i], lines.upper[i], gamma, magnitude),
                    }
                }
            },
        );
        self.add(&sums);
        self.arrive(p.input, c, x);
    }

    /// max(x) >= any member; max(x) <= the member that is surely largest, or the upper bound of all.
    ///
    /// Windows may share a member: a coefficient passes as many additions as windows share it at most.
    fn max(&mut self, c: &Patch, m: &Max, multiplicity: usize, own: &Bounds, bounds: &[Bounds]) {
        let x = &bounds[m.input.0];
        let gamma = self.gamma(c.elements.len());
        let shared = gamma64(multiplicity);
        let mut sums = Sums::new(self.rows);
        let mut back = Collector::new(self.rows, x.lo.len());
        let (mut to_member, mut to_bound) = (vec![0.0; self.rows], vec![0.0; self.rows]);
        for (i, run) in c.runs() {
            let (member, sure) = best_member(m.window(i), x);
            for ((c, member), bound) in run.iter().zip(&mut to_member).zip(&mut to_bound) {
                (*member, *bound) = if *c >= 0.0 || sure { (*c, 0.0) } else { (0.0, *c) };
            }
            sums.add(&to_bound, own.hi[i], gamma * own.hi[i].abs());
            sums.add_error(&to_member, shared * x.magnitude(member));
            back.add(member, &to_member);
        }
        self.add(&sums);
        self.arrive(m.input, back.patch, x);
    }

    /// Each coefficient goes where its element comes from; those of one origin are added in at most `multiplicity` roundings.
    fn moved(&mut self, c: &Patch, m: &Move, multiplicity: usize, bounds: &[Bounds]) {
        let gamma = self.gamma(c.elements.len());
        let shared = if multiplicity > 1 { gamma64(multiplicity) } else { 0.0 };
        let mut sums = Sums::new(self.rows);
        let mut back: Vec<Collector> =
            m.sources.iter().map(|s| Collector::new(self.rows, bounds[s.0].lo.len())).collect();
        for (i, run) in c.runs() {
            match &m.from[i] {
                From::Element { source, index } => {
                    let (s, i) = (*source as usize, *index as usize);
                    if multiplicity > 1 {
                        sums.add_error(run, shared * bounds[m.sources[s].0].magnitude(i));
                    }
                    back[s].add(i, run);
                }
                From::Constant(k) => sums.add(run, *k, gamma * k.abs()),
            }
        }
        self.add(&sums);
        for (id, back) in m.sources.iter().zip(back) {
            self.arrive(*id, back.patch, &bounds[id.0]);
        }
    }
}

/// A patch that coefficients are added to, element by element.
pub(super) struct Collector {
    pub patch: Patch,
    /// One more than the place of each element in the patch; 0 where it has none.
    places: Vec<u32>,
}

impl Collector {
    pub fn new(rows: usize, elements: usize) -> Self {
        Collector::onto(Patch { rows, elements: vec![], data: vec![] }, elements)
    }

    pub fn onto(patch: Patch, elements: usize) -> Self {
        let mut places = vec![0; elements];
        (1..).zip(&patch.elements).for_each(|(k, &e)| places[e as usize] = k);
        Collector { patch, places }
    }

    /// The coefficients of one element, if it has some.
    pub fn find(&mut self, element: usize) -> Option<&mut [f64]> {
        let place = (self.places[element] as usize).checked_sub(1)?;
        Some(&mut self.patch.data[place * self.patch.rows..][..self.patch.rows])
    }

    /// The coefficients of one element, zeros where it had none.
    pub fn at(&mut self, element: usize) -> &mut [f64] {
        let rows = self.patch.rows;
        if self.places[element] == 0 {
            self.patch.elements.push(element as u32);
            self.patch.data.resize(self.patch.data.len() + rows, 0.0);
            self.places[element] = self.patch.elements.len() as u32;
        }
        &mut self.patch.data[(self.places[element] as usize - 1) * rows..][..rows]
    }

    /// Adds the coefficients of one element; where it had some, the sums.
    pub fn add(&mut self, element: usize, run: &[f64]) -> Option<&[f64]> {
        let place = &mut self.places[element];
        if *place == 0 {
            self.patch.elements.push(element as u32);
            self.patch.data.extend_from_slice(run);
            *place = self.patch.elements.len() as u32;
            return None;
        }
        let old = &mut self.patch.data[(*place as usize - 1) * run.len()..][..run.len()];
        old.iter_mut().zip(run).for_each(|(o, n)| *o += n);
        Some(old)
    }
}

/// The member with the largest lower bound, and whether no other can exceed it.
fn best_member(window: &[u32], x: &Bounds) -> (usize, bool) {
    let best = window.iter().map(|&j| j as usize).max_by(|&a, &b| x.lo[a].total_cmp(&x.lo[b])).unwrap_or(0);
    (best, window.iter().all(|&j| j as usize == best || x.hi[j as usize] <= x.lo[best]))
}

/// For each element of an affine node, how much a coefficient of magnitude 1 on it loses on the way back: what the runtime may round away, and
/// gamma sum_j |W_ij| |x_j| for the rounded adjoint (in plain f64 from non-negative terms).
///
/// # Rounding
/// |W| |x| + |b| is inflated to an upper bound. Each coefficient of an adjoint sums at most `fan_out` products.
pub(super) fn affine_errors(a: &Affine, n: usize, bounds: &[Bounds]) -> Vec<f64> {
    let mut magnitude: Vec<f64> = (0..n).map(|i| a.bias.at(i).abs()).collect();
    let (mut products, mut most) = (2, 0);
    for (id, map) in &a.terms {
        let x: Vec<f64> = (0..map.inputs()).map(|j| bounds[id.0].magnitude(j)).collect();
        map.apply(Sign::Absolute, &x, 1, &mut magnitude, true);
        products += map.fan_in() + 1;
        most = most.max(map.fan_out());
    }
    let gamma = gamma64(most + 2);
    let of = |(i, &m): (usize, &f64)| {
        let magnitude = round::inflate(m, products);
        slack_bound(&a.rounding, i, magnitude) + gamma * magnitude
    };
    magnitude.iter().enumerate().map(of).collect()
}
