//! What can go wrong on export.

/// Why a model cannot be written as ONNX.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node `{node}` cannot be written as ONNX: {what}")]
pub struct WriteError {
    /// Name of the node.
    pub node: String,
    /// What is wrong.
    pub what: String,
}
