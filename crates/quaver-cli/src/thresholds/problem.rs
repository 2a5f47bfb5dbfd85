//! A float network, quantized ones, and the inputs that they are compared on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use quaver::guard::cells::Cells;
use quaver::guard::kernels::{Compiled, Isa};
use quaver::guard::plan::{Domain, FORMAT, Gate, Kind, Plan, Source, StagePlan};
use quaver::guard::thresholds::{Bounds, Compared};
use quaver::model::lower::Lowered;
use quaver::net::execute;
use quaver::num::Ratio;

use crate::ball::{self, clip, seconds};
use crate::certify::digest;
use crate::inputs::Inputs;
use crate::load;
use crate::session::{Files, Session, fail};

/// What thresholds are asked for.
#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// Smallest and largest value of every input element
    #[arg(long = "box", value_name = "LO,HI", default_value = "0,1", value_parser = clip, allow_hyphen_values = true)]
    range: (Ratio, Ratio),
    /// Only inputs whose elements are whole multiples of a step, as pixels are: grid:1/255. Guards take others to the float network
    #[arg(long, value_name = "grid:STEP", value_parser = step)]
    domain: Option<String>,
    /// Parts of the inputs with thresholds of their own, by the sum of an input's elements; they get about as many rows of --data each
    #[arg(long, value_name = "N", default_value_t = 4)]
    cells: usize,
    /// Inputs, [N, shape] or [N, elements]: cells are made from them, and it is counted for how many the class is guaranteed
    #[arg(long, value_name = "X.npy")]
    data: Option<PathBuf>,
    /// Seconds for each quantized network, after the first bounds
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds, allow_hyphen_values = true)]
    pub timeout: Duration,
    /// Arithmetic of the quantized networks [default: ort-fused where that is integers alone; real
    /// where a guard has integer kernels for it; else float32]
    #[arg(long, value_name = "P", value_parser = load::profile_name)]
    profile: Option<String>,
}

fn step(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is not a grid: write for example grid:1/255");
    let given = text.strip_prefix("grid:").ok_or_else(wrong)?;
    ball::step(given).map_or_else(|_| Err(wrong()), |_| Ok(given.into()))
}

/// A quantized network.
pub struct Quantized {
    pub path: PathBuf,
    pub lowered: Arc<Lowered>,
    /// Bits of the numbers that it multiplies, where it has kernels.
    pub bits: Option<u8>,
}

/// Rows of data.
pub struct Rows {
    /// As the networks take them.
    pub x: Vec<f64>,
    /// The sum of each, where thresholds hold for it.
    pub sums: Vec<Option<f64>>,
    /// What the float network gives.
    pub float: Vec<f64>,
}

/// Everything that is compared.
pub struct Problem {
    pub float_path: PathBuf,
    pub float: Arc<Lowered>,
    pub quantized: Vec<Quantized>,
    pub domain: Domain,
    pub cells: Cells,
    pub rows: Option<Rows>,
}

impl Problem {
    /// Reads all files.
    pub fn new(args: &Args, float_path: &Path, quantized: &[PathBuf], session: &Session<'_>) -> Result<Problem> {
        let files = session.files;
        let float = Arc::new(load::lowered(files, float_path, Some("float32"))?.lowered);
        let domain = Domain { lo: args.range.0.approx(), hi: args.range.1.approx(), step: args.domain.clone() };
        let unfit =
            |e: String| fail(e, "give a --box whose ends are multiples of the step, such as 0,1 with grid:1/255");
        let (gate, ends) = (domain.gate().map_err(unfit)?, domain.ends().map_err(unfit)?);
        let rows = args.data.as_ref().map(|path| Rows::read(files, path, &float, &gate)).transpose()?;
        let sums: Vec<f64> = rows.iter().flat_map(|r| r.sums.iter().copied().flatten()).collect();
        let len = float.net.node(float.net.inputs()[0]).len();
        let count = if sums.is_empty() { 1 } else { args.cells };
        let cells = Cells::new(len, ends, domain.step.is_some(), sums, count);
        let read = |path: &PathBuf| Quantized::read(files, path, args.profile.as_deref());
        let quantized = quantized.iter().map(read).collect::<Result<_>>()?;
        Ok(Problem { float_path: float_path.into(), float, quantized, domain, cells, rows })
    }

    /// The float network beside a quantized one.
    pub fn compared(&self, q: &Quantized) -> Result<Compared> {
        let grid = self.domain.grid().map_err(|e| anyhow!(e))?;
        let both =
            Compared::new(self.float.clone(), q.lowered.clone(), (self.domain.lo, self.domain.hi), grid.as_ref());
        both.map_err(|e| anyhow!("{} and {}: {e}", self.float_path.display(), q.path.display()))
    }

    /// A guard of some of the networks with their bounds.
    pub fn plan(&self, kind: Kind, bounds: Vec<Vec<Bounds>>) -> Result<Plan> {
        let stages = self.quantized.iter().zip(bounds).map(|(q, bounds)| {
            let network = source(&q.path, &q.lowered)?;
            let float = source(&self.float_path, &self.float)?;
            Ok(StagePlan { network, float, bits: q.bits()?, bounds })
        });
        let stages = stages.collect::<Result<Vec<_>>>()?;
        let classes = self.float.net.node(self.float.net.outputs()[0]).len();
        Ok(Plan {
            format: FORMAT.into(),
            kind,
            domain: self.domain.clone(),
            cells: self.cells.clone(),
            classes,
            stages,
        })
    }
}

fn source(path: &Path, lowered: &Lowered) -> Result<Source> {
    Ok(Source { file: path.display().to_string(), sha256: digest(path)?, profile: lowered.profile.clone() })
}

impl Quantized {
    fn read(files: Files, path: &Path, profile: Option<&str>) -> Result<Quantized> {
        let read = |profile: &str| -> Result<Quantized> {
            let lowered = Arc::new(load::lowered(files, path, Some(profile))?.lowered);
            let bits = Compiled::new(&lowered, Isa::Portable).ok().and_then(|c| c.effective_bits());
            Ok(Quantized { path: path.into(), lowered, bits })
        };
        match profile {
            Some(profile) => read(profile),
            None => match read("ort-fused") {
                Ok(fused) if fused.bits.is_some() => Ok(fused),
                _ => {
                    let real = read("real")?;
                    // Without integer kernels it is runtimes that add its products, in float32.
                    if real.bits.is_some() { Ok(real) } else { read("float32") }
                }
            },
        }
    }

    /// The bits of the numbers that it multiplies.
    pub fn bits(&self) -> Result<u8> {
        if let Some(bits) = self.bits {
            return Ok(bits);
        }
        Err(match Compiled::new(&self.lowered, Isa::Portable) {
            Err(e) => anyhow!("{}: {e}", self.path.display()),
            Ok(_) => fail(format!("{}: multiplies nothing", self.path.display()), "give a network with layers"),
        })
    }
}

impl Rows {
    fn read(files: Files, path: &PathBuf, float: &Lowered, gate: &Gate) -> Result<Rows> {
        let inputs = Inputs::read(files, std::slice::from_ref(path), float)?;
        let x = inputs.batch(0, inputs.rows).swap_remove(0);
        let sum = |row: &[f64]| gate.sum(&row.iter().map(|&v| v as f32).collect::<Vec<_>>());
        let sums = x.chunks_exact(x.len() / inputs.rows).map(sum).collect();
        let y = execute(&float.net, std::slice::from_ref(&x), inputs.rows).swap_remove(0).center;
        Ok(Rows { sums, float: y, x })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.sums.len()
    }
}
