//! What a command works with: where files come from, where the answer goes, and how failures read.

use std::fs::File;
use std::io::{BufReader, Cursor, ErrorKind, Read, Seek, Write};
use std::path::Path;

use anyhow::{Error, Result, anyhow};
use serde::Serialize;

/// Where files are read from.
#[derive(Clone, Copy)]
pub enum Files {
    /// The file system.
    Disk,
    /// Files that are part of the program: (path, bytes).
    Embedded(&'static [(&'static str, &'static [u8])]),
}

/// A file to read from.
pub trait Source: Read + Seek {}

impl<T: Read + Seek> Source for T {}

impl Files {
    /// The bytes of an embedded file; `None` on disk.
    pub fn embedded(self, path: &Path) -> Option<&'static [u8]> {
        match self {
            Files::Disk => None,
            Files::Embedded(files) => Some(files.iter().find(|f| Path::new(f.0) == path).map_or(&[][..], |f| f.1)),
        }
    }

    /// Opens a file.
    pub fn open(self, path: &Path) -> Result<Box<dyn Source>> {
        if let Some(bytes) = self.embedded(path) {
            return Ok(Box::new(Cursor::new(bytes)));
        }
        match File::open(path) {
            Ok(file) => Ok(Box::new(BufReader::with_capacity(1 << 16, file))),
            Err(e) => Err(fail(format!("{}: cannot read the file: {e}", path.display()), "check the path")),
        }
    }
}

/// One run of the program.
pub struct Session<'a> {
    /// Where files come from.
    pub files: Files,
    /// Where the answer goes.
    pub out: &'a mut dyn Write,
    /// Whether the answer is JSON, one object a line.
    pub json: bool,
}

impl Session<'_> {
    /// Prints one line of text.
    pub fn say(&mut self, line: impl AsRef<str>) -> Result<()> {
        Ok(writeln!(self.out, "{}", line.as_ref())?)
    }

    /// Prints one JSON object as a line.
    pub fn line(&mut self, object: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut *self.out, object).map_err(std::io::Error::from)?;
        Ok(writeln!(self.out)?)
    }
}

/// A failure with its cause and its cure.
pub fn fail(problem: impl AsRef<str>, cure: impl AsRef<str>) -> Error {
    anyhow!("{}\n  what to do: {}", problem.as_ref(), cure.as_ref())
}

/// Whether writing failed because nobody reads.
pub fn is_broken_pipe(error: &Error) -> bool {
    let pipe = |e: &std::io::Error| e.kind() == ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(pipe))
}

/// The message with the causes that it does not already tell.
pub fn chain(error: &Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |message, cause| {
        let cause = cause.to_string();
        if message.contains(&cause) { message } else { format!("{message}: {cause}") }
    })
}
