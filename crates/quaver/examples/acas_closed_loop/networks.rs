//! The five classifiers: read, quantized and guarded.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quaver::guard::cells::Cells;
use quaver::guard::kernels::float::FloatNet;
use quaver::guard::kernels::{Compiled, Isa};
use quaver::guard::plan::{Domain, FORMAT, Kind, Plan, Source, StagePlan};
use quaver::guard::run::Guard;
use quaver::guard::thresholds::{Bounds, Compared};
use quaver::model::build::ModelBuilder;
use quaver::model::ir::{DType, Model, Op, Tensor};
use quaver::model::lower::{Lowered, lower};
use quaver::model::profile::{Float32, OrtFused, Profile, Real};
use quaver::model::{ReadOptions, read};
use quaver::property::Region;
use quaver::quantize::activations::{ActivationScheme, proved};
use quaver::quantize::qdq::to_qdq;
use quaver::quantize::{BiasRule, Layer, LayerScheme, Quantizer, WeightRule, layers};
use quaver::verify::Options;
use rayon::prelude::*;

use crate::dynamics::{HIGH, LOW};

pub type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Bits of the quantized networks.
pub const BITS: [u8; 4] = [4, 8, 12, 16];

/// What the inputs of the original networks are made of states with: (state - mean) / range.
const MEANS: [f64; 5] = [19791.091, 0.0, 0.0, 650.0, 600.0];
// As published: two pi with twelve digits.
#[expect(clippy::approx_constant)]
const RANGES: [f64; 5] = [60261.0, 6.283_185_307_18, 6.283_185_307_18, 1100.0, 1200.0];

/// A folder of distilled networks, `acas_1.onnx` to `acas_5.onnx`: inputs in [0,1], the largest output is the advisory.
pub fn distilled(folder: &Path) -> Fallible<Vec<Model>> {
    let file = |k| folder.join(format!("acas_{k}.onnx"));
    (1..=5).map(|k| Ok(read(&file(k), &ReadOptions::default())?)).collect()
}

/// A folder of the original networks, whose least output is the advisory, as networks like the distilled ones.
pub fn originals(folder: &Path) -> Fallible<Vec<Model>> {
    let file = |k| folder.join(format!("ACASXU_run2a_{k}_1_batch_2000.onnx"));
    (1..=5).map(|k| folded(&read(&file(k), &ReadOptions::default())?)).collect()
}

/// Weights by output, and biases.
fn parameters(model: &Model, layer: &Layer) -> Fallible<(Vec<f32>, Vec<f32>)> {
    let constant = |id| model.value(id).constant.as_ref().and_then(|t| t.as_f32()).ok_or("a layer without constants");
    let weights = constant(layer.weights.value)?;
    let biases = constant(layer.biases.ok_or("a layer without biases")?.value)?.to_vec();
    let (outputs, inputs) = (biases.len(), weights.len() / biases.len());
    let by_output = match layer.axis {
        Some(0) => weights.to_vec(),
        _ => (0..weights.len()).map(|i| weights[i % inputs * outputs + i / inputs]).collect(),
    };
    Ok((by_output, biases))
}

/// The network with the scaling of [0,1] to its inputs in the first layer, and the last one negated. Numbers of the first layer are computed in
/// binary64 and rounded to float32 once.
fn folded(model: &Model) -> Fallible<Model> {
    let is_zero = |t: &Tensor| t.as_f32().is_some_and(|x| x.iter().all(|x| *x == 0.0));
    let constants = model.nodes.iter().filter(|n| n.op == Op::Sub).flat_map(|n| n.inputs.iter().flatten());
    if !constants.filter_map(|id| model.value(*id).constant.as_ref()).all(|t| is_zero(t)) {
        return Err("the network subtracts a mean: the scaling is not known".into());
    }
    let mut found = layers(model)?.iter().map(|l| parameters(model, l)).collect::<Fallible<Vec<_>>>()?;
    let count = found.len();
    let (weights, biases) = &mut found[0];
    for (row, bias) in weights.chunks_exact_mut(5).zip(biases) {
        let offset: f64 = (0..5).map(|i| f64::from(row[i]) * (LOW[i] - MEANS[i]) / RANGES[i]).sum();
        *bias = (f64::from(*bias) + offset) as f32;
        row.iter_mut().enumerate().for_each(|(i, w)| *w = (f64::from(*w) * (HIGH[i] - LOW[i]) / RANGES[i]) as f32);
    }
    let (weights, biases) = &mut found[count - 1];
    weights.iter_mut().chain(biases).for_each(|w| *w = -*w);
    built(&found)
}

/// A chain of dense layers with ReLU between them.
fn built(layers: &[(Vec<f32>, Vec<f32>)]) -> Fallible<Model> {
    let mut b = ModelBuilder::new("acas");
    let mut x = b.input("x", DType::F32, &[1, 5])?;
    for (i, (weights, biases)) in layers.iter().enumerate() {
        let shape = [biases.len(), weights.len() / biases.len()];
        let w = b.constant(&format!("w{i}"), Tensor::f32(&shape, weights.clone()))?;
        let bias = b.constant(&format!("b{i}"), Tensor::f32(&shape[..1], biases.clone()))?;
        x = b.node(Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true }, &[x, w, bias])?;
        if i + 1 < layers.len() {
            x = b.node(Op::Relu, &[x])?;
        }
    }
    b.output(x);
    Ok(b.finish()?)
}

/// How networks are quantized and thresholds proved.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Cells of the sum of inputs.
    pub cells: usize,
    /// Boxes of inputs that are looked at for the thresholds of a cell.
    pub boxes: usize,
    /// A scale for each neuron's weights.
    pub per_channel: bool,
}

/// A classifier: the float network, the quantized ones, and guards that begin with each of them.
pub struct Classifier {
    pub float: FloatNet,
    pub quantized: Vec<Compiled>,
    pub guards: Vec<Guard>,
}

/// The float network of a model.
pub fn float(model: &Model) -> Fallible<FloatNet> {
    Ok(FloatNet::new(&lower(model, &Float32)?)?)
}

impl Classifier {
    /// Of a model, with cells that hold about as many of some inputs each.
    pub fn new(model: &Model, inputs: &[[f32; 5]], effort: Effort) -> Fallible<Classifier> {
        let domain = Domain { lo: 0.0, hi: 1.0, step: None };
        let gate = domain.gate()?;
        let sums = inputs.iter().filter_map(|x| gate.sum(x)).collect();
        let cells = Cells::new(5, (0.0, 1.0), false, sums, effort.cells);
        let float = Arc::new(lower(model, &Float32)?);
        let quantized: Vec<_> = BITS.map(|b| quantized(model, b, effort)).into_iter().collect::<Fallible<_>>()?;
        let stages: Vec<_> = quantized
            .par_iter()
            .zip(BITS)
            .map(|(q, b)| stage(&float, q, b, (&cells, effort)))
            .collect::<Fallible<_>>()?;
        let guard = |first: usize| {
            let plan = Plan {
                format: FORMAT.into(),
                kind: Kind::Refinement,
                domain: domain.clone(),
                cells: cells.clone(),
                classes: 5,
                stages: stages[first..].to_vec(),
            };
            let nets: Vec<&Lowered> = quantized[first..].iter().map(|q| &**q).collect();
            Ok(Guard::new(&plan, &float, &nets, Isa::best())?)
        };
        let guards = (0..2).map(guard).collect::<Fallible<_>>()?;
        let compiled = quantized.iter().map(|q| Ok(Compiled::new(q, Isa::best())?)).collect::<Fallible<_>>()?;
        Ok(Classifier { float: FloatNet::new(&float)?, quantized: compiled, guards })
    }
}

/// The network at some bits, under a profile for which it has kernels: int32 biases under `ort-fused` up to 8 bits, else float ones under `real`.
fn quantized(model: &Model, bits: u8, effort: Effort) -> Fallible<Arc<Lowered>> {
    let quantizer = Quantizer::new(model)?;
    let region = Region { lo: vec![0.0; 5], hi: vec![1.0; 5] };
    let ranges = proved(quantizer.model(), true, &region)?;
    let activations = ActivationScheme { bits, symmetric: true, outputs: true, input_step: None };
    let at = |biases, profile: &dyn Profile| -> Fallible<Lowered> {
        let scheme = LayerScheme { bits, rule: WeightRule::Fitted, per_channel: effort.per_channel, biases };
        let weights = quantizer.at(&vec![scheme; quantizer.layers().len()])?;
        Ok(lower(&to_qdq(&quantizer, &weights, Some((&activations, &ranges)))?, profile)?)
    };
    if bits <= 8
        && let Ok(fused) = at(BiasRule::Accumulator, &OrtFused { any_x86: false })
        && Compiled::new(&fused, Isa::Portable).is_ok()
    {
        return Ok(Arc::new(fused));
    }
    Ok(Arc::new(at(BiasRule::Float, &Real)?))
}

/// Proves the thresholds of a quantized network.
fn stage(f: &Arc<Lowered>, q: &Arc<Lowered>, bits: u8, (cells, effort): (&Cells, Effort)) -> Fallible<StagePlan> {
    let compared = Compared::new(f.clone(), q.clone(), (0.0, 1.0), None)?;
    let options = Options { timeout: Duration::from_secs(600), ..Options::default() };
    let of = |cell| Ok(compared.bounds(cells.total(cell), effort.boxes, None, &options)?);
    let bounds: Vec<Bounds> = (0..cells.len()).into_par_iter().map(of).collect::<Fallible<_>>()?;
    let source = |l: &Lowered| Source { file: String::new(), sha256: String::new(), profile: l.profile.clone() };
    Ok(StagePlan { network: source(q), float: source(f), bits, bounds })
}
