//! Certificates of answers: proofs and counterexamples that another program checks.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use quaver::certificate::{Recorder, Writer};
use quaver::model::sha256;

use crate::session::fail;

/// Options of commands that certify.
#[derive(clap::Args)]
pub struct Checking {
    /// Give an answer only if quaver-check accepts its certificate
    #[arg(long)]
    pub certified: bool,
    /// The checker [default: quaver-check beside this program, else on the path]
    #[arg(long, value_name = "PROGRAM", requires = "certified")]
    checker: Option<PathBuf>,
}

impl Checking {
    /// The program that checks, if one is asked for.
    pub fn checker(&self) -> Result<Option<Checker>> {
        if !self.certified {
            return Ok(None);
        }
        let name = format!("quaver-check{}", std::env::consts::EXE_SUFFIX);
        let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name(&name)).filter(|path| path.exists());
        let program = self.checker.clone().or(beside).unwrap_or_else(|| name.into());
        // Found out now, not after the search.
        match Command::new(&program).arg("--version").output() {
            Ok(_) => Ok(Some(Checker { program })),
            Err(e) => Err(fail(
                format!("cannot run the checker {}: {e}", program.display()),
                "build it with `cargo build --release -p quaver-check`, or name it with --checker",
            )),
        }
    }
}

/// A program that checks certificates.
pub struct Checker {
    program: PathBuf,
}

impl Checker {
    /// Why a certificate does not show what it should, that the property holds or that it does not: because it is missing, or not accepted.
    pub fn objection(
        &self,
        missing: Option<String>,
        models: &[OsString],
        [property, certificate]: [&Path; 2],
        holds: bool,
    ) -> Result<Option<String>> {
        if let Some(why) = missing {
            return Ok(Some(format!("there is no certificate: {why}")));
        }
        let output = Command::new(&self.program).args(models).arg(property).arg(certificate).output();
        let output = output.with_context(|| format!("cannot run {}", self.program.display()))?;
        // As `quaver-check` documents.
        let expected = if holds { 0 } else { 3 };
        Ok((output.status.code() != Some(expected)).then(|| {
            let said = String::from_utf8_lossy(&output.stdout);
            format!("the checker does not accept the certificate: {}", said.lines().next().unwrap_or("it says nothing"))
        }))
    }
}

/// What a certificate is about.
pub struct Subject<'s> {
    /// Lines of the header: `model` with the SHA-256 of its bytes, or `network` with each network's name and that.
    pub models: Vec<(&'s str, String)>,
    /// SHA-256 of the property's bytes.
    pub property: &'s str,
    pub profile: &'s str,
    /// What the answer rests on.
    pub assumptions: Vec<&'s str>,
}

/// The SHA-256 of a file.
pub fn digest(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    Ok(sha256(&bytes))
}

/// A certificate on its way.
pub struct Certificate {
    writer: Writer,
    /// What was proved in a way that has no step yet.
    gap: Option<&'static str>,
}

impl Certificate {
    /// Begins one.
    pub fn create(path: &Path, subject: &Subject<'_>) -> Result<Self> {
        let profile = subject.profile;
        if !(matches!(profile, "real" | "ort-fused") || profile.starts_with("fixed-point")) {
            return Err(fail(
                format!("there are no certificates for the arithmetic `{profile}` yet"),
                "leave --certificate and --certified out, or use --profile real, ort-fused or fixed-point(Q,F)",
            ));
        }
        let tool = concat!("quaver ", env!("CARGO_PKG_VERSION"));
        let mut header: Vec<(&str, &str)> = subject.models.iter().map(|(key, value)| (*key, &value[..])).collect();
        header.extend([("property", subject.property), ("profile", profile), ("tool", tool)]);
        header.extend(subject.assumptions.iter().map(|a| ("assumption", *a)));
        let writer = Writer::create(path, &header).with_context(|| path.display().to_string())?;
        Ok(Certificate { writer, gap: None })
    }

    /// A record for one question.
    pub fn question(&self, cases: &[usize]) -> Result<Arc<Recorder>> {
        Ok(Arc::new(self.writer.question(cases).context(CANNOT_WRITE)?))
    }

    /// Keeps the record of a question that was proved.
    pub fn keep(&mut self, recorder: Arc<Recorder>) -> Result<()> {
        // Local invariant: whoever was told of the recorder has ended.
        if let Some(recorder) = Arc::into_inner(recorder)
            && let Err(gap) = self.writer.keep(recorder).context(CANNOT_WRITE)?
        {
            self.gap = Some(gap);
        }
        Ok(())
    }

    /// Puts the certificate of a proof in its place; else says why there is none.
    pub fn finish(self) -> Result<Option<String>> {
        match self.gap {
            None => self.writer.finish().context(CANNOT_WRITE).map(|()| None),
            Some(gap) => Ok(Some(format!("the proof needs {gap}, which certificates do not have yet"))),
        }
    }

    /// Puts the certificate of a counterexample, which satisfies some case, in its place.
    pub fn refute(mut self, case: usize, input: &[f64]) -> Result<()> {
        self.writer.witness(case, input).context(CANNOT_WRITE)?;
        self.writer.finish().context(CANNOT_WRITE)
    }
}

const CANNOT_WRITE: &str = "cannot write the certificate";
