//! Inputs and outputs that satisfy a query, as text and as files.

use std::fs;
use std::path::Path;

use anyhow::Result;
use quaver::model::ir::DType;
use quaver::model::onnx;
use quaver::property::vnnlib::{Assigned, Value};
use quaver::vnnlib::{Decimal, ElementType, Spec, Tensor, Version};
use serde_json::{Map, json};

use crate::session::{Session, fail};

/// The types that models have.
const DTYPES: [DType; 7] = [DType::F32, DType::I8, DType::U8, DType::I16, DType::U16, DType::I32, DType::I64];

/// A value with all its digits: what is read back is the same number.
fn text(value: &Value, element: ElementType) -> String {
    match value {
        Value::Decimal(exact) => exact.to_string(),
        // Adding zero turns -0 into 0.
        Value::Float(x) => {
            let stored = if element == ElementType::Float32 { f64::from(*x as f32) } else { *x };
            let text = format!("{}", stored + 0.0);
            if element.is_float() && !text.contains('.') { text + ".0" } else { text }
        }
    }
}

fn declared<'s>(spec: &'s Spec, assigned: &Assigned) -> &'s Tensor {
    spec.networks[assigned.network].tensor(assigned.side, assigned.tensor)
}

/// The standard's format, or for version 1.0 the list of pairs that its tools read.
pub fn print(spec: &Spec, assigned: &[Assigned], session: &mut Session<'_>) -> Result<()> {
    match spec.version {
        Version::V1 => print_pairs(spec, assigned, session),
        Version::V2 => assigned.iter().try_for_each(|a| {
            let tensor = declared(spec, a);
            let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
            session.say(format!("{} {} [{}]", tensor.name, tensor.element.name(), shape.join(",")))?;
            a.values.iter().try_for_each(|v| session.say(text(v, tensor.element)))
        }),
    }
}

fn print_pairs(spec: &Spec, assigned: &[Assigned], session: &mut Session<'_>) -> Result<()> {
    let pair = |a: &Assigned| {
        let tensor = declared(spec, a);
        let one = |(i, v): (usize, &Value)| format!("({}_{i} {})", tensor.name, text(v, tensor.element));
        a.values.iter().enumerate().map(one).collect::<Vec<_>>()
    };
    let pairs: Vec<String> = assigned.iter().flat_map(pair).collect();
    if pairs.is_empty() { Ok(()) } else { session.say(format!("({})", pairs.join("\n"))) }
}

/// `{"X": [0.5], "Y": [1.0]}`; null where nothing is assigned.
pub fn json(spec: &Spec, assigned: &[Assigned]) -> serde_json::Value {
    let number = |v: &Value| match v {
        Value::Float(x) => json!(x + 0.0),
        Value::Decimal(exact) => json!(exact.to_string()),
    };
    let tensor = |a: &Assigned| {
        let values: Vec<_> = a.values.iter().map(number).collect();
        (declared(spec, a).name.clone(), json!(values))
    };
    if assigned.is_empty() { json!(null) } else { json!(assigned.iter().map(tensor).collect::<Map<_, _>>()) }
}

/// One file for each tensor.
pub fn serialise(spec: &Spec, assigned: &[Assigned], folder: &Path) -> Result<()> {
    let unwritable = |e: std::io::Error| {
        fail(format!("{}: cannot write the assignment: {e}", folder.display()), "check that the folder can be written")
    };
    fs::create_dir_all(folder).map_err(unwritable)?;
    for a in assigned {
        let tensor = declared(spec, a);
        let values: Vec<f64> = a.values.iter().map(nearest).collect();
        // Real numbers are written as doubles, which read back exactly.
        let dtype = DTYPES.into_iter().find(|d| d.name() == tensor.element.name());
        let bytes = onnx::tensor_bytes(&tensor.name, &tensor.shape, dtype, &values).ok_or_else(|| {
            let problem = format!("`{}` cannot be written as {}", tensor.name, tensor.element.name());
            fail(problem, "leave out --serialise-assignments")
        })?;
        fs::write(folder.join(format!("{}.pb", tensor.name)), bytes).map_err(unwritable)?;
    }
    Ok(())
}

fn nearest(value: &Value) -> f64 {
    match value {
        Value::Float(x) => x + 0.0,
        Value::Decimal(exact) => Decimal::ratio(exact).f64_down(),
    }
}
