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
    let own = model.scale_and_zero_point(node, 1)?;
    if result_parameters(model, &model.nodes[producer])? != own {
        return None;
    }
    let whole = model.value(input).range.or(model.value(input).dtype.integer_range())?;
    let q = Quantizer { scale: own.0, zero_point: own.1, range: whole };
    let (lo, hi) = ends(profile, &q, min, max)?;
    (lo <= hi).then_some((producer, (lo, hi)))
}

/// The integers that the ends of a clipping become within a value's range; `None` where a runtime of the profile may choose either of two.
pub(super) fn ends(profile: &dyn Profile, q: &Quantizer, min: Option<f32>, max: Option<f32>) -> Option<(i64, i64)> {
    let (lo, hi) = q.range;
    let end = |e: Option<f32>, open: i64| {
        let (least, most) = e.map_or((open, open), |e| profile.clip_end(e, q));
        let (least, most) = (least.clamp(lo, hi), most.clamp(lo, hi));
        (least == most).then_some(least)
    };
    Some((end(min, lo)?, end(max, hi)?))
}

/// Scale and zero point of the result of a kernel that clips it to its range.
fn result_parameters(model: &Model, node: &Node) -> Option<(f32, i64)> {
    let scale = match node.op {
        Op::QLinearConv { .. } | Op::QLinearMatMul | Op::QLinearAdd | Op::QLinearSub | Op::QLinearMul => 6,
        Op::QGemm { .. } => 7,
        Op::QLinearAveragePool { .. }
        | Op::QLinearGlobalAveragePool { .. }
        | Op::QLinearMean { .. }
        | Op::QLinearRequantize => 3,
        Op::QuantizeLinear { .. } => 1,
        _ => return None,
    };
    model.scale_and_zero_point(node, scale)
}
