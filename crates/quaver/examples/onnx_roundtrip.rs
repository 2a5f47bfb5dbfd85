//! Reads ONNX files, prints the shape of every value, and writes them back.
//!
//! Usage: `onnx_roundtrip OUT_DIR FILE...`. Each file becomes `OUT_DIR/<number>.onnx`.

use std::path::Path;

use quaver::model::onnx::write;
use quaver::model::{ReadOptions, read};

fn main() {
    let mut args = std::env::args().skip(1);
    let Some(out) = args.next() else { return eprintln!("usage: onnx_roundtrip OUT_DIR FILE...") };
    for (i, file) in args.enumerate() {
        match read(Path::new(&file), &ReadOptions::default()) {
            Err(e) => println!("ERR\t{i}\t{file}\t{e}"),
            Ok(model) => {
                println!("OK\t{i}\t{file}\t{} nodes, {} parameters", model.nodes.len(), model.parameter_count());
                for value in &model.values {
                    println!(
                        "V\t{i}\t{}\t{}\t{:?}\t{}",
                        value.name,
                        value.dtype,
                        value.shape,
                        value.constant.is_some()
                    );
                }
                match write(&model).map(|bytes| std::fs::write(Path::new(&out).join(format!("{i}.onnx")), bytes)) {
                    Ok(Ok(())) => {}
                    other => println!("WRITE\t{i}\t{file}\t{other:?}"),
                }
            }
        }
    }
}
