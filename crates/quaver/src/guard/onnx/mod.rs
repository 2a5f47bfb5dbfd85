//! A guard as one ONNX file that a stock runtime runs.
//!
//! # Outputs
//! For rows `[N, shape]` of float32 numbers:
//! - `class`, int64 `[N]`: the class.
//! - `stage`, int64 `[N]`: which network gave it, in the order of the plan; the number of quantized networks for the float network.
//! - `accepted`, bool `[N]`: whether a quantized network was sure.
//! - `margin`, float64 `[N]`: by how much a quantized network's lead is above the one that is enough, in real numbers: the smallest, over rivals, of the
//!   larger excess over the two thresholds of the pair; not negative where the network was sure. For the float network the lead itself. Negative infinity
//!   where an ensemble is asked about an input that thresholds do not hold for.
//! - `scores`, float32 `[N, classes]`: outputs of the network that gave the class; for integers the numbers that they stand for.
//!
//! # Claim
//! Stage and `accepted` (an answer that is sure, and not the float network's) are those of [`Guard::run`](super::run::Guard::run), and so is the class
//! where the float network is not asked, bit for bit under every optimization that keeps operators' results. Where it is asked, its own operators run on
//! the rows that are left; their sums may be in another order than those of [`FloatNet`](super::kernels::float::FloatNet).
//!
//! # Why
//! `gate.rs`, `network.rs` and `accept.rs` say it of each part. Later networks are in branches of `If`, of which a runtime runs one: the rows that are
//! left are gathered, and what is said of them is scattered back.

mod accept;
mod builder;
mod float;
mod gate;
mod network;
mod refine;

use prost::Message;

use super::kernels::KernelError;
use super::kernels::chain::Chain;
use super::plan::Plan;
use super::run::tables;
use super::thresholds::scale_of;
use crate::model::lower::Lowered;
use crate::model::onnx::proto::ModelProto;
use accept::Meaning;
use float::Float;
use refine::Guarded;

/// Why a guard is not written as ONNX.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A network has no integer kernels.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Something has no form in ONNX, or parts do not fit.
    #[error("{}\n  what to do: {}", .0.problem, .0.cure)]
    Refused(Refusal),
}

/// A problem and what helps.
#[derive(Debug)]
pub struct Refusal {
    problem: String,
    cure: String,
}

impl Refusal {
    fn new(problem: impl Into<String>, cure: impl Into<String>) -> Refusal {
        Refusal { problem: problem.into(), cure: cure.into() }
    }
}

impl From<Refusal> for ExportError {
    fn from(refusal: Refusal) -> Self {
        ExportError::Refused(refusal)
    }
}

/// The bytes of an ONNX file for a plan: with the float network's ONNX file, and the network of each stage.
///
/// # Errors
/// If a network has no integer kernels, the float network does not work on each row alone, or parts do not fit the plan.
pub fn export(plan: &Plan, float: &[u8], stages: &[&Lowered]) -> Result<Vec<u8>, ExportError> {
    let float = Float::new(float)?;
    let unfit = |problem: String| Refusal::new(problem, "build the guard again");
    if stages.len() != plan.stages.len() || stages.is_empty() {
        return Err(unfit(format!("{} networks for {} stages", stages.len(), plan.stages.len())).into());
    }
    let gate = plan.domain.gate().map_err(unfit)?;
    let chains = stages.iter().map(|s| Chain::new(&s.net)).collect::<Result<Vec<_>, _>>()?;
    let n = float.shape.iter().product::<i64>() as usize;
    let mut meanings = vec![];
    for ((stage, lowered), chain) in plan.stages.iter().zip(stages).zip(&chains) {
        let inputs = lowered.net.node(lowered.net.inputs()[0]).len();
        let fits = chain.scores.classes() == plan.classes && inputs == n && stage.bounds.len() == plan.cells.len();
        if !fits {
            return Err(unfit(format!("{} does not fit the other networks", stage.network.file)).into());
        }
        let output = lowered.net.node(lowered.net.outputs()[0]).quantization.as_ref();
        let scale = scale_of(output).map_err(|e| unfit(e.to_string()))?;
        let zero = output.map_or(0.0, |q| q.zero_point.data[0] as f64);
        meanings.push(Meaning {
            scores: &chain.scores,
            tables: tables(&chain.scores, &stage.bounds, scale),
            scale,
            zero,
        });
    }
    let guarded = Guarded { plan, gate, float: &float, chains: &chains, meanings: &meanings };
    let graph = guarded.graph()?;
    let model = ModelProto {
        ir_version: Some(float.ir_version),
        opset_import: float.opsets.clone(),
        producer_name: Some("quaver".into()),
        producer_version: Some(env!("CARGO_PKG_VERSION").into()),
        graph: Some(graph),
        ..ModelProto::default()
    };
    Ok(model.encode_to_vec())
}
