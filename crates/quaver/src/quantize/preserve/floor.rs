//! How accurate a network must be.

use crate::model::lower::Lowered;
use crate::quantize::data::{CHUNK, Data, first_largest, outputs, reference};

/// Data, and how much of it may be classified wrongly.
#[derive(Clone, Debug)]
pub struct Floor {
    /// Those that the original is least sure of first: a network that is not accurate shows it early.
    data: Data,
    /// Elements of a row.
    row: usize,
    /// Rows that the original gets wrong.
    original: usize,
    /// Rows that may be wrong.
    most: usize,
}

impl Floor {
    /// What the original gets wrong, and a share of the data on top of it.
    pub fn new(data: Data, original: &Lowered, drop: f64) -> Floor {
        let count = data.labels.len();
        let row = data.rows.len() / count.max(1);
        let margins = outputs(reference(original), &data.rows, row, |k, y| {
            let label = data.labels[k];
            let rival = (0..y.len()).filter(|&i| i != label).map(|i| y[i]).fold(f64::NEG_INFINITY, f64::max);
            (first_largest(y) == label, y[label] - rival)
        });
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|a, b| margins[*a].1.total_cmp(&margins[*b].1));
        let rows = order.iter().flat_map(|&k| data.rows[k * row..(k + 1) * row].iter().copied()).collect();
        let labels = order.iter().map(|&k| data.labels[k]).collect();
        let wrong = margins.iter().filter(|m| !m.0).count();
        // A share is rounded down: less may be wrong, never more.
        let more = (drop * count as f64).floor().max(0.0) as usize;
        Floor { data: Data { rows, labels }, row, original: wrong, most: wrong.saturating_add(more).min(count) }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.data.labels.len()
    }

    /// The inputs and their classes, those that the original is least sure of first.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Rows that the original gets wrong.
    pub fn original(&self) -> usize {
        self.original
    }

    /// Rows that may be wrong.
    pub fn most(&self) -> usize {
        self.most
    }

    /// How many rows a network gets wrong, and of how many: all of them, unless more than `enough` are wrong before.
    pub fn wrong(&self, lowered: &Lowered, enough: usize) -> (usize, usize) {
        let at_once = CHUNK * rayon::current_num_threads().max(1);
        let (mut wrong, mut seen) = (0, 0);
        for (labels, rows) in self.data.labels.chunks(at_once).zip(self.data.rows.chunks(at_once * self.row.max(1))) {
            let right = outputs(reference(lowered), rows, self.row, |k, y| first_largest(y) == labels[k]);
            wrong += right.iter().filter(|r| !**r).count();
            seen += labels.len();
            if wrong > enough {
                break;
            }
        }
        (wrong, seen)
    }
}
