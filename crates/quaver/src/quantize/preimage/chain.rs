//! Chains: affine layers with a ReLU between each two.

use crate::model::lower::Lowered;
use crate::net::{
    Affine, Dense, From, Grid, LinearMap, Move, Net, Node, NodeId, Op, Piecewise, Pointwise, Rounding, ScalarFn,
    Spread, Weights,
};
use crate::quantize::QuantizeError;

/// Most weights of a layer that is written out as a matrix.
const LARGEST: usize = 1 << 26;

/// y = W x + b.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Of the affine node.
    pub name: String,
    /// W, row-major.
    pub weights: Weights,
    /// b, one for each row.
    pub bias: Vec<f64>,
    /// Columns of W.
    pub inputs: usize,
}

impl Layer {
    /// Rows of W.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// The row of an output.
    pub fn row(&self, output: usize) -> &[f64] {
        &self.weights.exact()[output * self.inputs..][..self.inputs]
    }
}

/// A network of affine layers with a ReLU between each two, in real arithmetic.
#[derive(Clone, Debug)]
pub struct Chain {
    input: Node,
    /// In order; the last one makes the output.
    pub layers: Vec<Layer>,
}

/// What a node of a chain does, on the way along it.
enum Link {
    Affine(Layer),
    Bias(Vec<f64>),
    Relu,
    Nothing,
}

impl Chain {
    /// Reads a lowered network. Convolutions are written out as matrices.
    ///
    /// # Errors
    /// If the network is no such chain, or its arithmetic is not that of real numbers.
    pub fn new(lowered: &Lowered) -> Result<Chain, QuantizeError> {
        let net = &lowered.net;
        let path = path(net)?;
        let mut layers: Vec<Layer> = vec![];
        let mut is_open = false;
        for &id in path.iter().skip(1) {
            let node = net.node(id);
            match link(node)? {
                Link::Nothing => {}
                Link::Affine(layer) if !is_open => {
                    layers.push(layer);
                    is_open = true;
                }
                // A product and then a sum, as in files without Gemm.
                Link::Bias(bias) if is_open && layers.last().is_some_and(|l| l.bias.iter().all(|b| *b == 0.0)) => {
                    layers.last_mut().into_iter().for_each(|l| l.bias.clone_from(&bias));
                }
                Link::Relu if is_open => is_open = false,
                Link::Affine(_) | Link::Bias(_) => return Err(refused(&place(node), "an affine map of an affine map")),
                Link::Relu => return Err(refused(&place(node), "a ReLU of something that is not an affine layer")),
            }
        }
        if path.iter().any(|id| net.node(*id).is_empty()) {
            return Err(refused("the model", "a value has no elements"));
        }
        if !is_open {
            return Err(refused("the model", "it does not end in an affine layer"));
        }
        Ok(Chain { input: net.node(path[0]).clone(), layers })
    }

    /// The input.
    pub(super) fn input(&self) -> &Node {
        &self.input
    }

    /// Elements of the input.
    pub fn inputs(&self) -> usize {
        self.input.len()
    }

    /// Elements of the output.
    pub fn outputs(&self) -> usize {
        self.layers.last().map_or(0, Layer::outputs)
    }

    /// A net with the input and, behind each of the first layers, its ReLU: the last of these values, or the input.
    pub(super) fn hidden(&self, count: usize) -> (Net, NodeId) {
        let mut net = Net::new();
        let mut last = net.add(self.input.clone());
        for layer in &self.layers[..count] {
            let terms = vec![(last, dense(&layer.weights, layer.inputs, layer.outputs()))];
            let affine = add_affine(&mut net, terms, layer.bias.clone());
            last = add_relu(&mut net, affine);
        }
        (net, last)
    }

    /// The whole network and its output.
    pub(super) fn net(&self) -> (Net, NodeId) {
        let (mut net, last) = self.hidden(self.layers.len() - 1);
        let layer = &self.layers[self.layers.len() - 1];
        let terms = vec![(last, dense(&layer.weights, layer.inputs, layer.outputs()))];
        let output = add_affine(&mut net, terms, layer.bias.clone());
        net.set_outputs(vec![output]);
        (net, output)
    }

    /// The values before each ReLU and the output, in plain f64; a hint.
    pub(super) fn sketch(&self, x: &[f64]) -> Vec<f64> {
        let mut x = x.to_vec();
        for (k, layer) in self.layers.iter().enumerate() {
            if k > 0 {
                x.iter_mut().for_each(|x| *x = x.max(0.0));
            }
            let sum = |i: usize| layer.row(i).iter().zip(&x).map(|(w, x)| w * x).sum::<f64>() + layer.bias[i];
            x = (0..layer.outputs()).map(sum).collect();
        }
        x
    }
}

/// A matrix as a linear map.
pub(super) fn dense(weights: &Weights, n_in: usize, n_out: usize) -> LinearMap {
    LinearMap::Dense(Dense { outer: 1, n_in, n_out, weights: weights.clone() })
}

/// Adds a real affine value.
pub(super) fn add_affine(net: &mut Net, terms: Vec<(NodeId, LinearMap)>, bias: Vec<f64>) -> NodeId {
    let shape = vec![bias.len()];
    add(net, shape, Op::Affine(Affine { terms, bias: Spread::each(bias), rounding: Rounding::Exact }))
}

/// Adds the ReLU of a value.
pub(super) fn add_relu(net: &mut Net, input: NodeId) -> NodeId {
    let functions = Spread::all(ScalarFn::Piecewise(Piecewise::relu()));
    let shape = net.node(input).shape.clone();
    add(net, shape, Op::Pointwise(Pointwise { input, functions }))
}

fn add(net: &mut Net, shape: Vec<usize>, op: Op) -> NodeId {
    let (name, range) = (format!("v{}", net.nodes().len()), (f64::NEG_INFINITY, f64::INFINITY));
    net.add(Node { name, shape, op, grid: Grid::Real, range, quantization: None })
}

fn place(node: &Node) -> String {
    format!("value `{}`", node.name)
}

fn refused(place: &str, problem: &str) -> QuantizeError {
    let cure =
        "the preimage method is for chains of affine layers with ReLU between, in real arithmetic: use another method";
    QuantizeError::new(place, problem, cure)
}

/// The values of a net without branches, from its input to its output.
fn path(net: &Net) -> Result<Vec<NodeId>, QuantizeError> {
    let (&[_], &[output]) = (net.inputs(), net.outputs()) else {
        return Err(refused("the model", "it has several inputs or outputs"));
    };
    let mut path = vec![output];
    while let Some(&last) = path.last() {
        match net.node(last).arguments()[..] {
            [] if matches!(net.node(last).op, Op::Input(_)) => break,
            [only] => path.push(only),
            _ => return Err(refused(&place(net.node(last)), "it joins several values, or is constant")),
        }
    }
    path.reverse();
    Ok(path)
}

fn link(node: &Node) -> Result<Link, QuantizeError> {
    let refused = |problem: &str| Err(refused(&place(node), problem));
    match &node.op {
        Op::Affine(a) if a.rounding != Rounding::Exact => refused("its sums are rounded"),
        Op::Affine(Affine { terms, bias, .. }) => {
            let map = &terms[0].1;
            let bias: Vec<f64> = (0..node.len()).map(|i| *bias.at(i)).collect();
            match map {
                LinearMap::Diagonal { scale, .. } if scale.data.iter().all(|s| *s == 1.0) => Ok(Link::Bias(bias)),
                LinearMap::Diagonal { .. } => refused("an element-wise product"),
                LinearMap::Dense(Dense { outer: 1, weights, n_in, .. }) => {
                    let (name, weights) = (node.name.clone(), weights.clone());
                    Ok(Link::Affine(Layer { name, weights, bias, inputs: *n_in }))
                }
                LinearMap::Dense(_) | LinearMap::Conv(_) if map.inputs().saturating_mul(map.outputs()) > LARGEST => {
                    refused("a convolution too large to be written out as a matrix")
                }
                LinearMap::Dense(_) | LinearMap::Conv(_) => Ok(Link::Affine(written_out(&node.name, map, bias))),
            }
        }
        Op::Pointwise(p) => match p.functions.data.iter().all(|f| *f == ScalarFn::Piecewise(Piecewise::relu())) {
            true => Ok(Link::Relu),
            false => refused("a function that is not ReLU"),
        },
        Op::Move(m) if is_identity(m, node.len()) => Ok(Link::Nothing),
        Op::Move(_) => refused("an index map that moves elements"),
        Op::Max(_) => refused("a maximum"),
        Op::Input(_) => refused("a second input"),
    }
}

fn written_out(name: &str, map: &LinearMap, bias: Vec<f64>) -> Layer {
    let inputs = map.inputs();
    let mut weights = vec![0.0; inputs * bias.len()];
    for (i, row) in weights.chunks_mut(inputs.max(1)).enumerate() {
        map.for_each_term(i, |j, w| row[j] = w);
    }
    Layer { name: name.into(), weights: Weights::new(weights), bias, inputs }
}

fn is_identity(m: &Move, len: usize) -> bool {
    let at = |i: usize| From::Element { source: 0, index: i as u32 };
    m.sources.len() == 1 && m.from.len() == len && (0..len).all(|i| m.from[i] == at(i))
}
