//! Certificates of thresholds: for each pair of classes a query about both networks, and the proof that nothing satisfies it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use quaver::guard::thresholds::Compared;
use quaver::model::lower::Lowered;
use quaver::property::vnnlib::Problem as Query;
use quaver::verify::Options;
use quaver::vnnlib::{self, Decimal};

use super::bound::pairs;
use super::problem::{Problem, Quantized};
use crate::certify::{Certificate, Checker, Subject, digest};
use crate::load;
use crate::session::{Session, fail};
use crate::spec::{Declare, Names};
use crate::verify::decide::{Answer, decide};

/// Thresholds that are tried, as multiples of the bound: a certificate has one walk with plain lines, the bound the best of many.
const FACTORS: [f64; 7] = [1.01, 1.03, 1.06, 1.12, 1.25, 1.5, 2.0];
/// For each.
const TIME: Duration = Duration::from_secs(60);

/// What is certified of a pair.
pub struct Certified {
    pub class: usize,
    pub rival: usize,
    /// The threshold; none where no proof was found that can be written down.
    pub threshold: Option<f64>,
    /// Why there is none, or the next smaller one was not accepted.
    pub why: Option<String>,
}

/// Both networks on real numbers, and how they are named in queries.
struct Pair<'p> {
    problem: &'p Problem,
    nets: [Arc<Lowered>; 2],
    names: [Names; 2],
    files: [&'p Path; 2],
    digests: [String; 2],
}

/// Writes queries and certificates for all pairs of classes into a folder.
pub fn write(
    problem: &Problem,
    q: &Quantized,
    (folder, checker): (&Path, Option<&Checker>),
    session: &Session<'_>,
) -> Result<Vec<Certified>> {
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot make the folder", folder.display()))?;
    let files = [problem.float_path.as_path(), &q.path];
    let lowered =
        |path: &Path| Ok::<_, anyhow::Error>(Arc::new(load::lowered(session.files, path, Some("real"))?.lowered));
    let nets = [lowered(files[0])?, lowered(files[1])?];
    let names = [Names::new("f", &nets[0], Declare::Real), Names::new("g", &nets[1], Declare::Real)];
    let ends = (problem.domain.lo, problem.domain.hi);
    let compared = Compared::new(nets[0].clone(), nets[1].clone(), ends, None);
    let compared = compared.map_err(|e| anyhow!("{} and {}: {e}", files[0].display(), files[1].display()))?;
    if compared.scale() != 1.0 {
        let what = format!("{}: its outputs are integers, and a query is about what they stand for", q.path.display());
        return Err(fail(what, "end it with a DequantizeLinear"));
    }
    let bounds = compared.bounds(None, 1, None, &Options { timeout: TIME, ..Options::default() })?;
    let digests = [digest(files[0])?, digest(files[1])?];
    let (pair, n) = (Pair { problem, nets, names, files, digests }, compared.classes());
    let stem = q.path.file_stem().map_or_else(|| "network".into(), |s| s.to_string_lossy().into_owned());
    pairs(n)
        .map(|i| {
            let base = folder.join(format!("{stem}_{}_{}", i / n, i % n));
            pair.certify((i / n, i % n), bounds.pair[i], &base, checker)
        })
        .collect()
}

impl Pair<'_> {
    /// The smallest threshold of those that are tried.
    fn certify(
        &self,
        (class, rival): (usize, usize),
        bound: f64,
        base: &Path,
        checker: Option<&Checker>,
    ) -> Result<Certified> {
        let mut why = None;
        // Where f never gives the rival before the class, any positive number will do.
        let bound = if bound > 0.0 { bound } else { 1e-6 };
        for factor in FACTORS {
            let threshold = bound * factor;
            match self.attempt((class, rival), threshold, base, checker)? {
                None => return Ok(Certified { class, rival, threshold: Some(threshold), why }),
                objection => why = objection,
            }
        }
        let left = ["vnnlib", "cert"].map(|e| with_extension(base, e));
        // What proves nothing is not left behind; the certificate may not be there.
        left.iter().for_each(|file| drop(std::fs::remove_file(file)));
        Ok(Certified { class, rival, threshold: None, why })
    }

    /// Writes a query and its certificate; gives an objection.
    fn attempt(
        &self,
        pair: (usize, usize),
        threshold: f64,
        base: &Path,
        checker: Option<&Checker>,
    ) -> Result<Option<String>> {
        let [property, certificate] = ["vnnlib", "cert"].map(|e| with_extension(base, e));
        std::fs::write(&property, self.query(pair, threshold)?)
            .with_context(|| format!("{}: cannot write the file", property.display()))?;
        let spec = vnnlib::read(&property)?;
        let query = Query::new(&spec, &self.nets).map_err(|e| anyhow!("{}: {e}", property.display()))?;
        let [f, g] = &self.digests;
        let subject = Subject {
            models: vec![("network", format!("f {f}")), ("network", format!("g {g}"))],
            property: &digest(&property)?,
            profile: "real",
            assumptions: query.notes.iter().map(|note| &**note).collect(),
        };
        let mut writer = Certificate::create(&certificate, &subject)?;
        let options = Options { timeout: TIME, subproblems: 0, ..Options::default() };
        let outcome = decide(&query, &options, Some(&mut writer))?;
        if !matches!(outcome.answer, Answer::Unsat) {
            return Ok(Some(format!("not proved: {}", outcome.why.unwrap_or_else(|| outcome.answer.word().into()))));
        }
        let missing = writer.finish()?;
        let Some(checker) = checker else { return Ok(missing) };
        let argument = |k: usize| {
            let mut argument = OsString::from(["f=", "g="][k]);
            argument.push(self.files[k]);
            argument
        };
        checker.objection(missing, &[argument(0), argument(1)], [&property, &certificate], true)
    }

    /// f gives the rival no less than the class, and q leads with the class by the threshold.
    fn query(&self, (class, rival): (usize, usize), threshold: f64) -> Result<String> {
        let decimal = |x: f64| {
            let digits = Decimal::from_f64(x).map(|d| d.to_string());
            digits.ok_or_else(|| fail(format!("{x} cannot be written as a decimal"), "give other ends of the box"))
        };
        let [f, q] = &self.names;
        let (lo, hi) = (decimal(self.problem.domain.lo)?, decimal(self.problem.domain.hi)?);
        let mut text = format!("(vnnlib-version <2.0>)\n{}{}", f.declaration, q.declaration);
        for i in 0..self.nets[0].net.node(self.nets[0].net.inputs()[0]).len() {
            let (x, other) = (f.element(0, i), q.element(0, i));
            text += &format!("(assert (>= {x} {lo}))\n(assert (<= {x} {hi}))\n(assert (== {x} {other}))\n");
        }
        let of = |names: &Names, k: usize| names.element(1, k);
        let (first, second) = (of(q, class), of(q, rival));
        text += &format!("(assert (<= {} {}))\n", of(f, class), of(f, rival));
        text += &format!("(assert (>= (- {first} {second}) {}))\n", decimal(threshold)?);
        Ok(text)
    }
}

/// Names may have dots.
fn with_extension(base: &Path, extension: &str) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}
