//! Reading TensorFlow Lite files.

use std::collections::BTreeMap;
use std::path::Path;

use crate::model::ir::{DType, Model};
use crate::model::{ReadOptions, read};

mod collection;
mod refuse;

/// How many nodes of each operation there are.
fn counts(model: &Model) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    model.nodes.iter().for_each(|n| *counts.entry(n.op.name()).or_default() += 1);
    counts
}
