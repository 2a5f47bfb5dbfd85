//! Mutated model files never panic and never hang, from the first byte to a verdict.
//!
//! The default run takes a share of the mutants; `cargo test --release -p quaver --test fuzz -- --ignored` takes 100,000.

mod common;
#[path = "common/tflite_samples.rs"]
mod tflite_samples;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use quaver::model::lower::lower;
use quaver::model::profile;
use quaver::model::{ReadOptions, read_bytes};
use quaver::net::execute;
use quaver::property::{Robustness, Ties, ball};
use quaver::verify::{Options, Verifier};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;

/// A few random edits of a file: bits, bytes, runs removed, repeated or overwritten, the end cut off.
fn mutate(bytes: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..rng.random_range(1..4) {
        if out.is_empty() {
            break;
        }
        let at = rng.random_range(0..out.len());
        let run = rng.random_range(1..16).min(out.len() - at);
        match rng.random_range(0..7) {
            0 => out[at] ^= 1 << rng.random_range(0..8),
            1 => out[at] = rng.random(),
            2 => drop(out.drain(at..at + run)),
            3 => {
                let copy = out[at..at + run].to_vec();
                out.splice(at..at, copy);
            }
            4 => out[at..at + run].iter_mut().for_each(|b| *b = 0xff),
            5 => out[at..at + run].iter_mut().for_each(|b| *b = 0),
            _ => out.truncate(at),
        }
    }
    out
}

/// How far a mutant got: 0 refused by the reader, 1 refused by every profile, 2 executed, 3 given a verdict.
fn follow(bytes: &[u8]) -> usize {
    let options = ReadOptions { max_elements: 1 << 16, ..ReadOptions::default() };
    let Ok(model) = read_bytes(bytes, Path::new("mutant"), &options) else { return 0 };
    let mut reached = 1;
    let profiles: &[&str] = match model.source.format {
        "tflite" => &["float32", "tflite-reference", "tflite-xnnpack", "tflite-micro", "any-engine"],
        _ => &["real", "float32", "ort-fused", "fixed-point(8,4)"],
    };
    for name in profiles {
        let profile = profile::parse(name).expect("a profile");
        let Ok(lowered) = lower(&model, &*profile) else { continue };
        let inputs: Vec<Vec<f64>> =
            lowered.net.inputs().iter().map(|&i| vec![1.0; lowered.net.node(i).len()]).collect();
        execute(&lowered.net, &inputs, 1);
        reached = reached.max(2);
        let Ok(verifier) = Verifier::new(&lowered) else { continue };
        let Ok(region) = ball(&lowered, &inputs[0], &"1/4".parse().expect("a number"), None) else { continue };
        let claim = Robustness { region, center: None, label: 0, ties: Ties::Strict };
        let options = Options { timeout: Duration::from_millis(20), ..Options::default() };
        if verifier.robustness(&claim, &options).is_ok() {
            reached = 3;
        }
    }
    reached
}

/// Small TensorFlow Lite files that use most of the reader.
fn tflite_files() -> impl Iterator<Item = Vec<u8>> {
    const STEMS: [&str; 8] =
        ["network", "conv_dilated", "fully_connected_keep", "concatenation", "average_pool", "mean", "sub", "mul"];
    let wanted = |name: &str| STEMS.iter().any(|s| name.strip_prefix(s).is_some_and(|rest| rest.starts_with("_int8")));
    tflite_samples::samples().into_iter().filter(move |(name, _)| wanted(name)).map(|(_, bytes)| bytes)
}

fn fuzz(mutants: usize) {
    let mut files: Vec<Vec<u8>> = tflite_files().collect();
    assert_eq!(files.len(), 8);
    for entry in std::fs::read_dir(common::models()).expect("the models") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "onnx") {
            files.push(std::fs::read(path).expect("a model"));
        }
    }
    files.sort_by_key(Vec::len);
    let reached = [const { AtomicUsize::new(0) }; 4];
    (0..mutants).into_par_iter().for_each(|i| {
        // A panic ends the test and names the mutant by its number.
        let mut rng = StdRng::seed_from_u64(i as u64);
        let file = &files[i % files.len()];
        let mutant = mutate(file, &mut rng);
        let start = Instant::now();
        let result = std::panic::catch_unwind(|| follow(&mutant));
        let took = start.elapsed();
        assert!(took < Duration::from_secs(20), "mutant {i} took {took:?}");
        match result {
            Ok(stage) => drop(reached[stage].fetch_add(1, Ordering::Relaxed)),
            Err(_) => panic!("mutant {i} panicked"),
        }
    });
    let counts: Vec<usize> = reached.iter().map(|r| r.load(Ordering::Relaxed)).collect();
    println!(
        "refused by the reader {}, by every profile {}, executed {}, verdict {}",
        counts[0], counts[1], counts[2], counts[3]
    );
    assert!(counts[0] > mutants / 20 && counts[3] > mutants / 20, "the mutants are all alike: {counts:?}");
}

#[test]
fn ten_thousand_mutants_end_in_a_result_or_an_error() {
    fuzz(10_000);
}

#[test]
#[ignore = "long"]
fn a_hundred_thousand_mutants_end_in_a_result_or_an_error() {
    fuzz(100_000);
}
