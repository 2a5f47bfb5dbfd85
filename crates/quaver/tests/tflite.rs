//! Reading TensorFlow Lite files: every operator, and damaged files.
//!
//! `cargo test --release -p quaver --test tflite -- --ignored` takes ten times as many damaged files.

#[path = "common/tflite_samples.rs"]
mod samples;

use std::path::Path;
use std::time::{Duration, Instant};

use quaver::model::ir::Op;
use quaver::model::{ReadOptions, read_bytes};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Names of samples with the operations that they become, int8 and float32.
const OPERATIONS: [(&str, &str, &str); 25] = [
    ("fully_connected", "QGemm QLinearClip", "Gemm Relu"),
    ("fully_connected_channels", "Reshape QGemm", "Reshape Gemm"),
    ("fully_connected_keep", "Reshape QGemm QLinearClip Reshape", "Reshape Gemm Clip Reshape"),
    ("conv", "Transpose QLinearConv QLinearClip Transpose", "Transpose Conv Clip Transpose"),
    ("conv_dilated", "Transpose QLinearConv QLinearClip Transpose", "Transpose Conv Clip Transpose"),
    ("depthwise", "Transpose QLinearConv QLinearClip Transpose", "Transpose Conv Relu Transpose"),
    ("average_pool", "Transpose QLinearAveragePool QLinearClip Transpose", "Transpose AveragePool Relu Transpose"),
    ("max_pool", "Transpose MaxPool Transpose", "Transpose MaxPool Transpose"),
    ("add", "QLinearRequantize QLinearAdd QLinearClip", "Relu Add Clip"),
    ("sub", "QLinearRequantize QLinearSub", "Relu Sub"),
    ("mul", "QLinearMul QLinearClip", "Mul Relu"),
    ("add_constant", "QLinearAdd", "Add"),
    ("relu", "QLinearClip", "Relu"),
    ("relu6", "QLinearClip", "Clip"),
    ("relu_n1_to_1", "QLinearClip", "Clip"),
    ("softmax", "QLinearSoftmax", "Softmax"),
    ("reshape", "Reshape", "Reshape"),
    ("reshape_options", "Reshape", "Reshape"),
    ("squeeze", "Reshape", "Reshape"),
    ("expand_dims", "Reshape", "Reshape"),
    ("transpose", "Transpose", "Transpose"),
    ("pad", "Pad", "Pad"),
    ("mean", "QLinearReduceMean", "ReduceMean"),
    ("mean_keep", "QLinearReduceMean", "ReduceMean"),
    ("mean_one_axis", "QLinearReduceMean", "ReduceMean"),
];

#[test]
fn every_operator_is_read() {
    let mut checked = 0;
    for (name, bytes) in samples::samples() {
        let model = read_bytes(&bytes, Path::new(&name), &ReadOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        assert!(model.unused.is_empty(), "{name}");
        let operations: Vec<&str> = model.nodes.iter().map(|n| n.op.name()).collect();
        let stem = name.trim_end_matches("_int8").trim_end_matches("_float32");
        if let Some((_, int8, float)) = OPERATIONS.iter().find(|(n, _, _)| *n == stem) {
            let wanted = if name.ends_with("int8") { int8 } else { float };
            assert_eq!(operations.join(" "), *wanted, "{name}");
            checked += 1;
        }
    }
    assert_eq!(checked, 2 * OPERATIONS.len());
}

/// Convolution, sum, padding and pooling stay channels first; the values keep the file's names.
#[test]
fn a_network_is_transposed_once_each_way() {
    let (name, bytes) = samples::samples().into_iter().find(|(name, _)| name == "network_int8").expect("the network");
    let model = read_bytes(&bytes, Path::new(&name), &ReadOptions::default()).expect("a network");
    let names: Vec<String> =
        model.nodes.iter().map(|n| format!("{} {} {}", n.name, n.op.name(), model.value(n.output).name)).collect();
    let wanted = [
        "value1_nchw Transpose value1_nchw",
        "CONV_2D#0 QLinearConv value4_unclipped",
        "CONV_2D#0_clipped QLinearClip value4",
        "DEPTHWISE_CONV_2D#1 QLinearConv value7",
        "ADD#2 QLinearAdd value8_unclipped",
        "ADD#2_clipped QLinearClip value8",
        "PAD#3 Pad value10",
        "AVERAGE_POOL_2D#4 QLinearAveragePool value11",
        "value11_nhwc Transpose value11_nhwc",
        "RESHAPE#5 Reshape value13",
        "FULLY_CONNECTED#6 QGemm value16",
    ];
    assert_eq!(names, wanted);
}

#[test]
fn no_value_is_transposed_back_and_forth() {
    for (name, bytes) in samples::samples().into_iter().filter(|(name, _)| !name.starts_with("transpose")) {
        let model = read_bytes(&bytes, Path::new(&name), &ReadOptions::default()).expect("a sample");
        let transposed = |id| model.nodes.iter().any(|n| n.output == id && matches!(n.op, Op::Transpose { .. }));
        for node in model.nodes.iter().filter(|n| matches!(n.op, Op::Transpose { .. })) {
            assert!(!node.inputs.iter().flatten().any(|&id| transposed(id)), "{name}: {}", node.name);
        }
    }
}

/// A few random edits: bits, bytes, and four-byte words that are likely to upset offsets and lengths.
fn mutate(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    const WORDS: [u32; 10] = [0, 1, 2, 3, 4, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
    for _ in 0..rng.random_range(1..4) {
        // The identifier stays, so that the file stays a TensorFlow Lite file.
        let at = rng.random_range(8..bytes.len());
        match rng.random_range(0..6) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.random(),
            2 => bytes[at] = bytes[at].wrapping_add(rng.random_range(0..5)).wrapping_sub(2),
            3 => bytes.truncate(at.max(16)),
            4 => {
                let word = WORDS[rng.random_range(0..WORDS.len())].to_le_bytes();
                let at = (at & !3).min(bytes.len() - 4);
                bytes[at..at + 4].copy_from_slice(&word);
            }
            // Another word of the file in its place.
            _ => {
                let last = bytes.len() - 4;
                let (from, to) = (rng.random_range(8..=last) & !3, rng.random_range(8..=last) & !3);
                bytes.copy_within(from..from + 4, to);
            }
        }
    }
}

fn fuzz(count: usize) {
    let samples = samples::samples();
    let options = ReadOptions { max_elements: 1 << 16, max_file_bytes: 1 << 20 };
    let mut read = 0;
    for i in 0..count {
        let mut rng = StdRng::seed_from_u64(i as u64);
        let (name, file) = &samples[i % samples.len()];
        let mut bytes = file.clone();
        mutate(&mut bytes, &mut rng);
        let start = Instant::now();
        if let Ok(model) = read_bytes(&bytes, Path::new(name), &options) {
            read += 1;
            // Nothing may grow beyond what the limits and the file's own bytes allow.
            assert!(model.values.iter().all(|v| v.len() <= 1 << 16), "mutant {i} of {name}");
        }
        assert!(start.elapsed() < Duration::from_secs(5), "mutant {i} of {name} took {:?}", start.elapsed());
    }
    println!("{read} of {count} damaged files were read");
    assert!(read > count / 50 && read < count, "the damage is too coarse, or none");
}

#[test]
fn ten_thousand_damaged_files_are_read_or_refused() {
    fuzz(10_000);
}

#[test]
#[ignore = "long"]
fn a_hundred_thousand_damaged_files_are_read_or_refused() {
    fuzz(100_000);
}
