//! Reading model files: the format is told by the bytes, not by the name.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::import::{ImportError, ReadOptions};
use super::ir::Model;
use super::{onnx, tflite};

/// Reads a model from a file: ONNX or TensorFlow Lite, as it is or gzipped.
///
/// # Errors
/// If the file cannot be read, or says something that is not understood; the error names it.
pub fn read(path: &Path, options: &ReadOptions) -> Result<Model, ImportError> {
    let io = |source| ImportError::Io { file: path.to_path_buf(), source };
    let bytes = limited(File::open(path).map_err(io)?, path, options)?;
    read_bytes(&bytes, path, options)
}

/// Reads a model from the bytes of a file; `path` serves for messages and for finding external data.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(bytes: &[u8], path: &Path, options: &ReadOptions) -> Result<Model, ImportError> {
    if bytes.len() as u64 > options.max_file_bytes {
        return Err(ImportError::TooLarge { file: path.to_path_buf(), limit: options.max_file_bytes });
    }
    let sha256 = sha256(bytes);
    let unpacked;
    let message = if bytes.starts_with(&[0x1f, 0x8b]) {
        unpacked = limited(MultiGzDecoder::new(bytes), path, options)?;
        &unpacked[..]
    } else {
        bytes
    };
    if tflite::is_model(message) {
        tflite::decode(message, path, sha256, options)
    } else {
        onnx::decode(message, path, sha256, options)
    }
}

fn limited(from: impl Read, path: &Path, options: &ReadOptions) -> Result<Vec<u8>, ImportError> {
    let limit = options.max_file_bytes;
    let mut bytes = Vec::new();
    from.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| ImportError::Io { file: path.to_path_buf(), source })?;
    if bytes.len() as u64 > limit {
        return Err(ImportError::TooLarge { file: path.to_path_buf(), limit });
    }
    Ok(bytes)
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
