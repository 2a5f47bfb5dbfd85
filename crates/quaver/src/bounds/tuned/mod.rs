//! Backward bounds with free choices that are improved by gradient ascent: a line for each functional between the ends of each hull (alpha),
//! multipliers of constraints on intermediate values (beta), and of the functionals of one objective.
//!
//! Every choice gives a valid bound, so nothing here has to converge: gradients and rates are hints, the walk itself is rigorous.
//!
//! # Source
//! Xu et al., Fast and Complete (ICLR 2021; alpha); Wang et al., Beta-CROWN (NeurIPS 2021; beta). The gradient of a bound is read off the
//! point at which the relaxation attains it.

mod choices;
mod cost;
mod lines;
mod objective;
mod point;
mod twins;

use std::sync::Arc;

use super::backward::{Collector, Functionals, Sums, walk};
use super::split::{Branch, Cut, cut};
use super::{Analysis, Bounds, Prepared};
use crate::net::{NodeId, Op, Patch};
use crate::num::round::{U64, gamma64};
use choices::Free;
pub(crate) use choices::{Choices, Split};
pub(crate) use cost::Cost;
use lines::Means;
pub(super) use lines::Tunable;
pub(crate) use objective::{Functional, Objective};
pub(super) use twins::TwinUse;

/// A split of one row.
struct Bound {
    row: usize,
    split: Split,
    beta: f64,
    means: Means,
}

/// What a walk reads and notes.
pub(super) struct State<'t> {
    nodes: Vec<Option<Tunable<'t>>>,
    /// By value, in the order of the walk.
    splits: Vec<Bound>,
    next_split: usize,
    /// Coefficients that arrived at boxes and maxima.
    reached: Vec<Option<Patch>>,
    /// By the second of both.
    twins: Vec<Option<TwinUse>>,
}

impl<'t> State<'t> {
    /// The twins whose second is a node.
    pub fn twins(&mut self, id: NodeId) -> Option<&mut TwinUse> {
        self.twins[id.0].as_mut()
    }

    /// The tunable elements of a node.
    pub fn node(&mut self, id: NodeId) -> Option<&mut Tunable<'t>> {
        self.nodes.get_mut(id.0).and_then(|n| n.as_mut())
    }

    /// Notes the coefficients that arrive at a value.
    pub fn reached(&mut self, id: NodeId, c: Patch) {
        self.reached[id.0] = Some(c);
    }

    /// A value that nothing depends on is left out: constraints on it are of no use.
    pub fn pass(&mut self, id: NodeId) {
        let here = self.splits[self.next_split..].iter_mut().take_while(|s| s.split.value == id);
        self.next_split += here.map(|s| s.beta = 0.0).count();
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
            let sum = &mut joined.at(split.element)[*row];
            *sum += beta * split.side;
            sums.error[*row] += U64 * sum.abs() * bounds.magnitude(split.element);
            sums.sum[*row] -= beta * split.side * split.at;
            sums.error[*row] += gamma * (beta * split.at).abs();
        }
        f.add(&sums);
        joined.patch
    }
}

/// What a row of a batch starts from.
pub(crate) struct Row<'r> {
    /// What is bounded.
    pub objective: Objective,
    /// The constraints that hold, and where the lines are.
    pub branch: &'r Branch,
}

/// A batch of objectives on one value, each with its own splits, whose bounds are improved together.
pub(crate) struct Tuned<'t> {
    prepared: &'t Prepared<'t>,
    analysis: &'t Analysis,
    from: NodeId,
    objectives: Vec<Objective>,
    weight_means: Vec<Vec<Means>>,
    state: State<'t>,
    iteration: i32,
    /// Values of the relaxation's point, by node; element i of row r at `i * rows + r`.
    point: Vec<Vec<f64>>,
    /// Whether these belong to the lines in use.
    point_is_known: bool,
    /// Running means of these: near the point at which the best choices attain their bound.
    smooth: Vec<Vec<f64>>,
}

impl<'t> Tuned<'t> {
    /// A batch of functionals of the value `from`.
    pub fn new(
        (prepared, analysis, choices): (&'t Prepared<'t>, &'t Analysis, &'t Choices),
        from: NodeId,
        rows: Vec<Row<'_>>,
    ) -> Self {
        let open = |f: &'t Option<Free>| f.as_ref().filter(|f| !f.elements.is_empty());
        let mut nodes: Vec<Option<Tunable>> =
            choices.by_node.iter().map(|f| open(f).map(|f| Tunable::new(f, rows.len()))).collect();
        let mut at = 0;
        for node in nodes.iter_mut().flatten() {
            let count = 2 * node.free.elements.len();
            node.put(&rows.iter().map(|row| &row.branch.slopes[at..at + count]).collect::<Vec<_>>());
            at += count;
        }
        let mut splits = vec![];
        let mut own = vec![vec![]; nodes.len()];
        for (r, row) in rows.iter().enumerate() {
            for split in &row.branch.splits {
                let node = &nodes[split.reader.0];
                if let Some(place) = node.as_ref().and_then(|n| n.place(split.element)) {
                    own[split.reader.0].push((place * rows.len() + r, split.ends));
                }
                splits.push(Bound { row: r, split: split.clone(), beta: split.beta, means: Means::default() });
            }
        }
        for (node, own) in nodes.iter_mut().zip(own) {
            if let Some(node) = node {
                node.set_own(own);
            }
        }
        splits.sort_by_key(|b| std::cmp::Reverse(b.split.value));
        let twins = twins::uses(prepared, analysis, from, &rows);
        let objectives: Vec<Objective> = rows.into_iter().map(|r| r.objective).collect();
        let weight_means = objectives.iter().map(|o| vec![Means::default(); o.weights.len()]).collect();
        let reached = vec![None; from.0 + 1];
        let state = State { nodes, splits, next_split: 0, reached, twins };
        Tuned {
            prepared,
            analysis,
            from,
            objectives,
            weight_means,
            state,
            iteration: 0,
            point: vec![vec![]; from.0 + 1],
            point_is_known: false,
            smooth: vec![vec![]; from.0 + 1],
        }
    }

    /// With shares of differences that are chosen, too. Certificates do not hold them.
    pub fn with_shares(mut self) -> Self {
        self.state.twins.iter_mut().flatten().for_each(TwinUse::set_free);
        self
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
        self.state.twins.iter_mut().flatten().for_each(TwinUse::forget);
        self.point_is_known = false;
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
        for (id, node) in self.prepared.net.ids().zip(&mut self.state.nodes) {
            if let (Some(node), Op::Pointwise(p)) = (node, &self.prepared.net.node(id).op) {
                node.climb(&self.point[p.input.0], rate, debias);
            }
        }
        let State { nodes, splits, .. } = &mut self.state;
        let mut means: Vec<Option<Vec<f64>>> = vec![None; nodes.len()];
        for bound in splits {
            let split = &bound.split;
            let x = self.point[split.value.0][split.element * rows + bound.row];
            let gradient = split.side * (x - split.at);
            let scale = nodes[split.reader.0].as_ref().map_or(1.0, |node| {
                let means = means[split.reader.0].get_or_insert_with(|| node.means());
                node.scale(split, bound.row, means[bound.row])
            });
            // A float32, as certificates hold it.
            bound.beta = f64::from((bound.beta + rate * scale * bound.means.step(gradient, debias)).max(0.0) as f32);
        }
        self.climb_twins(rate, debias);
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
            // A float32, as certificates hold it.
            objective.weights.iter_mut().for_each(|w| *w = f64::from((*w / sum) as f32));
        }
    }

    /// Notes in the parts of some rows where lines and multipliers stand.
    pub fn note(&self, parts: &mut [(usize, &mut Branch)]) {
        if parts.is_empty() {
            return;
        }
        let mut of_row = vec![None; self.rows()];
        for (k, (row, part)) in parts.iter_mut().enumerate() {
            of_row[*row] = Some(k);
            part.slopes = Arc::new(self.state.nodes.iter().flatten().flat_map(|n| n.places(*row)).collect());
        }
        for bound in &self.state.splits {
            let s = &bound.split;
            let same = |o: &&mut Split| (o.reader, o.element, o.at, o.side) == (s.reader, s.element, s.at, s.side);
            if let Some(split) = of_row[bound.row].and_then(|k| parts[k].1.splits.iter_mut().find(same)) {
                split.beta = bound.beta;
            }
        }
    }

    /// [`Self::note`], and where each part is split next.
    pub fn branch(&mut self, mut parts: Vec<(usize, &mut Branch)>) -> Vec<Option<Cut>> {
        if parts.is_empty() {
            return vec![];
        }
        self.note(&mut parts);
        let costs = self.costs(&parts);
        let cut = |((_, part), costs): (&(usize, &mut Branch), _)| cut(self.prepared.net, self.analysis, part, costs);
        parts.iter().zip(costs).map(cut).collect()
    }
}
