//! The certificate of an answer, and whether the checker accepts it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use quaver::property::vnnlib::{Part, Problem};
use quaver::vnnlib::Spec;

use super::decide::{Answer, Outcome};
use super::{Args, networks};
use crate::certify::{Certificate, Checker, Subject, digest};
use crate::session::fail;

/// A certificate on its way, and who is to check it.
pub struct Certified {
    pub certificate: Certificate,
    /// The models as the checker's arguments.
    models: Vec<OsString>,
    path: PathBuf,
    checker: Option<Checker>,
}

/// The models as lines of a header and as arguments of the checker.
type Models = (Vec<(&'static str, String)>, Vec<OsString>);

/// The models that a certificate is about: one, or two of the same input.
fn subjects(args: &Args, spec: &Spec, profile: &str, problem: &Problem) -> Result<Models> {
    let paths = networks::paths(args, spec)?;
    if let [Some(model)] = paths[..] {
        return Ok((vec![("model", digest(model)?)], vec![model.into()]));
    }
    let cure = "leave --certificate and --certified out";
    if paths.len() > 2 {
        return Err(fail("a certificate is about one network or two", cure));
    }
    if profile != "real" {
        let problem = format!("there are no certificates about two networks for the arithmetic `{profile}` yet");
        return Err(fail(problem, "leave --certificate and --certified out, or use --profile real"));
    }
    if !problem.parts.iter().all(Part::is_about_a_pair) {
        let problem = "a certificate about two networks needs their inputs equated, each element with its own, and constraints on outputs alone";
        return Err(fail(problem, cure));
    }
    let given: Vec<(&str, &Path)> =
        spec.networks.iter().zip(&paths).filter_map(|(n, path)| Some((&n.name[..], (*path)?))).collect();
    let line = |(name, path): &(&str, &Path)| Ok(("network", format!("{name} {}", digest(path)?)));
    let header = given.iter().map(line).collect::<Result<Vec<_>>>()?;
    let argument = |(name, path): &(&str, &Path)| {
        let mut argument = OsString::from(format!("{name}="));
        argument.push(path);
        argument
    };
    Ok((header, given.iter().map(argument).collect()))
}

impl Certified {
    /// Begins a certificate, if one is asked for.
    pub fn begin(
        args: &Args,
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
        let (header, models) = subjects(args, spec, profile, problem)?;
        let assumptions = assumptions.iter().chain(&problem.notes).map(|a| &**a).collect();
        let property = digest(&args.query)?;
        let subject = Subject { models: header, property: &property, profile, assumptions };
        let certificate = Certificate::create(&path, &subject)?;
        Ok(Some(Certified { certificate, models, path, checker }))
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
        let holds = matches!(outcome.answer, Answer::Unsat);
        let objection = checker.objection(missing, &self.models, [&args.query, &self.path], holds)?;
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
