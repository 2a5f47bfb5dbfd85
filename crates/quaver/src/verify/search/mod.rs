//! Branch and bound: a claim that bounds cannot decide is decided on parts of the region.
//!
//! A part is cut off by bounds on the start's elements (a box of inputs), by constraints on arguments of pointwise functions, or both. Parts are
//! kept on a stack, so that few are open at a time; each thread takes some from its top, bounds them together, and puts back the halves of
//! what is left.

mod deepen;
mod frame;
mod inputs;
mod neurons;
mod queue;
mod trace;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::attack::{Attack, Confirm, Space};
use super::decide::View;
use super::goal::Goal;
use super::{Limit, Options, Witness};
use crate::bounds::{Analysis, Bounds, Effort, Extent, Journal, NoBounds, analyse_within};
use crate::certificate::Tracer;
use crate::net::NodeId;
use crate::property::Region;
use frame::Frame;
use neurons::Domain;
use queue::Queue;

/// Elements of the start that are not fixed, up to which the region itself is split.
const FEW_INPUTS: usize = 16;

fn has_few_inputs(region: &Region) -> bool {
    region.lo.iter().zip(&region.hi).filter(|(l, h)| l < h).count() <= FEW_INPUTS
}

/// What came out.
pub(super) enum Outcome {
    /// No forbidden output is left; the least gap that was proved of any part.
    Excluded(f64),
    Found(Witness),
    Stopped {
        bound: f64,
        why: &'static str,
        open: u64,
    },
}

/// How a search ended for the time being.
enum Explored {
    Ended(Outcome),
    Paused(Step),
}

/// A search on one net.
pub(super) struct Search<'s> {
    pub view: View<'s>,
    /// The whole region, on the model's input.
    pub region: &'s Region,
    pub goals: Vec<&'s Goal>,
    pub attack: Attack<'s>,
    pub confirm: Confirm<'s>,
    pub limit: &'s Limit,
    pub options: &'s Options,
    /// Parts that were bounded.
    pub subproblems: AtomicU64,
    /// What the start may be.
    pub space: Space,
    /// How near executed points came to each goal.
    pub nearest: Mutex<Vec<f64>>,
}

/// A part that is not decided.
pub(super) enum Part {
    /// A box, to be bounded from scratch.
    Box(inputs::Part),
    /// A frame with constraints, for one goal.
    Split(Box<Domain>),
}

impl Part {
    fn bytes(&self) -> usize {
        match self {
            Part::Box(p) => p.bytes(),
            Part::Split(d) => d.bytes(),
        }
    }

    /// The frame that it is a part of.
    fn frame(&self) -> Option<&Arc<Frame>> {
        match self {
            Part::Box(_) => None,
            Part::Split(d) => Some(&d.frame),
        }
    }

    /// A proved lower bound on its gap.
    fn bound(&self) -> f64 {
        match self {
            Part::Box(p) => p.bound,
            Part::Split(d) => d.bound,
        }
    }
}

/// What became of some parts.
#[derive(Default)]
pub(super) struct Step {
    /// Still open.
    pub open: Vec<Part>,
    /// The least gap that was proved of a part that is closed.
    pub excluded: Option<f64>,
    pub witness: Option<Witness>,
    /// Why a part can be split no more.
    pub stuck: Option<&'static str>,
}

impl Step {
    /// Notes a closed part.
    pub fn exclude(&mut self, gap: f64) {
        self.excluded = Some(self.excluded.map_or(gap, |g| g.min(gap)));
    }
}

impl<'s> Search<'s> {
    /// Splits until every part is excluded, a witness is found, or a limit is reached.
    pub fn run(&self) -> Outcome {
        let region = Region { lo: self.space.lo.clone(), hi: self.space.hi.clone() };
        let few = has_few_inputs(&region);
        let whole = Part::Box(inputs::Part::whole(region, self.goals.len()));
        if !few {
            return self.deepen(whole);
        }
        match self.explore(Step { open: vec![whole], ..Step::default() }, None) {
            Explored::Ended(outcome) => outcome,
            Explored::Paused(_) => unreachable!("there is no pause"),
        }
    }

    /// Explores what is open. If that is not over at the time of a pause, and everything that is open can be split, it is given back.
    fn explore(&self, step: Step, pause: Option<Instant>) -> Explored {
        if let Some(witness) = step.witness {
            return Explored::Ended(Outcome::Found(witness));
        }
        let queue = Queue::default();
        queue.put(step, 0);
        let result = Mutex::new(None);
        // A thread of a pool must not sleep: others of the pool may need it.
        if self.options.threads <= 1 || rayon::current_thread_index().is_some() {
            self.work(&queue, &result, pause);
        } else {
            std::thread::scope(|scope| {
                for _ in 0..self.options.threads {
                    scope.spawn(|| self.work(&queue, &result, pause));
                }
            });
        }
        match result.into_inner().unwrap_or(None) {
            Some(witness) => Explored::Ended(Outcome::Found(witness)),
            None => queue.end(),
        }
    }

    fn work(&self, queue: &Queue, result: &Mutex<Option<Witness>>, pause: Option<Instant>) {
        // Others must not wait for a thread that fails.
        let _guard = queue.guard();
        while let Some(parts) = queue.take(self.batch()) {
            let count = parts.len() as u64;
            let step = self.step(parts);
            let done = self.subproblems.fetch_add(count, Ordering::Relaxed) + count;
            if let Some(witness) = step.witness {
                if let Ok(mut result) = result.lock() {
                    *result = Some(witness);
                }
                queue.stop("a witness was found");
                return;
            }
            queue.put(step, count);
            let limit =
                if done >= self.options.subproblems { Some("limit of subproblems") } else { self.limit.reached() };
            if let Some(why) = limit {
                queue.stop(why);
            } else if pause.is_some_and(|p| Instant::now() >= p) {
                queue.pause();
            } else if queue.bytes() > self.options.memory {
                queue.stop("memory limit");
            }
        }
    }

    /// What becomes of some parts.
    fn step(&self, parts: Vec<Part>) -> Step {
        let mut step = Step::default();
        self.bound(parts, &mut step);
        step
    }

    /// Bounds parts that were taken together: boxes one by one, those of one frame in one go.
    fn bound(&self, parts: Vec<Part>, step: &mut Step) {
        let mut domains = vec![];
        for part in parts {
            match part {
                Part::Box(p) if step.witness.is_none() => self.bound_box(p, step),
                Part::Box(_) => {}
                Part::Split(d) => domains.push(*d),
            }
        }
        while let (Some(last), None) = (domains.pop(), &step.witness) {
            // After a pause there may be parts of several frames.
            let (mut same, rest): (Vec<Domain>, Vec<Domain>) = domains.into_iter().partition(|d| d.is_like(&last));
            same.push(last);
            domains = rest;
            self.bound_domains(same, step);
        }
    }

    /// Parts that are bounded together: many where a matrix product is worth packing its operands.
    fn batch(&self) -> usize {
        if self.view.prepared.net.multiplications() > 100_000 { 128 } else { 32 }
    }

    fn tracer(&self) -> Option<&dyn Tracer> {
        self.options.tracer.as_deref()
    }

    fn observed(&self) -> NodeId {
        self.view.observed
    }

    /// Executes values of the start, each for a goal; a witness if one, or one that is found from one, is one. The search goes on from points
    /// that come clearly nearer to their goal than all before. Beside it, how near each came.
    fn try_points(&self, points: Vec<(Vec<f64>, usize)>) -> (Option<Witness>, Vec<f64>) {
        let fits = |p: &(Vec<f64>, usize)| p.0.len() == self.space.lo.len();
        let points: Vec<(Vec<f64>, usize)> =
            points.into_iter().filter(fits).map(|(x, g)| (self.space.snapped(&x), g)).collect();
        let judged = self.attack.glance(&points, &self.goals);
        for ((point, goal), &(reached, ref excess)) in points.into_iter().zip(&judged) {
            let mut witness = reached.then(|| (self.confirm)(&self.attack.to_input(self.region, &point))).flatten();
            if self.is_nearer(goal, *excess) && witness.is_none() {
                let found;
                (witness, found) = self.attack.pursue(self.region, &self.space, self.goals[goal], point, self.confirm);
                self.is_nearer(goal, found);
            }
            if witness.is_some() {
                return (witness, vec![]);
            }
        }
        (None, judged.into_iter().map(|j| j.1).collect())
    }

    /// Whether an excess is clearly less than all before: a search from there may find what those before did not.
    fn is_nearer(&self, goal: usize, excess: f64) -> bool {
        let mut nearest = self.nearest.lock().unwrap_or_else(PoisonError::into_inner);
        let nearer = nearest[goal] == f64::INFINITY || excess < nearest[goal] - 0.05 * nearest[goal].abs();
        nearest[goal] = nearest[goal].min(excess);
        nearer
    }

    /// Bounds for a box; what is known about a box around it still holds.
    fn analyse(
        &self,
        region: &Region,
        known: Option<&[Bounds]>,
        effort: Effort,
        journal: Option<&dyn Journal>,
    ) -> Result<Analysis, NoBounds> {
        let (start, last, until) = (self.view.root, self.observed(), self.limit.until());
        let extent = Extent { start, region, last, all: false, effort, until, journal };
        analyse_within(self.view.prepared, extent, known)
    }

    fn frame(&self, region: Region, analysis: Analysis, number: u64) -> Frame {
        Frame::new(self.view.prepared, region, analysis, self.observed(), number)
    }
}
