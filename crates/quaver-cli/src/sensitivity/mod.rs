//! `quaver sensitivity`: what each layer loses at each width when it alone is quantized.

mod config;
mod report;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use quaver::model::lower::{Lowered, lower};
use quaver::num::Ratio;
use quaver::property::{self, Robustness, Ties};
use quaver::quantize::one_layer::{Loss, Measured, Measures, OneLayer};
use quaver::quantize::{BiasRule, LayerScheme, Quantizer, WeightRule};
use quaver::verify::Options;

use crate::ball::{Radius, Rows, clip, rows, seconds};
use crate::inputs::Inputs;
use crate::npy::Array;
use crate::quantize::{Bias, Scheme, widths};
use crate::robustness::{classes, labelled, labels};
use crate::session::{Session, fail};
use crate::{load, progress};

/// Widths that ONNX Runtime's quantizer knows for weights.
const RUNTIME_BITS: [u8; 3] = [4, 8, 16];

/// Measure what each layer loses at each width when it alone is quantized.
///
/// For each layer and width: the accuracy on --data, and with --radius the least proved margin over balls and how many of them stay proved.
/// Then, for each layer, the least width that ONNX Runtime's quantizer knows and that loses nothing but --max-drop of accuracy.
/// docs/sensitivity.md says what the numbers mean.
#[derive(clap::Args)]
pub struct Args {
    /// The float model (.onnx, .tflite, or gzipped)
    model: PathBuf,
    /// Inputs that accuracy is measured on, [N, shape] or [N, elements]: FILE.npy, FILE.npz or FILE.npz:ARRAY
    #[arg(long, value_name = "X.npy", requires = "data_labels")]
    data: Option<PathBuf>,
    /// Classes of the rows of --data
    #[arg(long, value_name = "Y.npy", requires = "data")]
    data_labels: Option<PathBuf>,
    /// Radius of balls around inputs, such as 2/255
    #[arg(long, value_name = "R", allow_hyphen_values = true)]
    radius: Option<Radius>,
    /// Centres of the balls [default: the rows of --data]
    #[arg(long, value_name = "X.npy", requires = "radius")]
    inputs: Option<PathBuf>,
    /// Classes of the rows of --inputs [default: the class that the float model gives]
    #[arg(long, value_name = "Y.npy", requires = "inputs")]
    labels: Option<PathBuf>,
    /// Rows that are centres, such as 0..100 or 3,7,20..30 [default: all]
    #[arg(long, value_name = "ROWS", value_delimiter = ',', requires = "radius")]
    indices: Vec<Rows>,
    /// Smallest and largest value of an input element, such as 0,1
    #[arg(long, value_name = "LO,HI", value_parser = clip, allow_hyphen_values = true)]
    clip: Option<(Ratio, Ratio)>,
    /// Seconds for bounds and again for the search in each ball
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds, allow_hyphen_values = true)]
    timeout: Duration,
    /// Widths to measure
    #[arg(long, value_name = "LO..HI", default_value = "2..8", value_parser = widths)]
    bits: RangeInclusive<u8>,
    /// Which integers and scales
    #[arg(long, value_enum, default_value_t = Scheme::Symmetric)]
    scheme: Scheme,
    /// A scale for each output channel
    #[arg(long)]
    per_channel: bool,
    /// Bits of the biases: `same` as the weights, a number, or `float` (not quantized) [default: float, because ONNX Runtime keeps 32 bits]
    #[arg(long, value_name = "same|float|BITS")]
    bias: Option<Bias>,
    /// How much accuracy a layer may lose, as a share of --data
    #[arg(long, value_name = "D", default_value = "0.01")]
    max_drop: Ratio,
    /// Write the recommended types here, as arguments of ONNX Runtime's quantize_static in JSON (see tools/ort_quantize_with.py)
    #[arg(long, value_name = "OUT.json")]
    config: Option<PathBuf>,
    #[arg(long, value_name = "P", value_parser = load::profile_name, help = load::PROFILE_HELP)]
    profile: Option<String>,
    /// Seed of the attack
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// What was measured of one layer.
struct Row {
    name: String,
    /// In the order of the widths.
    cells: Vec<Measured>,
    advice: Advice,
}

/// The least width of [`RUNTIME_BITS`] that loses nothing, and why the one before it would not do.
struct Advice {
    bits: Option<u8>,
    measured: Option<Measured>,
    below: Option<(u8, Loss)>,
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let start = Instant::now();
    let model = load::model(session.files, &args.model)?;
    // With the path of the file in messages.
    let layers = quaver::quantize::layers(&model)?;
    let quantizer = Quantizer::new(&model)?;
    let profile = load::profile_for(&model, args.profile.as_deref())?;
    let original = lower(&model, &*profile)?;
    if args.data.is_none() && args.radius.is_none() {
        return Err(fail(
            "there is nothing to measure",
            "give --data X.npy --data-labels Y.npy, or --radius R, or both",
        ));
    }
    let verification = Options { timeout: args.timeout, seed: args.seed, ..Options::default() };
    let (data, balls) =
        (labelled(&args.data, &args.data_labels, &original, session)?, balls(args, &original, session)?);
    let measures = Measures { profile: &*profile, data, balls, verification };
    let one = OneLayer::new(&quantizer, args.layer_scheme(), measures)?;
    let report = report::Report { args, original: &original, one: &one };
    report.begin(session)?;
    let bar = progress::spinner();
    let mut found = vec![];
    for (k, layer) in layers.iter().enumerate() {
        let mut cells = vec![];
        for bits in args.bits.clone() {
            bar.set_message(format!("{} at {bits} bits", layer.name));
            cells.push(one.at(k, bits)?);
        }
        let advice = advise(args, &one, k, &cells)?;
        found.push(Row { name: layer.name.clone(), cells, advice });
    }
    bar.finish_and_clear();
    report.end(&found, start.elapsed().as_secs_f64(), session)?;
    match &args.config {
        Some(path) => config::write(path, args, &model, &layers, &found, session),
        None => Ok(()),
    }
}

impl Args {
    fn layer_scheme(&self) -> LayerScheme {
        let biases = self.bias.map_or(BiasRule::Float, |b| b.0);
        LayerScheme { bits: *self.bits.start(), rule: self.rule(), per_channel: self.per_channel, biases }
    }

    fn rule(&self) -> WeightRule {
        self.scheme.into()
    }
}

/// The balls, with the class of each.
fn balls(args: &Args, original: &Lowered, session: &Session<'_>) -> Result<Vec<Robustness>> {
    let Some(radius) = &args.radius else { return Ok(vec![]) };
    let Some(path) = args.inputs.as_ref().or(args.data.as_ref()) else {
        return Err(fail("--radius has no inputs to be around", "give --inputs X.npy, or --data X.npy"));
    };
    let radius = radius.value(original)?;
    let inputs = Inputs::read(session.files, std::slice::from_ref(path), original)?;
    let rows = rows(&args.indices, inputs.rows, path)?;
    let given = if args.inputs.is_some() { &args.labels } else { &args.data_labels };
    let labels: Vec<usize> = match given {
        Some(of) => {
            let all = labels(&Array::read(session.files, of)?, inputs.rows, original)?;
            rows.iter().map(|&r| all[r]).collect()
        }
        None => classes(original, &inputs, &rows),
    };
    let ball = |(&row, label): (&usize, usize)| {
        let center = inputs.batch(row, row + 1).swap_remove(0);
        let region = property::ball(original, &center, &radius, args.clip.as_ref())
            .map_err(|e| fail(format!("row {row}: {e}"), "change --clip, or leave the row out with --indices"))?;
        Ok(Robustness { region, center: Some(center), label, ties: Ties::Strict })
    };
    rows.iter().zip(labels).map(ball).collect()
}

/// The least width that the runtime knows and that loses nothing.
fn advise(args: &Args, one: &OneLayer<'_>, layer: usize, cells: &[Measured]) -> Result<Advice> {
    let mut below = None;
    for bits in RUNTIME_BITS {
        let known = args.bits.clone().position(|b| b == bits).map(|k| cells[k].clone());
        let measured = known.map_or_else(|| one.at(layer, bits), Ok)?;
        match one.loss(&measured, args.max_drop.approx()) {
            Some(loss) => below = Some((bits, loss)),
            None => return Ok(Advice { bits: Some(bits), measured: Some(measured), below }),
        }
    }
    Ok(Advice { bits: None, measured: None, below })
}
