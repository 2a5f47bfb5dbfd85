//! ONNX files: what a model means in exact real arithmetic, in ONNX Runtime's integer kernels, in fixed point.
//!
//! Three steps, each in its own file: bytes to fields (`wire`), fields to plain structures (`graph`), structures to a
//! [`Net`] (`lower`, with a file for each family of operators; `quantized` and `fixed` hold the rules of the other
//! arithmetics). Whatever is not understood is refused by name.

use crate::net::Net;
use crate::unpack::unpacked;
use fixed::Format;
use lower::Arithmetic;

mod call;
mod fixed;
mod graph;
mod layout;
mod linear;
mod lower;
mod quantized;
#[cfg(test)]
mod quantized_tests;
mod real_quantized;
mod steps;
mod sums;
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
    Ok(read(bytes, "real")?.0)
}

/// Reads a model, packed by gzip or not, under a profile: `real`, `ort-fused` or
/// `fixed-point(Q,F[,weights=N][,input=N])`, as `docs/profiles.md` defines them. With the net come the assumptions about
/// the machine under which it is exact.
///
/// # Errors
/// If anything in the file or in the profile is not understood. The text says what, where and why.
pub fn read(bytes: &[u8], profile: &str) -> Result<(Net, Vec<String>), String> {
    let arithmetic = match profile {
        "real" => Arithmetic::Real,
        "ort-fused" => Arithmetic::Fused,
        _ => Arithmetic::Fixed(Format::parse(profile)?),
    };
    let assumed: &[&str] = if matches!(arithmetic, Arithmetic::Fused) { &quantized::ASSUMED } else { &[] };
    let net = lower::lower(graph::model(&unpacked(bytes, LARGEST)?)?, arithmetic)?;
    Ok((net, assumed.iter().map(ToString::to_string).collect()))
}
