//! The difference of two functions of nearly the same argument; rule *Difference*.

use std::collections::HashMap;

use super::{Batch, Frame, Row};
use crate::lines::{Line, Side, gaps};
use crate::net::{Function, Op, Shape};
use crate::round::{U, add_down, add_up, mul_down, mul_up};

/// What is known of w' - v and u' - u, for one element v = h(u) of a function and v' of another: w' = v' = h(u'), or w' = unit v' for stairs v' of u'.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joint {
    /// w' - v is not below lower(u' - u) and not above upper(u' - u).
    lower: Line,
    upper: Line,
    /// What 1 is worth in v'.
    unit: f64,
    /// Whether walks make use of each.
    is_useful: [bool; 2],
    /// Bounds on u' - u.
    range: (f64, f64),
}

/// A line for a difference is made use of where it loses less than two lines, and not where both lose the same.
const LESS: f64 = 1.0 - 9.5367431640625e-7;

/// Whether rule *Difference* is about two functions: both the same hinge, or a hinge and stairs.
fn is_known([first, second]: [&Shape; 2]) -> bool {
    matches!((first, second), (Shape::Hinge { .. }, Shape::Stairs { .. }))
        || matches!(first, Shape::Hinge { .. }) && first == second
}

/// Bounds on unit q - h(x) for stairs q of x, on [l, u]; zero for h itself.
///
/// # Why
/// Where q is constant, h does not decrease: the difference is smallest at the last argument and largest at the first one.
///
/// # Rounding
/// Outward.
fn distance(h: &Shape, other: &Shape, (l, u): (f64, f64)) -> (f64, f64) {
    let Shape::Stairs { cuts, values, unit } = other else { return (0.0, 0.0) };
    let under = |q: f64, x: f64| add_down(mul_down(*unit, q), -h.at_least(x));
    let over = |q: f64, x: f64| add_up(mul_up(*unit, q), -h.at_most(x));
    let (mut least, mut most) = (under(other.at_most(u), u), over(other.at_least(l), l));
    for k in cuts.partition_point(|c| *c < l)..cuts.partition_point(|c| *c <= u) {
        least = least.min(under(values[k], cuts[k]));
        most = most.max(over(values[k + 1], cuts[k]));
    }
    (least, most)
}

impl Joint {
    /// Nothing but the range of u' - u.
    fn nothing(range: (f64, f64)) -> Joint {
        Joint { lower: Line::default(), upper: Line::default(), unit: 1.0, is_useful: [false; 2], range }
    }

    /// For the bounds on both arguments, and known bounds on u' - u.
    ///
    /// # Claim
    /// For all u and u' within their bounds with u' - u within its own, u' - u is in the range, and both lines hold.
    ///
    /// # Why
    /// With slopes from m to M, h(u') - h(u) is at least M d where d < 0 and m d where d >= 0: concave in d = u' - u. At most it is m d where d < 0 and
    /// M d where d >= 0: convex. Both but for what [`Slopes`] says. Of stairs, w' - v is that and w' - h(u'), which is between two constants.
    fn new(shapes: [&Shape; 2], within: [(f64, f64); 2], known: (f64, f64)) -> Joint {
        let [(l, u), (l2, u2)] = within;
        let range = (known.0.max(add_down(l2, -u)), known.1.min(add_up(u2, -l)));
        let Some(Slopes { least, most, bent }) = Slopes::of(shapes, (l.min(l2), u.max(u2))) else {
            return Joint::nothing(range);
        };
        let (least_apart, most_apart) = distance(shapes[0], shapes[1], within[1]);
        let unit = if let Shape::Stairs { unit, .. } = shapes[1] { *unit } else { 1.0 };
        let slope = |d: f64, [negative, positive]: [f64; 2]| if d < 0.0 { negative } else { positive };
        let chord = |side, slopes| chord(range, [slope(range.0, slopes), slope(range.1, slopes)], side);
        let lost = (most - least) * range.1.max(-range.0).max(0.0) + 2.0 * bent + (most_apart - least_apart);
        let add = |side, a: f64, b: f64| if side == Side::Below { add_down(a, b) } else { add_up(a, b) };
        let moved = |side, line: Line, by: f64| Line { offset: add(side, line.offset, by), ..line };
        let [[below, above], [below2, above2]] = [0, 1].map(|k| gaps(shapes[k], within[k]));
        Joint {
            lower: moved(Side::Below, chord(Side::Below, [most, least]), add_down(least_apart, -bent)),
            upper: moved(Side::Above, chord(Side::Above, [least, most]), add_up(most_apart, bent)),
            unit,
            is_useful: [lost < LESS * (above + unit * below2), lost < LESS * (below + unit * above2)],
            range,
        }
    }

    /// How much of c v + c' v' is taken as a multiple of w' - v, and the line for that.
    fn share(&self, c: f64, c2: f64) -> Option<(f64, Line)> {
        let c2 = c2 / self.unit;
        let (line, is_useful) =
            if c2 > 0.0 { (self.lower, self.is_useful[0]) } else { (self.upper, self.is_useful[1]) };
        let cancels = c > 0.0 && c2 < 0.0 || c < 0.0 && c2 > 0.0;
        (cancels && is_useful).then(|| (c.abs().min(c2.abs()).copysign(c2), line))
    }
}

/// The slopes of a function on an interval: the least and the largest, and what has to be added to the difference of two values.
struct Slopes {
    least: f64,
    most: f64,
    bent: f64,
}

/// A piece at an end of an interval that is at most this share of it is left out: bounds that are rounded otherwise must not make another function of it.
const SLIGHT: f64 = 9.5367431640625e-7;

impl Slopes {
    /// Those of a hinge on [l, u], if the rule is about both functions.
    ///
    /// # Claim
    /// h(u') - h(u) is not below least d - bent and not above most d + bent for d = u' - u >= 0; for d < 0 not below most d - bent and not above least d +
    /// bent.
    ///
    /// # Why
    /// If pieces of lengths that sum up to s at the ends get the slopes of their neighbours, the values change by at most s times the largest slope.
    fn of([h, other]: [&Shape; 2], (l, u): (f64, f64)) -> Option<Slopes> {
        let (Shape::Hinge { left, low, high }, true) = (h, is_known([h, other])) else { return None };
        let pieces = [(l, u.min(*low), *left), (l.max(*low), u.min(*high), 1.0), (l.max(*high), u, 0.0)];
        let mut pieces: Vec<_> = pieces.into_iter().filter(|p| p.0 < p.1).collect();
        if pieces.is_empty() {
            // A single point.
            return Some(Slopes { least: 0.0, most: left.max(1.0), bent: 0.0 });
        }
        let steepest = pieces.iter().map(|p| p.2).fold(0.0, f64::max);
        let mut left_out = 0.0;
        for end in [0, usize::MAX] {
            loop {
                let piece = pieces[end.min(pieces.len() - 1)];
                let length = add_up(piece.1, -piece.0);
                if pieces.len() == 1 || length > SLIGHT * (u - l) {
                    break;
                }
                pieces.remove(end.min(pieces.len() - 1));
                left_out = add_up(left_out, length);
            }
        }
        let slopes = || pieces.iter().map(|p| p.2);
        let (least, most) = (slopes().fold(f64::INFINITY, f64::min), slopes().fold(0.0, f64::max));
        Some(Slopes { least, most, bent: mul_up(2.0 * steepest, left_out) })
    }
}

/// The line through a d and b d at the ends of a range of d, moved to a side of both.
///
/// # Rounding
/// The slope may be any number; the offset is rounded to the line's side at both ends.
fn chord((l, u): (f64, f64), [a, b]: [f64; 2], side: Side) -> Line {
    let slope = if u > l { (b * u - a * l) / (u - l) } else { a };
    let slope = if slope.is_finite() { slope.max(0.0) } else { 0.0 };
    let offset = match side {
        Side::Below => {
            let at = |d: f64, s: f64| add_down(mul_down(s, d), -mul_up(slope, d));
            at(l, a).min(at(u, b))
        }
        Side::Above => {
            let at = |d: f64, s: f64| add_up(mul_up(s, d), -mul_down(slope, d));
            at(l, a).max(at(u, b))
        }
    };
    Line { slope, offset }
}

impl Frame<'_> {
    fn function(&self, id: usize) -> Option<&Function> {
        if let Op::Function(f) = &self.net.values[id].op { Some(f) } else { None }
    }

    /// Bounds the difference of two twins, of which the second was pushed last; false if nothing is left.
    pub fn compare(&mut self, first: usize, second: usize) -> bool {
        let (Some(f), Some(f2)) = (self.function(first), self.function(second)) else { return true };
        let (x, x2) = (&self.bounds[f.of], &self.bounds[f2.of]);
        let within = |i: usize| [(x.lo[i], x.hi[i]), (x2.lo[i], x2.hi[i])];
        let shapes = |i: usize| [f.at(i), f2.at(i)];
        let everything = (f64::NEG_INFINITY, f64::INFINITY);
        let count = x.lo.len().min(x2.lo.len());
        let mut joints: Vec<Joint> = (0..count).map(|i| Joint::new(shapes(i), within(i), everything)).collect();
        let is_open = |i: &usize| {
            let is_bent = |k: usize| !shapes(*i)[k].is_affine_on(within(*i)[k].0, within(*i)[k].1);
            is_known(shapes(*i)) && (is_bent(0) || is_bent(1))
        };
        let open: Vec<usize> = (0..count).filter(is_open).collect();
        // u' - u and its negative, from the later of both.
        let is_later = f2.of > f.of;
        let (last, other) = if is_later { (f2.of, f.of) } else { (f.of, f2.of) };
        let row = |i: usize, sign: f64| {
            let sign = if is_later { sign } else { -sign };
            Row { terms: vec![(i, sign)], before: vec![(other, i, -sign)], ..Row::default() }
        };
        let rows: Vec<Row> = open.iter().flat_map(|&i| [row(i, 1.0), row(i, -1.0)]).collect();
        for (&i, found) in open.iter().zip(self.walk(last, &rows).chunks(2)) {
            joints[i] = Joint::new(shapes(i), within(i), (found[0], -found[1]));
        }
        let is_left = open.iter().all(|&i| joints[i].range.0 <= joints[i].range.1);
        self.joints[second] = joints;
        is_left
    }
}

impl Batch<'_> {
    /// What is known under the cuts of some rows, by element and row.
    fn own_joints(&self, [first, second]: [(usize, &Function); 2]) -> HashMap<(usize, usize), Joint> {
        let (frame, mut own) = (self.frame, HashMap::new());
        for (r, row) in self.rows.iter().enumerate() {
            for i in row.cuts.iter().filter(|c| c.function == first.0 || c.function == second.0).map(|c| c.element) {
                let within = [first, second].map(|(id, f)| {
                    let last = row.cuts.iter().rfind(|c| c.function == id && c.element == i);
                    let x = &frame.bounds[f.of];
                    last.map_or((x.lo[i], x.hi[i]), |c| c.within)
                });
                let joint = Joint::new([first.1.at(i), second.1.at(i)], within, frame.joints[second.0][i].range);
                own.insert((i, r), joint);
            }
        }
        own
    }

    /// Takes what cancels of the coefficients on two twins to their arguments, before the second is replaced.
    ///
    /// # Claim
    /// Every functional stays at least what it was.
    ///
    /// # Rounding
    /// What is left of each coefficient is rounded, the product with the unit before that (t is any number), and so is the product with the slope, once for
    /// both arguments; the product with the offset is one of a sum.
    pub(super) fn cancel(&mut self, second: usize) {
        let frame = self.frame;
        let Some(first) = frame.net.twin(second).filter(|_| !frame.joints[second].is_empty()) else { return };
        let (Some(f), Some(f2)) = (frame.function(first), frame.function(second)) else { return };
        let (Some(_), Some(_)) = (&self.coefficients[first], &self.coefficients[second]) else { return };
        let own = self.own_joints([(first, f), (second, f2)]);
        let [mut c, mut c2] = [first, second].map(|id| self.coefficients[id].take().unwrap_or_default());
        let n = self.rows.len();
        let [x, x2, v, v2] = [f.of, f2.of, first, second].map(|id| &frame.bounds[id]);
        let gamma = self.gamma(x.lo.len());
        let (mut sum, mut error) = (vec![0.0; n], vec![0.0; n]);
        let mut back = [x, x2].map(|x| vec![0.0; x.lo.len() * n]);
        for (k, (c, c2)) in c.iter_mut().zip(&mut c2).enumerate() {
            let (i, r) = (k / n, k % n);
            let joint = own.get(&(i, r)).unwrap_or(&frame.joints[second][i]);
            let Some((t, line)) = joint.share(*c, *c2) else { continue };
            let taken = t * joint.unit;
            (*c, *c2) = (*c + t, *c2 - taken);
            let slope = t * line.slope;
            (back[0][k], back[1][k]) = (-slope, slope);
            sum[r] += t * line.offset;
            error[r] += gamma * (t * line.offset).abs();
            error[r] += 2.0 * U * (c.abs() * v.magnitude(i) + (c2.abs() + taken.abs()) * v2.magnitude(i));
            error[r] += 2.0 * U * slope.abs() * (x.magnitude(i) + x2.magnitude(i));
        }
        self.settle(&sum, &error);
        (self.coefficients[first], self.coefficients[second]) = (Some(c), Some(c2));
        let [back, back2] = back;
        self.arrive(f.of, back);
        self.arrive(f2.of, back2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rational::Rational;
    use proptest::prelude::*;

    fn exact(x: f64) -> Rational {
        Rational::from_f64(x).unwrap()
    }

    /// h, exactly.
    fn value(left: f64, low: f64, high: f64, x: &Rational) -> Rational {
        let low = exact(low);
        if *x < low {
            return &low + &(&exact(left) * &(x + &-&low));
        }
        let is_above = high.is_finite() && exact(high) < *x;
        if is_above { exact(high) } else { x.clone() }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Arguments are multiples of 1/60 of the way between bounds that are no round numbers.
        #[test]
        fn differences_are_between_the_lines(left in 0.0f64..1.0, low in -2.0f64..1.0, span in 0.0f64..3.0, clipped in any::<bool>(), exactly in any::<bool>(),
                slight in 0u8..4, l in -4.0f64..3.0, width in 0.0f64..5.0, l2 in -4.0f64..3.0, width2 in 0.0f64..5.0,
                known in (-3.0f64..1.0, 0.0f64..4.0), points in proptest::collection::vec((0i64..=60, 0i64..=60), 40)) {
            let left = if exactly { 0.0 } else { left };
            let high = if clipped { low + span } else { f64::INFINITY };
            let h = Shape::Hinge { left, low, high };
            // Often a piece is hardly there.
            let (l, l2) = if slight < 2 { (low - f64::from(slight) * 1e-7, low + 0.25) } else { (l, l2) };
            let within = [(l, l + width), (l2, l2 + width2)];
            let known = (known.0, known.0 + known.1);
            let joint = Joint::new([&h, &h], within, known);
            let part = Rational::from(60).recip().unwrap();
            let between = |(l, u): (f64, f64), k: i64| {
                let t = &Rational::from(k) * &part;
                &exact(l) + &(&t * &(&exact(u) + &-&exact(l)))
            };
            for (a, b) in points {
                let (x, x2) = (between(within[0], a), between(within[1], b));
                let d = &x2 + &-&x;
                if d < exact(known.0) || exact(known.1) < d {
                    continue;
                }
                prop_assert!(exact(joint.range.0) <= d && d <= exact(joint.range.1));
                let difference = &value(left, low, high, &x2) + &-&value(left, low, high, &x);
                let at = |line: Line| &(&exact(line.slope) * &d) + &exact(line.offset);
                prop_assert!(at(joint.lower) <= difference && difference <= at(joint.upper), "{joint:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Stairs beside a hinge, at points between bounds and at the places where the stairs change.
        #[test]
        fn differences_to_stairs_are_between_the_lines(unit in 0.05f64..0.8, zero in 0i32..4, last in 2i32..30, clipped in any::<bool>(), top in 0.5f64..9.0,
                l in -4.0f64..3.0, width in 0.0f64..9.0, l2 in -4.0f64..3.0, width2 in 0.0f64..9.0,
                known in (-3.0f64..1.0, 0.0f64..4.0), points in proptest::collection::vec((0i64..=60, 0i64..=60), 30)) {
            let h = Shape::Hinge { left: 0.0, low: 0.0, high: if clipped { top } else { f64::INFINITY } };
            let cuts: Vec<f64> = (1..=last - zero).map(|k| (f64::from(k) - 0.5) * unit).collect();
            let values: Vec<f64> = (zero..=last.max(zero)).map(f64::from).collect();
            let stairs = Shape::Stairs { cuts: cuts.clone(), values: values[..=cuts.len()].to_vec(), unit };
            let within = [(l, l + width), (l2, l2 + width2)];
            let known = (known.0, known.0 + known.1);
            let joint = Joint::new([&h, &stairs], within, known);
            let inside = cuts.iter().filter(|c| within[1].0 <= **c && **c <= within[1].1).copied();
            let places: Vec<f64> = points.iter().map(|p| l2 + width2 * p.1 as f64 / 60.0).map(|x| x.min(within[1].1)).chain(inside).collect();
            for (x2, a) in places.into_iter().zip(points.iter().map(|p| p.0).cycle()) {
                let x = (l + width * a as f64 / 60.0).min(within[0].1);
                let d = &exact(x2) + &-&exact(x);
                if d < exact(known.0) || exact(known.1) < d {
                    continue;
                }
                let at = |line: Line| &(&exact(line.slope) * &d) + &exact(line.offset);
                let high = if clipped { top } else { f64::INFINITY };
                for q in [stairs.at_most(x2), stairs.at_least(x2)] {
                    let difference = &(&exact(unit) * &exact(q)) + &-&value(0.0, 0.0, high, &exact(x));
                    prop_assert!(at(joint.lower) <= difference && difference <= at(joint.upper), "{joint:?} {x} {x2} {q}");
                }
            }
        }
    }

    #[test]
    fn two_relus_have_their_usual_lines() {
        let relu = Shape::Hinge { left: 0.0, low: 0.0, high: f64::INFINITY };
        let joint = Joint::new([&relu, &relu], [(-2.0, 2.0), (-2.0, 2.0)], (-0.5, 0.25));
        // Between d and 0: above through (-0.5, 0) and (0.25, 0.25), below through (-0.5, -0.5) and (0.25, 0).
        let of = |slope: f64, d: f64, y: f64| Line { slope, offset: y - slope * d };
        let near = |a: Line, b: Line| (a.slope - b.slope).abs() < 1e-12 && (a.offset - b.offset).abs() < 1e-12;
        assert!(
            near(joint.upper, of(1.0 / 3.0, -0.5, 0.0)) && near(joint.lower, of(2.0 / 3.0, -0.5, -0.5)),
            "{joint:?}"
        );
        assert_eq!((joint.is_useful, joint.range), ([true, true], (-0.5, 0.25)));
        // Far apart, a line for each is better, and where nothing bends there is nothing to gain.
        assert_eq!(Joint::new([&relu, &relu], [(-2.0, 2.0), (-2.0, 2.0)], (-4.0, 4.0)).is_useful, [false, false]);
        assert_eq!(Joint::new([&relu, &relu], [(1.0, 2.0), (1.0, 2.0)], (-0.5, 0.5)).is_useful, [false, false]);
        let leaky = Shape::Hinge { left: 0.5, low: 0.0, high: f64::INFINITY };
        assert_eq!(Joint::new([&relu, &leaky], [(-2.0, 2.0), (-2.0, 2.0)], (-0.5, 0.25)).is_useful, [false, false]);
    }
}
