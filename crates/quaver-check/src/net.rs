//! What a model file means: values made by few operations with exact constants.

/// A network with one input and one output, or two as one (see [`crate::pair`]). Every value depends on earlier ones only.
#[derive(Clone, Debug, Default)]
pub struct Net {
    /// In the order of the file.
    pub values: Vec<Value>,
    /// The input's number.
    pub input: usize,
    /// The output's number.
    pub output: usize,
    /// Functions for rule *Difference*, the second after the first.
    pub twins: Vec<[usize; 2]>,
}

impl Net {
    /// The value that is a function, by its number among the functions that the output depends on.
    ///
    /// # Errors
    /// If there are not so many.
    pub fn function(&self, number: usize) -> Result<usize, String> {
        self.functions().get(number).copied().ok_or_else(|| format!("there is no function {number}"))
    }

    /// The functions that the output depends on, in order.
    pub fn functions(&self) -> Vec<usize> {
        let needed = self.needed();
        let is_function = |&k: &usize| needed[k] && matches!(self.values[k].op, Op::Function(_));
        (0..self.values.len()).filter(is_function).collect()
    }

    /// The first twin of a second one.
    pub fn twin(&self, second: usize) -> Option<usize> {
        self.twins.iter().find(|t| t[1] == second).map(|t| t[0])
    }

    /// The values that one is an argument of, among those that the output depends on.
    pub fn readers(&self, id: usize) -> Vec<usize> {
        let needed = self.needed();
        (0..self.values.len()).filter(|&k| needed[k] && self.values[k].op.arguments().contains(&id)).collect()
    }

    /// Whether the output depends on each value, or is it.
    fn needed(&self) -> Vec<bool> {
        let mut needed = vec![false; self.values.len()];
        needed[self.output] = true;
        for id in (0..=self.output).rev() {
            if needed[id] {
                self.values[id].op.arguments().into_iter().for_each(|of| needed[of] = true);
            }
        }
        needed
    }
}

/// One tensor, flattened row-major without a batch axis.
#[derive(Clone, Debug)]
pub struct Value {
    /// As in the file; for messages.
    pub name: String,
    /// Sizes of its axes without the batch.
    pub shape: Vec<usize>,
    /// How it is made.
    pub op: Op,
    /// Whether every element is an integer in every execution.
    pub integer: bool,
}

impl Value {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How a value is made from earlier ones, given by their numbers.
#[derive(Clone, Debug)]
pub enum Op {
    /// The network's input.
    Input,
    /// Sum of linear maps and a bias.
    Affine(Affine),
    /// The same function of every element, or one for each.
    Function(Function),
    /// The largest of some elements of one value, for each element.
    Max {
        /// Whose elements.
        of: usize,
        /// For each element, which; never empty.
        windows: Vec<Vec<u32>>,
    },
    /// Copies of elements and constants.
    Move {
        /// Whose elements.
        of: usize,
        /// For each element.
        from: Vec<Source>,
    },
    /// The elements of several values.
    Row(Vec<usize>),
}

impl Op {
    /// The values that it is made from.
    pub fn arguments(&self) -> Vec<usize> {
        match self {
            Op::Input => vec![],
            Op::Affine(a) => a.terms.iter().map(|t| t.0).collect(),
            Op::Function(f) => vec![f.of],
            Op::Max { of, .. } | Op::Move { of, .. } => vec![*of],
            Op::Row(of) => of.clone(),
        }
    }

    /// Gives the values that it is made from other numbers.
    pub fn renumber(&mut self, new: impl Fn(usize) -> usize) {
        match self {
            Op::Input => {}
            Op::Affine(a) => a.terms.iter_mut().for_each(|t| t.0 = new(t.0)),
            Op::Function(Function { of, .. }) | Op::Max { of, .. } | Op::Move { of, .. } => *of = new(*of),
            Op::Row(of) => of.iter_mut().for_each(|of| *of = new(*of)),
        }
    }
}

/// Where an element of a [`Op::Move`] comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// An element.
    Element(u32),
    /// A number.
    Constant(f64),
}

/// sum of maps + bias, exact but for `slack`.
#[derive(Clone, Debug)]
pub struct Affine {
    /// The maps, each with the value that it is applied to.
    pub terms: Vec<(usize, Map)>,
    /// For each element.
    pub bias: Vec<f64>,
    /// |value - exact| <= slack * (sum of |weight| |element| + |bias|); 0 where the value is exact.
    pub slack: f64,
}

/// A linear map with exact weights.
#[derive(Clone, Debug)]
pub enum Map {
    /// y = W x on the last axis, for each of `outer` blocks.
    Dense {
        /// Blocks that are mapped alike.
        outer: usize,
        /// Length of a block of x.
        inputs: usize,
        /// Length of a block of y.
        outputs: usize,
        /// `[outputs, inputs]` row-major.
        weights: Vec<f64>,
    },
    /// Convolution without padding.
    Conv(Conv),
    /// One factor for each element.
    Scale(Vec<f64>),
}

/// A two-dimensional convolution of `[in_channels, in_size]` to `[out_channels, out_size]`; padding is a [`Op::Move`] before it.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the usual names
pub struct Conv {
    pub groups: usize,
    pub in_channels: usize,
    pub in_size: [usize; 2],
    pub out_channels: usize,
    pub out_size: [usize; 2],
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// `[out_channels, in_channels / groups, kernel height, kernel width]` row-major.
    pub weights: Vec<f64>,
}

/// A monotone function of every element.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its argument.
    pub of: usize,
    /// One for all elements, or one for each.
    pub pieces: Vec<Shape>,
}

impl Function {
    /// The function of one element.
    pub fn at(&self, element: usize) -> &Shape {
        if self.pieces.len() == 1 { &self.pieces[0] } else { &self.pieces[element] }
    }
}

/// A monotone (not decreasing) function of one number.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Slope `left` below `low`, 1 between `low` and `high`, 0 above; `value(low) = low`. A ReLU has left 0, low 0, high infinite; a
    /// clip left 0; a leaky ReLU left alpha, low 0.
    Hinge {
        /// Slope below, at least 0 and at most 1.
        left: f64,
        /// Where the slope becomes 1.
        low: f64,
        /// Where it becomes 0; may be infinite.
        high: f64,
    },
    /// Values, not decreasing; element k + 1 from `starts[k]` on (inclusive). The argument is an integer.
    Step {
        /// First integer argument of each next value, increasing.
        starts: Vec<f64>,
        /// One more than there are starts.
        values: Vec<f64>,
    },
    /// Values, not decreasing, of a real argument: element k up to `cuts[k]`, element k + 1 from there on. At a cut itself it may be either.
    Stairs {
        /// Increasing.
        cuts: Vec<f64>,
        /// One more than there are cuts.
        values: Vec<f64>,
        /// What 1 is worth.
        unit: f64,
    },
}
