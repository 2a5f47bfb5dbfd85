//! Models: what a file says, and what it means under an arithmetic profile.
//!
//! [`read()`] makes an [`ir::Model`]; [`lower::lower`] turns it into a [`crate::net::Net`] under a [`profile::Profile`].

pub mod build;
pub mod import;
pub mod ir;
pub mod lower;
pub mod onnx;
pub mod profile;
mod read;
pub mod tflite;

pub use import::{ImportError, ReadOptions};
pub use read::{read, read_bytes, sha256};
