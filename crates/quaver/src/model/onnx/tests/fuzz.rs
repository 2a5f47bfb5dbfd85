//! Damaged files: the reader must refuse or read them, never panic and never allocate without bound.

use super::{Message, ModelProto, ReadOptions, float_model, parse, quantized_model, read_bytes, write};
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

/// One number that is likely to upset shape arithmetic.
fn odd_number(rng: &mut Rng) -> i64 {
    const ODD: [i64; 18] = [
        i64::MIN,
        i64::MIN + 1,
        -(1 << 40),
        -3,
        -2,
        -1,
        0,
        1,
        2,
        3,
        4,
        5,
        7,
        1 << 20,
        1 << 31,
        1 << 40,
        i64::MAX - 1,
        i64::MAX,
    ];
    ODD[rng.below(ODD.len())]
}

fn change_list(list: &mut Vec<i64>, rng: &mut Rng) {
    let at = rng.below(list.len());
    match rng.below(4) {
        0 => list.insert(at, odd_number(rng)),
        1 if !list.is_empty() => drop(list.remove(at)),
        _ if !list.is_empty() => list[at] = odd_number(rng),
        _ => {}
    }
}

/// One change that leaves the message well-formed: other numbers, other inputs, other operators, other types.
fn mutate_fields(proto: &mut ModelProto, rng: &mut Rng) {
    let Some(graph) = proto.graph.as_mut() else { return };
    let names: Vec<String> = graph
        .node
        .iter()
        .flat_map(|n| n.output.clone())
        .chain(graph.initializer.iter().map(|t| t.name().to_string()))
        .chain([String::new(), "x".into()])
        .collect();
    let (at, other) = (rng.below(graph.node.len()), rng.below(graph.node.len()));
    match rng.below(8) {
        0 => proto.opset_import[0].version = Some(8 + rng.below(19) as i64),
        1 if !graph.initializer.is_empty() => {
            let at = rng.below(graph.initializer.len());
            let tensor = &mut graph.initializer[at];
            match (rng.below(4), &mut tensor.raw_data) {
                (0, _) => change_list(&mut tensor.dims, rng),
                (1, _) => tensor.data_type = Some(rng.below(12) as i32),
                (_, Some(raw)) if raw.len() >= 8 && tensor.data_type == Some(7) => {
                    let at = rng.below(raw.len() / 8) * 8;
                    raw[at..at + 8].copy_from_slice(&odd_number(rng).to_le_bytes());
                }
                (_, Some(raw)) => mutate(raw, rng),
                _ => {}
            }
        }
        2 => {
            let op = graph.node[other].op_type.clone();
            graph.node[at].op_type = op;
        }
        3 => graph.node[at].attribute = graph.node[other].attribute.clone(),
        4 if !graph.node[at].input.is_empty() => {
            let input = rng.below(graph.node[at].input.len());
            graph.node[at].input[input] = names[rng.below(names.len())].clone();
        }
        5 => graph.node[at].input.push(names[rng.below(names.len())].clone()),
        _ => {
            let count = graph.node[at].attribute.len();
            let Some(attribute) = graph.node[at].attribute.get_mut(rng.below(count)) else { return };
            if attribute.i.is_some() {
                attribute.i = Some(odd_number(rng));
            }
            change_list(&mut attribute.ints, rng);
        }
    }
    if rng.below(2) == 0 {
        graph.value_info.clear();
        graph.output.iter_mut().for_each(|info| info.r#type = None);
    }
}

/// Like [`fuzz`], with changes to the fields of the decoded message.
pub(crate) fn fuzz_fields(file: &[u8], count: usize, seed: u64) -> usize {
    let proto = ModelProto::decode(file).unwrap();
    let mut rng = Rng(seed | 1);
    (0..count)
        .filter(|_| {
            let mut changed = proto.clone();
            for _ in 0..1 + rng.below(3) {
                mutate_fields(&mut changed, &mut rng);
            }
            check(&changed.encode_to_vec())
        })
        .count()
}

/// Whether bytes are read; what is read must be writable, and what was written readable.
fn check(bytes: &[u8]) -> bool {
    let options = ReadOptions { max_elements: 1 << 16, max_file_bytes: 1 << 24 };
    let Ok(model) = read_bytes(bytes, Path::new("mutant.onnx"), &options) else { return false };
    if let Ok(written) = write(&model) {
        parse(&written).unwrap_or_else(|e| panic!("written back, but not read: {e}"));
    }
    true
}

/// Reads `count` damaged versions of a file; gives how many were still read. Those must also be writable.
pub(crate) fn fuzz(file: &[u8], count: usize, seed: u64) -> usize {
    let mut rng = Rng(seed | 1);
    (0..count)
        .filter(|_| {
            let mut bytes = file.to_vec();
            for _ in 0..1 + rng.below(4) {
                mutate(&mut bytes, &mut rng);
            }
            check(&bytes)
        })
        .count()
}

#[test]
fn damaged_files_never_panic() {
    for (seed, model) in [float_model(), quantized_model()].iter().enumerate() {
        let file = write(model).unwrap();
        for good in [fuzz(&file, 5000, seed as u64 + 7), fuzz_fields(&file, 5000, seed as u64 + 7)] {
            assert!(good > 0, "no damaged file was read: the test is too coarse");
        }
    }
}

/// Fuzzes the files that `QUAVER_FUZZ_FILES` names, separated by colons.
#[test]
fn damaged_given_files_never_panic() {
    let Some(files) = std::env::var_os("QUAVER_FUZZ_FILES") else { return };
    for path in std::env::split_paths(&files) {
        let file = std::fs::read(&path).unwrap();
        let good = fuzz(&file, 300, 11) + fuzz_fields(&file, 300, 11);
        println!("{}: {good} of 600 read", path.display());
    }
}
