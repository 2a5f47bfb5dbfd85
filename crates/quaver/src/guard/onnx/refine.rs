//! Networks one behind the other, each for the rows that the ones before are not sure of.

use super::Refusal;
use super::accept::{Meaning, Said, accept};
use super::builder::{Builder, int, value};
use super::float::Float;
use super::gate::gate;
use super::network::scores;
use crate::guard::kernels::chain::Chain;
use crate::guard::plan::{Gate, Kind, Plan};
use crate::model::onnx::proto::Dimension::{DimParam, DimValue};
use crate::model::onnx::proto::{GraphProto, data_type};

/// What a file is made of.
pub(super) struct Guarded<'a> {
    pub plan: &'a Plan,
    pub gate: Gate,
    pub float: &'a Float,
    pub chains: &'a [Chain],
    pub meanings: &'a [Meaning<'a>],
}

/// Names of what is said of all rows so far: class, stage, whether a network was sure, margin, scores.
type State = [String; 5];

const OUTPUTS: [(&str, i32); 5] = [
    ("class", data_type::INT64),
    ("stage", data_type::INT64),
    ("accepted", data_type::BOOL),
    ("margin", data_type::DOUBLE),
    ("scores", data_type::FLOAT),
];
const ACCEPTED: usize = 2;

/// Values of the outermost graph that branches read.
struct Rows {
    /// As the file is given them.
    given: String,
    /// `[N, n]`, as the quantized networks are.
    flat: String,
    cells: Option<String>,
    known: String,
}

impl Guarded<'_> {
    /// The whole graph.
    pub fn graph(&self) -> Result<GraphProto, Refusal> {
        let mut b = Builder::new(self.float.opset);
        let rows = self.rows(&mut b)?;
        let Said { class, margin, scores } = self.said(&mut b, 0, &rows.flat, rows.cells.as_deref())?;
        let accepted = self.enough(&mut b, &margin);
        let accepted = b.node("And", &[&accepted, &rows.known]);
        let stage = self.stage(&mut b, &accepted, 0);
        let first = [class, stage, accepted, margin, scores];
        let last = match self.plan.kind {
            Kind::Refinement => {
                let refused = b.node("Not", &[&first[ACCEPTED]]);
                let (places, is_any) = places(&mut b, &refused);
                b.open();
                let more = self.refined(&mut b, &rows, &first, &places)?;
                let branch = close(&mut b, &more);
                let same = unchanged(&mut b, &first);
                chosen(&mut b, &is_any, [&branch, &same])
            }
            Kind::Ensemble => {
                let state = self.others(&mut b, &rows, &first)?;
                self.first_where_unsure(&mut b, &rows, &first, state)
            }
        };
        for ((name, _), made) in OUTPUTS.iter().zip(&last) {
            b.rename(made, name);
        }
        let n = || DimParam("N".into());
        let classes = || DimValue(self.plan.classes as i64);
        let shape: Vec<_> = [n()].into_iter().chain(self.float.shape.iter().map(|d| DimValue(*d))).collect();
        b.current().input = vec![value(&rows.given, data_type::FLOAT, Some(shape))];
        let output = |(name, elements): &(&str, i32)| {
            let shape = if *name == "scores" { vec![n(), classes()] } else { vec![n()] };
            value(name, *elements, Some(shape))
        };
        b.current().output = OUTPUTS.iter().map(output).collect();
        Ok(b.finish())
    }

    /// Rows as they are given, and what the gate sees.
    fn rows(&self, b: &mut Builder) -> Result<Rows, Refusal> {
        let given = "input".to_string();
        let n = self.float.shape.iter().product();
        let is_flat = self.float.shape.len() == 1;
        let flat = if is_flat { given.clone() } else { b.reshape(&given, &[-1, n]) };
        let seen = gate(b, &flat, &self.gate, &self.plan.cells, self.plan.classes)?;
        Ok(Rows { given, flat, cells: seen.cells, known: seen.known })
    }

    /// What a quantized network says of some rows. Only the first one, and an ensemble's, are asked about NaN.
    fn said(&self, b: &mut Builder, i: usize, rows: &str, cells: Option<&str>) -> Result<Said, Refusal> {
        let scores = scores(b, &self.chains[i], rows, i == 0)?;
        accept(b, &scores, cells, &self.meanings[i])
    }

    fn enough(&self, b: &mut Builder, margin: &str) -> String {
        let zero = b.double(&[0.0], &[]);
        b.node("GreaterOrEqual", &[margin, &zero])
    }

    /// The network's number where it is sure, that of the float network elsewhere.
    fn stage(&self, b: &mut Builder, accepted: &str, number: usize) -> String {
        let (number, float) = (b.int64(&[number as i64], &[]), b.int64(&[self.chains.len() as i64], &[]));
        b.node("Where", &[accepted, &number, &float])
    }

    /// Within the branch for rows that the first network is not sure of, at these places: other networks, then the float network.
    fn refined(&self, b: &mut Builder, rows: &Rows, first: &State, places_: &str) -> Result<State, Refusal> {
        if self.chains.len() == 1 {
            return Ok(self.by_float(b, rows, first, places_));
        }
        let state = self.others(b, rows, first)?;
        let refused = b.node("Not", &[&state[ACCEPTED]]);
        let (left, is_any) = places(b, &refused);
        b.open();
        let state_of_float = self.by_float(b, rows, &state, &left);
        let branch = close(b, &state_of_float);
        let same = unchanged(b, &state);
        Ok(chosen(b, &is_any, [&branch, &same]))
    }

    /// The networks behind the first, for the known rows that it is not sure of.
    fn others(&self, b: &mut Builder, rows: &Rows, first: &State) -> Result<State, Refusal> {
        if self.chains.len() == 1 {
            return Ok(first.clone());
        }
        let refused = b.node("Not", &[&first[ACCEPTED]]);
        let open = b.node("And", &[&refused, &rows.known]);
        let (open, is_any) = places(b, &open);
        self.next(b, rows, first, (1, &open, &is_any))
    }

    /// If there are any rows at these places, a network for them, and then the next one.
    fn next(
        &self,
        b: &mut Builder,
        rows: &Rows,
        state: &State,
        (number, open, is_any): (usize, &str, &str),
    ) -> Result<State, Refusal> {
        b.open();
        let own = b.gather(&rows.flat, open, 0);
        let cells = rows.cells.as_ref().map(|cells| b.gather(cells, open, 0));
        let Said { class, margin, scores } = self.said(b, number, &own, cells.as_deref())?;
        let accepted = self.enough(b, &margin);
        let stage = self.stage(b, &accepted, number);
        let refused = b.node("Not", &[&accepted]);
        let mut made = scattered(b, state, open, &[class, stage, accepted, margin, scores]);
        if number + 1 < self.chains.len() {
            let left = b.with("Compress", &[open, &refused], vec![int("axis", 0)]);
            let is_left = any(b, &left);
            made = self.next(b, rows, &made, (number + 1, &left, &is_left))?;
        }
        let branch = close(b, &made);
        let same = unchanged(b, state);
        Ok(chosen(b, is_any, [&branch, &same]))
    }

    /// The float network for the rows at some places.
    fn by_float(&self, b: &mut Builder, rows: &Rows, state: &State, places: &str) -> State {
        let own = b.gather(&rows.given, places, 0);
        let made = self.float.embed(b, &own);
        let classes = self.plan.classes;
        let scores = b.reshape(&made, &[-1, classes as i64]);
        // The first of equals; NaN is never larger, and nothing is larger than NaN.
        let is_nan = b.node("IsNaN", &[&scores]);
        let instead: Vec<f32> = (0..classes).map(|c| if c == 0 { f32::INFINITY } else { f32::NEG_INFINITY }).collect();
        let instead = b.single(&instead, &[1, classes]);
        let ordered = b.node("Where", &[&is_nan, &instead, &scores]);
        let class = b.with("ArgMax", &[&ordered], vec![int("axis", 1), int("keepdims", 0)]);
        let margin = lead(b, &scores, classes);
        let (shape, number) = (b.node("Shape", &[&class]), b.int64(&[self.chains.len() as i64], &[1]));
        let stage = b.node("Expand", &[&number, &shape]);
        // No quantized network was sure.
        let no = b.node("Less", &[&stage, &number]);
        scattered(b, state, places, &[class, stage, no, margin, scores])
    }

    /// An ensemble's answer: where none is sure, what the first network said.
    fn first_where_unsure(&self, b: &mut Builder, rows: &Rows, first: &State, state: State) -> State {
        let accepted = state[ACCEPTED].clone();
        let zero = b.int64(&[0], &[]);
        let unknown = b.double(&[f64::NEG_INFINITY], &[]);
        let margin = b.node("Where", &[&rows.known, &first[3], &unknown]);
        let column = b.column(&accepted);
        let mut choose = |mask: &str, sure: &str, unsure: &str| b.node("Where", &[mask, sure, unsure]);
        [
            choose(&accepted, &state[0], &first[0]),
            choose(&accepted, &state[1], &zero),
            accepted.clone(),
            choose(&accepted, &state[3], &margin),
            choose(&column, &state[4], &first[4]),
        ]
    }
}

/// The places where something holds, and whether there is one.
fn places(b: &mut Builder, mask: &str) -> (String, String) {
    let places = b.node("NonZero", &[mask]);
    let places = b.reshape(&places, &[-1]);
    let any = any(b, &places);
    (places, any)
}

fn any(b: &mut Builder, places: &str) -> String {
    let size = b.node("Size", &[places]);
    b.cast(&size, data_type::BOOL)
}

/// What is said of all rows, with what is said of those at some places.
fn scattered(b: &mut Builder, state: &State, places: &str, made: &State) -> State {
    let at = b.column(places);
    let mut i = 0;
    state.clone().map(|old| {
        i += 1;
        b.node("ScatterND", &[&old, &at, &made[i - 1]])
    })
}

/// The lead of the largest of some scores, in binary64.
fn lead(b: &mut Builder, scores: &str, classes: usize) -> String {
    if classes < 2 {
        let zero = b.double(&[0.0], &[]);
        let first = b.reduce("ReduceMax", scores, 1, false);
        let first = b.cast(&first, data_type::DOUBLE);
        return b.node("Mul", &[&first, &zero]);
    }
    let two = b.int64(&[2], &[1]);
    let largest = b.many("TopK", &[scores, &two], 2, vec![]).swap_remove(0);
    let largest = b.cast(&largest, data_type::DOUBLE);
    let weights = b.double(&[1.0, -1.0], &[2]);
    let signed = b.node("Mul", &[&largest, &weights]);
    b.reduce("ReduceSum", &signed, 1, false)
}

fn close(b: &mut Builder, state: &State) -> GraphProto {
    let outputs: Vec<_> = state.iter().zip(OUTPUTS).map(|(name, (_, elements))| (name.clone(), elements)).collect();
    b.close(&outputs)
}

/// A branch in which nothing changes.
fn unchanged(b: &mut Builder, state: &State) -> GraphProto {
    b.open();
    let same = state.clone().map(|name| b.node("Identity", &[&name]));
    close(b, &same)
}

fn chosen(b: &mut Builder, condition: &str, branches: [&GraphProto; 2]) -> State {
    let outputs = b.choose(condition, branches);
    std::array::from_fn(|i| outputs[i].clone())
}
