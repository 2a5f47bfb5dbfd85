//! Models: what a file says.
pub mod ir;
