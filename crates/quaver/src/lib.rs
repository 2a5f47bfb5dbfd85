//! Quaver takes a neural network, gives it the exact arithmetic of the runtime that runs it, and proves properties of the
//! numbers that come out.
//!
//! The spine, from a file to a verdict (see `ARCHITECTURE.md`):
//! [`model`] reads a file and lowers it under an arithmetic profile to a [`net::Net`]; [`property`] states a closed claim about a net,
//! also from queries that [`vnnlib`] reads;
//! [`bounds`] proves bounds; [`verify`] decides, and tells [`certificate`] how. [`export`] writes questions for other tools;
//! [`guard`] runs quantized networks.

pub mod bounds;
pub mod certificate;
pub mod export;
pub mod guard;
pub mod lp;
pub mod model;
pub mod net;
pub mod num;
pub mod property;
pub mod quantize;
pub mod verify;
pub mod vnnlib;
