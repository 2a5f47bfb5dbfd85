//! Lists of instances.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A table with named columns.
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Reads a CSV file whose first line names columns, or has none of these words: then they are its columns.
    pub fn read(path: &Path, headerless: &[&str], other: &[&str]) -> Result<Table> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{}: cannot read the file", path.display()))?;
        let split =
            |line: &str| -> Vec<String> { line.split(',').map(|f| f.trim().trim_matches('"').to_string()).collect() };
        let mut rows: Vec<Vec<String>> = text.lines().filter(|l| !l.trim().is_empty()).map(split).collect();
        if rows.is_empty() {
            bail!("{}: has no lines", path.display());
        }
        let named = rows[0].iter().any(|f| headerless.contains(&&f[..]) || other.contains(&&f[..]));
        let columns = if named { rows.remove(0) } else { headerless.iter().map(|c| c.to_string()).collect() };
        if let Some(short) = rows.iter().position(|r| r.len() < columns.len().min(headerless.len())) {
            bail!(
                "{}: row {short} has {} fields\n  what to do: give {}",
                path.display(),
                rows[short].len(),
                columns.join(",")
            );
        }
        Ok(Table { columns, rows })
    }

    /// The rows as maps from column to field.
    pub fn rows(&self) -> impl Iterator<Item = HashMap<&str, &str>> {
        self.rows.iter().map(|row| self.columns.iter().map(|c| &c[..]).zip(row.iter().map(|f| &f[..])).collect())
    }

    /// The columns before one.
    fn before(&self, column: &str) -> Vec<&str> {
        self.columns.iter().map(|c| &c[..]).take_while(|c| *c != column).collect()
    }
}

/// A query, its models, and what is published about it.
pub struct Instance {
    /// `onnx/a.onnx vnnlib/b.vnnlib`, as in the list.
    pub name: String,
    /// (network, file); the network is empty where the query has one.
    pub models: Vec<(String, PathBuf)>,
    pub query: PathBuf,
    pub timeout_s: Option<f64>,
    /// `sat`, `unsat`, something else, or nothing.
    pub expected: String,
}

/// Reads a folder's `instances.csv`, or a CSV file: columns for the models, then `vnnlib`, then `timeout_s`, perhaps `expected`.
pub fn instances(path: &Path) -> Result<Vec<Instance>> {
    let file = if path.is_dir() { path.join("instances.csv") } else { path.to_path_buf() };
    let folder = file.parent().unwrap_or(Path::new("."));
    let table = Table::read(&file, &["onnx", "vnnlib", "timeout_s"], &[])?;
    let networks = table.before("vnnlib");
    let instance = |row: HashMap<&str, &str>| {
        let field = |name: &str| row.get(name).copied().unwrap_or_default();
        let place = |name: &str| present(folder, field(name));
        let network = |n: &str| if n == "onnx" { String::new() } else { n.to_string() };
        let names: Vec<&str> = networks.iter().map(|n| field(n)).chain([field("vnnlib")]).collect();
        Instance {
            name: names.join(" "),
            models: networks.iter().map(|n| (network(n), place(n))).collect(),
            query: place("vnnlib"),
            timeout_s: field("timeout_s").parse().ok(),
            expected: field("expected").to_string(),
        }
    };
    Ok(table.rows().map(instance).collect())
}

/// A file as it is, or gzipped.
fn present(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let packed = folder.join(format!("{name}.gz"));
    if !path.exists() && packed.exists() { packed } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, text: &str) -> Vec<Instance> {
        let path = std::env::temp_dir().join(format!("quaver-bench-{}-{name}.csv", std::process::id()));
        std::fs::write(&path, text).expect("a file");
        let found = instances(&path).expect("a list");
        std::fs::remove_file(path).expect("to remove it");
        found
    }

    #[test]
    fn lists_with_and_without_a_header_are_read() {
        let [one, two] = &listed(
            "header",
            "onnx,vnnlib,timeout_s,expected,n\na.onnx,p.vnnlib,116,unsat,3\nb.onnx,q.vnnlib,1.5,sat,0\n",
        )[..] else {
            panic!("two instances")
        };
        assert_eq!((&one.expected[..], one.timeout_s, &one.models[0].0[..]), ("unsat", Some(116.0), ""));
        assert_eq!((&two.name[..], two.timeout_s), ("b.onnx q.vnnlib", Some(1.5)));
        let bare = listed("bare", "a.onnx,p.vnnlib,100\n");
        assert_eq!((bare.len(), bare[0].timeout_s, bare[0].expected.is_empty()), (1, Some(100.0), true));
        let pair = listed("pair", "f,g,vnnlib,timeout_s\nx.onnx,y.onnx,p.vnnlib,100\n");
        let names: Vec<&str> = pair[0].models.iter().map(|m| &m.0[..]).collect();
        assert_eq!(names, ["f", "g"]);
    }
}
