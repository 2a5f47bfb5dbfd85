//! Constraints on numbered elements: those of all inputs of all networks in a row, and those of all outputs.

use std::sync::Arc;

use super::SpecError;
use super::check::is_typed;
use crate::model::lower::Lowered;
use crate::num::Ratio;
use crate::vnnlib::{Constraint, Decimal, ElementType, Relation, Side, Spec, Variable};

/// sum over inputs + sum over outputs (relation) bound.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub inputs: Vec<(usize, Decimal)>,
    pub outputs: Vec<(usize, Decimal)>,
    pub relation: Relation,
    pub bound: Decimal,
}

/// The rows of a query's constraints.
pub(super) fn rows(spec: &Spec, nets: &[Arc<Lowered>]) -> Result<Vec<Row>, SpecError> {
    let places = Places::new(spec);
    let typed = is_typed(spec);
    let row = |c: &Constraint| {
        if typed {
            machine(spec, c)?;
        }
        check_softmax(spec, nets, &places, c, typed)?;
        let of = |side| move |(v, a): &(Variable, Decimal)| (v.side == side).then(|| (*v, a.clone()));
        let numbered = |side| c.terms.iter().filter_map(of(side)).map(|(v, a)| (places.of(v), a)).collect();
        let bound = if typed { stored(spec, c) } else { c.bound.clone() };
        Ok(Row { inputs: numbered(Side::Input), outputs: numbered(Side::Output), relation: c.relation, bound })
    };
    spec.constraints.iter().map(row).collect()
}

/// First element of each tensor.
struct Places {
    inputs: Vec<Vec<usize>>,
    outputs: Vec<Vec<usize>>,
}

impl Places {
    fn new(spec: &Spec) -> Self {
        let first = |side| {
            let mut next = 0;
            let of = |t: &crate::vnnlib::Tensor| (next, next += t.len()).0;
            let mut of = of;
            spec.networks.iter().map(|n| n.tensors(side).iter().map(&mut of).collect()).collect()
        };
        Places { inputs: first(Side::Input), outputs: first(Side::Output) }
    }

    fn of(&self, v: Variable) -> usize {
        let tensors = match v.side {
            Side::Input => &self.inputs,
            Side::Output => &self.outputs,
        };
        tensors[v.network][v.tensor] + v.element
    }
}

/// Refuses what machine arithmetic would make another comparison of.
fn machine(spec: &Spec, c: &Constraint) -> Result<(), SpecError> {
    let shown = || spec.shown(c.terms[0].0);
    if c.computed {
        let problem = format!("a comparison of `{}` adds or multiplies machine numbers, which rounds", shown());
        return Err(SpecError::new(
            problem,
            "compare elements with each other and with numbers, or declare every tensor `real`",
        ));
    }
    let integer = !spec.tensor(c.terms[0].0).element.is_float();
    if integer && !c.bound.is_integer() {
        let problem = format!("`{}` is an integer and is compared with {}", shown(), c.bound);
        return Err(SpecError::new(problem, "compare it with an integer, or declare every tensor `real`"));
    }
    if c.terms.iter().any(|t| spec.tensor(t.0).element != spec.tensor(c.terms[0].0).element) {
        let problem = format!("`{}` is compared with an element of another type", shown());
        return Err(SpecError::new(problem, "compare elements of one type, or declare every tensor `real`"));
    }
    Ok(())
}

/// The bound as a number of the compared element's type: the nearest float32.
fn stored(spec: &Spec, c: &Constraint) -> Decimal {
    if spec.tensor(c.terms[0].0).element != ElementType::Float32 {
        return c.bound.clone();
    }
    let exact = c.bound.ratio();
    let (down, up) = (exact.floor_f32(), exact.ceil_f32());
    let distance = |x: f32| Ratio::from_f64(x.into()).map(|x| x.minus(&exact));
    let is_up = match (distance(down), distance(up)) {
        // up - exact against exact - down: nearer, or the even one of two.
        (Some(d), Some(u)) => {
            let difference = u.plus(&d);
            difference.is_negative() || (difference.is_zero() && up.to_bits() & 1 == 0)
        }
        _ => false,
    };
    Decimal::from_f64(f64::from(if is_up { up } else { down })).unwrap_or_else(|| c.bound.clone())
}

/// Refuses constraints on a Softmax that was left out, but for comparisons of two of its classes.
fn check_softmax(
    spec: &Spec,
    nets: &[Arc<Lowered>],
    places: &Places,
    c: &Constraint,
    typed: bool,
) -> Result<(), SpecError> {
    for (v, _) in c.terms.iter().filter(|t| t.0.side == Side::Output) {
        let (lowered, place) = (&nets[v.network], places.of(*v) - places.outputs[v.network][0]);
        let Some((output, element)) = within(lowered, place) else { continue };
        let Some(softmax) = &lowered.softmax[output] else { continue };
        let row = |v: &Variable| {
            let place = places.of(*v) - places.outputs[v.network][0];
            within(lowered, place).map(|(o, e)| (v.network, o, e / softmax.classes))
        };
        let own = Some((v.network, output, element / softmax.classes));
        let compares = match &c.terms[..] {
            [(a, x), (b, y)] => *x == y.negated() && c.bound.is_zero() && row(a) == own && row(b) == own,
            _ => false,
        };
        if !compares || typed {
            let problem = format!("`{}` is a result of Softmax, whose exponentials no profile defines", spec.shown(*v));
            let cure = "end the model at the logits; two classes of one Softmax can be compared in a `real` query";
            return Err(SpecError::new(problem, cure));
        }
    }
    Ok(())
}

/// The output that an element of all outputs in a row belongs to, and its place there.
fn within(lowered: &Lowered, mut place: usize) -> Option<(usize, usize)> {
    for (k, id) in lowered.net.outputs().iter().enumerate() {
        let len = lowered.net.node(*id).len();
        if place < len {
            return Some((k, place));
        }
        place -= len;
    }
    None
}
