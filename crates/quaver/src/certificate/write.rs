//! Certificates as files.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::Tracer;

/// The first line of a certificate.
const FORMAT: &str = "quaver certificate 1";

/// A certificate that is being written. It is at its path only once it is finished; else nothing is left of it.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    unfinished: PathBuf,
    file: File,
}

impl Writer {
    /// Begins a file with its header: keys and values, each without a line break.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(path: &Path, header: &[(&str, &str)]) -> io::Result<Self> {
        let unfinished = with_suffix(path, ".unfinished");
        let mut file = File::create(&unfinished)?;
        writeln!(file, "{FORMAT}")?;
        for (key, value) in header {
            writeln!(file, "{key} {}", value.replace('\n', " "))?;
        }
        writeln!(file)?;
        Ok(Writer { path: path.into(), unfinished, file })
    }

    /// A record of the proof for some cases of the property (by number), beside the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn question(&self, cases: &[usize]) -> io::Result<Recorder> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(self.recorded())?;
        let out = GzEncoder::new(BufWriter::new(file), Compression::fast());
        let state = State { out, next: 1, failed: None, gap: None };
        let recorder = Recorder { state: Mutex::new(state) };
        let mut bytes = vec![1];
        varint(&mut bytes, cases.len() as u64);
        cases.iter().for_each(|&c| varint(&mut bytes, c as u64));
        recorder.put(&bytes);
        Ok(recorder)
    }

    /// Makes a recorded proof a part of the certificate. What has no step yet is said, and nothing is kept.
    ///
    /// # Errors
    /// If something could not be written.
    pub fn keep(&mut self, recorder: Recorder) -> io::Result<Result<(), &'static str>> {
        let state = recorder.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = state.failed {
            return Err(error);
        }
        let mut recorded = state.out.finish()?.into_inner().map_err(|e| e.into_error())?;
        if let Some(gap) = state.gap {
            return Ok(Err(gap));
        }
        recorded.seek(SeekFrom::Start(0))?;
        io::copy(&mut recorded, &mut self.file)?;
        Ok(Ok(()))
    }

    /// Ends the certificate and puts it at its path.
    ///
    /// # Errors
    /// If something could not be written.
    pub fn finish(mut self) -> io::Result<()> {
        let mut end = GzEncoder::new(&mut self.file, Compression::fast());
        end.write_all(&[0])?;
        end.finish()?;
        self.file.sync_all()?;
        std::fs::rename(&self.unfinished, &self.path)
    }

    /// Where the question that is being recorded is kept.
    fn recorded(&self) -> PathBuf {
        with_suffix(&self.path, ".question")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Either may be gone already.
        let _ = std::fs::remove_file(&self.unfinished);
        let _ = std::fs::remove_file(self.recorded());
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// LEB128.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The steps of one question. Part 0 is the whole region.
#[derive(Debug)]
pub struct Recorder {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    out: GzEncoder<BufWriter<File>>,
    /// The number of the next part.
    next: u64,
    failed: Option<io::Error>,
    gap: Option<&'static str>,
}

impl State {
    fn put(&mut self, bytes: &[u8]) {
        if self.failed.is_none()
            && let Err(error) = self.out.write_all(bytes)
        {
            self.failed = Some(error);
        }
    }
}

impl Recorder {
    fn put(&self, bytes: &[u8]) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).put(bytes);
    }
}

impl Tracer for Recorder {
    fn close(&self, part: u64, goal: usize, weights: &[f64]) {
        let mut bytes = vec![2];
        varint(&mut bytes, part);
        varint(&mut bytes, goal as u64);
        varint(&mut bytes, weights.len() as u64);
        weights.iter().for_each(|w| bytes.extend((*w as f32).to_le_bytes()));
        self.put(&bytes);
    }

    fn empty(&self, part: u64) {
        let mut bytes = vec![3];
        varint(&mut bytes, part);
        self.put(&bytes);
    }

    fn halve(&self, part: u64, element: usize, at: f64) -> [u64; 2] {
        let mut bytes = vec![4];
        varint(&mut bytes, part);
        varint(&mut bytes, element as u64);
        bytes.extend(at.to_le_bytes());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.put(&bytes);
        state.next += 2;
        [state.next - 2, state.next - 1]
    }

    fn has_no_step(&self, what: &'static str) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).gap.get_or_insert(what);
    }
}
