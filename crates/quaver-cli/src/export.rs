//! `quaver export`: a question about one network or two, as a file for other tools.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Subcommand;
use quaver::export::{Claim, InputForm, Network, Question, write_c, write_smtlib};
use quaver::model::lower::Lowered;
use quaver::num::Ratio;
use quaver::property::{self, Region};
use serde_json::json;

use crate::ball::{Radius, clip};
use crate::inputs::Inputs;
use crate::session::{Session, fail};
use crate::{format, load};

/// Write the question whether networks are equivalent near an input as a C program or an SMT-LIB formula.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// Write a C99 program with one assertion
    ///
    /// One file without libraries: compiled as it is, it reads inputs from stdin, one a line, and prints the outputs, whether the input is in the box and
    /// whether the claim holds. With -DVERIFY it is a question for ESBMC, with -DVERIFY -DCPROVER one for CBMC. Integer networks are computed bit for
    /// bit; sums of real numbers in double, and the file says so.
    C(Target),
    /// Write an SMT-LIB 2 formula over bit vectors (QF_BV): sat is a counterexample
    ///
    /// All arithmetic is exact, so float models need --profile real and a --grid of inputs; an input that is quantized first needs no grid.
    Smtlib(Smtlib),
}

#[derive(clap::Args)]
struct Smtlib {
    #[command(flatten)]
    target: Target,
    /// Ask about multiples of this power of two only, such as 2^-8 or 1/256 (float inputs that are not quantized first)
    #[arg(long, value_name = "2^-F", value_parser = grid)]
    grid: Option<u32>,
}

/// What is asked.
#[derive(clap::Args)]
struct Target {
    /// The model (.onnx, .tflite, or gzipped), with one input and one output
    a: PathBuf,
    /// The model to compare it with; without it, and without --profiles, A is compared with its own output at the input
    b: Option<PathBuf>,
    /// Inputs in the models' own type: FILE.npy, FILE.npz or FILE.npz:ARRAY
    #[arg(
        long,
        value_name = "X.npy",
        requires = "radius",
        required_unless_present = "lower",
        conflicts_with = "lower"
    )]
    inputs: Option<PathBuf>,
    /// The row of the inputs
    #[arg(long, value_name = "I", default_value_t = 0)]
    index: usize,
    /// Radius of the box around the input, such as 4/255, 0.03 or, for an integer input, 1step
    #[arg(long, value_name = "R", requires = "inputs", allow_hyphen_values = true)]
    radius: Option<Radius>,
    /// Smallest and largest value of an input element, such as 0,1
    #[arg(long, value_name = "LO,HI", value_parser = clip, requires = "inputs", allow_hyphen_values = true)]
    clip: Option<(Ratio, Ratio)>,
    /// Lower corner of the box, instead of an input and a radius
    #[arg(long, value_name = "LO.npy", requires = "upper")]
    lower: Option<PathBuf>,
    /// Upper corner of the box
    #[arg(long, value_name = "HI.npy", requires = "lower")]
    upper: Option<PathBuf>,
    #[command(flatten)]
    claim: ClaimArgs,
    #[arg(long, value_name = "P", value_parser = load::profile_name, conflicts_with = "profiles", help = load::PROFILE_HELP)]
    profile: Option<String>,
    /// Profile of A and profile of B, as in real,ort-fused; without B, A under both
    #[arg(long, value_name = "P,Q", value_parser = load::profile_pair)]
    profiles: Option<(String, String)>,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

/// What must hold between the outputs.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct ClaimArgs {
    /// The same class: the first largest elements are at the same place
    #[arg(long)]
    top1: bool,
    /// Every element differs by at most this
    #[arg(long, value_name = "E", allow_hyphen_values = true)]
    epsilon: Option<Ratio>,
    /// Every element is equal
    #[arg(long)]
    strict: bool,
}

impl ClaimArgs {
    fn claim(&self) -> Claim {
        match (&self.epsilon, self.strict) {
            (Some(epsilon), _) => Claim::Epsilon(epsilon.clone()),
            (None, true) => Claim::Strict,
            (None, false) => Claim::Top1,
        }
    }
}

/// The F of 2^-F.
fn grid(text: &str) -> Result<u32, String> {
    let bad = || format!("`{text}` is not a power of two from 1 down to 2^-60: write for example 2^-8 or 1/256");
    if let Some(bits) = text.trim().strip_prefix("2^-") {
        return bits.parse().ok().filter(|f| *f <= 60).ok_or_else(bad);
    }
    let value: Ratio = text.parse().map_err(|_| bad())?;
    let is = |f: &u32| Ratio::from_f64(2f64.powi(-(*f as i32))).is_some_and(|p| p.minus(&value).is_zero());
    (0..=60).find(is).ok_or_else(bad)
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    match &args.kind {
        Kind::C(target) => target.write(session, |question| {
            let file = write_c(question)?;
            let how = if file.exact { "exact: bit for bit" } else { "in doubles: sums of real numbers are rounded" };
            Ok((file.text, how))
        }),
        Kind::Smtlib(args) => {
            let form = args.grid.map_or(InputForm::Type, InputForm::Grid);
            args.target.write(session, |question| Ok((write_smtlib(question, form)?, "exact; sat is a counterexample")))
        }
    }
}

impl Target {
    fn write(
        &self,
        session: &mut Session<'_>,
        text: impl FnOnce(&Question<'_>) -> Result<(String, &'static str)>,
    ) -> Result<()> {
        let (a, b) = self.networks(session)?;
        let names = [&self.a, self.b.as_ref().unwrap_or(&self.a)].map(|p| p.display().to_string());
        let (center, region) = self.region(&a, session)?;
        let network = |k: usize, lowered| Network { name: &names[k], lowered };
        let claim = self.claim.claim();
        let question = match (&b, center) {
            (Some(b), _) => Question::of_pair(network(0, &a), network(1, b), region, claim)?,
            (None, Some(center)) => Question::of_one(network(0, &a), center, region, claim)?,
            (None, None) => {
                let cure = "give a second model, two --profiles, or --inputs and --radius instead of corners";
                return Err(fail("one network on a box: there is nothing to compare its outputs with", cure));
            }
        };
        let (text, how) = text(&question)?;
        std::fs::write(&self.output, &text).map_err(|e| {
            let problem = format!("{}: cannot write the file: {e}", self.output.display());
            fail(problem, "check that the folder exists and has room")
        })?;
        if session.json {
            let profiles: Vec<&str> = [Some(&a), b.as_ref()].into_iter().flatten().map(|l| &*l.profile).collect();
            return session.line(&json!({
                "file": self.output.display().to_string(), "lines": text.lines().count(), "arithmetic": how, "profiles": profiles,
            }));
        }
        let lines = format::count(text.lines().count(), "line");
        session.say(format!("{}: {lines}, {how}", self.output.display()))
    }

    /// A's net and, where there are two, the other's.
    fn networks(&self, session: &Session<'_>) -> Result<(Lowered, Option<Lowered>)> {
        let (p, q) = match (&self.profiles, &self.profile) {
            (Some((p, q)), _) => (Some(p.as_str()), Some(q.as_str())),
            (None, p) => (p.as_deref(), p.as_deref()),
        };
        let read = |path: &Path, profile| Ok::<_, anyhow::Error>(load::lowered(session.files, path, profile)?.lowered);
        let a = read(&self.a, p)?;
        let other = self.b.as_ref().or(self.profiles.as_ref().map(|_| &self.a));
        Ok((a, other.map(|path| read(path, q)).transpose()?))
    }

    /// The input in the middle, if there is one, and the box.
    fn region(&self, a: &Lowered, session: &Session<'_>) -> Result<(Option<Vec<f64>>, Region)> {
        let row = |path: &PathBuf, index: usize| {
            let inputs = Inputs::read(session.files, std::slice::from_ref(path), a)?;
            if index >= inputs.rows {
                let problem = format!("row {index}, and {} has {}", path.display(), format::count(inputs.rows, "row"));
                return Err(fail(problem, format!("rows are counted from 0: use --index up to {}", inputs.rows - 1)));
            }
            Ok(inputs.batch(index, index + 1).swap_remove(0))
        };
        match (&self.inputs, &self.radius, &self.lower, &self.upper) {
            (Some(inputs), Some(radius), ..) => {
                let center = row(inputs, self.index)?;
                let region = property::ball(a, &center, &radius.value(a)?, self.clip.as_ref())
                    .map_err(|e| fail(format!("row {}: {e}", self.index), "change --clip or --index"))?;
                Ok((Some(center), region))
            }
            (_, _, Some(lower), Some(upper)) => Ok((None, Region { lo: row(lower, 0)?, hi: row(upper, 0)? })),
            _ => Err(fail("no box is given", "give --inputs and --radius, or --lower and --upper")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::grid;

    #[test]
    fn grids_are_powers_of_two() {
        assert_eq!([grid("2^-8"), grid("1/256"), grid("0.5"), grid("1")], [Ok(8), Ok(8), Ok(1), Ok(0)]);
        for text in ["", "2", "0.3", "2^8", "2^-61", "-1/2", "x"] {
            assert!(grid(text).is_err(), "{text}");
        }
    }
}
