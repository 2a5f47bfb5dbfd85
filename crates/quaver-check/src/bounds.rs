//! Bounds on the elements of values; the rules *Interval* and *Meet*.

use crate::net::{Affine, Map, Net, Op, Shape, Source};
use crate::round::{add_down, add_up, at_least, gamma};

/// l <= element <= u, for each element of a value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bounds {
    /// The numbers l.
    pub lo: Vec<f64>,
    /// The numbers u.
    pub hi: Vec<f64>,
}

impl Bounds {
    /// The largest magnitude of an element.
    pub fn magnitude(&self, i: usize) -> f64 {
        self.lo[i].abs().max(self.hi[i].abs())
    }

    /// Rule *Meet*: false if nothing is left.
    pub fn meet(&mut self, i: usize, lo: f64, hi: f64) -> bool {
        self.lo[i] = self.lo[i].max(lo);
        self.hi[i] = self.hi[i].min(hi);
        self.lo[i] <= self.hi[i]
    }

    /// Bounds moved inward to integers.
    fn round_inward(&mut self) {
        self.lo.iter_mut().for_each(|l| *l = l.ceil());
        self.hi.iter_mut().for_each(|u| *u = u.floor());
    }

    /// Whether all are finite numbers.
    pub fn are_finite(&self) -> bool {
        self.lo.iter().chain(&self.hi).all(|x| x.is_finite())
    }
}

/// Rule *Interval*: bounds on a value from those on its arguments, and for an affine one the sums of `affine`. The input has none of its own.
///
/// # Rounding
/// Affine sums as in `affine`; a function is monotone and its values are rounded outward; all else is exact.
pub fn interval(net: &Net, id: usize, bounds: &[Bounds]) -> (Bounds, Vec<f64>) {
    let value = &net.values[id];
    let mut sums = vec![];
    let mut result = match &value.op {
        Op::Input => Bounds::default(),
        Op::Affine(a) => {
            let (result, own) = affine(a, bounds);
            sums = own;
            result
        }
        Op::Function(f) => {
            let x = &bounds[f.of];
            let ends = (0..value.len()).map(|i| (f.at(i).at_most(x.lo[i]), f.at(i).at_least(x.hi[i])));
            let (lo, hi) = ends.unzip();
            Bounds { lo, hi }
        }
        Op::Max { of, windows } => {
            let largest = |of: &[f64]| -> Vec<f64> {
                let window = |w: &Vec<u32>| w.iter().map(|&j| of[j as usize]).fold(f64::NEG_INFINITY, f64::max);
                windows.iter().map(window).collect()
            };
            Bounds { lo: largest(&bounds[*of].lo), hi: largest(&bounds[*of].hi) }
        }
        Op::Move { of, from } => {
            let copied = |of: &[f64]| -> Vec<f64> {
                let copy = |s: &Source| match s {
                    Source::Element(i) => of[*i as usize],
                    Source::Constant(k) => *k,
                };
                from.iter().map(copy).collect()
            };
            Bounds { lo: copied(&bounds[*of].lo), hi: copied(&bounds[*of].hi) }
        }
        Op::Row(of) => {
            let (lo, hi) = of.iter().flat_map(|id| bounds[*id].lo.iter().zip(&bounds[*id].hi)).unzip();
            Bounds { lo, hi }
        }
    };
    if value.integer {
        result.round_inward();
    }
    (result, sums)
}

/// Bounds on an affine value, and for each element a number not below m = sum |weight| |argument| + |bias|.
///
/// # Rounding
/// With n products and sums, each end is computed with an error of at most gamma(n) m, and `slack` m may be lost by the runtime.
fn affine(a: &Affine, bounds: &[Bounds]) -> (Bounds, Vec<f64>) {
    let len = a.bias.len();
    let (mut lo, mut hi) = (a.bias.clone(), a.bias.clone());
    let mut sums: Vec<f64> = a.bias.iter().map(|b| b.abs()).collect();
    let mut roundings = 2;
    for (of, map) in &a.terms {
        let x = &bounds[*of];
        roundings += map.terms() + 2;
        for i in 0..len {
            let [least, most, sum] = ends_of_product(map, i, x);
            lo[i] += least;
            hi[i] += most;
            sums[i] += sum;
        }
    }
    for i in 0..len {
        sums[i] = at_least(sums[i], roundings);
        let error = at_least(sums[i] * (gamma(roundings) + a.slack), 4);
        lo[i] = add_down(lo[i], -error);
        hi[i] = add_up(hi[i], error);
    }
    (Bounds { lo, hi }, sums)
}

/// The smallest and the largest sum of products of one output, and the sum of their magnitudes, not rounded to any side.
fn ends_of_product(map: &Map, output: usize, x: &Bounds) -> [f64; 3] {
    let Map::Dense { inputs, outputs, weights, .. } = map else {
        let mut ends = [0.0; 3];
        map.for_each(output, |j, w| add_ends(&mut ends, w, x.lo[j], x.hi[j]));
        return ends;
    };
    let (block, row) = (output / outputs * inputs, output % outputs * inputs);
    let (w, lo, hi) = (&weights[row..row + inputs], &x.lo[block..block + inputs], &x.hi[block..block + inputs]);
    // Several sums side by side: the order is free.
    let mut sums = [[0.0; 3]; LANES];
    let (whole, rest) = (w.chunks_exact(LANES), inputs - inputs % LANES);
    for (w, (lo, hi)) in whole.zip(lo.chunks_exact(LANES).zip(hi.chunks_exact(LANES))) {
        for k in 0..LANES {
            add_ends(&mut sums[k], w[k], lo[k], hi[k]);
        }
    }
    (rest..*inputs).for_each(|j| add_ends(&mut sums[0], w[j], lo[j], hi[j]));
    sums.iter().fold([0.0; 3], |all, s| [all[0] + s[0], all[1] + s[1], all[2] + s[2]])
}

const LANES: usize = 4;

#[inline(always)]
fn add_ends(ends: &mut [f64; 3], w: f64, lo: f64, hi: f64) {
    let (a, b) = (w * lo, w * hi);
    ends[0] += if a < b { a } else { b };
    ends[1] += if a < b { b } else { a };
    ends[2] += if a.abs() < b.abs() { b.abs() } else { a.abs() };
}

impl Shape {
    /// A value not above f(x); f(x) where that is exact.
    pub fn at_most(&self, x: f64) -> f64 {
        self.enclosed(x).0
    }

    /// A value not below f(x); f(x) where that is exact.
    pub fn at_least(&self, x: f64) -> f64 {
        self.enclosed(x).1
    }

    fn enclosed(&self, x: f64) -> (f64, f64) {
        match self {
            Shape::Hinge { low, left: 0.0, .. } if x < *low => (*low, *low),
            Shape::Hinge { low, left, .. } if x < *low => {
                // low + left (x - low)
                let (below, above) = (add_down(x, -low), add_up(x, -low));
                (add_down(*low, crate::round::mul_down(*left, below)), add_up(*low, crate::round::mul_up(*left, above)))
            }
            Shape::Hinge { high, .. } => (x.min(*high), x.min(*high)),
            Shape::Step { starts, values } => {
                let y = values[starts.partition_point(|s| *s <= x)];
                (y, y)
            }
            Shape::Stairs { cuts, values, .. } => {
                (values[cuts.partition_point(|c| *c < x)], values[cuts.partition_point(|c| *c <= x)])
            }
        }
    }

    /// Whether the function is one affine function on [l, u].
    pub fn is_affine_on(&self, l: f64, u: f64) -> bool {
        match self {
            Shape::Hinge { left, low, high } => {
                let bends_low = *left != 1.0 && l < *low && *low < u;
                !(bends_low || l < *high && *high < u)
            }
            Shape::Step { starts, .. } => {
                let index = |x: f64| starts.partition_point(|s| *s <= x);
                l == u || index(l) == index(u)
            }
            Shape::Stairs { .. } => self.at_most(l) == self.at_least(u),
        }
    }
}
