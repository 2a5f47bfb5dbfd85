//! Module arrows point one way: a module may use only the modules before it in this list.

use std::fs;
use std::path::{Path, PathBuf};

/// Bottom first.
const ORDER: [&str; 12] = [
    "num",
    "lp",
    "net",
    "model",
    "vnnlib",
    "property",
    "bounds",
    "certificate",
    "verify",
    "export",
    "quantize",
    "guard",
];

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Names that follow `crate::` anywhere in a text: in `use` lines and in paths.
fn used(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().filter(|l| !l.trim_start().starts_with("//"));
    code.flat_map(|l| l.split("crate::").skip(1)).map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

#[test]
fn arrows_point_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = vec![];
    for (level, module) in ORDER.iter().enumerate() {
        let mut files = vec![];
        sources(&root.join(module), &mut files);
        assert!(!files.is_empty(), "module {module} has gone: update the list");
        for file in files {
            let text = fs::read_to_string(&file).expect("a source file");
            for name in used(&text) {
                let target = ORDER.iter().position(|m| *m == name).unwrap_or_else(|| panic!("unknown module {name}"));
                if target > level {
                    wrong.push(format!("{} uses {name}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "upward arrows:\n{}", wrong.join("\n"));
}

#[test]
fn every_module_is_in_the_list() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(root).expect("sources") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        assert!(!path.is_dir() || ORDER.contains(&name), "module {name} has no place in the order");
    }
}
