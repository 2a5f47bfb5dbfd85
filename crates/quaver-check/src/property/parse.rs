//! The commands of a text: declarations and assertions.

use std::collections::HashSet;

use super::formula::{Choice, Frame, Operator, Value};
use super::linear::{Linear, Literal, Variable};
use super::text::{Token, Tokens, whole_number};
use super::{MAX_DEPTH, MAX_SIZE};
use crate::rational::Rational;

/// What a text says, before its disjunctions are multiplied out.
pub(super) struct Query {
    pub(super) networks: Vec<super::Network>,
    pub(super) inputs: usize,
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
    let networks = parser.names.declared()?;
    parser.equated()?;
    let Parser { names, literals, fixed, choices, .. } = parser;
    let prefix = names.networks.first().map_or("X_".into(), |n| format!("element {} ", n.input.name));
    Ok(Query { inputs: networks[0].inputs, networks, prefix, literals, fixed, choices })
}

/// What is declared.
#[derive(Default)]
struct Names {
    is_version_2: bool,
    inputs: HashSet<usize>,
    outputs: HashSet<usize>,
    networks: Vec<Network>,
}

struct Network {
    name: String,
    /// The number of another one, and whether it is the same network.
    like: Option<(usize, bool)>,
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
    /// The networks; the one that is not declared, in version 1.0.
    fn declared(&self) -> Result<Vec<super::Network>, String> {
        let network = |n: &Network| super::Network {
            name: n.name.clone(),
            inputs: n.input.len(),
            outputs: n.output.len(),
            equal_to: n.like.filter(|like| like.1).map(|like| like.0),
        };
        if !self.networks.is_empty() {
            return Ok(self.networks.iter().map(network).collect());
        }
        for (letter, declared) in [('X', &self.inputs), ('Y', &self.outputs)] {
            if let Some(missing) = (0..declared.len().max(1)).find(|i| !declared.contains(i)) {
                return Err(format!("{letter}_{missing} is not declared"));
            }
        }
        let (inputs, outputs) = (self.inputs.len(), self.outputs.len());
        Ok(vec![super::Network { name: String::new(), inputs, outputs, equal_to: None }])
    }

    fn is_float32(&self) -> bool {
        self.networks.iter().any(|network| network.input.element == Element::Float32)
    }

    /// Whether a network or a tensor has this name.
    fn has(&self, name: &str) -> bool {
        self.networks.iter().any(|n| [&n.name, &n.input.name, &n.output.name].into_iter().any(|own| own == name))
    }

    /// Whether a network can be declared beside the others.
    fn check(&self, network: &Network) -> Result<(), String> {
        for name in [&network.name, &network.input.name, &network.output.name] {
            if self.has(name) || network.input.name == network.output.name {
                return Err(format!("{} is declared twice", Token::Word(name)));
            }
        }
        if network.input.element != network.output.element
            || self.networks.iter().any(|n| n.input.element != network.input.element)
        {
            return Err("inputs and outputs of different types are not supported".into());
        }
        let differs = |n: &Network| n.input.shape != network.input.shape || n.output.shape != network.output.shape;
        match network.like {
            Some((other, _)) if differs(&self.networks[other]) => {
                Err("a network is like another one with tensors of other shapes".into())
            }
            _ if self.networks.iter().any(|n| n.input.len() != network.input.len()) => {
                Err("networks with inputs of other sizes are not supported".into())
            }
            _ => Ok(()),
        }
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
            Some(Variable::Second(_)) | None => {
                return self.tokens.fail(format!("{} is neither X_i nor Y_i", Token::Word(name)));
            }
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
        if self.names.networks.len() > 1 {
            return self.tokens.fail("more than two networks are not supported");
        }
        let name = self.tokens.word()?.to_string();
        let (mut input, mut output, mut like) = (None, None, None);
        while self.tokens.peek() != Token::Mark(')') {
            self.tokens.expect('(')?;
            let (place, what) = match self.tokens.word()? {
                "declare-input" => (&mut input, "inputs"),
                "declare-output" => (&mut output, "outputs"),
                word @ ("equal-to" | "isomorphic-to") if like.is_none() => {
                    let other = self.tokens.word()?;
                    like = self.names.networks.iter().position(|n| n.name == other).map(|k| (k, word == "equal-to"));
                    if like.is_none() {
                        return self.tokens.fail(format!("there is no network {}", Token::Word(other)));
                    }
                    self.tokens.expect(')')?;
                    continue;
                }
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
        let network = Network { name, like, input, output };
        self.names.check(&network).or_else(|error| self.tokens.fail(error))?;
        self.names.networks.push(network);
        Ok(())
    }

    /// Of two networks, all inputs must be equated: only then is an element of one an element of the other.
    fn equated(&self) -> Result<(), String> {
        let [first, second] = &self.names.networks[..] else { return Ok(()) };
        let mut sides = vec![[false; 2]; first.input.len()];
        for literal in self.fixed.iter().map(|&k| &self.literals[k as usize]) {
            match literal {
                Literal::NotAbove(i) => sides[*i][0] = true,
                Literal::NotBelow(i) => sides[*i][1] = true,
                Literal::Lower(..) | Literal::Upper(..) | Literal::Output(_) => {}
            }
        }
        match sides.iter().position(|sides| *sides != [true; 2]) {
            None => Ok(()),
            Some(i) => {
                let (x, x2) = (&first.input.name, &second.input.name);
                Err(format!(
                    "element {i} of `{x}` and of `{x2}` are not equated; other relations of inputs are not supported"
                ))
            }
        }
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
        if self.names.networks.is_empty() {
            return match numbered(word) {
                Some(variable @ Variable::Input(i)) if self.names.inputs.contains(&i) => Ok(variable),
                Some(variable @ Variable::Output(i)) if self.names.outputs.contains(&i) => Ok(variable),
                _ => self.tokens.fail(format!("{} is not declared", Token::Word(word))),
            };
        }
        let has_indices = self.tokens.peek() == Token::Mark('[');
        let indices = if has_indices { self.tokens.sizes()? } else { Vec::new() };
        let mut before = 0;
        let found = self.names.networks.iter().enumerate().find_map(|(k, network)| {
            let input = if k == 0 { Variable::Input } else { Variable::Second };
            let first = before;
            before += network.output.len();
            match word {
                _ if word == network.input.name => Some(network.input.offset(&indices).map(input)),
                _ if word == network.output.name => {
                    Some(network.output.offset(&indices).map(|i| Variable::Output(first + i)))
                }
                _ => None,
            }
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
