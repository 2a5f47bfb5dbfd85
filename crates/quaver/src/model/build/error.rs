//! What can be wrong with an operation, said so that the user can act on it.

use std::fmt;

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
