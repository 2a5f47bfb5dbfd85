//! Data that networks are measured on.

use rayon::prelude::*;

use crate::model::lower::Lowered;
use crate::net::{Net, execute};

/// What accuracy is measured on.
#[derive(Clone, Debug)]
pub struct Data {
    /// Inputs, row-major.
    pub rows: Vec<f64>,
    /// The class of each.
    pub labels: Vec<usize>,
}

/// Rows that one thread executes at once.
pub(super) const CHUNK: usize = 256;

impl Data {
    /// The share of rows whose label is the class that a function of the outputs gives.
    pub(super) fn share(&self, net: &Net, class: impl Fn(&[f64]) -> usize + Sync) -> f64 {
        let row = self.rows.len() / self.labels.len().max(1);
        let right = outputs(net, &self.rows, row, |k, y| class(y) == self.labels[k]);
        right.iter().filter(|r| **r).count() as f64 / self.labels.len().max(1) as f64
    }
}

/// The net that data are classified by: where several runtimes are meant, that of the first.
pub(super) fn reference(lowered: &Lowered) -> &Net {
    &lowered.members.first().unwrap_or(lowered).net
}

/// Something about the outputs of each row, by the net's reference values.
pub(super) fn outputs<T: Send>(net: &Net, rows: &[f64], row: usize, of: impl Fn(usize, &[f64]) -> T + Sync) -> Vec<T> {
    let n = net.node(net.outputs()[0]).len();
    let chunk = |(c, part): (usize, &[f64])| {
        let outputs = execute(net, &[part.to_vec()], part.len() / row).swap_remove(0).center;
        outputs.chunks(n).enumerate().map(|(k, y)| of(c * CHUNK + k, y)).collect::<Vec<T>>()
    };
    rows.par_chunks(CHUNK * row.max(1)).enumerate().flat_map_iter(chunk).collect()
}

/// The first largest of some numbers.
pub(super) fn first_largest(y: &[f64]) -> usize {
    (0..y.len()).fold(0, |best, i| if y[i] > y[best] { i } else { best })
}
