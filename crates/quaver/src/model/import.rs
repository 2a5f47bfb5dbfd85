//! What every reader of model files shares: limits, and errors that say what is wrong, where, and what to do.

use std::path::PathBuf;

use super::build::Problem;

/// Limits on what is read.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// Largest number of elements of an activation or of a folded constant.
    pub max_elements: usize,
    /// Largest size of the file, of what a `.gz` file unpacks to, and of all external data together.
    pub max_file_bytes: u64,
}

impl Default for ReadOptions {
    fn default() -> Self {
        ReadOptions { max_elements: 1 << 24, max_file_bytes: 1 << 31 }
    }
}

/// A [`Problem`] and the node it is in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: node `{node}` (#{index}, {op}): {problem}", file.display())]
pub struct NodeError {
    /// The file.
    pub file: PathBuf,
    /// The node's name, or `op_type#index` where the file gives none; in a TensorFlow Lite file, the tensor that the operator makes.
    pub node: String,
    /// The node's position in the file, from 0.
    pub index: usize,
    /// The operator with its domain (`com.microsoft.QGemm`); without prefix for the default domain.
    pub op: String,
    /// What is wrong.
    pub problem: Problem,
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be opened or read.
    #[error("{}: cannot read the file: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file, or what it unpacks to, is larger than allowed.
    #[error("{}: larger than the limit of {limit} bytes; raise `max_file_bytes` if the file is meant to be this large", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// The bytes are not a model of the format that they seem to be of.
    #[error("{}: not {format}: {message}; export the model again", file.display())]
    Decode {
        /// The file.
        file: PathBuf,
        /// `"an ONNX model"`, `"a TensorFlow Lite model"`.
        format: &'static str,
        /// What the decoder met.
        message: String,
    },
    /// The model as a whole is refused.
    #[error("{}: {problem}", file.display())]
    Model {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: Problem,
    },
    /// A named value (input, output, initializer, declared shape) is refused.
    #[error("{}: value `{value}`: {problem}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// Name of the value.
        value: String,
        /// What is wrong.
        problem: Problem,
    },
    /// A node is refused.
    #[error(transparent)]
    Node(Box<NodeError>),
}
