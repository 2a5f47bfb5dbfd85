//! The folder of a strategy: the model, what is said of it, and every fact that was found on the way.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use quaver::model::ir::Model;
use quaver::model::{onnx, sha256};
use quaver::quantize::preserve::{Fact, Floor, Networks, Record};
use serde_json::{Value, json};

use super::wanted::Property;
use super::{Dropped, Job};
use crate::certify::digest;
use crate::session::fail;

/// Where facts are.
const FACTS: &str = "facts.jsonl";

/// The folder.
pub struct Folder {
    pub path: PathBuf,
    /// The first line of the facts: what they are about.
    header: Value,
    fresh: bool,
}

impl Folder {
    /// Makes it, if it is not there.
    pub fn open(
        job: &Job<'_>,
        networks: (&Networks<'_>, &str),
        properties: &[Property],
        floor: &Option<Floor>,
    ) -> Result<Self> {
        let path = job.args.output.clone();
        std::fs::create_dir_all(&path).map_err(|e| {
            let cure = "give a folder that can be made: with --preserve, --output names one";
            fail(format!("{}: cannot make the folder: {e}", path.display()), cure)
        })?;
        let about = about(job, networks, properties, floor)?;
        let header = json!({ "quaver": env!("CARGO_PKG_VERSION"), "facts_about": sha256(about.as_bytes()) });
        Ok(Folder { path, header, fresh: job.args.preserve.fresh })
    }

    /// What is known, and what keeps new facts.
    pub fn facts(&self) -> Result<(Vec<Fact>, Record<'static>)> {
        let path = self.path.join(FACTS);
        let place = || path.display().to_string();
        let (known, end) = if self.fresh { (vec![], 0) } else { self.known(&path)? };
        if end == 0 {
            self.clear();
        }
        let mut file = OpenOptions::new().create(true).append(false).truncate(false).write(true).open(&path);
        let file = file.as_mut().map_err(|e| fail(format!("{}: {e}", place()), "check that the folder can be written"));
        let file = file?;
        // A line that was being written when the program was killed goes.
        file.set_len(end).with_context(place)?;
        let mut file = OpenOptions::new().append(true).open(&path).with_context(place)?;
        if end == 0 {
            writeln!(file, "{}", self.header).with_context(place)?;
        }
        Ok((known, recorder(file, place())))
    }

    /// Takes away what was written for another question, if anything was.
    fn clear(&self) {
        for name in ["model.onnx", "strategy.json"] {
            let _ = std::fs::remove_file(self.path.join(name));
        }
        let _ = std::fs::remove_dir_all(self.certificates());
    }

    /// Where certificates are.
    pub fn certificates(&self) -> PathBuf {
        self.path.join("certificates")
    }

    /// Facts of an earlier run, and where the last whole line ends.
    fn known(&self, path: &Path) -> Result<(Vec<Fact>, u64)> {
        let Ok(file) = File::open(path) else { return Ok((vec![], 0)) };
        let (mut reader, mut line, mut end, mut known) = (BufReader::new(file), String::new(), 0, vec![]);
        loop {
            line.clear();
            // What is no text was not written whole.
            let Ok(read) = reader.read_line(&mut line) else { break };
            if read == 0 || !line.ends_with('\n') {
                break;
            }
            if end == 0 {
                self.check(path, &line)?;
            } else {
                let Ok(fact) = serde_json::from_str(&line) else { break };
                known.push(fact);
            }
            end += read as u64;
        }
        Ok((known, end))
    }

    fn check(&self, path: &Path, line: &str) -> Result<()> {
        if serde_json::from_str::<Value>(line).is_ok_and(|header| header == self.header) {
            return Ok(());
        }
        Err(fail(
            format!(
                "{}: it holds facts about another question (model, properties, scheme or data differ)",
                path.display()
            ),
            "give another --output, or --fresh to forget them",
        ))
    }

    /// Writes a file, whole or not at all.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let (path, part) = (self.path.join(name), self.path.join(format!("{name}.part")));
        std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, &path)).map_err(|e| {
            fail(format!("{}: cannot write the file: {e}", path.display()), "check that the folder has room")
        })?;
        Ok(path)
    }

    /// Where the model is.
    pub fn model(&self) -> PathBuf {
        self.path.join("model.onnx")
    }

    pub fn write_model(&self, model: &Model) -> Result<()> {
        self.write("model.onnx", &onnx::write(model)?).map(|_| ())
    }
}

/// Writes down what is left out, and the inputs that are to blame.
pub fn left_out(folder: &Path, dropped: &[Dropped]) -> Result<()> {
    let path = folder.join("left_out.json");
    if dropped.is_empty() {
        // Of an earlier run, if it is there.
        let _ = std::fs::remove_file(path);
        return Ok(());
    }
    let all: Vec<Value> = dropped.iter().map(|d| json!({ "why": d.why, "input": d.input })).collect();
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, serde_json::to_vec(&all)?));
    written
        .map_err(|e| fail(format!("{}: cannot write the file: {e}", path.display()), "give a folder that can be made"))
}

/// Writes each fact as one line that reaches the system at once.
fn recorder(mut file: File, place: String) -> Record<'static> {
    let mut failed = false;
    Box::new(move |fact| {
        let line = serde_json::to_string(fact).map(|line| line + "\n").unwrap_or_default();
        if let (Err(e), false) = (file.write_all(line.as_bytes()), failed) {
            failed = true;
            eprintln!("warning: {place}: {e}; what is found from here on is lost if the run is ended");
        }
    })
}

/// Everything that facts depend on.
fn about(
    job: &Job<'_>,
    (networks, arithmetic): (&Networks<'_>, &str),
    properties: &[Property],
    floor: &Option<Floor>,
) -> Result<String> {
    let mut about = format!("{}\n{:?}\n{:?}\n", digest(&job.args.model)?, networks.scheme, networks.activations);
    let _ = writeln!(about, "{arithmetic} {:?}", networks.learning);
    let numbers = |x: &[f64]| sha256(&x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    let _ = writeln!(about, "{}", numbers(&networks.calibration));
    for property in properties {
        let _ = writeln!(about, "{} {}", property.wanted.name, sha256(property.text.as_bytes()));
    }
    if let Some(floor) = floor {
        let _ = writeln!(about, "{} {:?}", numbers(&floor.data().rows), floor.data().labels);
    }
    Ok(about)
}
