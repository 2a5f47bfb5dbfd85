//! Inferences a second of exact execution on one thread.
//!
//! `cargo bench --bench execution -- [MODEL.onnx ...]` prints one JSON object a line for each model and batch size. Without
//! arguments the small models of the repository are timed. `tools/ort_speed.py` runs this beside ONNX Runtime.

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::seconds;
use quaver::model::lower::lower;
use quaver::model::profile;
use quaver::model::{ReadOptions, read};
use quaver::net::{Grid, execute};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Median seconds of one call over about half a second.
fn median(call: impl FnMut()) -> f64 {
    seconds(2, Duration::from_millis(500), call)
}

fn main() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread");
    let mut paths: Vec<PathBuf> = std::env::args().skip(1).filter(|a| a.contains(".onnx")).map(PathBuf::from).collect();
    if paths.is_empty() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
        paths = ["digits_mlp_float", "digits_mlp_qdq", "digits_conv_qdq"]
            .map(|m| models.join(m).with_extension("onnx"))
            .into();
    }
    for path in paths {
        let model = read(&path, &ReadOptions::default()).expect("a readable model");
        let lowered = lower(&model, &*profile::default_for(&model)).expect("a model with a meaning");
        let input = lowered.net.node(lowered.net.inputs()[0]);
        for batch in [1usize, 256] {
            let mut rng = StdRng::seed_from_u64(0);
            let x: Vec<f64> = (0..batch * input.len())
                .map(|_| match input.grid {
                    Grid::Integer => f64::from(rng.random_range(0..=127)),
                    Grid::Float32 | Grid::Real => f64::from(rng.random::<f32>()),
                })
                .collect();
            let inputs = [x];
            let seconds = pool.install(|| median(|| drop(execute(&lowered.net, &inputs, batch))));
            println!(
                "{{\"model\":{:?},\"profile\":{:?},\"batch\":{batch},\"inferences_per_second\":{:.0}}}",
                path.file_name().and_then(|n| n.to_str()).unwrap_or(""),
                lowered.profile,
                batch as f64 / seconds
            );
        }
    }
}
