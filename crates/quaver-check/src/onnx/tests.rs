//! Files made by hand: what they become, what is refused, and that damaged ones never panic.

use std::io::Write;

use proptest::prelude::*;

use super::read_real;
use crate::net::{Affine, Map, Net, Op, Shape, Source, Value};

/// Bytes of a message.
pub(super) type Message = Vec<u8>;

fn varint(mut n: u64) -> Message {
    let mut out = vec![];
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

fn int(number: u64, value: i64) -> Message {
    [varint(number << 3), varint(value as u64)].concat()
}

fn float(number: u64, value: f32) -> Message {
    [varint(number << 3 | 5), value.to_le_bytes().to_vec()].concat()
}

fn bytes(number: u64, value: &[u8]) -> Message {
    [varint(number << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn text(number: u64, value: &str) -> Message {
    bytes(number, value.as_bytes())
}

pub(super) fn tensor(name: &str, dims: &[i64], kind: i64, raw: &[u8]) -> Message {
    let dims: Message = dims.iter().flat_map(|&d| int(1, d)).collect();
    [dims, int(2, kind), text(8, name), bytes(9, raw)].concat()
}

pub(super) fn reals(name: &str, dims: &[i64], data: &[f32]) -> Message {
    tensor(name, dims, 1, &data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())
}

fn integers(name: &str, data: &[i64]) -> Message {
    tensor(name, &[data.len() as i64], 7, &data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())
}

pub(super) fn attr_int(name: &str, value: i64) -> Message {
    [text(1, name), int(3, value), int(20, 2)].concat()
}

fn attr_float(name: &str, value: f32) -> Message {
    [text(1, name), float(2, value), int(20, 1)].concat()
}

pub(super) fn attr_ints(name: &str, value: &[i64]) -> Message {
    let packed: Message = value.iter().flat_map(|&v| varint(v as u64)).collect();
    [text(1, name), bytes(8, &packed), int(20, 7)].concat()
}

/// A node; its inputs are separated by blanks.
pub(super) fn node(op: &str, inputs: &str, output: &str, attributes: &[Message]) -> Message {
    let inputs: Message = inputs.split(' ').flat_map(|name| text(1, name)).collect();
    let attributes: Message = attributes.iter().flat_map(|a| bytes(5, a)).collect();
    [inputs, text(2, output), text(3, "here"), text(4, op), attributes].concat()
}

/// An input or output; sizes of 0 are symbolic.
fn info(name: &str, dims: &[i64]) -> Message {
    let dim = |&d: &i64| bytes(1, &if d == 0 { text(2, "N") } else { int(1, d) });
    let shape: Message = dims.iter().flat_map(dim).collect();
    let kind = bytes(1, &[int(1, 1), bytes(2, &shape)].concat());
    [text(1, name), bytes(2, &kind)].concat()
}

pub(super) fn file(opset: i64, input: &[i64], constants: &[Message], nodes: &[Message]) -> Message {
    let nodes: Message = nodes.iter().flat_map(|n| bytes(1, n)).collect();
    let constants: Message = constants.iter().flat_map(|t| bytes(5, t)).collect();
    let graph = [nodes, text(2, "g"), constants, bytes(11, &info("x", input)), bytes(12, &info("y", &[]))].concat();
    [int(1, 7), bytes(8, &int(2, opset)), bytes(7, &graph)].concat()
}

fn read(input: &[i64], constants: &[Message], nodes: &[Message]) -> Result<Net, String> {
    read_real(&file(13, input, constants, nodes))
}

/// Executes a net in f64; enough for small integers.
pub(super) fn run(net: &Net, input: &[f64]) -> Vec<f64> {
    let mut values: Vec<Vec<f64>> = vec![];
    for value in &net.values {
        let made: Vec<f64> = match &value.op {
            Op::Input => input.to_vec(),
            Op::Affine(affine) => sum(affine, &values),
            Op::Function(f) => values[f.of].iter().enumerate().map(|(i, &x)| apply(f.at(i), x)).collect(),
            Op::Max { of, windows } => {
                let largest =
                    |w: &Vec<u32>| w.iter().map(|&i| values[*of][i as usize]).fold(f64::NEG_INFINITY, f64::max);
                windows.iter().map(largest).collect()
            }
            Op::Move { of, from } => from.iter().map(|s| source(s, &values[*of])).collect(),
            Op::Row(of) => of.iter().flat_map(|id| values[*id].clone()).collect(),
        };
        assert_eq!(made.len(), value.len(), "{}", value.name);
        values.push(made);
    }
    values[net.output].clone()
}

fn source(source: &Source, of: &[f64]) -> f64 {
    match *source {
        Source::Element(i) => of[i as usize],
        Source::Constant(c) => c,
    }
}

fn apply(shape: &Shape, x: f64) -> f64 {
    match shape {
        &Shape::Hinge { left, low, .. } if x < low => low + left * (x - low),
        &Shape::Hinge { high, .. } => x.min(high),
        Shape::Step { starts, values } => {
            assert_eq!(values.len(), starts.len() + 1);
            assert!(starts.is_sorted_by(|a, b| a < b) && values.is_sorted());
            values[starts.partition_point(|&start| start <= x)]
        }
        Shape::Stairs { cuts, values, .. } => values[cuts.partition_point(|&cut| cut <= x)],
    }
}

fn sum(affine: &Affine, values: &[Vec<f64>]) -> Vec<f64> {
    let mut out = affine.bias.clone();
    for (of, map) in &affine.terms {
        let x = &values[*of];
        match map {
            Map::Scale(factors) => out.iter_mut().zip(factors).zip(x).for_each(|((y, f), x)| *y += f * x),
            Map::Dense { outer, inputs, outputs, weights } => {
                assert_eq!((outer * inputs, outer * outputs), (x.len(), out.len()));
                for (at, y) in out.iter_mut().enumerate() {
                    let (block, row) = (at / outputs, at % outputs);
                    *y += (0..*inputs).map(|i| weights[row * inputs + i] * x[block * inputs + i]).sum::<f64>();
                }
            }
            Map::Conv(c) => {
                for (at, y) in out.iter_mut().enumerate() {
                    let [channel, row, column] =
                        [at / c.out_size[0] / c.out_size[1], at / c.out_size[1] % c.out_size[0], at % c.out_size[1]];
                    let (per_in, per_out) = (c.in_channels / c.groups, c.out_channels / c.groups);
                    for tap in 0..per_in * c.kernel[0] * c.kernel[1] {
                        let [k, i, j] =
                            [tap / c.kernel[0] / c.kernel[1], tap / c.kernel[1] % c.kernel[0], tap % c.kernel[1]];
                        let plane = channel / per_out * per_in + k;
                        let from = (plane * c.in_size[0] + row * c.stride[0] + i * c.dilation[0]) * c.in_size[1];
                        let weight = c.weights[channel * per_in * c.kernel[0] * c.kernel[1] + tap];
                        *y += weight * x[from + column * c.stride[1] + j * c.dilation[1]];
                    }
                }
            }
        }
    }
    out
}

fn two_layers() -> Message {
    let w = reals("w", &[2, 3], &[1.0, 2.0, 3.0, -4.0, -5.0, -6.0]);
    let b = reals("b", &[2], &[0.5, 1.0]);
    let nodes = [node("Gemm", "x w b", "z", &[attr_int("transB", 1)]), node("Relu", "z", "y", &[])];
    file(13, &[0, 3], &[w, b], &nodes)
}

#[test]
fn gemm_and_relu() {
    let net = read_real(&two_layers()).unwrap();
    assert_eq!((net.input, net.output, net.values.len()), (0, 2, 3));
    assert_eq!(net.values.iter().map(|v| &v.shape[..]).collect::<Vec<_>>(), [&[3][..], &[2], &[2]]);
    let Op::Affine(Affine { terms, bias, slack }) = &net.values[1].op else { panic!("not affine") };
    assert_eq!((&bias[..], *slack, terms.len()), (&[0.5, 1.0][..], 0.0, 1));
    let Map::Dense { outer: 1, inputs: 3, outputs: 2, weights } = &terms[0].1 else { panic!("not dense") };
    assert_eq!(weights[3..], [-4.0, -5.0, -6.0]);
    assert_eq!(run(&net, &[1.0, 1.0, 1.0]), [6.5, 0.0]);
    assert_eq!(run(&net, &[-1.0, 0.0, 0.0]), [0.0, 5.0]);
}

#[test]
fn gzip_is_unpacked() {
    let mut packer = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    packer.write_all(&two_layers()).unwrap();
    let mut packed = packer.finish().unwrap();
    assert_eq!(read_real(&packed).unwrap().values.len(), 3);
    packed.truncate(packed.len() / 2);
    assert!(read_real(&packed).unwrap_err().contains("gzip"));
}

#[test]
fn convolution_with_padding_groups_and_strides() {
    let w = reals("w", &[2, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0, 1.0, 1.0, 1.0, 1.0]);
    let b = reals("b", &[2], &[10.0, 20.0]);
    let attributes = [attr_ints("pads", &[1, 0, 0, 1]), attr_ints("strides", &[2, 1]), attr_int("group", 2)];
    let net = read(&[1, 2, 3, 2], &[w, b], &[node("Conv", "x w b", "y", &attributes)]).unwrap();
    assert_eq!(net.values[1].shape, [2, 4, 3]);
    let Op::Move { of: 0, from } = &net.values[1].op else { panic!("no margin") };
    assert_eq!(from[2..5], [Source::Constant(0.0), Source::Element(0), Source::Element(1)]);
    assert_eq!(net.values[2].shape, [2, 2, 2]);
    // Channels [[1, 2], [3, 4], [5, 6]] and [[7, 8], [9, 10], [11, 12]].
    let x: Vec<f64> = (1..=12).map(f64::from).collect();
    assert_eq!(run(&net, &x), [21.0, 16.0, 60.0, 32.0, 35.0, 28.0, 62.0, 42.0]);
}

#[test]
fn one_axis_and_dilation() {
    let w = reals("w", &[1, 1, 2], &[1.0, 10.0]);
    let net = read(&[1, 1, 4], &[w], &[node("Conv", "x w", "y", &[attr_ints("dilations", &[2])])]).unwrap();
    assert_eq!(net.values[1].shape, [1, 2]);
    assert_eq!(run(&net, &[1.0, 2.0, 3.0, 4.0]), [31.0, 42.0]);
}

#[test]
fn pooling_and_padding() {
    let attributes =
        [attr_ints("kernel_shape", &[2, 2]), attr_ints("pads", &[1, 1, 0, 0]), attr_ints("strides", &[2, 2])];
    let x = [-8.0, -6.0, -4.0, -2.0];
    let pool = |op, more: Option<Message>| {
        let attributes: Vec<Message> = attributes.iter().cloned().chain(more).collect();
        run(&read(&[1, 1, 2, 2], &[], &[node(op, "x", "y", &attributes)]).unwrap(), &x)
    };
    assert_eq!(pool("MaxPool", None), [-8.0]);
    assert_eq!(pool("AveragePool", None), [-8.0]);
    assert_eq!(pool("AveragePool", Some(attr_int("count_include_pad", 1))), [-2.0]);
    let all = read(&[1, 2, 1, 2], &[], &[node("GlobalAveragePool", "x", "y", &[])]).unwrap();
    assert_eq!((all.values[2].shape.clone(), run(&all, &x)), (vec![2, 1, 1], vec![-7.0, -3.0]));
    let pads = integers("p", &[0, 0, 0, 0, 0, 1]);
    let net = read(&[1, 1, 2], &[pads, reals("c", &[], &[5.0])], &[node("Pad", "x p c", "y", &[])]).unwrap();
    assert_eq!(run(&net, &[1.0, 2.0]), [1.0, 2.0, 5.0]);
}

#[test]
fn broadcasting() {
    let constants = [reals("m", &[2, 1], &[1.0, 2.0]), reals("d", &[3], &[1.0, -2.0, 3.0])];
    let nodes = [node("Sub", "m x", "z", &[]), node("Div", "z d", "y", &[])];
    let net = read(&[1, 2, 3], &constants, &nodes).unwrap();
    let slack = |v: &Value| if let Op::Affine(a) = &v.op { a.slack } else { f64::NAN };
    assert_eq!(slack(&net.values[1]), 0.0);
    assert!((2f64.powi(-52)..1e-15).contains(&slack(&net.values[2])));
    assert_eq!(run(&net, &[0.0, 0.0, 1.0, 2.0, 2.0, 2.0]), [1.0, -0.5, 0.0, 0.0, -0.0, 0.0]);
    let halved = read(&[1, 2], &[reals("d", &[], &[2.0])], &[node("Div", "x d", "y", &[])]).unwrap();
    assert_eq!(slack(&halved.values[1]), 0.0);
    // A row and a column, both computed.
    let nodes = [node("Transpose", "x", "t", &[attr_ints("perm", &[1, 0])]), node("Add", "x t", "y", &[])];
    assert_eq!(run(&read(&[1, 2], &[], &nodes).unwrap(), &[1.0, 5.0]), [2.0, 6.0, 6.0, 10.0]);
}

#[test]
fn layout() {
    let constants = [integers("s", &[0, -1, 1]), integers("a", &[0, -1]), reals("w", &[2, 1], &[1.0, 2.0])];
    let nodes = [
        node("Transpose", "x", "t", &[attr_ints("perm", &[0, 2, 1])]),
        node("Reshape", "t s", "r", &[]),
        node("Squeeze", "r a", "q", &[]),
        node("Unsqueeze", "q a", "u", &[]),
        node("Transpose", "w", "v", &[]),
        node("MatMul", "u v", "y", &[]),
    ];
    let net = read(&[1, 2, 3], &constants, &nodes).unwrap();
    let out = run(&net, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(out, [1.0, 2.0, 4.0, 8.0, 2.0, 4.0, 5.0, 10.0, 3.0, 6.0, 6.0, 12.0]);
    assert_eq!(net.values[net.output].shape, [6, 2]);
}

#[test]
fn functions() {
    let hinge = |nodes: Message| {
        let constants = [reals("lo", &[], &[-1.0]), reals("hi", &[], &[2.0])];
        let net = read(&[3], &constants, &[nodes]).unwrap();
        assert_eq!(net.values[0].shape, [3]);
        let Op::Function(f) = &net.values[1].op else { panic!("no function") };
        f.at(1).clone()
    };
    let infinity = f64::INFINITY;
    assert_eq!(hinge(node("Clip", "x lo hi", "y", &[])), Shape::Hinge { left: 0.0, low: -1.0, high: 2.0 });
    assert_eq!(hinge(node("Clip", "x  hi", "y", &[])), Shape::Hinge { left: 1.0, low: 2.0, high: 2.0 });
    assert_eq!(hinge(node("Clip", "x lo", "y", &[])), Shape::Hinge { left: 0.0, low: -1.0, high: infinity });
    let leaky = hinge(node("LeakyRelu", "x", "y", &[attr_float("alpha", 0.25)]));
    assert_eq!(leaky, Shape::Hinge { left: 0.25, low: 0.0, high: infinity });
}

#[test]
fn normalization() {
    let constants = [("g", 6.0), ("o", 1.0), ("m", 3.0), ("v", 4.0)].map(|(name, x)| reals(name, &[1], &[x]));
    let nodes = [node("BatchNormalization", "x g o m v", "y", &[attr_float("epsilon", 0.0)])];
    let net = read(&[1, 1, 2], &constants, &nodes).unwrap();
    assert_eq!(run(&net, &[3.0, 5.0]), [1.0, 7.0]);
    let Op::Affine(last) = &net.values[2].op else { panic!("not affine") };
    assert!(last.slack > 0.0);
}

#[test]
fn dropout_passes_its_input_on() {
    let training = |on: u8| {
        let constants = [reals("r", &[], &[0.5]), tensor("t", &[], 9, &[on])];
        read(&[1, 2], &constants, &[node("Dropout", "x r t", "d", &[]), node("Relu", "d", "y", &[])])
    };
    assert_eq!(run(&training(0).unwrap(), &[-1.0, 2.0]), [0.0, 2.0]);
    assert!(training(1).unwrap_err().contains("training"));
}

#[test]
fn a_matrix_times_a_vector() {
    let w = reals("w", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let net = read(&[3], std::slice::from_ref(&w), &[node("MatMul", "w x", "y", &[])]).unwrap();
    assert_eq!(run(&net, &[1.0, 0.0, -1.0]), [-2.0, -2.0]);
    assert!(read(&[2], &[w], &[node("MatMul", "w x", "y", &[])]).unwrap_err().contains("[2, 3] and [2]"));
}

#[test]
fn products_that_are_not_exact_have_slack() {
    let slack = |alpha: f32| {
        let nodes = [node("Gemm", "x w", "y", &[attr_float("alpha", alpha)])];
        let net = read(&[1, 1], &[tensor("w", &[1, 1], 11, &0.1f64.to_le_bytes())], &nodes).unwrap();
        if let Op::Affine(a) = &net.values[1].op { a.slack } else { f64::NAN }
    };
    assert_eq!((slack(1.0), slack(2.0), slack(0.0)), (0.0, 0.0, 0.0));
    assert!(slack(0.3) > 0.0);
}

#[test]
fn refusals() {
    let w = || reals("w", &[3, 3], &[0.0; 9]);
    let refused = |constants: &[Message], nodes: &[Message], words: &[&str]| {
        let why = read(&[1, 3], constants, nodes).unwrap_err();
        assert!(words.iter().all(|word| why.contains(word)), "{why}");
    };
    refused(&[], &[node("Softmax", "x", "y", &[])], &["here", "Softmax", "not supported"]);
    refused(&[], &[node("Relu", "x", "y", &[attr_int("new", 1)])], &["here", "Relu", "'new'"]);
    refused(&[], &[node("Relu", "z", "y", &[])], &["'z'"]);
    refused(&[], &[node("Mul", "x x", "y", &[])], &["Mul", "both operands"]);
    refused(&[w()], &[node("MatMul", "w x", "y", &[])], &["MatMul", "only of a matrix and a vector"]);
    refused(&[w()], &[node("Gemm", "x w", "y", &[attr_int("transA", 1)])], &["transA"]);
    refused(&[w()], &[node("Gemm", "x w", "y", &[attr_float("transB", 1.0)])], &["transB", "type"]);
    refused(&[w(), w()], &[], &["'w'", "twice"]);
    refused(&[], &[[node("Relu", "x", "y", &[]), text(7, "com.example")].concat()], &["com.example"]);
    refused(&[], &[node("LeakyRelu", "x", "y", &[attr_float("alpha", -1.0)])], &["alpha"]);
    refused(&[reals("z", &[], &[0.0])], &[node("Div", "x z", "y", &[])], &["factor"]);
    refused(&[tensor("h", &[1], 10, &[0, 0])], &[], &["'h'", "data type 10"]);
    refused(&[reals("s", &[2], &[0.0])], &[], &["'s'", "1 elements"]);
    refused(&[[w(), int(14, 1)].concat()], &[], &["'w'", "external"]);
    let graph = [text(1, "body"), bytes(6, &[])].concat();
    refused(&[], &[node("Loop", "x", "y", &[graph])], &["Loop", "'body'", "subgraphs"]);
    assert!(read(&[2, 3], &[], &[]).unwrap_err().contains("batch of 2"));
    assert!(read(&[1, 0], &[], &[]).unwrap_err().contains("axis 1"));
    assert!(read_real(&file(7, &[3], &[], &[])).unwrap_err().contains("opset 7"));
    assert!(read_real(b"").is_err());
}

/// Most kinds of fields and nodes in one file.
fn rich() -> Message {
    let constants = [
        reals("k", &[2, 1, 2, 2], &[0.5; 8]),
        reals("g", &[2], &[1.0; 2]),
        integers("s", &[1, -1]),
        integers("p", &[0, 0, 0, 1]),
        reals("w", &[19, 2], &[1.0; 38]),
    ];
    let attributes = [attr_ints("kernel_shape", &[2, 2]), attr_ints("pads", &[1, 1, 1, 1])];
    let nodes = [
        node("Conv", "x k", "c", &attributes),
        node("BatchNormalization", "c g g g g", "n", &[attr_float("epsilon", 0.5)]),
        node("MaxPool", "n", "m", &[attr_ints("kernel_shape", &[3, 3]), attr_ints("strides", &[2, 2])]),
        node("AveragePool", "m", "a", &attributes),
        node("Reshape", "a s", "r", &[]),
        node("Pad", "r p", "q", &[]),
        node("MatMul", "q w", "t", &[]),
        node("Clip", "t", "y", &[]),
    ];
    file(13, &[1, 1, 4, 4], &constants, &nodes)
}

#[test]
fn the_rich_file_is_valid() {
    read_real(&rich()).unwrap();
}

proptest! {
    #[test]
    fn damage_never_panics(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in 0..40usize) {
        let mut file = rich();
        for (at, byte) in damage {
            *at.get_mut(&mut file[..]) = byte;
        }
        let kept = if cut < 20 { file.len() } else { file.len() * cut / 40 };
        let _ = read_real(&file[..kept]);
    }
}

#[test]
fn published_files_are_read() {
    let shared = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    for set in ["acasxu", "mnist_fc", "oval21", "verivital_conv", "eran_fc", "rl_controllers"] {
        let Ok(files) = std::fs::read_dir(shared.join(set).join("onnx")) else {
            println!("{set} is skipped: its files are not here");
            continue;
        };
        for path in files.map(|file| file.unwrap().path()) {
            let net =
                read_real(&std::fs::read(&path).unwrap()).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
            assert!(net.values.len() > 3 && net.values.iter().all(|v| !v.is_empty()), "{}", path.display());
        }
    }
}
