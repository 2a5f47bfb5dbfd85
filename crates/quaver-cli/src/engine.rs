//! Options that choose how claims are decided.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::ValueEnum;
use quaver::lp::{Highs, HighsError, Micro, Solver};
use quaver::verify::{self, Milp};

use crate::session::fail;

/// What to do about a missing library.
pub const CURE: &str =
    "install it for your python3 (pip install 'highspy==1.15.*'), or name the library with --highs PATH/libhighs.so.1";

/// How claims are decided.
#[derive(clap::Args)]
pub struct Args {
    /// By our own bounds and search, or by mixed-integer programs as in papers (needs HiGHS for proofs)
    #[arg(long, value_enum, default_value_t = Engine::Search)]
    engine: Engine,
    /// The HiGHS library [default: the one in python3's package highspy]
    #[arg(long, value_name = "PATH")]
    highs: Option<PathBuf>,
    /// Which of a paper's variants the mixed-integer programs follow
    #[arg(long, value_enum, default_value_t = Variant::Full)]
    milp_variant: Variant,
    /// Where the programs' big constants come from [default: as the variant says]
    #[arg(long, value_enum)]
    milp_bounds: Option<BigM>,
    /// What the programs are solved for
    #[arg(long, value_enum, default_value_t = Answers::Proof)]
    milp_answers: Answers,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Engine {
    Search,
    Milp,
}

#[derive(Clone, Copy, ValueEnum)]
enum Variant {
    /// Programs alone, big constants from the types
    Ilp,
    /// Intervals and linear bounds before the programs
    IlpIn,
    /// An attack, then bounds, then programs
    Full,
}

#[derive(Clone, Copy, ValueEnum)]
enum BigM {
    /// What a value can be for any input
    None,
    /// Intervals on the region
    Intervals,
    /// Linear bounds on the region
    Linear,
}

#[derive(Clone, Copy, ValueEnum)]
enum Answers {
    /// Witnesses, and the solver's reports in floating point, which prove nothing
    Solver,
    /// Witnesses and proofs, by our own branch and bound on the solver's linear programs
    Proof,
    /// The first for half of the time, then the second
    Both,
}

/// The engine that was chosen.
pub struct Chosen {
    pub engine: verify::Engine,
    /// The solver's name, if there is one.
    pub solver: Option<String>,
    /// What the user should know about it.
    pub note: Option<String>,
}

impl Args {
    /// Loads what is needed.
    pub fn choose(&self) -> Result<Chosen> {
        if self.engine == Engine::Search {
            if self.highs.is_some() {
                return Err(fail("--highs is for mixed-integer programs", "add --engine milp, or leave it out"));
            }
            return Ok(Chosen { engine: verify::Engine::Search, solver: None, note: None });
        }
        let (solver, note) = self.solver()?;
        let name = solver.name();
        Ok(Chosen { engine: verify::Engine::Milp(self.milp(solver)), solver: Some(name), note })
    }

    /// HiGHS, or microlp where nobody asked for a library and there is none.
    fn solver(&self) -> Result<(Arc<dyn Solver>, Option<String>)> {
        match Highs::load(self.highs.as_deref()) {
            Ok(highs) => Ok((Arc::new(highs), None)),
            Err(HighsError::NotFound(why)) => {
                let note = format!("{why}; microlp is used instead, which finds violations and proves nothing. {CURE}");
                Ok((Arc::new(Micro), Some(note)))
            }
            Err(why @ (HighsError::Load { .. } | HighsError::Version { .. })) => Err(fail(why.to_string(), CURE)),
        }
    }

    fn milp(&self, solver: Arc<dyn Solver>) -> Milp {
        let (bounds, attack) = match self.milp_variant {
            Variant::Ilp => (BigM::None, false),
            Variant::IlpIn => (BigM::Linear, false),
            Variant::Full => (BigM::Linear, true),
        };
        let bounds = match self.milp_bounds.unwrap_or(bounds) {
            BigM::None => verify::BigM::Types,
            BigM::Intervals => verify::BigM::Intervals,
            BigM::Linear => verify::BigM::Linear,
        };
        let answers = match self.milp_answers {
            Answers::Solver => verify::Answers::Solver,
            Answers::Proof => verify::Answers::Proof,
            Answers::Both => verify::Answers::Both,
        };
        Milp { solver, bounds, attack, answers }
    }
}
