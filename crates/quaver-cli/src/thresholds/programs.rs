//! The paper's engine: options, and bounds by mixed-integer programs.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;
use quaver::guard::programs::{Asked, ByPrograms};
use quaver::lp::Highs;
use quaver::verify::{BigM, LeadMilp, Relations};

use super::Per;
use super::bound::Work;
use crate::ball::seconds;
use crate::engine::CURE;
use crate::session::fail;

/// How bounds are found.
#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// By our own bounds, or by the mixed-integer programs of CoMPAQt (needs HiGHS), which --timeout ends
    #[arg(long, value_enum, default_value_t = Engine::Bounds)]
    engine: Engine,
    /// The HiGHS library [default: the one in python3's package highspy]
    #[arg(long, value_name = "PATH")]
    highs: Option<PathBuf>,
    /// Which of the paper's variants the programs follow
    #[arg(long, value_enum, default_value_t = Variant::Full)]
    milp_variant: Variant,
    /// Relations between respective neurons: from linear bounds alone, or made better by a program for each
    #[arg(long, value_enum, default_value_t = Related::Solved)]
    milp_relations: Related,
    /// Seconds for each such program
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    milp_relation_time: Duration,
    /// Clipping is a trapezoid where that adds less than this to a neuron's value
    #[arg(long, value_name = "T", default_value_t = 0.1)]
    milp_trapezoid: f64,
    /// Where the programs' big constants come from
    #[arg(long, value_enum, default_value_t = Constants::Linear)]
    milp_bounds: Constants,
    /// Give the solver's own search half of the time, and print the bound that it reports, which is no proof
    #[arg(long)]
    milp_report: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Engine {
    Bounds,
    Milp,
}

/// Variants of the paper's ablation.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Variant {
    /// Programs alone (M0)
    Programs,
    /// With relations (M0+R)
    Relations,
    /// And roundings as parallelograms (M0+R+P)
    Parallelogram,
    /// And clipping as trapezoids
    Full,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Related {
    Propagated,
    Solved,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Constants {
    Intervals,
    Linear,
}

impl Args {
    /// The programs that are asked for; `None` for our own bounds.
    pub fn milp(&self) -> Result<Option<LeadMilp>> {
        if self.engine == Engine::Bounds {
            return match &self.highs {
                Some(_) => Err(fail("--highs is for mixed-integer programs", "add --engine milp, or leave it out")),
                None => Ok(None),
            };
        }
        let highs = Highs::load(self.highs.as_deref()).map_err(|why| fail(why.to_string(), CURE))?;
        let relations = match (self.milp_variant, self.milp_relations) {
            (Variant::Programs, _) => Relations::None,
            (_, Related::Propagated) => Relations::Propagated,
            (_, Related::Solved) => Relations::Solved,
        };
        Ok(Some(LeadMilp {
            solver: Arc::new(highs),
            bounds: match self.milp_bounds {
                Constants::Intervals => BigM::Intervals,
                Constants::Linear => BigM::Linear,
            },
            relations,
            relation_time: self.milp_relation_time,
            parallelogram: matches!(self.milp_variant, Variant::Parallelogram | Variant::Full),
            trapezoid: if self.milp_variant == Variant::Full { self.milp_trapezoid } else { 0.0 },
            report: self.milp_report,
        }))
    }
}

/// What programs found, beside bounds.
#[derive(Default)]
pub struct Told {
    /// For each class the largest bound that the solver reports.
    pub reported: Vec<Option<f64>>,
    /// Columns, rows and integer columns of the last cell's program.
    pub sizes: [usize; 3],
}

/// Bounds by programs for each cell, in turn; `work` has nothing proved yet.
pub fn improve(work: &mut Work<'_>, milp: &LeadMilp, per: Per, timeout: Duration) -> Result<Told> {
    let asked = if per == Per::Class { Asked::Classes } else { Asked::Pairs };
    let (cells, n) = (work.found.len(), work.compared.classes());
    let mut told = Told { reported: vec![None; n], ..Told::default() };
    for cell in 0..cells {
        let log = Mutex::new(Log { of: vec![], steps: vec![] });
        let total = work.problem.cells.total(cell);
        let better = |i: usize, class: usize, bound: f64| {
            if let Ok(mut log) = log.lock() {
                log.note(i, class, bound, n, work.begun);
            }
        };
        let mut shown = work.found[cell].shown.clone();
        let time = timeout / cells as u32;
        let made = work.compared.by_programs((total, asked), milp, &mut shown, time, &better)?;
        let ByPrograms { bounds, reported, sizes, .. } = made;
        work.found[cell].proved.meet(&bounds);
        work.found[cell].shown = shown;
        told.sizes = sizes;
        for (all, own) in told.reported.iter_mut().zip(reported) {
            *all = (*all).into_iter().chain(own).reduce(f64::max);
        }
        if let (1, Ok(log)) = (cells, log.into_inner()) {
            work.over_time.extend(log.steps);
        }
    }
    work.note_time();
    Ok(told)
}

/// The mean bound on a class, whenever one falls.
struct Log {
    /// Of each program: its class and its bound.
    of: Vec<(usize, usize, f64)>,
    steps: Vec<(f64, f64)>,
}

impl Log {
    fn note(&mut self, i: usize, class: usize, bound: f64, classes: usize, begun: Instant) {
        match self.of.iter_mut().find(|o| o.0 == i) {
            Some(known) => known.2 = bound,
            None => self.of.push((i, class, bound)),
        }
        let of_class = |c: usize| self.of.iter().filter(|o| o.1 == c).map(|o| o.2.max(0.0)).reduce(f64::max);
        let all: Option<Vec<f64>> = (0..classes).map(of_class).collect();
        if let Some(all) = all {
            self.steps.push((begun.elapsed().as_secs_f64(), all.iter().sum::<f64>() / classes as f64));
        }
    }
}
