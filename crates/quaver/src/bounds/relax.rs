//! Lines that enclose a monotone function between two bounds.

use super::Bounds;
use crate::net::{Grid, Pointwise, ScalarFn};
use crate::num::round::{U64, mul_down, mul_up, sub_down, sub_up};

/// The line slope x + offset, an exact inequality for the stored numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Line {
    /// Not negative.
    pub slope: f64,
    /// Value at 0.
    pub offset: f64,
}

/// A line below and a line above the function of each element.
#[derive(Clone, Debug)]
pub struct Lines {
    /// f(x) >= line.
    pub lower: Vec<Line>,
    /// f(x) <= line.
    pub upper: Vec<Line>,
}

/// Enclosing lines for every element of a pointwise node.
///
/// # Claim
/// lower(x) <= f(x) <= upper(x) for every x on the grid between the bounds.
///
/// # Why
/// A line of non-negative slope above all points of [`crate::net::ScalarFn::upper_points`] is above f. Its slope is that of the edge of their
/// concave hull over the middle of the interval, which leaves the least area; the offset is then the largest
/// y - slope x over all points. For a ReLU these are the lines of CROWN and DeepPoly with their adaptive choice. The lower line may be
/// chosen at another `place` than the middle, 0 being the lower bound and 1 the upper: any line is valid, and which is best depends on
/// the functional.
///
/// # Rounding
/// The slope may be any number; y - slope x is rounded outward.
pub fn relax(p: &Pointwise, grid: Grid, x: &Bounds, place: f64) -> Lines {
    let (mut lines, mut points) = (Lines { lower: vec![], upper: vec![] }, vec![]);
    for i in 0..x.lo.len() {
        let (l, u) = (x.lo[i], x.hi[i]);
        let f = p.functions.at(i);
        lines.upper.push(upper_line(f, grid, (l, u), 0.5, &mut points));
        lines.lower.push(lower_line(f, grid, (l, u), place, &mut points));
    }
    lines
}

/// The line above f on [l, u] whose slope is that of the hull's edge over a place between l (0) and u (1).
fn upper_line(f: &ScalarFn, grid: Grid, (l, u): (f64, f64), place: f64, points: &mut Vec<(f64, f64)>) -> Line {
    f.upper_points(l, u, grid, points);
    let slope = hull_slope(points, l + (u - l) * place, 1.0);
    above(points, slope)
}

/// The line below f on [l, u], likewise.
fn lower_line(f: &ScalarFn, grid: Grid, (l, u): (f64, f64), place: f64, points: &mut Vec<(f64, f64)>) -> Line {
    f.lower_points(l, u, grid, points);
    let slope = hull_slope(points, l + (u - l) * place, -1.0);
    below(points, slope)
}

/// The lowest line of a slope that is above some points; its offset is rounded up.
pub(super) fn above(points: &[(f64, f64)], slope: f64) -> Line {
    let offset = points.iter().map(|p| sub_up(p.1, mul_down(slope, p.0))).fold(f64::NEG_INFINITY, f64::max);
    Line { slope, offset }
}

/// The highest line of a slope that is below some points; its offset is rounded down.
pub(super) fn below(points: &[(f64, f64)], slope: f64) -> Line {
    let offset = points.iter().map(|p| sub_down(p.1, mul_up(slope, p.0))).fold(f64::INFINITY, f64::min);
    Line { slope, offset }
}

/// The first and the last line of each hull of a function between two bounds: everything between them is a valid line, too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ends {
    /// Below the function.
    pub lower: [Line; 2],
    /// Above the function.
    pub upper: [Line; 2],
}

impl Ends {
    /// The ends for one function, with the claim of [`relax`] for each.
    pub fn new(f: &ScalarFn, grid: Grid, l: f64, u: f64) -> Self {
        let mut points = vec![];
        // The outermost edges of a step's hull may join two points that are hardly apart: their slopes would say nothing of the function.
        let edge = if f.is_continuous() { 0.0 } else { 0.25 };
        let lower = [edge, 1.0 - edge].map(|place| lower_line(f, grid, (l, u), place, &mut points));
        let upper = [edge, 1.0 - edge].map(|place| upper_line(f, grid, (l, u), place, &mut points));
        Ends { lower, upper }
    }

    /// Where between the ends two other lines are; hints.
    pub fn places_of(&self, lower: Line, upper: Line) -> [f32; 2] {
        let place = |ends: &[Line; 2], line: Line| {
            let span = ends[1].slope - ends[0].slope;
            if span == 0.0 { 0.5 } else { ((line.slope - ends[0].slope) / span).clamp(0.0, 1.0) as f32 }
        };
        [place(&self.lower, lower), place(&self.upper, upper)]
    }

    /// How steep the function is on the whole; a hint.
    pub fn slope(&self) -> f64 {
        self.lower.iter().chain(&self.upper).map(|l| l.slope).sum::<f64>() / 4.0
    }
}

/// A line between two lines, for arguments of magnitude at most `magnitude`.
///
/// # Claim
/// side (line(x) - (1 - t) a(x) - t b(x)) >= 0 for |x| <= magnitude and 0 <= t <= 1, where side is 1 (above) or -1 (below). So if a and b are
/// on that side of a function, the line is.
///
/// # Rounding
/// The slope and the offset each differ from the exact ones by at most 5 roundings of their terms; the offset is moved outward by
/// 8 u of all terms, which also covers the rounding of this sum. Where t is an end, the line is that end.
#[inline(always)]
pub(super) fn blend(a: Line, b: Line, t: f64, side: f64, magnitude: f64) -> Line {
    if t <= 0.0 || a == b {
        return a;
    }
    if t >= 1.0 {
        return b;
    }
    let mix = |a: f64, b: f64| (1.0 - t) * a + t * b;
    let terms = a.offset.abs() + b.offset.abs() + (a.slope + b.slope) * magnitude;
    let offset = mix(a.offset, b.offset) + side * (8.0 * U64 * terms + f64::MIN_POSITIVE);
    Line { slope: mix(a.slope, b.slope), offset }
}

/// The slope of a hull's edge (see [`hull_edge`]), but not negative: for functions that do not decrease.
pub(super) fn hull_slope(points: &[(f64, f64)], middle: f64, side: f64) -> f64 {
    hull_edge(points, middle, side).max(0.0)
}

/// Slope of the edge over `middle` of the concave hull (side 1) or convex hull (side -1) of points with increasing
/// coordinates; a hint.
pub(super) fn hull_edge(points: &[(f64, f64)], middle: f64, side: f64) -> f64 {
    let slope = |a: (f64, f64), b: (f64, f64)| (b.1 - a.1) / (b.0 - a.0);
    // The hull's edge over the middle joins a point left of it and one right of it: start from the outermost and
    // exchange the end that some point lies outside of, until none does.
    let split = points.partition_point(|p| p.0 <= middle).clamp(1, points.len().max(2) - 1);
    let (mut a, mut b) = (points[0], points[points.len() - 1]);
    for _ in 0..64 {
        if b.0 <= a.0 {
            return 0.0;
        }
        let line = slope(a, b);
        let above = |p: &(f64, f64)| side * (p.1 - a.1 - line * (p.0 - a.0));
        let best = |part: &[(f64, f64)], from: (f64, f64)| {
            part.iter().fold((above(&from), from), |m, p| if above(p) > m.0 { (above(p), *p) } else { m })
        };
        let (left, right) = (best(&points[..split], a), best(&points[split..], b));
        let tolerance = 1e-12 * (1.0 + b.1.abs().max(a.1.abs()));
        if left.0 <= above(&a) + tolerance && right.0 <= above(&b) + tolerance {
            return if line.is_finite() { line } else { 0.0 };
        }
        if left.0 - above(&a) >= right.0 - above(&b) {
            a = left.1;
        } else {
            b = right.1;
        }
    }
    let line = slope(a, b);
    if line.is_finite() { line } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Cut, NodeId, Piecewise, ScalarFn, Spread, Step};
    use crate::num::Dyadic;
    use proptest::prelude::*;

    fn lines_of(f: ScalarFn, grid: Grid, l: f64, u: f64) -> (Line, Line) {
        let p = Pointwise { input: NodeId(0), functions: Spread::all(f) };
        let lines = relax(&p, grid, &Bounds { lo: vec![l], hi: vec![u] }, 0.5);
        (lines.lower[0], lines.upper[0])
    }

    fn at(line: Line, x: f64) -> Dyadic {
        let exact = |v: f64| Dyadic::from_f64(v).unwrap();
        &(&exact(line.slope) * &exact(x)) + &exact(line.offset)
    }

    proptest! {
        #[test]
        fn lines_enclose_steps_on_integers(
            mut cuts in proptest::collection::vec(-200i32..200, 0..30), l in -250i32..250, width in 0i32..300, strict in any::<bool>()
        ) {
            cuts.sort();
            cuts.dedup();
            let values = (0..=cuts.len()).map(|k| (k * k) as f64 / 3.0).collect();
            let cuts = cuts.iter().map(|&c| Cut { at: c as f64 + 0.5 * f64::from(strict as u8), strict }).collect();
            let f = ScalarFn::Step(Step::new(cuts, values));
            let (lower, upper) = lines_of(f.clone(), Grid::Integer, l as f64, (l + width) as f64);
            for x in l..=l + width {
                let y = f.value_exact(&Dyadic::from_int(x as i64), false);
                prop_assert!(at(lower, x as f64) <= y && y <= at(upper, x as f64));
            }
        }

        #[test]
        fn lines_enclose_on_the_reals(l in -5.0f64..5.0, width in 0.0f64..10.0, alpha in 0.0f64..1.0, t in 0.0f64..1.0) {
            let u = l + width;
            let step = Step::new(vec![Cut::at(-1.5), Cut { at: 0.25, strict: true }, Cut::at(2.0)], vec![0.0, 1.0, 5.0, 5.5]);
            let fs = [ScalarFn::Piecewise(Piecewise::leaky_relu(alpha)), ScalarFn::Piecewise(Piecewise::clip(-1.0, 2.0)), ScalarFn::Step(step)];
            for f in fs {
                let (lower, upper) = lines_of(f.clone(), Grid::Real, l, u);
                for x in [l, u, l + t * (u - l), -1.5, 0.25, 0.25f64.next_up(), 2.0] {
                    if l <= x && x <= u {
                        let y = f.value_exact(&Dyadic::from_f64(x).unwrap(), false);
                        prop_assert!(at(lower, x) <= y && y <= at(upper, x));
                    }
                }
            }
        }
    }

    #[test]
    fn relu_gets_its_usual_lines() {
        let relu = || ScalarFn::Piecewise(Piecewise::relu());
        let (lower, upper) = lines_of(relu(), Grid::Real, -1.0, 3.0);
        assert_eq!((lower.slope, upper.slope), (1.0, 0.75));
        let (lower, _) = lines_of(relu(), Grid::Real, -3.0, 1.0);
        assert_eq!(lower.slope, 0.0);
    }
}
