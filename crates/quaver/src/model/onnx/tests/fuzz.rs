//! Damaged files: the reader must refuse or read them, never panic and never allocate without bound.

use super::{ReadOptions, float_model, parse, quantized_model, read_bytes, write};
use std::path::Path;

/// A small generator of pseudo-random numbers (xorshift64*).
pub(crate) struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// One random change.
fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.below(bytes.len());
    if bytes.is_empty() {
        return bytes.push(rng.next() as u8);
    }
    match rng.below(8) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = rng.next() as u8,
        2 => bytes.truncate(at),
        3 => bytes.insert(at, rng.next() as u8),
        4 => drop(bytes.drain(at..(at + 1 + rng.below(16)).min(bytes.len()))),
        // A large varint: lengths, dimensions, counts.
        5 => drop(bytes.splice(at..at + 1, [0xff, 0xff, 0xff, 0xff, rng.next() as u8 & 0x7f])),
        // Lengths and dimensions that are off by a little.
        6 => bytes[at] = bytes[at].wrapping_add(rng.below(5) as u8).wrapping_sub(2),
        _ => {
            let piece = bytes[at..(at + rng.below(64)).min(bytes.len())].to_vec();
            let to = rng.below(bytes.len());
            drop(bytes.splice(to..to, piece));
        }
    }
}

/// Reads `count` damaged versions of a file; gives how many were still read. Those must also be writable.
pub(crate) fn fuzz(file: &[u8], count: usize, seed: u64) -> usize {
    let options = ReadOptions { max_elements: 1 << 16, max_file_bytes: 1 << 24 };
    let mut rng = Rng(seed | 1);
    let mut good = 0;
    for _ in 0..count {
        let mut bytes = file.to_vec();
        for _ in 0..1 + rng.below(4) {
            mutate(&mut bytes, &mut rng);
        }
        if let Ok(model) = read_bytes(&bytes, Path::new("mutant.onnx"), &options) {
            good += 1;
            // A model that was read can be written, unless it reduces over no axes; never a panic.
            if let Ok(written) = write(&model) {
                parse(&written).unwrap_or_else(|e| panic!("written back, but not read: {e}"));
            }
        }
    }
    good
}

#[test]
fn damaged_files_never_panic() {
    for (seed, model) in [float_model(), quantized_model()].iter().enumerate() {
        let good = fuzz(&write(model).unwrap(), 5000, seed as u64 + 7);
        assert!(good > 0, "no damaged file was read: the test is too coarse");
    }
}

/// Fuzzes the files that `QUAVER_FUZZ_FILES` names, separated by colons.
#[test]
fn damaged_given_files_never_panic() {
    let Some(files) = std::env::var_os("QUAVER_FUZZ_FILES") else { return };
    for path in std::env::split_paths(&files) {
        let good = fuzz(&std::fs::read(&path).unwrap(), 300, 11);
        println!("{}: {good} of 300 read", path.display());
    }
}
