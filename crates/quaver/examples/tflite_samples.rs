//! Writes the small TensorFlow Lite files of the tests to a folder, for comparison with runtimes:
//! `cargo run --example tflite_samples -- FOLDER [VARIANTS]`, with so many further sets of int8 files with other scales and zero points.

#[path = "../tests/common/tflite_samples.rs"]
mod samples;

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: tflite_samples FOLDER")?);
    let variants: u64 = std::env::args().nth(2).map_or(Ok(0), |n| n.parse())?;
    let varied = (1..=variants)
        .flat_map(|seed| samples::varied(seed).into_iter().map(move |(name, bytes)| (format!("{name}_{seed}"), bytes)));
    std::fs::create_dir_all(&folder)?;
    for (name, bytes) in samples::samples().into_iter().chain(varied) {
        std::fs::write(folder.join(format!("{name}.tflite")), bytes)?;
    }
    Ok(())
}
