//! A quantized network that runs in the place of the float network it was made from.
//!
//! [`kernels`] executes a quantized chain in integers, bit for bit as its net says, and a float chain in float32.

pub mod kernels;
