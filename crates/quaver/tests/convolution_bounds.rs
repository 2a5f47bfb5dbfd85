//! Bounds of random small convolutional networks (padding, strides, dilations, groups, residual sums, pools, index maps that repeat
//! elements) against exact execution, with tolerance zero; and against the intervals, which they must never be looser than.

use proptest::prelude::*;
use quaver::bounds::{Bounds, Prepared, analyse, analyse_until, interval, lower_bounds};
use quaver::net::{
    Affine, Conv, Cut, Dense, From, Geometry, Grid, LinearMap, Max, Move, Net, Node, NodeId, Op, Piecewise, Pointwise,
    Rounding, ScalarFn, Spread, Step, Weights, execute_exact,
};
use quaver::num::Dyadic;
use quaver::property::Region;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Instant;

#[derive(Clone, Copy)]
struct Picture {
    id: NodeId,
    channels: usize,
    size: [usize; 2],
}

impl Picture {
    fn len(self) -> usize {
        self.channels * self.size[0] * self.size[1]
    }
}

struct Maker {
    rng: StdRng,
    net: Net,
    integer: bool,
}

impl Maker {
    fn weight(&mut self) -> f64 {
        if self.integer {
            f64::from(self.rng.random_range(-5i32..=5))
        } else {
            f64::from(self.rng.random_range(-1.0f32..1.0)) * 2f64.powi(self.rng.random_range(-6..2))
        }
    }

    fn weights(&mut self, n: usize) -> Weights {
        Weights::new((0..n).map(|_| self.weight()).collect())
    }

    fn add(&mut self, channels: usize, size: [usize; 2], op: Op) -> Picture {
        let grid = if self.integer { Grid::Integer } else { Grid::Real };
        let range = if matches!(op, Op::Input(_)) { (-8.0, 8.0) } else { self.net.range_of(&op) };
        let shape = vec![channels, size[0], size[1]];
        let id = self.net.add(Node { name: String::new(), shape, op, grid, range, quantization: None });
        Picture { id, channels, size }
    }

    fn affine(&mut self, terms: Vec<(NodeId, LinearMap)>, channels: usize, size: [usize; 2]) -> Picture {
        let bias = Spread::axis((0..channels).map(|_| self.weight()).collect(), size[0] * size[1]);
        let rounding = match self.rng.random_range(0..3) {
            0 if !self.integer => Rounding::Nearest32,
            1 if !self.integer => Rounding::Slack { relative: 1e-6, absolute: Spread::all(1e-30) },
            _ => Rounding::Exact,
        };
        self.add(channels, size, Op::Affine(Affine { terms, bias, rounding }))
    }

    /// An index map that keeps the channels: `source(y, x)` is a position of the argument or a constant.
    fn moved(&mut self, x: Picture, size: [usize; 2], source: impl Fn(usize, usize) -> Option<[usize; 2]>) -> Picture {
        let plane = size[0] * size[1];
        let origin = |i: usize| match source(i % plane / size[1], i % size[1]) {
            Some([y, x0]) => From::Element { source: 0, index: ((i / plane * x.size[0] + y) * x.size[1] + x0) as u32 },
            None => From::Constant(1.0),
        };
        let from = (0..x.channels * plane).map(origin).collect();
        self.add(x.channels, size, Op::Move(Move { sources: vec![x.id], from }))
    }

    fn pad(&mut self, x: Picture, by: usize) -> Picture {
        let inside = |i: usize, n: usize| i.checked_sub(by).filter(|&i| i < n);
        self.moved(x, x.size.map(|s| s + 2 * by), |y, x0| Some([inside(y, x.size[0])?, inside(x0, x.size[1])?]))
    }

    /// Transposes, mirrors or repeats.
    fn rearrange(&mut self, x: Picture) -> Picture {
        let [h, w] = x.size;
        match self.rng.random_range(0..3) {
            0 => self.moved(x, [w, h], |y, x0| Some([x0, y])),
            1 => self.moved(x, [h, w], |y, x0| Some([h - 1 - y, w - 1 - x0])),
            _ => self.moved(x, [h + 1, w + 1], |y, x0| Some([y * h / (h + 1), x0 * w / (w + 1)])),
        }
    }

    fn conv_map(&mut self, x: Picture, channels: usize, groups: usize, keep: bool) -> (LinearMap, [usize; 2]) {
        let limit = |size: usize| size.min(3);
        let mut pick = |most: usize| if keep { 1 } else { self.rng.random_range(1..=most) };
        let kernel = x.size.map(|s| pick(limit(s)));
        let stride = [pick(3), pick(3)];
        let dilation = [0, 1].map(|a| if kernel[a] == 2 && x.size[a] >= 3 { pick(2) } else { 1 });
        let size = [0, 1].map(|a| (x.size[a] - (kernel[a] - 1) * dilation[a] - 1) / stride[a] + 1);
        let geometry = Geometry {
            groups,
            in_channels: x.channels,
            in_size: x.size,
            out_channels: channels,
            out_size: size,
            kernel,
            stride,
            dilation,
        };
        let weights = self.weights(channels * x.channels / groups * kernel[0] * kernel[1]);
        (LinearMap::Conv(Conv { geometry, weights }), size)
    }

    fn conv(&mut self, x: Picture) -> Picture {
        let (groups, channels) = match self.rng.random_range(0..3) {
            0 => (x.channels, x.channels * self.rng.random_range(1..=2)),
            1 if x.channels.is_multiple_of(2) => (2, 4),
            _ => (1, self.rng.random_range(1..=4)),
        };
        let (map, size) = self.conv_map(x, channels.min(8 / groups * groups), groups, false);
        let channels = map.outputs() / (size[0] * size[1]);
        self.affine(vec![(x.id, map)], channels, size)
    }

    /// f(pad(x)) + x in one affine node, or after a function.
    fn residual(&mut self, x: Picture) -> Picture {
        let (map, size) = self.conv_map(x, x.channels, 1, true);
        let identity = LinearMap::identity(x.len());
        if self.rng.random_bool(0.5) {
            return self.affine(vec![(x.id, map), (x.id, identity)], x.channels, size);
        }
        let padded = self.pad(x, 1);
        let weights = self.weights(x.channels * x.channels * 9);
        let geometry = Geometry {
            groups: 1,
            in_channels: x.channels,
            in_size: padded.size,
            out_channels: x.channels,
            out_size: x.size,
            kernel: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
        };
        let inner = self.affine(vec![(padded.id, LinearMap::Conv(Conv { geometry, weights }))], x.channels, x.size);
        let inner = self.function(inner);
        self.affine(vec![(inner.id, identity.clone()), (x.id, identity)], x.channels, x.size)
    }

    fn function(&mut self, x: Picture) -> Picture {
        let function = if self.rng.random_bool(0.3) {
            ScalarFn::Piecewise(Piecewise::relu())
        } else {
            let scale = f64::from(self.rng.random_range(1..12));
            let half = if self.integer { 0.5 } else { 0.3 };
            let cuts = (-5..6).map(|k| Cut::at((f64::from(k) - half) * scale)).collect();
            ScalarFn::Step(Step::new(cuts, (-6..6).map(f64::from).collect()))
        };
        let functions = Spread::all(function);
        self.add(x.channels, x.size, Op::Pointwise(Pointwise { input: x.id, functions }))
    }

    /// Windows of 2 x 2 that overlap.
    fn max_pool(&mut self, x: Picture) -> Picture {
        let size = x.size.map(|s| s.saturating_sub(1).max(1));
        let (mut starts, mut members) = (vec![0], vec![]);
        for (c, y, x0) in
            (0..x.channels).flat_map(|c| (0..size[0]).flat_map(move |y| (0..size[1]).map(move |x0| (c, y, x0))))
        {
            for (dy, dx) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                if y + dy < x.size[0] && x0 + dx < x.size[1] {
                    members.push(((c * x.size[0] + y + dy) * x.size[1] + x0 + dx) as u32);
                }
            }
            starts.push(members.len() as u32);
        }
        self.add(x.channels, size, Op::Max(Max { input: x.id, starts, members }))
    }

    /// Dense on the last axis, or on everything.
    fn dense(&mut self, x: Picture, outputs: Option<usize>) -> Picture {
        let (outer, n_in, n_out) = match outputs {
            Some(n) => (1, x.len(), n),
            None => (x.channels * x.size[0], x.size[1], self.rng.random_range(1..=3)),
        };
        let weights = self.weights(n_in * n_out);
        let (channels, height) = if outputs.is_some() { (1, 1) } else { (x.channels, x.size[0]) };
        let map = LinearMap::Dense(Dense { outer, n_in, n_out, weights });
        self.affine(vec![(x.id, map)], channels, [height, n_out])
    }
}

const CLASSES: usize = 3;

fn random_net(seed: u64, integer: bool) -> Net {
    let mut m = Maker { rng: StdRng::seed_from_u64(seed), net: Net::new(), integer };
    let (channels, size) = (m.rng.random_range(1..=3), [m.rng.random_range(3..=6), m.rng.random_range(3..=6)]);
    let mut x = m.add(channels, size, Op::Input(0));
    for _ in 0..m.rng.random_range(2..6) {
        x = match m.rng.random_range(0..10) {
            0..3 => m.conv(x),
            3 | 4 => {
                let padded = m.pad(x, 1);
                m.conv(padded)
            }
            5 | 6 => m.residual(x),
            7 => m.max_pool(x),
            8 => m.rearrange(x),
            _ => m.dense(x, None),
        };
        if m.rng.random_bool(0.7) {
            x = m.function(x);
        }
    }
    let out = m.dense(x, Some(CLASSES));
    m.net.set_outputs(vec![out.id]);
    m.net
}

fn exact(x: f64) -> Dyadic {
    Dyadic::from_f64(x).unwrap()
}

fn random_region(n: usize, integer: bool, rng: &mut StdRng) -> Region {
    let (mut lo, mut hi) = (vec![], vec![]);
    for _ in 0..n {
        let (a, width) = (rng.random_range(-5.0f64..4.0), rng.random_range(0.0f64..1.5));
        let (a, width) = if integer { (a.round(), width.round()) } else { (a, width) };
        lo.push(a);
        hi.push(a + width);
    }
    Region { lo, hi }
}

/// Corners and other members of the box.
fn points(region: &Region, integer: bool, rng: &mut StdRng) -> Vec<Vec<f64>> {
    let mut member = |inner: f64| -> Vec<f64> {
        let ends = region.lo.iter().zip(&region.hi);
        ends.map(|(&l, &h)| {
            let t = if rng.random_bool(inner) { rng.random::<f64>() } else { f64::from(rng.random_range(0u8..2)) };
            let x = l + t * (h - l);
            (if integer { x.round() } else { x }).clamp(l, h)
        })
        .collect()
    };
    let random: Vec<Vec<f64>> = [0.0, 0.0, 0.0, 0.3, 1.0].into_iter().map(&mut member).collect();
    [vec![region.lo.clone(), region.hi.clone()], random].concat()
}

/// By how much bounds reach beyond intervals at most, relative to the largest number.
fn looser_by(intervals: &Bounds, bounds: &Bounds) -> f64 {
    let largest = (0..intervals.lo.len()).map(|k| intervals.magnitude(k)).fold(1.0, f64::max);
    let below = intervals.lo.iter().zip(&bounds.lo).map(|(i, b)| i - b);
    let above = intervals.hi.iter().zip(&bounds.hi).map(|(i, b)| b - i);
    below.chain(above).fold(0.0, f64::max) / largest
}

fn check(seed: u64, integer: bool) {
    let net = random_net(seed, integer);
    let rng = &mut StdRng::seed_from_u64(seed ^ 0x2545_f491);
    let region = random_region(net.node(net.inputs()[0]).len(), integer, rng);
    let prepared = Prepared::new(&net);
    let intervals = interval(&net, &region);
    let analysis = analyse(&prepared, &region).expect("small numbers do not overflow");
    let hurried = analyse_until(&prepared, &region, Some(Instant::now())).expect("small numbers do not overflow");
    for id in net.ids() {
        for (name, found) in [("analysis", &analysis), ("hurried analysis", &hurried)] {
            let looser = looser_by(&intervals[id.0], &found.bounds[id.0]);
            // Tightness, not soundness: on reals both are rounded outward in other places, once for each float32 result on the way.
            assert!(
                looser <= if integer { 0.0 } else { 2f64.powi(-20) },
                "seed {seed}: node {} {name} {looser:e}",
                id.0
            );
        }
    }
    let rows: Vec<f64> = (0..4 * CLASSES).map(|_| f64::from(rng.random_range(-1.0f32..1.0))).collect();
    let output = net.outputs()[0];
    let functionals = lower_bounds(&prepared, &analysis, output, rows.clone(), 4);
    for x in points(&region, integer, rng) {
        let values = execute_exact(&net, &[x.iter().map(|&v| exact(v)).collect()]);
        for id in net.ids() {
            for bounds in [&analysis.bounds[id.0], &hurried.bounds[id.0]] {
                let inside = |(k, v): (usize, &Dyadic)| exact(bounds.lo[k]) <= *v && *v <= exact(bounds.hi[k]);
                assert!(values[id.0].iter().enumerate().all(inside), "seed {seed}: node {} leaves its bounds", id.0);
            }
        }
        for (row, bound) in rows.chunks(CLASSES).zip(&functionals) {
            let sum = row.iter().zip(&values[output.0]).fold(Dyadic::zero(), |s, (c, v)| &s + &(&exact(*c) * v));
            assert!(exact(*bound) <= sum, "seed {seed}: a functional goes below its bound");
        }
    }
}

/// A batch that reads a patch finds what a functional on the whole value finds, on integers to the last one.
fn check_patches(seed: u64) {
    let net = random_net(seed, true);
    let region = random_region(net.node(net.inputs()[0]).len(), true, &mut StdRng::seed_from_u64(!seed));
    let prepared = Prepared::new(&net);
    let analysis = analyse(&prepared, &region).expect("small numbers do not overflow");
    for id in net.ids() {
        let Op::Pointwise(p) = &net.node(id).op else { continue };
        let (bounds, n) = (&analysis.bounds[p.input.0], net.node(p.input).len());
        let mut rows = vec![0.0; n * n];
        (0..n).for_each(|i| rows[i * n + i] = 1.0);
        let whole = lower_bounds(&prepared, &analysis, p.input, rows, n);
        for (i, w) in whole.into_iter().enumerate() {
            let function = p.functions.at(i);
            // Only elements that the function distinguishes are worked on; the others may keep their intervals.
            if function.is_affine_on(bounds.lo[i], bounds.hi[i]) {
                continue;
            }
            // Both are sound; how they are rounded may differ in the last places.
            assert!(bounds.lo[i] >= (w - 1e-6).ceil(), "seed {seed}: element {i} of node {}", p.input.0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn bounds_hold_for_integers(seed in any::<u64>()) {
        check(seed, true);
    }

    #[test]
    fn bounds_hold_for_reals(seed in any::<u64>()) {
        check(seed, false);
    }

    #[test]
    fn patches_lose_nothing(seed in any::<u64>()) {
        check_patches(seed);
    }
}
