//! Learned rounding: each weight goes to the level below or the level above, so that layers give on data what they give in the float network.

use std::sync::Arc;

use rayon::prelude::*;

use super::QuantizeError;
use super::layers::{Kind, Layer, Parameter};
use super::matrix::{Matrix, values};
use super::quantizer::{Quantized, QuantizedLayer, QuantizedTensor, Quantizer};
use super::scheme::{LayerScheme, Levels};
use crate::model::ir::{Model, Op};
use crate::net::gemm::{Strides, product};

/// The constants of the method.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Weight of the distance of weights from their float values: lambda is this share of the mean of X_t . X_t over inputs t of the layer.
    pub ridge: f64,
    /// Each row of data stands for the box of this radius around it, in the units of what the first layer multiplies.
    pub spread: f64,
    /// Patches that a convolution's weights are chosen from, at most (but one for each row of data).
    pub patches: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { ridge: 0.01, spread: 0.0, patches: 4096 }
    }
}

/// Quantizes layer after layer, each number to the level below it or the level above it.
///
/// # Claim
/// None: the result is a network like any other. What is computed here is f64 without an account of its rounding.
///
/// For each output channel with float weights w (and bias, if biases are quantized: one more input that is always 1), X the layer's inputs
/// in the float network and Y in the network quantized so far: q with q_t the level below or above w_t, such that no other choice for one t
/// alone has a smaller |Y q - X w|^2 + lambda |q - w|^2. Beyond the ends of the levels there is no choice. The first layer's lambda is
/// larger by n r^2 / 3 for n rows that stand for boxes of radius r: the mean of |Z (q - w)|^2 over them is |X (q - w)|^2 + n r^2 / 3 |q - w|^2.
///
/// # Source
/// Nagel, Amjad, van Baalen, Louizos and Blankevoort, Up or Down? Adaptive Rounding for Post-Training Quantization (ICML 2020), section 3,
/// for the problem. Its solution by coordinate descent from the nearest levels, the flip that gains most first, is ours.
///
/// # Errors
/// If a scheme does not fit its layer, or data do not fit the model, or a layer multiplies several vectors at once from the left.
pub fn learned(
    quantizer: &Quantizer,
    schemes: &[LayerScheme],
    data: &[f64],
    options: &Options,
) -> Result<Quantized, QuantizeError> {
    check(options)?;
    let nearest = quantizer.at(schemes)?.layers;
    let mut made: Vec<QuantizedLayer> = vec![];
    for (k, (layer, nearest)) in quantizer.layers().iter().zip(nearest).enumerate() {
        let prefix = quantizer.with(made.clone()).model;
        let [float, quantized] = [quantizer.model(), &prefix].map(|m| values(m, &[layer.input], data));
        let seen = Seen { float: &float?[0], quantized: &quantized?[0] };
        let variance = if k == 0 { options.spread.powi(2) / 3.0 } else { 0.0 };
        made.push(choose(quantizer, layer, &nearest, &seen, variance, options)?);
    }
    Ok(quantizer.with(made))
}

fn check(options: &Options) -> Result<(), QuantizeError> {
    for (name, x) in [("ridge", options.ridge), ("spread", options.spread)] {
        if !(x.is_finite() && x >= 0.0) {
            return Err(QuantizeError::new(
                "learned rounding",
                format!("the {name} is {x}"),
                "give a number from 0 up",
            ));
        }
    }
    Ok(())
}

/// A layer's input over all rows, one behind the other, in both networks.
struct Seen<'a> {
    float: &'a [f64],
    quantized: &'a [f64],
}

/// One layer with its levels chosen.
fn choose(
    quantizer: &Quantizer,
    layer: &Layer,
    nearest: &QuantizedLayer,
    seen: &Seen<'_>,
    variance: f64,
    options: &Options,
) -> Result<QuantizedLayer, QuantizeError> {
    let (model, tensor) = (quantizer.model(), quantizer.tensor(layer.weights));
    let matrix = Matrix::new(model, layer, tensor);
    let rows = seen.float.len() / model.value(layer.input).len().max(1);
    let most = options.patches.max(rows);
    let mut chosen = Chosen {
        weights: nearest.weights.integers.clone(),
        biases: nearest.biases.as_ref().map_or(vec![], |b| b.integers.clone()),
    };
    let biases = layer.biases.zip(nearest.biases.as_deref()).filter(|(p, _)| is_one_a_neuron(model, layer, *p));
    let one = biases.map(|_| scale_of_bias(model, layer));
    let each = matrix.neurons / matrix.groups;
    for group in 0..matrix.groups {
        let vectors = |of| matrix.vectors(model, group, of, most);
        let (float, quantized) = (vectors(seen.float)?, vectors(seen.quantized)?);
        let choice = |neuron: usize| {
            let of = |t: usize| nearest.weights.choice(tensor.as_f32().unwrap_or(&[]), matrix.place(neuron, t));
            let bias = biases.map(|(p, b)| b.choice(quantizer.tensor(p).as_f32().unwrap_or(&[]), neuron));
            (0..matrix.inputs).map(of).chain(bias).collect::<Vec<Choice>>()
        };
        let choices: Vec<Vec<Choice>> = (group * each..(group + 1) * each).map(choice).collect();
        let (x, y) = (with_ones(&float, matrix.inputs, one), with_ones(&quantized, matrix.inputs, one));
        let problem = Problem::new(&x, &y, &choices, options.ridge, variance * (x.len() / choices[0].len()) as f64);
        for (neuron, integers) in (group * each..).zip(problem.solve(&choices)) {
            chosen.keep(&matrix, neuron, &integers);
        }
    }
    Ok(chosen.layer(quantizer, layer, nearest))
}

/// The integers of a layer.
struct Chosen {
    weights: Vec<i32>,
    biases: Vec<i32>,
}

impl Chosen {
    fn keep(&mut self, matrix: &Matrix<'_>, neuron: usize, integers: &[i32]) {
        let (weights, bias) = integers.split_at(matrix.inputs);
        weights.iter().enumerate().for_each(|(t, &q)| self.weights[matrix.place(neuron, t)] = q);
        bias.iter().for_each(|&q| self.biases[neuron] = q);
    }

    fn layer(self, quantizer: &Quantizer, layer: &Layer, nearest: &QuantizedLayer) -> QuantizedLayer {
        let with = |place: Parameter, of: &QuantizedTensor, integers: Vec<i32>| {
            let tensor = quantizer.tensor(place);
            Arc::new(QuantizedTensor::from_integers(of.bits, tensor, of.levels.clone(), of.axis, integers))
        };
        let biases = layer.biases.zip(nearest.biases.as_deref()).map(|(place, of)| with(place, of, self.biases));
        let weights = with(layer.weights, &nearest.weights, self.weights);
        QuantizedLayer { scheme: nearest.scheme, weights, biases }
    }
}

/// Whether a layer's biases are one for each output channel.
fn is_one_a_neuron(model: &Model, layer: &Layer, biases: Parameter) -> bool {
    let own = biases.node == layer.weights.node;
    let weights = &model.value(layer.weights.value).shape;
    let neurons = layer.axis.map_or(1, |axis| weights[axis]);
    if biases.len != neurons || neurons == 1 || (own && layer.kind == Kind::Convolution) {
        return biases.len == neurons;
    }
    // Aligned at the last axis, as broadcasting does it.
    let rank = model.value(layer.output).shape.len();
    let behind = match layer.kind {
        Kind::Convolution => rank - 2,
        Kind::Dense => usize::from(layer.weights.position == 0),
    };
    let shape = &model.value(biases.value).shape;
    shape.iter().rev().nth(behind) == Some(&neurons)
}

/// What a bias is multiplied with where weights are multiplied with the layer's input.
fn scale_of_bias(model: &Model, layer: &Layer) -> f64 {
    match model.nodes[layer.weights.node].op {
        Op::Gemm { alpha, beta, .. } if alpha != 0.0 => f64::from(beta) / f64::from(alpha),
        _ => 1.0,
    }
}

/// Vectors with one more element, if there is one.
fn with_ones(vectors: &[f64], len: usize, one: Option<f64>) -> Vec<f64> {
    vectors.chunks(len).flat_map(|x| x.iter().copied().chain(one)).collect()
}

/// What a number may become.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Choice {
    float: f64,
    /// The nearest level, and the one on the number's other side: the same where there is none.
    integers: [i32; 2],
    values: [f64; 2],
}

impl Choice {
    fn new(float: f32, nearest: i64, levels: &Levels) -> Self {
        let value = |q: i64| levels.value(q);
        let next = nearest + if value(nearest) < float { 1 } else { -1 };
        let is_other = value(nearest) != float
            && (levels.range.0..=levels.range.1).contains(&next)
            && (value(next) < float) != (value(nearest) < float);
        let other = if is_other { next } else { nearest };
        // Ranges of at most 32 bits.
        let integers = [nearest, other].map(|q| q as i32);
        Choice { float: float.into(), integers, values: [nearest, other].map(|q| f64::from(value(q))) }
    }
}

impl QuantizedTensor {
    fn choice(&self, floats: &[f32], i: usize) -> Choice {
        Choice::new(floats[i], self.integers[i].into(), self.levels_at(i))
    }
}

/// Rows of a Gram matrix that one task makes.
const BAND: usize = 64;

/// |Y q - X w|^2 + sum of ridge (q - w)^2 for the neurons of a group, as far as it depends on q: q'G q - 2 h.q and so on.
struct Problem {
    /// Elements of a vector.
    size: usize,
    /// G = Y'Y.
    gram: Vec<f64>,
    /// h = Y'X w for each neuron.
    aims: Vec<f64>,
    ridge: Vec<f64>,
}

impl Problem {
    /// From vectors in both networks, a ridge relative to the mean of the diagonal, and one for the weights on top of it.
    fn new(x: &[f64], y: &[f64], choices: &[Vec<Choice>], ridge: f64, spread: f64) -> Self {
        let (size, neurons) = (choices[0].len(), choices.len());
        let rows = x.len() / size;
        let mut gram = vec![0.0; size * size];
        gram.par_chunks_mut(BAND * size).enumerate().for_each(|(band, g)| {
            let shape = (g.len() / size, rows, size);
            let columns = (&y[(band * BAND).min(y.len())..], Strides::transposed(size));
            product(shape, columns, (y, Strides::rows(size)), g, false);
        });
        let w: Vec<f64> = choices.iter().flatten().map(|c| c.float).collect();
        let (mut outputs, mut aims) = (vec![0.0; rows * neurons], vec![0.0; neurons * size]);
        let (by_row, by_column) = (Strides::rows(size), Strides::transposed(size));
        product((rows, size, neurons), (x, by_row), (&w, by_column), &mut outputs, false);
        product((neurons, rows, size), (&outputs, Strides::transposed(neurons)), (y, by_row), &mut aims, false);
        let mean = (0..size).map(|i| gram[i * size + i]).sum::<f64>() / size as f64;
        // Rows stand for boxes of inputs; a bias has none.
        let ridge = vec![ridge * mean + spread; size];
        Problem { size, gram, aims, ridge }
    }

    /// Integers for each neuron.
    fn solve(&self, choices: &[Vec<Choice>]) -> Vec<Vec<i32>> {
        let neuron = |(c, aims): (&Vec<Choice>, &[f64])| {
            let side = self.descend(c, aims);
            c.iter().zip(side).map(|(c, side)| c.integers[side]).collect()
        };
        choices.par_iter().zip(self.aims.par_chunks(self.size)).map(neuron).collect()
    }

    /// Which side each number goes to: flips the one that gains most until none gains.
    fn descend(&self, choices: &[Choice], aims: &[f64]) -> Vec<usize> {
        let n = self.size;
        let row = |i: usize| &self.gram[i * n..(i + 1) * n];
        let start: Vec<f64> = choices.iter().map(|c| c.values[0]).collect();
        let dot = |a: &[f64]| a.iter().zip(&start).map(|(x, y)| x * y).sum::<f64>();
        // Half the gradient, and what a flip adds to a number.
        let mut slope: Vec<f64> =
            (0..n).map(|i| dot(row(i)) - aims[i] + self.ridge[i] * (start[i] - choices[i].float)).collect();
        let mut step: Vec<f64> = choices.iter().map(|c| c.values[1] - c.values[0]).collect();
        let curve: Vec<f64> = (0..n).map(|i| self.gram[i * n + i] + self.ridge[i]).collect();
        let mut side = vec![0; n];
        // Each flip gains; the count only guards against gains that are rounding errors.
        for _ in 0..20 * n {
            let change = |i: usize| step[i] * (2.0 * slope[i] + step[i] * curve[i]);
            let best = (0..n).map(|i| (change(i), i)).fold((0.0, n), |a, b| if b.0 < a.0 { b } else { a });
            let (gain, i) = best;
            if i == n || gain > -1e-9 * step[i] * step[i] * curve[i] {
                break;
            }
            slope.iter_mut().zip(row(i)).for_each(|(s, g)| *s += step[i] * g);
            slope[i] += step[i] * self.ridge[i];
            step[i] = -step[i];
            side[i] = 1 - side[i];
        }
        side
    }
}
