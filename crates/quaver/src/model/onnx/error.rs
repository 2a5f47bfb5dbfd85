//! What can go wrong on import and export, said so that the user can act on it.

use std::fmt;
use std::path::PathBuf;

/// Which part of a node (or tensor) a [`Problem`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The operation as a whole.
    Whole,
    /// The attribute of this name.
    Attribute(String),
    /// The input at this position.
    Input(usize),
    /// The output at this position.
    Output(usize),
}

/// What is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// Which part it is about.
    pub subject: Subject,
    /// What was found.
    pub what: String,
    /// What to do; may be empty.
    pub cure: String,
}

impl Problem {
    /// A problem with the operation as a whole.
    pub fn whole(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Problem { subject: Subject::Whole, what: what.into(), cure: cure.into() }
    }

    /// A problem with an attribute.
    pub fn attribute(name: &str, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Problem { subject: Subject::Attribute(name.to_string()), what: what.into(), cure: cure.into() }
    }

    /// A problem with an input.
    pub fn input(position: usize, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Problem { subject: Subject::Input(position), what: what.into(), cure: cure.into() }
    }

    /// A problem with an output.
    pub fn output(position: usize, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Problem { subject: Subject::Output(position), what: what.into(), cure: cure.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Whole => {}
            Subject::Attribute(name) => write!(f, "attribute `{name}`: ")?,
            Subject::Input(position) => write!(f, "input {position}: ")?,
            Subject::Output(position) => write!(f, "output {position}: ")?,
        }
        f.write_str(&self.what)?;
        if self.cure.is_empty() { Ok(()) } else { write!(f, "; {}", self.cure) }
    }
}

/// A [`Problem`] and the node it is in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: node `{node}` (#{index}, {op}): {problem}", file.display())]
pub struct NodeError {
    /// The file.
    pub file: PathBuf,
    /// The node's name, or `op_type#index` where the file gives none.
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
    /// The bytes are not an ONNX model.
    #[error("{}: not an ONNX model: {message}; export the model again", file.display())]
    Decode {
        /// The file.
        file: PathBuf,
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

/// Why a model cannot be written as ONNX.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node `{node}` cannot be written as ONNX: {what}")]
pub struct WriteError {
    /// Name of the node.
    pub node: String,
    /// What is wrong.
    pub what: String,
}
