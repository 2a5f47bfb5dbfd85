//! What two networks must have in common, as users say it.

use std::sync::Arc;

use anyhow::Result;
use clap::ValueEnum;
use quaver::num::Ratio;
use quaver::property::equivalence::{self, Pair, Relation};

use crate::load;
use crate::session::{Files, fail};

/// The relation.
#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// The networks give every input the same class: their first largest output
    #[arg(long, conflicts_with_all = ["top_k", "epsilon", "strict"])]
    pub top1: bool,
    /// Only where A's best output leads over each other one by more than this
    #[arg(long, value_name = "M", requires = "top1", value_parser = epsilon, allow_hyphen_values = true)]
    pub margin: Option<Ratio>,
    /// The class that A gives is among the first K of B, ordered by output, the first of equals before the others
    #[arg(long, value_name = "K", conflicts_with_all = ["epsilon", "strict"])]
    pub top_k: Option<usize>,
    /// The outputs differ by at most E, measured by --norm
    #[arg(long, value_name = "E", conflicts_with = "strict", value_parser = epsilon, allow_hyphen_values = true)]
    pub epsilon: Option<Ratio>,
    /// How a difference is measured: sum of magnitudes, root of the sum of squares, or largest magnitude [default: linf]
    #[arg(long, value_enum, requires = "epsilon", conflicts_with_all = ["top1", "top_k", "strict"])]
    pub norm: Option<Norm>,
    /// All outputs are the same numbers
    #[arg(long)]
    pub strict: bool,
}

/// How a difference is measured.
#[derive(Clone, Copy, ValueEnum)]
#[allow(missing_docs)] // the usual names
pub enum Norm {
    L1,
    L2,
    Linf,
}

fn epsilon(text: &str) -> Result<Ratio, String> {
    let value: Ratio = text.parse().map_err(|e: quaver::num::ParseRatioError| e.to_string())?;
    if value.is_negative() { Err(format!("`{text}` is negative: write a bound from 0 up")) } else { Ok(value) }
}

impl Args {
    /// The relation that was asked for.
    pub fn relation(&self) -> Result<Relation> {
        let norm = match self.norm {
            Some(Norm::L1) => equivalence::Norm::L1,
            Some(Norm::L2) => equivalence::Norm::L2,
            Some(Norm::Linf) | None => equivalence::Norm::LInf,
        };
        match (self.top1, self.top_k, &self.epsilon, self.strict) {
            (true, ..) => Ok(self.margin.clone().map_or(Relation::Top1, Relation::Top1Beyond)),
            (_, Some(k), ..) => Ok(Relation::TopK(k)),
            (_, _, Some(epsilon), _) => Ok(Relation::Epsilon { norm, epsilon: epsilon.clone() }),
            (_, _, _, true) => Ok(Relation::Strict),
            (false, None, None, false) => {
                let cure = "give --top1, --top-k K, --epsilon E (with --norm l1, l2 or linf), or --strict";
                Err(fail("what the networks must have in common is not said", cure))
            }
        }
    }
}

/// A relation in words.
pub fn words(relation: &Relation) -> String {
    match relation {
        Relation::Strict => "A and B give the same outputs".into(),
        Relation::Epsilon { norm, epsilon } => {
            format!("the {norm} distance of the outputs is at most {}", epsilon.approx())
        }
        Relation::Top1 => "A and B give the same class, the first largest output".into(),
        Relation::Top1Beyond(margin) => {
            format!("A and B give the same class wherever A's leads by more than {}", margin.approx())
        }
        Relation::TopK(k) => format!("the class that A gives is among the first {k} of B"),
    }
}

/// The two networks.
#[derive(clap::Args)]
#[group(skip)]
pub struct Networks {
    /// The first model, A (.onnx, .tflite, or gzipped), with one input and one output
    pub a: std::path::PathBuf,
    /// The second model, B
    pub b: std::path::PathBuf,
    #[arg(long, value_name = "P", value_parser = load::profile_name, help = load::PROFILE_HELP)]
    pub profile: Option<String>,
    /// Arithmetic of A alone
    #[arg(long, value_name = "P", value_parser = load::profile_name)]
    pub profile_a: Option<String>,
    /// Arithmetic of B alone
    #[arg(long, value_name = "P", value_parser = load::profile_name)]
    pub profile_b: Option<String>,
}

impl Networks {
    /// Reads both.
    pub fn pair(&self, files: Files) -> Result<Pair> {
        let read = |path, own: &Option<String>| -> Result<_> {
            let profile = own.as_ref().or(self.profile.as_ref());
            Ok(Arc::new(load::lowered(files, path, profile.map(String::as_str))?.lowered))
        };
        let pair = Pair::new(read(&self.a, &self.profile_a)?, read(&self.b, &self.profile_b)?);
        pair.map_err(|e| self.fail(&e))
    }

    /// A failure that is about both.
    pub fn fail(&self, error: &dyn std::fmt::Display) -> anyhow::Error {
        anyhow::anyhow!("{} and {}: {error}", self.a.display(), self.b.display())
    }
}
