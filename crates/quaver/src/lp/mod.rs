//! Linear and mixed-integer programs, solvers for them, and bounds that hold whatever a solver did.
//!
//! Solvers compute in floating point and are not believed. What they return is evidence: a point is executed elsewhere, and a dual vector
//! becomes a rigorous bound here ([`safe_bound`], [`safe_infeasible`]).

mod find;
mod highs;
mod micro;
mod program;
mod safe;
mod solver;

pub use find::{NotFound, find_highs};
pub use highs::{Highs, HighsError};
pub use micro::Micro;
pub use program::{Column, Program, Row};
pub use safe::{safe_bound, safe_infeasible};
pub use solver::{MilpAnswer, MilpStatus, Relaxation, RelaxationAnswer, Solver};
