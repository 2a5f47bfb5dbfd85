//! A property and a certificate for each answer.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use quaver::certificate::Tracer;
use quaver::model::lower::Lowered;
use quaver::model::sha256;
use quaver::property::{self, Robustness};
use quaver::verify::{Options, Unfinished, Verdict};

use super::Args;
use crate::certify::{Certificate, Checker, Subject, digest};
use crate::spec::draft::Draft;

/// Where certificates go, and who checks them.
pub struct Certifying {
    folder: PathBuf,
    /// Whether the folder was asked for, so that it stays.
    kept: bool,
    checker: Option<Checker>,
    model: PathBuf,
    /// SHA-256 of the model.
    digest: String,
    profile: String,
    assumptions: Vec<String>,
    /// Shapes of the input and of the output.
    shapes: [Vec<usize>; 2],
}

impl Certifying {
    /// What the options ask for, if they do.
    pub fn new(args: &Args, lowered: &Lowered) -> Result<Option<Self>> {
        let checker = args.checking.checker()?;
        if args.certificate.is_none() && checker.is_none() {
            return Ok(None);
        }
        let scratch = || std::env::temp_dir().join(format!("quaver-{}", std::process::id()));
        let folder = args.certificate.clone().unwrap_or_else(scratch);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        Ok(Some(Certifying {
            folder,
            kept: args.certificate.is_some(),
            checker,
            model: args.model.clone(),
            digest: digest(&args.model)?,
            profile: lowered.profile.clone(),
            assumptions: lowered.assumptions.clone(),
            shapes: [lowered.net.inputs()[0], lowered.net.outputs()[0]].map(|id| lowered.net.node(id).shape.clone()),
        }))
    }

    /// Decides a claim with a certificate. Where a checker is asked for, a verdict that it does not accept is none.
    pub fn decide(
        &self,
        name: &str,
        claim: &Robustness,
        options: &Options,
        decide: impl Fn(&Options) -> Result<Verdict>,
    ) -> Result<Verdict> {
        let text = self.query(claim)?;
        let property = self.folder.join(format!("{name}.vnnlib"));
        std::fs::write(&property, &text).with_context(|| format!("cannot write {}", property.display()))?;
        let subject = Subject {
            models: vec![("model", self.digest.clone())],
            property: &sha256(text.as_bytes()),
            profile: &self.profile,
            assumptions: self.assumptions.iter().map(|a| &**a).collect(),
        };
        let path = self.folder.join(format!("{name}.cert"));
        let mut certificate = Certificate::create(&path, &subject)?;
        let classes: usize = self.shapes[1].iter().product();
        let recorder = certificate.question(&(1..classes).map(|rival| rival - 1).collect::<Vec<_>>())?;
        let tracer = Some(recorder.clone() as Arc<dyn Tracer>);
        let verdict = decide(&Options { tracer, ..options.clone() })?;
        let missing = match &verdict {
            Verdict::Holds(_) => {
                certificate.keep(recorder)?;
                certificate.finish()?
            }
            Verdict::Violated(w) => {
                drop(recorder);
                certificate.refute(w.polyhedron(), w.input())?;
                None
            }
            Verdict::Undecided(_) => return Ok(verdict),
        };
        let Some(checker) = &self.checker else {
            missing.iter().for_each(|why| eprintln!("{name}: there is no certificate: {why}"));
            return Ok(verdict);
        };
        let holds = matches!(verdict, Verdict::Holds(_));
        Ok(match checker.objection(missing, &[self.model.clone().into()], [&property, &path], holds)? {
            Some(why) => Verdict::Undecided(Unfinished { bound: f64::NEG_INFINITY, why, subproblems: 0, open: 0 }),
            None => verdict,
        })
    }

    /// A claim as a query: unsat means that it holds.
    fn query(&self, claim: &Robustness) -> Result<String> {
        let [input, output] = &self.shapes;
        let mut draft = Draft::of_shapes(input, output);
        draft.bound(&claim.region)?;
        draft.contest(claim.label, claim.ties == property::Ties::First);
        // Who checks reads it again.
        Ok(draft.plain())
    }
}

impl Drop for Certifying {
    fn drop(&mut self) {
        if !self.kept {
            // Nobody asked for it.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
