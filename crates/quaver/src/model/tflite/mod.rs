//! TensorFlow Lite files: a reader that refuses what it does not understand.
//!
//! A tensor of the file may be two values of the model: in the file's layout [N, H, W, C], and channels first, as the convolutions of
//! [`crate::model::ir`] want it. Each form is made where it is first needed, and kept.

mod context;
mod graph;
mod names;
mod ops;
mod ops_layout;
mod ops_window;
mod read;
mod schema;
mod tensors;
mod write;

pub(super) use read::decode;
pub use write::{Activation, Builtin, ElementType, ModelWriter, OperatorOptions, Padding, TensorSpec};

/// Whether bytes are a TensorFlow Lite model, by the identifier in their header.
pub(super) fn is_model(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(b"TFL3")
}

#[cfg(test)]
mod tests;
