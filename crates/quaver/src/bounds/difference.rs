//! The difference of two functions whose arguments differ little, as in a network and its quantization on the same input.
//!
//! The values of both functions, bounded apart, may each be anything between their lines; their difference may not. In real units, with the arguments
//! u, u' and the values v, v' of two twins (see [`crate::net::Net::declare_twins`]), v' - v lies between two lines of u' - u. A backward pass
//! that arrives with coefficients of opposite signs on v and v' carries as much of them as cancels on v' - v, and only the rest on each alone.
//!
//! # Source
//! Paulsen, Wang, Wang, ReluDiff (ICSE 2020), and Zhang, Song, Sun, QEBVerif (CAV 2023), for bounds on differences neuron by neuron; here they are one
//! more relaxation of the backward pass on a net that holds both networks, so that nothing has to be aligned but functions.

use rayon::prelude::*;

use super::backward::{self, Collector, Functionals, Sums};
use super::tuned::TwinUse;
use super::{Analysis, Bounds, Line, NoBounds, Prepared, Until};
use crate::net::{Grid, Net, NodeId, Op, Patch, Pointwise, ScalarFn};
use crate::net::{Piecewise, Step};
use crate::num::round::{U64, add_down, add_up, mul_down, mul_up, sub_down, sub_up};

/// Two pointwise nodes whose arguments are expected to differ little.
#[derive(Debug)]
pub(crate) struct Twins {
    pub nodes: [NodeId; 2],
    pub arguments: [NodeId; 2],
    /// What 1 is worth in both, by element.
    units: Vec<Units>,
}

/// Factors, positive: u = argument[0] x, v = value[0] f(x) for the first function, likewise for the second. Any are valid; those that
/// stand for the same real numbers are useful.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Units {
    argument: [f64; 2],
    value: [f64; 2],
    /// The values that stand for 0.
    zero: [f64; 2],
}

/// What is known about the difference of one element of two twins.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Joint {
    /// v' - v >= line(u' - u), and whether that is worth more than a line for each function.
    lower: (Line, bool),
    /// v' - v <= line(u' - u), likewise.
    upper: (Line, bool),
    /// Bounds on u' - u.
    pub range: (f64, f64),
}

impl Joint {
    /// The line for a coefficient of a sign.
    pub fn line(&self, coefficient: f64) -> Line {
        if coefficient > 0.0 { self.lower.0 } else { self.upper.0 }
    }
}

/// A line for a difference is used where it loses less than two lines, and not where both lose the same: there a checker that rounds otherwise would
/// have to guess.
const LESS: f64 = 1.0 - 9.5367431640625e-7;

/// What an analysis knows about two twins, by element.
#[derive(Clone, Debug)]
pub(crate) struct Differences {
    pub joints: Vec<Joint>,
}

impl Twins {
    /// The twins of a net, by the second of both.
    pub fn of(net: &Net) -> Vec<Option<Twins>> {
        let mut twins: Vec<Option<Twins>> = net.nodes().iter().map(|_| None).collect();
        for nodes in net.twins() {
            if let (Op::Pointwise(p), Op::Pointwise(q)) = (&net.node(nodes[0]).op, &net.node(nodes[1]).op) {
                let units = (0..net.node(nodes[0]).len()).map(|i| units(net, *nodes, [p, q], i)).collect();
                twins[nodes[1].0] = Some(Twins { nodes: *nodes, arguments: [p.input, q.input], units });
            }
        }
        twins
    }

    /// The difference u' - u of chosen elements and its negative, as functionals.
    fn functionals(&self, elements: &[usize]) -> Functionals {
        let patch = |side: usize, sign: f64| {
            let mut patch = Patch::signed_units(elements);
            let factors = elements.iter().map(|&i| sign * self.units[i].argument[side]);
            patch.data.chunks_mut(patch.rows).zip(factors).for_each(|(run, k)| run.iter_mut().for_each(|c| *c *= k));
            patch
        };
        let both = [(self.arguments[0], patch(0, -1.0)), (self.arguments[1], patch(1, 1.0))];
        let [before, last] = if self.arguments[0] < self.arguments[1] {
            both
        } else {
            let [a, b] = both;
            [b, a]
        };
        Functionals::on(last.0, last.1, Some(before))
    }
}

/// What the elements of two functions are worth: what their values mean, and of arguments what a step makes of them.
fn units(net: &Net, nodes: [NodeId; 2], functions: [&Pointwise; 2], i: usize) -> Units {
    let value = nodes.map(|id| net.node(id).quantization.as_ref().map_or(1.0, |q| *q.scale.at(i)));
    let steepness = functions.map(|p| match p.functions.at(i) {
        ScalarFn::Step(s) => mean_slope(s),
        ScalarFn::Band(b) => mean_slope(b.lower()),
        ScalarFn::Piecewise(_) => 1.0,
    });
    let zero = nodes.map(|id| net.node(id).quantization.as_ref().map_or(0.0, |q| *q.zero_point.at(i) as f64));
    Units { argument: [value[0] * steepness[0], value[1] * steepness[1]], value, zero }
}

/// The slope of a line through the jumps of a step; a hint.
fn mean_slope(s: &Step) -> f64 {
    let (cuts, values) = (s.cuts(), s.values());
    let [first, .., last] = cuts else { return 1.0 };
    let slope = (values[values.len() - 2] - values[1]) / (last.at - first.at);
    if slope > 0.0 && slope.is_finite() { slope } else { 1.0 }
}

/// Bounds on the differences of two twins and the lines that follow.
///
/// # Claim
/// For every execution that the analysis's bounds hold of, each element's difference is within its range and its lines are on their sides.
pub(crate) fn differences(
    prepared: &Prepared,
    analysis: &Analysis,
    twins: &Twins,
    until: Until<'_>,
) -> Result<Option<Differences>, NoBounds> {
    let net = prepared.net;
    // A search may begin after the first of both.
    if twins.arguments.iter().any(|id| analysis.bounds[id.0].lo.is_empty()) {
        return Ok(None);
    }
    let bounds = twins.arguments.map(|id| &analysis.bounds[id.0]);
    let context: Vec<Context> = (0..twins.units.len()).map(|i| Context::new(net, twins, i)).collect();
    let nothing = Joint { range: (f64::NEG_INFINITY, f64::INFINITY), ..Joint::default() };
    let mut joints = vec![nothing; context.len()];
    let wanted = |&i: &usize| context[i].is_open(bounds.map(|b| (b.lo[i], b.hi[i])));
    let wanted: Vec<usize> = (0..joints.len()).filter(wanted).collect();
    let batches: Vec<&[usize]> = wanted.chunks(backward::BATCH / 2).collect();
    let last = twins.arguments[0].max(twins.arguments[1]);
    let search = |batch: &&[usize]| match until.is_over() {
        true => vec![],
        false => backward::walk(prepared, analysis, last, twins.functionals(batch), None),
    };
    let found: Vec<Vec<f64>> = match &batches[..] {
        [only] => vec![search(only)],
        _ => batches.par_iter().map(search).collect(),
    };
    for (batch, found) in batches.iter().zip(&found) {
        for (&i, found) in batch.iter().zip(found.chunks(2)) {
            let joint = context[i].joint(bounds.map(|b| (b.lo[i], b.hi[i])), (found[0], -found[1]));
            if joint.range.0 > joint.range.1 {
                return Err(NoBounds::Empty);
            }
            joints[i] = joint;
        }
    }
    Ok(Some(Differences { joints }))
}

/// Everything that lines on one element depend on beside bounds.
pub(crate) struct Context<'c> {
    functions: [&'c ScalarFn; 2],
    grids: [Grid; 2],
    units: Units,
}

impl<'c> Context<'c> {
    pub fn new(net: &'c Net, twins: &Twins, i: usize) -> Self {
        let function = |id: NodeId| match &net.node(id).op {
            Op::Pointwise(p) => p.functions.at(i),
            Op::Input(_) | Op::Affine(_) | Op::Max(_) | Op::Move(_) => unreachable!("twins are pointwise"),
        };
        let grids = twins.arguments.map(|id| net.node(id).grid);
        Context { functions: twins.nodes.map(function), grids, units: twins.units[i] }
    }

    /// Whether the two functions are not both affine between the bounds of their arguments.
    fn is_open(&self, bounds: [(f64, f64); 2]) -> bool {
        self.functions.iter().zip(bounds).any(|(f, (l, u))| !f.is_affine_on(l, u))
    }

    /// The continuous function h that both are compared with: one of them, or for two steps the identity between the ends of their values.
    fn middle(&self) -> Piecewise {
        let is_plain = |side: usize| self.units.argument[side] == 1.0 && self.units.value[side] == 1.0;
        let own = (0..2).find_map(|side| match self.functions[side] {
            ScalarFn::Piecewise(p) if is_plain(side) => Some(p.clone()),
            ScalarFn::Piecewise(_) | ScalarFn::Step(_) | ScalarFn::Band(_) => None,
        });
        own.unwrap_or_else(|| {
            let ends = self.functions[0].range();
            let real = |v: f64| self.units.value[0] * (v - self.units.zero[0]);
            Piecewise::clip(real(ends.0), real(ends.1))
        })
    }

    /// What is known about the difference, from bounds on both arguments and on u' - u.
    ///
    /// # Claim
    /// For all arguments within their bounds whose difference is in the range, the lines are on their sides of v' - v.
    ///
    /// # Why
    /// Let h be continuous with slopes from m to M between all arguments. h(u') - h(u) lies between m d and M d where d = u' - u. The upper one of
    /// both is convex in d, the lower one concave: the chord over the range of d is on the right side of each. v' - h(u') and v - h(u) are within
    /// constants (see [`Context::error`]).
    ///
    /// # Rounding
    /// Ranges, slopes times ends and constants are rounded outward; a line's slope may be any number.
    pub fn joint(&self, bounds: [(f64, f64); 2], found: (f64, f64)) -> Joint {
        let [k, k2] = self.units.argument;
        let [(l, u), (l2, u2)] = bounds;
        let first = (mul_down(k, l), mul_up(k, u));
        let second = (mul_down(k2, l2), mul_up(k2, u2));
        let range = (sub_down(second.0, first.1).max(found.0), sub_up(second.1, first.0).min(found.1));
        let nothing = Joint { range, ..Joint::default() };
        let h = self.middle();
        let (Some(e), Some(e2)) = (self.error(&h, 0, bounds[0]), self.error(&h, 1, bounds[1])) else { return nothing };
        let error = (sub_down(e2.0, e.1), sub_up(e2.1, e.0));
        let segments = ScalarFn::Piecewise(h).segments(false, first.0.min(second.0), first.1.max(second.1), Grid::Real);
        let slopes = segments.iter().map(|s| s.slope);
        let (least, most) = slopes.fold((f64::INFINITY, 0.0f64), |(a, b), s| (a.min(s), b.max(s)));
        let lower = chord(range, |d| if d < 0.0 { most } else { least }, -1.0, error.0);
        let upper = chord(range, |d| if d < 0.0 { least } else { most }, 1.0, error.1);
        // The worst that is lost with these lines, and with a line for each function.
        let lost = (most - least) * range.1.max(-range.0).max(0.0) + (error.1 - error.0);
        let [below, above] = [-1.0, 1.0].map(|side| [0, 1].map(|n| self.gap(n, bounds[n], side)));
        let [of_lower, of_upper] = [above[0] + below[1], below[0] + above[1]].map(|each| lost < LESS * each);
        Joint { lower: (lower, of_lower), upper: (upper, of_upper), range }
    }

    /// Bounds on value f(x) - h(argument x) for one of the functions.
    ///
    /// # Why
    /// It is zero where f is h itself and the units are 1. Over a constant part of f, h is between its values at the ends.
    fn error(&self, h: &Piecewise, side: usize, (l, u): (f64, f64)) -> Option<(f64, f64)> {
        let (k, q) = (self.units.argument[side], self.units.value[side]);
        match self.functions[side] {
            ScalarFn::Piecewise(p) => (p == h && k == 1.0 && q == 1.0).then_some((0.0, 0.0)),
            f @ (ScalarFn::Step(_) | ScalarFn::Band(_)) => {
                let h = ScalarFn::Piecewise(h.clone());
                let of = |upper: bool| f.segments(upper, l, u, self.grids[side]);
                let low = of(false)
                    .iter()
                    .map(|s| sub_down(mul_down(q, s.value.0), h.value_up(mul_up(k, s.to))))
                    .fold(f64::INFINITY, f64::min);
                let high = of(true)
                    .iter()
                    .map(|s| sub_up(mul_up(q, s.value.1), h.value_down(mul_down(k, s.from))))
                    .fold(f64::NEG_INFINITY, f64::max);
                Some((low, high))
            }
        }
    }

    /// How far the line of least area is from the function at worst, in real units; a hint.
    fn gap(&self, side: usize, (l, u): (f64, f64), sign: f64) -> f64 {
        let f = self.functions[side];
        if f.is_affine_on(l, u) {
            return 0.0;
        }
        let (mut outer, mut inner) = (vec![], vec![]);
        let grid = self.grids[side];
        if sign > 0.0 {
            f.upper_points(l, u, grid, &mut outer);
            f.lower_points(l, u, grid, &mut inner);
        } else {
            f.lower_points(l, u, grid, &mut outer);
            f.upper_points(l, u, grid, &mut inner);
        }
        let slope = super::relax::hull_slope(&outer, l + (u - l) / 2.0, sign);
        let offset = outer.iter().map(|p| sign * (p.1 - slope * p.0)).fold(f64::NEG_INFINITY, f64::max);
        let gap = inner.iter().map(|p| offset - sign * (p.1 - slope * p.0)).fold(0.0, f64::max);
        self.units.value[side] * gap
    }
}

/// The line through slope(d) d + error at both ends of a range of d, moved to the side of both.
fn chord((l, u): (f64, f64), slope: impl Fn(f64) -> f64, side: f64, error: f64) -> Line {
    let (a, b) = (slope(l), slope(u));
    let chord = if u > l { (b * u - a * l) / (u - l) } else { a };
    let chord = if chord.is_finite() { chord.max(0.0) } else { 0.0 };
    let up = |d: f64, s: f64| sub_up(mul_up(s, d), mul_down(chord, d));
    let down = |d: f64, s: f64| sub_down(mul_down(s, d), mul_up(chord, d));
    let offset =
        if side > 0.0 { add_up(up(l, a).max(up(u, b)), error) } else { add_down(down(l, a).min(down(u, b)), error) };
    Line { slope: chord, offset }
}

/// How much of two coefficients goes to the difference: with c on v and c' on v', t (v' - v) is taken out so that one of them becomes zero.
///
/// 0 where signs are equal or the lines for the difference are worth less than those of each function.
fn share(joint: &Joint, c: f64, c2: f64) -> f64 {
    let useful = if c2 > 0.0 { joint.lower.1 } else { joint.upper.1 };
    if c * c2 < 0.0 && useful { c2.signum() * c.abs().min(c2.abs()) } else { 0.0 }
}

impl Functionals {
    /// Takes what cancels of coefficients on two twins to their arguments, where those on the second have just been taken out.
    ///
    /// # Claim
    /// For every execution that the joints hold of, the functionals do not grow.
    ///
    /// # Why
    /// c v + c' v' = (c + t) v + (c' - t) v' + t (v' - v), and t (v' - v) >= t line(u' - u) with the lower line for t > 0, the upper one for t < 0.
    ///
    /// # Rounding
    /// With units other than 1, the shares of both coefficients are rounded, and so is what is left of each: at most 4 U64 of the magnitudes of
    /// what was there, times the magnitude of the value. A coefficient on an argument is off by at most 3 U64 of itself. The product with the offset is
    /// like all products that are summed.
    pub fn cancel(
        &mut self,
        (twins, differences): (&Twins, &Differences),
        c2: &mut Patch,
        bounds: &[Bounds],
        mut tuned: Option<&mut TwinUse>,
    ) {
        let [first, second] = twins.nodes;
        let Some(c) = self.take(first) else { return };
        let values = [&bounds[first.0], &bounds[second.0]];
        let arguments = twins.arguments.map(|id| &bounds[id.0]);
        let gamma = self.gamma(c2.elements.len());
        let mut sums = Sums::new(self.rows);
        let mut c = Collector::onto(c, values[0].lo.len());
        let mut back = arguments.map(|b| Collector::new(self.rows, b.lo.len()));
        for (i, run2) in c2.runs_mut() {
            let (joint, units) = (&differences.joints[i], &twins.units[i]);
            let useful = joint.lower.1 || joint.upper.1 || tuned.as_ref().is_some_and(|t| t.has_own(i));
            let (true, Some(run)) = (useful, c.find(i)) else { continue };
            let [q, q2] = units.value;
            let [k, k2] = units.argument;
            let weights = [0, 1].map(|n| (4.0 * U64 * values[n].magnitude(i), 3.0 * U64 * arguments[n].magnitude(i)));
            let mut touched = false;
            for (r, (a, b)) in run.iter_mut().zip(run2.iter_mut()).enumerate() {
                let joint = tuned.as_ref().and_then(|t| t.own(i, r)).unwrap_or(joint);
                let t = share(joint, *a / q, *b / q2);
                if t == 0.0 {
                    continue;
                }
                if !touched {
                    touched = true;
                    // Both have a place from here on.
                    back.iter_mut().for_each(|b| {
                        b.at(i);
                    });
                }
                sums.error[r] += (a.abs() + (t * q).abs()) * weights[0].0 + (b.abs() + (t * q2).abs()) * weights[1].0;
                let all_of_second = t.abs() == (*b / q2).abs();
                *a = if t == -(*a / q) { 0.0 } else { *a + t * q };
                *b = if all_of_second { 0.0 } else { *b - t * q2 };
                let line = joint.line(t);
                let (to, to2) = (-(t * line.slope) * k, (t * line.slope) * k2);
                back[0].at(i)[r] += to;
                back[1].at(i)[r] += to2;
                sums.error[r] += to.abs() * weights[0].1 + to2.abs() * weights[1].1;
                sums.sum[r] += t * line.offset;
                sums.error[r] += gamma * (t * line.offset).abs();
                if let Some(tuned) = &mut tuned {
                    tuned.note(i, r, t, all_of_second);
                }
            }
        }
        self.add(&sums);
        self.put(first, c.patch);
        for ((id, back), b) in twins.arguments.into_iter().zip(back).zip(arguments) {
            if !back.patch.elements.is_empty() {
                self.arrive(id, back.patch, b);
            }
        }
    }
}

impl Twins {
    /// u' - u of an element, from its arguments in plain f64.
    pub fn difference(&self, i: usize, x: [f64; 2]) -> f64 {
        let [k, k2] = self.units[i].argument;
        k2 * x[1] - k * x[0]
    }

    /// One value from the other and v' - v in plain f64: the second, or the first.
    pub fn other(&self, i: usize, second: bool, known: f64, difference: f64) -> f64 {
        let [q, q2] = self.units[i].value;
        if second { (q * known + difference) / q2 } else { (q2 * known - difference) / q }
    }

    /// v' - v as it is seen from afar.
    pub fn smooth_difference(&self, net: &Net, i: usize, x: [f64; 2]) -> f64 {
        let context = Context::new(net, self, i);
        let [v, v2] = [0, 1].map(|n| self.units[i].value[n] * context.functions[n].smooth_hint(x[n]));
        v2 - v
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds::{analyse, lower_bounds};
    use crate::net::{Affine, Cut, Dense, LinearMap, Node, Rounding, Spread, Weights, execute_all};
    use crate::num::Dyadic;
    use crate::property::Region;
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    const INPUTS: usize = 4;
    const WIDTH: usize = 5;

    fn add(net: &mut Net, len: usize, op: Op, grid: Grid) -> NodeId {
        let range = net.range_of(&op);
        net.add(Node { name: String::new(), shape: vec![len], op, grid, range, quantization: None })
    }

    fn dense(net: &mut Net, x: NodeId, weights: &[f64], grid: Grid) -> NodeId {
        let n_in = net.node(x).len();
        let bias = Spread::each(weights[..WIDTH].to_vec());
        let weights = Weights::new(weights[WIDTH..][..WIDTH * n_in].to_vec());
        let map = LinearMap::Dense(Dense { outer: 1, n_in, n_out: WIDTH, weights });
        add(net, WIDTH, Op::Affine(Affine { terms: vec![(x, map)], bias, rounding: Rounding::Exact }), grid)
    }

    /// Two nets of three layers on one integer input, the second with weights that are a little off; its functions are those of the
    /// first, or steps.
    fn pair(seed: u64, steps: bool) -> Net {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut net = Net::new();
        let input = add(&mut net, INPUTS, Op::Input(0), Grid::Integer);
        let relu = ScalarFn::Piecewise(Piecewise::relu());
        let grid = 0.25;
        let cuts = (0..400).map(|k| Cut::at(grid * (f64::from(k) + 0.5))).collect();
        let step = ScalarFn::Step(Step::new(cuts, (0..=400).map(|k| grid * f64::from(k)).collect()));
        let (mut a, mut b) = (input, input);
        for _ in 0..3 {
            let n = WIDTH * (1 + net.node(a).len());
            let weights: Vec<f64> = (0..n).map(|_| f64::from(rng.random_range(-16i32..=16)) / 16.0).collect();
            let off: Vec<f64> = weights.iter().map(|w| w + f64::from(rng.random_range(-2i32..=2)) / 64.0).collect();
            let z = dense(&mut net, a, &weights, Grid::Real);
            a = add(
                &mut net,
                WIDTH,
                Op::Pointwise(Pointwise { input: z, functions: Spread::all(relu.clone()) }),
                Grid::Real,
            );
            let z = dense(&mut net, b, &off, Grid::Real);
            let f = if steps { &step } else { &relu };
            b = add(
                &mut net,
                WIDTH,
                Op::Pointwise(Pointwise { input: z, functions: Spread::all(f.clone()) }),
                Grid::Real,
            );
            net.declare_twins(a, b);
        }
        let id = |n: usize| LinearMap::Diagonal { len: WIDTH, scale: Spread::all(if n == 0 { -1.0 } else { 1.0 }) };
        let op = Op::Affine(Affine {
            terms: vec![(a, id(0)), (b, id(1))],
            bias: Spread::all(0.0),
            rounding: Rounding::Exact,
        });
        let output = add(&mut net, WIDTH, op, Grid::Real);
        net.set_outputs(vec![output]);
        net
    }

    /// The least and the largest difference that occurs in each output, and proved bounds on both.
    fn check(seed: u64, steps: bool) -> (f64, f64) {
        let net = pair(seed, steps);
        let mut rng = StdRng::seed_from_u64(!seed);
        let lo: Vec<f64> = (0..INPUTS).map(|_| f64::from(rng.random_range(-3i32..=3))).collect();
        let region = Region { hi: lo.iter().map(|l| l + f64::from(rng.random_range(1i32..=4))).collect(), lo };
        let count = |i: usize| (region.hi[i] - region.lo[i]) as usize + 1;
        let rows: usize = (0..INPUTS).map(count).product();
        let digit = |row: usize, i: usize| row / (0..i).map(count).product::<usize>() % count(i);
        let inputs = (0..rows).flat_map(|row| (0..INPUTS).map(move |i| (row, i)));
        let inputs: Vec<f64> = inputs.map(|(row, i)| region.lo[i] + digit(row, i) as f64).collect();
        // Weights are multiples of 1/64 and values of 1/2^18: plain f64 is exact.
        let all = execute_all(&net, &[inputs], rows);
        let prepared = Prepared::new(&net);
        let analysis = analyse(&prepared, &region).expect("bounds");
        for twins in prepared.twins.iter().flatten() {
            let joints = &analysis.differences[twins.nodes[1].0].as_ref().expect("differences").joints;
            for (k, row) in (0..rows * WIDTH).map(|k| (k, k % WIDTH)) {
                let x = twins.arguments.map(|id| all.value(id).center[k]);
                let (d, joint) = (twins.difference(row, x), joints[row]);
                assert!(joint.range.0 <= d && d <= joint.range.1, "{seed}: {d} in {:?}", joint.range);
                let [v, v2] = twins.nodes.map(|id| all.value(id).center[k]);
                let exact = |x: f64| Dyadic::from_f64(x).expect("a number");
                let at = |l: Line| &(&exact(l.slope) * &exact(d)) + &exact(l.offset);
                let v = exact(v2 - v);
                let inside = (!joint.lower.1 || at(joint.lower.0) <= v) && (!joint.upper.1 || v <= at(joint.upper.0));
                assert!(inside, "{seed}: {joint:?}");
            }
        }
        let output = net.outputs()[0];
        let units: Vec<f64> = (0..2 * WIDTH * WIDTH)
            .map(|k| if k / WIDTH / 2 == k % WIDTH { [1.0, -1.0][k / WIDTH % 2] } else { 0.0 })
            .collect();
        let bounds = lower_bounds(&prepared, &analysis, output, units, 2 * WIDTH);
        let (mut attained, mut proved) = (0.0, 0.0);
        for i in 0..WIDTH {
            let values = || (0..rows).map(|row| all.value(output).center[row * WIDTH + i]);
            let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
            assert!(bounds[2 * i] <= least && most <= -bounds[2 * i + 1], "{seed}");
            attained += most - least;
            proved += -bounds[2 * i + 1] - bounds[2 * i];
        }
        (attained, proved)
    }

    proptest! {
        #[test]
        fn bounds_hold_for_two_relu_nets(seed in any::<u64>()) {
            check(seed, false);
        }

        #[test]
        fn bounds_hold_for_a_relu_net_and_steps(seed in any::<u64>()) {
            check(seed, true);
        }
    }

    #[test]
    fn differences_are_bounded_far_better_than_each_net() {
        let ratio = |steps: bool| {
            let sums = (0..20).map(|seed| check(seed, steps)).fold((0.0, 0.0), |s, c| (s.0 + c.0, s.1 + c.1));
            sums.1 / sums.0
        };
        let (relus, steps) = (ratio(false), ratio(true));
        assert!(relus < 4.0 && steps < 4.0, "{relus} {steps}");
    }
}
