//! What a search proves, step by step: `docs/certificate.md` says what each step means, and a checker of its own proves each again.
//!
//! The search tells a [`Tracer`] what it does; without one it does nothing more.

mod write;

use std::sync::Arc;

pub use write::{Recorder, Writer};

/// A split of a function: its number among the functions of the net, its element, the last argument of the first half and the first of the second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    /// Number of the function.
    pub function: usize,
    /// Element of the function.
    pub element: usize,
    /// The last argument of the first half.
    pub below: f64,
    /// The first argument of the second half.
    pub above: f64,
}

/// What a walk chooses.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// For each open element its lower and its upper line, in 255ths of the way from the first to the last of its ends.
    pub places: Arc<Vec<u8>>,
    /// Multipliers of the first splits that the part was made by.
    pub betas: Vec<f64>,
}

/// Splits of functions, with a walk for each part that is left.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// A walk.
    Leaf(Choice),
    /// A split and its halves.
    Cut(Cut, Box<[Tree; 2]>),
}

/// Bounds on an element of a function's argument, and for each the tree that proves it, unless the bounds of every part of the same box do.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The element.
    pub element: usize,
    /// The bounds.
    pub ends: [f32; 2],
    /// The trees.
    pub proofs: [Option<Tree>; 2],
}

/// Sees the steps of one proof. Parts of the region are numbered by whoever listens.
pub trait Tracer: Send + Sync + std::fmt::Debug {
    /// A goal (given by its number in the question) is excluded in a part by one walk, for these weights of its rows; with default lines where
    /// nothing was chosen.
    fn close(&self, part: u64, goal: usize, weights: &[f64], choice: Option<Choice>);

    /// Nothing is left of a part.
    fn empty(&self, part: u64);

    /// A part is cut in two, for some goals, along an element of the start: up to `at`, and from there (on integers: from the next one).
    fn halve(&self, part: u64, goals: &[usize], element: usize, at: f64) -> [u64; 2];

    /// A part is cut in two, for a goal, at a function.
    fn cut(&self, part: u64, goal: usize, cut: Cut) -> [u64; 2];

    /// Bounds on the argument of a function in a part that is a box; those of one box come in the order of the functions.
    fn claims(&self, part: u64, function: usize, claims: &[Claim]);

    /// What came until now is to stay.
    fn mark(&self);

    /// Forgets what came after the mark.
    fn rewind(&self);

    /// Something was proved in a way that has no step yet: there is no certificate.
    fn has_no_step(&self, what: &'static str);
}
