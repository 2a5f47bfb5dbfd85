//! Checks certificates: reads the user's own model and property, and proves every claim of a certificate again.
//!
//! Nothing here is shared with the prover. The rules of proof are in `docs/certificate.md`; each has one function here.

#![forbid(unsafe_code)]

pub mod analysis;
pub mod bounds;
pub mod file;
pub mod goal;
pub mod lines;
mod map;
mod models;
pub mod net;
pub mod onnx;
pub mod pair;
mod proof;
pub mod property;
pub mod rational;
pub mod round;
mod threads;
mod unpack;
pub mod walk;

pub use models::Given;
pub use proof::{Proved, check, check_all};
