//! What a search proves, step by step: `docs/certificate.md` says what each step means, and a checker of its own proves each again.
//!
//! The search tells a [`Tracer`] what it does; without one it does nothing more.

mod write;

pub use write::{Recorder, Writer};

/// Sees the steps of one proof. Parts of the region are numbered by whoever listens.
pub trait Tracer: Send + Sync + std::fmt::Debug {
    /// A goal (given by its number in the question) is excluded in a part by one walk with default lines, for these weights of its rows.
    fn close(&self, part: u64, goal: usize, weights: &[f64]);

    /// Nothing is left of a part.
    fn empty(&self, part: u64);

    /// A part is cut in two along an element of the start: up to `at`, and from there (on integers: from the next one).
    fn halve(&self, part: u64, element: usize, at: f64) -> [u64; 2];

    /// Something was proved in a way that has no step yet: there is no certificate.
    fn has_no_step(&self, what: &'static str);
}
