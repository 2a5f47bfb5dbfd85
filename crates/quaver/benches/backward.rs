//! The backward pass in GFLOP/s beside the matrix product's own speed on this machine, on one thread.
//!
//! `cargo bench --bench backward`. Networks are random; the first column is the time of all bounds over a box (intervals, a
//! backward pass for every hidden layer) with the margins of ten classes.

use std::time::{Duration, Instant};

use quaver::bounds::{Prepared, analyse, lower_bounds};
use quaver::net::gemm::{Strides, product};
use quaver::net::{
    Affine, Dense, Grid, LinearMap, Net, Node, NodeId, Op, Piecewise, Pointwise, Rounding, ScalarFn, Spread, Weights,
};
use quaver::property::Region;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn median(mut call: impl FnMut()) -> f64 {
    call();
    let (start, mut times) = (Instant::now(), vec![]);
    while start.elapsed() < Duration::from_secs(1) || times.len() < 5 {
        let before = Instant::now();
        call();
        times.push(before.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
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
}
