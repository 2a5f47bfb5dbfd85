//! TensorFlow Lite files: a reader that refuses what it does not understand.

use std::path::Path;

use super::import::{ImportError, ReadOptions};
use super::ir::Model;

/// Whether bytes are a TensorFlow Lite model, by the identifier in their header.
pub(super) fn is_model(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(b"TFL3")
}

/// Reads a model from the bytes of an unpacked file; `path` serves for messages.
pub(super) fn decode(
    _bytes: &[u8],
    path: &Path,
    _sha256: String,
    _options: &ReadOptions,
) -> Result<Model, ImportError> {
    let (file, format) = (path.to_path_buf(), "a TensorFlow Lite model");
    Err(ImportError::Decode { file, format, message: "not read yet".into() })
}
