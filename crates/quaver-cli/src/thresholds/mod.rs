//! `quaver thresholds`: how far quantized networks can lead with a class that the float network does not give.

mod domain;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use quaver::guard::cells::Cells;
use quaver::guard::thresholds::{Bounds, Compared};
use quaver::model::lower::Lowered;
use quaver::net::execute;
use quaver::verify::{Options, PeakEffort};

use crate::ball::seconds;
use crate::format;
use crate::inputs::Inputs;
use crate::load;
use crate::session::Session;

/// Bound every disagreement of quantized networks and their float network, over all inputs of a box.
#[derive(clap::Args)]
pub struct Args {
    /// The float model (.onnx, .tflite, or gzipped), a classifier with one input and one output
    float: PathBuf,
    /// Quantized models of it
    #[arg(required = true)]
    quantized: Vec<PathBuf>,
    #[command(flatten, next_help_heading = "Which inputs")]
    domain: domain::Args,
    /// Cells of the inputs' sum, each with bounds of its own; without --data there is one
    #[arg(long, value_name = "N", default_value_t = 8)]
    cells: usize,
    /// Inputs, [N, shape]: cells get about as many of these each, and it is counted for how many the class is guaranteed
    #[arg(long, value_name = "X.npy")]
    data: Option<PathBuf>,
    /// Seconds for each quantized model
    #[arg(long, value_name = "S", default_value = "60", value_parser = seconds, allow_hyphen_values = true)]
    timeout: Duration,
    /// parts
    #[arg(long, default_value_t = 1)]
    parts: usize,
    /// climbs
    #[arg(long, default_value_t = 40)]
    climbs: usize,
    /// leaves
    #[arg(long, default_value_t = 0)]
    leaves: usize,
    /// Arithmetic of the quantized models [default: ort-fused up to 8 bits, else real]
    #[arg(long, value_name = "P", value_parser = load::profile_name)]
    profile: Option<String>,
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let float = Arc::new(load::lowered(session.files, &args.float, Some("float32"))?.lowered);
    let domain = args.domain.domain()?;
    let data = args.data.as_ref().map(|p| Inputs::read(session.files, std::slice::from_ref(p), &float)).transpose()?;
    let n = float.net.node(float.net.inputs()[0]).len();
    let rows = data.as_ref().map_or(vec![], |d| d.batch(0, d.rows).swap_remove(0));
    let sums: Vec<f64> = rows.chunks_exact(n).map(|x| domain.sum(x)).collect();
    let cells = Cells::new(n, domain.ends(), domain.grid.is_some(), sums.clone(), args.cells);
    let f_scores = execute(&float.net, &[rows.clone()], rows.len() / n).swap_remove(0).center;
    for path in &args.quantized {
        let q =
            Arc::new(load::lowered(session.files, path, Some(args.profile.as_deref().unwrap_or("ort-fused")))?.lowered);
        let start = Instant::now();
        let compared = Compared::new(float.clone(), q.clone(), domain.real, domain.grid.as_ref())?;
        let options = Options { timeout: args.timeout, ..Options::default() };
        let effort = PeakEffort { leaves: args.leaves, parts: args.parts, climbs: args.climbs };
        let mut all: Vec<Bounds> = vec![];
        for cell in 0..cells.len() {
            let total = (cells.len() > 1).then(|| cells.total(cell));
            all.push(compared.bounds(total, effort, &options)?);
        }
        let seconds = start.elapsed().as_secs_f64();
        report(session, path, &compared, &q, &cells, &all, (&rows, &sums, &f_scores), seconds)?;
    }
    Ok(())
}

#[allow(clippy::too_many_arguments)]
fn report(
    session: &mut Session<'_>,
    path: &std::path::Path,
    compared: &Compared,
    q: &Lowered,
    cells: &Cells,
    all: &[Bounds],
    (rows, sums, f_scores): (&[f64], &[f64], &[f64]),
    seconds: f64,
) -> Result<()> {
    let k = compared.classes();
    let scores = execute(&q.net, &[rows.to_vec()], sums.len()).swap_remove(0).center;
    let (mut accepted, mut wrong, mut same) = (0, 0, 0);
    for ((s, f), sum) in scores.chunks_exact(k).zip(f_scores.chunks_exact(k)).zip(sums) {
        let real: Vec<f64> = s.iter().map(|x| x * compared.scale()).collect();
        let c = format::argmax(&real);
        let ok = all[cells.of(*sum)].accepts(c, &real);
        same += usize::from(format::argmax(f) == c);
        accepted += usize::from(ok);
        wrong += usize::from(ok && format::argmax(f) != c);
    }
    let n = sums.len().max(1) as f64;
    let mean = all.iter().flat_map(|b| (0..k * k).filter(|i| i % (k + 1) != 0).map(|i| b.pair[i])).sum::<f64>()
        / (all.len() * k * (k - 1)) as f64;
    let least: Vec<f64> = (0..k)
        .map(|c| {
            all.iter()
                .map(|b| (0..k).filter(|r| *r != c).map(|r| b.least[c * k + r]).fold(0.0, f64::max))
                .fold(0.0, f64::max)
        })
        .collect();
    session.say(format!(
        "{}: {:.2} s, accepted {:.2} %, same {:.2} %, wrong {wrong}, mean pair {:.5}, mean d {:.5}, {} cells",
        path.display(),
        seconds,
        100.0 * accepted as f64 / n,
        100.0 * same as f64 / n,
        mean,
        least.iter().sum::<f64>() / k as f64,
        cells.len()
    ))
}
