//! ONNX files: what a model means in exact real arithmetic.
//!
//! Three steps, each in its own file: bytes to fields (`wire`), fields to plain structures (`graph`), structures to a
//! [`Net`] (`lower`, with a file for each family of operators). Whatever is not understood is refused by name.

use std::io::Read;

use crate::net::Net;

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
    let model = match bytes {
        [0x1f, 0x8b, ..] => graph::model(&unpacked(bytes)?),
        _ => graph::model(bytes),
    };
    lower::lower(model?)
}

fn unpacked(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut all = vec![];
    let read = flate2::read::MultiGzDecoder::new(bytes).take(LARGEST + 1).read_to_end(&mut all);
    read.map_err(|why| format!("the gzip file is damaged: {why}"))?;
    if all.len() as u64 > LARGEST {
        return Err(format!("the unpacked file is larger than {LARGEST} bytes"));
    }
    Ok(all)
}
