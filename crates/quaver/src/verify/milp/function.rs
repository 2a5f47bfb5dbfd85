//! Scalar functions as rows and 0-1 columns.

use super::sum::{Element, Sum};
use crate::lp::{Column, Program};
use crate::net::{Grid, Segment};
use crate::num::round::{add_up, mul_down, mul_up, sub_down, sub_up};

/// What a function's argument and value are, and how it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Of the argument and the value.
    pub grids: (Grid, Grid),
    /// See [`super::encode::Style`]: integers may be any numbers between.
    pub relaxed: bool,
    /// See [`super::encode::Style`]; in units of the value.
    pub trapezoid: f64,
}

/// How far a rounding step of real arguments may be from a straight band and still be written as one.
const NEARLY: f64 = 1e-6;

/// A 0-1 column.
pub(super) fn binary(program: &mut Program) -> Element {
    Element::Column(program.add_column(Column { lo: 0.0, hi: 1.0, cost: 0.0, integer: true }))
}

/// Rows that tie y to f(x) for a graph of segments, of which there is at least one; `y` is a column or a constant.
///
/// # Claim
/// For every x on the grid and y = f(x) there are values of the new columns that satisfy all rows. Over the integers nothing else satisfies
/// them; over the reals a jump's place may take both values, and an almost evenly spaced step may jump 1e-6 of a step early or late. Relaxed ones leave
/// more.
///
/// # Source
/// Huang et al., Towards Efficient Verification of Quantized Neural Networks (AAAI 2024), formulas 7 to 11: rounding as an integer in a
/// band of width 1 and clipping by 0-1 variables are [`Band`]; [`ladder`] takes every other step. Kabaha and Drachsler Cohen, Quantization with Guaranteed
/// Floating-Point Neural Network Classifications (OOPSLA 2025), equations 2 to 4: the same band with real values is their parallelogram, and clipping without
/// a 0-1 variable their trapezoid.
pub(super) fn tie(program: &mut Program, segments: &[Segment], shape: Shape, x: &Element, y: &Element) {
    match segments {
        _ if matches!(x, Element::Constant(_)) => constant(program, segments, y),
        [only] => line(program, only, x, y),
        _ if segments.iter().all(|s| s.slope == 0.0) => match Band::fit(segments, shape) {
            Some(band) => band.tie(program, segments, shape.trapezoid, x, y),
            None => ladder(program, segments, x, y),
        },
        [a, b] if a.value.0 == a.value.1 && b.value.0 == b.value.1 => hinge(program, a, b, x, y),
        _ => pieces(program, segments, x, y),
    }
}

/// The argument is fixed: so is the value, up to its enclosure.
fn constant(program: &mut Program, segments: &[Segment], y: &Element) {
    let (lo, hi) = segments[0].value;
    Sum::constant(0.0).with(y, 1.0).within(program, lo, hi);
}

/// One segment: y = value + slope (x - from).
fn line(program: &mut Program, s: &Segment, x: &Element, y: &Element) {
    along(s, x).with(y, -1.0).zero(program);
}

/// value + slope (x - from).
fn along(s: &Segment, x: &Element) -> Sum {
    Sum::between(s.value).with(&Element::Constant(s.from), -s.slope).with(x, s.slope)
}

/// Two segments that meet, as a ReLU's do: y is on or beyond both lines, and on one of them, which a 0-1 column chooses.
fn hinge(program: &mut Program, a: &Segment, b: &Segment, x: &Element, y: &Element) {
    let z = binary(program);
    // A convex hinge is the larger line, a concave one the smaller: then every row is turned round.
    let side = if b.slope >= a.slope { 1.0 } else { -1.0 };
    let bend = if side > 0.0 { sub_up(b.slope, a.slope) } else { sub_up(a.slope, b.slope) };
    let scaled = |s: &Segment| {
        let value = if side > 0.0 { s.value } else { (-s.value.1, -s.value.0) };
        along(&Segment { value, slope: side * s.slope, ..*s }, x)
    };
    for s in [a, b] {
        scaled(s).with(y, -side).not_positive(program);
    }
    let (beyond, before) = (mul_up(bend, sub_up(b.to, b.from)), mul_up(bend, sub_up(a.to, a.from)));
    scaled(a).negated().with(y, side).with(&z, -beyond).not_positive(program);
    scaled(b).negated().with(y, side).with(&z, before).plus(-before).not_positive(program);
}

/// Any continuous graph: x and y walk along the segments; the next begins only where the one before is complete.
fn pieces(program: &mut Program, segments: &[Segment], x: &Element, y: &Element) {
    let first = &segments[0];
    let mut across = Sum::constant(first.from).with(x, -1.0);
    let mut up = Sum::between(first.value).with(y, -1.0);
    let mut complete: Option<Element> = None;
    for (k, s) in segments.iter().enumerate() {
        let (most, least) = (sub_up(s.to, s.from), sub_down(s.to, s.from));
        let walked = program.add_column(Column { lo: 0.0, hi: most, cost: 0.0, integer: false });
        let walked = Element::Column(walked);
        across.add(&walked, 1.0);
        up.add(&walked, s.slope);
        if let Some(before) = &complete {
            Sum::constant(0.0).with(&walked, 1.0).with(before, -most).not_positive(program);
        }
        if k + 1 < segments.len() {
            let z = binary(program);
            Sum::constant(0.0).with(&z, least).with(&walked, -1.0).not_positive(program);
            complete = Some(z);
        }
    }
    across.zero(program);
    up.zero(program);
}

/// Any step function: a 0-1 column for each jump, in order.
///
/// # Why
/// With the first k columns at 1 the rows say from_k <= x <= to_k and y = value_k.
fn ladder(program: &mut Program, segments: &[Segment], x: &Element, y: &Element) {
    let first = &segments[0];
    let mut value = Sum::between(first.value).with(y, -1.0);
    let mut left = Sum::constant(first.from).with(x, -1.0);
    let mut right = Sum::constant(-first.to).with(x, 1.0);
    let mut before: Option<Element> = None;
    for w in segments.windows(2) {
        let z = binary(program);
        value.add_between(&z, (sub_down(w[1].value.0, w[0].value.0), sub_up(w[1].value.0, w[0].value.0)));
        left.add_between(&z, (sub_down(w[1].from, w[0].from), sub_up(w[1].from, w[0].from)));
        right.add_between(&z, (-sub_up(w[1].to, w[0].to), -sub_down(w[1].to, w[0].to)));
        if let Some(before) = &before {
            Sum::constant(0.0).with(&z, 1.0).with(before, -1.0).not_positive(program);
        }
        before = Some(z);
    }
    value.zero(program);
    left.not_positive(program);
    right.not_positive(program);
}

/// A step that rounds a multiple of its argument: y is the integer with slope x + low <= y <= slope x + high, but for the first and the last
/// value, which may reach beyond the band (clipping).
#[derive(Debug, PartialEq)]
struct Band {
    slope: f64,
    low: f64,
    high: f64,
    /// How far the first value is above the band at the first argument, and the last below it at the last; 0 where nothing is clipped.
    clipped: (f64, f64),
}

impl Band {
    /// The band of a step with three values or more, if it has one that leaves no other integer (any, where values need not be integers).
    ///
    /// # Claim
    /// For every segment but the first, value <= slope from + high; for every one but the last, value >= slope to + low; over integer arguments
    /// also value + 1 > slope to + high for every one but the last, and value - 1 < slope from + low for every one but the first.
    fn fit(segments: &[Segment], Shape { grids: (argument, result), relaxed, .. }: Shape) -> Option<Band> {
        let n = segments.len();
        if n < 3 || result != Grid::Integer || segments.iter().any(|s| s.value.0.fract() != 0.0) {
            return None;
        }
        let slope = slope(segments);
        let (later, earlier) = (&segments[1..], &segments[..n - 1]);
        let high = later.iter().map(|s| sub_up(s.value.1, mul_down(slope, s.from))).fold(f64::NEG_INFINITY, f64::max);
        let low = earlier.iter().map(|s| sub_down(s.value.0, mul_up(slope, s.to))).fold(f64::INFINITY, f64::min);
        let room_above = earlier.iter().map(|s| s.value.0 + 1.0 - slope * s.to - high).fold(f64::INFINITY, f64::min);
        let room_below = later.iter().map(|s| slope * s.from + low - s.value.0 + 1.0).fold(f64::INFINITY, f64::min);
        let least = match argument {
            _ if relaxed => f64::NEG_INFINITY,
            Grid::Integer => 1e-9,
            Grid::Float32 | Grid::Real => -NEARLY,
        };
        let (first, last) = (&segments[0], &segments[n - 1]);
        let below = sub_up(first.value.1, sub_down(mul_down(slope, first.from), -high));
        let above = sub_up(add_up(mul_up(slope, last.to), low), last.value.0);
        let clipped = (below.max(0.0), above.max(0.0));
        (slope > 0.0 && room_above.min(room_below) > least).then_some(Band { slope, low, high, clipped })
    }

    fn tie(&self, program: &mut Program, segments: &[Segment], trapezoid: f64, x: &Element, y: &Element) {
        let (first, last) = (segments[0].value.0, segments[segments.len() - 1].value.1);
        let rise = sub_up(last, first);
        let mut upper = Sum::constant(-self.high).with(y, 1.0).with(x, -self.slope);
        if self.clipped.0 > 0.0 {
            // d = 0 on the first value.
            let d = binary(program);
            upper = upper.plus(-self.clipped.0).with(&d, self.clipped.0);
            Sum::constant(-first).with(y, 1.0).with(&d, -rise).not_positive(program);
        }
        upper.not_positive(program);
        if let Some((slope, low)) = self.below_all(segments).filter(|line| self.lost(segments, line) < trapezoid) {
            Sum::constant(low).with(y, -1.0).with(x, slope).not_positive(program);
            return;
        }
        let mut lower = Sum::constant(self.low).with(y, -1.0).with(x, self.slope);
        if self.clipped.1 > 0.0 {
            // e = 1 on the last value.
            let e = binary(program);
            lower.add(&e, -self.clipped.1);
            Sum::constant(first).with(y, -1.0).with(&e, rise).not_positive(program);
        }
        lower.not_positive(program);
    }
}

impl Band {
    /// Where the last value is clipped, a line below all values that has it at the last argument: slope and value at zero.
    ///
    /// # Why
    /// Where the value is constant, it is least far above a rising line at the last argument.
    fn below_all(&self, segments: &[Segment]) -> Option<(f64, f64)> {
        let (first, last) = (&segments[0], &segments[segments.len() - 1]);
        let slope = (last.value.0 - first.value.0) / (last.to - first.to);
        let low = segments.iter().map(|s| sub_down(s.value.0, mul_up(slope, s.to))).fold(f64::INFINITY, f64::min);
        (self.clipped.1 > 0.0 && slope >= 0.0 && slope.is_finite()).then_some((slope, low))
    }

    /// How much such a line is below the last value where that begins; a hint.
    fn lost(&self, segments: &[Segment], (slope, low): &(f64, f64)) -> f64 {
        let last = &segments[segments.len() - 1];
        last.value.0 - (slope * last.from + low)
    }
}

/// The slope of the line that passes nearest to all jumps, by ternary search; a hint.
fn slope(segments: &[Segment]) -> f64 {
    let jump = |w: &[Segment]| (w[0].to / 2.0 + w[1].from / 2.0, (w[0].value.0 + 1.0 + w[1].value.0) / 2.0);
    let jumps: Vec<(f64, f64)> = segments.windows(2).map(jump).collect();
    let (a, b) = (jumps[0], jumps[jumps.len() - 1]);
    let mean = (b.1 - a.1) / (b.0 - a.0);
    let spread = |slope: f64| {
        let off = jumps.iter().map(|(x, y)| (y - b.1) - slope * (x - b.0));
        let (lo, hi) = off.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), o| (lo.min(o), hi.max(o)));
        hi - lo
    };
    let (mut lo, mut hi) = (mean * 0.5, mean * 1.5);
    for _ in 0..80 {
        let (one, two) = (lo + (hi - lo) / 3.0, hi - (hi - lo) / 3.0);
        if spread(one) <= spread(two) { hi = two } else { lo = one }
    }
    let slope = lo + (hi - lo) / 2.0;
    if slope.is_finite() { slope } else { 0.0 }
}
