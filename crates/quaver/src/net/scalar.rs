//! Monotone scalar functions and the facts that every analysis asks of them.

use super::Grid;
use super::coarse::{Coarse, Corners};
use crate::num::{Dyadic, round};

/// A place where a step function jumps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    /// The exact place.
    pub at: f64,
    /// Whether the place itself still has the lower value (crossed by x > at instead of x >= at).
    pub strict: bool,
}

impl Cut {
    /// Crossed by x >= at.
    pub fn at(at: f64) -> Self {
        Cut { at, strict: false }
    }

    /// The last argument below the cut and the first above it, for arguments on a grid (their closures on the reals).
    pub(super) fn neighbours(self, grid: Grid) -> (f64, f64) {
        match grid {
            Grid::Integer => {
                let first = if self.strict { self.at.floor() + 1.0 } else { self.at.ceil() };
                (first - 1.0, first)
            }
            Grid::Float32 | Grid::Real => (self.at, self.at),
        }
    }
}

/// A non-decreasing step function: `values[k]` where exactly k cuts are crossed.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    cuts: Vec<Cut>,
    values: Vec<f64>,
    /// For each cut the smallest f64 that crosses it, between -infinity and two infinities.
    first: Vec<f64>,
    /// Cuts per unit of x, to guess an index; only a hint.
    density: f64,
    /// The jumps from afar, where there are many.
    coarse: Coarse,
}

impl Step {
    /// A step function from its cuts and values.
    ///
    /// # Panics
    /// If there is not one value more than cuts, or either list decreases.
    pub fn new(cuts: Vec<Cut>, values: Vec<f64>) -> Self {
        assert_eq!(cuts.len() + 1, values.len());
        assert!(cuts.windows(2).all(|c| c[0].at < c[1].at || (c[0].at == c[1].at && c[0].strict <= c[1].strict)));
        assert!(values.windows(2).all(|v| v[0] <= v[1]));
        let span = cuts.last().map_or(0.0, |l| l.at - cuts[0].at);
        let density = if span > 0.0 { (cuts.len() - 1) as f64 / span } else { 0.0 };
        let crossing = cuts.iter().map(|c| if c.strict { c.at.next_up() } else { c.at });
        let ends = [f64::INFINITY; 2];
        let first = std::iter::once(f64::NEG_INFINITY).chain(crossing).chain(ends).collect();
        let coarse = Coarse::new(&cuts, &values);
        Step { cuts, values, first, density, coarse }
    }

    /// The jumps, in order.
    pub fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// The values between them.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Number of cuts crossed at x (exact: comparisons only).
    #[inline(always)]
    pub fn index(&self, x: f64) -> usize {
        let n = self.cuts.len();
        // With evenly spaced cuts the guess is off by one at most; the last comparison finds out.
        let guess = (x - self.first[1]) * self.density + 1.0;
        let k = guess.max(1.0).min(n.max(1) as f64) as u32 as usize;
        let t = &self.first[k - 1..k + 2];
        let found = k - 1 + usize::from(x >= t[1]) + usize::from(x >= t[2]);
        let next = self.first[(found + 1).min(n + 2)];
        if x >= t[0] && x < next { found } else { self.first[1..=n].partition_point(|t| x >= *t) }
    }

    fn breaks(&self, grid: Grid) -> Box<dyn Iterator<Item = (f64, f64)> + '_> {
        match grid {
            Grid::Integer => Box::new(self.cuts.iter().map(move |c| c.neighbours(grid))),
            Grid::Float32 | Grid::Real => Box::new(std::iter::empty()),
        }
    }

    /// The values at many points.
    pub fn values_at(&self, x: &[f64], out: &mut Vec<f64>) {
        out.extend(x.iter().map(|&x| self.values[self.index(x)]));
    }

    /// The constant parts of the graph over [l, u].
    fn plateaus(&self, l: f64, u: f64, grid: Grid) -> Vec<Segment> {
        let (first, last) = (self.index(l), self.index(u));
        let plateau = |from, k: usize| Segment { from, to: u, value: (self.values[k], self.values[k]), slope: 0.0 };
        let mut parts = vec![plateau(l, first)];
        for k in (first..last).filter(|&k| self.values[k] < self.values[k + 1]) {
            let (below, above) = self.cuts[k].neighbours(grid);
            if let Some(before) = parts.last_mut() {
                before.to = below.clamp(l, u);
            }
            // No integer lies between two cuts that are close.
            parts.pop_if(|before| before.to < before.from);
            parts.push(plateau(above.clamp(l, u), k + 1));
        }
        parts
    }

    fn outline(&self, above: bool, (l, u): (f64, f64), grid: Grid, apart: &[f64], out: &mut Vec<(f64, f64)>) {
        let (first, last) = (self.index(l), self.index(u));
        let corner = |k: usize| {
            let (below, first_above) = self.cuts[k].neighbours(grid);
            let (x, y) = if above { (first_above, self.values[k + 1]) } else { (below, self.values[k]) };
            (x.clamp(l, u), y)
        };
        out.push((l, self.values[first]));
        self.coarse.points(&Corners { above, grid, jumps: (first, last), ends: (l, u), apart }, corner, out);
        out.push((u, self.values[last]));
    }

    fn index_exact(&self, x: &Dyadic) -> usize {
        self.cuts.partition_point(|c| {
            // Local invariant: cuts are finite.
            let at = Dyadic::from_f64(c.at).unwrap_or_else(Dyadic::zero);
            if c.strict { *x > at } else { *x >= at }
        })
    }
}

/// A continuous non-decreasing piecewise-linear function through `knots` (increasing in both coordinates, at least
/// one), with the given slopes before the first and after the last.
#[derive(Clone, Debug, PartialEq)]
pub struct Piecewise {
    /// Exact (x, y) pairs. Between two knots the slope must be 0 or 1 so that values are exact.
    pub knots: Vec<(f64, f64)>,
    /// Slope to the left of the first knot, not negative.
    pub left: f64,
    /// Slope to the right of the last knot, not negative.
    pub right: f64,
}

impl Piecewise {
    /// max(x, 0).
    pub fn relu() -> Self {
        Piecewise { knots: vec![(0.0, 0.0)], left: 0.0, right: 1.0 }
    }

    /// x where positive, alpha x elsewhere.
    pub fn leaky_relu(alpha: f64) -> Self {
        Piecewise { knots: vec![(0.0, 0.0)], left: alpha, right: 1.0 }
    }

    /// min(max(x, lo), hi); either bound may be infinite.
    pub fn clip(lo: f64, hi: f64) -> Self {
        match (lo > f64::NEG_INFINITY, hi < f64::INFINITY) {
            (true, true) if lo >= hi => Piecewise { knots: vec![(hi, hi)], left: 0.0, right: 0.0 },
            (true, true) => Piecewise { knots: vec![(lo, lo), (hi, hi)], left: 0.0, right: 0.0 },
            (true, false) => Piecewise { knots: vec![(lo, lo)], left: 0.0, right: 1.0 },
            (false, true) => Piecewise { knots: vec![(hi, hi)], left: 1.0, right: 0.0 },
            (false, false) => Piecewise { knots: vec![(0.0, 0.0)], left: 1.0, right: 1.0 },
        }
    }

    /// Values on both sides of f(x), equal where it is an f64 without rounding.
    fn enclosure(&self, x: f64) -> (f64, f64) {
        let ((kx, ky), slope) = self.piece(x);
        if slope == 0.0 {
            return (ky, ky);
        }
        if slope == 1.0 && kx == ky {
            return (x, x);
        }
        let (lo, hi) = scaled(slope, round::sub_down(x, kx), round::sub_up(x, kx));
        (round::add_down(ky, lo), round::add_up(ky, hi))
    }

    /// f(x) in plain f64.
    fn value_near(&self, x: f64) -> f64 {
        let ((kx, ky), slope) = self.piece(x);
        ky + slope * (x - kx)
    }

    /// Appends the values at some arguments, in plain f64.
    pub(super) fn values_near(&self, x: &[f64], out: &mut Vec<f64>) {
        match self.knots[..] {
            [(kx, ky)] => {
                let (left, right) = (self.left, self.right);
                out.extend(x.iter().map(|x| ky + (if *x < kx { left } else { right }) * (x - kx)));
            }
            _ => out.extend(x.iter().map(|&x| self.value_near(x))),
        }
    }

    /// The piece that holds x: a knot on it and its slope.
    fn piece(&self, x: f64) -> ((f64, f64), f64) {
        let k = self.knots.partition_point(|p| p.0 <= x);
        match k {
            0 => (self.knots[0], self.left),
            k if k == self.knots.len() => (self.knots[k - 1], self.right),
            k => (self.knots[k - 1], inner_slope(self.knots[k - 1], self.knots[k])),
        }
    }
}

fn inner_slope(a: (f64, f64), b: (f64, f64)) -> f64 {
    if a.1 == b.1 { 0.0 } else { 1.0 }
}

/// Every function between two step functions: what a value may become when several runtimes are meant at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Band {
    lower: Step,
    upper: Step,
}

impl Band {
    /// All functions f with lower(x) <= f(x) <= upper(x).
    ///
    /// # Panics
    /// If lower is above upper somewhere.
    pub fn new(lower: Step, upper: Step) -> Self {
        let places = lower.first.iter().chain(&upper.first);
        assert!(places.into_iter().all(|&x| lower.values[lower.index(x)] <= upper.values[upper.index(x)]));
        Band { lower, upper }
    }

    /// The lower end.
    pub fn lower(&self) -> &Step {
        &self.lower
    }

    /// The upper end.
    pub fn upper(&self) -> &Step {
        &self.upper
    }
}

/// A straight part of a graph: over from <= x <= to the value is `value` + slope (x - from).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// First argument.
    pub from: f64,
    /// Last argument.
    pub to: f64,
    /// Values on both sides of the value at `from`, equal where it is an f64.
    pub value: (f64, f64),
    /// Not negative.
    pub slope: f64,
}

/// A monotone (non-decreasing) scalar function, or a band between two.
#[derive(Clone, Debug, PartialEq)]
pub enum ScalarFn {
    /// Piecewise constant.
    Step(Step),
    /// Any of the functions between two piecewise constant ones.
    Band(Band),
    /// Continuous piecewise linear.
    Piecewise(Piecewise),
}

impl ScalarFn {
    /// A value not above f(x), equal to it for steps.
    #[inline]
    pub fn value_down(&self, x: f64) -> f64 {
        match self {
            ScalarFn::Step(s) | ScalarFn::Band(Band { lower: s, .. }) => s.values[s.index(x)],
            ScalarFn::Piecewise(p) => p.enclosure(x).0,
        }
    }

    /// A value not below f(x), equal to it for steps.
    #[inline]
    pub fn value_up(&self, x: f64) -> f64 {
        match self {
            ScalarFn::Step(s) | ScalarFn::Band(Band { upper: s, .. }) => s.values[s.index(x)],
            ScalarFn::Piecewise(p) => p.enclosure(x).1,
        }
    }

    /// f(x), exactly; of a band the lower end, or the upper one.
    pub fn value_exact(&self, x: &Dyadic, upper_end: bool) -> Dyadic {
        // Local invariant: all constants are finite.
        let exact = |c: f64| Dyadic::from_f64(c).unwrap_or_else(Dyadic::zero);
        match self {
            ScalarFn::Step(s) => exact(s.values[s.index_exact(x)]),
            ScalarFn::Band(b) => {
                let s = if upper_end { &b.upper } else { &b.lower };
                exact(s.values[s.index_exact(x)])
            }
            ScalarFn::Piecewise(p) => {
                let k = p.knots.partition_point(|q| exact(q.0) <= *x);
                let (knot, slope) = match k {
                    0 => (p.knots[0], p.left),
                    k if k == p.knots.len() => (p.knots[k - 1], p.right),
                    k => (p.knots[k - 1], inner_slope(p.knots[k - 1], p.knots[k])),
                };
                &exact(knot.1) + &(&exact(slope) * &(x - &exact(knot.0)))
            }
        }
    }

    /// Whether the function has no jumps.
    pub fn is_continuous(&self) -> bool {
        matches!(self, ScalarFn::Piecewise(_))
    }

    /// Whether an argument may have several values.
    pub fn is_band(&self) -> bool {
        matches!(self, ScalarFn::Band(_))
    }

    /// Smallest and largest value over all arguments (infinite where unbounded).
    pub fn range(&self) -> (f64, f64) {
        match self {
            ScalarFn::Step(s) => (s.values[0], s.values[s.values.len() - 1]),
            ScalarFn::Band(b) => (b.lower.values[0], b.upper.values[b.upper.values.len() - 1]),
            ScalarFn::Piecewise(p) => {
                let last = p.knots[p.knots.len() - 1];
                (
                    if p.left == 0.0 { p.knots[0].1 } else { f64::NEG_INFINITY },
                    if p.right == 0.0 { last.1 } else { f64::INFINITY },
                )
            }
        }
    }

    /// Whether every value is an integer, for integer arguments or for any.
    pub fn keeps_integers(&self, integer_arguments: bool) -> bool {
        match self {
            ScalarFn::Step(s) => s.values.iter().all(|v| v.fract() == 0.0),
            ScalarFn::Band(b) => b.lower.values.iter().chain(&b.upper.values).all(|v| v.fract() == 0.0),
            ScalarFn::Piecewise(p) => {
                let slopes = p.left.fract() == 0.0 && p.right.fract() == 0.0;
                integer_arguments && slopes && p.knots.iter().all(|k| k.0.fract() == 0.0 && k.1.fract() == 0.0)
            }
        }
    }

    /// Whether the function is affine on [l, u] (each end of a band is constant), so that bounds on its argument lose nothing.
    pub fn is_affine_on(&self, l: f64, u: f64) -> bool {
        match self {
            ScalarFn::Step(s) => s.index(l) == s.index(u),
            ScalarFn::Band(b) => b.lower.index(l) == b.lower.index(u) && b.upper.index(l) == b.upper.index(u),
            ScalarFn::Piecewise(p) => !p.knots.iter().any(|k| l < k.0 && k.0 < u),
        }
    }

    /// Where the arguments can be divided so that each part has fewer pieces: the last argument of the lower part and the first of the upper, in
    /// order. Where arguments are not integers a jump cannot be divided (the parts are closed), so steps have none.
    pub fn breaks(&self, grid: Grid) -> Box<dyn Iterator<Item = (f64, f64)> + '_> {
        match self {
            ScalarFn::Step(s) => s.breaks(grid),
            ScalarFn::Band(b) => Box::new(b.lower.breaks(grid).chain(b.upper.breaks(grid))),
            ScalarFn::Piecewise(p) => Box::new(p.knots.iter().map(|k| (k.0, k.0))),
        }
    }

    /// Points whose upper concave hull, extended over [l, u], lies above the graph: a line of non-negative slope that is above
    /// all of them is above f on [l, u]. Increasing in x; the first has x = l, the last x = u.
    ///
    /// # Why
    /// A plateau is lowest against a rising line at its left end; a linear piece is below a line if both its ends are. Of many jumps two points may stand
    /// for the corners.
    pub fn upper_points(&self, l: f64, u: f64, grid: Grid, out: &mut Vec<(f64, f64)>) {
        self.outline(true, (l, u), grid, &[], out);
    }

    /// Points whose lower convex hull, extended over [l, u], lies below the graph (see [`Self::upper_points`]).
    pub fn lower_points(&self, l: f64, u: f64, grid: Grid, out: &mut Vec<(f64, f64)>) {
        self.outline(false, (l, u), grid, &[], out);
    }

    /// Points of [`Self::upper_points`] or [`Self::lower_points`] such that between any two arguments in `apart` a linear function of (x, y) that rises in y
    /// (falls) is largest (smallest) over all corners of f at one of the points.
    pub fn outline(&self, above: bool, (l, u): (f64, f64), grid: Grid, apart: &[f64], out: &mut Vec<(f64, f64)>) {
        out.clear();
        match (self, above) {
            (ScalarFn::Step(s) | ScalarFn::Band(Band { upper: s, .. }), true) => {
                s.outline(above, (l, u), grid, apart, out)
            }
            (ScalarFn::Step(s) | ScalarFn::Band(Band { lower: s, .. }), false) => {
                s.outline(above, (l, u), grid, apart, out)
            }
            (ScalarFn::Piecewise(p), _) => {
                let value = |x: f64| if above { self.value_up(x) } else { self.value_down(x) };
                out.push((l, value(l)));
                out.extend(p.knots.iter().filter(|k| l < k.0 && k.0 < u));
                out.push((u, value(u)));
            }
        }
    }

    /// Where the function bends when it is seen from afar: hints.
    pub fn bends(&self) -> [Option<f64>; 2] {
        match self {
            ScalarFn::Step(s) | ScalarFn::Band(Band { lower: s, .. }) => {
                [s.cuts.first(), s.cuts.last()].map(|c| c.map(|c| c.at))
            }
            ScalarFn::Piecewise(p) => [p.knots.first(), p.knots.last()].map(|k| k.map(|k| k.0)),
        }
    }

    /// The value, of a step that of a line through the middles of its plateaus: a hint that tells apart arguments of one plateau.
    pub fn smooth_hint(&self, x: f64) -> f64 {
        match self {
            ScalarFn::Step(s) | ScalarFn::Band(Band { lower: s, .. }) => {
                let (k, n) = (s.index(x), s.cuts.len());
                if n == 0 {
                    return s.values[0];
                }
                let width = if s.density > 0.0 { 1.0 / s.density } else { 1.0 };
                let left = if k == 0 { s.cuts[0].at - width } else { s.cuts[k - 1].at };
                let right = if k == n { s.cuts[n - 1].at + width } else { s.cuts[k].at };
                let jump = s.values[(k + 1).min(n)] - s.values[k.saturating_sub(1)];
                let jump = if k == 0 || k == n { jump } else { jump / 2.0 };
                s.values[k] + jump * ((x - left) / (right - left).max(f64::MIN_POSITIVE) - 0.5)
            }
            ScalarFn::Piecewise(p) => p.value_near(x),
        }
    }

    /// The graph over [l, u] as segments in order, of a band's lower end or its upper one: every point (x, f(x)) with x on the grid lies on a segment,
    /// and on integers no other point does. On the reals a jump's place belongs to the segments on both sides. Jumps without a rise are left out.
    pub fn segments(&self, upper_end: bool, l: f64, u: f64, grid: Grid) -> Vec<Segment> {
        match self {
            ScalarFn::Step(s) => s.plateaus(l, u, grid),
            ScalarFn::Band(b) => if upper_end { &b.upper } else { &b.lower }.plateaus(l, u, grid),
            ScalarFn::Piecewise(p) => {
                let inner = p.knots.iter().map(|k| k.0).filter(|k| l < *k && *k < u);
                let places: Vec<f64> = std::iter::once(l).chain(inner).chain([u]).collect();
                let of = |w: &[f64]| Segment { from: w[0], to: w[1], value: p.enclosure(w[0]), slope: p.piece(w[0]).1 };
                places.windows(2).map(of).collect()
            }
        }
    }

    /// A slope for gradients that pass "straight through" the steps: a hint.
    pub fn slope_hint(&self, x: f64) -> f64 {
        match self {
            ScalarFn::Step(s) | ScalarFn::Band(Band { lower: s, .. }) => {
                let n = s.cuts.len();
                if n == 0 {
                    return 0.0;
                }
                let rise = s.values[n] - s.values[0];
                if n == 1 {
                    // A single jump (a sign): pretend a ramp around it.
                    return rise / (1.0 + (x - s.cuts[0].at).abs());
                }
                let run = s.cuts[n - 1].at - s.cuts[0].at;
                let reach = run / (n - 1) as f64;
                let inside = x >= s.cuts[0].at - reach && x <= s.cuts[n - 1].at + reach;
                if inside { rise / (run + reach) } else { 0.0 }
            }
            ScalarFn::Piecewise(p) => p.piece(x).1,
        }
    }
}

/// Enclosure of slope * [lo, hi] for a non-negative slope.
fn scaled(slope: f64, lo: f64, hi: f64) -> (f64, f64) {
    (round::mul_down(slope, lo), round::mul_up(slope, hi))
}

#[cfg(test)]
mod tests;
