//! Writes the small TensorFlow Lite files of the tests to a folder, for comparison with runtimes:
//! `cargo run --example tflite_samples -- FOLDER`.

#[path = "../tests/common/tflite_samples.rs"]
mod samples;

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: tflite_samples FOLDER")?);
    std::fs::create_dir_all(&folder)?;
    for (name, bytes) in samples::samples() {
        std::fs::write(folder.join(format!("{name}.tflite")), bytes)?;
    }
    Ok(())
}
