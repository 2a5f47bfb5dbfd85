//! `quaver spec equivalence`: an input on which two networks differ.

use std::path::PathBuf;

use anyhow::Result;
use quaver::model::lower::Lowered;
use quaver::num::Ratio;
use quaver::property::Constraint;
use quaver::property::equivalence::Relation;
use quaver::vnnlib::{self, Decimal};

use super::Declare;
use crate::equivalence::{Area, AreaArgs, Areas, Networks, RelationArgs, words};
use crate::session::{Session, fail};

/// Write the query whether two networks differ on an input of a ball or a box: unsat means that they are equivalent there.
///
/// The query is in version 2.0 of the language and declares the networks f and g. `quaver verify QUERY --network f=A --network g=B` decides it, in
/// one arithmetic for both, which --profile of that command chooses.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    networks: Networks,
    #[command(flatten, next_help_heading = "What the networks must have in common (one of)")]
    relation: RelationArgs,
    #[command(flatten, next_help_heading = "Where (one ball or box)")]
    area: AreaArgs,
    /// Types of the tensors: `real` is about real arithmetic, `model` about the models' own types
    #[arg(long, value_enum, default_value = "real")]
    declare: Declare,
    /// Write the query here instead of printing it
    #[arg(long, short, value_name = "FILE.vnnlib")]
    pub out: Option<PathBuf>,
}

/// The query's text, which was read back.
pub fn text(args: &Args, session: &Session<'_>) -> Result<String> {
    let relation = args.relation.relation()?;
    let pair = args.networks.pair(session.files)?;
    let cases = pair.cases(&relation).map_err(|e| args.networks.fail(&e))?;
    let areas = Areas::new(&args.area, pair.nets()[0], session.files)?;
    if areas.len() != 1 {
        let problem = format!("a query is about one {}, and {} are named", areas.name(), areas.len());
        return Err(fail(problem, "name one row with --indices, and one radius"));
    }
    // The grid of the inputs, on which a box must have a point, is that of both together.
    let question = pair.question(&Relation::Strict).or_else(|_| pair.question(&Relation::Top1));
    let question = question.map_err(|e| args.networks.fail(&e))?;
    let area = areas.at(0, pair.nets()[0], question.lowered())?;
    let names = [Names::new("f", pair.nets()[0], args.declare), Names::new("g", pair.nets()[1], args.declare)];
    let mut text = format!("(vnnlib-version <2.0>)\n{}{}", names[0].declaration, names[1].declaration);
    for i in 0..area.lo.len() {
        text += &bounds(&names, &area, i, args.declare)?;
    }
    let case = |constraints: &[Constraint]| -> Result<String> {
        let all = constraints.iter().map(|c| comparison(c, &names, pair.outputs())).collect::<Result<Vec<_>>>()?;
        Ok(format!("(and {})", all.join(" ")))
    };
    let all = cases.iter().map(|(p, _)| case(&p.constraints)).collect::<Result<Vec<_>>>()?;
    text += &format!("(assert (or {}))\n", all.join("\n"));
    let spec = vnnlib::parse(&text).map_err(|e| anyhow::anyhow!("the query: {e}"))?;
    Ok(remarks(args, &relation, &area) + &vnnlib::write(&spec))
}

fn remarks(args: &Args, relation: &Relation, area: &Area) -> String {
    let (a, b) = (&args.networks.a, &args.networks.b);
    let place = match (&args.area.inputs, &args.area.lower) {
        (Some(path), _) | (_, Some(path)) => format!("row {} of {}", area.row, path.display()),
        (None, None) => "one box for all".into(),
    };
    let lines = [
        format!("f is A, {}; g is B, {}", a.display(), b.display()),
        format!("{place}; unsat means: {}", words(relation)),
    ];
    lines.iter().map(|l| format!("; {}\n", l.replace(['\n', '\r'], " "))).collect()
}

/// How a network's elements are called.
pub struct Names {
    name: &'static str,
    shapes: [Vec<usize>; 2],
    /// The network's declaration.
    pub declaration: String,
}

impl Names {
    pub fn new(name: &'static str, lowered: &Lowered, declare: Declare) -> Names {
        let net = &lowered.net;
        let shapes = [net.inputs()[0], net.outputs()[0]].map(|id| net.node(id).shape.clone());
        let types = [lowered.input_types[0], lowered.output_types[0]];
        let tensor = |k: usize| {
            let element = if declare == Declare::Real { "real" } else { types[k].name() };
            let shape: Vec<String> = shapes[k].iter().map(usize::to_string).collect();
            format!("{}_{name} {element} [{}]", ["X", "Y"][k], shape.join(","))
        };
        let (input, output) = (tensor(0), tensor(1));
        let declaration = format!("(declare-network {name} (declare-input {input}) (declare-output {output}))\n");
        Names { name, shapes, declaration }
    }

    /// An input (0) or output (1) element.
    pub fn element(&self, side: usize, element: usize) -> String {
        let mut rest = element;
        let place = self.shapes[side].iter().rev().map(|&d| (rest % d, rest /= d).0.to_string());
        let mut place: Vec<String> = place.collect();
        place.reverse();
        let index = if place.is_empty() { String::new() } else { format!("[{}]", place.join(",")) };
        format!("{}_{}{index}", ["X", "Y"][side], self.name)
    }
}

fn decimal(x: &Ratio) -> Result<String> {
    let digits = Decimal::from_ratio(x).map(|d| d.to_string());
    digits.ok_or_else(|| fail(format!("{} cannot be written as a decimal", x.approx()), "use a decimal such as 0.05"))
}

/// Bounds of an input element, and that it is the same for both.
fn bounds(names: &[Names; 2], area: &Area, i: usize, declare: Declare) -> Result<String> {
    let [x, other] = [names[0].element(0, i), names[1].element(0, i)];
    let on_grid = |x: f64| Ratio::from_f64(x + 0.0).unwrap_or_else(|| unreachable!("corners are finite"));
    let (lo, hi) = match declare {
        Declare::Real => (area.lo[i].clone(), area.hi[i].clone()),
        Declare::Model => {
            let inside = area.inside.as_ref().unwrap_or(&area.region);
            (on_grid(inside.lo[i]), on_grid(inside.hi[i]))
        }
    };
    let (lo, hi) = (decimal(&lo)?, decimal(&hi)?);
    Ok(format!("(assert (>= {x} {lo}))\n(assert (<= {x} {hi}))\n(assert (== {x} {other}))\n"))
}

fn comparison(c: &Constraint, names: &[Names; 2], outputs: usize) -> Result<String> {
    let name = |i: usize| names[i / outputs].element(1, i % outputs);
    let word = if c.strict { "<" } else { "<=" };
    let is_one = |r: &Ratio| r.approx() == 1.0;
    // Elements that are compared with each other can be of machine types.
    if let ([(i, a), (j, b)], true) = (&c.terms[..], c.bound.is_zero()) {
        for ((i, a), (j, b)) in [((i, a), (j, b)), ((j, b), (i, a))] {
            if is_one(a) && is_one(&b.negated()) {
                return Ok(format!("({word} {} {})", name(*i), name(*j)));
            }
        }
    }
    let term = |(i, a): &(usize, Ratio)| Ok(format!("(* {} {})", decimal(a)?, name(*i)));
    let terms = c.terms.iter().map(term).collect::<Result<Vec<_>>>()?;
    Ok(format!("({word} (+ {}) {})", terms.join(" "), decimal(&c.bound)?))
}
