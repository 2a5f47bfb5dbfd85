//! Parts that are boxes: all bounds from scratch, for every goal that is open, then in two along one element of the start.

use std::sync::Arc;

use super::frame::Frame;
use super::neurons::Domain;
use super::{Search, Step, has_few_inputs};
use crate::bounds::{Bounds, Branch, Effort, Journal, NoBounds, Row, Tuned};
use crate::net::{Grid, execute};
use crate::property::Region;
use crate::verify::confirm::{exactly, is_exact};
use crate::verify::goal::Goal;

/// What is done for the bounds of each element where splits of functions follow.
pub(super) const FRAME: Effort = Effort { climbs: 30, leaves: 1 };

/// A box.
pub(in crate::verify) struct Part {
    region: Region,
    /// Bounds that hold for all that is asked about; those of a box around it, for instance.
    known: Option<Arc<Vec<Bounds>>>,
    /// Numbers of the goals that are not excluded.
    goals: Vec<usize>,
    pub bound: f64,
    /// The tracer's number.
    number: u64,
}

impl Part {
    /// A part of a frame, for one goal.
    pub fn of_frame(region: Region, known: Vec<Bounds>, goal: usize, bound: f64, number: u64) -> Self {
        Part { region, known: Some(Arc::new(known)), goals: vec![goal], bound, number }
    }

    pub fn whole(region: Region, goals: usize) -> Self {
        Part { region, known: None, goals: (0..goals).collect(), bound: f64::NEG_INFINITY, number: 0 }
    }

    pub fn bytes(&self) -> usize {
        // Two halves share what is known.
        16 * self.region.lo.len() + self.known.iter().flat_map(|k| k.iter()).map(|b| 8 * b.lo.len()).sum::<usize>()
    }
}

impl Search<'_> {
    /// Excludes a box, or splits it.
    pub(super) fn bound_box(&self, part: Part, step: &mut Step) {
        let analysis = match self.analyse(&part.region, part.known.as_deref().map(|k| &k[..]), Effort::NONE, None) {
            Ok(analysis) => analysis,
            Err(NoBounds::Empty) => {
                self.tracer().inspect(|t| t.empty(part.number));
                return step.exclude(f64::INFINITY);
            }
            Err(NoBounds::Overflow) => return step.stuck = Some("a bound overflowed"),
        };
        // Single rows first: most goals fall by one of them.
        let goals: Vec<&Goal> = part.goals.iter().map(|&g| self.goals[g]).collect();
        let by_row = self.view.gaps_of_rows(&analysis, &goals);
        let mut gaps: Vec<f64> = by_row.iter().map(|g| g.0).collect();
        self.trace_rows(&part, &goals, &by_row);
        if goals.iter().zip(&gaps).all(|(g, gap)| g.excluded(*gap)) {
            return gaps.into_iter().for_each(|gap| step.exclude(gap));
        }
        let frame = self.frame(part.region, analysis, part.number);
        let observed = &frame.analysis.bounds[self.observed().0];
        let whole = Branch::whole(Arc::new(frame.choices.best()));
        let row = |g: &&Goal| Row { objective: g.objective(observed), branch: &whole };
        let context = (self.view.prepared, &frame.analysis, &frame.choices);
        let mut tuned = Tuned::new(context, self.observed(), goals.iter().map(row).collect());
        self.improve(&mut tuned, &part.goals, &mut gaps);
        let mut left: Vec<(usize, f64)> = vec![];
        for (row, (g, &gap)) in goals.iter().zip(&gaps).enumerate() {
            if g.excluded(gap) {
                if !g.excluded(by_row[row].0) {
                    self.tracer()
                        .inspect(|t| t.close(part.number, part.goals[row], &tuned.objectives()[row].weights, None));
                }
                step.exclude(gap);
            } else {
                left.push((row, gap));
            }
        }
        if left.is_empty() {
            return;
        }
        let points = left.iter().map(|&(row, _)| (tuned.point(self.view.root, row), part.goals[row])).collect();
        step.witness = self.try_points(points).0;
        if step.witness.is_some() {
            return;
        }
        if !has_few_inputs(&frame.region) {
            let left: Vec<(usize, f64)> = left.iter().map(|&(row, gap)| (part.goals[row], gap)).collect();
            drop(tuned);
            return self.refine(&frame, &left, FRAME, step);
        }
        let bound = left.iter().map(|l| l.1).fold(f64::INFINITY, f64::min);
        let goals = left.iter().map(|&(row, _)| part.goals[row]).collect();
        let steepness = |i: usize| left.iter().map(|&(row, _)| tuned.steepness(self.view.root, i, row)).sum();
        let known = Some(Arc::new(frame.analysis.bounds.clone()));
        let part = Part { region: frame.region.clone(), known, goals, bound, number: part.number };
        self.halve(part, &steepness, step);
    }

    /// Tells of goals that one of their rows excludes.
    fn trace_rows(&self, part: &Part, goals: &[&Goal], gaps: &[(f64, usize)]) {
        let Some(tracer) = self.tracer() else { return };
        for ((goal, number), (gap, row)) in goals.iter().zip(&part.goals).zip(gaps) {
            if goal.excluded(*gap) {
                tracer.close(part.number, *number, &goal.only(*row), None);
            }
        }
    }

    /// Bounds a box once more, with lines tuned for every element, as the frame of a search by splits of pointwise functions.
    pub(super) fn refine(&self, frame: &Frame, goals: &[(usize, f64)], effort: Effort, step: &mut Step) {
        let journal = self.journal(frame.number);
        let journal = journal.as_ref().map(|j| j as &dyn Journal);
        let frame = match self.analyse(&frame.region, Some(&frame.analysis.bounds), effort, journal) {
            Ok(analysis) => Arc::new(self.frame(frame.region.clone(), analysis, frame.number)),
            Err(NoBounds::Empty) => {
                self.tracer().inspect(|t| t.empty(frame.number));
                return step.exclude(f64::INFINITY);
            }
            Err(NoBounds::Overflow) => return step.stuck = Some("a bound overflowed"),
        };
        let slopes = Arc::new(frame.choices.best());
        for &(goal, gap) in goals {
            let weights = self.goals[goal].objective(&frame.analysis.bounds[self.observed().0]).weights;
            let domain = Domain::whole(frame.clone(), goal, slopes.clone(), weights, gap);
            step.open.push(super::Part::Split(Box::new(domain)));
        }
    }

    /// Raises gaps by one walk with the present choices.
    pub(super) fn improve(&self, tuned: &mut Tuned<'_>, goals: &[usize], gaps: &mut [f64]) {
        let sums = tuned.bounds();
        for (((gap, sum), &g), objective) in gaps.iter_mut().zip(sums).zip(goals).zip(tuned.objectives()) {
            *gap = gap.max(self.goals[g].combined_gap(sum, objective, self.grid()));
        }
    }

    pub(super) fn grid(&self) -> Grid {
        self.view.prepared.net.node(self.observed()).grid
    }

    /// Splits a box where its halves gain most. What is known is about the box itself.
    pub(super) fn halve(&self, part: Part, steepness: &dyn Fn(usize) -> f64, step: &mut Step) {
        let Part { region, goals, .. } = &part;
        let width = |i: usize| region.hi[i] - region.lo[i];
        // Between the longest edge and the one along which the bound changes most.
        let score = |i: usize| (1e-6 + steepness(i)).sqrt() * width(i);
        let splittable = (0..region.lo.len()).filter(|&i| self.middle(region, i).is_some());
        let Some(i) = splittable.max_by(|&a, &b| score(a).total_cmp(&score(b))) else {
            return self.settle(&part, step);
        };
        let Some((below, above)) = self.middle(region, i) else { return };
        let (mut low, mut high) = (region.clone(), region.clone());
        (low.hi[i], high.lo[i]) = (below, above);
        let center = |r: &Region| -> Vec<f64> { r.lo.iter().zip(&r.hi).map(|(l, h)| l + (h - l) / 2.0).collect() };
        let points = [&low, &high].into_iter().flat_map(|r| goals.iter().map(move |&g| (center(r), g))).collect();
        let (witness, excesses) = self.try_points(points);
        if witness.is_some() {
            return step.witness = witness;
        }
        let nearest = |e: &[f64]| e.iter().copied().fold(f64::INFINITY, f64::min);
        let numbers = self.tracer().map_or([0, 0], |t| t.halve(part.number, goals, i, below));
        let halves = [low, high].into_iter().zip(numbers);
        let mut halves: Vec<(f64, (Region, u64))> = excesses.chunks(goals.len()).map(nearest).zip(halves).collect();
        // The half that is nearer to a witness goes on top.
        halves.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (_, (region, number)) in halves {
            let (known, goals) = (part.known.clone(), goals.clone());
            step.open.push(super::Part::Box(Part { region, known, goals, bound: part.bound, number }));
        }
    }

    /// Decides a single value of the start that bounds do not exclude.
    ///
    /// # Why
    /// Where the net computes one exact function of integers or float32 values, either no input leads to the value, or every input that does has the
    /// same output: that is executed exactly and compared with the exact constraints.
    fn settle(&self, part: &Part, step: &mut Step) {
        let (region, goals) = (&part.region, &part.goals);
        let net = self.view.prepared.net;
        let counted = net.node(net.inputs()[0]).grid != Grid::Real;
        if counted && is_exact(net) {
            match self.attack.preimage(self.region, &region.lo) {
                None => {
                    self.tracer().inspect(|t| t.has_no_step("a value that no input leads to"));
                    return step.exclude(f64::INFINITY);
                }
                Some(x) if goals.iter().all(|&g| !exactly(net, &x, &self.goals[g].exact)) => {
                    self.trace_executed(part, &x);
                    return step.exclude(0.0);
                }
                Some(x) => step.witness = (self.confirm)(&x),
            }
        }
        if step.witness.is_none() {
            step.stuck = Some("a single input could not be decided");
        }
    }

    /// Tells of goals that a part with a single output excludes, each by its worst row.
    fn trace_executed(&self, part: &Part, x: &[f64]) {
        let Some(tracer) = self.tracer() else { return };
        let output = &execute(self.view.prepared.net, &[x.to_vec()], 1)[0].center;
        for &number in &part.goals {
            let goal = self.goals[number];
            // Rows are about the observed value, whose order is the output's where they compare.
            tracer.close(part.number, number, &goal.only(goal.worst(output).0), None);
        }
    }

    /// The ends of the two halves of an element's range, if it has two.
    fn middle(&self, region: &Region, i: usize) -> Option<(f64, f64)> {
        let (l, h) = (region.lo[i], region.hi[i]);
        let middle = l + (h - l) / 2.0;
        match self.view.prepared.net.node(self.view.root).grid {
            Grid::Integer => (l < h).then(|| (middle.floor(), middle.floor() + 1.0)),
            Grid::Float32 | Grid::Real => (l < middle && middle < h).then_some((middle, middle)),
        }
    }
}
