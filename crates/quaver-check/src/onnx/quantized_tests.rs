//! Quantized and fixed-point models: equal to ONNX Runtime, bit for bit; what is refused.

use proptest::prelude::*;

use super::read;
use super::steps::{FLOATS, INTEGERS, composed, float, steps};
use super::tests::{Message, attr_int, file, node, reals, run, tensor};
use crate::net::{Net, Op, Shape};

const MLP: &[u8] = include_bytes!("../../../../models/digits_mlp_qdq.onnx");

/// Compares each line of "inputs | outputs", float32 bits as hexadecimal numbers, as the runtime wrote them
/// (`models/golden`, `y_opt`; among them rows that differ without fusion).
fn compare(model: &[u8], golden: &str) {
    let (net, assumed) = read(model, "ort-fused").unwrap();
    assert_eq!(assumed.len(), 2);
    let numbers = |text: &str| -> Vec<f64> {
        text.split_whitespace().map(|bits| f32::from_bits(u32::from_str_radix(bits, 16).unwrap()).into()).collect()
    };
    for (i, line) in golden.lines().enumerate() {
        let (x, y) = line.split_once('|').unwrap();
        assert_eq!(run(&net, &numbers(x)), numbers(y), "row {i}");
    }
}

#[test]
fn goldens() {
    compare(MLP, include_str!("goldens/digits_mlp_qdq.txt"));
    compare(include_bytes!("../../../../models/digits_mlp_qop.onnx"), include_str!("goldens/digits_mlp_qop.txt"));
    compare(include_bytes!("../../../../models/digits_conv_qdq.onnx"), include_str!("goldens/digits_conv_qdq.txt"));
    compare(include_bytes!("../../../../models/iris_qdq.onnx"), include_str!("goldens/iris_qdq.txt"));
}

fn scale(name: &str, value: f32) -> Message {
    reals(name, &[], &[value])
}

/// An int8 tensor, or a uint8 tensor.
fn bytes(name: &str, dims: &[i64], signed: bool, values: &[i64]) -> Message {
    tensor(name, dims, if signed { 3 } else { 2 }, &values.iter().map(|&v| v as u8).collect::<Vec<_>>())
}

fn int32(name: &str, values: &[i32]) -> Message {
    tensor(name, &[values.len() as i64], 6, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
}

/// x / 0.5, one product with weights 1 and -2 at scale 0.25, result at scale 0.25: a factor of 1/2.
struct Small {
    bias_scale: f32,
    weights: [i64; 2],
    zero: i64,
    result: Vec<Message>,
}

impl Small {
    fn new(result: Vec<Message>) -> Self {
        Small { bias_scale: 0.125, weights: [1, -2], zero: 128, result }
    }

    fn read(&self) -> Result<Net, String> {
        let constants = [
            scale("sx", 0.5),
            bytes("zx", &[], false, &[10]),
            bytes("wq", &[2, 1], true, &self.weights),
            scale("sw", 0.25),
            bytes("zw", &[], true, &[0]),
            int32("bq", &[1]),
            scale("sb", self.bias_scale),
            tensor("zb", &[], 6, &[0; 4]),
            reals("bf", &[1], &[0.125]),
            scale("sy", 0.25),
            bytes("zy", &[], false, &[self.zero]),
            bytes("z0", &[], false, &[0]),
            scale("s2", 0.5),
        ];
        let mut nodes =
            vec![node("QuantizeLinear", "x sx zx", "q", &[]), node("DequantizeLinear", "q sx zx", "d", &[])];
        nodes.extend(self.result.iter().cloned());
        read(&file(13, &[1, 2], &constants, &nodes), "ort-fused").map(|read| read.0)
    }

    fn refused(&self, why: &str) {
        let error = self.read().unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

fn weights() -> Message {
    node("DequantizeLinear", "wq sw zw", "w", &[])
}

fn gemm() -> Vec<Message> {
    vec![weights(), node("DequantizeLinear", "bq sb zb", "b", &[]), node("Gemm", "d w b", "g", &[])]
}

fn quantizer(from: &str, zero: &str, to: &str) -> Vec<Message> {
    let (integers, parameters) = (format!("{to}q"), format!("sy {zero}"));
    vec![
        node("QuantizeLinear", &format!("{from} {parameters}"), &integers, &[]),
        node("DequantizeLinear", &format!("{integers} {parameters}"), to, &[]),
    ]
}

#[test]
fn ties_go_to_even_and_the_zero_point_is_added_after() {
    let mut small = Small::new([gemm(), quantizer("g", "zy", "y")].concat());
    small.zero = 3;
    let net = small.read().unwrap();
    let names: Vec<&str> = net.values.iter().map(|v| &v.name[..]).collect();
    assert_eq!(names, ["x", "q", "yq/sum", "yq", "y"]);
    assert_eq!(net.values.iter().map(|v| v.integer).collect::<Vec<_>>(), [false, true, true, true, false]);
    // acc = q0 + 1: 1, 2, 3 and 5 halves are 0, 1, 2, 2 and no others.
    for (x, y) in [(0.0, 0.0), (0.5, 0.25), (1.0, 0.5), (2.0, 0.5), (2.5, 0.75), (-1.0, 0.0), (-2.0, -0.5)] {
        assert_eq!(run(&net, &[x, 0.0]), [y], "{x}");
    }
    // 0.5 and 1.5 steps of the input.
    assert_eq!(run(&net, &[0.25, 0.0]), run(&net, &[0.0, 0.0]));
    assert_eq!(run(&net, &[0.75, 0.0]), run(&net, &[1.0, 0.0]));
}

#[test]
fn an_int32_bias_needs_no_zero_point() {
    let read = |bias: &str| {
        let product = vec![weights(), node("DequantizeLinear", bias, "b", &[]), node("Gemm", "d w b", "g", &[])];
        Small::new([product, quantizer("g", "zy", "y")].concat()).read()
    };
    let (with, without) = (read("bq sb zb").unwrap(), read("bq sb").unwrap());
    for x in [0.0, 0.5, 2.5, -1.0] {
        assert_eq!(run(&with, &[x, 0.0]), run(&without, &[x, 0.0]));
    }
    let weights = vec![node("DequantizeLinear", "wq sw", "w", &[]), node("Gemm", "d w", "g", &[])];
    Small::new([weights, quantizer("g", "zy", "y")].concat()).refused("input 2");
}

#[test]
fn a_relu_between_quantizers_becomes_part_of_the_steps() {
    let result = [gemm(), quantizer("g", "zy", "d2"), vec![node("Relu", "d2", "r", &[])], quantizer("r", "zy", "y")];
    let net = Small::new(result.concat()).read().unwrap();
    assert_eq!(net.values.iter().map(|v| &v.name[..]).collect::<Vec<_>>(), ["x", "q", "d2q/sum", "yq", "y"]);
    let Op::Function(function) = &net.values[3].op else { panic!("no function") };
    let Shape::Step { starts, values } = &function.pieces[0] else { panic!("no steps") };
    assert_eq!((function.of, starts[0], values[0], values.len()), (2, 2.0, 128.0, 128));
    assert_eq!(run(&net, &[-3.0, 0.0]), [0.0]);
    assert_eq!(run(&net, &[3.0, 0.0]), [1.0]);
}

#[test]
fn what_the_runtime_does_not_fuse_is_refused() {
    let plain = || [gemm(), quantizer("g", "zy", "y")].concat();
    assert!(Small::new(plain()).read().is_ok());
    Small { bias_scale: 0.1251, ..Small::new(plain()) }.refused("the bias is stored at scale 0.125");
    let float_bias = vec![weights(), node("Gemm", "d w bf", "g", &[])];
    Small::new([float_bias, quantizer("g", "zy", "y")].concat()).refused("bias is float");
    let mut relu = [gemm(), vec![node("Relu", "g", "r", &[])], quantizer("r", "zy", "y")].concat();
    Small::new(relu.clone()).refused("zero point");
    relu.truncate(4);
    Small::new([relu, quantizer("r", "z0", "y")].concat()).read().unwrap();
    Small::new(vec![weights(), node("MatMul", "d w", "y", &[])]).refused("float result");
    let other = vec![node("QuantizeLinear", "d s2 z0", "i", &[]), node("DequantizeLinear", "i s2 z0", "y", &[])];
    Small::new(other).refused("other parameters");
    let flat =
        [vec![weights(), node("Flatten", "d", "f", &[]), node("MatMul", "f w", "g", &[])], quantizer("g", "zy", "y")];
    Small::new(flat.concat()).refused("keeps it in floats");
    Small::new(vec![node("Add", "d d", "y", &[])]).refused("read 2 times");
    Small::new(vec![node("Sigmoid", "d", "y", &[])]).refused("no rule for it under ort-fused");
    let scaled =
        [vec![weights(), node("Gemm", "d w", "g", &[attr_int("transA", 1)])], quantizer("g", "zy", "y")].concat();
    Small::new(scaled).refused("transA");
}

#[test]
fn sums_that_may_leave_32_bits_are_refused() {
    // 66100 products of 255 and 127 reach 2^31 - 6.6e6; with a large bias they leave it.
    let model = |bias: i32| {
        let constants = [
            scale("s", 0.5),
            bytes("z", &[], false, &[0]),
            bytes("wq", &[1, 66_100], true, &vec![127; 66_100]),
            bytes("zw", &[], true, &[0]),
            int32("bq", &[bias]),
        ];
        let nodes = [
            node("QuantizeLinear", "x s z", "q", &[]),
            node("QGemm", "q s z wq s zw bq s z", "y", &[attr_int("transB", 1)]),
        ];
        // The domain of QGemm.
        let gemm = [nodes[1].clone(), vec![0x3a, 13], b"com.microsoft".to_vec()].concat();
        read(&file(13, &[1, 66_100], &constants, &[nodes[0].clone(), gemm]), "ort-fused")
    };
    assert!(model(6_000_000).is_ok());
    let error = model(8_000_000).unwrap_err();
    assert!(error.contains("leaves 32 bits"), "{error}");
}

#[test]
fn bisection_finds_every_step() {
    let cut = |value: f32| (value.round_ties_even().clamp(0.0, 3.0)) as i64;
    let halves = steps(INTEGERS, |i| cut(i as f32 * 0.5), |i| i as f64);
    assert_eq!(halves, Shape::Step { starts: vec![2.0, 3.0, 6.0], values: vec![0.0, 1.0, 2.0, 3.0] });
    // The last that is rounded down is the tie 0.5; several at once: none is lost.
    let Shape::Step { starts, values } = steps(FLOATS, |place| 3 * cut(float(place)).min(1), |p| float(p).into())
    else {
        unreachable!()
    };
    assert_eq!((starts, values), (vec![f64::from(0.5f32.next_up())], vec![0.0, 3.0]));
    let joined = composed(&halves, |value| value.max(2.0));
    assert_eq!(joined, Some(Shape::Step { starts: vec![6.0], values: vec![2.0, 3.0] }));
}

fn fixed(profile: &str, nodes: &[Message]) -> Result<Net, String> {
    let constants = [
        reals("w", &[2, 1], &[0.4, -0.3]),
        reals("b", &[1], &[0.3]),
        reals("w2", &[1, 2], &[-1.0, 0.03]),
        reals("b2", &[1, 2], &[-0.03125, 9.0]),
        scale("half", 0.5),
    ];
    read(&file(13, &[1, 2], &constants, nodes), profile).map(|read| read.0)
}

#[test]
fn fixed_point_rounds_shifts_and_clips() {
    let first = [node("Gemm", "x w b", "g", &[]), node("Relu", "g", "y", &[])];
    let net = fixed("fixed-point(6,4,weights=5)", &first).unwrap();
    assert_eq!(net.values.iter().map(|v| &v.name[..]).collect::<Vec<_>>(), ["x", "x/fixed", "y/sum", "y", "y"]);
    // The worked example of the documentation; 0.8 / 512 is more than half a step of the input.
    assert_eq!(run(&net, &[0.0, 0.5]), [3.0 / 16.0]);
    assert_eq!(run(&net, &[1.1 / 512.0, 7.0]), run(&net, &[1.0 / 256.0, 255.0 / 256.0]));
    // Without a Relu: signed, and MatMul with Add is as Gemm.
    let second = [
        node("MatMul", "x w", "m", &[]),
        node("Add", "b m", "a", &[]),
        node("Relu", "a", "r", &[]),
        node("Identity", "r", "s", &[]),
        node("Gemm", "s w2 b2", "y", &[]),
    ];
    let net = fixed("fixed-point(6,4,weights=5,input=8)", &second).unwrap();
    // h = 3, k = 5: (3 * -32 + (-1 << 5) + 16) >> 5 = -4; the bias -0.03125 is -0.5, which is stored as -1. The other
    // bias is cut to 31, and the weight 0.96 is stored as 1: (3 + (31 << 5) + 16) >> 5 = 31.
    assert_eq!(run(&net, &[0.0, 0.5]), [-4.0 / 16.0, 31.0 / 16.0]);
}

#[test]
fn fixed_point_refuses() {
    let gemm = || node("Gemm", "x w b", "y", &[]);
    for (profile, why) in [
        ("float32", "is not one of"),
        ("fixed-point(6)", "lacks"),
        ("fixed-point(1,0)", "2 to 16 bits"),
        ("fixed-point(6,4,weights=x)", "no number"),
        ("fixed-point(6,4,input=1,input=2)", "twice"),
        ("fixed-point(6,4,bias=2)", "not understood"),
        ("fixed-point(6,9,weights=0)", "more bits for weights"),
    ] {
        let error = fixed(profile, &[gemm()]).unwrap_err();
        assert!(error.contains(why), "{profile}: {error}");
    }
    let refused = |nodes: &[Message], why: &str| {
        let error = fixed("fixed-point(6,4)", nodes).unwrap_err();
        assert!(error.contains(why), "{error}");
    };
    refused(&[node("Relu", "x", "y", &[])], "follow a layer");
    refused(&[node("Add", "x half", "y", &[])], "MatMul");
    refused(&[node("Sigmoid", "x", "y", &[])], "no rule for it under fixed-point");
}

proptest! {
    #[test]
    fn damaged_models_do_not_panic(at in 0..MLP.len(), byte: u8, more in 0..MLP.len(), other: u8) {
        let mut damaged = MLP.to_vec();
        (damaged[at], damaged[more]) = (byte, other);
        let _ = read(&damaged, "ort-fused");
        let _ = read(&damaged, "fixed-point(8,4)");
    }
}
