//! The lines that walks choose for a function.

use super::{Batch, Enclosed, Pair, Row};
use crate::lines::{Ends, Line, Side, blend};

/// The lines that a batch has for one function, element by element.
pub(super) struct Lines<'b> {
    rows: &'b [Row],
    enclosed: &'b Enclosed,
    /// Where the places of this function begin, and how many open elements were passed.
    first: usize,
    passed: usize,
    /// Rows with a cut on an element, in order of both; the last one of a row counts.
    own: Vec<(usize, usize, Ends)>,
    passed_own: usize,
    pairs: Vec<Pair>,
}

impl<'b> Lines<'b> {
    pub fn new(batch: &Batch<'b>, id: usize) -> Self {
        let (rows, frame) = (batch.rows, batch.frame);
        let cuts = rows.iter().enumerate().flat_map(|(r, row)| row.cuts.iter().map(move |c| (r, c)));
        let mut own: Vec<_> = cuts.filter(|(_, c)| c.function == id).map(|(r, c)| (c.element, r, c.ends)).collect();
        own.sort_by_key(|o| (o.0, o.1));
        let (first, pairs) = (frame.places(id), vec![Pair::default(); rows.len()]);
        Lines { rows, enclosed: &frame.enclosed[id], first, passed: 0, own, passed_own: 0, pairs }
    }

    /// Those of the next element, for every row.
    pub fn of(&mut self, element: usize, magnitude: f64) -> &[Pair] {
        self.pairs.fill(self.enclosed.lines[element]);
        let Some((_, ends)) = self.enclosed.open.get(self.passed).filter(|o| o.0 == element) else {
            return &self.pairs;
        };
        let k = self.first + 2 * self.passed;
        self.passed += 1;
        let pair = |row: &Row, ends: &Ends| {
            let blended =
                |[a, b]: [Line; 2], k: usize, side| blend(a, b, f64::from(row.places[k]) / 255.0, side, magnitude);
            Pair { lower: blended(ends.lower, k, Side::Below), upper: blended(ends.upper, k + 1, Side::Above) }
        };
        for (own, row) in self.pairs.iter_mut().zip(self.rows).filter(|(_, row)| !row.places.is_empty()) {
            *own = pair(row, ends);
        }
        while let Some((of, r, ends)) = self.own.get(self.passed_own).filter(|o| o.0 <= element) {
            if *of == element && !self.rows[*r].places.is_empty() {
                self.pairs[*r] = pair(&self.rows[*r], ends);
            }
            self.passed_own += 1;
        }
        &self.pairs
    }
}
