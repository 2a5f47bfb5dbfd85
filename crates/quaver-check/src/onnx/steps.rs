//! Step functions, found by bisection on the formula itself.

use crate::net::Shape;

/// Float32 numbers in their order: from this one's negative to this one, all that are finite.
pub(super) const FLOATS: i64 = 0x7f7f_ffff;
/// The range of 32-bit integers, without the smallest.
pub(super) const INTEGERS: i64 = i32::MAX as i64;

/// The float32 number at a place in the order; 0 is at 0.
pub(super) fn float(place: i64) -> f32 {
    let size = f32::from_bits(place.unsigned_abs() as u32);
    if place < 0 { -size } else { size }
}

/// The step function that `at` is on all places -end..=end, where it must not decrease; `number` is a place's argument.
pub(super) fn steps(end: i64, at: impl Fn(i64) -> i64, number: impl Fn(i64) -> f64) -> Shape {
    let (mut from, mut value, last) = (-end, at(-end), at(end));
    let (mut starts, mut values) = (vec![], vec![value as f64]);
    while value < last {
        let mut to = end;
        // at(from) = value < at(to)
        while to - from > 1 {
            let middle = from + (to - from) / 2;
            if at(middle) > value { to = middle } else { from = middle }
        }
        (from, value) = (to, at(to));
        starts.push(number(to));
        values.push(value as f64);
    }
    Shape::Step { starts, values }
}

/// A step function, then a function that does not decrease; none of another kind.
pub(super) fn composed(first: &Shape, then: impl Fn(f64) -> f64) -> Option<Shape> {
    let Shape::Step { starts, values } = first else { return None };
    let (mut kept, mut reached) = (vec![], vec![then(values[0])]);
    for (&start, &value) in starts.iter().zip(&values[1..]) {
        let value = then(value);
        if reached.last().is_some_and(|&before| before < value) {
            kept.push(start);
            reached.push(value);
        }
    }
    Some(Shape::Step { starts: kept, values: reached })
}
