//! What is known about a box: proved bounds on every value, and the choices that they leave open.

use crate::bounds::{Analysis, Choices, Prepared};
use crate::net::NodeId;
use crate::property::Region;

/// Bounds for a box of the start's values.
pub(in crate::verify) struct Frame {
    pub region: Region,
    pub analysis: Analysis,
    pub choices: Choices,
    /// Whether more effort would narrow the bounds.
    pub rough: bool,
    /// The tracer's number of the box.
    pub number: u64,
}

impl Frame {
    /// A box with its bounds, which reach up to the value `last`.
    pub fn new(prepared: &Prepared, region: Region, analysis: Analysis, last: NodeId, number: u64) -> Self {
        let choices = Choices::new(prepared, &analysis, last);
        let rough = choices.rest_on_bounds(prepared);
        Frame { region, analysis, choices, rough, number }
    }
}
