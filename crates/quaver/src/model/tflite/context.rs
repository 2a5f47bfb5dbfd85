//! One operator while it is turned into operations: checked access to its inputs and options, and its output.

use super::graph::{Graph, Layout};
use super::schema::{Operator, Options};
use super::tensors::{Info, Quantization, known};
use crate::model::build::{Hint, Problem};
use crate::model::ir::{DType, Op, ValueId};

pub(super) const EXPORT: &str = "export the model again";

/// Inputs of an operation.
pub(super) type Values = Vec<Option<ValueId>>;

/// What the activations of an operator are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Float,
    Int8,
}

/// A scale and a zero point for all elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Parameters {
    pub scale: f32,
    pub zero_point: i8,
}

/// One operation of the several that an operator may become; all but the first read the one before as first input.
pub(super) struct Step {
    pub op: Op,
    pub inputs: Values,
    pub hint: Hint,
    /// Ends the name of its value, where that is not the operator's output.
    pub suffix: &'static str,
}

impl Step {
    /// A step whose output shape follows from its inputs.
    pub fn new(op: Op, inputs: Values) -> Self {
        Step { op, inputs, hint: Hint::default(), suffix: "_unclipped" }
    }

    /// A step with this output shape.
    pub fn shaped(op: Op, inputs: Values, shape: Vec<usize>) -> Self {
        Step { hint: Hint { shape: Some(shape), dtype: None }, ..Step::new(op, inputs) }
    }
}

/// One operator.
pub(super) struct Context<'g, 'a> {
    pub graph: &'g mut Graph<'a>,
    pub operator: Operator<'a>,
    /// `CONV_2D#3`.
    pub name: String,
    /// Tensors; `None` where an optional input is absent.
    pub inputs: Vec<Option<usize>>,
    pub output: usize,
}

impl<'a> Context<'_, 'a> {
    /// Refuses a wrong number of inputs.
    pub fn arity(&self, min: usize, max: usize) -> Result<(), Problem> {
        let n = self.inputs.len();
        if (min..=max).contains(&n) {
            return Ok(());
        }
        let wanted = if min == max { format!("{min}") } else { format!("{min} to {max}") };
        Err(Problem::whole(format!("has {n} inputs, needs {wanted}"), EXPORT))
    }

    /// The operator's options, where it has any.
    pub fn opt_options<T: Options<'a>>(&self) -> Result<Option<T>, Problem> {
        let found = self.operator.options_type();
        if found == 0 {
            return Ok(None);
        }
        if found != T::TYPE {
            let what = format!("has options of type {found}, needs {} ({})", T::NAME, T::TYPE);
            return Err(Problem::whole(what, EXPORT));
        }
        let options = self.operator.options::<T>().map_err(|e| Problem::whole(format!("options: {e}"), EXPORT))?;
        options.as_ref().map_or(Ok(()), known)?;
        Ok(options)
    }

    /// The operator's options, which it cannot do without.
    pub fn options<T: Options<'a>>(&self) -> Result<T, Problem> {
        self.opt_options()?.ok_or_else(|| Problem::whole(format!("{} are missing", T::NAME), EXPORT))
    }

    /// Refuses options of an operator that has none.
    pub fn no_options(&self) -> Result<(), Problem> {
        match self.operator.options_type() {
            0 => Ok(()),
            other => Err(Problem::whole(format!("has options of type {other}, needs none"), EXPORT)),
        }
    }

    /// Whether an optional input is present.
    pub fn has(&self, position: usize) -> bool {
        self.inputs.get(position).is_some_and(Option::is_some)
    }

    /// The tensor at a position.
    pub fn tensor(&self, position: usize) -> Result<usize, Problem> {
        let tensor = self.inputs.get(position).copied().flatten();
        tensor.ok_or_else(|| Problem::input(position, "missing, but required", EXPORT))
    }

    /// A problem with an input, with its name.
    pub fn refuse(&self, position: usize, problem: Problem) -> Problem {
        match self.inputs.get(position).copied().flatten() {
            Some(tensor) => {
                Problem::input(position, format!("`{}` {}", self.graph.name(tensor), problem.what), problem.cure)
            }
            None => problem,
        }
    }

    /// What the file says about an input.
    pub fn info(&self, position: usize) -> Result<&Info<'a>, Problem> {
        let tensor = self.tensor(position)?;
        self.graph.info(tensor).map_err(|p| self.refuse(position, p))
    }

    /// What the file says about the output.
    pub fn output_info(&self) -> Result<&Info<'a>, Problem> {
        self.graph.info(self.output)
    }

    /// The shape of an input in the file's layout.
    pub fn shape(&self, position: usize) -> Result<Vec<usize>, Problem> {
        Ok(self.info(position)?.shape.clone())
    }

    /// The shape of an input [N, H, W, C].
    pub fn image(&self, position: usize) -> Result<[usize; 4], Problem> {
        let shape = self.shape(position)?;
        <[usize; 4]>::try_from(&shape[..]).map_err(|_| {
            self.refuse(position, Problem::whole(format!("has shape {shape:?}, needs 4 dimensions"), EXPORT))
        })
    }

    /// What the inputs at these positions and the output are: all float32 or all int8.
    pub fn kind(&self, positions: &[usize]) -> Result<Kind, Problem> {
        let output = self.output_info()?.dtype;
        let kind = match output {
            DType::F32 => Kind::Float,
            DType::I8 => Kind::Int8,
            other => return Err(Problem::output(0, format!("is {other}, only float32 and int8 are supported"), "")),
        };
        for &position in positions {
            let dtype = self.info(position)?.dtype;
            if dtype != output {
                let problem =
                    Problem::whole(format!("is {dtype}, but the output is {output}"), "use one type for both");
                return Err(self.refuse(position, problem));
            }
        }
        Ok(kind)
    }

    /// The value of an input in a layout.
    pub fn value(&mut self, position: usize, layout: Layout) -> Result<ValueId, Problem> {
        let tensor = self.tensor(position)?;
        self.graph.value(tensor, layout).map_err(|p| self.refuse(position, p))
    }

    /// The layout in which to compute element by element: channels first where all inputs that are no constants have that form.
    pub fn layout(&self, positions: &[usize]) -> Result<Layout, Problem> {
        let mut first = self.output_info()?.shape.len() == 4;
        let mut any = false;
        for &position in positions {
            let tensor = self.tensor(position)?;
            if self.graph.is_constant(tensor) {
                first &= self.info(position)?.shape.len() <= 4;
            } else {
                any = true;
                first &= self.graph.has_channels_first(tensor);
            }
        }
        Ok(if first && any { Layout::ChannelsFirst } else { Layout::File })
    }

    /// The integers of a constant parameter, such as axes.
    pub fn ints(&mut self, position: usize) -> Result<Vec<i64>, Problem> {
        let tensor = self.tensor(position)?;
        let info = self.info(position)?;
        let short = info.shape.iter().product::<usize>() <= 64;
        if !matches!(info.dtype, DType::I32 | DType::I64) || !short {
            let problem = Problem::whole(
                format!("is {} of shape {:?}, needs a short list of int32 or int64", info.dtype, info.shape),
                EXPORT,
            );
            return Err(self.refuse(position, problem));
        }
        let elements = self.graph.tensor(tensor).map_err(|p| self.refuse(position, p))?;
        elements.to_i64().ok_or_else(|| Problem::input(position, "is not a list of integers", EXPORT))
    }

    fn one_scale(quantization: Option<&Quantization>) -> Result<Parameters, Problem> {
        let Some(q) = quantization else {
            return Err(Problem::whole(
                "is int8, but has no scale",
                "convert the model with full integer quantization",
            ));
        };
        let (&[scale], &[zero_point]) = (&q.scales[..], &q.zero_points[..]) else {
            let what = format!("has {} scales, but one is needed here", q.scales.len());
            return Err(Problem::whole(what, "only weights may have a scale for each channel"));
        };
        let zero_point = i8::try_from(zero_point);
        let zero_point = zero_point.map_err(|_| Problem::whole("has a zero point outside [-128, 127]", EXPORT))?;
        if scale <= 0.0 {
            return Err(Problem::whole(format!("has the scale {scale}"), "use positive scales"));
        }
        Ok(Parameters { scale, zero_point })
    }

    /// Scale and zero point of an int8 input.
    pub fn parameters(&self, position: usize) -> Result<Parameters, Problem> {
        Self::one_scale(self.info(position)?.quantization.as_ref()).map_err(|p| self.refuse(position, p))
    }

    /// Scale and zero point of an int8 output.
    pub fn output_parameters(&self) -> Result<Parameters, Problem> {
        Self::one_scale(self.output_info()?.quantization.as_ref())
    }

    /// Refuses int8 inputs at these positions that have not the output's scale and zero point.
    pub fn same_parameters(&self, positions: &[usize]) -> Result<(), Problem> {
        let output = self.output_parameters()?;
        for &position in positions {
            let input = self.parameters(position)?;
            if input != output {
                let what = format!("has scale {} and zero point {}", input.scale, input.zero_point);
                let what = format!("{what}, the output {} and {}", output.scale, output.zero_point);
                return Err(
                    self.refuse(position, Problem::whole(what, "the operator copies integers: use the same for both"))
                );
            }
        }
        Ok(())
    }

    /// The constants of a scale and a zero point, named after the tensor.
    fn constants(&mut self, tensor: usize, p: Parameters) -> [Option<ValueId>; 2] {
        [Some(self.graph.scales(tensor, &[p.scale])), Some(self.graph.zero_points(tensor, &[p.zero_point]))]
    }

    /// Scale and zero point of an int8 input, as values.
    pub fn input_quantizer(&mut self, position: usize) -> Result<[Option<ValueId>; 2], Problem> {
        let (tensor, p) = (self.tensor(position)?, self.parameters(position)?);
        Ok(self.constants(tensor, p))
    }

    /// Scale and zero point of the int8 output, as values.
    pub fn output_quantizer(&mut self) -> Result<[Option<ValueId>; 2], Problem> {
        let p = self.output_parameters()?;
        Ok(self.constants(self.output, p))
    }

    /// An int8 input in a layout, with its scale and zero point.
    pub fn operand(&mut self, position: usize, layout: Layout) -> Result<[Option<ValueId>; 3], Problem> {
        let [scale, zero_point] = self.input_quantizer(position)?;
        Ok([Some(self.value(position, layout)?), scale, zero_point])
    }

    /// The step that a fused activation is.
    pub fn activation(&mut self, activation: i8, kind: Kind) -> Result<Option<Step>, Problem> {
        let (min, max) = match activation {
            0 => return Ok(None),
            1 => (Some(0.0), None),
            2 => (Some(-1.0), Some(1.0)),
            3 => (Some(0.0), Some(6.0)),
            other => {
                let name = match other {
                    4 => "TANH".into(),
                    5 => "SIGN_BIT".into(),
                    _ => format!("number {other}"),
                };
                let what = format!("{name} is not supported");
                return Err(Problem::attribute("fused_activation_function", what, "use RELU or RELU6"));
            }
        };
        let step = match kind {
            Kind::Int8 => Step::new(Op::QLinearClip { min, max }, self.output_quantizer()?.to_vec()),
            Kind::Float if max.is_none() => Step::new(Op::Relu, vec![]),
            Kind::Float => Step::new(Op::Clip { min, max }, vec![]),
        };
        Ok(Some(Step { suffix: "_clipped", ..step }))
    }

    /// Adds the operations; the last makes the output, in this layout.
    pub fn finish(&mut self, layout: Layout, steps: impl IntoIterator<Item = Step>) -> Result<(), Problem> {
        let mut steps = steps.into_iter().peekable();
        let mut previous = None;
        while let Some(step) = steps.next() {
            let node = if previous.is_some() { format!("{}{}", self.name, step.suffix) } else { self.name.clone() };
            let suffix = if steps.peek().is_some() { step.suffix } else { "" };
            let name = self.graph.fresh(self.output, suffix);
            let inputs: Values = previous.into_iter().map(Some).chain(step.inputs).collect();
            let id = self.graph.asm.emit(&node, name, step.op, &inputs, &step.hint)?;
            previous = Some(id);
        }
        if let Some(id) = previous {
            self.graph.check_declared(self.output, layout, id)?;
            self.graph.set(self.output, layout, id);
        }
        Ok(())
    }
}
