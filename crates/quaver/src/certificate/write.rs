//! Certificates as files.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{Choice, Claim, Cut, Tracer, Tree};

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
        let recorder = Recorder { state: Mutex::new(State::new(file)) };
        let mut bytes = vec![1];
        indices(&mut bytes, cases);
        recorder.put(&bytes);
        Ok(recorder)
    }

    /// Makes a recorded proof a part of the certificate. What has no step yet is said, and nothing is kept.
    ///
    /// # Errors
    /// If something could not be written.
    pub fn keep(&mut self, recorder: Recorder) -> io::Result<Result<(), &'static str>> {
        let mut state = recorder.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        let mut recorded = state.file()?;
        if let Some(gap) = state.gap {
            return Ok(Err(gap));
        }
        recorded.seek(SeekFrom::Start(0))?;
        io::copy(&mut recorded, &mut self.file)?;
        Ok(Ok(()))
    }

    /// Adds an input that satisfies a case of the property.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn witness(&mut self, case: usize, input: &[f64]) -> io::Result<()> {
        let mut bytes = vec![7];
        varint(&mut bytes, case as u64);
        varint(&mut bytes, input.len() as u64);
        input.iter().for_each(|x| bytes.extend(x.to_le_bytes()));
        let mut out = GzEncoder::new(&mut self.file, Compression::fast());
        out.write_all(&bytes)?;
        out.finish().map(|_| ())
    }

    /// Ends the certificate and puts it at its path.
    ///
    /// # Errors
    /// If something could not be written.
    pub fn finish(mut self) -> io::Result<()> {
        let mut end = GzEncoder::new(&mut self.file, Compression::fast());
        end.write_all(&[0])?;
        end.finish()?;
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
    /// Always there but while it is replaced.
    out: Option<GzEncoder<BufWriter<File>>>,
    /// The number of the next part.
    next: u64,
    /// Length of the file and next part at the mark.
    mark: (u64, u64),
    failed: Option<io::Error>,
    gap: Option<&'static str>,
}

impl State {
    fn new(file: File) -> Self {
        State { out: Some(encoder(file)), next: 1, mark: (0, 1), failed: None, gap: None }
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.failed.is_none()
            && let Some(out) = &mut self.out
            && let Err(error) = out.write_all(bytes)
        {
            self.failed = Some(error);
        }
    }

    /// The file with all that was put.
    fn file(&mut self) -> io::Result<File> {
        let out = self.out.take().ok_or_else(|| io::Error::other("the record was ended before"))?;
        out.finish()?.into_inner().map_err(|e| e.into_error())
    }

    /// Begins a new member of the file, at its end or at the mark.
    fn begin_member(&mut self, at_mark: bool) -> io::Result<()> {
        let mut file = self.file()?;
        if at_mark {
            file.set_len(self.mark.0)?;
            file.seek(SeekFrom::Start(self.mark.0))?;
            self.next = self.mark.1;
        } else {
            self.mark = (file.stream_position()?, self.next);
        }
        self.out = Some(encoder(file));
        Ok(())
    }
}

fn encoder(file: File) -> GzEncoder<BufWriter<File>> {
    GzEncoder::new(BufWriter::new(file), Compression::fast())
}

impl Recorder {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, bytes: &[u8]) {
        self.state().put(bytes);
    }

    /// Puts a record that makes two parts.
    fn put_halves(&self, bytes: &[u8]) -> [u64; 2] {
        let mut state = self.state();
        state.put(bytes);
        state.next += 2;
        [state.next - 2, state.next - 1]
    }

    fn begin_member(&self, at_mark: bool) {
        let mut state = self.state();
        if let Err(error) = state.begin_member(at_mark) {
            state.failed.get_or_insert(error);
        }
    }
}

impl Tracer for Recorder {
    fn close(&self, part: u64, goal: usize, weights: &[f64], choice: Option<Choice>) {
        let mut bytes = vec![2];
        varint(&mut bytes, part);
        varint(&mut bytes, goal as u64);
        singles(&mut bytes, weights);
        match &choice {
            Some(choice) => put_choice(&mut bytes, choice),
            None => bytes.extend([0, 0]),
        }
        self.put(&bytes);
    }

    fn empty(&self, part: u64) {
        let mut bytes = vec![3];
        varint(&mut bytes, part);
        self.put(&bytes);
    }

    fn halve(&self, part: u64, goals: &[usize], element: usize, at: f64) -> [u64; 2] {
        let mut bytes = vec![4];
        varint(&mut bytes, part);
        indices(&mut bytes, goals);
        varint(&mut bytes, element as u64);
        bytes.extend(at.to_le_bytes());
        self.put_halves(&bytes)
    }

    fn cut(&self, part: u64, goal: usize, cut: Cut) -> [u64; 2] {
        let mut bytes = vec![5];
        varint(&mut bytes, part);
        varint(&mut bytes, goal as u64);
        put_cut(&mut bytes, &cut);
        self.put_halves(&bytes)
    }

    fn claims(&self, part: u64, function: usize, claims: &[Claim]) {
        let mut bytes = vec![6];
        varint(&mut bytes, part);
        varint(&mut bytes, function as u64);
        varint(&mut bytes, claims.len() as u64);
        let mut state = self.state();
        for claim in claims {
            varint(&mut bytes, claim.element as u64);
            claim.ends.iter().for_each(|e| bytes.extend(e.to_le_bytes()));
            let [lo, hi] = [0, 1].map(|k| u8::from(claim.proofs[k].is_some()));
            bytes.push(lo + 2 * hi);
            claim.proofs.iter().flatten().for_each(|tree| put_tree(&mut bytes, tree));
            // A tree may be large.
            state.put(&bytes);
            bytes.clear();
        }
        state.put(&bytes);
    }

    fn mark(&self) {
        self.begin_member(false);
    }

    fn rewind(&self) {
        self.begin_member(true);
    }

    fn has_no_step(&self, what: &'static str) {
        self.state().gap.get_or_insert(what);
    }
}

/// A list of numbers of things.
fn indices(bytes: &mut Vec<u8>, numbers: &[usize]) {
    varint(bytes, numbers.len() as u64);
    numbers.iter().for_each(|&n| varint(bytes, n as u64));
}

/// A list of float32.
fn singles(bytes: &mut Vec<u8>, numbers: &[f64]) {
    varint(bytes, numbers.len() as u64);
    numbers.iter().for_each(|w| bytes.extend((*w as f32).to_le_bytes()));
}

fn put_choice(bytes: &mut Vec<u8>, choice: &Choice) {
    varint(bytes, choice.places.len() as u64);
    bytes.extend(choice.places.iter());
    singles(bytes, &choice.betas);
}

fn put_cut(bytes: &mut Vec<u8>, cut: &Cut) {
    varint(bytes, cut.function as u64);
    varint(bytes, cut.element as u64);
    bytes.extend(cut.below.to_le_bytes());
    bytes.extend(cut.above.to_le_bytes());
}

fn put_tree(bytes: &mut Vec<u8>, tree: &Tree) {
    match tree {
        Tree::Leaf(choice) => {
            bytes.push(0);
            put_choice(bytes, choice);
        }
        Tree::Cut(cut, halves) => {
            bytes.push(1);
            put_cut(bytes, cut);
            halves.iter().for_each(|half| put_tree(bytes, half));
        }
    }
}
