//! What is known about a box: proved bounds on every value, and the choices that they leave open.

use crate::bounds::{Analysis, Bounds, Choices, Extent, NoBounds, Prepared, analyse_within};
use crate::property::Region;

/// Bounds for a box of the start's values.
pub(in crate::verify) struct Frame {
    pub region: Region,
    pub analysis: Analysis,
    pub choices: Choices,
}

impl Frame {
    /// Bounds the box; what is known about a box around it still holds.
    pub fn new(prepared: &Prepared, extent: Extent<'_>, known: Option<&[Bounds]>) -> Result<Self, NoBounds> {
        let analysis = analyse_within(prepared, extent, known)?;
        let choices = Choices::new(prepared, &analysis, extent.last);
        Ok(Frame { region: extent.region.clone(), analysis, choices })
    }
}
