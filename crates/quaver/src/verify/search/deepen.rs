//! Frames that get better: bounds on intermediate values by branch and bound, with more effort each time that a search with what there is does not
//! end soon. In a deep net a bound that is a little better in every layer is a lot better in the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::frame::Frame;
use super::inputs::FRAME;
use super::{Explored, Outcome, Part, Search, Step};
use crate::bounds::Effort;

/// Parts for each element when the first frame does not do, and how many times more each time after.
const FIRST_LEAVES: usize = 8;
const MORE: usize = 4;
const MOST_LEAVES: usize = 1 << 15;
/// A better frame is made if this share of the time that is left is enough for it.
const SHARE: f64 = 0.6;
/// Better frames are made as long as each leaves at most this share of the functions open that the one before left open, or this share of the gap
/// that is to be closed.
const GAIN: f64 = 0.95;
const GAP: f64 = 0.85;
/// How long a search goes on before the next frame, in terms of the time for that: where the last one has left about as many functions open as
/// the one before, where it has left fewer, and where it has closed more than half of the gap, too.
const SEARCH_LONG: f64 = 1.0;
const SEARCH: f64 = 0.25;
const SEARCH_BRIEFLY: f64 = 0.1;

impl Search<'_> {
    /// Bounds the whole region with more and more effort, and searches in between.
    pub(super) fn deepen(&self, whole: Part) -> Outcome {
        let mut effort = FRAME;
        let mut begun = Instant::now();
        let mut step = self.step(vec![whole]);
        let goals = goals_of(&step.open);
        self.tracer().inspect(|t| t.mark());
        let (mut before, mut open) = (f64::NEG_INFINITY, usize::MAX);
        loop {
            let next = Effort { leaves: (effort.leaves * MORE).max(FIRST_LEAVES), ..effort };
            let needed = begun.elapsed().mul_f64(next.cost() / effort.cost());
            let frame = frame_of_all(&step.open);
            let choices = frame.map_or(0, |f| f.choices.len());
            let bound = step.open.iter().map(Part::bound).fold(f64::INFINITY, f64::min);
            let fewer = (choices as f64) < GAIN * open as f64;
            let gains = (fewer || bound > GAP * before) && frame.is_some_and(|f| f.rough);
            open = choices;
            let goes_on = gains && next.leaves <= MOST_LEAVES && needed < self.limit.left().mul_f64(SHARE);
            let search = match () {
                () if !fewer => SEARCH_LONG,
                () if bound > before / 2.0 => SEARCH_BRIEFLY,
                () => SEARCH,
            };
            before = bound;
            let pause = goes_on.then(|| Instant::now() + needed.mul_f64(search));
            match self.explore(step, pause) {
                Explored::Ended(outcome) => return outcome,
                Explored::Paused(left) => {
                    effort = next;
                    begun = Instant::now();
                    step = self.reframe(left, effort, &goals);
                    let parts = std::mem::take(&mut step.open);
                    self.bound(parts, &mut step);
                }
            }
        }
    }

    /// Bounds the frame of all parts with more effort, in place of the parts. A tracer forgets these, so that for one all goals of the first frame
    /// are proved again.
    fn reframe(&self, parts: Step, effort: Effort, first: &BTreeMap<usize, f64>) -> Step {
        let Some(frame) = frame_of_all(&parts.open).cloned() else { return parts };
        let mut goals = goals_of(&parts.open);
        if let Some(tracer) = self.tracer() {
            tracer.rewind();
            first.iter().for_each(|(&goal, &gap)| _ = goals.entry(goal).or_insert(gap));
        }
        let mut step = Step { excluded: parts.excluded, ..Step::default() };
        drop(parts.open);
        let goals: Vec<(usize, f64)> = goals.into_iter().collect();
        self.refine(&frame, &goals, effort, &mut step);
        self.tracer().inspect(|t| t.mark());
        step
    }
}

/// The goals that some parts of a frame are open for, each with the least gap.
fn goals_of(parts: &[Part]) -> BTreeMap<usize, f64> {
    let mut goals: BTreeMap<usize, f64> = BTreeMap::new();
    for part in parts {
        if let Part::Split(d) = part {
            let gap = goals.entry(d.goal).or_insert(f64::INFINITY);
            *gap = gap.min(d.bound);
        }
    }
    goals
}

/// The frame of some parts, if it is the same and they have no other.
fn frame_of_all(parts: &[Part]) -> Option<&Arc<Frame>> {
    let mut frames = parts.iter().map(Part::frame);
    let first = frames.next()??;
    frames.all(|f| f.is_some_and(|f| Arc::ptr_eq(f, first))).then_some(first)
}
