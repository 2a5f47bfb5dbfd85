//! Choosing how a network is quantized.

pub mod search;
