//! What a solver is asked for and what it answers.

use std::fmt::Debug;
use std::time::Duration;

use super::Program;

/// A solver of programs. Whatever it says is a hint: points are executed, and duals become bounds in [`super::safe_bound`].
pub trait Solver: Debug + Send + Sync {
    /// Name and version.
    fn name(&self) -> String;

    /// Whether its relaxations come with duals and rays, without which nothing can be proved.
    fn gives_evidence(&self) -> bool;

    /// The program without its integrality, to be solved again and again under other column bounds; `None` if the solver cannot take it.
    fn relaxation(&self, program: &Program) -> Option<Box<dyn Relaxation>>;

    /// Searches an integer point of least cost.
    fn search(&self, program: &Program, limit: Duration) -> MilpAnswer;
}

/// A linear program that is solved again after its bounds have changed, from where the last solution was.
pub trait Relaxation {
    /// Changes the bounds of one column.
    fn set_bounds(&mut self, column: usize, lo: f64, hi: f64);

    /// Solves it.
    fn solve(&mut self, limit: Duration) -> RelaxationAnswer;
}

/// What a solver says about a linear program.
#[derive(Clone, Debug)]
pub enum RelaxationAnswer {
    /// It found an optimum.
    Optimal {
        /// Values of the columns.
        point: Vec<f64>,
        /// A multiplier for each row, none where the solver has none.
        duals: Option<Vec<f64>>,
    },
    /// It found that there is no point.
    Infeasible {
        /// Multipliers that should prove it, if the solver has them.
        ray: Option<Vec<f64>>,
    },
    /// Neither, and why.
    GaveUp(String),
}

/// How a search ended, by the solver's own account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MilpStatus {
    /// It found a point of least cost.
    Optimal,
    /// It found that there is no point.
    Infeasible,
    /// It came to its limit.
    Limit,
    /// It failed, and why.
    Failed(String),
}

/// What a solver says about a mixed-integer program.
#[derive(Clone, Debug)]
pub struct MilpAnswer {
    /// How the search ended.
    pub status: MilpStatus,
    /// The best point found.
    pub point: Option<Vec<f64>>,
    /// The solver's lower bound on the cost, computed in floating point.
    pub bound: f64,
}

impl MilpAnswer {
    /// A search that ended without a point or a bound.
    pub(super) fn empty(status: MilpStatus) -> Self {
        MilpAnswer { status, point: None, bound: f64::NEG_INFINITY }
    }
}
