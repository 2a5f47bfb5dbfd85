//! Differences between two values and saturation of integers, gathered batch by batch.

use quaver::net::{Enclosure, Node, Op, ScalarFn};

/// Where two values differ most, and how much on average.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    /// Elements compared.
    pub elements: u64,
    /// Elements that differ.
    pub different: u64,
    /// Largest |a - b|.
    pub largest: f64,
    /// Row and element of the largest.
    pub at: (usize, usize),
    sum: f64,
    magnitude: f64,
}

impl Difference {
    /// Adds a batch whose first row has this number; values are in real units.
    pub fn add(&mut self, first_row: usize, len: usize, a: &[f64], b: &[f64]) {
        for (i, (x, y)) in a.iter().zip(b).enumerate() {
            let difference = (x - y).abs();
            self.different += u64::from(difference > 0.0);
            if difference > self.largest {
                (self.largest, self.at) = (difference, (first_row + i / len, i % len));
            }
            self.sum += difference;
            self.magnitude += x.abs();
        }
        self.elements += a.len() as u64;
    }

    /// Adds what was gathered elsewhere, from later rows.
    pub fn merge(&mut self, other: &Difference) {
        self.elements += other.elements;
        self.different += other.different;
        self.sum += other.sum;
        self.magnitude += other.magnitude;
        if other.largest > self.largest {
            (self.largest, self.at) = (other.largest, other.at);
        }
    }

    /// Mean |a - b|.
    pub fn mean(&self) -> f64 {
        if self.elements == 0 { 0.0 } else { self.sum / self.elements as f64 }
    }

    /// Mean |a - b| over mean |a|; `None` where a is zero everywhere and b is not.
    pub fn relative(&self) -> Option<f64> {
        match (self.sum, self.magnitude) {
            (0.0, _) => Some(0.0),
            (_, 0.0) => None,
            (s, m) => Some(s / m),
        }
    }
}

/// How many integers are at an end of their range.
#[derive(Clone, Copy, Debug, Default)]
pub struct Saturation {
    /// Elements looked at.
    pub elements: u64,
    /// At the smallest value.
    pub low: u64,
    /// At the largest value.
    pub high: u64,
}

impl Saturation {
    /// An empty count, if some of the node's elements are integers with ends: steps of more than two values.
    pub fn of(node: &Node) -> Option<Saturation> {
        let Op::Pointwise(p) = &node.op else { return None };
        p.functions.data.iter().any(has_ends).then(Saturation::default)
    }

    /// Adds a batch of the node's values.
    pub fn add(&mut self, node: &Node, values: &[f64]) {
        let Op::Pointwise(p) = &node.op else { return };
        let len = node.len();
        let ended = |(i, x)| Some((p.functions.at(i % len), x)).filter(|(f, _)| has_ends(f));
        for (f, x) in values.iter().enumerate().filter_map(ended) {
            let (lo, hi) = f.range();
            self.elements += 1;
            self.low += u64::from(*x <= lo);
            self.high += u64::from(*x >= hi);
        }
    }

    /// Adds what was gathered elsewhere.
    pub fn merge(&mut self, other: &Saturation) {
        self.elements += other.elements;
        self.low += other.low;
        self.high += other.high;
    }
}

fn has_ends(f: &ScalarFn) -> bool {
    matches!(f, ScalarFn::Step(s) if s.values().len() > 2)
}

/// Reference values in real units: scale (q - zero point) where that is what integers mean.
pub fn in_real_units(node: &Node, value: &Enclosure) -> Vec<f64> {
    let Some(q) = &node.quantization else { return value.center.clone() };
    let len = node.len();
    let real = |(i, x): (usize, &f64)| q.scale.at(i % len) * (x - *q.zero_point.at(i % len) as f64);
    value.center.iter().enumerate().map(real).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_whole() {
        let (a, b) = ([1.0, -2.0, 3.0, 4.0], [1.0, -2.5, 3.0, 6.0]);
        let mut whole = Difference::default();
        whole.add(0, 2, &a, &b);
        let (mut first, mut second) = (Difference::default(), Difference::default());
        first.add(0, 2, &a[..2], &b[..2]);
        second.add(1, 2, &a[2..], &b[2..]);
        first.merge(&second);
        assert_eq!((whole.largest, whole.at, whole.mean()), (2.0, (1, 1), 0.625));
        assert_eq!((first.largest, first.at, first.mean()), (whole.largest, whole.at, whole.mean()));
        assert_eq!(first.relative(), Some(0.25));
    }
}
