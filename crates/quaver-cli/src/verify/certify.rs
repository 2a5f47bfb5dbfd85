//! The certificate of a query: a record for each part that is proved, kept if all are.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use quaver::certificate::{Recorder, Writer};
use quaver::model::sha256;
use quaver::property::vnnlib::Problem;

use crate::session::fail;

/// A certificate on its way.
pub struct Certificate {
    writer: Writer,
    /// What was proved in a way that has no step yet.
    gap: Option<&'static str>,
}

impl Certificate {
    /// Begins one.
    pub fn create(
        path: &Path,
        model: &Path,
        query: &Path,
        profile: &str,
        problem: &Problem,
        assumptions: &[String],
    ) -> Result<Self> {
        let digest = |path: &Path| -> Result<String> {
            let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
            Ok(sha256(&bytes))
        };
        if profile != "real" {
            return Err(fail(
                format!("there are no certificates for the arithmetic `{profile}` yet"),
                "leave --certificate out, or use --profile real",
            ));
        }
        let (model, query) = (digest(model)?, digest(query)?);
        let tool = concat!("quaver ", env!("CARGO_PKG_VERSION"));
        let mut header = vec![("model", &*model), ("property", &*query), ("profile", profile), ("tool", tool)];
        header.extend(assumptions.iter().chain(&problem.notes).map(|a| ("assumption", &**a)));
        let writer = Writer::create(path, &header).with_context(|| path.display().to_string())?;
        Ok(Certificate { writer, gap: None })
    }

    /// A record for one part.
    pub fn question(&self, cases: &[usize]) -> Result<Arc<Recorder>> {
        Ok(Arc::new(self.writer.question(cases).context("cannot write the certificate")?))
    }

    /// Keeps the record of a part that was proved.
    pub fn keep(&mut self, recorder: Arc<Recorder>) -> Result<()> {
        // Local invariant: whoever was told of the recorder has ended.
        if let Some(recorder) = Arc::into_inner(recorder)
            && let Err(gap) = self.writer.keep(recorder).context("cannot write the certificate")?
        {
            self.gap = Some(gap);
        }
        Ok(())
    }

    /// Puts the certificate in its place if everything was proved; else says why there is none.
    pub fn end(self, proved: bool) -> Result<()> {
        match self.gap {
            None if proved => return self.writer.finish().context("cannot write the certificate"),
            None => eprintln!("no certificate: the query was not refuted"),
            Some(gap) => eprintln!("no certificate: the proof needs {gap}, which certificates do not have yet"),
        }
        Ok(())
    }
}
