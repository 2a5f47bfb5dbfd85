//! The commands of a text: declarations and assertions.

use std::collections::HashSet;

use super::formula::{Choice, Frame, Operator, Value};
use super::linear::{Linear, Literal, Variable};
use super::text::{Token, Tokens, whole_number};
use super::{MAX_DEPTH, MAX_SIZE};
use crate::rational::Rational;

/// What a text says, before its disjunctions are multiplied out.
pub(super) struct Query {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// In front of an input's number in messages.
    pub(super) prefix: String,
    pub(super) literals: Vec<Literal>,
    /// Literals of every case.
    pub(super) fixed: Vec<u32>,
    /// A case takes one of each.
    pub(super) choices: Vec<Choice>,
}

/// Reads a whole text.
pub(super) fn parse(text: &str) -> Result<Query, String> {
    let mut parser = Parser {
        tokens: Tokens::new(text),
        names: Names::default(),
        literals: Vec::new(),
        fixed: Vec::new(),
        choices: Vec::new(),
    };
    let mut is_first = true;
    while parser.tokens.peek() != Token::End {
        parser.tokens.expect('(')?;
        match parser.tokens.word()? {
            "vnnlib-version" if is_first => parser.version()?,
            "declare-const" => parser.declare_const()?,
            "declare-network" => parser.declare_network()?,
            "assert" => parser.assert()?,
            other => return parser.tokens.fail(format!("{} is not understood here", Token::Word(other))),
        }
        parser.tokens.expect(')')?;
        is_first = false;
    }
    let (inputs, outputs) = parser.names.counts()?;
    let prefix = parser.names.network.as_ref().map_or("X_".into(), |n| format!("element {} ", n.input.name));
    Ok(Query { inputs, outputs, prefix, literals: parser.literals, fixed: parser.fixed, choices: parser.choices })
}

/// What is declared.
#[derive(Default)]
struct Names {
    is_version_2: bool,
    inputs: HashSet<usize>,
    outputs: HashSet<usize>,
    network: Option<Network>,
}

struct Network {
    input: Tensor,
    output: Tensor,
}

struct Tensor {
    name: String,
    element: Element,
    shape: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Element {
    Real,
    Float32,
}

impl Names {
    /// Numbers of inputs and outputs.
    fn counts(&self) -> Result<(usize, usize), String> {
        if let Some(network) = &self.network {
            return Ok((network.input.len(), network.output.len()));
        }
        for (letter, declared) in [('X', &self.inputs), ('Y', &self.outputs)] {
            if let Some(missing) = (0..declared.len().max(1)).find(|i| !declared.contains(i)) {
                return Err(format!("{letter}_{missing} is not declared"));
            }
        }
        Ok((self.inputs.len(), self.outputs.len()))
    }

    fn is_float32(&self) -> bool {
        self.network.as_ref().is_some_and(|network| network.input.element == Element::Float32)
    }
}

impl Tensor {
    /// Number of elements; `declare_tensor` made sure that it is small.
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    fn offset(&self, indices: &[usize]) -> Option<usize> {
        let fits = indices.len() == self.shape.len() && indices.iter().zip(&self.shape).all(|(i, n)| i < n);
        fits.then(|| indices.iter().zip(&self.shape).fold(0, |offset, (i, n)| offset * n + i))
    }
}

struct Parser<'a> {
    tokens: Tokens<'a>,
    names: Names,
    literals: Vec<Literal>,
    fixed: Vec<u32>,
    choices: Vec<Choice>,
}

impl Parser<'_> {
    fn version(&mut self) -> Result<(), String> {
        match self.tokens.word()? {
            "<2.0>" => self.names.is_version_2 = true,
            other => return self.tokens.fail(format!("version {} is not understood", Token::Word(other))),
        }
        Ok(())
    }

    fn declare_const(&mut self) -> Result<(), String> {
        if self.names.is_version_2 {
            return self.tokens.fail("`declare-const` is of version 1.0");
        }
        let name = self.tokens.word()?;
        let is_new = match numbered(name) {
            Some(Variable::Input(number)) => self.names.inputs.insert(number),
            Some(Variable::Output(number)) => self.names.outputs.insert(number),
            None => return self.tokens.fail(format!("{} is neither X_i nor Y_i", Token::Word(name))),
        };
        if !is_new {
            return self.tokens.fail(format!("{name} is declared twice"));
        }
        match self.tokens.word()? {
            "Real" | "real" => Ok(()),
            other => self.tokens.fail(format!("the type {} is not supported", Token::Word(other))),
        }
    }

    fn declare_network(&mut self) -> Result<(), String> {
        if !self.names.is_version_2 {
            return self.tokens.fail("`declare-network` needs `(vnnlib-version <2.0>)` as the first command");
        }
        if self.names.network.is_some() {
            return self.tokens.fail("several networks are not supported");
        }
        self.tokens.word()?;
        let (mut input, mut output) = (None, None);
        while self.tokens.peek() != Token::Mark(')') {
            self.tokens.expect('(')?;
            let (place, what) = match self.tokens.word()? {
                "declare-input" => (&mut input, "inputs"),
                "declare-output" => (&mut output, "outputs"),
                other => return self.tokens.fail(format!("{} is not supported", Token::Word(other))),
            };
            if place.is_some() {
                return self.tokens.fail(format!("several {what} are not supported"));
            }
            *place = Some(declare_tensor(&mut self.tokens)?);
        }
        let (Some(input), Some(output)) = (input, output) else {
            return self.tokens.fail("a network needs an input and an output");
        };
        if input.name == output.name {
            return self.tokens.fail(format!("{} is declared twice", Token::Word(&input.name)));
        }
        if input.element != output.element {
            return self.tokens.fail("input and output of different types are not supported");
        }
        self.names.network = Some(Network { input, output });
        Ok(())
    }

    fn assert(&mut self) -> Result<(), String> {
        let mut formula = self.formula()?;
        match formula.as_mut_slice() {
            [only] => self.fixed.append(only),
            _ => self.choices.push(formula),
        }
        Ok(())
    }

    /// Reads with a stack of open lists instead of recursion.
    fn formula(&mut self) -> Result<Choice, String> {
        let mut open: Vec<Frame> = Vec::new();
        loop {
            let value = match self.tokens.next() {
                Token::Mark('(') => {
                    if open.len() == MAX_DEPTH {
                        return self.tokens.fail(format!("more than {MAX_DEPTH} lists inside each other"));
                    }
                    open.push(self.open()?);
                    continue;
                }
                Token::Word(word) => Value::Term(self.term(word)?),
                token => match open.pop() {
                    Some(frame) if token == Token::Mark(')') => frame.close(&mut self.literals)?,
                    _ => return self.tokens.fail(format!("{token} is not understood here")),
                },
            };
            match (open.last_mut(), value) {
                (Some(frame), value) => frame.arguments.push(value),
                (None, Value::Formula(formula)) => return Ok(formula),
                (None, Value::Term(_)) => return self.tokens.fail("an assertion needs a comparison"),
            }
        }
    }

    /// The head of a list whose `(` has just been read.
    fn open(&mut self) -> Result<Frame, String> {
        let line = self.tokens.line();
        let word = self.tokens.word()?;
        let operator = Operator::read(word).or_else(|error| self.tokens.fail(error))?;
        if operator.is_new() && !self.names.is_version_2 {
            return self.tokens.fail(format!("`{word}` is not in version 1.0"));
        }
        if operator.is_arithmetic() && self.names.is_float32() {
            return self.tokens.fail(format!("`{word}` on float32 elements is not supported"));
        }
        Ok(Frame { operator, line, arguments: Vec::new() })
    }

    /// A number or a variable.
    fn term(&mut self, word: &str) -> Result<Linear, String> {
        if !word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
            return Ok(Linear::variable(self.variable(word)?));
        }
        let exact = Rational::parse(word).or_else(|error| self.tokens.fail(error))?;
        if !self.names.is_float32() {
            return Ok(Linear::constant(exact));
        }
        match word.parse::<f32>().ok().and_then(|nearest| Rational::from_f64(nearest.into())) {
            Some(nearest) => Ok(Linear::constant(nearest)),
            None => self.tokens.fail(format!("{} is beyond float32", Token::Word(word))),
        }
    }

    fn variable(&mut self, word: &str) -> Result<Variable, String> {
        if self.names.network.is_none() {
            return match numbered(word) {
                Some(variable @ Variable::Input(i)) if self.names.inputs.contains(&i) => Ok(variable),
                Some(variable @ Variable::Output(i)) if self.names.outputs.contains(&i) => Ok(variable),
                _ => self.tokens.fail(format!("{} is not declared", Token::Word(word))),
            };
        }
        let has_indices = self.tokens.peek() == Token::Mark('[');
        let indices = if has_indices { self.tokens.sizes()? } else { Vec::new() };
        let found = self.names.network.as_ref().and_then(|network| match word {
            _ if word == network.input.name => Some(network.input.offset(&indices).map(Variable::Input)),
            _ if word == network.output.name => Some(network.output.offset(&indices).map(Variable::Output)),
            _ => None,
        });
        match found {
            Some(Some(variable)) => Ok(variable),
            Some(None) => self.tokens.fail(format!("{} has no element {indices:?}", Token::Word(word))),
            None => self.tokens.fail(format!("{} is not declared", Token::Word(word))),
        }
    }
}

/// The rest of `(declare-input NAME TYPE [SIZES])`.
fn declare_tensor(tokens: &mut Tokens) -> Result<Tensor, String> {
    let name = tokens.word()?.to_string();
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return tokens.fail(format!("{} is no name", Token::Word(&name)));
    }
    let element = match tokens.word()? {
        "real" | "Real" => Element::Real,
        "float32" => Element::Float32,
        other => return tokens.fail(format!("the type {} is not supported", Token::Word(other))),
    };
    let shape = tokens.sizes()?;
    let len = shape.iter().try_fold(1usize, |len, n| len.checked_mul(*n));
    if len.is_none_or(|len| len == 0 || len > MAX_SIZE) {
        return tokens.fail(format!("{} has no elements or too many", Token::Word(&name)));
    }
    tokens.expect(')')?;
    Ok(Tensor { name, element, shape })
}

/// The variable that `X_3` or `Y_3` names in version 1.0.
fn numbered(word: &str) -> Option<Variable> {
    let (letter, number) = word.split_once('_')?;
    let number = whole_number(number)?;
    match letter {
        "X" => Some(Variable::Input(number)),
        "Y" => Some(Variable::Output(number)),
        _ => None,
    }
}
