//! `quaver guard bench`.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use quaver::guard::kernels::{Isa, Scratch};
use quaver::guard::run::Memory;
use serde_json::json;

use super::folder::Folder;
use super::run::rows;
use crate::format::{Table, number};
use crate::session::Session;

/// Measure a guard on one thread: time of an inference, beside the float network and each quantized one alone.
#[derive(clap::Args)]
pub struct Args {
    /// The guard's folder
    guard: PathBuf,
    /// Inputs, float32, [N, shape] or [N, elements]
    #[arg(long, value_name = "X.npy")]
    inputs: PathBuf,
    /// Rows that are run together
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 256])]
    batch: Vec<usize>,
}

/// How long each is run, several times; the fastest counts.
const TIME: Duration = Duration::from_millis(150);
const ROUNDS: usize = 5;

/// Something that runs rows.
type Program<'p> = Box<dyn FnMut(&[f32]) + 'p>;

/// Seconds for one row, the least of several rounds, which are run in turns.
fn measure(x: &[f32], len: usize, batch: usize, programs: &mut [Program<'_>]) -> Vec<f64> {
    let mut best = vec![f64::INFINITY; programs.len()];
    for _ in 0..ROUNDS {
        for (program, best) in programs.iter_mut().zip(&mut best) {
            let (start, mut rows) = (Instant::now(), 0);
            while start.elapsed() < TIME {
                for x in x.chunks(batch * len) {
                    program(x);
                    rows += x.len() / len;
                    if start.elapsed() >= TIME {
                        break;
                    }
                }
            }
            *best = best.min(start.elapsed().as_secs_f64() / rows as f64);
        }
    }
    best
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let folder = Folder::read(&args.guard)?;
    let isa = Isa::best();
    let guard = folder.guard(isa)?;
    let len = guard.input_len();
    let x = rows(&args.inputs, len, session)?;
    let names: Vec<String> = std::iter::once("guard".to_string()).chain(folder.names()).collect();
    let mut headings = vec!["network".to_string()];
    headings.extend(args.batch.iter().map(|b| format!(">us a row, batch {b}")));
    let mut columns = vec![];
    for &batch in &args.batch {
        let (mut memory, mut answers) = (Memory::default(), vec![]);
        let mut programs: Vec<Program<'_>> = vec![Box::new(|x: &[f32]| {
            answers.clear();
            guard.run(x, &mut memory, &mut answers);
            black_box(&answers);
        })];
        for stage in guard.networks() {
            let (mut scratch, mut scores) = (Scratch::new(), vec![]);
            programs.push(Box::new(move |x: &[f32]| {
                scores.clear();
                stage.run(x, &mut scratch, &mut scores);
                black_box(&scores);
            }));
        }
        programs.push(Box::new(|x: &[f32]| {
            black_box(guard.float().run(x));
        }));
        columns.push(measure(&x, len, batch.max(1), &mut programs));
    }
    if session.json {
        for (b, column) in args.batch.iter().zip(&columns) {
            session.line(&json!({ "batch": b, "isa": format!("{isa:?}"), "networks": names, "seconds": column }))?;
        }
        return Ok(());
    }
    session.say(format!("one thread, kernels {isa:?}"))?;
    let mut table = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
    for (i, name) in names.iter().enumerate() {
        let mut row = vec![name.clone()];
        row.extend(columns.iter().map(|c| number(c[i] * 1e6)));
        table.row(row);
    }
    Ok(table.write(session.out)?)
}
