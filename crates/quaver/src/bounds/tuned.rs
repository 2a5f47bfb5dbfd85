//! Backward bounds with free choices that are improved by gradient ascent: a line for each functional between the ends of each hull (alpha),
//! multipliers of constraints on intermediate values (beta), and of the functionals of one objective.
//!
//! Every choice gives a valid bound, so nothing here has to converge: gradients and rates are hints, the walk itself is rigorous.
//!
//! # Source
//! Xu et al., Fast and Complete (ICLR 2021; alpha); Wang et al., Beta-CROWN (NeurIPS 2021; beta). The gradient of a bound is read off the
//! point at which the relaxation attains it.

use super::backward::{Collector, Functionals, Sums, walk};
use super::relax::{Ends, Line, blend};
use super::{Analysis, Bounds, Prepared};
use crate::net::{From, Grid, NodeId, Op, Patch, Pointwise};
use crate::num::round::{U64, add_up, gamma64, mul_up};

/// A linear functional of a value and what it is compared with.
#[derive(Clone, Debug)]
pub(crate) struct Functional {
    /// (element, coefficient).
    pub terms: Vec<(usize, f64)>,
    /// Subtracted from it.
    pub bound: f64,
}

/// A non-negative combination of functionals.
#[derive(Clone, Debug)]
pub(crate) struct Objective {
    /// The functionals.
    pub functionals: Vec<Functional>,
    /// Their multipliers.
    pub weights: Vec<f64>,
}

impl Objective {
    /// All functionals alike.
    pub fn new(functionals: Vec<Functional>) -> Self {
        let weights = vec![1.0 / functionals.len().max(1) as f64; functionals.len()];
        Objective { functionals, weights }
    }

    /// A value not below the combination of the bounds.
    pub fn bound(&self) -> f64 {
        let each = self.functionals.iter().zip(&self.weights);
        each.fold(0.0, |sum, (f, w)| add_up(sum, mul_up(*w, f.bound)))
    }

    /// The functional, if there is only one.
    fn single(&self) -> Option<&Functional> {
        if let [only] = &self.functionals[..] { Some(only) } else { None }
    }
}

/// A constraint on one element of the argument of a pointwise node, and the ends of that function's lines under it.
#[derive(Clone, Debug)]
pub(crate) struct Split {
    /// The pointwise node.
    pub reader: NodeId,
    /// Its argument.
    pub value: NodeId,
    /// Element of both.
    pub element: usize,
    /// What the element is compared with.
    pub at: f64,
    /// 1 for element <= at, -1 for element >= at.
    pub side: f64,
    /// What all constraints on the element leave of its bounds.
    pub interval: (f64, f64),
    /// Lines of the function where all constraints on the element hold.
    pub ends: Ends,
    /// The multiplier to start with.
    pub beta: f64,
}

/// The elements of pointwise nodes whose lines can be chosen.
#[derive(Clone, Debug)]
pub(crate) struct Choices {
    by_node: Vec<Option<Free>>,
}

/// Those of one node.
#[derive(Clone, Debug)]
struct Free {
    elements: Vec<u32>,
    /// One more than the place of an element in `elements`, 0 where it has none.
    places: Vec<u32>,
    ends: Vec<Ends>,
    /// Bounds on |argument|.
    magnitudes: Vec<f64>,
}

impl Choices {
    /// The choices that an analysis leaves open before the value `from`.
    pub fn new(prepared: &Prepared, analysis: &Analysis, from: NodeId) -> Self {
        let net = prepared.net;
        let of = |id: NodeId| {
            let (Op::Pointwise(p), Some(_)) = (&net.node(id).op, &analysis.lines[id.0]) else { return None };
            let (x, grid) = (&analysis.bounds[p.input.0], net.node(p.input).grid);
            let open = |&i: &usize| !p.functions.at(i).is_affine_on(x.lo[i], x.hi[i]);
            let elements: Vec<usize> = (0..x.lo.len()).filter(open).collect();
            let mut places = vec![0; x.lo.len()];
            (1..).zip(&elements).for_each(|(k, &e)| places[e] = k);
            let ends = elements.iter().map(|&i| Ends::new(p.functions.at(i), grid, x.lo[i], x.hi[i])).collect();
            let magnitudes = elements.iter().map(|&i| x.magnitude(i)).collect();
            Some(Free { elements: elements.iter().map(|&e| e as u32).collect(), places, ends, magnitudes })
        };
        let reached = net.ids().take_while(|&id| id <= from && id.0 < analysis.lines.len());
        Choices { by_node: reached.map(of).collect() }
    }

    /// The open elements of a pointwise node.
    pub fn elements(&self, id: NodeId) -> impl Iterator<Item = usize> {
        self.by_node.get(id.0).and_then(|f| f.as_ref()).into_iter().flat_map(|f| f.elements.iter().map(|&e| e as usize))
    }

    /// How many elements are open.
    pub fn len(&self) -> usize {
        self.by_node.iter().flatten().map(|f| f.elements.len()).sum()
    }

    /// Where the lines of least area are, for every open element its lower and its upper line.
    pub fn best(&self) -> Vec<f32> {
        self.by_node.iter().flatten().flat_map(|f| &f.ends).flat_map(|e| e.best.map(|t| t as f32)).collect()
    }
}

/// A parameter's running means (Adam).
#[derive(Clone, Copy, Debug, Default)]
struct Means {
    first: f64,
    second: f64,
}

impl Means {
    /// The step to take, about 1 in magnitude.
    fn step(&mut self, gradient: f64, (debias1, debias2): (f64, f64)) -> f64 {
        self.first = 0.9 * self.first + 0.1 * gradient;
        self.second = 0.99 * self.second + 0.01 * gradient * gradient;
        let size = (self.second * debias2).sqrt();
        if size > 0.0 { self.first * debias1 / size } else { 0.0 }
    }
}

/// The open elements of one node for a batch of functionals; entry `place * rows + row` of each list.
pub(super) struct Tunable {
    rows: usize,
    places: Vec<u32>,
    magnitudes: Vec<f64>,
    /// How steep each function is on the whole, by place.
    slopes: Vec<f64>,
    ends: Vec<Ends>,
    /// Where the lines are between their ends: lower, upper.
    at: Vec<[f64; 2]>,
    means: Vec<[Means; 2]>,
    lower: (Vec<f64>, Vec<f64>),
    upper: (Vec<f64>, Vec<f64>),
    /// Coefficients on the function's values that arrived last.
    coefficients: Vec<f64>,
}

/// The lines of one element.
pub(super) struct Own<'o> {
    lower: (&'o [f64], &'o [f64]),
    upper: (&'o [f64], &'o [f64]),
}

impl Own<'_> {
    /// See [`Sums::replace`].
    #[inline(always)]
    pub fn replace(&self, run: &mut [f64], sums: &mut Sums, gamma: f64, magnitude: f64) {
        let lower = self.lower.0.iter().zip(self.lower.1);
        let upper = self.upper.0.iter().zip(self.upper.1);
        let into = run.iter_mut().zip(&mut sums.sum).zip(&mut sums.error);
        for (((c, sum), error), ((ls, lo), (us, uo))) in into.zip(lower.zip(upper)) {
            let (up, down) = if *c >= 0.0 { (*c, 0.0) } else { (0.0, *c) };
            *c = up * ls + down * us;
            *sum += up * lo + down * uo;
            *error += up * (gamma * lo.abs() + ls * magnitude) - down * (gamma * uo.abs() + us * magnitude);
        }
    }
}

impl Tunable {
    fn new(free: &Free, rows: usize) -> Self {
        let n = free.elements.len() * rows;
        let zeros = || vec![0.0; n];
        Tunable {
            rows,
            places: free.places.clone(),
            magnitudes: free.magnitudes.clone(),
            slopes: free.ends.iter().map(Ends::slope).collect(),
            ends: free.ends.iter().flat_map(|e| std::iter::repeat_n(*e, rows)).collect(),
            at: vec![[0.5; 2]; n],
            means: vec![[Means::default(); 2]; n],
            lower: (zeros(), zeros()),
            upper: (zeros(), zeros()),
            coefficients: zeros(),
        }
    }

    fn place(&self, element: usize) -> Option<usize> {
        (self.places[element] as usize).checked_sub(1)
    }

    /// Forgets the coefficients of the last walk.
    pub fn forget(&mut self) {
        self.coefficients.fill(0.0);
    }

    /// Notes the coefficients that arrive; the lines that replace the element, if it has its own.
    #[inline(always)]
    pub fn replaced(&mut self, element: usize, run: &[f64]) -> Option<Own<'_>> {
        let k = self.place(element)? * self.rows;
        let range = k..k + self.rows;
        self.coefficients[range.clone()].copy_from_slice(run);
        let lower = (&self.lower.0[range.clone()], &self.lower.1[range.clone()]);
        let upper = (&self.upper.0[range.clone()], &self.upper.1[range]);
        Some(Own { lower, upper })
    }

    /// Makes the lines of every row that is worked on.
    fn lay(&mut self) {
        for k in 0..self.ends.len() {
            let (ends, [lower, upper], magnitude) = (&self.ends[k], self.at[k], self.magnitudes[k / self.rows]);
            let line = blend(ends.lower[0], ends.lower[1], lower, -1.0, magnitude);
            (self.lower.0[k], self.lower.1[k]) = (line.slope, line.offset);
            let line = blend(ends.upper[0], ends.upper[1], upper, 1.0, magnitude);
            (self.upper.0[k], self.upper.1[k]) = (line.slope, line.offset);
        }
    }

    /// Moves lines uphill: the derivative of the bound with respect to a line is coefficient * (difference of its ends at the argument).
    fn climb(&mut self, x: &[f64], elements: &[u32], rate: f64, debias: (f64, f64)) {
        for (place, &e) in elements.iter().enumerate() {
            for r in 0..self.rows {
                let k = place * self.rows + r;
                let (c, x) = (self.coefficients[k], x[e as usize * self.rows + r]);
                let (side, ends) = if c >= 0.0 { (0, self.ends[k].lower) } else { (1, self.ends[k].upper) };
                if c == 0.0 || ends[0] == ends[1] {
                    continue;
                }
                let gradient = c * ((ends[1].slope - ends[0].slope) * x + ends[1].offset - ends[0].offset);
                let step = self.means[k][side].step(gradient, debias);
                self.at[k][side] = (self.at[k][side] + rate * step).clamp(0.0, 1.0);
            }
        }
    }
}

/// A split of one row.
struct Bound {
    row: usize,
    split: Split,
    beta: f64,
    means: Means,
}

/// What a walk reads and notes.
pub(super) struct State {
    nodes: Vec<Option<Tunable>>,
    /// By value, in the order of the walk.
    splits: Vec<Bound>,
    next_split: usize,
    /// Coefficients that arrived at boxes and maxima.
    reached: Vec<Option<Patch>>,
}

impl State {
    /// The tunable elements of a node.
    pub fn node(&mut self, id: NodeId) -> Option<&mut Tunable> {
        self.nodes.get_mut(id.0).and_then(|n| n.as_mut())
    }

    /// Notes the coefficients that arrive at a value.
    pub fn reached(&mut self, id: NodeId, c: Patch) {
        self.reached[id.0] = Some(c);
    }

    /// Adds multiples of the constraints on a value.
    ///
    /// # Why
    /// Where side (x - at) <= 0 and beta >= 0, a functional is at least itself plus beta side (x - at).
    ///
    /// # Rounding
    /// The new coefficient is rounded once, at most `splits` times; the product with `at` once, and summed with all others.
    pub fn add_splits(&mut self, f: &mut Functionals, id: NodeId, c: Patch, bounds: &Bounds) -> Patch {
        let first = self.next_split;
        let count = self.splits[first..].iter().take_while(|s| s.split.value == id).count();
        self.next_split += count;
        let active = self.splits[first..first + count].iter().filter(|s| s.beta > 0.0);
        let mut active = active.peekable();
        if active.peek().is_none() {
            return c;
        }
        let (rows, gamma) = (f.rows, f.gamma(count));
        let mut sums = Sums::new(rows);
        let mut joined = Collector::onto(c, bounds.lo.len());
        for Bound { row, split, beta, .. } in active {
            let mut run = vec![0.0; rows];
            run[*row] = beta * split.side;
            if let Some(sum) = joined.add(split.element, &run) {
                sums.error[*row] += U64 * sum[*row].abs() * bounds.magnitude(split.element);
            }
            sums.sum[*row] -= beta * split.side * split.at;
            sums.error[*row] += gamma * (beta * split.at).abs();
        }
        f.add(&sums);
        joined.patch
    }
}

/// A batch of objectives on one value, each with its own splits, whose bounds are improved together.
pub(crate) struct Tuned<'t> {
    prepared: &'t Prepared<'t>,
    analysis: &'t Analysis,
    choices: &'t Choices,
    from: NodeId,
    objectives: Vec<Objective>,
    weight_means: Vec<Vec<Means>>,
    state: State,
    iteration: i32,
    /// Values of the relaxation's point, by node, where it is known; element i of row r at `i * rows + r`.
    point: Vec<Vec<f64>>,
}

impl<'t> Tuned<'t> {
    /// A batch. `splits` and `slopes` (see [`Choices::best`]) are given by objective.
    pub fn new(
        (prepared, analysis, choices): (&'t Prepared<'t>, &'t Analysis, &'t Choices),
        from: NodeId,
        objectives: Vec<Objective>,
        splits: &[Vec<Split>],
        slopes: &[&[f32]],
    ) -> Self {
        let rows = objectives.len();
        let mut nodes: Vec<Option<Tunable>> = choices
            .by_node
            .iter()
            .map(|f| f.as_ref().filter(|f| !f.elements.is_empty()).map(|f| Tunable::new(f, rows)))
            .collect();
        let mut at = 0;
        for node in nodes.iter_mut().flatten() {
            for place in 0..node.ends.len() / rows.max(1) {
                for (r, slopes) in slopes.iter().enumerate() {
                    node.at[place * rows + r] = [f64::from(slopes[at]), f64::from(slopes[at + 1])];
                }
                at += 2;
            }
        }
        let mut bounds = vec![];
        for (row, splits) in splits.iter().enumerate() {
            for split in splits {
                if let Some(node) = &mut nodes[split.reader.0]
                    && let Some(place) = node.place(split.element)
                {
                    // The last split on an element says what its lines are.
                    node.ends[place * rows + row] = split.ends;
                }
                bounds.push(Bound { row, split: split.clone(), beta: split.beta, means: Means::default() });
            }
        }
        bounds.sort_by_key(|b| std::cmp::Reverse(b.split.value));
        let weight_means = objectives.iter().map(|o| vec![Means::default(); o.weights.len()]).collect();
        let reached = vec![None; from.0 + 1];
        let state = State { nodes, splits: bounds, next_split: 0, reached };
        Tuned { prepared, analysis, choices, from, objectives, weight_means, state, iteration: 0, point: vec![] }
    }

    fn rows(&self) -> usize {
        self.objectives.len()
    }

    /// Proved lower bounds on the objectives' sums (without what they are compared with), with the choices as they are.
    ///
    /// # Claim
    /// For every execution with values within the analysis's bounds that satisfies the objective's splits, the combination of its functionals
    /// is at least the result.
    pub fn bounds(&mut self) -> Vec<f64> {
        self.state.nodes.iter_mut().flatten().for_each(Tunable::lay);
        self.state.next_split = 0;
        self.state.reached.fill(None);
        self.point.clear();
        let functionals = self.functionals();
        walk(self.prepared, self.analysis, self.from, functionals, Some(&mut self.state))
    }

    /// # Rounding
    /// A coefficient that combines several functionals differs from the exact one by at most gamma times the sum of its terms' magnitudes.
    fn functionals(&self) -> Functionals {
        let rows = self.rows();
        let mut elements: Vec<u32> =
            self.objectives.iter().flat_map(|o| &o.functionals).flat_map(|f| &f.terms).map(|t| t.0 as u32).collect();
        elements.sort_unstable();
        elements.dedup();
        let mut places = vec![0; self.prepared.net.node(self.from).len()];
        elements.iter().enumerate().for_each(|(k, &e)| places[e as usize] = k);
        let mut patch = Patch { rows, data: vec![0.0; elements.len() * rows], elements };
        let mut errors = vec![0.0; rows];
        let x = &self.analysis.bounds[self.from.0];
        for (r, objective) in self.objectives.iter().enumerate() {
            let gamma = gamma64(objective.functionals.len() + 2);
            for (f, w) in objective.functionals.iter().zip(&objective.weights) {
                for (i, a) in &f.terms {
                    patch.data[places[*i] * rows + r] += w * a;
                    if objective.single().is_none() {
                        errors[r] += gamma * (w * a).abs() * x.magnitude(*i);
                    }
                }
            }
        }
        let mut functionals = Functionals::new(self.from, patch);
        functionals.error = errors;
        functionals
    }

    /// The objectives with their present weights.
    pub fn objectives(&self) -> &[Objective] {
        &self.objectives
    }

    /// Moves all choices uphill from the last [`Self::bounds`].
    pub fn climb(&mut self, rate: f64) {
        self.find_point();
        self.iteration += 1;
        let debias = (1.0 / (1.0 - 0.9f64.powi(self.iteration)), 1.0 / (1.0 - 0.99f64.powi(self.iteration)));
        let rows = self.rows();
        for (id, free) in self.prepared.net.ids().zip(&self.choices.by_node) {
            let (Some(free), Op::Pointwise(p)) = (free, &self.prepared.net.node(id).op) else { continue };
            if let Some(node) = self.state.node(id) {
                node.climb(&self.point[p.input.0], &free.elements, rate, debias);
            }
        }
        for bound in &mut self.state.splits {
            let split = &bound.split;
            let x = self.point[split.value.0][split.element * rows + bound.row];
            let gradient = split.side * (x - split.at);
            let scale = self.state.nodes[split.reader.0].as_ref().map_or(1.0, |n| n.scale(split, bound.row));
            bound.beta = (bound.beta + rate * scale * bound.means.step(gradient, debias)).max(0.0);
        }
        self.climb_weights(rate, debias);
    }

    /// Multiplicative steps keep the weights of an objective positive and their sum 1.
    fn climb_weights(&mut self, rate: f64, debias: (f64, f64)) {
        let (rows, x) = (self.objectives.len(), &self.point[self.from.0]);
        for (r, (objective, means)) in self.objectives.iter_mut().zip(&mut self.weight_means).enumerate() {
            if objective.single().is_some() {
                continue;
            }
            let value = |f: &Functional| f.terms.iter().map(|(i, a)| a * x[i * rows + r]).sum::<f64>() - f.bound;
            let values: Vec<f64> = objective.functionals.iter().map(value).collect();
            let mean: f64 = values.iter().zip(&objective.weights).map(|(v, w)| v * w).sum();
            for ((w, v), m) in objective.weights.iter_mut().zip(&values).zip(means.iter_mut()) {
                *w *= (2.0 * rate * m.step(v - mean, debias)).exp();
            }
            let sum: f64 = objective.weights.iter().sum();
            objective.weights.iter_mut().for_each(|w| *w /= sum);
        }
    }

    /// Where the objective takes its bound when every function is replaced by the lines in use.
    fn find_point(&mut self) {
        if !self.point.is_empty() {
            return;
        }
        let (net, rows) = (self.prepared.net, self.rows());
        let mut point: Vec<Vec<f64>> = Vec::with_capacity(self.from.0 + 1);
        for id in net.ids().take_while(|&id| id <= self.from) {
            let value = self.value_at_point(id, &point, rows);
            point.push(value);
        }
        self.point = point;
    }

    fn value_at_point(&self, id: NodeId, point: &[Vec<f64>], rows: usize) -> Vec<f64> {
        let (node, bounds) = (self.prepared.net.node(id), &self.analysis.bounds[id.0]);
        let n = bounds.lo.len();
        if self.prepared.is_box[id.0] {
            let mut value: Vec<f64> =
                (0..n).flat_map(|i| std::iter::repeat_n(bounds.lo[i] / 2.0 + bounds.hi[i] / 2.0, rows)).collect();
            for (i, run) in self.state.reached[id.0].iter().flat_map(|c| c.runs()) {
                for (c, x) in run.iter().zip(&mut value[i * rows..]) {
                    *x = if *c > 0.0 {
                        bounds.lo[i]
                    } else if *c < 0.0 {
                        bounds.hi[i]
                    } else {
                        *x
                    };
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
                let own = self.state.nodes[id.0].as_ref();
                for (i, run) in value.chunks_mut(rows).enumerate() {
                    match (own.and_then(|o| Some((o, o.place(i)?))), &self.analysis.lines[id.0]) {
                        (Some((own, place)), _) => own.evaluate(place, run),
                        (None, Some(lines)) => {
                            let line = lines.lower[i];
                            run.iter_mut().for_each(|x| *x = line.slope * *x + line.offset);
                        }
                        (None, None) => {}
                    }
                }
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

    /// The places of the lines in use for one objective, for [`Self::new`].
    pub fn slopes(&self, row: usize) -> Vec<f32> {
        let rows = self.rows();
        let of =
            |n: &Tunable| n.at.iter().skip(row).step_by(rows).flat_map(|t| t.map(|t| t as f32)).collect::<Vec<_>>();
        self.state.nodes.iter().flatten().flat_map(of).collect()
    }

    /// The multipliers in use for one objective: (reader, element, at, side) and beta of each split.
    pub fn betas(&self, row: usize, splits: &mut [Split]) {
        for bound in self.state.splits.iter().filter(|b| b.row == row) {
            let s = &bound.split;
            let same = |o: &&mut Split| (o.reader, o.element, o.at, o.side) == (s.reader, s.element, s.at, s.side);
            if let Some(split) = splits.iter_mut().find(same) {
                split.beta = bound.beta;
            }
        }
    }

    /// What every open element costs an objective.
    pub fn costs(&mut self, row: usize) -> Vec<Cost> {
        self.find_point();
        let rows = self.rows();
        let mut all = vec![];
        for (id, node) in self.prepared.net.ids().zip(&self.state.nodes) {
            let (Some(node), Op::Pointwise(p)) = (node, &self.prepared.net.node(id).op) else { continue };
            for (place, e) in self.choices.elements(id).enumerate() {
                let k = place * rows + row;
                let (c, x) = (node.coefficients[k], self.point[p.input.0][e * rows + row]);
                let interval = self.interval(id, p.input, e, row);
                if c != 0.0 && !p.functions.at(e).is_affine_on(interval.0, interval.1) {
                    all.push(cost(p, self.prepared.net.node(p.input).grid, (id, e), interval, (c, x), node.lines(k)));
                }
            }
        }
        all
    }

    /// What the splits of an objective leave of the bounds of an element.
    fn interval(&self, reader: NodeId, value: NodeId, element: usize, row: usize) -> (f64, f64) {
        let own = |b: &&Bound| b.row == row && b.split.reader == reader && b.split.element == element;
        let bounds = &self.analysis.bounds[value.0];
        self.state.splits.iter().rfind(own).map_or((bounds.lo[element], bounds.hi[element]), |b| b.split.interval)
    }
}

/// What the gap between a function and the line in its place costs an objective; hints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// The pointwise node.
    pub reader: NodeId,
    /// Element of it.
    pub element: usize,
    /// Its argument at the relaxation's point.
    pub at: f64,
    /// Coefficient times gap at that argument.
    pub here: f64,
    /// Coefficient times the largest gap.
    pub most: f64,
}

fn cost(
    p: &Pointwise,
    grid: Grid,
    (reader, element): (NodeId, usize),
    (l, u): (f64, f64),
    (c, x): (f64, f64),
    (lower, upper): (Line, Line),
) -> Cost {
    let f = p.functions.at(element);
    let at = x.clamp(l, u);
    let mut points = vec![];
    let line = if c > 0.0 { lower } else { upper };
    if c > 0.0 {
        f.upper_points(l, u, grid, &mut points);
    } else {
        f.lower_points(l, u, grid, &mut points);
    }
    let gap = |x: f64, y: f64| c.signum() * (y - line.slope * x - line.offset);
    let most = points.iter().map(|q| gap(q.0, q.1)).fold(0.0, f64::max);
    Cost { reader, element, at, here: c.abs() * gap(at, f.smooth_hint(at)).max(0.0), most: c.abs() * most }
}

impl Tunable {
    fn lines(&self, k: usize) -> (Line, Line) {
        let line = |l: &(Vec<f64>, Vec<f64>)| Line { slope: l.0[k], offset: l.1[k] };
        (line(&self.lower), line(&self.upper))
    }

    /// The line in use at arguments.
    fn evaluate(&self, place: usize, run: &mut [f64]) {
        for (r, x) in run.iter_mut().enumerate() {
            let k = place * self.rows + r;
            let (lower, upper) = self.lines(k);
            let line = if self.coefficients[k] >= 0.0 { lower } else { upper };
            *x = line.slope * *x + line.offset;
        }
    }

    /// The size that a multiplier of a split may have: that of the coefficients on its element.
    fn scale(&self, split: &Split, row: usize) -> f64 {
        let Some(place) = self.place(split.element) else { return 1.0 };
        let own = self.coefficients[place * self.rows + row].abs();
        let all = self.coefficients.iter().skip(row).step_by(self.rows);
        let mean = all.map(|c| c.abs()).sum::<f64>() / (self.magnitudes.len().max(1) as f64);
        own.max(mean) * self.slopes[place]
    }
}
