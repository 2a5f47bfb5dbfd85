//! Files and texts to queries.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::cases::Assertions;
use super::declare;
use super::error::{Fault, ParseError, ReadError, shown};
use super::scope::Scope;
use super::tree::{Kind, Node, Reader};
use super::{Spec, Version};

/// Most bytes of a query, and of what a `.gz` file unpacks to.
const BYTES: u64 = 1 << 30;

/// Reads a query from a file, as it is or gzipped (told by its bytes).
///
/// # Errors
/// If the file cannot be read or is not a query; the error says where.
pub fn read(path: &Path) -> Result<Spec, ReadError> {
    let io = |source| ReadError::Io { file: path.to_path_buf(), source };
    let mut bytes = limited(File::open(path).map_err(io)?, path)?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        bytes = limited(MultiGzDecoder::new(&bytes[..]), path)?;
    }
    let parsed = match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text),
        Err(e) => {
            let valid = String::from_utf8_lossy(&bytes[..e.valid_up_to()]);
            let cure = "give a VNN-LIB query (.vnnlib, or gzipped)";
            Err(Fault::new(valid.len(), "this is not text", cure).locate(&valid))
        }
    };
    parsed.map_err(|error| ReadError::Parse { file: path.to_path_buf(), error })
}

fn limited(from: impl Read, path: &Path) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![];
    let read = from.take(BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|source| ReadError::Io { file: path.to_path_buf(), source })?;
    if bytes.len() as u64 > BYTES {
        return Err(ReadError::TooLarge { file: path.to_path_buf(), limit: BYTES });
    }
    Ok(bytes)
}

/// Parses a query of either version.
///
/// # Errors
/// If the text is not a query, is not linear, or has more cases than the limit; the error names the line and the column.
pub fn parse(text: &str) -> Result<Spec, ParseError> {
    query(text).map_err(|fault| fault.locate(text))
}

fn query(text: &str) -> Result<Spec, Fault> {
    let mut reader = Reader::new(text);
    let mut first = reader.form()?;
    let version = match &first {
        Some(node) if head(node) == "vnnlib-version" => {
            check_version(node)?;
            first = None;
            Version::V2
        }
        _ => Version::V1,
    };
    let mut scope = if version == Version::V1 { Scope::numbered() } else { Scope::default() };
    let mut assertions = Assertions::new();
    while let Some(node) = first.take().map_or_else(|| reader.form(), |n| Ok(Some(n)))? {
        form(version, &node, &mut scope, &mut assertions)?;
    }
    finished(version, &scope, text.len())?;
    let Assertions { constraints, always, cases } = assertions;
    Ok(Spec { version, networks: scope.networks, constraints, always, cases })
}

fn form(version: Version, node: &Node, scope: &mut Scope, assertions: &mut Assertions) -> Result<(), Fault> {
    let Kind::List { items, .. } = &node.kind else { unreachable!("the reader gives lists") };
    match (head(node), version) {
        ("declare-const" | "declare-fun", Version::V1) => declare::constant(scope, items, node.at),
        ("declare-network", Version::V2) => declare::network(scope, items, node.at),
        ("assert", _) => assertions.assert(scope, &items[1..], node.at),
        ("set-logic" | "set-info" | "set-option" | "check-sat" | "exit", Version::V1) => Ok(()),
        ("declare-const" | "declare-fun", Version::V2) => Err(Fault::new(
            node.at,
            "VNN-LIB 2.0 declares networks",
            "write (declare-network f (declare-input X real [5]) ...)",
        )),
        ("declare-network", Version::V1) => {
            Err(Fault::new(node.at, "the file does not say its version", "begin the file with (vnnlib-version <2.0>)"))
        }
        (other, _) => {
            let cure = "use declarations and (assert ...)";
            Err(Fault::new(node.at, format!("`({} ...)` is not known", shown(other)), cure))
        }
    }
}

fn head<'t>(node: &Node<'t>) -> &'t str {
    match &node.kind {
        Kind::List { items, .. } => items.first().and_then(Node::word).unwrap_or_default(),
        Kind::Word(_) | Kind::Index(_) | Kind::Text => "",
    }
}

fn check_version(node: &Node) -> Result<(), Fault> {
    let Kind::List { items, .. } = &node.kind else { unreachable!("the reader gives lists") };
    let word = items.get(1).and_then(Node::word).unwrap_or_default();
    let version = word.strip_prefix('<').and_then(|w| w.strip_suffix('>')).and_then(|w| w.split_once('.'));
    match (version, items.len()) {
        (Some(("2", minor)), 2) if !minor.is_empty() && minor.bytes().all(|b| b.is_ascii_digit()) => Ok(()),
        _ => {
            let problem = format!("version `{}` is not supported", shown(word));
            Err(Fault::new(node.at, problem, "write (vnnlib-version <2.0>), or declare constants as in 1.0"))
        }
    }
}

fn finished(version: Version, scope: &Scope, end: usize) -> Result<(), Fault> {
    if version == Version::V1
        && let Some(name) = scope.gap()
    {
        let cure = "declare every input as X_0, X_1, ... and every output as Y_0, Y_1, ...";
        return Err(Fault::new(end, format!("`{name}` is not declared"), cure));
    }
    if scope.networks.is_empty() {
        return Err(Fault::new(end, "no network is declared", "write (declare-network f ...)"));
    }
    Ok(())
}
