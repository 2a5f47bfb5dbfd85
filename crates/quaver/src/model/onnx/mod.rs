//! ONNX files: a reader that refuses what it does not understand, and a writer.
//!
//! Reading turns a file into a [`crate::model::ir::Model`]: every attribute is looked at, every default is made
//! explicit, shapes are inferred and checked against those the file declares, and constant arithmetic is folded.
//! [`fn@write`] is the inverse, up to the normalisation that the reader does.

mod attributes;
mod context;
mod error;
mod ops;
mod ops_constant;
mod ops_layout;
mod ops_quant;
mod ops_window;
pub mod proto;
mod read;
mod tensor;
mod write;
mod write_ops;

#[cfg(test)]
mod tests;

pub use error::WriteError;
pub use read::OPSETS;
pub(super) use read::decode;
pub use tensor::tensor_bytes;
pub use write::write;
