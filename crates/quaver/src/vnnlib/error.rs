//! What is wrong with a query, where, and what to do.

use std::path::PathBuf;

/// A problem at a place of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {problem}\n  what to do: {cure}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Character of the line, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub cure: String,
}

/// Why there is no query.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened or read.
    #[error("{}: cannot read the file: {source}\n  what to do: check the path", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file, or what it unpacks to, is larger than allowed.
    #[error("{}: larger than the limit of {limit} bytes\n  what to do: split the query", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// The text is not a query.
    #[error("{}:{error}", file.display())]
    Parse {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        error: ParseError,
    },
}

/// A problem at a byte of the text; its line is counted when somebody asks.
#[derive(Debug)]
pub(super) struct Fault {
    pub at: usize,
    pub problem: String,
    pub cure: String,
}

impl Fault {
    pub fn new(at: usize, problem: impl Into<String>, cure: impl Into<String>) -> Fault {
        Fault { at, problem: problem.into(), cure: cure.into() }
    }

    /// With its line and column.
    pub fn locate(self, text: &str) -> ParseError {
        let before = &text.as_bytes()[..self.at.min(text.len())];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        ParseError { line, column, problem: self.problem, cure: self.cure }
    }
}

/// A word of the file for a message: long ones are cut.
pub(super) fn shown(word: &str) -> String {
    if word.chars().count() <= 60 { word.into() } else { word.chars().take(57).chain("...".chars()).collect() }
}
