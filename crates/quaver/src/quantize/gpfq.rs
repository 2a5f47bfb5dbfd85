//! Greedy path following quantization: integers chosen from data, so that errors of earlier weights are made good by later ones.

use std::sync::Arc;

use rayon::prelude::*;

use super::QuantizeError;
use super::layers::Kind;
use super::matrix::{Matrix, values};
use super::quantizer::{Quantized, QuantizedLayer, QuantizedTensor, Quantizer};
use super::scheme::{BITS, BiasRule, LayerScheme, Levels, WeightRule};
use crate::model::ir::ValueId;

/// How far the alphabet of a layer reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Radius {
    /// C times the mean over neurons of max |w| (Zhang, Zhou and Saab: their program's default, with C = 1.16).
    Maxima,
    /// C times the median of all |w| (Lybrand and Saab).
    Median,
}

/// The constants of the method.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// How far the alphabet reaches.
    pub radius: Radius,
    /// The factor C.
    pub constant: f64,
}

impl Default for Options {
    fn default() -> Self {
        Options { radius: Radius::Maxima, constant: 1.16 }
    }
}

/// Inputs of a layer over all samples, input by input.
struct Samples {
    columns: Vec<Vec<f64>>,
    squares: Vec<f64>,
}

/// Quantizes the weights of dense layers, layer after layer, with `bits` for each; biases stay float32.
///
/// # Claim
/// None: the result is a network like any other. What is computed here is f64 without an account of its rounding.
///
/// For each neuron and its inputs t in order, with X the inputs of the layer in the float network and Y in the network quantized so far:
/// q_t = Q(<Y_t, u + w_t X_t> / <Y_t, Y_t>), then u += w_t X_t - q_t Y_t. Q gives the nearest of k s for |k| <= 2^(b-1) - 1 (an alphabet around
/// zero that b bits hold), s being radius / (2^(b-1) - 1); q_t = 0 where Y_t = 0.
///
/// # Source
/// Lybrand and Saab, A Greedy Algorithm for Quantizing Neural Networks (JMLR 2021); Zhang, Zhou and Saab, Post-training Quantization for Neural
/// Networks with Provable Guarantees (2023), whose alphabet has 2^b + 1 values.
///
/// # Errors
/// If a layer is a convolution or multiplies several vectors at once from the left, or bits or data do not fit the model.
pub fn gpfq(quantizer: &Quantizer, bits: &[u8], data: &[f64], options: &Options) -> Result<Quantized, QuantizeError> {
    let layers = quantizer.layers();
    check(quantizer, bits, options)?;
    let inputs: Vec<ValueId> = layers.iter().map(|l| l.input).collect();
    let float = values(quantizer.model(), &inputs, data)?;
    let mut made: Vec<QuantizedLayer> = vec![];
    for (k, layer) in layers.iter().enumerate() {
        let model = quantizer.with(made.clone()).model;
        let quantized = values(&model, &inputs[k..=k], data)?;
        let tensor = quantizer.tensor(layer.weights);
        let matrix = Matrix::new(&model, layer, tensor);
        let samples = |values| matrix.vectors(&model, 0, values, usize::MAX).map(|v| Samples::new(&v, matrix.inputs));
        let (levels, integers) = follow(&matrix, bits[k], &samples(&float[k])?, &samples(&quantized[0])?, options);
        let weights = QuantizedTensor::from_integers(bits[k], tensor, vec![levels], None, integers);
        let scheme = LayerScheme { biases: BiasRule::Float, ..LayerScheme::new(bits[k], WeightRule::Symmetric) };
        made.push(QuantizedLayer { scheme, weights: Arc::new(weights), biases: None });
    }
    Ok(quantizer.with(made))
}

fn check(quantizer: &Quantizer, bits: &[u8], options: &Options) -> Result<(), QuantizeError> {
    let layers = quantizer.layers();
    if let Some(layer) = layers.iter().find(|l| l.kind == Kind::Convolution) {
        let problem = "gpfq quantizes dense layers only, and this is a convolution";
        return Err(QuantizeError::new(format!("layer `{}`", layer.name), problem, "use --method round"));
    }
    if bits.len() != layers.len() || bits.iter().any(|b| !(BITS.0..=BITS.1).contains(b)) {
        let problem = format!("bits {bits:?} are given for {} layers", layers.len());
        return Err(QuantizeError::new("gpfq", problem, "give 2 to 32 bits for each layer"));
    }
    if !(options.constant.is_finite() && options.constant > 0.0) {
        let problem = format!("the factor of the radius is {}", options.constant);
        return Err(QuantizeError::new("gpfq", problem, "give a number above 0"));
    }
    Ok(())
}

impl Samples {
    /// From vectors that lie one behind the other.
    fn new(vectors: &[f64], inputs: usize) -> Samples {
        let column = |t: usize| vectors.iter().skip(t).step_by(inputs).copied().collect::<Vec<f64>>();
        let columns: Vec<Vec<f64>> = (0..inputs).map(column).collect();
        let squares = columns.iter().map(|x| dot(x, x)).collect();
        Samples { columns, squares }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// How far the alphabet of a layer reaches.
fn radius(matrix: &Matrix<'_>, options: &Options) -> f64 {
    let magnitudes = |j: usize| (0..matrix.inputs).map(move |t| matrix.weight(j, t).abs());
    let measure = match options.radius {
        Radius::Maxima => {
            let maxima = (0..matrix.neurons).map(|j| magnitudes(j).fold(0.0, f64::max));
            maxima.sum::<f64>() / matrix.neurons as f64
        }
        Radius::Median => {
            let mut all: Vec<f64> = (0..matrix.neurons).flat_map(magnitudes).collect();
            all.sort_by(f64::total_cmp);
            let middle = all.len() / 2;
            if all.len() % 2 == 1 { all[middle] } else { 0.5 * (all[middle - 1] + all[middle]) }
        }
    };
    options.constant * measure
}

/// The integers of a layer's weights, in the layout of the model, and their levels.
fn follow(matrix: &Matrix<'_>, bits: u8, analog: &Samples, digital: &Samples, options: &Options) -> (Levels, Vec<i32>) {
    let largest = (1_i64 << (bits - 1)) - 1;
    let levels = Levels::around(radius(matrix, options), (-largest, largest));
    let neuron = |j: usize| {
        let mut u = vec![0.0; analog.columns[0].len()];
        let step = |t: usize| {
            let (x, y, w) = (&analog.columns[t], &digital.columns[t], matrix.weight(j, t));
            u.iter_mut().zip(x).for_each(|(u, x)| *u += w * x);
            let aim = if digital.squares[t] > 0.0 { dot(y, &u) / digital.squares[t] } else { 0.0 };
            let q = (aim / f64::from(levels.scale) + 0.5).floor().clamp(-largest as f64, largest as f64) as i64;
            let value = f64::from(levels.value(q));
            u.iter_mut().zip(y).for_each(|(u, y)| *u -= value * y);
            q as i32
        };
        (0..matrix.inputs).map(step).collect::<Vec<i32>>()
    };
    let chosen: Vec<Vec<i32>> = (0..matrix.neurons).into_par_iter().map(neuron).collect();
    let mut integers = vec![0; matrix.neurons * matrix.inputs];
    for (j, row) in chosen.iter().enumerate() {
        row.iter().enumerate().for_each(|(t, &q)| integers[matrix.place(j, t)] = q);
    }
    (levels, integers)
}
