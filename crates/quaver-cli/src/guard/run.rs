//! `quaver guard run`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use quaver::guard::kernels::Isa;
use quaver::guard::plan::Kind;
use quaver::guard::run::{Answer, Continuous, Guard, Memory};
use quaver::model::ir::DType;
use quaver::net::execute;
use serde_json::json;

use super::folder::Folder;
use crate::format::{self, Table, number};
use crate::npy::{Array, Writer};
use crate::session::{Session, fail};

/// Run a guard on inputs: their classes, which network gave them, and what that cost.
#[derive(clap::Args)]
pub struct Args {
    /// The guard's folder
    guard: PathBuf,
    /// Inputs, float32, [N, shape] or [N, elements]; anything float32 can be, NaN and infinities too
    #[arg(long, value_name = "X.npy")]
    inputs: PathBuf,
    /// The rows follow each other in time: each begins with the network that the last one's lead would have been enough for
    #[arg(long)]
    continuous: bool,
    /// Run the float network on all rows as well, and count where classes differ
    #[arg(long)]
    check: bool,
    /// Write the classes here, int64
    #[arg(long, value_name = "FILE.npy")]
    output: Option<PathBuf>,
    /// Write which network gave each class here, int64: the first is 0
    #[arg(long, value_name = "FILE.npy")]
    stages: Option<PathBuf>,
}

/// Rows that are run together.
const BATCH: usize = 256;

/// Reads rows of float32 numbers, whatever they are.
pub fn rows(path: &Path, len: usize, session: &Session<'_>) -> Result<Vec<f32>> {
    let array = Array::read(session.files, path)?;
    if array.len() == 0 || !array.len().is_multiple_of(len) || array.dtype() != Some(DType::F32) {
        let problem = format!(
            "{}: {} {} numbers are no rows of {len} float32 numbers",
            array.place,
            array.len(),
            array.type_name()
        );
        return Err(fail(problem, "save x.astype(numpy.float32), one row for each input"));
    }
    Ok((0..array.len()).map(|i| array.at(i) as f32).collect())
}

/// Runs the command.
pub fn run(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let folder = Folder::read(&args.guard)?;
    let guard = folder.guard(Isa::best())?;
    let x = rows(&args.inputs, guard.input_len(), session)?;
    let answers = answers(&guard, &x, args.continuous);
    let write = |path: &Path, of: fn(&Answer) -> u32| -> Result<()> {
        let mut writer = Writer::create(path, &[answers.len()], DType::I64)?;
        answers.iter().try_for_each(|a| writer.push(f64::from(of(&a.0))))?;
        writer.finish().map(drop)
    };
    args.output.iter().try_for_each(|path| write(path, |a| a.class))?;
    args.stages.iter().try_for_each(|path| write(path, |a| a.stage))?;
    let differ = args.check.then(|| differences(&folder, &x, &answers));
    report(&folder, &guard, &answers, differ, session)
}

/// Answers, each with the stage that was asked first.
fn answers(guard: &Guard, x: &[f32], continuous: bool) -> Vec<(Answer, usize)> {
    let mut memory = Memory::default();
    if continuous {
        let mut state = Continuous::default();
        return x.chunks_exact(guard.input_len()).map(|x| guard.next(x, &mut state, &mut memory)).collect();
    }
    let mut found = vec![];
    x.chunks(BATCH * guard.input_len()).for_each(|x| guard.run(x, &mut memory, &mut found));
    found.into_iter().map(|a| (a, 0)).collect()
}

/// Rows on which the float network gives another class; those that no runtime decides (a tie within what float32 may round) do not count, nor do NaN.
fn differences(folder: &Folder, x: &[f32], answers: &[(Answer, usize)]) -> usize {
    let net = &folder.float.net;
    let (len, classes) = (net.node(net.inputs()[0]).len(), folder.plan.classes);
    let mut differ = 0;
    for (rows, answers) in x.chunks(BATCH * len).zip(answers.chunks(BATCH)) {
        let exact: Vec<f64> = rows.iter().map(|&v| f64::from(v)).collect();
        let y = execute(net, &[exact], answers.len()).swap_remove(0);
        for (row, (answer, _)) in answers.iter().enumerate() {
            let at = |k: usize| row * classes + k;
            let own = at(answer.class as usize);
            let surely_other = (0..classes).map(at).any(|k| k != own && y.lo(k) > y.hi(own));
            differ += usize::from(surely_other && answer.sure);
        }
    }
    differ
}

fn report(
    folder: &Folder,
    guard: &Guard,
    answers: &[(Answer, usize)],
    differ: Option<usize>,
    session: &mut Session<'_>,
) -> Result<()> {
    let total = answers.len();
    let by_stage = |stage: usize| {
        answers
            .iter()
            .filter(|a| a.0.stage as usize == stage && (a.0.sure || folder.plan.kind == Kind::Refinement))
            .count()
    };
    let cost: f64 = answers.iter().map(|(a, from)| guard.cost(*a, *from)).sum();
    let effective = (cost / total as f64).sqrt();
    let (sure, unknown) = (answers.iter().filter(|a| a.0.sure).count(), answers.iter().filter(|a| !a.0.known).count());
    let mut names = folder.names();
    if folder.plan.kind == Kind::Ensemble {
        names.pop();
    }
    if session.json {
        let counts: Vec<usize> = (0..names.len()).map(by_stage).collect();
        return session.line(&json!({
            "rows": total, "sure": sure, "outside": unknown, "effective_bits": effective,
            "networks": names, "answers": counts, "differ": differ,
        }));
    }
    let mut table = Table::new(&["network", ">bits", ">answers", ">share"]);
    for ((i, name), bits) in names.iter().enumerate().zip(guard.bits()) {
        let count = by_stage(i);
        table.row([
            name.clone(),
            bits.to_string(),
            format::grouped(count),
            format::percent(count as u64, total as u64),
        ]);
    }
    table.write(session.out)?;
    let share = format::percent(sure as u64, total as u64);
    session.say(format!("  the class is surely the float network's for {share} of {}", format::count(total, "row")))?;
    session.say(format!(
        "  effective bits {} (float32 has 24); {} outside of the thresholds' inputs",
        number(effective),
        format::count(unknown, "row")
    ))?;
    match differ {
        Some(differ) => {
            session.say(format!("  the float network gives another class for {}", format::count(differ, "row")))
        }
        None => Ok(()),
    }
}
