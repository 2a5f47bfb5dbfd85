//! Numbers: exact dyadic rationals, outward-rounded `f64`, and the float32 lattice.
//!
//! Three worlds, kept apart: [`Dyadic`] and [`Ratio`] are exact; the functions of [`round`] return `f64` values on a stated
//! side of the exact result; a bare `f64` without either is a hint and concludes nothing.

mod dyadic;
pub mod float16;
pub mod float32;
mod ratio;
pub mod round;

pub use dyadic::Dyadic;
pub use ratio::{ParseRatioError, Ratio};
