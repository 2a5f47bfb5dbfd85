//! Clippings that an integer kernel does itself.

use crate::model::ir::{Model, Node, Op};
use crate::model::profile::{Profile, Quantizer};

/// A `QLinearClip` that alone reads the result of a kernel becomes the range of that result.
///
/// # Why
/// Kernels clip to the type's range last, and clipping to a part of it afterwards is clipping to that part. Only where the profile
/// rounds the ends in one way.
pub(super) fn absorb(mut model: Model, profile: &dyn Profile) -> Model {
    let mut index = 0;
    while index < model.nodes.len() {
        match absorbed(&model, index, profile) {
            Some((producer, range)) => {
                let clip = model.nodes.remove(index);
                model.values[clip.output.0].range = Some(range);
                model.nodes[producer].output = clip.output;
            }
            None => index += 1,
        }
    }
    model
}

/// The node whose result a clip alone reads, and the range that it leaves.
fn absorbed(model: &Model, index: usize, profile: &dyn Profile) -> Option<(usize, (i64, i64))> {
    let node = &model.nodes[index];
    let Op::QLinearClip { min, max } = node.op else { return None };
    let input = node.inputs.first().copied().flatten()?;
    let readers = model.nodes.iter().flat_map(|n| n.inputs.iter().flatten()).filter(|v| **v == input).count();
    if readers != 1 || model.outputs.contains(&input) {
        return None;
    }
    let producer = model.nodes.iter().position(|n| n.output == input)?;
    let own = parameters(model, node, (1, 2))?;
    if result_parameters(model, &model.nodes[producer])? != own {
        return None;
    }
    let whole = model.value(input).range.or(model.value(input).dtype.integer_range())?;
    let q = Quantizer { scale: own.0, zero_point: own.1, range: whole };
    let end = |e: Option<f32>, open: i64| match e.map_or((open, open), |e| profile.clip_end(e, &q)) {
        (a, b) if a == b => Some(a.clamp(whole.0, whole.1)),
        _ => None,
    };
    let (lo, hi) = (end(min, whole.0)?, end(max, whole.1)?);
    (lo <= hi).then_some((producer, (lo, hi)))
}

/// Scale and zero point at two input positions.
fn parameters(model: &Model, node: &Node, (scale, zero_point): (usize, usize)) -> Option<(f32, i64)> {
    let scale = *model.constant(node, scale)?.as_f32()?.first()?;
    Some((scale, *model.constant(node, zero_point)?.to_i64()?.first()?))
}

/// Scale and zero point of the result of a kernel that clips it to its range.
fn result_parameters(model: &Model, node: &Node) -> Option<(f32, i64)> {
    let at = match node.op {
        Op::QLinearConv { .. } | Op::QLinearMatMul | Op::QLinearAdd | Op::QLinearSub | Op::QLinearMul => (6, 7),
        Op::QGemm { .. } => (7, 8),
        Op::QLinearAveragePool { .. }
        | Op::QLinearGlobalAveragePool { .. }
        | Op::QLinearMean { .. }
        | Op::QLinearRequantize => (3, 4),
        Op::QuantizeLinear { .. } => (1, 2),
        _ => return None,
    };
    parameters(model, node, at)
}
