//! What is bounded.

use crate::num::round::{add_up, mul_up};

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
        // A float32, as certificates hold it.
        let weights = vec![f64::from(1.0 / functionals.len().max(1) as f32); functionals.len()];
        Objective { functionals, weights }
    }

    /// A value not below the combination of the bounds.
    pub fn bound(&self) -> f64 {
        let each = self.functionals.iter().zip(&self.weights);
        each.fold(0.0, |sum, (f, w)| add_up(sum, mul_up(*w, f.bound)))
    }

    /// The functional, if there is only one.
    pub fn single(&self) -> Option<&Functional> {
        if let [only] = &self.functionals[..] { Some(only) } else { None }
    }
}
