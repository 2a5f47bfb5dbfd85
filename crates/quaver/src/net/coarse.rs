//! Long step functions seen from afar: two points for many jumps.

use super::Grid;
use super::scalar::Cut;
use crate::num::round::{add_down, add_up, mul_down, mul_up, sub_down, sub_up};

/// Jumps in a block, and how many a function has at least that blocks are made for.
const BLOCK: usize = 128;
const LONG: usize = 2048;

/// How far two points may be from the corners that they stand for, in steps of the block.
const LOOSE: f64 = 1.0 / 256.0;

type Point = (f64, f64);

/// Of each block of jumps two points for corners above and two for corners below, where the corners are nearly on a line; for arguments that are
/// integers, and for others.
#[derive(Clone, Debug, PartialEq, Default)]
pub(super) struct Coarse {
    upper: [Vec<Option<[Point; 2]>>; 2],
    lower: [Vec<Option<[Point; 2]>>; 2],
}

/// Which corners of a step function are asked for.
pub(super) struct Corners<'c> {
    /// Where the function rises to a value, or where it last has it.
    pub above: bool,
    pub grid: Grid,
    /// Numbers of the jumps, the last excluded.
    pub jumps: (usize, usize),
    /// Arguments lie between these.
    pub ends: (f64, f64),
    /// No two points may stand for corners on both sides of one of these, or near it.
    pub apart: &'c [f64],
}

impl Corners<'_> {
    fn may_be(&self, two: &[Point; 2]) -> bool {
        let (first, last) = (two[0].0, two[1].0);
        let near = last - first;
        self.ends.0 <= first && last <= self.ends.1 && self.apart.iter().all(|x| *x < first - near || *x > last + near)
    }
}

fn kind(grid: Grid) -> usize {
    usize::from(grid == Grid::Integer)
}

impl Coarse {
    /// For jumps between values; without blocks where there are few.
    pub fn new(cuts: &[Cut], values: &[f64]) -> Self {
        let mut coarse = Coarse::default();
        if cuts.len() < LONG {
            return coarse;
        }
        for grid in [Grid::Real, Grid::Integer] {
            for (cuts, values) in cuts.chunks_exact(BLOCK).zip(values.windows(BLOCK + 1).step_by(BLOCK)) {
                let corner = |above: usize| {
                    let x = move |c: &Cut| if above == 1 { c.neighbours(grid).1 } else { c.neighbours(grid).0 };
                    cuts.iter().map(x).zip(values[above..].iter().copied()).collect::<Vec<Point>>()
                };
                coarse.upper[kind(grid)].push(chord(&corner(1), true));
                coarse.lower[kind(grid)].push(chord(&corner(0), false));
            }
        }
        coarse
    }

    /// Appends points for some jumps: those of whole blocks, where they may stand for them, and what `corner` gives for the others.
    pub fn points(&self, corners: &Corners<'_>, corner: impl Fn(usize) -> Point, out: &mut Vec<Point>) {
        let blocks = if corners.above { &self.upper } else { &self.lower }[kind(corners.grid)].as_slice();
        let (mut k, last) = corners.jumps;
        while k < last {
            let block = blocks.get(k / BLOCK).and_then(Option::as_ref);
            let whole = block.filter(|_| k.is_multiple_of(BLOCK) && k + BLOCK <= last);
            match whole.filter(|two| corners.may_be(two)) {
                Some(two) => {
                    out.extend(two);
                    k += BLOCK;
                }
                None => {
                    out.push(corner(k));
                    k += 1;
                }
            }
        }
    }
}

/// Two points over the ends of some corners, none where they are too far from the corners.
///
/// # Claim
/// A line that is above both (below both) is above (below) all corners.
///
/// # Why
/// With the slope s of the chord and the largest height d of a corner over it, all corners are below y0 + d + s (x - x0), and so is the segment between
/// points that are not below that line at both ends.
///
/// # Rounding
/// d is rounded up, and the points are rounded away from the corners; s is any number.
fn chord(corners: &[Point], upper: bool) -> Option<[Point; 2]> {
    let (&(x0, y0), &(x1, y1)) = (corners.first()?, corners.last()?);
    let slope = (y1 - y0) / (x1 - x0);
    if !(slope.is_finite() && slope >= 0.0 && x0 < x1 && corners.windows(2).all(|w| w[0].0 <= w[1].0)) {
        return None;
    }
    let height = |&(x, y): &Point| match upper {
        true => sub_up(sub_up(y, y0), mul_down(slope, sub_down(x, x0))),
        false => sub_up(mul_up(slope, sub_up(x, x0)), sub_down(y, y0)),
    };
    let mut d = 0.0;
    for corner in corners {
        let h = height(corner);
        if h.is_nan() || h > LOOSE * (y1 - y0) / BLOCK as f64 {
            return None;
        }
        d = if h > d { h } else { d };
    }
    Some(match upper {
        true => [(x0, add_up(y0, d)), (x1, add_up(add_up(y0, d), mul_up(slope, sub_up(x1, x0))))],
        false => [(x0, sub_down(y0, d)), (x1, add_down(sub_down(y0, d), mul_down(slope, sub_down(x1, x0))))],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn two_points_are_outside_of_all_corners(step in 0.01f64..100.0, shift in -5.0f64..5.0, slope in 0.0f64..3.0, noise in 0.0f64..1e-3) {
            let corners: Vec<Point> = (0..BLOCK).map(|k| ((k as f64 + noise * f64::from(k as u32 % 3)) * step + shift, k as f64)).collect();
            for upper in [true, false] {
                let Some(two) = chord(&corners, upper) else { continue };
                let side = if upper { 1 } else { -1 };
                let slope = slope / step;
                // In exact arithmetic a line of this slope through the outer of the two points.
                let exact = |x: f64| crate::num::Dyadic::from_f64(x).unwrap();
                let over = |p: Point, q: Point| {
                    let d = &(&exact(q.1) - &exact(p.1)) - &(&exact(slope) * &(&exact(q.0) - &exact(p.0)));
                    d.signum() * side
                };
                for c in &corners {
                    prop_assert!(over(two[0], *c) <= 0 || over(two[1], *c) <= 0);
                }
            }
        }
    }

    #[test]
    fn regular_steps_have_blocks() {
        let corners: Vec<Point> = (0..BLOCK).map(|k| (f64::from((k as f32 + 0.5) * 0.37), k as f64)).collect();
        assert!(chord(&corners, true).is_some() && chord(&corners, false).is_some());
        let bent: Vec<Point> = (0..BLOCK).map(|k| ((k * k) as f64, k as f64)).collect();
        assert!(chord(&bent, true).is_none());
    }
}
