//! How far one network can lead where another does not: the mixed-integer programs of CoMPAQt.
//!
//! The net holds both networks on one input. Each is written with the rows of `encode.rs`; roundings may be written as integers or as parallelograms and
//! trapezoids, and relations between respective neurons of both networks may be added, which are found by linear bounds or by programs of their own.
//!
//! # Source
//! Kabaha and Drachsler Cohen, Quantization with Guaranteed Floating-Point Neural Network Classifications (OOPSLA 2025), section 5.1. Here bounds on neurons
//! and
//! relations come from linear bounds (theirs: intervals), the float network has its rounding errors, and a bound is proved by our branch and bound.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::BigM;
use super::encode::{Encoder, Style};
use super::least::Search;
use super::question::range;
use super::start::Start;
use super::sum::{Element, Sum};
use crate::bounds::{Analysis, Bounds, Prepared, TwinRanges, analyse_until, interval};
use crate::lp::{Column, MilpStatus, Program, Solver};
use crate::net::NodeId;
use crate::property::Region;
use crate::verify::{NotAClassifier, Terms, Verifier};

/// Which relations between respective neurons are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relations {
    /// None.
    None,
    /// Those that linear bounds give.
    Propagated,
    /// And better ones from a program for each.
    Solved,
}

/// How programs for leads are written and solved.
#[derive(Clone, Debug)]
pub struct LeadMilp {
    /// Solves them.
    pub solver: Arc<dyn Solver>,
    /// Where big constants come from; types are not asked.
    pub bounds: BigM,
    /// Relations between respective neurons.
    pub relations: Relations,
    /// Time for each end of a relation.
    pub relation_time: Duration,
    /// Roundings as parallelograms in the place of integers.
    pub parallelogram: bool,
    /// Clipping as a trapezoid where that adds less than this to a value, in real units; 0 for never.
    pub trapezoid: f64,
    /// Whether the solver's own search gets half of the time; what it says is no proof.
    pub report: bool,
}

/// A maximum that is asked for: of the least of some functionals of the output, over the executions in which some other one is not positive.
#[derive(Clone, Debug)]
pub struct Lead {
    /// The largest value of the least of these.
    pub leads: Vec<Terms>,
    /// Only where one of these is at most 0.
    pub some: Vec<Terms>,
}

/// What was found of a lead.
#[derive(Clone, Copy, Debug)]
pub struct LeadBound {
    /// A proved upper bound; negative infinity where there is no such execution.
    pub proved: f64,
    /// The solver's own bound, computed in floating point.
    pub reported: Option<f64>,
}

/// The programs of both networks, to which leads are added.
pub struct LeadPrograms {
    milp: LeadMilp,
    nets: Vec<Written>,
}

/// One net's program.
struct Written {
    program: Program,
    start: Start,
    outputs: Vec<Element>,
    bounds: Bounds,
}

impl Verifier<'_> {
    /// Writes both networks; relations that are solved for take until the deadline at most.
    ///
    /// # Errors
    /// If the region does not fit the model, or bounds are not finite.
    pub fn lead_programs(
        &self,
        region: &Region,
        milp: &LeadMilp,
        deadline: Instant,
    ) -> Result<LeadPrograms, NotAClassifier> {
        let mut nets = vec![];
        for (prepared, output) in self.proved_nets() {
            if prepared.net.node(prepared.net.inputs()[0]).len() != region.lo.len() {
                return Err(NotAClassifier(format!("a region of {} elements does not fit the input", region.lo.len())));
            }
            let written = Written::new(prepared, output, region, milp, deadline);
            nets.push(written.ok_or_else(|| NotAClassifier("a bound on some value is not finite".into()))?);
        }
        Ok(LeadPrograms { milp: milp.clone(), nets })
    }
}

impl Written {
    /// # Claim
    /// As [`Encoder`]'s; relations hold for all executions on the region.
    fn new(
        prepared: &Prepared<'_>,
        output: NodeId,
        region: &Region,
        milp: &LeadMilp,
        deadline: Instant,
    ) -> Option<Written> {
        let net = prepared.net;
        let analysis = analyse_until(prepared, region, None)?;
        let intervals = if milp.bounds == BigM::Linear { vec![] } else { interval(net, region) };
        let bounds = if milp.bounds == BigM::Linear { &analysis.bounds } else { &intervals };
        if !bounds.iter().all(Bounds::is_finite) {
            return None;
        }
        let style = Style { relaxed: milp.parallelogram, trapezoid: milp.trapezoid };
        let start = net.inputs()[0];
        let mut encoder = Encoder::new(net, bounds, start, style);
        if let Some(total) = prepared.total {
            let mut sum = Sum::constant(0.0);
            (0..region.lo.len()).for_each(|i| sum.add(&encoder.element(start, i), 1.0));
            sum.within(&mut encoder.program, total.lo, total.hi);
        }
        if milp.relations != Relations::None {
            relate(&mut encoder, prepared, &analysis, milp, deadline);
        }
        let outputs = (0..net.node(output).len()).map(|i| encoder.element(output, i)).collect();
        let start = Start::of(&encoder, start);
        Some(Written { start, outputs, bounds: bounds[output.0].clone(), program: encoder.program })
    }

    /// The program with a column for the lead, which is to be as large as can be (its negative is the cost), and bounds on it.
    ///
    /// # Claim
    /// For every execution in which some functional is at most 0 there is a point at which the column is the least of the leads.
    fn of_lead(&self, lead: &Lead) -> (Program, (f64, f64)) {
        let mut program = self.program.clone();
        let ranges = lead.leads.iter().map(|l| range(l, &self.bounds));
        let (lo, hi) = ranges.fold((f64::INFINITY, f64::INFINITY), |a, r| (a.0.min(r.0), a.1.min(r.1)));
        let d = program.add_column(Column { lo, hi, cost: -1.0, integer: false });
        let sum = |terms: &Terms| {
            let mut sum = Sum::constant(0.0);
            terms.iter().for_each(|&(i, a)| sum.add(&self.outputs[i], a));
            sum
        };
        for terms in &lead.leads {
            sum(terms).negated().with(&Element::Column(d), 1.0).not_positive(&mut program);
        }
        if let [only] = &lead.some[..] {
            sum(only).not_positive(&mut program);
            return (program, (lo, hi));
        }
        let mut chosen = Sum::constant(1.0);
        for terms in &lead.some {
            // Big-M: without its 0-1 column a row says nothing.
            let (z, most) = (super::function::binary(&mut program), range(terms, &self.bounds).1.max(0.0));
            sum(terms).with(&z, most).plus(-most).not_positive(&mut program);
            chosen.add(&z, -1.0);
        }
        chosen.not_positive(&mut program);
        (program, (lo, hi))
    }
}

/// Adds relations, layer after layer: later ones profit from those before.
fn relate(encoder: &mut Encoder<'_>, prepared: &Prepared<'_>, analysis: &Analysis, milp: &LeadMilp, deadline: Instant) {
    for TwinRanges { nodes, units, ranges } in prepared.twin_ranges(analysis) {
        let mut columns = vec![];
        for (i, (units, range)) in units.iter().zip(&ranges).enumerate().filter(|(_, (_, r))| r.0 < r.1) {
            let [v, w] = nodes.map(|id| encoder.element(id, i));
            let column = Column { lo: range.0, hi: range.1, cost: 0.0, integer: false };
            let d = encoder.program.add_column(column);
            let sum = Sum::constant(0.0).with(&w, units[1]).with(&v, -units[0]).with(&Element::Column(d), -1.0);
            sum.zero(&mut encoder.program);
            columns.push(d);
        }
        if milp.relations == Relations::Solved {
            let program = &encoder.program;
            let solved: Vec<(f64, f64)> = columns.par_iter().map(|&d| solve(program, d, milp, deadline)).collect();
            for (d, (lo, hi)) in columns.into_iter().zip(solved) {
                let column = &mut encoder.program.columns[d];
                // Ends that cross say that there is no execution; then any bounds hold.
                if lo <= hi {
                    (column.lo, column.hi) = (lo, hi);
                }
            }
        }
    }
}

/// Bounds on a column, proved.
fn solve(program: &Program, d: usize, milp: &LeadMilp, deadline: Instant) -> (f64, f64) {
    let Column { lo, hi, .. } = program.columns[d];
    let end = |sign: f64, known: f64| {
        let mut program = program.clone();
        program.columns[d].cost = sign;
        let own = Instant::now() + milp.relation_time;
        Search {
            solver: &*milp.solver,
            known,
            deadline: own.min(deadline),
            seen: &mut |_| f64::INFINITY,
            better: &mut |_| {},
        }
        .run(&program)
    };
    (end(1.0, lo), -end(-1.0, -hi))
}

impl LeadPrograms {
    /// An upper bound on a lead. `seen` is told inputs (hints) and gives the largest lead that is known to occur; `better` is told bounds as they
    /// fall.
    ///
    /// # Claim
    /// In every execution that the net allows on an input of the region, in which some functional is at most 0, the least lead is at most the bound.
    pub fn bound(
        &self,
        lead: &Lead,
        time: Duration,
        seen: &mut dyn FnMut(&[f64]) -> f64,
        better: &mut dyn FnMut(f64),
    ) -> LeadBound {
        let (time, nets) = (time / self.nets.len() as u32, self.nets.len());
        let mut all = LeadBound { proved: f64::NEG_INFINITY, reported: None };
        for net in &self.nets {
            let (program, (_, hi)) = net.of_lead(lead);
            let share = if self.milp.report { time / 2 } else { time };
            if self.milp.report {
                let answer = self.milp.solver.search(&program, share);
                let bound = if answer.status == MilpStatus::Infeasible { f64::NEG_INFINITY } else { -answer.bound };
                all.reported = Some(all.reported.map_or(bound, |r| r.max(bound)));
                if let Some(point) = &answer.point {
                    seen(&net.start.values(point));
                }
            }
            let bound = Search {
                solver: &*self.milp.solver,
                known: -hi,
                deadline: Instant::now() + share,
                seen: &mut |p| -seen(&net.start.values(p)),
                better: &mut |b| {
                    if nets == 1 {
                        better(-b)
                    }
                },
            }
            .run(&program);
            all.proved = if -bound > all.proved { -bound } else { all.proved };
        }
        all
    }

    /// An upper bound on a lead without any search: from bounds on the outputs.
    pub fn most(&self, lead: &Lead) -> f64 {
        self.nets.iter().map(|net| net.of_lead(lead).1.1).fold(f64::NEG_INFINITY, |a, b| if b > a { b } else { a })
    }

    /// Columns, rows and 0-1 columns of the programs, without leads.
    pub fn sizes(&self) -> [usize; 3] {
        let sum = |of: &dyn Fn(&Program) -> usize| self.nets.iter().map(|n| of(&n.program)).sum();
        let integers = |p: &Program| p.columns.iter().filter(|c| c.integer).count();
        [sum(&|p| p.columns.len()), sum(&|p| p.row_count()), sum(&integers)]
    }
}
