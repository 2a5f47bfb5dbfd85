//! The backward pass in GFLOP/s beside the matrix product's own speed on this machine, on one thread.
//!
//! `cargo bench --bench backward` (`RAYON_NUM_THREADS=1` for one thread). Networks are random; the first column is the time of all bounds over a
//! box (intervals, a backward pass for every hidden layer). Then integer convolutional networks of the sizes of ResNet-8 and DS-CNN, every input
//! moving by one step, with the margins of all classes; `cargo bench --bench backward -- dense` leaves them out.

mod common;

use std::time::{Duration, Instant};

use common::seconds;
use quaver::bounds::{Prepared, analyse, lower_bounds};
use quaver::net::gemm::{Strides, product};
use quaver::net::{
    Affine, Conv, Cut, Dense, From, Geometry, Grid, LinearMap, Move, Net, Node, NodeId, Op, Piecewise, Pointwise,
    Rounding, ScalarFn, Spread, Step, Weights, execute_all,
};
use quaver::property::Region;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn median(call: impl FnMut()) -> f64 {
    seconds(2, Duration::from_secs(1), call)
}

fn network(widths: &[usize]) -> Net {
    let mut rng = StdRng::seed_from_u64(1);
    let mut net = Net::new();
    let everything = (f64::NEG_INFINITY, f64::INFINITY);
    let mut add = |shape: usize, op: Op| {
        net.add(Node {
            name: String::new(),
            shape: vec![shape],
            op,
            grid: Grid::Real,
            range: everything,
            quantization: None,
        })
    };
    let mut last = add(widths[0], Op::Input(0));
    for (i, w) in widths.windows(2).enumerate() {
        let size = 1.5 / (w[0] as f64).sqrt();
        let weights =
            Weights::new((0..w[0] * w[1]).map(|_| f64::from(rng.random_range(-1.0f32..1.0)) * size).collect());
        let map = LinearMap::Dense(Dense { outer: 1, n_in: w[0], n_out: w[1], weights });
        let affine = Affine { terms: vec![(last, map)], bias: Spread::all(0.0), rounding: Rounding::Exact };
        last = add(w[1], Op::Affine(affine));
        if i + 2 < widths.len() {
            let functions = Spread::all(ScalarFn::Piecewise(Piecewise::relu()));
            last = add(w[1], Op::Pointwise(Pointwise { input: last, functions }));
        }
    }
    net.set_outputs(vec![last]);
    net
}

/// Builds integer networks whose requantizers are step functions, scaled so that activations neither die nor saturate.
struct Integers {
    rng: StdRng,
    net: Net,
    /// One input, to choose scales by.
    sample: Vec<f64>,
}

/// What a value of a picture network is: its node, channels and size.
#[derive(Clone, Copy)]
struct Picture {
    id: NodeId,
    channels: usize,
    size: [usize; 2],
}

impl Integers {
    fn new(channels: usize, size: [usize; 2]) -> (Self, Picture) {
        let mut rng = StdRng::seed_from_u64(3);
        let sample = (0..channels * size[0] * size[1]).map(|_| f64::from(rng.random_range(-126i32..=126))).collect();
        let mut this = Integers { rng, net: Net::new(), sample };
        let id = this.add(vec![channels, size[0], size[1]], Op::Input(0));
        (this, Picture { id, channels, size })
    }

    fn add(&mut self, shape: Vec<usize>, op: Op) -> NodeId {
        let range = if matches!(op, Op::Input(_)) { (-128.0, 127.0) } else { self.net.range_of(&op) };
        self.net.add(Node { name: String::new(), shape, op, grid: Grid::Integer, range, quantization: None })
    }

    fn weights(&mut self, n: usize) -> Weights {
        Weights::new((0..n).map(|_| f64::from(self.rng.random_range(-127i32..=127))).collect())
    }

    /// Zeros around a picture.
    fn pad(&mut self, x: Picture, before: [usize; 2], after: [usize; 2]) -> Picture {
        let size = [x.size[0] + before[0] + after[0], x.size[1] + before[1] + after[1]];
        let origin = |i: usize| {
            let (c, y, x0) = (i / (size[0] * size[1]), i / size[1] % size[0], i % size[1]);
            let inside =
                (before[0]..before[0] + x.size[0]).contains(&y) && (before[1]..before[1] + x.size[1]).contains(&x0);
            let index = || ((c * x.size[0] + y - before[0]) * x.size[1] + x0 - before[1]) as u32;
            if inside { From::Element { source: 0, index: index() } } else { From::Constant(0.0) }
        };
        let from = (0..x.channels * size[0] * size[1]).map(origin).collect();
        let id = self.add(vec![x.channels, size[0], size[1]], Op::Move(Move { sources: vec![x.id], from }));
        Picture { id, size, ..x }
    }

    /// A convolution with "same" padding.
    fn conv(&mut self, x: Picture, channels: usize, groups: usize, kernel: [usize; 2], stride: [usize; 2]) -> Picture {
        let size = [0, 1].map(|a| x.size[a].div_ceil(stride[a]));
        let total = [0, 1].map(|a| ((size[a] - 1) * stride[a] + kernel[a]).saturating_sub(x.size[a]));
        let before = total.map(|t| t / 2);
        let x = if total == [0, 0] { x } else { self.pad(x, before, [total[0] - before[0], total[1] - before[1]]) };
        let geometry = Geometry {
            groups,
            in_channels: x.channels,
            in_size: x.size,
            out_channels: channels,
            out_size: size,
            kernel,
            stride,
            dilation: [1, 1],
        };
        let weights = self.weights(channels * x.channels / groups * kernel[0] * kernel[1]);
        let terms = vec![(x.id, LinearMap::Conv(Conv { geometry, weights }))];
        self.affine(terms, channels, size)
    }

    fn affine(&mut self, terms: Vec<(NodeId, LinearMap)>, channels: usize, size: [usize; 2]) -> Picture {
        let affine = Affine { terms, bias: Spread::all(0.0), rounding: Rounding::Exact };
        Picture { id: self.add(vec![channels, size[0], size[1]], Op::Affine(affine)), channels, size }
    }

    fn sum(&mut self, x: Picture, y: Picture) -> Picture {
        let identity = || LinearMap::identity(x.channels * x.size[0] * x.size[1]);
        self.affine(vec![(x.id, identity()), (y.id, identity())], x.channels, x.size)
    }

    /// round(x / scale) within [lowest, 127], three standard deviations of the sample being 127.
    fn requantize(&mut self, x: Picture, lowest: i32) -> Picture {
        let values = &execute_all(&self.net, std::slice::from_ref(&self.sample), 1);
        let values = &values.value(x.id).center;
        let scale = 3.0 * (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt() / 127.0;
        let cuts = (lowest + 1..=127).map(|q| Cut::at((f64::from(q) - 0.5) * scale)).collect();
        let step = Step::new(cuts, (lowest..=127).map(f64::from).collect());
        let functions = Spread::all(ScalarFn::Step(step));
        let shape = vec![x.channels, x.size[0], x.size[1]];
        Picture { id: self.add(shape, Op::Pointwise(Pointwise { input: x.id, functions })), ..x }
    }

    /// Sum over each channel's picture and a dense layer.
    fn classes(&mut self, x: Picture, classes: usize) -> NodeId {
        let geometry = Geometry {
            groups: x.channels,
            in_channels: x.channels,
            in_size: x.size,
            out_channels: x.channels,
            out_size: [1, 1],
            kernel: x.size,
            stride: [1, 1],
            dilation: [1, 1],
        };
        let weights = Weights::new(vec![1.0; x.channels * x.size[0] * x.size[1]]);
        let pool = self.affine(vec![(x.id, LinearMap::Conv(Conv { geometry, weights }))], x.channels, [1, 1]);
        let pool = self.requantize(pool, -127);
        let weights = self.weights(x.channels * classes);
        let dense = LinearMap::Dense(Dense { outer: 1, n_in: x.channels, n_out: classes, weights });
        self.affine(vec![(pool.id, dense)], classes, [1, 1]).id
    }
}

fn resnet8() -> (Net, Vec<f64>) {
    let (mut m, input) = Integers::new(3, [32, 32]);
    let first = m.conv(input, 16, 1, [3, 3], [1, 1]);
    let mut x = m.requantize(first, 0);
    for (channels, stride) in [(16, 1), (32, 2), (64, 2)] {
        let inner = m.conv(x, channels, 1, [3, 3], [stride; 2]);
        let inner = m.requantize(inner, 0);
        let inner = m.conv(inner, channels, 1, [3, 3], [1, 1]);
        let inner = m.requantize(inner, -127);
        let skip = if stride == 1 {
            x
        } else {
            let skip = m.conv(x, channels, 1, [1, 1], [stride; 2]);
            m.requantize(skip, -127)
        };
        let sum = m.sum(inner, skip);
        x = m.requantize(sum, 0);
    }
    let out = m.classes(x, 10);
    m.net.set_outputs(vec![out]);
    (m.net, m.sample)
}

fn ds_cnn() -> (Net, Vec<f64>) {
    let (mut m, input) = Integers::new(1, [49, 10]);
    let first = m.conv(input, 64, 1, [10, 4], [2, 2]);
    let mut x = m.requantize(first, 0);
    for _ in 0..4 {
        let depthwise = m.conv(x, 64, 64, [3, 3], [1, 1]);
        let depthwise = m.requantize(depthwise, 0);
        let pointwise = m.conv(depthwise, 64, 1, [1, 1], [1, 1]);
        x = m.requantize(pointwise, 0);
    }
    let out = m.classes(x, 12);
    m.net.set_outputs(vec![out]);
    (m.net, m.sample)
}

fn convolutional(name: &str, (net, sample): (Net, Vec<f64>)) {
    let prepared = Prepared::new(&net);
    let region = Region { lo: sample.iter().map(|x| x - 1.0).collect(), hi: sample.iter().map(|x| x + 1.0).collect() };
    let before = Instant::now();
    let analysis = analyse(&prepared, &region).expect("finite bounds");
    let all = before.elapsed().as_secs_f64();
    let output = net.outputs()[0];
    let classes = net.node(output).len();
    let mut rows = vec![0.0; (classes - 1) * classes];
    for (k, row) in rows.chunks_mut(classes).enumerate() {
        (row[0], row[k + 1]) = (1.0, -1.0);
    }
    let before = Instant::now();
    let margins = lower_bounds(&prepared, &analysis, output, rows, classes - 1);
    let last = before.elapsed().as_secs_f64();
    let least = margins.iter().copied().fold(f64::INFINITY, f64::min);
    println!(
        "{name}: {:.1} M multiplications; all bounds {all:.2} s; margins of {classes} classes {:.1} ms, least {least:.0}",
        net.multiplications() as f64 / 1e6,
        last * 1e3
    );
    for node in net.ids().filter(|&id| matches!(net.node(id).op, Op::Pointwise(_))) {
        let (b, n) = (&analysis.bounds[node.0], net.node(node).len());
        let width = b.lo.iter().zip(&b.hi).map(|(l, h)| h - l).sum::<f64>() / n as f64;
        println!("    {:?}: mean width {width:.2}", net.node(node).shape);
    }
}

fn main() {
    let n = 512;
    let (a, b) = (vec![1.0f64; n * n], vec![0.5f64; n * n]);
    let mut c = vec![0.0f64; n * n];
    let seconds = median(|| product((n, n, n), (&a, Strides::rows(n)), (&b, Strides::rows(n)), &mut c, false));
    let peak = 2.0 * (n * n * n) as f64 / seconds / 1e9;
    println!("matrix product {n} x {n} x {n}: {peak:.1} GFLOP/s in f64");
    for widths in [&[784, 256, 256, 10][..], &[784, 256, 256, 256, 256, 10], &[5, 50, 50, 50, 50, 50, 50, 5]] {
        let net = network(widths);
        let prepared = Prepared::new(&net);
        let region = Region { lo: vec![0.40; widths[0]], hi: vec![0.44; widths[0]] };
        let all = median(|| drop(analyse(&prepared, &region)));
        let analysis = analyse(&prepared, &region).expect("finite bounds");
        let (rows, classes) = (256, widths[widths.len() - 1]);
        let mut rng = StdRng::seed_from_u64(2);
        let coefficients: Vec<f64> = (0..rows * classes).map(|_| rng.random_range(-1.0..1.0)).collect();
        let output: NodeId = net.outputs()[0];
        let pass = median(|| drop(lower_bounds(&prepared, &analysis, output, coefficients.clone(), rows)));
        let flops = 2.0 * (rows * net.multiplications()) as f64;
        println!(
            "{widths:?}: all bounds {:.2} ms; one pass of {rows} functionals {:.2} ms, {:.1} GFLOP/s, {:.0} % of the product's",
            all * 1e3,
            pass * 1e3,
            flops / pass / 1e9,
            100.0 * flops / pass / 1e9 / peak
        );
    }
    if !std::env::args().any(|a| a == "dense") {
        convolutional("ResNet-8", resnet8());
        convolutional("DS-CNN", ds_cnn());
    }
}
