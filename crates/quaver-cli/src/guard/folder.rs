//! A guard in a folder: `guard.json` and the networks beside it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use quaver::guard::kernels::Isa;
use quaver::guard::plan::{FORMAT, Plan, Source};
use quaver::guard::run::Guard;
use quaver::model::lower::Lowered;

use crate::certify::digest;
use crate::load;
use crate::session::{Files, fail};

/// The plan's file.
const NAME: &str = "guard.json";

/// A guard with its networks.
pub struct Folder {
    pub plan: Plan,
    pub path: PathBuf,
    /// The float network that answers in the end.
    pub float: Lowered,
    pub stages: Vec<Lowered>,
}

impl Folder {
    /// Reads a guard, and makes sure that its networks are the ones that thresholds were proved for.
    pub fn read(path: &Path) -> Result<Folder> {
        let file = path.join(NAME);
        let cure = "give the folder that `quaver guard build` wrote";
        let text = std::fs::read_to_string(&file).map_err(|e| fail(format!("{}: {e}", file.display()), cure))?;
        let plan: Plan = serde_json::from_str(&text).map_err(|e| fail(format!("{}: {e}", file.display()), cure))?;
        if plan.format != FORMAT {
            return Err(fail(
                format!("{}: format `{}`, not `{FORMAT}`", file.display(), plan.format),
                "build the guard again",
            ));
        }
        let first = plan.stages.first().ok_or_else(|| fail(format!("{}: no networks", file.display()), cure))?;
        let network = |source: &Source| -> Result<Lowered> {
            let file = path.join(&source.file);
            if digest(&file)? != source.sha256 {
                let problem = format!("{} is not the network that thresholds were proved for", file.display());
                return Err(fail(problem, "build the guard again"));
            }
            Ok(load::lowered(Files::Disk, &file, Some(&source.profile))?.lowered)
        };
        let float = network(&first.float)?;
        let stages = plan.stages.iter().map(|s| network(&s.network)).collect::<Result<_>>()?;
        Ok(Folder { path: path.into(), float, stages, plan })
    }

    /// The guard that runs.
    pub fn guard(&self, isa: Isa) -> Result<Guard> {
        let stages: Vec<&Lowered> = self.stages.iter().collect();
        Guard::new(&self.plan, &self.float, &stages, isa).map_err(|e| anyhow!("{}: {e}", self.path.display()))
    }

    /// What the networks are called: the float one last.
    pub fn names(&self) -> Vec<String> {
        let stages = self.plan.stages.iter().map(|s| s.network.file.clone());
        stages.chain(self.plan.stages.iter().take(1).map(|s| s.float.file.clone())).collect()
    }
}

/// Writes a guard: copies its networks, under names that do not collide, and the plan.
pub fn write(mut plan: Plan, path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("{}: cannot make the folder", path.display()))?;
    let mut taken: Vec<(String, String)> = vec![];
    for stage in &mut plan.stages {
        for source in [&mut stage.network, &mut stage.float] {
            source.file = copy(source, path, &mut taken)?;
        }
    }
    let file = path.join(NAME);
    let text = serde_json::to_string_pretty(&plan)?;
    std::fs::write(&file, text).with_context(|| format!("{}: cannot write the file", file.display()))
}

/// Copies a network; gives its new name. `taken` has names, and what is there.
fn copy(source: &Source, folder: &Path, taken: &mut Vec<(String, String)>) -> Result<String> {
    if let Some(known) = taken.iter().find(|t| t.1 == source.sha256) {
        return Ok(known.0.clone());
    }
    let from = Path::new(&source.file);
    let base = from.file_name().map_or_else(|| "network.onnx".into(), |n| n.to_string_lossy().into_owned());
    let is_free = |name: &String| taken.iter().all(|t| t.0 != *name);
    let numbered = (2..).map(|i| format!("{i}_{base}"));
    let name = std::iter::once(base.clone()).chain(numbered).find(is_free).unwrap_or(base);
    let to = folder.join(&name);
    let bytes = std::fs::read(from).with_context(|| format!("{}: cannot read the file", from.display()))?;
    std::fs::write(&to, bytes).with_context(|| format!("{}: cannot write the file", to.display()))?;
    taken.push((name.clone(), source.sha256.clone()));
    Ok(name)
}
