//! Agreement of a float network and quantized ones over every input, and guards that return the float network's class.
//!
//! [`thresholds`] proves how far a quantized network can lead with a class that the float network does not give, [`cells`] for which inputs, and [`witness`]
//! shows leads
//! that occur. [`kernels`]
//! executes quantized chains in integers, bit for bit as their nets say. [`run`] puts both together by a [`plan`]: the quantized network with the
//! fewest bits that is sure of the float network's class answers.

mod boxes;
pub mod cells;
mod exact;
pub mod kernels;
mod local;
pub mod onnx;
pub mod plan;
pub mod programs;
pub mod refute;
pub mod run;
pub mod thresholds;
pub mod witness;
