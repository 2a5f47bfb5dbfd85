//! Lines that enclose functions; the rules *Line* and *Blend*.

use crate::net::Shape;
use crate::round::{U, add_down, add_up, mul_down, mul_up};

/// slope x + offset.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Line {
    /// At least 0.
    pub slope: f64,
    /// Value at 0.
    pub offset: f64,
}

/// Which side of a function a line is on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Side {
    /// line <= f.
    Below,
    /// line >= f.
    Above,
}

/// Calls f(x, below, above) for every corner of a function on [l, u], `below <= f(x) <= above`.
fn corners(shape: &Shape, side: Side, (l, u): (f64, f64), mut each: impl FnMut(f64, f64, f64)) {
    let mut corner = |x: f64| each(x, shape.at_most(x), shape.at_least(x));
    match shape {
        Shape::Hinge { low, high, .. } => {
            [l, u].into_iter().for_each(&mut corner);
            [*low, *high].into_iter().filter(|x| l < *x && *x < u).for_each(&mut corner);
        }
        Shape::Step { starts, .. } => {
            corner(if side == Side::Below { u } else { l });
            let before = if side == Side::Below { 1.0 } else { 0.0 };
            starts.iter().filter(|t| l < **t && **t <= u).for_each(|t| corner(t - before));
        }
        Shape::Stairs { cuts, .. } => {
            [l, u].into_iter().for_each(&mut corner);
            let inside = cuts.partition_point(|c| *c <= l)..cuts.partition_point(|c| *c < u);
            cuts.get(inside).unwrap_or_default().iter().copied().for_each(corner);
        }
    }
}

/// Rule *Line*: the best offset for a slope. `None` if the slope is negative or not a number, or no offset is finite.
///
/// # Claim
/// For every x in [l, u] (every integer there, for a step), the line is on its side of f: of stairs each part is constant, and the line rises, so that
/// it is enough to look at its end where the line is nearest.
///
/// # Rounding
/// f(x) - slope x is rounded to the line's side at every corner.
pub fn line(shape: &Shape, side: Side, (l, u): (f64, f64), slope: f64) -> Option<Line> {
    let slope = (slope >= 0.0).then_some(slope)?;
    let mut offset = if side == Side::Below { f64::INFINITY } else { f64::NEG_INFINITY };
    corners(shape, side, (l, u), |x, below, above| match side {
        Side::Below => offset = offset.min(add_down(below, -mul_up(slope, x))),
        Side::Above => offset = offset.max(add_up(above, -mul_down(slope, x))),
    });
    (slope.is_finite() && offset.is_finite()).then_some(Line { slope, offset })
}

/// Rule *Blend*, for arguments of magnitude at most `magnitude`.
///
/// # Claim
/// (1 - t) a(x) + t b(x) is on the stated side of the result, which is on the same side of f as a and b are.
///
/// # Rounding
/// 1 - t, two products and a sum for each number: the offset moves outward by 8 u times all magnitudes, four roundings of the slope times
/// the argument included.
pub fn blend(a: Line, b: Line, t: f64, side: Side, magnitude: f64) -> Line {
    if t == 0.0 || a == b {
        return a;
    }
    if t == 1.0 {
        return b;
    }
    let mix = |a: f64, b: f64| (1.0 - t) * a + t * b;
    let all = a.offset.abs() + b.offset.abs() + (a.slope + b.slope) * magnitude;
    let lost = 8.0 * U * all + f64::MIN_POSITIVE;
    let offset = mix(a.offset, b.offset);
    let offset = if side == Side::Below { offset - lost } else { offset + lost };
    Line { slope: mix(a.slope, b.slope), offset }
}

/// The slope of the edge over x of the convex hull (`Below`) or concave hull (`Above`) of points, sorted by their first number.
///
/// It is a hint: [`line()`] makes valid lines of any.
fn edge(points: &[(f64, f64)], side: Side, x: f64) -> f64 {
    let rise = |a: (f64, f64), b: (f64, f64)| (b.1 - a.1) / (b.0 - a.0);
    let mut hull: Vec<(f64, f64)> = vec![];
    for &p in points {
        while let [.., a, b] = hull[..]
            && if side == Side::Below { rise(a, b) >= rise(b, p) } else { rise(a, b) <= rise(b, p) }
        {
            hull.pop();
        }
        if hull.last().is_none_or(|last| last.0 < p.0) {
            hull.push(p);
        }
    }
    let right = hull.iter().skip(1).position(|b| x < b.0).map_or(hull.len() - 1, |k| k + 1);
    let slope = if right == 0 { 0.0 } else { rise(hull[right - 1], hull[right]) };
    if slope.is_finite() { slope.max(0.0) } else { 0.0 }
}

/// A line on one side of a function on [l, u], by the hull's edges over some places of it (0 is l, 1 is u).
fn by_hull<const N: usize>(shape: &Shape, side: Side, (l, u): (f64, f64), places: [f64; N]) -> Option<[Line; N]> {
    let mut points = vec![];
    let y = |x: f64| if side == Side::Below { shape.at_most(x) } else { shape.at_least(x) };
    corners(shape, side, (l, u), |x, below, above| points.push((x, if side == Side::Below { below } else { above })));
    points.extend([(l, y(l)), (u, y(u))]);
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let lines = places.map(|place| line(shape, side, (l, u), edge(&points, side, l + (u - l) * place)));
    if lines.iter().all(Option::is_some) { Some(lines.map(Option::unwrap_or_default)) } else { None }
}

/// The lines that leave the least area: those of the hulls' edges over the middle. `None` where there are none.
pub fn default_lines(shape: &Shape, ends: (f64, f64)) -> Option<(Line, Line)> {
    if let (Shape::Hinge { left, low, high }, true) = (shape, shape.is_affine_on(ends.0, ends.1)) {
        // The hulls have one edge.
        let slope = if ends.1 <= *low { *left } else { f64::from(u8::from(ends.0 < *high)) };
        return Some((line(shape, Side::Below, ends, slope)?, line(shape, Side::Above, ends, slope)?));
    }
    let [below] = by_hull(shape, Side::Below, ends, [0.5])?;
    let [above] = by_hull(shape, Side::Above, ends, [0.5])?;
    Some((below, above))
}

/// How far the default lines below and above a function are from it at most; hints.
pub fn gaps(shape: &Shape, (l, u): (f64, f64)) -> [f64; 2] {
    let Some((lower, upper)) = default_lines(shape, (l, u)).filter(|_| !shape.is_affine_on(l, u)) else {
        return [0.0, 0.0];
    };
    let mut gaps = [0.0f64; 2];
    corners(shape, Side::Below, (l, u), |x, y, _| {
        gaps[0] = gaps[0].max(y - (lower.slope * x + lower.offset));
        gaps[1] = gaps[1].max(upper.slope * x + upper.offset - y);
    });
    gaps
}

/// Two lines on each side of a function, between which others can be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ends {
    /// Below the function.
    pub lower: [Line; 2],
    /// Above it.
    pub upper: [Line; 2],
}

impl Ends {
    /// The lines of the hulls' edges over l and u; of a step over a quarter and three quarters, because its outermost edges may join two corners
    /// that are hardly apart.
    pub fn new(shape: &Shape, ends: (f64, f64)) -> Option<Self> {
        let places = if matches!(shape, Shape::Step { .. } | Shape::Stairs { .. }) { [0.25, 0.75] } else { [0.0, 1.0] };
        let lower = by_hull(shape, Side::Below, ends, places)?;
        Some(Ends { lower, upper: by_hull(shape, Side::Above, ends, places)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rational::Rational;
    use proptest::prelude::*;
    use std::ops::{Add, Mul, Neg};

    fn exact(x: f64) -> Rational {
        Rational::from_f64(x).unwrap()
    }

    fn at(line: Line, x: f64) -> Rational {
        exact(line.slope).mul(&exact(x)).add(&exact(line.offset))
    }

    fn step(starts: Vec<i32>) -> Shape {
        let values = (0..=starts.len()).map(|k| (k * k) as f64 / 4.0).collect();
        Shape::Step { starts: starts.into_iter().map(f64::from).collect(), values }
    }

    proptest! {
        #[test]
        fn lines_enclose_steps(mut starts in proptest::collection::vec(-60i32..60, 0..12), l in -80i32..80, width in 0i32..90, slope in 0.0f64..2.0) {
            starts.sort();
            starts.dedup();
            let f = step(starts);
            let ends = (f64::from(l), f64::from(l + width));
            let below = line(&f, Side::Below, ends, slope).unwrap();
            let above = line(&f, Side::Above, ends, slope).unwrap();
            for x in (l..=l + width).map(f64::from) {
                let y = exact(f.at_most(x));
                prop_assert!(at(below, x) <= y && y <= at(above, x));
            }
        }

        #[test]
        fn lines_enclose_stairs(mut cuts in proptest::collection::vec(-9.0f64..9.0, 0..12), l in -11.0f64..11.0, width in 0.0f64..12.0, slope in 0.0f64..2.0,
                k in 0usize..12, t in 0.0f64..1.0) {
            cuts.sort_by(f64::total_cmp);
            let values = (0..=cuts.len()).map(|k| (k * k) as f64 / 4.0).collect();
            let f = Shape::Stairs { cuts: cuts.clone(), values, unit: 0.5 };
            let ends = (l, l + width);
            let (below, above) = (line(&f, Side::Below, ends, slope).unwrap(), line(&f, Side::Above, ends, slope).unwrap());
            for x in cuts.get(k).copied().into_iter().chain([l, ends.1, l + t * width]).filter(|x| l <= *x && *x <= ends.1) {
                prop_assert!(at(below, x) <= exact(f.at_most(x)) && exact(f.at_least(x)) <= at(above, x));
            }
        }

        #[test]
        fn lines_enclose_hinges(left in 0.0f64..1.0, low in -3.0f64..0.0, span in 0.0f64..5.0, clipped in any::<bool>(),
                l in -6.0f64..6.0, width in 0.0f64..8.0, slope in 0.0f64..2.0, t in 0.0f64..1.0) {
            let high = if clipped { low + span } else { f64::INFINITY };
            let f = Shape::Hinge { left, low, high };
            let (l, u) = (l, l + width);
            let ends = Ends::new(&f, (l, u)).unwrap();
            for s in [slope, ends.lower[0].slope, ends.lower[1].slope, ends.upper[0].slope, ends.upper[1].slope] {
                let below = line(&f, Side::Below, (l, u), s).unwrap();
                let above = line(&f, Side::Above, (l, u), s).unwrap();
                for x in [l, u, l + t * width, low, high] {
                    if l <= x && x <= u {
                        prop_assert!(at(below, x) <= exact(f.at_least(x)) && exact(f.at_most(x)) <= at(above, x));
                    }
                }
            }
        }

        #[test]
        fn a_blend_is_between(a in (0.0f64..2.0, -9.0f64..9.0), b in (0.0f64..2.0, -9.0f64..9.0), k in 0u8..=255, x in -50.0f64..50.0) {
            let (a, b) = (Line { slope: a.0, offset: a.1 }, Line { slope: b.0, offset: b.1 });
            let t = f64::from(k) / 255.0;
            let mixed = exact(1.0).add(&exact(t).neg()).mul(&at(a, x)).add(&exact(t).mul(&at(b, x)));
            prop_assert!(at(blend(a, b, t, Side::Below, 50.0), x) <= mixed);
            prop_assert!(mixed <= at(blend(a, b, t, Side::Above, 50.0), x));
        }
    }

    #[test]
    fn a_relu_has_its_usual_lines() {
        let relu = Shape::Hinge { left: 0.0, low: 0.0, high: f64::INFINITY };
        let ends = Ends::new(&relu, (-1.0, 3.0)).unwrap();
        let slopes = |lines: [Line; 2]| lines.map(|l| l.slope);
        assert_eq!((slopes(ends.lower), slopes(ends.upper)), ([0.0, 1.0], [0.75, 0.75]));
        assert_eq!(default_lines(&relu, (-1.0, 3.0)).unwrap().0.slope, 1.0);
        assert_eq!(default_lines(&relu, (-3.0, 1.0)).unwrap().0.slope, 0.0);
        assert_eq!(line(&relu, Side::Above, (-1.0, 3.0), 0.75), Some(Line { slope: 0.75, offset: 0.75 }));
        assert_eq!(line(&relu, Side::Below, (-1.0, 3.0), 1.0), Some(Line { slope: 1.0, offset: 0.0 }));
    }
}
