//! A query that is being written.

use anyhow::Result;
use quaver::model::ir::DType;
use quaver::model::lower::Lowered;
use quaver::property::Region;
use quaver::vnnlib::{self, Decimal, Version};

use super::{Declare, Target};
use crate::session::{Files, fail};
use crate::{format, load};

/// The declared tensors and what is asserted of them.
pub struct Draft {
    version: Version,
    inputs: Tensor,
    outputs: Tensor,
    /// Lines that say what the query is.
    pub remarks: Vec<String>,
    /// Formulas.
    pub assertions: Vec<String>,
}

struct Tensor {
    letter: char,
    element: &'static str,
    shape: Vec<usize>,
}

impl Tensor {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    fn name(&self, version: Version, element: usize) -> String {
        match version {
            Version::V1 => format!("{}_{element}", self.letter),
            Version::V2 => {
                let mut rest = element;
                let mut place: Vec<String> =
                    self.shape.iter().rev().map(|&d| (rest % d, rest /= d).0.to_string()).collect();
                place.reverse();
                if place.is_empty() { self.letter.into() } else { format!("{}[{}]", self.letter, place.join(",")) }
            }
        }
    }
}

impl Draft {
    /// A query about a model, without assertions.
    pub(super) fn new(target: &Target, default: Declare, files: Files) -> Result<(Draft, Lowered)> {
        let lowered = load::lowered(files, &target.model, None)?.lowered;
        let net = &lowered.net;
        let (&[input], &[output]) = (net.inputs(), net.outputs()) else {
            let problem = format!("{}: has not one input and one output", target.model.display());
            return Err(fail(problem, "write the query by hand, see docs/vnnlib.md"));
        };
        let declare = target.declare.unwrap_or(default);
        let tensor = |letter, id, dtype: DType| {
            let element = if declare == Declare::Real { "real" } else { dtype.name() };
            Tensor { letter, element, shape: net.node(id).shape.clone() }
        };
        let draft = Draft {
            version: target.language.into(),
            inputs: tensor('X', input, lowered.input_types[0]),
            outputs: tensor('Y', output, lowered.output_types[0]),
            remarks: vec![format!("{}: input {}", target.model.display(), format::shape(&net.node(input).shape))],
            assertions: vec![],
        };
        Ok((draft, lowered))
    }

    /// A query about real numbers, given the shapes of the input and the output, without assertions.
    pub fn of_shapes(input: &[usize], output: &[usize]) -> Draft {
        let tensor = |letter, shape: &[usize]| Tensor { letter, element: "real", shape: shape.into() };
        let (inputs, outputs) = (tensor('X', input), tensor('Y', output));
        Draft { version: Version::V2, inputs, outputs, remarks: vec![], assertions: vec![] }
    }

    /// Asserts that another class than the label wins; with `first` the first of equals does, else every other class as large as it.
    pub fn contest(&mut self, label: usize, first: bool) {
        let beaten = |rival: usize| {
            let word = if first && rival > label { ">" } else { ">=" };
            format!("(and ({word} {} {}))", self.y(rival), self.y(label))
        };
        let rivals: Vec<String> = (0..self.size().1).filter(|&c| c != label).map(beaten).collect();
        self.assertions.push(format!("(or {})", rivals.join(" ")));
    }

    /// Number of inputs and of outputs.
    pub fn size(&self) -> (usize, usize) {
        (self.inputs.len(), self.outputs.len())
    }

    /// The name of an input element.
    pub fn x(&self, element: usize) -> String {
        self.inputs.name(self.version, element)
    }

    /// The name of an output element.
    pub fn y(&self, element: usize) -> String {
        self.outputs.name(self.version, element)
    }

    /// Asserts that the inputs are in a region.
    pub fn bound(&mut self, region: &Region) -> Result<()> {
        let decimal = |x: f64| {
            // Adding zero turns -0 into 0.
            let digits = Decimal::from_f64(x + 0.0).filter(|_| x.is_finite());
            digits
                .map(|d| d.to_string())
                .ok_or_else(|| fail(format!("{x} cannot be written as a decimal"), "use other bounds"))
        };
        let mut bounds = vec![];
        for (i, (&lo, &hi)) in region.lo.iter().zip(&region.hi).enumerate() {
            let x = self.x(i);
            if lo == hi {
                bounds.push(format!("({} {x} {})", if self.version == Version::V1 { "=" } else { "==" }, decimal(lo)?));
            } else {
                bounds.push(format!("(>= {x} {})", decimal(lo)?));
                bounds.push(format!("(<= {x} {})", decimal(hi)?));
            }
        }
        self.assertions.append(&mut bounds);
        Ok(())
    }

    /// The query's text, as it was put together.
    pub fn plain(&self) -> String {
        let mut text = self.declarations();
        for assertion in &self.assertions {
            text += &format!("(assert {assertion})\n");
        }
        text
    }

    /// The query's text, which was read back.
    pub fn text(&self) -> Result<String> {
        let text = self.plain();
        let spec = vnnlib::parse(&text).map_err(|e| anyhow::anyhow!("the query: {e}"))?;
        let remarks: String = self.remarks.iter().map(|r| format!("; {}\n", r.replace(['\n', '\r'], " "))).collect();
        Ok(remarks + &vnnlib::write(&spec))
    }

    fn declarations(&self) -> String {
        let tensors = [&self.inputs, &self.outputs];
        match self.version {
            Version::V1 => {
                let one = |t: &Tensor| {
                    (0..t.len())
                        .map(|i| format!("(declare-const {} Real)\n", t.name(Version::V1, i)))
                        .collect::<String>()
                };
                tensors.into_iter().map(one).collect()
            }
            Version::V2 => {
                let [x, y] = tensors.map(|t| {
                    let shape: Vec<String> = t.shape.iter().map(usize::to_string).collect();
                    format!("{} {} [{}]", t.letter, t.element, shape.join(","))
                });
                format!("(vnnlib-version <2.0>)\n(declare-network f (declare-input {x}) (declare-output {y}))\n")
            }
        }
    }
}
