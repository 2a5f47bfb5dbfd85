//! The difference of two functions whose arguments differ little, as in a network and its quantization on the same input.
//!
//! The values of both functions, bounded apart, may each be anything between their lines; their difference may not. In real units, with the arguments
//! u, u' and the values v, v' of two twins (see [`crate::net::Net::declare_twins`]), v' - v lies between two lines of u' - u (and, if one of the functions is
//! clipped where the other is not, of one of the arguments). A backward pass
//! that arrives with coefficients of opposite signs on v and v' carries as much of them as cancels on v' - v, and only the rest on each alone.
//!
//! # Source
//! Paulsen, Wang, Wang, ReluDiff (ICSE 2020), and Zhang, Song, Sun, QEBVerif (CAV 2023), for bounds on differences neuron by neuron; here they are one
//! more relaxation of the backward pass on a net that holds both networks, so that nothing has to be aligned but functions.

mod joint;

use rayon::prelude::*;

use super::backward::{self, Collector, Functionals, Sums};
use super::tuned::TwinUse;
use super::{Analysis, Bounds, NoBounds, Prepared, Until};
use crate::net::{Net, NodeId, Op, Patch, Pointwise, ScalarFn, Step};
use crate::num::round::{U64, mul_down, mul_up, sub_down, sub_up};
pub(crate) use joint::Joint;
use joint::{Context, Units};

/// Two pointwise nodes whose arguments are expected to differ little.
#[derive(Debug)]
pub(crate) struct Twins {
    pub nodes: [NodeId; 2],
    pub arguments: [NodeId; 2],
    /// What 1 is worth in both, by element.
    units: Vec<Units>,
}

/// Bounds on the differences of the values of two twins.
pub(crate) struct TwinRanges {
    pub nodes: [NodeId; 2],
    /// What 1 is worth in both values, by element.
    pub units: Vec<[f64; 2]>,
    /// Bounds on the second value less the first one, in these units.
    pub ranges: Vec<(f64, f64)>,
}

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

/// The slope of the line from the middle of a step's first jump to that of its last; a hint.
fn mean_slope(s: &Step) -> f64 {
    let (cuts, values) = (s.cuts(), s.values());
    let [first, .., last] = cuts else { return 1.0 };
    let middle = |k: usize| values[k] / 2.0 + values[k + 1] / 2.0;
    let slope = (middle(values.len() - 2) - middle(0)) / (last.at - first.at);
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
    let context: Vec<Context> = (0..twins.units.len()).map(|i| twins.context(net, i)).collect();
    let nothing = Joint::nothing((f64::NEG_INFINITY, f64::INFINITY));
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

impl Functionals {
    /// Takes what cancels of coefficients on two twins to their arguments, where those on the second have just been taken out.
    ///
    /// # Claim
    /// For every execution that the joints hold of, the functionals do not grow.
    ///
    /// # Why
    /// c v + c' v' = (c + t) v + (c' - t) v' + t (v' - v), and t (v' - v) is at least t times the lower bound for t > 0, the upper one for t < 0.
    ///
    /// # Rounding
    /// With units other than 1, the shares of both coefficients are rounded, and so is what is left of each: at most 4 U64 of the magnitudes of
    /// what was there, times the magnitude of the value. A coefficient on an argument is off by at most 3 U64 of
    /// itself, or of the two products that it sums. The product with the offset is like all products that are summed.
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
            let useful = joint.lower.is_useful
                || joint.upper.is_useful
                || tuned.as_ref().is_some_and(|t| t.is_free() || t.has_own(i));
            let (true, Some(run)) = (useful, c.find(i)) else { continue };
            let [q, q2] = units.value;
            let [k, k2] = units.argument;
            let weights = [0, 1].map(|n| (4.0 * U64 * values[n].magnitude(i), 3.0 * U64 * arguments[n].magnitude(i)));
            let mut touched = false;
            for (r, (a, b)) in run.iter_mut().zip(run2.iter_mut()).enumerate() {
                let joint = *tuned.as_ref().and_then(|t| t.own(i, r)).unwrap_or(joint);
                let (of_first, of_second) = (*a / q, *b / q2);
                let t = match &mut tuned {
                    Some(tuned) => tuned.take(i, r, &joint, [of_first, of_second]),
                    None => joint.share(of_first, of_second),
                };
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
                *a = if t == -of_first { 0.0 } else { *a + t * q };
                *b = if t == of_second { 0.0 } else { *b - t * q2 };
                let plane = joint.plane(t);
                let own = (t * plane.beside) * units.argument[joint.beside];
                let along = [-(t * plane.slope) * k, (t * plane.slope) * k2];
                for n in [0, 1] {
                    let own = if n == joint.beside { own } else { 0.0 };
                    back[n].at(i)[r] += along[n] + own;
                    sums.error[r] += (along[n].abs() + own.abs()) * weights[n].1;
                }
                sums.sum[r] += t * plane.offset;
                sums.error[r] += gamma * (t * plane.offset).abs();
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

impl Prepared<'_> {
    /// Whether differences of functions are bounded for which a checker has no rule: it knows a continuous first one, and the same or steps as the second.
    pub(crate) fn compares_unlike(&self) -> bool {
        let all = |id: NodeId, known: fn(&ScalarFn) -> bool| match &self.net.node(id).op {
            Op::Pointwise(p) => p.functions.data.iter().all(known),
            Op::Input(_) | Op::Affine(_) | Op::Max(_) | Op::Move(_) => false,
        };
        let is_known = |[first, second]: [NodeId; 2]| {
            all(first, ScalarFn::is_continuous) && all(second, |f| !matches!(f, ScalarFn::Band(_)))
        };
        self.twins.iter().flatten().any(|twins| !is_known(twins.nodes))
    }

    /// Bounds on the differences of all twins, in the order of the net.
    ///
    /// # Claim
    /// For every execution that the analysis's bounds hold of, each difference is within its range.
    ///
    /// # Rounding
    /// Outward.
    pub(crate) fn twin_ranges(&self, analysis: &Analysis) -> Vec<TwinRanges> {
        let of = |twins: &Twins| {
            let joints = &analysis.differences[twins.nodes[1].0].as_ref()?.joints;
            let scaled = |(lo, hi): (f64, f64), k: f64| (mul_down(k, lo), mul_up(k, hi));
            let within =
                |id: NodeId, i: usize, k: f64| scaled((analysis.bounds[id.0].lo[i], analysis.bounds[id.0].hi[i]), k);
            let range = |(i, joint): (usize, &Joint)| {
                let Units { argument, value, .. } = twins.units[i];
                let [v, w] = [0, 1].map(|n| within(twins.nodes[n], i, value[n]));
                let apart = (sub_down(w.0, v.1), sub_up(w.1, v.0));
                let found = joint.value_range([0, 1].map(|n| within(twins.arguments[n], i, argument[n])));
                // What is no number is no bound.
                (if found.0 > apart.0 { found.0 } else { apart.0 }, if found.1 < apart.1 { found.1 } else { apart.1 })
            };
            let ranges = joints.iter().enumerate().map(range).collect();
            Some(TwinRanges { nodes: twins.nodes, units: twins.units.iter().map(|u| u.value).collect(), ranges })
        };
        self.twins.iter().flatten().filter_map(of).collect()
    }
}

impl Twins {
    /// What is known about an element, from bounds on both arguments and on their difference (see [`Context::joint`]).
    pub fn joint(&self, net: &Net, i: usize, bounds: [(f64, f64); 2], found: (f64, f64)) -> Joint {
        self.context(net, i).joint(bounds, found)
    }

    fn context<'c>(&self, net: &'c Net, i: usize) -> Context<'c> {
        let function = |id: NodeId| match &net.node(id).op {
            Op::Pointwise(p) => p.functions.at(i),
            Op::Input(_) | Op::Affine(_) | Op::Max(_) | Op::Move(_) => unreachable!("twins are pointwise"),
        };
        let grids = self.arguments.map(|id| net.node(id).grid);
        Context { functions: self.nodes.map(function), grids, units: self.units[i] }
    }

    /// A bound on v' - v for a coefficient of a sign, at arguments, in plain f64.
    pub fn bound_at(&self, i: usize, joint: &Joint, coefficient: f64, x: [f64; 2]) -> f64 {
        let (u, plane) = ([0, 1].map(|n| self.units[i].argument[n] * x[n]), joint.plane(coefficient));
        plane.slope * (u[1] - u[0]) + plane.beside * u[joint.beside] + plane.offset
    }

    /// What 1 is worth in the values of both functions.
    pub fn value_units(&self, i: usize) -> [f64; 2] {
        self.units[i].value
    }

    /// One value from the other and v' - v in plain f64: the second, or the first.
    pub fn other(&self, i: usize, second: bool, known: f64, difference: f64) -> f64 {
        let [q, q2] = self.units[i].value;
        if second { (q * known + difference) / q2 } else { (q2 * known - difference) / q }
    }

    /// v' - v as it is seen from afar.
    pub fn smooth_difference(&self, net: &Net, i: usize, x: [f64; 2]) -> f64 {
        let context = self.context(net, i);
        let [v, v2] = [0, 1].map(|n| self.units[i].value[n] * context.functions[n].smooth_hint(x[n]));
        v2 - v
    }
}

#[cfg(test)]
mod tests {
    use super::joint::Plane;
    use super::*;
    use crate::bounds::{analyse, lower_bounds};
    use crate::net::{Affine, Cut, Dense, Grid, LinearMap, Node, Piecewise, Rounding, Spread, Weights, execute_all};
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

    /// A function of both networks: a ReLU, or a step with so many jumps.
    type Kind = Option<u32>;

    const GRID: f64 = 0.25;

    fn function(kind: Kind) -> ScalarFn {
        let Some(jumps) = kind else { return ScalarFn::Piecewise(Piecewise::relu()) };
        let cuts = (0..jumps).map(|k| Cut::at(GRID * (f64::from(k) + 0.5))).collect();
        ScalarFn::Step(Step::new(cuts, (0..=jumps).map(|k| GRID * f64::from(k)).collect()))
    }

    /// Two nets of three layers on one integer input, the second with weights that are a little off.
    fn pair(seed: u64, kinds: [Kind; 2]) -> Net {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut net = Net::new();
        let input = add(&mut net, INPUTS, Op::Input(0), Grid::Integer);
        let (mut a, mut b) = (input, input);
        for _ in 0..3 {
            let n = WIDTH * (1 + net.node(a).len());
            let weights: Vec<f64> = (0..n).map(|_| f64::from(rng.random_range(-16i32..=16)) / 16.0).collect();
            let off: Vec<f64> = weights.iter().map(|w| w + f64::from(rng.random_range(-2i32..=2)) / 64.0).collect();
            for (x, weights, kind) in [(&mut a, weights, kinds[0]), (&mut b, off, kinds[1])] {
                let input = dense(&mut net, *x, &weights, Grid::Real);
                let op = Op::Pointwise(Pointwise { input, functions: Spread::all(function(kind)) });
                *x = add(&mut net, WIDTH, op, Grid::Real);
            }
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
    fn check(seed: u64, kinds: [Kind; 2]) -> (f64, f64) {
        let net = pair(seed, kinds);
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
                let u = [0, 1].map(|n| twins.units[row].argument[n] * x[n]);
                let (d, joint) = (u[1] - u[0], joints[row]);
                assert!(joint.range.0 <= d && d <= joint.range.1, "{seed}: {d} in {:?}", joint.range);
                let [v, v2] = twins.nodes.map(|id| all.value(id).center[k]);
                let exact = |x: f64| Dyadic::from_f64(x).expect("a number");
                let beside = exact(u[joint.beside]);
                let at =
                    |p: Plane| &(&(&exact(p.slope) * &exact(d)) + &(&exact(p.beside) * &beside)) + &exact(p.offset);
                let v = exact(v2 - v);
                let is_below = !joint.lower.is_useful || at(joint.lower) <= v;
                let inside = is_below && (!joint.upper.is_useful || v <= at(joint.upper));
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
            check(seed, [None, None]);
        }

        #[test]
        fn bounds_hold_for_a_relu_net_and_steps(seed in any::<u64>(), jumps in 4u32..40, steps_first in any::<bool>()) {
            check(seed, if steps_first { [Some(jumps), None] } else { [None, Some(jumps)] });
        }

        #[test]
        fn bounds_hold_for_two_nets_of_steps(seed in any::<u64>(), jumps in 4u32..40, other in 4u32..40) {
            check(seed, [Some(jumps), Some(other)]);
        }
    }

    #[test]
    fn differences_are_bounded_far_better_than_each_net() {
        let ratio = |kinds: [Kind; 2]| {
            let sums = (0..20).map(|seed| check(seed, kinds)).fold((0.0, 0.0), |s, c| (s.0 + c.0, s.1 + c.1));
            sums.1 / sums.0
        };
        let kinds = [[None, None], [None, Some(400)], [None, Some(12)], [Some(12), None], [Some(12), Some(16)]];
        let ratios = kinds.map(ratio);
        // Two steps round twice.
        assert!(ratios[..4].iter().all(|r| *r < 4.0) && ratios[4] < 8.0, "{ratios:?}");
    }
}
