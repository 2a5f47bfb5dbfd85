//! `quaver quantize`: a float model with fewer bits. What the methods share is here; each has a file of its own.

mod activations;
mod float16;
mod gpfq;
mod learned;
mod preserve;
mod refine;
mod report;
mod round;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use clap::ValueEnum;
use quaver::model::ir::Model;
use quaver::model::lower::{Lowered, lower};
use quaver::model::onnx;
use quaver::model::profile::Float32;
use quaver::num::Ratio;
use quaver::quantize::qdq::{to_float16, to_qdq};
use quaver::quantize::{BiasRule, Data, Quantized, Quantizer, WeightRule};

use crate::ball;
use crate::inputs::Inputs;
use crate::load;
use crate::robustness::labelled;
use crate::session::{Session, fail};
use activations::Activations;
pub use refine::widths;

/// Quantize a float model: weights to any bits of each layer, and activations if asked for.
///
/// Prints what became of each layer. The written model means the same numbers in both formats: `float` holds the values that the integers stand
/// for, `qdq` the integers themselves. docs/quantize.md has the formulas.
#[derive(clap::Args)]
pub struct Args {
    /// The float model (.onnx, .tflite, or gzipped)
    model: PathBuf,
    /// Write the quantized model here, as ONNX; with --preserve a folder for the model and everything about it
    #[arg(long, short, value_name = "OUT")]
    output: PathBuf,
    /// How integers and bits are chosen: by rounding each weight, up or down as fits data, by greedy path following on data, by rounding to the fewest bits
    /// that are proved to
    /// keep the network equivalent, or to keep what --preserve names (by verifying quantized networks, or by preimages as Quadapter does)
    /// [default: round; direct with --preserve]
    #[arg(long, value_enum)]
    method: Option<Method>,
    /// Bits of the weights, 2 to 32: one number for all layers, or one for each, such as 8,6,4; with --preserve what a layer may have, such as 2..16
    /// or 4,8,16 [default: 8; 2..16 with --preserve]
    #[arg(long, value_name = "BITS")]
    bits: Option<BitsArg>,
    /// Which integers and scales [default: symmetric]
    #[arg(long, value_enum)]
    scheme: Option<Scheme>,
    /// A scale for each output channel
    #[arg(long)]
    per_channel: bool,
    /// Bits of the biases: `same` as the weights, a number, `float` (not quantized), or `accumulator` (int32 as integer kernels add them)
    /// [default: same; accumulator with --activations; float with gpfq]
    #[arg(long, value_name = "same|float|accumulator|BITS")]
    bias: Option<Bias>,
    /// Quantize activations too, to 2 to 16 bits
    #[arg(long, value_name = "BITS")]
    activations: Option<u8>,
    /// Whether activations have a zero point of their own
    #[arg(long, value_enum, default_value_t = ActivationRule::Asymmetric, requires = "activations")]
    activation_scheme: ActivationRule,
    /// Where ends of activations come from: proved for every input of --box, or smallest and largest over --data
    /// [default: data with --data, else proved]
    #[arg(long, value_enum, requires = "activations")]
    ranges: Option<Source>,
    /// Multiply the ends of activations by this
    #[arg(long, value_name = "A", default_value = "1", requires = "activations")]
    alpha: Ratio,
    /// What the model's inputs are multiples of, such as 1/255: they get a scale that divides it where the bits suffice, and are not rounded
    #[arg(long, value_name = "STEP", requires = "activations", value_parser = ball::step)]
    input_step: Option<Ratio>,
    /// Leave the results of the model float
    #[arg(long, requires = "activations")]
    float_outputs: bool,
    /// learned: each row of --data stands for the box of this radius around it, in the units of what the first layer multiplies
    #[arg(long, value_name = "R", default_value = "0")]
    spread: Ratio,
    /// Inputs that ranges, learned rounding or gpfq are made from, [N, shape] or [N, elements]: FILE.npy, FILE.npz or FILE.npz:ARRAY
    #[arg(long, value_name = "X.npy")]
    data: Option<PathBuf>,
    /// gpfq: what the radius of the alphabet is measured by
    #[arg(long, value_enum, default_value_t = Radius::Maxima)]
    alphabet: Radius,
    /// gpfq: factor of that radius
    #[arg(long, value_name = "C", default_value = "1.16")]
    alphabet_factor: Ratio,
    /// What is written: float32 weights, integers with QuantizeLinear and DequantizeLinear, or, instead of all other methods, weights and
    /// activations in float16 [default: float; qdq with --activations]
    #[arg(long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    refine: refine::Args,
    #[command(flatten)]
    preserve: preserve::Args,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Method {
    Round,
    Learned,
    Gpfq,
    Refine,
    Direct,
    Preimage,
}

impl Args {
    fn method(&self) -> Method {
        let default = if self.preserve.what.is_empty() { Method::Round } else { Method::Direct };
        self.method.unwrap_or(default)
    }
}

/// Bits, as users write them.
#[derive(Clone, Debug, PartialEq)]
enum BitsArg {
    Range(u8, u8),
    List(Vec<u8>),
}

impl FromStr for BitsArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |_| format!("`{text}` is no number of bits, no list and no range: write 8, or 8,6,4, or 2..16");
        let number = |t: &str| t.trim().parse::<u8>().map_err(bad);
        match text.split_once("..") {
            Some((lo, hi)) => Ok(BitsArg::Range(number(lo)?, number(hi.trim_start_matches('='))?)),
            None => Ok(BitsArg::List(text.split(',').map(number).collect::<Result<_, _>>()?)),
        }
    }
}

/// Which integers and scales, as users write it.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Scheme {
    Symmetric,
    Asymmetric,
    MinMax,
    Fitted,
    Ceg4n,
    PowerOfTwo,
}

impl From<Scheme> for WeightRule {
    fn from(scheme: Scheme) -> WeightRule {
        match scheme {
            Scheme::Symmetric => WeightRule::Symmetric,
            Scheme::Asymmetric => WeightRule::Asymmetric,
            Scheme::MinMax => WeightRule::MinMax,
            Scheme::Fitted => WeightRule::Fitted,
            Scheme::Ceg4n => WeightRule::Ceg4n,
            Scheme::PowerOfTwo => WeightRule::PowerOfTwo,
        }
    }
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum ActivationRule {
    Symmetric,
    Asymmetric,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Source {
    Proved,
    Data,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Radius {
    Maxima,
    Median,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    Float,
    Qdq,
    Float16,
}

/// What happens to biases, as users write it.
#[derive(Clone, Copy)]
pub struct Bias(pub BiasRule);

impl FromStr for Bias {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Bias(match text {
            "same" => BiasRule::Same,
            "float" => BiasRule::Float,
            "accumulator" => BiasRule::Accumulator,
            _ => {
                let bad = |_| format!("`{text}` is not same, float, accumulator or a number of bits");
                BiasRule::Bits(text.parse().map_err(bad)?)
            }
        }))
    }
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    if args.format == Some(Format::Float16) {
        return float16::run(args, session);
    }
    let job = Job::new(args, session)?;
    let quantized = match args.method() {
        Method::Direct | Method::Preimage => return preserve::run(&job, session),
        _ if !args.preserve.what.is_empty() => {
            return Err(fail("--preserve has methods of its own", "leave --method out, or use direct or preimage"));
        }
        Method::Round => round::quantize(&job)?,
        Method::Learned => learned::quantize(&job)?,
        Method::Gpfq => gpfq::quantize(&job)?,
        Method::Refine => refine::quantize(&job, session)?,
    };
    job.conclude(&quantized, session)
}

/// What every method needs.
struct Job<'a> {
    args: &'a Args,
    quantizer: Quantizer,
    /// Bits of each layer.
    bits: Vec<u8>,
    /// Rows of --data, one behind the other.
    data: Option<Vec<f64>>,
    format: Format,
}

impl<'a> Job<'a> {
    fn new(args: &'a Args, session: &Session<'_>) -> Result<Self> {
        let model = load::model(session.files, &args.model)?;
        // With the path of the file in messages.
        quaver::quantize::layers(&model)?;
        let quantizer = Quantizer::new(&model)?;
        let bits = match args.method() {
            // They have ranges and sets of bits.
            Method::Direct | Method::Preimage => vec![],
            Method::Round | Method::Learned | Method::Gpfq | Method::Refine => {
                each_layer(&args.bits, quantizer.layers().len())?
            }
        };
        let format = match args.format {
            Some(Format::Float) if args.activations.is_some() => {
                let problem = "quantized activations have no float format";
                return Err(fail(problem, "leave --format out, or use --format qdq"));
            }
            Some(format) => format,
            None if args.activations.is_some() => Format::Qdq,
            None => Format::Float,
        };
        let data = args.data.as_deref().map(|path| rows(path, &model, session)).transpose()?;
        Ok(Job { args, quantizer, bits, data, format })
    }

    /// Rows and classes for accuracy, if there are any.
    fn labelled(&self, original: &Lowered, session: &Session<'_>) -> Result<Option<Data>> {
        labelled(&self.args.data, &self.args.refine.how.data_labels, original, session)
    }

    /// The rows of --data.
    fn data(&self) -> Result<&[f64]> {
        let missing = || fail("--data is not given", "give inputs of the model, such as --data X.npy");
        self.data.as_deref().ok_or_else(missing)
    }

    /// The model as it is written.
    fn file_model(&self, quantized: &Quantized, activations: Option<&Activations>) -> Result<Model> {
        Ok(match self.format {
            Format::Float => quantized.model.clone(),
            Format::Qdq => to_qdq(&self.quantizer, quantized, activations.map(|a| (&a.scheme, &a.ranges)))?,
            Format::Float16 => to_float16(&self.quantizer)?,
        })
    }

    /// Writes the model and says what it is.
    fn conclude(&self, quantized: &Quantized, session: &mut Session<'_>) -> Result<()> {
        let activations = Activations::new(self)?;
        let model = self.file_model(quantized, activations.as_ref())?;
        write(&model, &self.args.output)?;
        report::print(self, quantized, activations.as_ref(), session)
    }
}

/// Writes a model; gives its bytes.
fn write(model: &Model, path: &Path) -> Result<usize> {
    let bytes = onnx::write(model)?;
    std::fs::write(path, &bytes).map_err(|e| {
        fail(format!("{}: cannot write the file: {e}", path.display()), "check that the folder exists and has room")
    })?;
    Ok(bytes.len())
}

/// Bits for each layer.
fn each_layer(bits: &Option<BitsArg>, layers: usize) -> Result<Vec<u8>> {
    match bits {
        None => Ok(vec![8; layers]),
        Some(BitsArg::List(list)) if list.len() == 1 => Ok(vec![list[0]; layers]),
        Some(BitsArg::List(list)) if list.len() == layers => Ok(list.clone()),
        Some(BitsArg::List(list)) => {
            let problem = format!("--bits has {} numbers, and the model {layers} layers", list.len());
            Err(fail(problem, "give one number, or one for each layer"))
        }
        Some(BitsArg::Range(lo, hi)) => {
            let problem = format!("--bits {lo}..{hi} is a range");
            Err(fail(problem, "give one number, or one for each layer; a range is for --preserve"))
        }
    }
}

/// Rows of the model's input, one behind the other.
fn rows(path: &Path, model: &Model, session: &Session<'_>) -> Result<Vec<f64>> {
    let lowered = lower(model, &Float32)?;
    let inputs = Inputs::read(session.files, &[path.to_path_buf()], &lowered)?;
    Ok(inputs.batch(0, inputs.rows).swap_remove(0))
}
