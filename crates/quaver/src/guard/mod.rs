//! Agreement of a float network and quantized ones over every input, and guards that return the float network's class.
//!
//! [`thresholds`] proves how far a quantized network can lead with a class that the float network does not give, [`cells`] for which inputs.

pub mod cells;
mod exact;
pub mod thresholds;
