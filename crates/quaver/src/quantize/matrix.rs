//! A layer as a matrix: the weights of each output channel, and the vectors that they multiply.

use std::borrow::Cow;

use super::QuantizeError;
use super::activations::{probe, rows_of};
use super::layers::{Kind, Layer};
use crate::model::ir::{Model, Op, Tensor, ValueId, Window};
use crate::net::execute;

/// Some values of a model for all rows of data.
pub(super) fn values(model: &Model, of: &[ValueId], data: &[f64]) -> Result<Vec<Vec<f64>>, QuantizeError> {
    let lowered = probe(model, of)?;
    let rows = rows_of(model, &lowered, data)?;
    Ok(execute(&lowered.net, &[data.to_vec()], rows).into_iter().map(|v| v.center).collect())
}

/// The weights of a layer, and where those of each neuron (output channel of a convolution) are.
pub(super) struct Matrix<'a> {
    layer: &'a Layer,
    tensor: &'a Tensor,
    /// Weights of a neuron.
    pub inputs: usize,
    /// Neurons, the groups of a convolution one behind the other.
    pub neurons: usize,
    /// Groups of a convolution; 1 otherwise.
    pub groups: usize,
    /// Distance of a neuron's first weight from the next neuron's, and of its weights from one another.
    strides: (usize, usize),
}

impl<'a> Matrix<'a> {
    pub fn new(model: &Model, layer: &'a Layer, tensor: &'a Tensor) -> Self {
        // Weights are a matrix, or a vector for one neuron, or filters.
        let (rows, columns) = match tensor.shape[..] {
            [rows, columns] => (rows, columns),
            [filters, ..] if layer.kind == Kind::Convolution => (filters, tensor.len() / filters.max(1)),
            _ => (tensor.len(), 1),
        };
        let groups = match model.nodes[layer.weights.node].op {
            Op::Conv { group, .. } => group,
            _ => 1,
        };
        let (inputs, neurons, strides) = match layer.axis {
            Some(0) => (columns, rows, (columns, 1)),
            _ => (rows, columns, (1, columns)),
        };
        Matrix { layer, tensor, inputs, neurons, groups, strides }
    }

    /// Where a weight is in the layout of the model.
    pub fn place(&self, neuron: usize, t: usize) -> usize {
        neuron * self.strides.0 + t * self.strides.1
    }

    pub fn weight(&self, neuron: usize, t: usize) -> f64 {
        self.tensor.as_f32().map_or(0.0, |w| f64::from(w[self.place(neuron, t)]))
    }

    /// The vectors that the neurons of a group multiply, one behind the other, from values of the layer's input for some rows of data. Of the
    /// patches of a convolution at most `most` are taken, in an order that does not depend on anything else.
    ///
    /// # Errors
    /// If several vectors do not lie one behind the other.
    pub fn vectors<'v>(
        &self,
        model: &Model,
        group: usize,
        values: &'v [f64],
        most: usize,
    ) -> Result<Cow<'v, [f64]>, QuantizeError> {
        let op = &model.nodes[self.layer.weights.node].op;
        if let Op::Conv { window, .. } = op {
            return Ok(Cow::Owned(self.patches(model, window, group, values, most)));
        }
        let rows_lie = self.layer.weights.position == 1 && !matches!(op, Op::Gemm { trans_a: true, .. });
        let one = model.value(self.layer.input).len() == self.inputs;
        if !(rows_lie || one) || self.tensor.shape.len() > 2 || !values.len().is_multiple_of(self.inputs.max(1)) {
            let problem = "its weights multiply several vectors at once from the left, or are several matrices";
            return Err(QuantizeError::new(format!("layer `{}`", self.layer.name), problem, "use --method round"));
        }
        Ok(Cow::Borrowed(values))
    }

    fn patches(&self, model: &Model, window: &Window, group: usize, values: &[f64], most: usize) -> Vec<f64> {
        let shape = |id: ValueId| &model.value(id).shape[..];
        let input = shape(self.layer.input);
        let output = &shape(model.nodes[self.layer.weights.node].output)[2..];
        let (plane, taps): (usize, usize) = (input[2..].iter().product(), window.kernel.iter().product());
        let (sample, positions) = (input[1] * plane, output.iter().product::<usize>());
        let first = group * (input[1] / self.groups) * plane;
        let total = values.len() / sample.max(1) * positions;
        let patch = |p: usize| {
            let values = &values[p / positions * sample + first..];
            let places: Vec<Option<usize>> =
                (0..taps).map(|tap| read(window, &input[2..], output, p % positions, tap)).collect();
            let of = move |t: usize| places[t % taps].map_or(0.0, |place| values[t / taps * plane + place]);
            (0..self.inputs).map(of)
        };
        picked(total, most).flat_map(patch).collect()
    }
}

/// Where in a plane a window at a position of the output reads through a tap; `None` in the padding.
fn read(window: &Window, input: &[usize], output: &[usize], mut position: usize, mut tap: usize) -> Option<usize> {
    let (mut place, mut stride) = (0, 1);
    for a in (0..input.len()).rev() {
        let (o, k) = (position % output[a], tap % window.kernel[a]);
        (position, tap) = (position / output[a], tap / window.kernel[a]);
        let at = (o * window.strides[a] + k * window.dilations[a]).checked_sub(window.pads_begin[a])?;
        if at >= input[a] {
            return None;
        }
        place += at * stride;
        stride *= input[a];
    }
    Some(place)
}

/// At most `most` of 0..total: all, or one of each of as many equal parts, at another place in each part.
fn picked(total: usize, most: usize) -> impl Iterator<Item = usize> {
    let count = total.min(most);
    let start = move |i: usize| (i as u128 * total as u128 / count as u128) as usize;
    (0..count).map(move |i| {
        // Multiples of the golden ratio fill the unit interval evenly.
        let share = (i as f64 * 0.618_033_988_75).fract();
        start(i) + ((start(i + 1) - start(i)) as f64 * share) as usize
    })
}

#[cfg(test)]
mod tests {
    use super::picked;

    #[test]
    fn picked_places_differ_and_grow() {
        for (total, most) in [(5, 9), (9, 9), (10, 9), (4096 * 784, 4096), (100, 0)] {
            let places: Vec<usize> = picked(total, most).collect();
            assert_eq!(places.len(), total.min(most));
            assert!(places.windows(2).all(|w| w[0] < w[1]) && places.iter().all(|&p| p < total));
        }
        // No position of 784 is favoured.
        let first = picked(4096 * 784, 4096).filter(|p| p % 784 < 78).count();
        assert!((350..470).contains(&first), "{first}");
    }
}
