//! Certificates of what is kept: the network that was written is read again, and every property is proved of it as `quaver verify` does.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use quaver::model::lower::{Lowered, lower};
use quaver::model::sha256;
use quaver::property::vnnlib::Problem;
use quaver::verify::Options;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::Setting;
use super::folder::Folder;
use super::wanted::Property;
use crate::certify::{Certificate, Checker, Subject, digest};
use crate::session::{Files, fail};
use crate::verify::decide::{Answer, decide};

/// What was written.
pub struct Written {
    /// Certificates.
    pub count: usize,
    /// Whether a checker accepted all of them.
    pub accepted: bool,
    /// Why there are none of some, or none at all.
    pub missing: Vec<String>,
}

impl Written {
    pub fn json(&self) -> Value {
        json!({ "count": self.count, "accepted": self.accepted, "missing": self.missing })
    }
}

/// A certificate for each property in the folder `certificates`.
pub fn write(
    folder: &Folder,
    properties: &[Property],
    setting: &Setting,
    options: &Options,
    checker: Option<Checker>,
) -> Result<Option<Written>> {
    let name = &*setting.arithmetic;
    if !(matches!(name, "real" | "ort-fused") || name.starts_with("fixed-point")) {
        if checker.is_some() {
            return Err(fail(
                format!("there are no certificates for the arithmetic `{name}` yet"),
                "leave --certified out",
            ));
        }
        return Ok(None);
    }
    let path = folder.certificates();
    // Those of an earlier network say nothing of this one.
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).with_context(|| format!("cannot make the folder {}", path.display()))?;
    let model = folder.model();
    let lowered = Arc::new(lower(&crate::load::model(Files::Disk, &model)?, &*setting.profile)?);
    let job = One { model: &model, digest: digest(&model)?, lowered, path: &path, options, checker: &checker };
    let each: Vec<Option<String>> = properties.par_iter().map(|p| job.write(p)).collect::<Result<_>>()?;
    let missing: Vec<String> = each.iter().flatten().cloned().collect();
    if let (Some(_), Some(first)) = (&checker, missing.first()) {
        return Err(fail(
            format!("not everything is certified: {first}"),
            "give more --verify-timeout, or leave --certified out",
        ));
    }
    let accepted = checker.is_some();
    Ok(Some(Written { count: each.len() - missing.len(), accepted, missing }))
}

struct One<'o> {
    model: &'o Path,
    digest: String,
    lowered: Arc<Lowered>,
    path: &'o Path,
    options: &'o Options,
    checker: &'o Option<Checker>,
}

impl One<'_> {
    /// Why there is no certificate of a property, if there is none.
    fn write(&self, property: &Property) -> Result<Option<String>> {
        let name = &property.wanted.name;
        let (query, path) = (self.path.join(format!("{name}.vnnlib")), self.path.join(format!("{name}.cert")));
        std::fs::write(&query, &property.text).with_context(|| format!("cannot write {}", query.display()))?;
        let spec = quaver::vnnlib::parse(&property.text).map_err(|e| anyhow::anyhow!("{}: {e}", query.display()))?;
        let problem = Problem::new(&spec, std::slice::from_ref(&self.lowered))?;
        let assumptions = self.lowered.assumptions.iter().chain(&problem.notes).map(|a| &**a).collect();
        let subject = Subject {
            models: vec![("model", self.digest.clone())],
            property: &sha256(property.text.as_bytes()),
            profile: &self.lowered.profile,
            assumptions,
        };
        let mut certificate = Certificate::create(&path, &subject)?;
        // What took many threads before may take one thread longer.
        let options = Options { threads: 1, timeout: self.options.timeout * 10, ..self.options.clone() };
        let outcome = decide(&problem, &options, Some(&mut certificate))?;
        if !matches!(outcome.answer, Answer::Unsat) {
            return Ok(Some(format!("{name}: {}", outcome.why.unwrap_or_else(|| "it is not proved again".into()))));
        }
        let missing = certificate.finish()?;
        match self.checker {
            None => Ok(missing.map(|why| format!("{name}: {why}"))),
            Some(checker) => {
                let objection = checker.objection(missing, &[self.model.into()], [&query, &path], true)?;
                Ok(objection.map(|why| format!("{name}: {why}")))
            }
        }
    }
}
