//! Networks whose weights and activations are float16: what a cast and a cast back do, and what is refused.

mod common;

use std::path::Path;

use common::models;
use prost::Message;
use quaver::model::ir::Op as ModelOp;
use quaver::model::lower::lower;
use quaver::model::onnx::proto::{ModelProto, data_type};
use quaver::model::profile::{Float32, Real};
use quaver::model::{ReadOptions, onnx, read, read_bytes};
use quaver::net::{Op, ScalarFn, execute};
use quaver::num::float16;
use quaver::quantize::Quantizer;
use quaver::quantize::qdq::to_float16;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn rounded(x: f32) -> f64 {
    float16::nearest(x).into()
}

/// Random float32 numbers of all sizes, and those at and beside the places where rounding goes over.
fn numbers(rng: &mut StdRng) -> Vec<f32> {
    let all: Vec<f64> = float16::all().collect();
    let borders = all.windows(2).flat_map(|w| {
        let at = float16::border(w[0], w[1]).0 as f32;
        [at.next_down(), at, at.next_up()]
    });
    let random = (0..20_000).map(|_| rng.random_range(-2.0f32..2.0) * 10f32.powi(rng.random_range(-9..7)));
    borders.chain(random.collect::<Vec<_>>()).collect()
}

#[test]
fn steps_are_the_rounding_of_float16() {
    let model = read(&models().join("iris_float.onnx"), &ReadOptions::default()).unwrap();
    let made = to_float16(&Quantizer::new(&model).unwrap()).unwrap();
    let net = lower(&made, &Real).unwrap().net;
    let numbers = numbers(&mut StdRng::seed_from_u64(5));
    let mut steps = 0;
    for node in net.nodes() {
        let Op::Pointwise(p) = &node.op else { continue };
        if matches!(p.functions.at(0), ScalarFn::Piecewise(_)) {
            // A ReLU that nothing reads any more.
            continue;
        }
        let is_input = net.node(p.input).grid != quaver::net::Grid::Integer && p.input == net.inputs()[0];
        for &x in &numbers {
            let x = if is_input { x } else { x.max(0.0) };
            assert_eq!(p.functions.at(0).value_down(x.into()), rounded(x), "{x:e} in {}", node.name);
            // A ReLU is part of the steps behind a layer.
            assert!(is_input || p.functions.at(0).value_down((-x).into()) == 0.0);
        }
        steps += 1;
    }
    assert_eq!(steps, 3, "the input and two layers");
}

#[test]
fn files_keep_constants_in_float16_and_say_the_same() {
    let original = read(&models().join("digits_conv_float.onnx"), &ReadOptions::default()).unwrap();
    let quantizer = Quantizer::new(&original).unwrap();
    let made = to_float16(&quantizer).unwrap();
    let bytes = onnx::write(&made).unwrap();
    let proto = ModelProto::decode(&bytes[..]).unwrap();
    let tensors = &proto.graph.unwrap().initializer;
    let halves = tensors.iter().filter(|t| t.data_type() == data_type::FLOAT16).count();
    let layers = quantizer.layers();
    assert_eq!(halves, layers.len() + layers.iter().filter(|l| l.biases.is_some()).count());
    let again = read_bytes(&bytes, Path::new("float16.onnx"), &ReadOptions::default()).unwrap();
    assert_eq!(again.nodes.iter().filter(|n| n.op == ModelOp::ThroughFloat16).count(), 3);
    let file = std::fs::read(models().join("digits_x.npy")).unwrap();
    let x: Vec<f32> = npyz::NpyFile::new(&file[..]).unwrap().into_vec().unwrap();
    let x: Vec<f64> = x[..64 * 20].iter().map(|&x| x.into()).collect();
    let of = |model| execute(&lower(model, &Float32).unwrap().net, std::slice::from_ref(&x), 20).swap_remove(0).center;
    assert_eq!(of(&made), of(&again));
    let distance = of(&made).iter().zip(of(&original)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(distance > 0.0 && distance < 0.05, "{distance}");
}

#[test]
fn arithmetic_in_float16_is_refused() {
    let bytes = onnx::write(&read(&models().join("iris_float.onnx"), &ReadOptions::default()).unwrap()).unwrap();
    let mut proto = ModelProto::decode(&bytes[..]).unwrap();
    for tensor in &mut proto.graph.as_mut().unwrap().initializer {
        let floats = tensor.raw_data.take().unwrap();
        let half = |b: &[u8; 4]| float16::bits(float16::nearest(f32::from_le_bytes(*b))).to_le_bytes();
        tensor.raw_data = Some(floats.as_chunks().0.iter().flat_map(half).collect());
        tensor.data_type = Some(data_type::FLOAT16);
    }
    let refused = read_bytes(&proto.encode_to_vec(), Path::new("half.onnx"), &ReadOptions::default()).unwrap_err();
    let said = refused.to_string();
    assert!(said.contains("float16") && said.contains("--format float16"), "{said}");
}
