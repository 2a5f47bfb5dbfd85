//! The certificate of an answer, and whether the checker accepts it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use quaver::property::vnnlib::Problem;
use quaver::vnnlib::Spec;

use super::decide::{Answer, Outcome};
use super::{Args, networks};
use crate::certify::{Certificate, Checker, Subject, digest};
use crate::session::fail;

/// A certificate on its way, and who is to check it.
pub struct Certified<'a> {
    pub certificate: Certificate,
    model: &'a Path,
    path: PathBuf,
    checker: Option<Checker>,
}

impl<'a> Certified<'a> {
    /// Begins a certificate, if one is asked for.
    pub fn begin(
        args: &'a Args,
        spec: &Spec,
        profile: &str,
        problem: &Problem,
        assumptions: &[String],
    ) -> Result<Option<Self>> {
        let checker = args.checking.checker()?;
        if args.certificate.is_none() && checker.is_none() {
            return Ok(None);
        }
        let scratch = || std::env::temp_dir().join(format!("quaver-{}.cert", std::process::id()));
        let path = args.certificate.clone().unwrap_or_else(scratch);
        let [Some(model)] = networks::paths(args, spec)?[..] else {
            return Err(fail("a certificate is about one network", "leave --certificate and --certified out"));
        };
        let assumptions = assumptions.iter().chain(&problem.notes).map(|a| &**a).collect();
        let (of_model, property) = (digest(model)?, digest(&args.query)?);
        let subject = Subject { model: &of_model, property: &property, profile, assumptions };
        let certificate = Certificate::create(&path, &subject)?;
        Ok(Some(Certified { certificate, model, path, checker }))
    }

    /// Puts the certificate in its place. Where a checker is asked for, an answer that it does not accept is none.
    pub fn end(self, args: &Args, problem: &Problem, outcome: Outcome) -> Result<Outcome> {
        let missing = match &outcome.answer {
            Answer::Unsat => self.certificate.finish()?,
            Answer::Sat(found) => {
                let case = problem.parts[found.part].cases[found.witness.polyhedron()];
                self.certificate.refute(case, found.witness.input())?;
                None
            }
            Answer::Unknown | Answer::TimedOut => return Ok(outcome),
        };
        let Some(checker) = &self.checker else {
            missing.iter().for_each(|why| eprintln!("no certificate: {why}"));
            return Ok(outcome);
        };
        let files = [self.model, &args.query, &self.path];
        let objection = checker.objection(missing, files, matches!(outcome.answer, Answer::Unsat))?;
        if args.certificate.is_none() {
            // It was never asked for, and it may not be there.
            let _ = std::fs::remove_file(&self.path);
        }
        Ok(match objection {
            Some(why) => Outcome { answer: Answer::Unknown, method: None, why: Some(why), ..outcome },
            None => outcome,
        })
    }
}
