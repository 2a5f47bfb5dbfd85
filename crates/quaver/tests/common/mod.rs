//! Reading reference data: `.npz` archives and MNIST's own format.
#![allow(dead_code)] // each test binary uses a part

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use npyz::npz::NpzArchive;

/// The small models of this repository.
pub fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models")
}

/// The larger collection, beside the repository where it is present; otherwise says that the test is skipped.
pub fn collection() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if !folder.is_dir() {
        println!("skipped: the larger model collection is not here");
        return None;
    }
    Some(folder)
}

/// One array of an archive as f64, with its shape.
pub fn array(archive: &Path, name: &str) -> (Vec<usize>, Vec<f64>) {
    let mut npz = NpzArchive::open(archive).expect("an npz file");
    let file = npz.by_name(name).expect("a readable entry").expect("the named array");
    let shape: Vec<usize> = file.shape().iter().map(|&n| n as usize).collect();
    let text = file.dtype().descr();
    let data = match text.trim_matches(|c| c == '\'' || c == '"') {
        "<f4" => file.into_vec::<f32>().expect("float32").into_iter().map(f64::from).collect(),
        "<f8" => file.into_vec::<f64>().expect("float64"),
        "|i1" => file.into_vec::<i8>().expect("int8").into_iter().map(f64::from).collect(),
        "|u1" => file.into_vec::<u8>().expect("uint8").into_iter().map(f64::from).collect(),
        "<i2" => file.into_vec::<i16>().expect("int16").into_iter().map(f64::from).collect(),
        "<i8" => file.into_vec::<i64>().expect("int64").into_iter().map(|x| x as f64).collect(),
        other => panic!("{name} has type {other}"),
    };
    (shape, data)
}

/// The bytes of a gzipped MNIST file behind its header.
pub fn mnist(folder: &Path, file: &str, header: usize) -> Vec<u8> {
    let file = BufReader::new(File::open(folder.join("mnist").join(file)).expect("an MNIST file"));
    let mut bytes = vec![];
    flate2::bufread::GzDecoder::new(file).read_to_end(&mut bytes).expect("a gzip file");
    bytes.split_off(header)
}
