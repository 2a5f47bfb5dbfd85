//! The same network at any bits of each layer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::QuantizeError;
use super::layers::{Layer, Parameter, layers};
use super::scheme::{LayerScheme, Levels, WeightRule};
use crate::model::ir::{Model, Source, Tensor, ValueId};
use crate::num::round::sub_up;

/// A quantized tensor: integers, and the float32 numbers that they stand for.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedTensor {
    /// Bits of an integer.
    pub bits: u8,
    /// One for the tensor, or one for each channel.
    pub levels: Vec<Levels>,
    /// Axis of the channels; `None` if there is one scale.
    pub axis: Option<usize>,
    /// Row-major, in the layout of the model.
    pub integers: Vec<i32>,
    /// What they stand for, in the layout of the model.
    pub values: Arc<Tensor>,
    /// A number not below the largest |u - u'|.
    pub largest_error: f64,
    /// How many numbers lie more than half a step beyond the first or last level.
    pub clipped: usize,
}

impl QuantizedTensor {
    /// Quantizes each number by the levels of its channel.
    fn new(bits: u8, tensor: &Tensor, levels: Vec<Levels>, axis: Option<usize>) -> Self {
        let floats = tensor.as_f32().unwrap_or(&[]);
        let inner = inner(&tensor.shape, axis);
        let of = |i: usize| &levels[(i / inner) % levels.len()];
        // Ranges of at most 32 bits.
        let integers = floats.iter().enumerate().map(|(i, &u)| of(i).quantize(u) as i32).collect();
        Self::from_integers(bits, tensor, levels, axis, integers)
    }

    /// A tensor whose integers were chosen in some way.
    pub(super) fn from_integers(
        bits: u8,
        tensor: &Tensor,
        levels: Vec<Levels>,
        axis: Option<usize>,
        integers: Vec<i32>,
    ) -> Self {
        let (floats, inner) = (tensor.as_f32().unwrap_or(&[]), inner(&tensor.shape, axis));
        let of = |i: usize| &levels[(i / inner) % levels.len()];
        let values: Vec<f32> = integers.iter().enumerate().map(|(i, &q)| of(i).value(q.into())).collect();
        let error = |(u, v): (&f32, &f32)| sub_up(f64::from(u.max(*v)), f64::from(u.min(*v)));
        let largest_error = floats.iter().zip(&values).map(error).fold(0.0, f64::max);
        let beyond = |(i, u): (usize, &f32)| {
            let (l, u) = (of(i), f64::from(*u));
            let half = 0.5 * f64::from(l.scale);
            u > f64::from(l.value(l.range.1)) + half || u < f64::from(l.value(l.range.0)) - half
        };
        let clipped = floats.iter().enumerate().filter(|&(i, u)| beyond((i, u))).count();
        let values = Arc::new(Tensor::f32(&tensor.shape, values));
        QuantizedTensor { bits, levels, axis, integers, values, largest_error, clipped }
    }

    /// The levels of an element.
    pub(super) fn levels_at(&self, i: usize) -> &Levels {
        &self.levels[(i / inner(&self.values.shape, self.axis)) % self.levels.len()]
    }
}

/// Elements that lie together in one channel of an axis.
fn inner(shape: &[usize], axis: Option<usize>) -> usize {
    axis.map_or(1, |a| shape[a + 1..].iter().product::<usize>()).max(1)
}

/// A quantized layer.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedLayer {
    /// How it was quantized.
    pub scheme: LayerScheme,
    /// Its weights.
    pub weights: Arc<QuantizedTensor>,
    /// Its biases; `None` if there are none or they stayed float32.
    pub biases: Option<Arc<QuantizedTensor>>,
}

impl QuantizedLayer {
    /// A number not below the largest change of a weight or bias.
    pub fn largest_error(&self) -> f64 {
        self.biases.as_ref().map_or(0.0, |b| b.largest_error).max(self.weights.largest_error)
    }

    /// Bits that weights and biases take (32 for a bias that stayed float32), without scales.
    pub fn storage_bits(&self, layer: &Layer) -> usize {
        let bias_bits = self.biases.as_ref().map_or(32, |b| usize::from(b.bits));
        layer.weights.len * usize::from(self.weights.bits) + layer.biases.map_or(0, |b| b.len) * bias_bits
    }
}

/// A quantized network.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// The float model with the values that the integers stand for.
    pub model: Model,
    /// Its layers, in the order of [`layers`].
    pub layers: Vec<QuantizedLayer>,
}

/// Quantizes a network at any bits, again and again: a layer at some scheme is made once.
#[derive(Debug)]
pub struct Quantizer {
    /// The float model, in which no two parameters are one constant.
    model: Model,
    layers: Vec<Layer>,
    made: Mutex<HashMap<(usize, LayerScheme), QuantizedLayer>>,
}

impl Quantizer {
    /// Finds the layers of a float model.
    ///
    /// # Errors
    /// As [`layers`], and if a weight or bias is not finite.
    pub fn new(model: &Model) -> Result<Self, QuantizeError> {
        let mut model = Model { source: Source::default(), ..model.clone() };
        let mut layers = layers(&model)?;
        for layer in &mut layers {
            separate(&mut model, &mut layer.weights);
            if let Some(biases) = &mut layer.biases {
                separate(&mut model, biases);
            }
        }
        for layer in &layers {
            for parameter in [Some(layer.weights), layer.biases].into_iter().flatten() {
                let value = model.value(parameter.value);
                let bad = value.constant.as_ref().and_then(|t| t.as_f32()?.iter().find(|u| !u.is_finite()));
                if let Some(bad) = bad {
                    let place = format!("layer `{}`", layer.name);
                    let problem = format!("an element of `{}` is {bad}", value.name);
                    return Err(QuantizeError::new(place, problem, "repair the model: weights must be finite"));
                }
            }
        }
        Ok(Quantizer { model, layers, made: Mutex::default() })
    }

    /// The layers, in order.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The float model that quantized ones are made from: the one given, but that layers share no constants.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The network with each layer quantized by its scheme.
    ///
    /// # Errors
    /// If there is not one scheme for each layer, or one that its rule does not allow.
    pub fn at(&self, schemes: &[LayerScheme]) -> Result<Quantized, QuantizeError> {
        if schemes.len() != self.layers.len() {
            let problem = format!("{} schemes are given, and there are {} layers", schemes.len(), self.layers.len());
            return Err(QuantizeError::new("the scheme", problem, "give one for each layer"));
        }
        let made =
            schemes.iter().enumerate().map(|(k, scheme)| self.layer(k, scheme)).collect::<Result<Vec<_>, _>>()?;
        Ok(self.with(made))
    }

    /// One layer by its scheme.
    ///
    /// # Errors
    /// If the rule does not allow the scheme.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn layer(&self, index: usize, scheme: &LayerScheme) -> Result<QuantizedLayer, QuantizeError> {
        let key = (index, *scheme);
        let cached = |made: &HashMap<_, QuantizedLayer>| made.get(&key).cloned();
        if let Some(layer) = cached(&self.made.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(layer);
        }
        let layer = self.make(&self.layers[index], scheme)?;
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(key, layer.clone());
        Ok(layer)
    }

    /// The network with these layers in place.
    pub(super) fn with(&self, made: Vec<QuantizedLayer>) -> Quantized {
        let mut model = self.model.clone();
        self.layers.iter().zip(&made).for_each(|(layer, quantized)| put(&mut model, layer, quantized));
        Quantized { model, layers: made }
    }

    /// The network with one layer quantized; the others are float.
    ///
    /// # Errors
    /// If the rule does not allow the scheme.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn only(&self, index: usize, scheme: &LayerScheme) -> Result<Model, QuantizeError> {
        let mut model = self.model.clone();
        put(&mut model, &self.layers[index], &self.layer(index, scheme)?);
        Ok(model)
    }

    /// The float32 constant of a parameter.
    pub(super) fn tensor(&self, parameter: Parameter) -> &Tensor {
        match &self.model.value(parameter.value).constant {
            Some(tensor) => tensor,
            None => unreachable!("parameters are constants"),
        }
    }

    fn make(&self, layer: &Layer, scheme: &LayerScheme) -> Result<QuantizedLayer, QuantizeError> {
        scheme.check(&format!("layer `{}`", layer.name))?;
        let floats = |tensor: &Tensor| tensor.as_f32().unwrap_or(&[]).to_vec();
        let weights = self.tensor(layer.weights);
        let biases = layer.biases.map(|b| self.tensor(b));
        let together = || floats(weights).into_iter().chain(biases.map(floats).unwrap_or_default());
        let whole = |bits: u8, tensor: &Tensor| match scheme.rule {
            WeightRule::Ceg4n | WeightRule::PowerOfTwo => Levels::fit(scheme.rule, bits, together()),
            WeightRule::Symmetric | WeightRule::Asymmetric | WeightRule::MinMax | WeightRule::Fitted => {
                Levels::fit(scheme.rule, bits, floats(tensor))
            }
        };
        let axis = layer.axis.filter(|_| scheme.per_channel);
        let levels = match axis {
            None => vec![whole(scheme.bits, weights)],
            Some(axis) => by_channel(weights, axis).map(|u| Levels::fit(scheme.rule, scheme.bits, u)).collect(),
        };
        let quantized_biases = biases
            .zip(scheme.bias_bits())
            .map(|(tensor, bits)| Arc::new(QuantizedTensor::new(bits, tensor, vec![whole(bits, tensor)], None)));
        let weights = Arc::new(QuantizedTensor::new(scheme.bits, weights, levels, axis));
        Ok(QuantizedLayer { scheme: *scheme, weights, biases: quantized_biases })
    }
}

/// Puts the values of a quantized layer into a model.
fn put(model: &mut Model, layer: &Layer, quantized: &QuantizedLayer) {
    model.values[layer.weights.value.0].constant = Some(quantized.weights.values.clone());
    if let (Some(place), Some(biases)) = (layer.biases, &quantized.biases) {
        model.values[place.value.0].constant = Some(biases.values.clone());
    }
}

/// The numbers of each channel along an axis.
fn by_channel(tensor: &Tensor, axis: usize) -> impl Iterator<Item = impl Iterator<Item = f32>> {
    let (floats, inner, channels) =
        (tensor.as_f32().unwrap_or(&[]), inner(&tensor.shape, Some(axis)), tensor.shape[axis]);
    let block = inner * channels;
    (0..channels).map(move |c| {
        let starts = (c * inner..floats.len()).step_by(block);
        starts.flat_map(move |start| floats[start..start + inner].iter().copied())
    })
}

/// Gives a parameter a constant of its own where something else reads it, too.
fn separate(model: &mut Model, parameter: &mut Parameter) {
    let id = parameter.value;
    let readers = model.nodes.iter().flat_map(|n| &n.inputs).filter(|v| **v == Some(id)).count();
    if readers < 2 && !model.outputs.contains(&id) {
        return;
    }
    let mut copy = model.value(id).clone();
    copy.name = fresh_name(model, &copy.name);
    model.values.push(copy);
    parameter.value = ValueId(model.values.len() - 1);
    model.nodes[parameter.node].inputs[parameter.position] = Some(parameter.value);
}

/// A name that no value has.
pub(super) fn fresh_name(model: &Model, base: &str) -> String {
    let taken = |name: &str| model.values.iter().any(|v| v.name == name);
    let numbered = (1..).map(|n| format!("{base}_{n}")).find(|name| !taken(name));
    numbered.unwrap_or_default()
}

/// The network with each layer quantized by its scheme; [`Quantizer`] does it again and again.
///
/// # Errors
/// As [`Quantizer::new`] and [`Quantizer::at`].
pub fn quantize_weights(model: &Model, schemes: &[LayerScheme]) -> Result<Quantized, QuantizeError> {
    Quantizer::new(model)?.at(schemes)
}
