//! Where the HiGHS library is.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Prints the folder of the Python package `highspy`, without importing it.
const WHERE: &str =
    "import importlib.util as u; s = u.find_spec('highspy'); print(s.submodule_search_locations[0] if s else '')";

/// The library is not there.
#[derive(Debug, thiserror::Error)]
#[error("HiGHS was not found: {0}")]
pub struct NotFound(String);

/// The HiGHS library inside the Python package `highspy` of an interpreter.
///
/// # Errors
/// If the interpreter does not run, or its package `highspy` is missing or holds no library.
pub fn find_highs(python: &str) -> Result<PathBuf, NotFound> {
    let ran = Command::new(python).args(["-c", WHERE]).output();
    let output = ran.map_err(|e| NotFound(format!("`{python}` does not run: {e}")))?;
    let package = String::from_utf8_lossy(&output.stdout).trim().to_string();
    if package.is_empty() {
        return Err(NotFound(format!("`{python}` has no package highspy")));
    }
    let package = PathBuf::from(package);
    let beside = package.with_file_name("highspy.libs");
    let found = [&package, &beside].into_iter().find_map(|folder| library_in(folder));
    found.ok_or_else(|| NotFound(format!("no library of HiGHS in {}", package.display())))
}

/// A file of the folder that is named like the HiGHS library on Linux, macOS or Windows; of several the first by name.
fn library_in(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let mut found: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| is_library(p)).collect();
    found.sort();
    found.into_iter().next()
}

fn is_library(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    let ends = [".so", ".dylib", ".dll"].iter().any(|e| name.ends_with(e)) || name.contains(".so.");
    ends && (name.starts_with("libhighs") || name.starts_with("highs."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_known_by_name() {
        let yes = ["libhighs.so.1", "libhighs-1a2b.so.1.15.1", "libhighs.1.dylib", "highs.dll", "libhighs.dll"];
        assert!(yes.iter().all(|n| is_library(Path::new(n))));
        let no = ["_core.cpython-311-x86_64-linux-gnu.so", "highs.py", "libz.so.1", "libhighs.a"];
        assert!(!no.iter().any(|n| is_library(Path::new(n))));
    }

    #[test]
    fn says_what_is_missing() {
        let error = find_highs("no-such-python").expect_err("no such program").to_string();
        assert!(error.contains("no-such-python"), "{error}");
    }
}
