//! Search for a violating input: projected gradient through the steps, then flips of single coordinates. Everything here is
//! a hint; a candidate counts only once it has been executed on the model's own input.

use std::borrow::Cow;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::goal::Goal;
use super::{Limit, Witness};
use crate::bounds::{Prepared, interval_until};
use crate::net::{Enclosure, Execution, From, Grid, NodeId, Op, execute_between, sketch_between};
use crate::num::float32;
use crate::property::Region;

/// Points that are moved together.
const POINTS: usize = 8;
/// Multiplications below which the descent starts anew so many times.
const CHEAP: usize = 20_000;
const RESTARTS: usize = 12;
/// Multiplications that the choice of starts may cost.
const SAMPLING: usize = 10_000_000;
/// Gradient steps from each set of starts.
const STEPS: usize = 24;
/// Coordinate flips tried together.
const FLIPS: usize = 32;
/// Rounds of coordinate flips.
const ROUNDS: usize = 40;

/// Executes an input of the model; a witness if it is one.
pub(super) type Confirm<'c> = &'c (dyn Fn(&[f64]) -> Option<Witness> + Sync);

pub(super) struct Attack<'a> {
    pub prepared: &'a Prepared<'a>,
    pub root: NodeId,
    pub score: NodeId,
    pub limit: Limit,
}

/// The last value of the element-wise chain that everything goes through: for a quantized network, its quantized input.
pub(super) fn root(prepared: &Prepared, score: NodeId) -> NodeId {
    let net = prepared.net;
    let needed = &net.ancestors(score)[..=score.0];
    let mut id = net.inputs()[0];
    loop {
        let mut readers =
            net.ids().filter(|&n| needed.get(n.0) == Some(&true) && net.node(n).arguments().contains(&id));
        match (readers.next(), readers.next()) {
            (Some(next), None) if prepared.is_box[next.0] && id != score => id = next,
            _ => return id,
        }
    }
}

/// What is thought of a point.
struct Judged {
    /// The row of the goal that is furthest from being satisfied.
    row: usize,
    /// How far.
    excess: f64,
    /// Whether the goal seems to be reached.
    reached: bool,
}

/// The space that is searched: a box of values of the root.
pub(super) struct Space {
    pub lo: Vec<f64>,
    pub hi: Vec<f64>,
    integer: bool,
}

impl Space {
    /// The point of the space that is nearest.
    pub fn snapped(&self, point: &[f64]) -> Vec<f64> {
        point.iter().enumerate().map(|(i, &x)| self.snap(i, x)).collect()
    }

    /// The middle and random points, row-major.
    fn starts(&self, count: usize, rng: &mut StdRng) -> Vec<f64> {
        let mut points = Vec::with_capacity(count * self.lo.len());
        for p in 0..count {
            points.extend((0..self.lo.len()).map(|i| {
                let t = if p == 0 { 0.5 } else { rng.random::<f64>() };
                self.snap(i, self.lo[i] + t * (self.hi[i] - self.lo[i]))
            }));
        }
        points
    }

    fn snap(&self, i: usize, x: f64) -> f64 {
        let x = if self.integer { x.round() } else { x as f32 as f64 };
        x.clamp(self.lo[i], self.hi[i])
    }
}

impl Attack<'_> {
    /// A confirmed witness, if one is found before the deadline. `goals` are the polyhedra that are not proved out of reach.
    pub fn run(&self, region: &Region, goals: &[&Goal], seed: u64, confirm: Confirm) -> Option<Witness> {
        let space = self.space(region);
        let mut rng = StdRng::seed_from_u64(seed);
        let check = |x: &[f64]| confirm(&self.to_input(region, x));
        let mut best: Option<(f64, Vec<f64>, &Goal)> = None;
        let rounds = if self.prepared.net.multiplications() < CHEAP { RESTARTS } else { 1 };
        for &goal in (0..rounds).flat_map(|_| goals) {
            let (excess, x) = match self.descend(goal, &space, self.starts(goal, &space, &mut rng), &check) {
                Ok(best) => best,
                Err(witness) => return Some(witness),
            };
            if best.as_ref().is_none_or(|b| excess < b.0) {
                best = Some((excess, x, goal));
            }
            if self.limit.reached().is_some() {
                break;
            }
        }
        let (_, x, goal) = best?;
        self.flip(goal, &space, x, &check)
    }

    /// Starts for a descent: the nearest of many random points, as many as cost little.
    fn starts(&self, goal: &Goal, space: &Space, rng: &mut StdRng) -> Vec<f64> {
        let n = space.lo.len();
        let tried = (SAMPLING / self.prepared.net.multiplications().max(1)).clamp(POINTS, 128 * POINTS);
        let points = space.starts(tried, rng);
        if tried < 4 * POINTS {
            return points[..POINTS * n].to_vec();
        }
        let judged = self.judge(&points, goal).0;
        let mut order: Vec<usize> = (0..tried).collect();
        order.sort_by(|&a, &b| judged[a].excess.total_cmp(&judged[b].excess));
        order[..4 * POINTS].iter().flat_map(|&r| points[r * n..(r + 1) * n].iter().copied()).collect()
    }

    /// For values of the root, each with a goal, whether it seems to be reached and how far it is.
    pub fn glance(&self, points: &[(Vec<f64>, usize)], goals: &[&Goal]) -> Vec<(bool, f64)> {
        if points.is_empty() {
            return vec![];
        }
        let net = self.prepared.net;
        let all = points.iter().flat_map(|p| p.0.iter().copied()).collect();
        let run = sketch_between(net, vec![(self.root, all)], self.score, points.len());
        let (smooth, n) = (self.smooth(&run), net.node(self.score).len());
        let scores = run.value(self.score).center.chunks(n).zip(smooth.chunks(n)).zip(points);
        scores.map(|((exact, smooth), p)| (goals[p.1].nearly_reached(exact), goals[p.1].worst(smooth).1)).collect()
    }

    /// Goes on from a value of the root; a witness, or how near it came.
    pub fn pursue(
        &self,
        region: &Region,
        space: &Space,
        goal: &Goal,
        point: Vec<f64>,
        confirm: Confirm,
    ) -> (Option<Witness>, f64) {
        let check = |x: &[f64]| confirm(&self.to_input(region, x));
        match self.descend(goal, space, point, &check) {
            Err(witness) => (Some(witness), f64::NEG_INFINITY),
            Ok((excess, point)) if space.integer => (self.flip(goal, space, point, &check), excess),
            Ok((excess, _)) => (None, excess),
        }
    }

    /// What the root can be for inputs of a region.
    pub fn space(&self, region: &Region) -> Space {
        let net = self.prepared.net;
        let bounds = &interval_until(net, region, self.root)[self.root.0];
        Space { lo: bounds.lo.clone(), hi: bounds.hi.clone(), integer: net.node(self.root).grid == Grid::Integer }
    }

    /// Executes a batch of root values and judges each.
    fn judge(&self, points: &[f64], goal: &Goal) -> (Vec<Judged>, Execution) {
        let net = self.prepared.net;
        let rows = points.len() / net.node(self.root).len();
        let run = sketch_between(net, vec![(self.root, points.to_vec())], self.score, rows);
        let n = net.node(self.score).len();
        let smooth = self.smooth(&run);
        let scores = &run.value(self.score).center;
        let judged = scores.chunks(n).zip(smooth.chunks(n)).map(|(exact, smooth)| {
            let (row, excess) = goal.worst(smooth);
            Judged { row, excess, reached: goal.nearly_reached(exact) }
        });
        (judged.collect(), run)
    }

    /// The scores with a last requantization undone, so that points with equal scores can be told apart.
    fn smooth<'r>(&self, run: &'r Execution) -> Cow<'r, [f64]> {
        let scores = &run.value(self.score).center;
        match &self.prepared.net.node(self.score).op {
            Op::Pointwise(p) if self.score != self.root => {
                let (x, n) = (&run.value(p.input).center, self.prepared.net.node(self.score).len());
                x.iter().enumerate().map(|(k, &x)| p.functions.at(k % n).smooth_hint(x)).collect()
            }
            Op::Input(_) | Op::Affine(_) | Op::Pointwise(_) | Op::Max(_) | Op::Move(_) => Cow::Borrowed(scores),
        }
    }

    /// Projected gradient descent on the excess from several starts; the best point seen. Points that seem to reach the goal are checked.
    fn descend(
        &self,
        goal: &Goal,
        space: &Space,
        mut points: Vec<f64>,
        check: Confirm,
    ) -> Result<(f64, Vec<f64>), Witness> {
        let n = space.lo.len();
        let mut best = (f64::INFINITY, vec![]);
        for step in 0..STEPS {
            let (judged, run) = self.judge(&points, goal);
            for (point, j) in points.chunks(n).zip(&judged) {
                if j.reached
                    && let Some(witness) = check(point)
                {
                    return Err(witness);
                }
                if j.excess < best.0 {
                    best = (j.excess, point.to_vec());
                }
            }
            if self.limit.reached().is_some() {
                break;
            }
            let gradient = self.gradient(&run, goal, &judged);
            // From the whole box at once down to its eighth: steps in sign direction.
            let reach = 0.5f64.powi((step / 6) as i32);
            for (k, (x, g)) in points.iter_mut().zip(&gradient).enumerate() {
                let i = k % n;
                let width = space.hi[i] - space.lo[i];
                let least = if space.integer && width > 0.0 { 1.0 } else { 0.0 };
                if *g != 0.0 {
                    *x = space.snap(i, *x - g.signum() * (reach * width).max(least));
                }
            }
        }
        Ok(best)
    }

    /// Flips single coordinates to an end of their range, in the order of what the gradient promises, keeping what helps.
    fn flip(&self, goal: &Goal, space: &Space, mut x: Vec<f64>, check: Confirm) -> Option<Witness> {
        let n = x.len();
        for _ in 0..ROUNDS {
            let (now, run) = self.judge(&x, goal);
            let gradient = self.gradient(&run, goal, &now);
            let mut moves: Vec<(f64, usize, f64)> = (0..n)
                .flat_map(|i| [space.lo[i], space.hi[i]].map(|to| (gradient[i] * (to - x[i]), i, to)))
                .filter(|m| x[m.1] != m.2)
                .collect();
            moves.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut improved = false;
            for chunk in moves.chunks(FLIPS).take(4) {
                let mut points = x.repeat(chunk.len());
                chunk.iter().enumerate().for_each(|(r, m)| points[r * n + m.1] = m.2);
                let (judged, _) = self.judge(&points, goal);
                let reached = points.chunks(n).zip(&judged).filter(|(_, j)| j.reached);
                if let Some(witness) = reached.into_iter().find_map(|(point, _)| check(point)) {
                    return Some(witness);
                }
                let best = (0..chunk.len()).min_by(|&a, &b| judged[a].excess.total_cmp(&judged[b].excess))?;
                if judged[best].excess < now[0].excess {
                    x[chunk[best].1] = chunk[best].2;
                    improved = true;
                    break;
                }
            }
            if !improved || self.limit.reached().is_some() {
                return None;
            }
        }
        None
    }

    /// Gradient at the root of the excess of each point's furthest row, steps passed straight through.
    fn gradient(&self, run: &Execution, goal: &Goal, judged: &[Judged]) -> Vec<f64> {
        let n = self.prepared.net.node(self.score).len();
        let mut start = vec![0.0; run.rows * n];
        for (row, j) in start.chunks_mut(n).zip(judged) {
            for (i, a) in goal.rows.get(j.row).map_or(&[][..], |r| &r.terms) {
                row[*i] = *a;
            }
        }
        self.gradient_of(run, start)
    }

    /// Gradient at the root of what has the gradient `start` at the score, for every row.
    pub fn gradient_of(&self, run: &Execution, start: Vec<f64>) -> Vec<f64> {
        let net = self.prepared.net;
        let rows = run.rows;
        let mut gradients: Vec<Option<Vec<f64>>> = vec![None; self.score.0 + 1];
        gradients[self.score.0] = Some(start);
        for id in (self.root.0 + 1..=self.score.0).rev().map(NodeId) {
            let Some(g) = gradients[id.0].take() else { continue };
            for (to, back) in self.pull_back(run, id, &g) {
                match &mut gradients[to.0] {
                    Some(sum) => sum.iter_mut().zip(&back).for_each(|(s, b)| *s += b),
                    slot @ None => *slot = Some(back),
                }
            }
        }
        gradients[self.root.0].take().unwrap_or_else(|| vec![0.0; rows * net.node(self.root).len()])
    }

    fn pull_back(&self, run: &Execution, id: NodeId, g: &[f64]) -> Vec<(NodeId, Vec<f64>)> {
        let (net, rows) = (self.prepared.net, run.rows);
        let n = net.node(id).len();
        match &net.node(id).op {
            Op::Input(_) => vec![],
            Op::Affine(a) => a
                .terms
                .iter()
                .map(|(to, map)| {
                    let mut back = vec![0.0; rows * map.inputs()];
                    map.adjoint(g, rows, &mut back);
                    (*to, back)
                })
                .collect(),
            Op::Pointwise(p) => {
                let x = &run.value(p.input).center;
                let slope = |k: usize| p.functions.at(k % n).slope_hint(x[k]);
                vec![(p.input, g.iter().enumerate().map(|(k, g)| g * slope(k)).collect())]
            }
            Op::Max(m) => {
                let (x, inputs) = (&run.value(m.input).center, net.node(m.input).len());
                let mut back = vec![0.0; rows * inputs];
                for (k, g) in g.iter().enumerate() {
                    let (r, o) = (k / n, k % n);
                    let at = |j: &&u32| x[r * inputs + **j as usize];
                    if let Some(&j) = m.window(o).iter().max_by(|a, b| at(a).total_cmp(&at(b))) {
                        back[r * inputs + j as usize] += g;
                    }
                }
                vec![(m.input, back)]
            }
            Op::Move(m) => {
                let lens: Vec<usize> = m.sources.iter().map(|&s| net.node(s).len()).collect();
                let mut back: Vec<Vec<f64>> = lens.iter().map(|len| vec![0.0; rows * len]).collect();
                for (k, g) in g.iter().enumerate() {
                    if let From::Element { source, index } = m.from[k % n] {
                        let s = source as usize;
                        back[s][(k / n) * lens[s] + index as usize] += g;
                    }
                }
                m.sources.iter().copied().zip(back).collect()
            }
        }
    }

    /// An input of the region whose image at the root is (as near as can be) the given value, by bisection on the input's grid:
    /// each element of the root is a monotone function of one element of the input.
    pub fn to_input(&self, region: &Region, target: &[f64]) -> Vec<f64> {
        let net = self.prepared.net;
        let input = net.inputs()[0];
        if input == self.root {
            return target.to_vec();
        }
        let origin = self.origins(input);
        let mut read = vec![false; net.node(input).len()];
        origin.iter().flatten().for_each(|&i| read[i] = true);
        let integer = net.node(input).grid == Grid::Integer;
        let to_key = |x: f64| if integer { x as i64 } else { float32::key(x as f32) };
        let from_key = |k: i64| if integer { k as f64 } else { f64::from(float32::from_key(k)) };
        let image = |x: Vec<f64>| {
            let given = vec![(input, Enclosure::exact(x))];
            execute_between(net, given, self.root, 1).value(self.root).center.clone()
        };
        let (low, high) = (image(region.lo.clone()), image(region.hi.clone()));
        let mut lo: Vec<i64> = region.lo.iter().map(|&x| to_key(x)).collect();
        let mut hi: Vec<i64> = region.hi.iter().map(|&x| to_key(x)).collect();
        // Elements that no element of the root reads stay where they are.
        (0..lo.len()).filter(|&i| !read[i]).for_each(|i| hi[i] = lo[i]);
        while lo.iter().zip(&hi).any(|(l, h)| l < h) {
            let middle: Vec<i64> = lo.iter().zip(&hi).map(|(l, h)| l + (h - l).div_euclid(2)).collect();
            let values = image(middle.iter().map(|&k| from_key(k)).collect());
            for (o, &i) in origin.iter().enumerate() {
                let Some(i) = i.filter(|&i| lo[i] < hi[i]) else { continue };
                // Smallest input whose image reaches the target (or, where the chain decreases, falls to it).
                let rising = high[o] >= low[o];
                let reached = if rising { values[o] >= target[o] } else { values[o] <= target[o] };
                if reached {
                    hi[i] = middle[i];
                } else {
                    lo[i] = middle[i] + 1;
                }
            }
        }
        hi.iter().map(|&k| from_key(k)).collect()
    }

    /// The input that [`Self::to_input`] finds, if the root has exactly the given value there; the other way round there is none that has.
    ///
    /// # Why
    /// On an input of integers or float32 values each element of the root is a monotone function of one element, and bisection finds the
    /// first that reaches the value.
    pub fn preimage(&self, region: &Region, target: &[f64]) -> Option<Vec<f64>> {
        let net = self.prepared.net;
        let x = self.to_input(region, target);
        let image = execute_between(net, vec![(net.inputs()[0], Enclosure::exact(x.clone()))], self.root, 1);
        (image.value(self.root).center == target).then_some(x)
    }

    /// For each element of the root, the element of the input that it is a function of.
    fn origins(&self, input: NodeId) -> Vec<Option<usize>> {
        let net = self.prepared.net;
        let mut origin: Vec<Vec<Option<usize>>> = vec![vec![]; self.root.0 + 1];
        origin[input.0] = (0..net.node(input).len()).map(Some).collect();
        for id in (0..=self.root.0).map(NodeId).filter(|&id| id != input && self.prepared.is_box[id.0]) {
            let Some(&argument) = net.node(id).arguments().first() else { continue };
            origin[id.0] = match &net.node(id).op {
                Op::Move(m) => m
                    .from
                    .iter()
                    .map(|f| match f {
                        From::Element { index, .. } => origin[argument.0].get(*index as usize).copied().flatten(),
                        From::Constant(_) => None,
                    })
                    .collect(),
                _ => origin[argument.0].clone(),
            };
        }
        origin[self.root.0].clone()
    }
}
