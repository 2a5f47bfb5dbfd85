//! The open parts, shared between threads.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::{Explored, Outcome, Part, Step};

/// Parts that cannot be split, after which the search gives up.
const MOST_STUCK: u64 = 64;

/// Open parts up to which the search also goes into breadth.
const MOST_BROAD: usize = 20_000;

/// A stack of open parts. A thread that finds it empty waits while another thread may still put parts back.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    open: VecDeque<Part>,
    /// How often parts were taken.
    turns: u64,
    bytes: usize,
    /// Parts that threads are working on.
    taken: u64,
    stopped: Option<&'static str>,
    /// Parts that cannot be split, and why the last one cannot.
    stuck: u64,
    stuck_because: Option<&'static str>,
    /// The least gap of a part that is closed.
    excluded: Option<f64>,
    paused: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to `most` parts from the top that can be bounded together; `None` when nothing is left or the search is stopped.
    pub fn take(&self, most: usize) -> Option<Vec<Part>> {
        let mut state = self.lock();
        loop {
            if state.stopped.is_some() || state.paused {
                return None;
            }
            if !state.open.is_empty() {
                let parts = state.top(most);
                state.taken += parts.len() as u64;
                state.bytes -= parts.iter().map(Part::bytes).sum::<usize>().min(state.bytes);
                return Some(parts);
            }
            if state.taken == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives back what is left of `count` parts.
    pub fn put(&self, step: Step, count: u64) {
        let mut state = self.lock();
        state.taken -= count;
        state.bytes += step.open.iter().map(Part::bytes).sum::<usize>();
        state.open.extend(step.open);
        state.excluded = state.excluded.into_iter().chain(step.excluded).reduce(f64::min);
        if step.stuck.is_some() {
            // The search goes on: there may be a witness elsewhere.
            state.stuck += 1;
            state.stuck_because = step.stuck;
            if state.stuck >= MOST_STUCK {
                state.stopped = state.stopped.or(step.stuck);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    pub fn stop(&self, why: &'static str) {
        let mut state = self.lock();
        state.stopped = state.stopped.or(Some(why));
        drop(state);
        self.changed.notify_all();
    }

    /// Lets no more parts be taken, if everything that is open can be split.
    pub fn pause(&self) {
        let mut state = self.lock();
        state.paused = state.stuck == 0;
        drop(state);
        self.changed.notify_all();
    }

    pub fn guard(&self) -> Guard<'_> {
        Guard(self)
    }

    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// How the search ended, once no thread is working any more.
    pub fn end(self) -> Explored {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let open = state.open.len() as u64 + state.stuck + state.taken;
        let excluded = state.excluded.unwrap_or(f64::INFINITY);
        if open == 0 {
            return Explored::Ended(Outcome::Excluded(excluded));
        }
        if state.paused && state.stopped.is_none() && state.stuck + state.taken == 0 {
            return Explored::Paused(Step { open: state.open.into(), excluded: state.excluded, ..Step::default() });
        }
        // Of a part that is stuck or was not given back nothing is known.
        let unknown = if state.stuck + state.taken > 0 { f64::NEG_INFINITY } else { excluded };
        let bound = state.open.iter().map(Part::bound).fold(unknown, f64::min);
        let why = state.stopped.or(state.stuck_because).unwrap_or("stopped");
        Explored::Ended(Outcome::Stopped { bound, why, open })
    }
}

/// Stops the search when the thread that holds it panics.
pub(super) struct Guard<'q>(&'q Queue);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop("a thread failed");
        }
    }
}

impl State {
    /// The part on top; every other time the oldest box, because a witness may be far from where the search went first.
    fn first(&mut self) -> Option<Part> {
        self.turns += 1;
        let oldest = self.turns.is_multiple_of(2) && self.open.len() < MOST_BROAD;
        match self.open.front() {
            Some(Part::Box(_)) if oldest => self.open.pop_front(),
            _ => self.open.pop_back(),
        }
    }

    fn top(&mut self, most: usize) -> Vec<Part> {
        let fits = |a: &Part, b: &Part| match (a, b) {
            (Part::Split(a), Part::Split(b)) => a.is_like(b),
            _ => false,
        };
        let Some(first) = self.first() else { return vec![] };
        let mut parts = vec![first];
        while parts.len() < most && self.open.back().is_some_and(|next| fits(&parts[0], next)) {
            parts.extend(self.open.pop_back());
        }
        parts
    }
}
