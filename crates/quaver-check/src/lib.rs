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
pub mod net;
pub mod onnx;
mod proof;
pub mod property;
pub mod rational;
pub mod round;
mod threads;
mod unpack;
pub mod walk;

pub use proof::{Proved, check};
