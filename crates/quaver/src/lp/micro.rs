//! microlp: pure Rust and always there, but without duals, so that it finds points and proves nothing.

use std::time::Duration;

use microlp::{ComparisonOp, Error, OptimizationDirection, Problem, SolveOutcome, TerminationReason, Variable};

use super::Program;
use super::solver::{MilpAnswer, MilpStatus, Relaxation, RelaxationAnswer, Solver};

/// The solver microlp.
#[derive(Clone, Copy, Debug, Default)]
pub struct Micro;

impl Solver for Micro {
    fn name(&self) -> String {
        "microlp 0.7".into()
    }

    fn gives_evidence(&self) -> bool {
        false
    }

    fn relaxation(&self, program: &Program) -> Option<Box<dyn Relaxation>> {
        Some(Box::new(Restarted(program.clone())))
    }

    fn search(&self, program: &Program, limit: Duration) -> MilpAnswer {
        let Some((problem, variables)) = problem(program, true, limit) else {
            return MilpAnswer::empty(MilpStatus::Failed("an integer beyond 32 bits".into()));
        };
        match problem.solve() {
            Ok(SolveOutcome::Solution(s)) => {
                let proved = s.termination_reason() == TerminationReason::ProvenOptimal;
                MilpAnswer {
                    status: if proved { MilpStatus::Optimal } else { MilpStatus::Limit },
                    point: Some(variables.iter().map(|&v| s.var_value(v)).collect()),
                    bound: if proved { s.objective() } else { f64::NEG_INFINITY },
                }
            }
            Ok(SolveOutcome::Interrupted(_)) => MilpAnswer::empty(MilpStatus::Limit),
            Err(Error::Infeasible) => MilpAnswer::empty(MilpStatus::Infeasible),
            Err(e) => MilpAnswer::empty(MilpStatus::Failed(e.to_string())),
        }
    }
}

/// A program that is solved anew each time.
struct Restarted(Program);

impl Relaxation for Restarted {
    fn set_bounds(&mut self, column: usize, lo: f64, hi: f64) {
        (self.0.columns[column].lo, self.0.columns[column].hi) = (lo, hi);
    }

    fn solve(&mut self, limit: Duration) -> RelaxationAnswer {
        let Some((problem, variables)) = problem(&self.0, false, limit) else {
            return RelaxationAnswer::GaveUp("microlp does not take the program".into());
        };
        match problem.solve() {
            Ok(SolveOutcome::Solution(s)) => {
                RelaxationAnswer::Optimal { point: variables.iter().map(|&v| s.var_value(v)).collect(), duals: None }
            }
            Ok(SolveOutcome::Interrupted(_)) => RelaxationAnswer::GaveUp("time limit".into()),
            Err(Error::Infeasible) => RelaxationAnswer::Infeasible { ray: None },
            Err(e) => RelaxationAnswer::GaveUp(e.to_string()),
        }
    }
}

/// The program in microlp's words; `None` if an integer column reaches beyond 32 bits.
fn problem(program: &Program, integrality: bool, limit: Duration) -> Option<(Problem, Vec<Variable>)> {
    let mut problem = Problem::new(OptimizationDirection::Minimize);
    problem.set_time_limit(limit);
    let mut variables = vec![];
    for c in &program.columns {
        variables.push(if integrality && c.integer {
            let fits = c.lo > f64::from(i32::MIN) && c.hi < f64::from(i32::MAX);
            fits.then(|| problem.add_integer_var(c.cost, (c.lo.ceil() as i32, c.hi.floor() as i32)))?
        } else {
            problem.add_var(c.cost, (c.lo, c.hi))
        });
    }
    for row in program.rows() {
        let terms: Vec<(Variable, f64)> = row.terms().map(|(j, a)| (variables[j], a)).collect();
        match (row.lo.is_finite(), row.hi.is_finite()) {
            (true, true) if row.lo == row.hi => problem.add_constraint(terms, ComparisonOp::Eq, row.lo),
            (lower, upper) => {
                if lower {
                    problem.add_constraint(terms.clone(), ComparisonOp::Ge, row.lo);
                }
                if upper {
                    problem.add_constraint(terms, ComparisonOp::Le, row.hi);
                }
            }
        }
    }
    Some((problem, variables))
}
