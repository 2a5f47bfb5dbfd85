//! Models from files, and profiles from the command line.

use std::path::Path;

use anyhow::{Result, anyhow};
use quaver::model::ir::Model;
use quaver::model::lower::{LowerError, Lowered, lower};
use quaver::model::profile::{self, Profile, UnknownProfile};
use quaver::model::{self, ImportError, ReadOptions};

use crate::session::{Files, fail};

/// Help for `--profile`.
pub const PROFILE_HELP: &str = "Arithmetic of the runtime, such as ort-fused, tflite-xnnpack, tflite-micro, torch-fbgemm, any-engine, real, \
                                float32 or fixed-point(Q,F); `quaver doctor` lists them [default: ort-fused for a quantized ONNX \
                                model, tflite-xnnpack for a quantized TensorFlow Lite one, else float32]";

/// A profile's name, checked.
pub fn profile_name(text: &str) -> Result<String, UnknownProfile> {
    profile::parse(text).map(|p| p.id())
}

/// Two profiles' names, separated by a comma that is not inside parentheses.
pub fn profile_pair(text: &str) -> Result<(String, String), String> {
    let mut depth = 0;
    let comma = text.char_indices().find(|(_, c)| {
        depth += i32::from(*c == '(') - i32::from(*c == ')');
        *c == ',' && depth == 0
    });
    let (at, _) = comma.ok_or_else(|| format!("`{text}` is not two profiles: write for example real,ort-fused"))?;
    let name = |t: &str| profile_name(t).map_err(|e| e.to_string());
    Ok((name(&text[..at])?, name(&text[at + 1..])?))
}

/// The profile with this name, or the one that fits the model.
pub fn profile_for(model: &Model, name: Option<&str>) -> Result<Box<dyn Profile>> {
    Ok(match name {
        Some(name) => profile::parse(name)?,
        None => profile::default_for(model),
    })
}

/// Reads a model.
pub fn model(files: Files, path: &Path) -> Result<Model> {
    let options = ReadOptions::default();
    let read = match files.embedded(path) {
        Some(bytes) => model::read_bytes(bytes, path, &options),
        None => model::read(path, &options),
    };
    let named_otherwise = path.extension().is_some_and(|e| e != "onnx" && e != "tflite" && e != "gz");
    read.map_err(|e| match e {
        ImportError::Io { .. } => {
            fail(e.to_string(), "check the path: it must name an .onnx or .tflite file that can be read")
        }
        ImportError::Decode { .. } if named_otherwise => {
            let problem = format!("{}: neither an ONNX nor a TensorFlow Lite model", path.display());
            fail(problem, "convert it, and give the .onnx or .tflite file")
        }
        _ => anyhow!(e),
    })
}

/// A model's net.
pub struct Loaded {
    /// The net, and what lowering found out.
    pub lowered: Lowered,
    /// Names of the outputs in the file.
    pub outputs: Vec<String>,
}

/// Reads a model and lowers it.
pub fn lowered(files: Files, path: &Path, profile: Option<&str>) -> Result<Loaded> {
    let model = model(files, path)?;
    let lowered = lower(&model, &*profile_for(&model, profile)?)?;
    Ok(Loaded { lowered, outputs: model.outputs.iter().map(|&id| model.value(id).name.clone()).collect() })
}

/// Why a model has no net, on one line and without the file's name.
pub fn one_line(error: &LowerError, model: &Model) -> String {
    let text = error.to_string().replace("\n  what to do: ", "; ").replace('\n', " ");
    let place = format!("{}: ", model.source.path.display());
    text.strip_prefix(&place).map(str::to_string).unwrap_or(text)
}
