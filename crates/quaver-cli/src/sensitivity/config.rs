//! The recommended types, as arguments of ONNX Runtime's `quantize_static`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use quaver::model::ir::Model;
use quaver::quantize::{Layer, Levels, QuantizedTensor, Quantizer, WeightRule};
use serde_json::{Map, Value, json};

use super::report::type_name;
use super::{Args, Row};
use crate::session::{Session, fail};

/// Writes the file and says so.
pub fn write(
    path: &Path,
    args: &Args,
    model: &Model,
    layers: &[Layer],
    found: &[Row],
    session: &mut Session<'_>,
) -> Result<()> {
    let text = serde_json::to_string_pretty(&config(args, model, layers, found)?)?;
    std::fs::write(path, text + "\n").map_err(|e| {
        fail(format!("{}: cannot write the file: {e}", path.display()), "check that the folder exists and has room")
    })?;
    let wrote = path.display().to_string();
    if session.json { session.line(&json!({ "written": wrote })) } else { session.say(format!("wrote {wrote}")) }
}

fn config(args: &Args, model: &Model, layers: &[Layer], found: &[Row]) -> Result<Value> {
    let quantizer = Quantizer::new(model)?;
    let mut widest: BTreeMap<&str, (usize, u8)> = BTreeMap::new();
    for (k, (layer, row)) in layers.iter().zip(found).enumerate() {
        // Layers that share weights share their type.
        let Some(bits) = row.advice.bits else { continue };
        let entry = widest.entry(&model.value(layer.weights.value).name).or_insert((k, bits));
        *entry = if bits > entry.1 { (k, bits) } else { *entry };
    }
    // The runtime looks at the first tensor's type only when it chooses between operators of ONNX and its own, which know 4 bits at any opset.
    let narrow = widest.values().any(|(_, bits)| *bits < 8);
    let mut overrides = Map::new();
    for (name, (k, bits)) in widest {
        let scheme = quaver::quantize::LayerScheme { bits, ..args.layer_scheme() };
        let weights = quantizer.layer(k, &scheme)?.weights;
        overrides.insert(name.into(), of_tensor(args.rule(), &weights));
    }
    let is_float = |row: &&Row| row.advice.bits.is_none();
    let mut kinds: Vec<&str> = layers.iter().map(|l| model.nodes[l.weights.node].op.name()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    Ok(json!({
        "TensorQuantOverrides": overrides,
        "nodes_to_exclude": found.iter().filter(is_float).map(|r| &r.name).collect::<Vec<_>>(),
        "op_types_to_quantize": kinds,
        "UseQDQContribOps": narrow,
        "per_channel": args.per_channel,
        "weight_type": "QInt8",
        "activation_type": "QUInt8",
    }))
}

/// What the runtime is told of a tensor: its type and symmetry where it finds the same scale itself, else the scale and zero point.
fn of_tensor(rule: WeightRule, weights: &QuantizedTensor) -> Value {
    let quant_type = type_name(Some(weights.bits));
    let entry = |levels: &Levels| {
        let mut entry = match rule {
            WeightRule::Symmetric | WeightRule::Asymmetric => {
                json!({ "quant_type": quant_type, "symmetric": rule == WeightRule::Symmetric })
            }
            WeightRule::Ceg4n | WeightRule::MinMax | WeightRule::Fitted | WeightRule::PowerOfTwo => {
                json!({ "quant_type": quant_type, "scale": levels.scale, "zero_point": levels.zero_point })
            }
        };
        if let (Some(axis), Value::Object(entry)) = (weights.axis, &mut entry) {
            entry.insert("axis".into(), json!(axis));
        }
        entry
    };
    // Of several channels the first speaks for all.
    json!(weights.levels.iter().take(1).map(entry).collect::<Vec<_>>())
}
