//! Branch and bound: a claim that bounds cannot decide is decided on parts of the region.
//!
//! A part is cut off by bounds on the start's elements (a box of inputs), by constraints on arguments of pointwise functions, or both. Parts are
//! kept on a stack, so that few are open at a time; each thread takes some from its top, bounds them together, and puts back the halves of
//! what is left.

mod frame;
mod inputs;
mod neurons;
mod queue;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::attack::{Attack, Confirm, Space};
use super::decide::View;
use super::goal::Goal;
use super::{Limit, Options, Witness};
use crate::bounds::{Bounds, Extent, NoBounds};
use crate::net::NodeId;
use crate::property::Region;
use frame::Frame;
use neurons::Domain;
use queue::Queue;

/// Elements of the start that are not fixed, up to which the region itself is split.
const FEW_INPUTS: usize = 16;

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
        let whole = Region { lo: self.space.lo.clone(), hi: self.space.hi.clone() };
        let queue = Queue::new(inputs::Part::whole(whole, self.goals.len()));
        let result = Mutex::new(None);
        // A thread of a pool must not sleep: others of the pool may need it.
        if self.options.threads <= 1 || rayon::current_thread_index().is_some() {
            self.work(&queue, &result);
        } else {
            std::thread::scope(|scope| {
                for _ in 0..self.options.threads {
                    scope.spawn(|| self.work(&queue, &result));
                }
            });
        }
        if let Some(witness) = result.into_inner().unwrap_or(None) {
            return Outcome::Found(witness);
        }
        queue.outcome()
    }

    fn work(&self, queue: &Queue, result: &Mutex<Option<Witness>>) {
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
            } else if queue.bytes() > self.options.memory {
                queue.stop("memory limit");
            }
        }
    }

    /// Bounds parts that were taken together: boxes one by one, others of one frame in one go.
    fn step(&self, parts: Vec<Part>) -> Step {
        let mut step = Step::default();
        let mut domains = vec![];
        for part in parts {
            match part {
                Part::Box(p) if step.witness.is_none() => self.bound_box(p, &mut step),
                Part::Box(_) => {}
                Part::Split(d) => domains.push(*d),
            }
        }
        if !domains.is_empty() && step.witness.is_none() {
            self.bound_domains(domains, &mut step);
        }
        step
    }

    /// Parts that are bounded together.
    fn batch(&self) -> usize {
        32
    }

    fn extent<'e>(&self, region: &'e Region) -> Extent<'e> {
        let deadline = Some(self.limit.deadline);
        Extent { start: self.view.root, region, last: self.view.observed, climbs: 0, deadline }
    }

    fn observed(&self) -> NodeId {
        self.view.observed
    }

    /// Executes a value of the start; a witness if it, or one that is found from it, is one. The search goes on from points that come nearer to
    /// their goal than all before.
    fn try_point(&self, point: &[f64], goal: usize) -> (Option<Witness>, f64) {
        let point = self.space.snapped(point);
        let (reached, excess) = self.attack.glance(&point, self.goals[goal]);
        if !self.is_nearer(goal, excess) && !reached {
            return (None, excess);
        }
        let (witness, found) = self.attack.pursue(self.region, &self.space, self.goals[goal], point, self.confirm);
        self.is_nearer(goal, found);
        (witness, excess)
    }

    /// Whether an excess is less than all before.
    fn is_nearer(&self, goal: usize, excess: f64) -> bool {
        let mut nearest = self.nearest.lock().unwrap_or_else(PoisonError::into_inner);
        let nearer = excess < nearest[goal];
        if nearer {
            nearest[goal] = excess;
        }
        nearer
    }

    fn frame(&self, region: &Region, known: Option<&[Bounds]>, climbs: usize) -> Result<Frame, NoBounds> {
        Frame::new(self.view.prepared, Extent { climbs, ..self.extent(region) }, known)
    }
}
