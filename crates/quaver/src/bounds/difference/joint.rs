//! Lines around the difference of two functions, element by element.

use crate::bounds::Line;
use crate::bounds::relax::{above, below, hull_edge, hull_slope};
use crate::net::{Grid, Piecewise, ScalarFn, Segment};
use crate::num::round::{add_down, add_up, mul_down, mul_up, sub_down, sub_up};

/// Factors, positive: u = argument[0] x, v = value[0] f(x) for the first function, likewise for the second. Any are valid; those that
/// stand for the same real numbers are useful.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Units {
    pub argument: [f64; 2],
    pub value: [f64; 2],
    /// What the functions' values are where they stand for 0; a hint.
    pub zero: [f64; 2],
}

/// A bound on a difference: slope (u' - u) + beside w + offset, where w is u or u'.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Plane {
    /// Not negative.
    pub slope: f64,
    pub beside: f64,
    pub offset: f64,
    /// Whether it is worth more than a line for each function.
    pub is_useful: bool,
}

/// What is known about the difference of one element of two twins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joint {
    /// v' - v is not below this.
    pub lower: Plane,
    /// v' - v is not above this.
    pub upper: Plane,
    /// Which argument both have a slope on beside the difference: 0 for u, 1 for u'.
    pub beside: usize,
    /// Bounds on u' - u.
    pub range: (f64, f64),
}

impl Joint {
    /// Nothing but a range.
    pub fn nothing(range: (f64, f64)) -> Self {
        let plane = |offset: f64| Plane { offset, ..Plane::default() };
        Joint { lower: plane(f64::NEG_INFINITY), upper: plane(f64::INFINITY), beside: 0, range }
    }

    /// The bound for a coefficient of a sign.
    pub fn plane(&self, coefficient: f64) -> &Plane {
        if coefficient > 0.0 { &self.lower } else { &self.upper }
    }

    /// Bounds on v' - v from bounds on u and u'.
    ///
    /// # Claim
    /// For all arguments within their bounds that the joint holds of, v' - v is between the ends.
    ///
    /// # Rounding
    /// Outward; infinite where nothing is known.
    pub fn value_range(&self, arguments: [(f64, f64); 2]) -> (f64, f64) {
        let beside = arguments[self.beside];
        let ends = |p: &Plane| if p.beside >= 0.0 { (beside.0, beside.1) } else { (beside.1, beside.0) };
        let (lower, upper) = (&self.lower, &self.upper);
        let least = add_down(mul_down(lower.slope, self.range.0), mul_down(lower.beside, ends(lower).0));
        let most = add_up(mul_up(upper.slope, self.range.1), mul_up(upper.beside, ends(upper).1));
        (add_down(least, lower.offset), add_up(most, upper.offset))
    }

    /// How much of two coefficients may go to the difference: with c on v and c' on v', t (v' - v) is taken out so that one of them becomes zero.
    ///
    /// 0 where signs are equal or nothing is known of the difference.
    pub fn most(&self, c: f64, c2: f64) -> f64 {
        let cancels = c * c2 < 0.0 && self.plane(c2).offset.is_finite();
        if cancels { c2.signum() * c.abs().min(c2.abs()) } else { 0.0 }
    }

    /// How much goes there if nothing else is chosen: all or, where lines for each function are worth more, nothing.
    pub fn share(&self, c: f64, c2: f64) -> f64 {
        if self.plane(c2).is_useful { self.most(c, c2) } else { 0.0 }
    }
}

/// A bound on a difference is used where it loses less than two lines, and not where both lose the same: there a checker that rounds otherwise would
/// have to guess.
const LESS: f64 = 1.0 - 9.5367431640625e-7;

/// Everything that bounds on one element depend on beside bounds on arguments.
pub(super) struct Context<'c> {
    pub functions: [&'c ScalarFn; 2],
    pub grids: [Grid; 2],
    pub units: Units,
}

impl Context<'_> {
    /// Whether the two functions are not both affine between the bounds of their arguments.
    pub fn is_open(&self, bounds: [(f64, f64); 2]) -> bool {
        self.functions.iter().zip(bounds).any(|(f, (l, u))| !f.is_affine_on(l, u))
    }

    /// The continuous function that one of the two is near to, in real units: itself, or for steps the identity between the ends of its values.
    fn continuous(&self, side: usize) -> Option<Piecewise> {
        let (k, q, zero) = (self.units.argument[side], self.units.value[side], self.units.zero[side]);
        match self.functions[side] {
            ScalarFn::Piecewise(p) => (k == 1.0 && q == 1.0).then(|| p.clone()),
            f @ (ScalarFn::Step(_) | ScalarFn::Band(_)) => {
                let ends = f.range();
                Some(Piecewise::clip(q * (ends.0 - zero), q * (ends.1 - zero)))
            }
        }
    }

    /// What is known about the difference, from bounds on both arguments and on u' - u.
    ///
    /// # Claim
    /// For all arguments within their bounds whose difference is in the range, lower and upper are on their sides of v' - v.
    ///
    /// # Why
    /// Let h and h' be continuous. Then v' - v = (h(u') - h(u)) + (h'(u') - h(u')) + (v' - h'(u')) - (v - h(u)). With slopes of h from m to M between all
    /// arguments (but for ends that are hardly there, see [`Slopes`]), the first term lies between m d and M d where d = u' - u: the larger of both is
    /// convex in d, the smaller one concave, and the chord over the range of d is on the right side of each. The second term is a function of u' alone,
    /// between two lines; it is zero if h' = h. The last
    /// two are within constants (see [`Context::error`]). If only the second function is continuous, h' takes the place of h, and u that of u'.
    ///
    /// # Rounding
    /// Ranges, slopes times ends and constants are rounded outward; slopes may be any numbers.
    pub fn joint(&self, bounds: [(f64, f64); 2], found: (f64, f64)) -> Joint {
        let [first, second] = [0, 1].map(|side| {
            let ((l, u), k) = (bounds[side], self.units.argument[side]);
            (mul_down(k, l), mul_up(k, u))
        });
        let range = (sub_down(second.0, first.1).max(found.0), sub_up(second.1, first.0).min(found.1));
        let nothing = Joint::nothing(range);
        let [Some(h), Some(h2)] = [0, 1].map(|side| self.continuous(side)) else { return nothing };
        let is_continuous = self.functions.map(ScalarFn::is_continuous);
        let is_finite = [first, second].iter().all(|r| r.0.is_finite() && r.1.is_finite());
        // A checker knows no other case of two continuous functions.
        let has_distance = is_continuous != [true; 2] && is_finite;
        if h != h2 && !has_distance {
            return nothing;
        }
        let beside = if is_continuous == [false, true] { 0 } else { 1 };
        let own = Distance::new([&h, &h2], [first, second][beside]);
        let [e, e2] = [(0, &h), (1, &h2)].map(|(side, h)| self.error(h, side, bounds[side]));
        let error = (sub_down(e2.0, e.1), sub_up(e2.1, e.0));
        let middle = ScalarFn::Piecewise(if beside == 0 { h2 } else { h });
        let Slopes { least, most, bent } = Slopes::of(&middle, first.0.min(second.0), first.1.max(second.1));
        let error = (sub_down(error.0, bent), add_up(error.1, bent));
        let lower = chord(range, |d| if d < 0.0 { most } else { least }, -1.0);
        let upper = chord(range, |d| if d < 0.0 { least } else { most }, 1.0);
        // The worst that is lost so, and with a line for each function.
        let lost = (most - least) * range.1.max(-range.0).max(0.0) + (error.1 - error.0);
        let [gaps_below, gaps_above] = [-1.0, 1.0].map(|side| [0, 1].map(|n| self.gap(n, bounds[n], side)));
        let plane = |line: Line, own: Line, offset: f64, lost: f64, each: f64| Plane {
            slope: line.slope,
            beside: own.slope,
            offset,
            is_useful: lost < LESS * each,
        };
        let offset = add_down(add_down(lower.offset, own.lower.offset), error.0);
        let lower = plane(lower, own.lower, offset, lost + own.lost[0], gaps_above[0] + gaps_below[1]);
        let offset = add_up(add_up(upper.offset, own.upper.offset), error.1);
        let upper = plane(upper, own.upper, offset, lost + own.lost[1], gaps_below[0] + gaps_above[1]);
        Joint { lower, upper, beside, range }
    }

    /// Bounds on value f(x) - h(argument x) for one of the functions.
    ///
    /// # Why
    /// It is zero where f is h itself. Over a constant part of f, h is between its values at the ends: the difference is smallest at the last argument and
    /// largest at the first one. Between two bends h is affine, and so is the difference in the argument and the value ([`ScalarFn::outline`]).
    fn error(&self, h: &Piecewise, side: usize, (l, u): (f64, f64)) -> (f64, f64) {
        let (k, q) = (self.units.argument[side], self.units.value[side]);
        match self.functions[side] {
            ScalarFn::Piecewise(_) => (0.0, 0.0),
            f @ (ScalarFn::Step(_) | ScalarFn::Band(_)) => {
                let bends: Vec<f64> = h.knots.iter().map(|knot| knot.0 / k).collect();
                let h = ScalarFn::Piecewise(h.clone());
                let mut points = vec![];
                f.outline(false, (l, u), self.grids[side], &bends, &mut points);
                let under = |p: &(f64, f64)| sub_down(mul_down(q, p.1), h.value_up(mul_up(k, p.0)));
                let low = points.iter().map(under).fold(f64::INFINITY, f64::min);
                f.outline(true, (l, u), self.grids[side], &bends, &mut points);
                let over = |p: &(f64, f64)| sub_up(mul_up(q, p.1), h.value_down(mul_down(k, p.0)));
                let high = points.iter().map(over).fold(f64::NEG_INFINITY, f64::max);
                (low, high)
            }
        }
    }

    /// How far the line of least area is from the function at worst, in real units; a hint.
    fn gap(&self, side: usize, (l, u): (f64, f64), sign: f64) -> f64 {
        let f = self.functions[side];
        if f.is_affine_on(l, u) {
            return 0.0;
        }
        let (mut outer, mut inner) = (vec![], vec![]);
        let grid = self.grids[side];
        if sign > 0.0 {
            f.upper_points(l, u, grid, &mut outer);
            f.lower_points(l, u, grid, &mut inner);
        } else {
            f.lower_points(l, u, grid, &mut outer);
            f.upper_points(l, u, grid, &mut inner);
        }
        let slope = hull_slope(&outer, l + (u - l) / 2.0, sign);
        let offset = outer.iter().map(|p| sign * (p.1 - slope * p.0)).fold(f64::NEG_INFINITY, f64::max);
        let gap = inner.iter().map(|p| offset - sign * (p.1 - slope * p.0)).fold(0.0, f64::max);
        self.units.value[side] * gap
    }
}

/// The slopes of a function on an interval.
struct Slopes {
    least: f64,
    most: f64,
    /// What has to be added to the difference of any two values.
    bent: f64,
}

/// What is at an end of an interval and a smaller share of it counts as if the function went on with the slope beside it: bounds that are rounded
/// otherwise must not make another function of it.
const SLIGHT: f64 = 9.5367431640625e-7;

impl Slopes {
    /// # Claim
    /// For all u and u' in [l, u] with d = u' - u >= 0, least d - bent <= h(u') - h(u) <= most d + bent; for d < 0 likewise, with least and most exchanged.
    ///
    /// # Why
    /// Without the pieces at the ends that are left out, h is another function with slopes between both, and it is nowhere further from h than the
    /// pieces are long, times the largest slope; that may happen at u and at u'.
    ///
    /// # Rounding
    /// The lengths are rounded up.
    fn of(h: &ScalarFn, l: f64, u: f64) -> Slopes {
        let segments = h.segments(false, l, u, Grid::Real);
        let steepest = segments.iter().map(|s| s.slope).fold(0.0, f64::max);
        let (mut kept, mut lost) = (&segments[..], 0.0);
        let length = |s: &Segment| sub_up(s.to, s.from);
        let is_slight = |s: &Segment| length(s) <= SLIGHT * (u - l);
        while let [first, rest @ ..] = kept
            && !rest.is_empty()
            && is_slight(first)
        {
            (kept, lost) = (rest, add_up(lost, length(first)));
        }
        while let [rest @ .., last] = kept
            && !rest.is_empty()
            && is_slight(last)
        {
            (kept, lost) = (rest, add_up(lost, length(last)));
        }
        let slopes = kept.iter().map(|s| s.slope);
        let (least, most) = slopes.fold((f64::INFINITY, 0.0f64), |(a, b), s| (a.min(s), b.max(s)));
        Slopes { least, most, bent: mul_up(2.0 * steepest, lost) }
    }
}

/// Lines around h' - h on an interval, and how far they are from it at worst.
#[derive(Default)]
struct Distance {
    lower: Line,
    upper: Line,
    /// Of the lower and of the upper line; hints.
    lost: [f64; 2],
}

impl Distance {
    /// # Claim
    /// lower(x) <= h'(x) - h(x) <= upper(x) for x in the interval.
    ///
    /// # Why
    /// Between the knots of both functions the distance is affine, so lines on a side of it at the knots and both ends are there everywhere.
    ///
    /// # Rounding
    /// The values and what the slopes leave of them are rounded outward.
    fn new([h, h2]: [&Piecewise; 2], (l, u): (f64, f64)) -> Self {
        if h == h2 {
            return Distance::default();
        }
        let mut places: Vec<f64> = h.knots.iter().chain(&h2.knots).map(|k| k.0).filter(|x| l < *x && *x < u).collect();
        places.extend([l, u]);
        places.sort_by(f64::total_cmp);
        places.dedup();
        let [h, h2] = [h, h2].map(|h| ScalarFn::Piecewise(h.clone()));
        let [low, high] = [false, true].map(|upper| -> Vec<(f64, f64)> {
            let at = |x| match upper {
                false => sub_down(h2.value_down(x), h.value_up(x)),
                true => sub_up(h2.value_up(x), h.value_down(x)),
            };
            places.iter().map(|&x| (x, at(x))).collect()
        });
        let middle = l + (u - l) / 2.0;
        let lower = below(&low, hull_edge(&low, middle, -1.0));
        let upper = above(&high, hull_edge(&high, middle, 1.0));
        let over = |line: Line, p: &(f64, f64)| p.1 - (line.slope * p.0 + line.offset);
        let lost = [
            high.iter().map(|p| over(lower, p)).fold(0.0, f64::max),
            low.iter().map(|p| -over(upper, p)).fold(0.0, f64::max),
        ];
        Distance { lower, upper, lost }
    }
}

/// The line through slope(d) d at both ends of a range of d, moved to the side of both.
fn chord((l, u): (f64, f64), slope: impl Fn(f64) -> f64, side: f64) -> Line {
    let (a, b) = (slope(l), slope(u));
    let chord = if u > l { (b * u - a * l) / (u - l) } else { a };
    let chord = if chord.is_finite() { chord.max(0.0) } else { 0.0 };
    let up = |d: f64, s: f64| sub_up(mul_up(s, d), mul_down(chord, d));
    let down = |d: f64, s: f64| sub_down(mul_down(s, d), mul_up(chord, d));
    let offset = if side > 0.0 { up(l, a).max(up(u, b)) } else { down(l, a).min(down(u, b)) };
    Line { slope: chord, offset }
}
