//! The experiment of Quadapter's table 2: for each input and radius, bits of each layer that keep the network's class.
//!
//! Usage: `preimage MODEL.onnx INPUTS.npy RADII [WAY [LEAST RELAXED [once]]]`. Inputs are float32 rows between 0 and 1; radii are numbers of
//! 255ths, with commas;
//! the way is abstraction, exact or both; LEAST is the fewest fraction bits (1), RELAXED the share of a hidden layer's bounds that
//! may fail (0); `once` chooses bits in one pass, as published.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use quaver::model::lower::lower;
use quaver::model::profile::Real;
use quaver::model::{ReadOptions, read};
use quaver::net::execute;
use quaver::num::Ratio;
use quaver::property::{Robustness, Ties, ball};
use quaver::quantize::Quantizer;
use quaver::quantize::preimage::{Chain, Options, Preimage, Way, choose, preimage};

/// What is summed over all tasks.
#[derive(Default)]
struct Totals {
    tasks: usize,
    small: usize,
    solved: usize,
    bits: Vec<f64>,
    preimages: Duration,
    choices: Duration,
    slowest: Duration,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, inputs, radii, rest @ ..] = &args[..] else {
        return Err("usage: preimage MODEL.onnx INPUTS.npy RADII [WAY [LEAST RELAXED [once]]]".into());
    };
    let model = read(Path::new(model), &ReadOptions::default())?;
    let options = options(rest)?;
    let (lowered, quantizer) = (lower(&model, &Real)?, Quantizer::new(&model)?);
    let chain = Chain::new(&lowered)?;
    let npy = npyz::NpyFile::new(std::fs::File::open(inputs)?)?;
    let rows: Vec<f32> = npy.into_vec()?;
    let mut totals = Totals::default();
    for (number, x) in rows.chunks(chain.inputs()).enumerate() {
        let x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        let scores = &execute(&lowered.net, std::slice::from_ref(&x), 1)[0].center;
        let label = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap_or(0);
        for radius in radii.split(',') {
            let number_of = |x: f64| Ratio::from_f64(x).ok_or("not a number");
            let (zero, one) = (number_of(0.0)?, number_of(1.0)?);
            let region = ball(&lowered, &x, &number_of(radius.parse()?)?.over(&number_of(255.0)?), Some(&(zero, one)))?;
            let claim = Robustness { region, center: None, label, ties: Ties::Strict };
            let start = Instant::now();
            let found = preimage(&chain, &claim.query(scores.len()), &options)?;
            print!("{number}\t{radius}\t");
            one_task(&quantizer, found, &options, start, &mut totals)?;
        }
    }
    totals.print();
    Ok(())
}

fn options(args: &[String]) -> Result<Options, Box<dyn Error>> {
    let way = match args.first().map(String::as_str) {
        None | Some("both") => Way::Both,
        Some("abstraction") => Way::Abstraction,
        Some("exact") => Way::Exact,
        Some(other) => return Err(format!("`{other}` is no way: abstraction, exact or both").into()),
    };
    let mut options = Options { way, ..Options::default() };
    if let [_, least, relaxed, once @ ..] = args {
        (options.least, options.relaxed, options.again) = (least.parse()?, relaxed.parse()?, once.is_empty());
    }
    Ok(options)
}

fn one_task(
    quantizer: &Quantizer,
    found: Option<Preimage>,
    options: &Options,
    start: Instant,
    totals: &mut Totals,
) -> Result<(), Box<dyn Error>> {
    let first = start.elapsed();
    totals.tasks += 1;
    totals.preimages += first;
    totals.slowest = totals.slowest.max(first);
    let Some(found) = found else {
        totals.small += 1;
        println!("no preimage\t{:.2} s", first.as_secs_f64());
        return Ok(());
    };
    let scalings: Vec<String> = found.scalings.iter().map(|chi| format!("{chi:.3}")).collect();
    let choice = choose(quantizer, &[found], options)?;
    let second = start.elapsed() - first;
    totals.choices += second;
    let bits: Vec<Option<u8>> = choice.layers.iter().map(|l| l.fraction.map(|f| f + l.integer)).collect();
    let known: Vec<u8> = bits.iter().copied().flatten().collect();
    if choice.schemes.is_some() {
        totals.solved += 1;
        totals.bits.resize(known.len(), 0.0);
        totals.bits.iter_mut().zip(&known).for_each(|(t, b)| *t += f64::from(*b));
    }
    let mark = if choice.schemes.is_some() { "" } else { " failed" };
    println!("{}\t{known:?}{mark}\t{:.2} s\t{:.2} s", scalings.join(" "), first.as_secs_f64(), second.as_secs_f64());
    Ok(())
}

impl Totals {
    fn print(&self) {
        let share = |d: Duration| d.as_secs_f64() / self.tasks.max(1) as f64;
        let mean: Vec<String> = self.bits.iter().map(|b| format!("{:.1}", b / self.solved.max(1) as f64)).collect();
        println!("{} tasks, {} solved, {} without a preimage", self.tasks, self.solved, self.small);
        println!("mean bits {}", mean.join(", "));
        let (first, second) = (share(self.preimages), share(self.choices));
        println!(
            "mean {first:.2} s for the preimage (most {:.2}), {second:.2} s for the bits",
            self.slowest.as_secs_f64()
        );
    }
}
