//! A small random network for tests that try every vector of bits.

use quaver::model::build::ModelBuilder;
use quaver::model::ir::{DType, Model, Op, Tensor};
use rand::Rng;
use rand::rngs::StdRng;

/// Two layers with a ReLU between, the second with its biases in an Add.
pub fn two_layers(rng: &mut StdRng, inputs: usize, outputs: usize) -> Model {
    let mut b = ModelBuilder::new("net");
    let mut x = b.input("x", DType::F32, &[1, inputs]).unwrap();
    let sizes = [inputs, 4, outputs];
    for layer in 0..2 {
        let (n, m) = (sizes[layer], sizes[layer + 1]);
        let mut numbers = |k: usize| (0..k).map(|_| rng.random_range(-1.0_f32..1.0)).collect::<Vec<f32>>();
        let w = b.constant(&format!("w{layer}"), Tensor::f32(&[n, m], numbers(n * m))).unwrap();
        let c = b.constant(&format!("c{layer}"), Tensor::f32(&[m], numbers(m))).unwrap();
        x = b.node(Op::MatMul, &[x, w]).unwrap();
        x = b.node(Op::Add, &[x, c]).unwrap();
        if layer == 0 {
            x = b.node(Op::Relu, &[x]).unwrap();
        }
    }
    b.output(x);
    b.finish().unwrap()
}
