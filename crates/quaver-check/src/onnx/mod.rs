//! ONNX files: what a model means in exact real arithmetic.
//!
//! Three steps, each in its own file: bytes to fields (`wire`), fields to plain structures (`graph`), structures to a
//! [`Net`] (`lower`, with a file for each family of operators). Whatever is not understood is refused by name.

use crate::net::Net;
use crate::unpack::unpacked;

mod call;
mod graph;
mod layout;
mod linear;
mod lower;
#[cfg(test)]
mod tests;
mod window;
mod wire;

/// Largest size of an unpacked file.
const LARGEST: u64 = 1 << 31;

/// Reads a model, packed by gzip or not, under the profile `real`: every stored number is exact, every operation too.
///
/// # Errors
/// If anything in the file is not understood. The text says what, where and why.
pub fn read_real(bytes: &[u8]) -> Result<Net, String> {
    lower::lower(graph::model(&unpacked(bytes, LARGEST)?)?)
}
