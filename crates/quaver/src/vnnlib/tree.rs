//! Text to nested lists, one top-level form at a time.

use super::decimal::Decimal;
use super::error::{Fault, shown};

/// Deepest nesting: each level takes a frame of the evaluator.
pub(super) const DEPTH: usize = 1000;

/// A piece of the text and where it begins.
#[derive(Debug)]
pub(super) struct Node<'t> {
    pub at: usize,
    pub kind: Kind<'t>,
}

/// What a piece is.
#[derive(Debug)]
pub(super) enum Kind<'t> {
    /// A word.
    Word(&'t str),
    /// `[1,5]`: a shape, or the index of the word before it.
    Index(Vec<usize>),
    /// `"..."`: names a hidden tensor, which nobody reads.
    Text,
    /// `(...)`.
    List {
        items: Vec<Node<'t>>,
        /// Whether no word but the first is a name: what it computes is a number.
        constant: bool,
    },
}

impl<'t> Node<'t> {
    pub fn word(&self) -> Option<&'t str> {
        match self.kind {
            Kind::Word(word) => Some(word),
            Kind::Index(_) | Kind::Text | Kind::List { .. } => None,
        }
    }

    /// How a message names it.
    pub fn shown(&self) -> String {
        match &self.kind {
            Kind::Word(word) => format!("`{}`", shown(word)),
            Kind::Index(_) => "`[...]`".into(),
            Kind::Text => "a string".into(),
            Kind::List { items, .. } => match items.first().and_then(Node::word) {
                Some(word) => format!("`({} ...)`", shown(word)),
                None => "`(...)`".into(),
            },
        }
    }
}

/// Reads forms from a text.
pub(super) struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    pub fn new(text: &'t str) -> Self {
        Reader { text, at: 0 }
    }

    /// The next top-level list; `None` at the end of the text.
    pub fn form(&mut self) -> Result<Option<Node<'t>>, Fault> {
        let mut open: Vec<(usize, Vec<Node<'t>>)> = vec![];
        loop {
            self.skip_blanks();
            let at = self.at;
            let Some(byte) = self.text.as_bytes().get(at) else {
                return match open.last() {
                    None => Ok(None),
                    Some((at, _)) => Err(Fault::new(*at, "this `(` is never closed", "close it with `)`")),
                };
            };
            let node = match byte {
                b'(' if open.len() == DEPTH => {
                    return Err(Fault::new(at, format!("nested more than {DEPTH} deep"), "write flatter expressions"));
                }
                b'(' => {
                    self.at += 1;
                    open.push((at, vec![]));
                    continue;
                }
                b')' => {
                    self.at += 1;
                    let Some((at, items)) = open.pop() else {
                        return Err(Fault::new(at, "this `)` closes nothing", "remove it"));
                    };
                    let constant = items.iter().skip(1).all(is_constant);
                    Node { at, kind: Kind::List { items, constant } }
                }
                _ => self.leaf()?,
            };
            match (open.last_mut(), &node.kind) {
                (Some((_, items)), _) => items.push(node),
                (None, Kind::List { .. }) => return Ok(Some(node)),
                (None, _) => {
                    let problem = format!("{} stands outside of any list", node.shown());
                    return Err(Fault::new(at, problem, "write (declare-...) and (assert ...) forms only"));
                }
            }
        }
    }

    fn skip_blanks(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b';' => self.at += bytes[self.at..].iter().take_while(|b| **b != b'\n').count(),
                b if b.is_ascii_whitespace() => self.at += 1,
                _ => break,
            }
        }
    }

    fn leaf(&mut self) -> Result<Node<'t>, Fault> {
        let (at, bytes) = (self.at, self.text.as_bytes());
        let kind = match bytes[at] {
            b'"' => {
                self.quoted()?;
                Kind::Text
            }
            b'[' => Kind::Index(self.index()?),
            b']' | b',' => return Err(Fault::new(at, "this stands outside of `[...]`", "remove it")),
            _ => {
                let ends = |b: &u8| b.is_ascii_whitespace() || b"()[],;\"".contains(b);
                let length = bytes[at..].iter().position(ends).unwrap_or(bytes.len() - at);
                self.at += length;
                Kind::Word(&self.text[at..at + length])
            }
        };
        Ok(Node { at, kind })
    }

    fn quoted(&mut self) -> Result<(), Fault> {
        let (at, bytes) = (self.at, self.text.as_bytes());
        let mut end = at + 1;
        while let Some(byte) = bytes.get(end) {
            match byte {
                b'"' => {
                    self.at = end + 1;
                    return Ok(());
                }
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        Err(Fault::new(at, "this string is never closed", "close it with `\"`"))
    }

    /// `[1, 5]`, or `[1 5]` as the standard once writes it.
    fn index(&mut self) -> Result<Vec<usize>, Fault> {
        let at = self.at;
        let length = self.text[at..]
            .find(']')
            .ok_or_else(|| Fault::new(at, "this `[` is never closed", "close it with `]`, as in X[0,3]"))?;
        self.at = at + length + 1;
        let inner = &self.text[at + 1..at + length];
        let numbers = inner.split([',', ' ', '\t', '\r', '\n']).filter(|part| !part.is_empty());
        numbers.map(|part| part.parse::<u32>().map(|n| n as usize)).collect::<Result<_, _>>().map_err(|_| {
            Fault::new(at, format!("`[{}]` is no index", shown(inner)), "write numbers from 0 up, as in [0,3]")
        })
    }
}

fn is_constant(node: &Node) -> bool {
    match &node.kind {
        Kind::Word(word) => Decimal::parse(word).is_some(),
        Kind::Index(_) | Kind::Text => false,
        Kind::List { constant, .. } => *constant,
    }
}
