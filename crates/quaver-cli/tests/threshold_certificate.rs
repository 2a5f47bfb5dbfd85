//! Certificates of thresholds from end to end: the checker accepts them, no input that is executed leads by more, and they prove nothing that is false.

use std::fs;
use std::path::{Path, PathBuf};

use program::prints;
use quaver::model::build::ModelBuilder;
use quaver::model::ir::{DType, Model, Op, Tensor};
use quaver::model::lower::lower;
use quaver::model::onnx;
use quaver::model::profile::Real;
use quaver::net::execute;
use quaver::property::Region;
use quaver::quantize::activations::{ActivationScheme, proved};
use quaver::quantize::qdq::to_qdq;
use quaver::quantize::{BiasRule, LayerScheme, Quantizer, WeightRule};
use quaver_check::{Given, check_all};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use records::{closed, opened, readdressed};

mod program;
mod records;

const SIZES: [usize; 4] = [3, 6, 5, 3];

fn float(rng: &mut StdRng) -> Model {
    let mut b = ModelBuilder::new("chain");
    let mut x = b.input("x", DType::F32, &[1, SIZES[0]]).unwrap();
    for (depth, size) in SIZES.windows(2).enumerate() {
        let mut numbers = |n: usize| (0..n).map(|_| rng.random_range(-1.0f32..1.0)).collect::<Vec<f32>>();
        let (weights, biases) = (numbers(size[0] * size[1]), numbers(size[1]));
        let w = b.constant(&format!("w{depth}"), Tensor::f32(&[size[0], size[1]], weights)).unwrap();
        let c = b.constant(&format!("b{depth}"), Tensor::f32(&[size[1]], biases)).unwrap();
        x = b.node(Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false }, &[x, w, c]).unwrap();
        if depth + 2 < SIZES.len() {
            x = b.node(Op::Relu, &[x]).unwrap();
        }
    }
    b.output(x);
    b.finish().unwrap()
}

fn quantized(model: &Model, bits: u8, symmetric: bool, alpha: f64) -> Model {
    let quantizer = Quantizer::new(model).unwrap();
    let scheme = LayerScheme { biases: BiasRule::Float, ..LayerScheme::new(bits, WeightRule::Symmetric) };
    let made = quantizer.at(&vec![scheme; quantizer.layers().len()]).unwrap();
    let region = Region { lo: vec![0.0; SIZES[0]], hi: vec![1.0; SIZES[0]] };
    let ranges = proved(quantizer.model(), false, &region).unwrap().scaled(alpha);
    let activations = ActivationScheme { bits, symmetric, outputs: false, input_step: None };
    to_qdq(&quantizer, &made, Some((&activations, &ranges))).unwrap()
}

/// The largest lead over each pair that is seen where the float network does not put the class first.
fn seen(float: &Model, quantized: &Model, rng: &mut StdRng) -> Vec<f64> {
    let (n, count) = (SIZES[3], 4000);
    let x: Vec<f64> = (0..count * SIZES[0]).map(|_| f64::from(rng.random_range(0.0f32..=1.0))).collect();
    let run = |m: &Model| execute(&lower(m, &Real).unwrap().net, std::slice::from_ref(&x), count).swap_remove(0);
    let (f, q) = (run(float), run(quantized));
    let mut most = vec![f64::NEG_INFINITY; n * n];
    for row in 0..count {
        for (c, k) in (0..n * n).map(|i| (row * n + i / n, row * n + i % n)).filter(|(c, k)| c != k) {
            if f.hi(c) <= f.lo(k) {
                let place = &mut most[(c % n) * n + k % n];
                *place = place.max((q.lo(c) - q.hi(k)).next_down());
            }
        }
    }
    most
}

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Thresholds that the program certifies, by pair.
fn certified(files: [&Path; 2], to: &Path) -> Vec<Option<f64>> {
    let path = |p: &Path| p.to_str().unwrap().to_string();
    let (f, g, to) = (path(files[0]), path(files[1]), path(to));
    let args = ["--json", "thresholds", &f, &g, "--profile", "real", "--timeout", "0", "--certificates", &to];
    let said = prints(&args);
    let found: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    found["certified"].as_array().unwrap().iter().map(|c| c["threshold"].as_f64()).collect()
}

#[test]
fn thresholds_are_checked_and_no_execution_leads_by_more() {
    let folder = folder("threshold_certificates");
    let (mut accepted, mut forged) = (0, 0);
    for seed in 0..24 {
        let mut rng = StdRng::seed_from_u64(seed);
        let model = float(&mut rng);
        let bits = [3, 4, 6, 8, 10, 12][seed as usize % 6];
        let made = quantized(&model, bits, seed % 4 != 3, if seed % 5 == 4 { 0.8 } else { 1.0 });
        let files = ["f", "g"].map(|n| folder.join(format!("{n}{seed}.onnx")));
        for (file, model) in files.iter().zip([&model, &made]) {
            fs::write(file, onnx::write(model).unwrap()).unwrap();
        }
        let thresholds = certified([&files[0], &files[1]], &folder);
        let most = seen(&model, &made, &mut rng);
        let given = || {
            let one = |k: usize| Given { name: Some(["f", "g"][k].into()), bytes: fs::read(&files[k]).unwrap() };
            [one(0), one(1)]
        };
        let pairs = (0..9).filter(|i| i % 4 != 0);
        for (i, threshold) in pairs.zip(thresholds) {
            let Some(threshold) = threshold else { continue };
            assert!(most[i] < threshold, "seed {seed} pair {i}: {} {threshold}", most[i]);
            let base = folder.join(format!("g{seed}_{}_{}", i / 3, i % 3));
            let [property, certificate] = ["vnnlib", "cert"].map(|e| fs::read(base.with_extension(e)).unwrap());
            let proved = check_all(&given(), &property, &certificate[..]);
            accepted += usize::from(proved.is_ok_and(|p| p.holds));
            if most[i] > 0.0 {
                // The same proof for a lead that occurs.
                let text = String::from_utf8(property.clone()).unwrap();
                let (start, end) = (text.rfind(") ").unwrap() + 2, text.rfind("))").unwrap());
                let falsehood = format!("{}{:?}{}", &text[..start], most[i] * 0.999, &text[end..]);
                let (header, records) = opened(&certificate);
                let header = readdressed(&header, &property, falsehood.as_bytes());
                let answer = check_all(&given(), falsehood.as_bytes(), &closed(&header, &records)[..]);
                let said = answer.map_or_else(|e| e, |_| "accepted".into());
                assert!(said.contains("proves nothing"), "seed {seed} pair {i}: {said}");
                forged += 1;
            }
        }
    }
    println!("{accepted} certificates are accepted, {forged} forged ones are not");
    assert!(accepted >= 100 && forged >= 20, "{accepted} {forged}");
}
