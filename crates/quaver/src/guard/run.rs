//! Guards at work: integer networks answer where they are sure, and the float network where none is.

use super::cells::Cells;
use super::kernels::float::FloatNet;
use super::kernels::{Compiled, Isa, KernelError, Scores, Scratch};
use super::plan::{Gate, Kind, Plan};
use super::thresholds::{Bounds, scale_of};
use crate::model::lower::Lowered;
use crate::num::round::div_up;

/// Bits of a float32 number's mantissa: what its products cost.
pub const FLOAT_BITS: u8 = 24;

/// Why a guard cannot run.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// A network has no kernels.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The parts do not fit each other.
    #[error("{0}\n  what to do: build the guard again")]
    Unfit(String),
}

/// What a guard gives for an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The class.
    pub class: u32,
    /// The network that gave it: one of the stages, or behind them the float network.
    pub stage: u32,
    /// Whether the float network gives this class, surely.
    pub sure: bool,
    /// Whether thresholds hold for the input.
    pub known: bool,
}

/// A quantized network with its thresholds in its own units.
struct Stage {
    net: Compiled,
    bits: u8,
    /// For each cell, class and rival the difference of scores that is enough, and the least difference to any rival that is.
    tables: Vec<Vec<[i64; 2]>>,
    /// A score in real numbers; for hints.
    unit: f64,
    /// For each cell and class the least lead that is surely enough, in real numbers; for hints.
    enough: Vec<Vec<f64>>,
}

/// A guard that runs.
pub struct Guard {
    kind: Kind,
    gate: Gate,
    cells: Cells,
    classes: usize,
    stages: Vec<Stage>,
    float: FloatNet,
}

/// What a stage says of an input.
pub(super) struct Said {
    pub class: usize,
    pub sure: bool,
    /// Its lead as a share of what is surely enough.
    pub share: f64,
}

/// Memory for [`Guard::run`].
#[derive(Default)]
pub struct Memory {
    scratch: Scratch,
    scores: Vec<i64>,
    open: Vec<u32>,
    next: Vec<u32>,
    cells: Vec<u32>,
    rows: Vec<f32>,
}

/// Where the next of similar inputs begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Continuous {
    stage: usize,
}

impl Guard {
    /// From a plan and its networks: the float one, and one for each stage.
    ///
    /// # Errors
    /// If a network has no kernels, or does not fit the plan.
    pub fn new(plan: &Plan, float: &Lowered, stages: &[&Lowered], isa: Isa) -> Result<Guard, GuardError> {
        let unfit = |what: String| GuardError::Unfit(what);
        if stages.len() != plan.stages.len() || stages.is_empty() {
            return Err(unfit(format!("{} networks for {} stages", stages.len(), plan.stages.len())));
        }
        let float = FloatNet::new(float)?;
        let gate = plan.domain.gate().map_err(unfit)?;
        let mut made = vec![];
        for (stage, lowered) in plan.stages.iter().zip(stages) {
            let net = Compiled::new(lowered, isa)?;
            if net.classes() != plan.classes
                || net.input_len() != float.input_len()
                || stage.bounds.len() != plan.cells.len()
            {
                return Err(unfit(format!("{} does not fit the other networks", stage.network.file)));
            }
            let output = lowered.net.node(lowered.net.outputs()[0]);
            let scale = scale_of(output.quantization.as_ref()).map_err(|e| unfit(e.to_string()))?;
            made.push(Stage::new(net, stage.bits, &stage.bounds, scale));
        }
        Ok(Guard { kind: plan.kind, gate, cells: plan.cells.clone(), classes: plan.classes, stages: made, float })
    }

    /// The quantized networks as they run.
    pub fn networks(&self) -> impl Iterator<Item = &Compiled> {
        self.stages.iter().map(|stage| &stage.net)
    }

    /// The float network as it runs.
    pub fn float(&self) -> &FloatNet {
        &self.float
    }

    /// Number of quantized networks.
    pub fn stages_len(&self) -> usize {
        self.stages.len()
    }

    /// Smallest and largest value of an element that thresholds hold for.
    pub fn ends(&self) -> (f64, f64) {
        self.gate.ends()
    }

    /// The number nearest to x that thresholds hold for (see [`Gate::nearest`]).
    pub fn nearest(&self, x: f64) -> f32 {
        self.gate.nearest(x)
    }

    /// The float network's class for each row.
    pub fn float_classes(&self, rows: &[f32]) -> Vec<usize> {
        self.float.run(rows).chunks_exact(self.classes).map(argmax).collect()
    }

    pub(super) fn float_class(&self, x: &[f32]) -> usize {
        argmax(&self.float.run(x))
    }

    /// What a stage by itself says of rows.
    pub(super) fn said(&self, stage: usize, rows: &[f32]) -> Vec<Said> {
        let (mut scratch, mut scores) = (Scratch::new(), vec![]);
        let stage = &self.stages[stage];
        stage.net.run(rows, &mut scratch, &mut scores);
        let of = |(x, scores): (&[f32], &[i64])| {
            let class = stage.net.scores().argmax(scores);
            let cell = self.gate.sum(x).map(|s| self.cells.of(s));
            let sure = cell.is_some_and(|cell| stage.is_sure(class, scores, cell));
            let share =
                cell.map_or(0.0, |cell| stage.lead(class, scores) / stage.enough[cell][class].max(f64::MIN_POSITIVE));
            Said { class, sure, share }
        };
        rows.chunks_exact(self.input_len()).zip(scores.chunks_exact(self.classes)).map(of).collect()
    }

    /// Numbers of an input.
    pub fn input_len(&self) -> usize {
        self.float.input_len()
    }

    /// The bits of each network, the float one last.
    pub fn bits(&self) -> Vec<u8> {
        self.stages.iter().map(|s| s.bits).chain([FLOAT_BITS]).collect()
    }

    /// The networks that are executed for an answer cost so much: the sum of their squared bits. Its root is the effective bits.
    ///
    /// # Source
    /// CoMPAQt, section 6, evaluation metrics.
    pub fn cost(&self, answer: Answer, from: usize) -> f64 {
        let bits = |s: usize| self.stages.get(s).map_or(FLOAT_BITS, |stage| stage.bits);
        let asked = |s: usize| f64::from(bits(s)).powi(2);
        let last = answer.stage as usize;
        match (answer.known, self.kind) {
            (false, Kind::Refinement) => asked(self.stages.len()),
            (_, Kind::Ensemble) if !answer.sure => (0..self.stages.len()).map(asked).sum(),
            _ => (from.min(last)..=last).map(asked).sum(),
        }
    }

    /// Appends the answers for some rows.
    ///
    /// # Claim
    /// Where an answer is sure, the float32 program gives this class, whatever the order of its sums; a refinement is always sure where the float
    /// network answers itself, in the order of [`FloatNet`].
    ///
    /// # Why
    /// [`Bounds::accepts`], in integers: a difference of scores is enough where it implies the real one ([`Scores::at_least_above`]).
    ///
    /// # Panics
    /// If `rows` is not a whole number of rows.
    pub fn run(&self, rows: &[f32], memory: &mut Memory, out: &mut Vec<Answer>) {
        let n = self.input_len();
        assert!(rows.len().is_multiple_of(n), "rows of {n} numbers");
        let first = out.len();
        let unknown = Answer { class: 0, stage: self.stages.len() as u32, sure: false, known: false };
        out.resize(first + rows.len() / n, unknown);
        let answers = &mut out[first..];
        memory.open.clear();
        memory.cells.clear();
        for (i, x) in rows.chunks_exact(n).enumerate() {
            let sum = self.gate.sum(x);
            memory.cells.push(sum.map_or(0, |s| self.cells.of(s) as u32));
            answers[i].known = sum.is_some();
            if sum.is_some() {
                memory.open.push(i as u32);
            }
        }
        for stage in 0..self.stages.len() {
            if memory.open.is_empty() {
                break;
            }
            self.ask(stage, rows, memory, answers);
        }
        self.rest(rows, memory, answers);
    }

    /// Lets a stage answer the open rows that it is sure of.
    fn ask(&self, number: usize, rows: &[f32], memory: &mut Memory, answers: &mut [Answer]) {
        let (n, stage) = (self.input_len(), &self.stages[number]);
        let Memory { scratch, scores, open, next, cells, rows: gathered } = memory;
        scores.clear();
        if open.len() == answers.len() {
            stage.net.run(rows, scratch, scores);
        } else {
            gathered.clear();
            open.iter().for_each(|&i| gathered.extend_from_slice(&rows[i as usize * n..][..n]));
            stage.net.run(gathered, scratch, scores);
        }
        next.clear();
        for (&i, scores) in open.iter().zip(scores.chunks_exact(self.classes)) {
            let class = stage.net.scores().argmax(scores);
            let answer = &mut answers[i as usize];
            if stage.is_sure(class, scores, cells[i as usize] as usize) {
                *answer = Answer { class: class as u32, stage: number as u32, sure: true, known: true };
            } else {
                next.push(i);
                // An ensemble's first network answers where none is sure.
                if number == 0 {
                    answer.class = class as u32;
                }
            }
        }
        std::mem::swap(open, next);
    }

    /// Answers for the rows that no stage is sure of.
    fn rest(&self, rows: &[f32], memory: &mut Memory, answers: &mut [Answer]) {
        let (n, float) = (self.input_len(), self.stages.len() as u32);
        let Memory { open, rows: gathered, scratch, scores, .. } = memory;
        open.clear();
        open.extend(
            (0..answers.len() as u32).filter(|&i| answers[i as usize].stage == float && !answers[i as usize].sure),
        );
        if open.is_empty() {
            return;
        }
        gathered.clear();
        open.iter().for_each(|&i| gathered.extend_from_slice(&rows[i as usize * n..][..n]));
        if self.kind == Kind::Ensemble {
            scores.clear();
            self.stages[0].net.run(gathered, scratch, scores);
            for (&i, scores) in open.iter().zip(scores.chunks_exact(self.classes)) {
                answers[i as usize].class = self.stages[0].net.scores().argmax(scores) as u32;
                answers[i as usize].stage = 0;
            }
            return;
        }
        let outputs = self.float.run(gathered);
        for (&i, y) in open.iter().zip(outputs.chunks_exact(self.classes)) {
            let answer = &mut answers[i as usize];
            (answer.class, answer.stage, answer.sure) = (argmax(y) as u32, float, true);
        }
    }

    /// The answer for the next of similar inputs: it begins with the network that was sure of the last one, or with a smaller one that its lead would
    /// have been enough for. Gives the stage it began with, too.
    ///
    /// # Source
    /// CoMPAQt, algorithm 4.
    pub fn next(&self, x: &[f32], state: &mut Continuous, memory: &mut Memory) -> (Answer, usize) {
        let from = state.stage.min(self.stages.len());
        let Some(cell) = self.gate.sum(x).map(|s| self.cells.of(s)) else {
            return (self.by_float(x, false), self.stages.len());
        };
        for (number, stage) in self.stages.iter().enumerate().skip(from) {
            memory.scores.clear();
            stage.net.run(x, &mut memory.scratch, &mut memory.scores);
            let class = stage.net.scores().argmax(&memory.scores);
            if stage.is_sure(class, &memory.scores, cell) {
                state.stage = self.enough(stage.lead(class, &memory.scores), class, cell, number);
                return (Answer { class: class as u32, stage: number as u32, sure: true, known: true }, from);
            }
        }
        let y = self.float.run(x);
        let class = argmax(&y);
        let rival = (0..y.len()).filter(|&k| k != class).map(|k| y[k]).fold(f32::MIN, f32::max);
        state.stage = self.enough(f64::from(y[class]) - f64::from(rival), class, cell, self.stages.len());
        (Answer { class: class as u32, stage: self.stages.len() as u32, sure: true, known: true }, from)
    }

    /// The smallest network that such a lead would be enough for, or the one given.
    fn enough(&self, lead: f64, class: usize, cell: usize, otherwise: usize) -> usize {
        self.stages[..otherwise].iter().position(|s| lead > s.enough[cell][class]).unwrap_or(otherwise)
    }

    fn by_float(&self, x: &[f32], known: bool) -> Answer {
        Answer { class: argmax(&self.float.run(x)) as u32, stage: self.stages.len() as u32, sure: true, known }
    }
}

fn argmax(y: &[f32]) -> usize {
    (1..y.len()).fold(0, |best, i| if y[i] > y[best] { i } else { best })
}

/// For each cell, class and rival the difference of scores that is enough, and the least difference to any rival that is.
pub(super) fn tables(scores: &Scores, bounds: &[Bounds], scale: f64) -> Vec<Vec<[i64; 2]>> {
    let n = scores.classes();
    let enough = |c: usize, k: usize, t: f64| match c == k {
        true => i64::MIN,
        // Never below zero: ties are not sure.
        false => scores.at_least_above(c, k, div_up(if t > 0.0 { t } else { 0.0 }, scale)),
    };
    // Whatever the rival, so that one number is enough; offsets of rivals differ by less than one score.
    let least = |c: usize, t: f64| (0..n).filter(|&r| r != c).map(|r| enough(c, r, t)).max().unwrap_or(i64::MAX);
    let table = |b: &Bounds| (0..n * n).map(|i| [enough(i / n, i % n, b.pair[i]), least(i / n, b.least[i])]).collect();
    bounds.iter().map(table).collect()
}

impl Stage {
    fn new(net: Compiled, bits: u8, bounds: &[Bounds], scale: f64) -> Stage {
        let (n, scores) = (net.classes(), net.scores());
        let tables = tables(scores, bounds, scale);
        let largest =
            |b: &Bounds, c: usize| (0..n).filter(|&k| k != c).map(|k| b.pair[c * n + k].max(0.0)).fold(0.0, f64::max);
        let enough = bounds.iter().map(|b| (0..n).map(|c| largest(b, c)).collect()).collect();
        let unit = scores.unit().to_f64() * scale;
        Stage { bits, tables, unit, enough, net }
    }

    /// Whether the float network gives the class, too.
    fn is_sure(&self, class: usize, scores: &[i64], cell: usize) -> bool {
        let row = &self.tables[cell][class * scores.len()..][..scores.len()];
        let own = scores[class];
        let rivals = || (0..scores.len()).filter(|&k| k != class);
        let behind = || rivals().filter(|&k| own - scores[k] < row[k][0]);
        if behind().next().is_none() {
            return true;
        }
        let least = rivals().map(|k| own - scores[k]).min().unwrap_or(i64::MAX);
        behind().all(|k| least >= row[k][1])
    }

    fn lead(&self, class: usize, scores: &[i64]) -> f64 {
        let rival = (0..scores.len()).filter(|&k| k != class).map(|k| scores[k]).max().unwrap_or(i64::MIN);
        (scores[class] - rival) as f64 * self.unit
    }
}
