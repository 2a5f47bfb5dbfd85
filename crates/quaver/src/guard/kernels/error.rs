//! Why a net has no integer kernels.

/// What is wrong, where, and what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{place}: {problem}\n  what to do: {cure}")]
pub struct KernelError {
    place: String,
    problem: String,
    cure: String,
}

impl KernelError {
    /// A refusal of a value of the net.
    pub(super) fn new(place: &str, problem: impl Into<String>, cure: impl Into<String>) -> Self {
        let place = if place.is_empty() { "the network".into() } else { format!("value `{place}`") };
        KernelError { place, problem: problem.into(), cure: cure.into() }
    }

    /// What was found.
    pub fn problem(&self) -> &str {
        &self.problem
    }
}
