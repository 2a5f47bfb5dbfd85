//! What the bits of each layer cost at most, whatever the bits of the others are: a certified model for the exact search.
//!
//! From the original to a quantized network one layer is exchanged after the other, the last first. Each exchange changes the layer's results on the original's
//! values, which are bounded, by what its weights change; the layers behind it, at any bits, pass that on at most by the magnitudes of their weights. The sum
//! over the layers bounds the difference of both networks.

use std::time::Instant;

use super::{Place, RefineError, Task};
use crate::bounds::{Bounds, Prepared, analyse_until};
use crate::model::lower::Lowered;
use crate::net::{
    Affine, Conv, Dense, From, LinearMap, Net, NodeId, Op, Rounding, ScalarFn, Sign, Spread, Weights, slack_bound,
};
use crate::num::round::{add_up, inflate, sub_up};
use crate::property::Region;
use crate::property::equivalence::{Norm, Relation};
use crate::quantize::scheme::BITS;
use crate::quantize::search::{Sensitivity, Space};
use crate::verify::{Options, Verifier};

/// What is allowed to be lost, of 1; the rest covers that classes must not even be equal.
const SLACK: f64 = 1.0 - 9.5367431640625e-7;
/// Covers the rounding of sums of fewer than 2^30 non-negative terms.
const ROUNDED: f64 = 1.0 + 9.5367431640625e-7;

/// Sums of changes of outputs that must not exceed a bound: (outputs, bound).
type Target = (Vec<usize>, f64);

/// A certified model of what bits cost on all places of a task, if one can be made.
///
/// # Claim
/// If the costs of a vector sum up to at most the slack, the relation holds between the original and the network with these bits on every place.
///
/// # Why
/// Let F_k be the network whose last k layers are quantized. F_(k+1) and F_k differ in one layer, which in both reads what the original gives it; so its result
/// differs by at most |dW x + db|, and what follows by at most the product of the magnitudes of the weights (functions with slopes of at most 1 pass
/// differences on). Rounding moves either network by at most what its slack says of magnitudes, passed on likewise. Each output of both then
/// differs by at most the sum of all, and a relation holds where the sums of these for each of its targets stay below the target's bound; costs are shares of
/// these bounds.
///
/// # Errors
/// If a network cannot be made.
pub(super) fn sensitivities(
    task: &Task<'_>,
    space: &Space,
    options: &Options,
) -> Result<Option<Sensitivity>, RefineError> {
    let targets = |place: &Place| targets(task, &place.region, place.center.as_deref(), options);
    let Some(targets) = task.places.iter().map(targets).collect::<Result<Option<Vec<_>>, _>>()? else {
        return Ok(None);
    };
    let Some(family) = Family::new(task, space)? else { return Ok(None) };
    let prepared = Prepared::new(family.original);
    let deadline = Instant::now().checked_add(options.timeout);
    let mut costs: Vec<Vec<f64>> = (0..space.layers()).map(|l| vec![0.0; space.widths(l).len()]).collect();
    let mut rounding = 0.0f64;
    for (place, targets) in task.places.iter().zip(&targets) {
        let Some(bounds) = analyse_until(&prepared, &place.region, deadline).map(|a| a.bounds) else { return Ok(None) };
        let share = |change: &[f64]| {
            let of = |(outputs, bound): &Target| outputs.iter().map(|o| change[*o]).sum::<f64>() * ROUNDED / bound;
            targets.iter().map(of).fold(0.0, f64::max) * ROUNDED
        };
        let Some(roundings) = family.roundings(&bounds) else { return Ok(None) };
        rounding = rounding.max(2.0 * share(&roundings[family.original.outputs()[0].0]));
        let exact = Exact { bounds: &bounds, roundings: &roundings };
        for (layer, costs) in costs.iter_mut().enumerate() {
            for (k, bits) in space.widths(layer).enumerate() {
                let Some(change) = family.change(layer, bits, exact) else { return Ok(None) };
                costs[k] = costs[k].max(share(&change));
            }
        }
    }
    Ok(Sensitivity::new(space, SLACK - rounding, costs).ok())
}

/// What must not be exceeded for a relation to hold; nothing if no difference is small enough or the relation is another.
fn targets(
    task: &Task<'_>,
    region: &Region,
    center: Option<&[f64]>,
    options: &Options,
) -> Result<Option<Vec<Target>>, RefineError> {
    let net = &task.original.net;
    let outputs = net.node(net.outputs()[0]).len();
    let pairs = || (0..outputs).flat_map(|i| (0..i).map(move |j| vec![j, i]));
    let found: Vec<Target> = match &task.relation {
        Relation::Epsilon { norm: Norm::LInf, epsilon } => {
            (0..outputs).map(|o| (vec![o], epsilon.f64_down())).collect()
        }
        Relation::Top1Beyond(margin) => pairs().map(|p| (p, margin.f64_down())).collect(),
        Relation::Top1 => {
            let middle: Vec<f64> = region.lo.iter().zip(&region.hi).map(|(l, h)| l / 2.0 + h / 2.0).collect();
            let y = &crate::net::execute(net, &[center.unwrap_or(&middle).to_vec()], 1)[0].center;
            let class = (0..outputs).fold(0, |best, i| if y[i] > y[best] { i } else { best });
            let others: Vec<usize> = (0..outputs).filter(|o| *o != class).collect();
            let leads: Vec<Vec<(usize, f64)>> = others.iter().map(|o| vec![(class, 1.0), (*o, -1.0)]).collect();
            let found = Verifier::new(&task.original)?.enclose(region, &leads, options)?;
            others.iter().zip(found).map(|(o, lead)| (vec![class, *o], lead.0)).collect()
        }
        Relation::Strict | Relation::TopK(_) | Relation::Epsilon { norm: Norm::L1 | Norm::L2, .. } => return Ok(None),
    };
    Ok(found.iter().all(|t| t.1 > 0.0).then_some(found))
}

/// What is known of the values that exact arithmetic gives the original.
#[derive(Clone, Copy)]
struct Exact<'e> {
    bounds: &'e [Bounds],
    roundings: &'e [Vec<f64>],
}

impl Exact<'_> {
    /// Bounds on a value: those of its executions, further apart by what rounding can do.
    fn of(&self, id: NodeId) -> Bounds {
        let (x, moved) = (&self.bounds[id.0], &self.roundings[id.0]);
        let down = |(l, m): (&f64, &f64)| -add_up(-l, *m);
        let up = |(h, m): (&f64, &f64)| add_up(*h, *m);
        Bounds { lo: x.lo.iter().zip(moved).map(down).collect(), hi: x.hi.iter().zip(moved).map(up).collect() }
    }
}

/// The original and the networks at all bits, node by node.
struct Family<'f> {
    original: &'f Net,
    /// By width from the least on: the network with this width in every layer.
    uniform: Vec<Lowered>,
    least: u8,
    /// The nodes that each layer's bits change.
    groups: Vec<Vec<usize>>,
    /// For each affine node weights and biases whose magnitudes are those of no network exceeded by.
    most: Vec<Option<Affine>>,
}

impl<'f> Family<'f> {
    /// Nothing where the networks do not correspond node by node, or contain a function that is steeper than 1.
    fn new(task: &'f Task<'f>, space: &Space) -> Result<Option<Self>, RefineError> {
        let original = &task.original.net;
        let layers = 0..space.layers();
        let least = layers.clone().map(|l| *space.widths(l).start()).min().unwrap_or(BITS.0);
        let most = layers.clone().map(|l| *space.widths(l).end()).max().unwrap_or(BITS.1);
        let uniform =
            (least..=most).map(|b| task.lowered(&vec![b; space.layers()])).collect::<Result<Vec<Lowered>, _>>()?;
        if !is_gentle(original) || !uniform.iter().all(|u| are_alike(original, &u.net)) {
            return Ok(None);
        }
        // Which nodes a layer changes is seen where it alone has other bits.
        let mut groups = vec![];
        let last = &uniform[uniform.len() - 1].net;
        for layer in layers {
            let mut bits = vec![most; space.layers()];
            bits[layer] = least;
            let one = task.lowered(&bits)?;
            if !are_alike(original, &one.net) {
                return Ok(None);
            }
            groups.push((0..last.nodes().len()).filter(|&id| differ(last, &one.net, id)).collect::<Vec<usize>>());
        }
        let is_known = |id: &usize| groups.iter().filter(|g| g.contains(id)).count() == 1;
        let changed = |u: &Lowered| {
            (0..original.nodes().len()).filter(|&id| differ(original, &u.net, id)).all(|id| is_known(&id))
        };
        if !uniform.iter().all(changed) {
            return Ok(None);
        }
        let most: Vec<Option<Affine>> = (0..original.nodes().len()).map(|id| largest(original, &uniform, id)).collect();
        let is_affine = |id: &usize| matches!(original.nodes()[*id].op, Op::Affine(_));
        if (0..most.len()).filter(is_affine).any(|id| most[id].is_none()) {
            return Ok(None);
        }
        Ok(Some(Family { original, uniform, least, groups, most }))
    }

    /// How far each output can be moved by a layer at some bits.
    fn change(&self, layer: usize, bits: u8, values: Exact<'_>) -> Option<Vec<f64>> {
        let net = &self.uniform[usize::from(bits - self.least)].net;
        let mut all = vec![0.0; self.original.node(self.original.outputs()[0]).len()];
        for &id in &self.groups[layer] {
            let (Op::Affine(a), Op::Affine(b)) = (&self.original.nodes()[id].op, &net.nodes()[id].op) else {
                return None;
            };
            let moved = self.pass(id, exchanged(a, b, values)?)?;
            all.iter_mut().zip(moved).for_each(|(a, m)| *a = add_up(*a, m));
        }
        Some(all)
    }

    /// How far rounding can move each value of any of the networks from what exact arithmetic gives.
    fn roundings(&self, bounds: &[Bounds]) -> Option<Vec<Vec<f64>>> {
        let (mut magnitudes, mut moved): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (vec![], vec![]);
        for (id, node) in self.original.nodes().iter().enumerate() {
            let (of, off) = (|x: NodeId| Some(&magnitudes[x.0]), |x: NodeId| Some(&moved[x.0]));
            let (magnitude, move_) = match (&node.op, &self.most[id]) {
                (Op::Affine(_), Some(most)) => {
                    let mut y: Vec<f64> = (0..node.len()).map(|i| most.bias.at(i).abs()).collect();
                    let mut passed = vec![0.0; node.len()];
                    for (x, map) in &most.terms {
                        map.apply(Sign::Absolute, of(*x)?, 1, &mut y, true);
                        map.apply(Sign::Absolute, off(*x)?, 1, &mut passed, true);
                    }
                    let lost = |(i, m): (usize, &f64)| slack_bound(&most.rounding, i, m * ROUNDED) * ROUNDED;
                    let lost: Vec<f64> = y.iter().enumerate().map(lost).collect();
                    let sum = |(m, lost): (&f64, &f64)| m * ROUNDED + lost;
                    (y.iter().zip(&lost).map(sum).collect(), passed.iter().zip(&lost).map(sum).collect())
                }
                // A function's value is at most as far from its value at 0 as its argument is from 0.
                (Op::Pointwise(p), _) => {
                    let at =
                        |i: usize| p.functions.at(i).value_up(0.0).abs().max(p.functions.at(i).value_down(0.0).abs());
                    (of(p.input)?.iter().enumerate().map(|(i, m)| add_up(*m, at(i))).collect(), off(p.input)?.clone())
                }
                (Op::Input(_), _) => {
                    ((0..node.len()).map(|i| bounds[id].magnitude(i)).collect(), vec![0.0; node.len()])
                }
                (op, _) => (carried(op, &of, true)?, carried(op, &off, false)?),
            };
            magnitudes.push(finite(magnitude)?);
            moved.push(finite(move_)?);
        }
        Some(moved)
    }

    /// How far the outputs of any of the networks are moved if the value of a node is moved by so much.
    ///
    /// # Rounding
    /// All terms are non-negative; the sum is widened for all roundings.
    fn pass(&self, from: usize, change: Vec<f64>) -> Option<Vec<f64>> {
        let net = self.original;
        let output = net.outputs()[0];
        let mut changes: Vec<Option<Vec<f64>>> = vec![None; net.nodes().len()];
        changes[from] = Some(change);
        for id in from + 1..net.nodes().len() {
            let node = &net.nodes()[id];
            if !node.arguments().iter().any(|x| changes[x.0].is_some()) {
                continue;
            }
            let of = |x: NodeId| changes[x.0].as_ref();
            let next = match (&node.op, &self.most[id]) {
                (Op::Affine(_), Some(most)) => {
                    let mut y = vec![0.0; node.len()];
                    for (x, map) in &most.terms {
                        of(*x).into_iter().for_each(|c| map.apply(Sign::Absolute, c, 1, &mut y, true));
                    }
                    y
                }
                (Op::Pointwise(p), _) => of(p.input)?.clone(),
                (op, _) => carried(op, &of, false)?,
            };
            changes[id] = Some(finite(next)?);
        }
        let zeros = || vec![0.0; net.node(output).len()];
        Some(changes[output.0].take().unwrap_or_else(zeros).into_iter().map(|c| c * ROUNDED).collect())
    }
}

/// Numbers, if they all are finite: a maximum would pass over what is no number.
fn finite(numbers: Vec<f64>) -> Option<Vec<f64>> {
    numbers.iter().all(|x| x.is_finite()).then_some(numbers)
}

/// What maxima and index maps make of changes, or of magnitudes.
fn carried<'c>(op: &Op, of: &dyn Fn(NodeId) -> Option<&'c Vec<f64>>, constants: bool) -> Option<Vec<f64>> {
    match op {
        Op::Max(m) => {
            let x = of(m.input)?;
            Some(
                (0..m.starts.len() - 1)
                    .map(|i| m.window(i).iter().map(|&j| x[j as usize]).fold(0.0, f64::max))
                    .collect(),
            )
        }
        Op::Move(m) => {
            let element = |from: &From| match from {
                From::Element { source, index } => of(m.sources[*source as usize]).map_or(0.0, |x| x[*index as usize]),
                From::Constant(k) => {
                    if constants {
                        k.abs()
                    } else {
                        0.0
                    }
                }
            };
            Some(m.from.iter().map(element).collect())
        }
        Op::Input(_) | Op::Affine(_) | Op::Pointwise(_) => None,
    }
}

/// Whether differences do not grow in any function.
fn is_gentle(net: &Net) -> bool {
    let gentle = |f: &ScalarFn| matches!(f, ScalarFn::Piecewise(p) if p.left <= 1.0 && p.right <= 1.0);
    net.nodes().iter().all(|node| match &node.op {
        Op::Pointwise(p) => p.functions.data.iter().all(gentle),
        Op::Input(_) | Op::Affine(_) | Op::Max(_) | Op::Move(_) => true,
    })
}

/// Whether two nets differ in nothing but weights and biases.
fn are_alike(a: &Net, b: &Net) -> bool {
    let alike = |a: &Op, b: &Op| match (a, b) {
        (Op::Input(i), Op::Input(j)) => i == j,
        (Op::Pointwise(p), Op::Pointwise(q)) => {
            p.input == q.input && p.functions.data == q.functions.data && p.functions.inner == q.functions.inner
        }
        (Op::Max(m), Op::Max(n)) => m.input == n.input && m.starts == n.starts && m.members == n.members,
        (Op::Move(m), Op::Move(n)) => m.sources == n.sources && m.from == n.from,
        (Op::Affine(x), Op::Affine(y)) => {
            x.terms.len() == y.terms.len()
                && x.terms.iter().zip(&y.terms).all(|(s, t)| s.0 == t.0 && is_same_form(&s.1, &t.1))
                && (x.bias.data.len(), x.bias.inner) == (y.bias.data.len(), y.bias.inner)
        }
        _ => false,
    };
    a.outputs() == b.outputs()
        && a.nodes().len() == b.nodes().len()
        && a.nodes().iter().zip(b.nodes()).all(|(x, y)| x.len() == y.len() && alike(&x.op, &y.op))
}

fn is_same_form(a: &LinearMap, b: &LinearMap) -> bool {
    match (a, b) {
        (LinearMap::Dense(x), LinearMap::Dense(y)) => (x.outer, x.n_in, x.n_out) == (y.outer, y.n_in, y.n_out),
        (LinearMap::Conv(x), LinearMap::Conv(y)) => x.geometry == y.geometry,
        (LinearMap::Diagonal { len, scale }, LinearMap::Diagonal { len: n, scale: s }) => {
            len == n && scale.data.len() == s.data.len() && scale.inner == s.inner
        }
        _ => false,
    }
}

/// Whether the weights or biases of two nets that are alike differ in a node.
fn differ(a: &Net, b: &Net, id: usize) -> bool {
    let (Op::Affine(x), Op::Affine(y)) = (&a.nodes()[id].op, &b.nodes()[id].op) else { return false };
    x.bias.data != y.bias.data || x.terms.iter().zip(&y.terms).any(|(s, t)| s.1.weights() != t.1.weights())
}

fn with_weights(map: &LinearMap, weights: Vec<f64>) -> LinearMap {
    match map {
        LinearMap::Dense(d) => LinearMap::Dense(Dense { weights: Weights::new(weights), ..d.clone() }),
        LinearMap::Conv(c) => LinearMap::Conv(Conv { weights: Weights::new(weights), ..c.clone() }),
        LinearMap::Diagonal { len, scale } => {
            LinearMap::Diagonal { len: *len, scale: Spread { data: weights, inner: scale.inner } }
        }
    }
}

/// An affine node whose weights, biases and slack are at least those of every network in magnitude.
fn largest(original: &Net, uniform: &[Lowered], id: usize) -> Option<Affine> {
    let Op::Affine(a) = &original.nodes()[id].op else { return None };
    let mut most = a.clone();
    for other in uniform {
        let Op::Affine(b) = &other.net.nodes()[id].op else { return None };
        let larger = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x.abs().max(y.abs())).collect::<Vec<f64>>();
        for ((_, map), (_, own)) in most.terms.iter_mut().zip(&b.terms) {
            *map = with_weights(map, larger(map.weights(), own.weights()));
        }
        most.bias = Spread { data: larger(&most.bias.data, &b.bias.data), inner: most.bias.inner };
        most.rounding = larger_rounding(&most.rounding, &b.rounding)?;
    }
    Some(most)
}

fn larger_rounding(a: &Rounding, b: &Rounding) -> Option<Rounding> {
    match (a, b) {
        (Rounding::Exact, Rounding::Exact) => Some(Rounding::Exact),
        (Rounding::Slack { relative, absolute }, Rounding::Slack { relative: other, absolute: others }) => {
            let is_same = (absolute.data.len(), absolute.inner) == (others.data.len(), others.inner);
            let data = absolute.data.iter().zip(&others.data).map(|(x, y)| x.max(*y)).collect();
            let absolute = Spread { data, inner: absolute.inner };
            is_same.then_some(Rounding::Slack { relative: relative.max(*other), absolute })
        }
        _ => None,
    }
}

/// How far the result of an affine node is moved by other weights and biases, where it reads values within bounds: |dW x + db| by intervals.
///
/// # Rounding
/// Differences of weights are rounded once, and so are products with middles: both are covered by the magnitudes of all terms.
fn exchanged(a: &Affine, b: &Affine, values: Exact<'_>) -> Option<Vec<f64>> {
    let n = a.terms.first()?.1.outputs();
    let minus = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| y - x).collect::<Vec<f64>>();
    let bias = Spread { data: minus(&a.bias.data, &b.bias.data), inner: a.bias.inner };
    let mut middle: Vec<f64> = (0..n).map(|i| *bias.at(i)).collect();
    let mut size: Vec<f64> = (0..n).map(|i| a.bias.at(i).abs() + b.bias.at(i).abs()).collect();
    let mut spread = vec![0.0; n];
    let mut products = 4;
    for ((x, map), (_, own)) in a.terms.iter().zip(&b.terms) {
        let x = values.of(*x);
        let change = with_weights(map, minus(map.weights(), own.weights()));
        let center: Vec<f64> = x.lo.iter().zip(&x.hi).map(|(l, h)| l / 2.0 + h / 2.0).collect();
        let radius: Vec<f64> =
            center.iter().zip(x.lo.iter().zip(&x.hi)).map(|(c, (l, h))| sub_up(*h, *c).max(sub_up(*c, *l))).collect();
        let magnitude: Vec<f64> = (0..x.lo.len()).map(|j| x.magnitude(j)).collect();
        change.apply(Sign::Signed, &center, 1, &mut middle, true);
        change.apply(Sign::Absolute, &radius, 1, &mut spread, true);
        map.apply(Sign::Absolute, &magnitude, 1, &mut size, true);
        own.apply(Sign::Absolute, &magnitude, 1, &mut size, true);
        products += 2 * map.fan_in() + 4;
    }
    let relative = crate::num::round::gamma64(products);
    let moved = |i: usize| inflate(middle[i].abs() + spread[i] + 2.0 * relative * size[i], products);
    finite((0..n).map(moved).collect())
}
