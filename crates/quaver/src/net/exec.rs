//! Execution of a batch, rigorously: a reference value for each element and a radius that holds every value a runtime
//! may compute. Integer networks have no radius at all: the result is exact.

use rayon::prelude::*;

use super::{Affine, ExactIn, From, Grid, LinearMap, Move, Net, NodeId, Op, Pointwise, Rounding, ScalarFn, Sign};
use crate::num::round::{self, U32, add_up, gamma64, inflate, sub_down, sub_up};

/// Values of one tensor for a batch of rows: `center` within `radius` (absent: exact).
#[derive(Clone, Debug, PartialEq)]
pub struct Enclosure {
    /// Row-major.
    pub center: Vec<f64>,
    /// Same length, not negative.
    pub radius: Option<Vec<f64>>,
}

impl Enclosure {
    /// Exact values.
    pub fn exact(center: Vec<f64>) -> Self {
        Enclosure { center, radius: None }
    }

    /// Smallest possible value of element i.
    pub fn lo(&self, i: usize) -> f64 {
        self.radius.as_ref().map_or(self.center[i], |r| sub_down(self.center[i], r[i]))
    }

    /// Largest possible value of element i.
    pub fn hi(&self, i: usize) -> f64 {
        self.radius.as_ref().map_or(self.center[i], |r| add_up(self.center[i], r[i]))
    }

    /// One of some rows.
    pub fn row(&self, row: usize, rows: usize) -> Enclosure {
        let n = self.center.len() / rows;
        let part = |of: &Vec<f64>| of[row * n..(row + 1) * n].to_vec();
        Enclosure { center: part(&self.center), radius: self.radius.as_ref().map(part) }
    }

    /// The middle of bounds (halves of integers where they are neighbours), or the bounds' one value.
    pub(crate) fn between(bounds: impl Iterator<Item = (f64, f64)> + Clone) -> Self {
        let center = bounds.clone().map(|(lo, hi)| lo + (hi - lo) / 2.0).collect();
        Enclosure::from_bounds(center, bounds)
    }

    /// From bounds and a reference between them.
    pub(crate) fn from_bounds(center: Vec<f64>, bounds: impl Iterator<Item = (f64, f64)>) -> Self {
        let mut any = false;
        let radius: Vec<f64> = bounds
            .zip(&center)
            .map(|((lo, hi), c)| {
                let r = sub_up(hi, *c).max(sub_up(*c, lo));
                any |= r > 0.0;
                r
            })
            .collect();
        Enclosure { center, radius: any.then_some(radius) }
    }
}

/// The values that were kept of an execution, by node.
#[derive(Clone, Debug)]
pub struct Execution {
    /// Rows in the batch.
    pub rows: usize,
    values: Vec<Option<Enclosure>>,
}

impl Execution {
    /// The value of a node.
    ///
    /// # Panics
    /// If it was not kept.
    pub fn value(&self, id: NodeId) -> &Enclosure {
        self.values[id.0].as_ref().unwrap_or_else(|| panic!("value {} was not kept", id.0))
    }
}

/// Rows handed to one thread at a time: enough for the matrix products, and at most this many elements of a tensor.
const CHUNK: usize = 256;
const CHUNK_ELEMENTS: usize = 1 << 22;

/// The outputs for a batch, rows spread over the threads of the current pool. `inputs` holds one row-major batch for each
/// input, as exact values.
///
/// # Panics
/// If an input's length is not a whole number of rows.
pub fn execute(net: &Net, inputs: &[Vec<f64>], rows: usize) -> Vec<Enclosure> {
    let largest = net.nodes().iter().map(|n| n.len()).max().unwrap_or(1).max(1);
    let most = (CHUNK_ELEMENTS / largest).clamp(1, CHUNK);
    let chunk = rows.div_ceil(rayon::current_num_threads()).clamp(1, most);
    let parts: Vec<Vec<Enclosure>> = (0..rows.div_ceil(chunk))
        .into_par_iter()
        .map(|c| {
            let (first, last) = (c * chunk, ((c + 1) * chunk).min(rows));
            let given = net.inputs().iter().copied().zip(slice_rows(net, inputs, first, last)).collect();
            let run = run(net, given, net.outputs(), last - first, Keep::Targets, Care::Rigorous);
            net.outputs().iter().map(|&o| run.value(o).clone()).collect()
        })
        .collect();
    (0..net.outputs().len()).map(|o| join(parts.iter().map(|p| &p[o]))).collect()
}

/// Every value for a batch, on the calling thread.
pub fn execute_all(net: &Net, inputs: &[Vec<f64>], rows: usize) -> Execution {
    let given = net.inputs().iter().copied().zip(inputs.iter().map(|x| Enclosure::exact(x.clone()))).collect();
    let all: Vec<NodeId> = net.ids().collect();
    run(net, given, &all, rows, Keep::All, Care::Rigorous)
}

/// All values between given ones and a target, on the calling thread: nodes that the target does not need are left out.
pub fn execute_between(net: &Net, given: Vec<(NodeId, Enclosure)>, target: NodeId, rows: usize) -> Execution {
    run(net, given, &[target], rows, Keep::All, Care::Rigorous)
}

/// [`execute_between`] without any account of what is rounded away: hints, and exact only where every sum is one of integers that f64 holds.
pub fn sketch_between(net: &Net, given: Vec<(NodeId, Vec<f64>)>, target: NodeId, rows: usize) -> Execution {
    let given = given.into_iter().map(|(id, x)| (id, Enclosure::exact(x))).collect();
    run(net, given, &[target], rows, Keep::All, Care::Hint)
}

fn slice_rows(net: &Net, inputs: &[Vec<f64>], first: usize, last: usize) -> Vec<Enclosure> {
    let of = |(x, id): (&Vec<f64>, &NodeId)| {
        let n = net.node(*id).len();
        Enclosure::exact(x[first * n..last * n].to_vec())
    };
    inputs.iter().zip(net.inputs()).map(of).collect()
}

fn join<'a>(parts: impl Iterator<Item = &'a Enclosure> + Clone) -> Enclosure {
    let center = parts.clone().flat_map(|p| p.center.iter().copied()).collect();
    let any = parts.clone().any(|p| p.radius.is_some());
    let radius = |p: &Enclosure| p.radius.clone().unwrap_or_else(|| vec![0.0; p.center.len()]);
    Enclosure { center, radius: any.then(|| parts.flat_map(radius).collect()) }
}

#[derive(PartialEq)]
enum Keep {
    Targets,
    All,
}

/// What is done about rounding.
#[derive(Clone, Copy, PartialEq)]
enum Care {
    Rigorous,
    Hint,
}

fn run(
    net: &Net,
    given: Vec<(NodeId, Enclosure)>,
    targets: &[NodeId],
    rows: usize,
    keep: Keep,
    care: Care,
) -> Execution {
    let n = net.nodes().len();
    let mut values: Vec<Option<Enclosure>> = vec![None; n];
    for (id, value) in given {
        assert_eq!(value.center.len(), rows * net.node(id).len(), "`{}` has the wrong length", net.node(id).name);
        values[id.0] = Some(value);
    }
    let mut needed = vec![false; n];
    targets.iter().for_each(|t| needed[t.0] = true);
    let mut last_use = vec![0; n];
    for (i, node) in net.nodes().iter().enumerate().rev().filter(|(i, _)| values[*i].is_none()) {
        if needed[i] {
            for a in node.arguments() {
                needed[a.0] = true;
                last_use[a.0] = last_use[a.0].max(i);
            }
        }
    }
    targets.iter().for_each(|t| last_use[t.0] = usize::MAX);
    for (i, node) in net.nodes().iter().enumerate() {
        if !needed[i] || values[i].is_some() {
            continue;
        }
        values[i] = Some(step(net, NodeId(i), &values, rows, care));
        if keep == Keep::Targets {
            for a in node.arguments().iter().filter(|a| last_use[a.0] == i) {
                values[a.0] = None;
            }
        }
    }
    Execution { rows, values }
}

fn step(net: &Net, id: NodeId, values: &[Option<Enclosure>], rows: usize, care: Care) -> Enclosure {
    let node = net.node(id);
    // Local invariant: a value is dropped only after its last use.
    let value = |id: NodeId| values[id.0].as_ref().unwrap_or_else(|| unreachable!("dropped too early"));
    match &node.op {
        Op::Input(_) => panic!("input `{}` was not given", node.name),
        Op::Affine(a) => affine((net.exact_in(id), care), node.len(), a, &value, rows),
        Op::Pointwise(p) if care == Care::Hint => {
            Enclosure::exact(apply_functions(p, &value(p.input).center, node.len()))
        }
        Op::Pointwise(p) => pointwise(p, value(p.input), node.len()),
        Op::Max(m) => {
            let (x, n) = (value(m.input), net.node(m.input).len());
            let windows = move |f: &dyn Fn(usize) -> f64| -> Vec<f64> {
                let at = |r: usize, o: usize| {
                    m.window(o).iter().map(|&i| f(r * n + i as usize)).fold(f64::NEG_INFINITY, f64::max)
                };
                (0..rows).flat_map(|r| (0..node.len()).map(move |o| (r, o))).map(|(r, o)| at(r, o)).collect()
            };
            let center = windows(&|i| x.center[i]);
            match &x.radius {
                None => Enclosure::exact(center),
                Some(_) => {
                    let (lo, hi) = (windows(&|i| x.lo(i)), windows(&|i| x.hi(i)));
                    Enclosure::from_bounds(center, lo.into_iter().zip(hi))
                }
            }
        }
        Op::Move(m) => moved(net, m, &value, rows),
    }
}

fn moved<'a>(net: &Net, m: &Move, value: &impl Fn(NodeId) -> &'a Enclosure, rows: usize) -> Enclosure {
    let sources: Vec<(&Enclosure, usize)> = m.sources.iter().map(|&s| (value(s), net.node(s).len())).collect();
    let gather = |pick: &dyn Fn(&Enclosure, usize) -> f64, constant: &dyn Fn(f64) -> f64| -> Vec<f64> {
        let mut out = Vec::with_capacity(rows * m.from.len());
        for r in 0..rows {
            out.extend(m.from.iter().map(|f| match f {
                From::Element { source, index } => {
                    let (x, n) = sources[*source as usize];
                    pick(x, r * n + *index as usize)
                }
                From::Constant(c) => constant(*c),
            }));
        }
        out
    };
    let center = gather(&|x, i| x.center[i], &|c| c);
    let any = sources.iter().any(|s| s.0.radius.is_some());
    let radius = any.then(|| gather(&|x, i| x.radius.as_ref().map_or(0.0, |r| r[i]), &|_| 0.0));
    Enclosure { center, radius }
}

fn pointwise(p: &Pointwise, x: &Enclosure, len: usize) -> Enclosure {
    let steps = p.functions.data.iter().all(|f| matches!(f, ScalarFn::Step(_)));
    if x.radius.is_none() && steps {
        return Enclosure::exact(apply_functions(p, &x.center, len));
    }
    let f = |i: usize| p.functions.at(i % len);
    let bounds = |i: usize| (f(i).value_down(x.lo(i)), f(i).value_up(x.hi(i)));
    if p.functions.data.iter().any(|f| matches!(f, ScalarFn::Band(_))) {
        return Enclosure::between((0..x.center.len()).map(bounds));
    }
    let center = apply_functions(p, &x.center, len);
    Enclosure::from_bounds(center, (0..x.center.len()).map(bounds))
}

/// The functions' values (near them where they are not exact), function by function.
fn apply_functions(p: &Pointwise, x: &[f64], len: usize) -> Vec<f64> {
    let count = p.functions.data.len();
    let (row, block) = if count == 1 { (x.len().max(1), x.len().max(1)) } else { (len, p.functions.inner) };
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks(row) {
        for (k, x) in row.chunks(block).enumerate() {
            match &p.functions.data[k % count] {
                ScalarFn::Step(step) => step.values_at(x, &mut out),
                ScalarFn::Piecewise(p) => p.values_near(x, &mut out),
                f @ ScalarFn::Band(_) => out.extend(x.iter().map(|&x| f.value_down(x))),
            }
        }
    }
    out
}

fn affine<'a>(
    (exact_in, care): (ExactIn, Care),
    len: usize,
    a: &Affine,
    value: &impl Fn(NodeId) -> &'a Enclosure,
    rows: usize,
) -> Enclosure {
    let terms: Vec<(&LinearMap, &Enclosure)> = a.terms.iter().map(|(id, m)| (m, value(*id))).collect();
    let exact_inputs = terms.iter().all(|(_, x)| x.radius.is_none());
    match exact_in {
        ExactIn::Single if exact_inputs => Enclosure::exact(centers_single(len, a, &terms, rows)),
        ExactIn::Double if exact_inputs => Enclosure::exact(centers(len, a, &terms, rows)),
        ExactIn::Single | ExactIn::Double if !exact_inputs => integer_enclosure(len, a, &terms, rows),
        _ if care == Care::Hint => affine_hint(len, a, &terms, rows),
        _ if terms.iter().all(|(m, _)| matches!(m, LinearMap::Diagonal { .. })) => {
            elementwise_enclosure(len, a, &terms, rows)
        }
        _ => affine_enclosure(len, a, &terms, rows),
    }
}

/// The reference values of [`affine`] alone.
fn affine_hint(len: usize, a: &Affine, terms: &[(&LinearMap, &Enclosure)], rows: usize) -> Enclosure {
    let mut center = centers(len, a, terms, rows);
    if a.rounding == Rounding::Nearest32 {
        center.iter_mut().for_each(|c| *c = *c as f32 as f64);
    }
    Enclosure::exact(center)
}

/// The bias of each element, for every row.
fn repeated_bias<T: Copy>(len: usize, a: &Affine, rows: usize, convert: impl Fn(f64) -> T) -> Vec<T> {
    let row: Vec<T> = (0..len).map(|i| convert(*a.bias.at(i))).collect();
    row.repeat(rows)
}

/// W c + b in float32. Claim: exact, if every partial sum in any order is an integer below 2^24 in magnitude.
fn centers_single(len: usize, a: &Affine, terms: &[(&LinearMap, &Enclosure)], rows: usize) -> Vec<f64> {
    let mut out: Vec<f32> = repeated_bias(len, a, rows, |b| b as f32);
    for (map, x) in terms {
        let x: Vec<f32> = x.center.iter().map(|&x| x as f32).collect();
        map.apply_single(&x, rows, &mut out, true);
    }
    out.into_iter().map(f64::from).collect()
}

/// The image of enclosures whose ends are integers, under an affine map of integers.
///
/// # Claim
/// center - radius and center + radius are the smallest and the largest element of the image, exactly.
///
/// # Why
/// Centers and radii are halves of integers, and every partial sum of their products stays below 2^51: f64 holds it exactly.
fn integer_enclosure(len: usize, a: &Affine, terms: &[(&LinearMap, &Enclosure)], rows: usize) -> Enclosure {
    let center = centers(len, a, terms, rows);
    let mut radius = vec![0.0; rows * len];
    for (map, x) in terms {
        if let Some(r) = &x.radius {
            map.apply(Sign::Absolute, r, rows, &mut radius, true);
        }
    }
    Enclosure { center, radius: Some(radius) }
}

/// W c + b in f64, without any account of rounding.
fn centers(len: usize, a: &Affine, terms: &[(&LinearMap, &Enclosure)], rows: usize) -> Vec<f64> {
    let mut out = repeated_bias(len, a, rows, |b| b);
    for (map, x) in terms {
        map.apply(Sign::Signed, &x.center, rows, &mut out, true);
    }
    out
}

/// The affine image of enclosures, with the runtime's rounding.
///
/// # Claim
/// Every value that [`Affine`] allows for arguments within the given enclosures is within the result's radius.
///
/// # Why
/// |W x + b - fl(W c + b)| <= |W| r + gamma (|W||c| + |b|) with gamma = gamma64(products + terms + 2), in any order of summation.
/// The slack of the runtime is relative (|W|(|c| + r) + |b|) + absolute. Both need one product with |W|:
/// |W| (r + (gamma + relative)(|c| + r)).
///
/// # Rounding
/// The product with |W| sums non-negative terms, so it is off by a relative gamma at most, which [`inflate`] adds.
/// `Nearest32` is monotone: the ends of the enclosure are rounded.
pub fn affine_enclosure(len: usize, a: &Affine, terms: &[(&LinearMap, &Enclosure)], rows: usize) -> Enclosure {
    let center = centers(len, a, terms, rows);
    let products: usize = terms.iter().map(|(m, _)| m.fan_in()).sum::<usize>() + terms.len() + 2;
    let relative = gamma64(products) + if let Rounding::Slack { relative, .. } = &a.rounding { *relative } else { 0.0 };
    let mut radius = repeated_bias(len, a, rows, |b| relative * b.abs());
    for (map, x) in terms {
        let spread: Vec<f64> = match &x.radius {
            None => x.center.iter().map(|c| relative * c.abs()).collect(),
            Some(r) => x.center.iter().zip(r).map(|(c, r)| r + relative * (c.abs() + r)).collect(),
        };
        map.apply(Sign::Absolute, &spread, rows, &mut radius, true);
    }
    for (i, r) in radius.iter_mut().enumerate() {
        let absolute = if let Rounding::Slack { absolute, .. } = &a.rounding { *absolute.at(i % len) } else { 0.0 };
        *r = add_up(inflate(*r, products + 8), absolute);
    }
    let mut result = Enclosure { center, radius: Some(radius) };
    open_where_overflowing(&mut result, &a.rounding);
    if a.rounding == Rounding::Nearest32 { nearest32(&result) } else { result }
}

/// Where a float32 runtime might overflow, nothing is known: the radius becomes infinite.
///
/// # Why
/// The radius is at least relative times the sum of all magnitudes, which bounds every partial sum in any order.
fn open_where_overflowing(x: &mut Enclosure, rounding: &Rounding) {
    let largest = f64::from(f32::MAX);
    let most = match rounding {
        Rounding::Exact => f64::MAX,
        Rounding::Nearest32 => largest,
        Rounding::Slack { relative, .. } => (relative * largest / 2.0).min(largest),
    };
    let limit = if *rounding == Rounding::Exact { f64::MAX } else { largest };
    for (c, r) in x.center.iter_mut().zip(x.radius.iter_mut().flatten()) {
        let fits = *r <= most && c.abs() + *r <= limit;
        if !fits {
            (*c, *r) = (0.0, f64::INFINITY);
        }
    }
}

/// [`affine_enclosure`] for element-wise maps, in directed arithmetic: exact wherever the f64 operations are, so that a product or
/// sum that a runtime rounds once is known to the last bit.
fn elementwise_enclosure(len: usize, a: &Affine, terms: &[(&LinearMap, &Enclosure)], rows: usize) -> Enclosure {
    let bounds = |k: usize| {
        let i = k % len;
        let (mut lo, mut hi, mut magnitude) = (*a.bias.at(i), *a.bias.at(i), a.bias.at(i).abs());
        for (map, x) in terms {
            let LinearMap::Diagonal { scale, .. } = map else { unreachable!("checked by the caller") };
            let w = *scale.at(i);
            let (l, h) = if w >= 0.0 { (x.lo(k), x.hi(k)) } else { (x.hi(k), x.lo(k)) };
            let (l, h) = (round::mul_down(w, l), round::mul_up(w, h));
            (lo, hi) = (round::add_down(lo, l), add_up(hi, h));
            magnitude = add_up(magnitude, l.abs().max(h.abs()));
        }
        match &a.rounding {
            Rounding::Exact => (lo, hi),
            Rounding::Nearest32 => (lo as f32 as f64, hi as f32 as f64),
            Rounding::Slack { .. } => {
                let slack = slack_bound(&a.rounding, i, magnitude);
                (round::sub_down(lo, slack), add_up(hi, slack))
            }
        }
    };
    let mut center = centers(len, a, terms, rows);
    if a.rounding == Rounding::Nearest32 {
        center.iter_mut().for_each(|c| *c = *c as f32 as f64);
    }
    let bounds: Vec<(f64, f64)> = (0..rows * len).map(bounds).collect();
    let largest = if a.rounding == Rounding::Exact { f64::MAX } else { f64::from(f32::MAX) };
    let fits = |b: &(f64, f64)| b.0 >= -largest && b.1 <= largest;
    let bounds = bounds.into_iter().map(|b| if fits(&b) { b } else { (f64::NEG_INFINITY, f64::INFINITY) });
    let bounds: Vec<(f64, f64)> = bounds.collect();
    let center =
        center.iter().zip(&bounds).map(|(c, b)| if b.0.is_finite() { c.clamp(b.0, b.1) } else { 0.0 }).collect();
    Enclosure::from_bounds(center, bounds.into_iter())
}

/// The enclosure after one rounding to float32.
fn nearest32(x: &Enclosure) -> Enclosure {
    let center = x.center.iter().map(|&c| c as f32 as f64).collect();
    Enclosure::from_bounds(center, (0..x.center.len()).map(|i| (x.lo(i) as f32 as f64, x.hi(i) as f32 as f64)))
}

/// A value not below the distance between any allowed result of element i of an affine node and its exact affine value,
/// given a value not below sum |w||x| + |b|.
pub(crate) fn slack_bound(rounding: &Rounding, i: usize, magnitude: f64) -> f64 {
    match rounding {
        Rounding::Exact => 0.0,
        // One rounding to nearest: half a unit in the last place, or half the smallest subnormal.
        Rounding::Nearest32 => round::mul_up(magnitude, U32) + f64::from(f32::from_bits(1)),
        Rounding::Slack { relative, absolute } => add_up(round::mul_up(*relative, magnitude), *absolute.at(i)),
    }
}

/// Bounds moved inward to the grid's nearest members.
pub(crate) fn onto_grid(grid: Grid, lo: f64, hi: f64) -> (f64, f64) {
    match grid {
        Grid::Integer => (lo.ceil(), hi.floor()),
        Grid::Float32 | Grid::Real => (lo, hi),
    }
}
