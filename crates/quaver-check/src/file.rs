//! The bytes of a certificate: a header of text lines, then records packed by gzip, in one or several members.

use std::io::{BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::analysis::{Choice, Claim, Tree};

/// The first line.
pub const FORMAT: &str = "quaver certificate 1";
/// Longest line of a header, and most lines.
const LONGEST_LINE: u64 = 4096;
const MOST_LINES: usize = 64;
/// Most numbers of one list, and the deepest tree of cuts.
const MOST: u64 = 1 << 24;
const DEEPEST: usize = 1000;

/// One step of a proof. The parts of a question are numbered from 0 in the order in which records make them.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Makes part 0: the hull of the boxes of some cases, with a goal for each. All parts of the question before must be closed.
    Question {
        /// Numbers of cases.
        cases: Vec<usize>,
    },
    /// A goal of a part is proved by one walk.
    Close {
        /// The part.
        part: usize,
        /// Number of the goal among those of the question.
        goal: usize,
        /// Of the goal's rows.
        weights: Vec<f64>,
        /// What the walk chooses; nothing for one with default lines.
        choice: Choice,
    },
    /// A part is empty.
    Empty {
        /// The part.
        part: usize,
    },
    /// Makes two boxes of one, for some of its goals.
    Halve {
        /// The part.
        part: usize,
        /// Numbers of goals.
        goals: Vec<usize>,
        /// Element of the start value.
        element: usize,
        /// The last value of the first half.
        at: f64,
    },
    /// Makes two parts of one by a split of a function, for one goal.
    Cut {
        /// The part.
        part: usize,
        /// The goal's number.
        goal: usize,
        /// Number of the function among all.
        function: usize,
        /// Its element.
        element: usize,
        /// The last argument of the first half and the first of the second.
        place: (f64, f64),
    },
    /// Bounds on the argument of a function, in a part without cuts.
    Claims {
        /// The part.
        part: usize,
        /// Number of the function among all.
        function: usize,
        /// The bounds.
        claims: Vec<Claim>,
    },
    /// A counterexample.
    Witness {
        /// Number of the case that it satisfies.
        case: usize,
        /// Its elements.
        input: Vec<f64>,
    },
}

/// What a header says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// (key, value), in order.
    pub lines: Vec<(String, String)>,
}

impl Header {
    /// The value of a key that must be there once.
    pub fn get(&self, key: &str) -> Result<&str, String> {
        let mut values = self.lines.iter().filter(|l| l.0 == key);
        match (values.next(), values.next()) {
            (Some(line), None) => Ok(&line.1),
            (None, _) => Err(format!("header: `{key}` is missing")),
            (Some(_), Some(_)) => Err(format!("header: `{key}` is there more than once")),
        }
    }
}

/// A certificate that is being read.
pub struct Reader<R: BufRead> {
    /// What the header says.
    pub header: Header,
    records: BufReader<MultiGzDecoder<R>>,
    /// Records that were read.
    pub count: u64,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// If it is not one of this format.
    pub fn new(mut from: R) -> Result<Self, String> {
        let mut header = Header::default();
        if line(&mut from)? != FORMAT {
            return Err(format!("header: the first line is not `{FORMAT}`"));
        }
        loop {
            let line = line(&mut from)?;
            if line.is_empty() {
                break;
            }
            let (key, value) = line.split_once(' ').ok_or_else(|| format!("header: `{line}` has no value"))?;
            header.lines.push((key.into(), value.into()));
            if header.lines.len() > MOST_LINES {
                return Err(format!("header: more than {MOST_LINES} lines"));
            }
        }
        Ok(Reader { header, records: BufReader::new(MultiGzDecoder::new(from)), count: 0 })
    }

    /// The next record; `None` at the end mark, after which nothing may follow.
    ///
    /// # Errors
    /// If the bytes are damaged or end too early.
    pub fn next_record(&mut self) -> Result<Option<Record>, String> {
        let record = match self.byte()? {
            0 => {
                self.end()?;
                return Ok(None);
            }
            1 => Record::Question { cases: self.list(Self::index)? },
            2 => Record::Close {
                part: self.index()?,
                goal: self.index()?,
                weights: self.list(Self::weight)?,
                choice: self.choice()?,
            },
            3 => Record::Empty { part: self.index()? },
            4 => Record::Halve {
                part: self.index()?,
                goals: self.list(Self::index)?,
                element: self.index()?,
                at: self.double()?,
            },
            5 => Record::Cut {
                part: self.index()?,
                goal: self.index()?,
                function: self.index()?,
                element: self.index()?,
                place: (self.double()?, self.double()?),
            },
            6 => Record::Claims { part: self.index()?, function: self.index()?, claims: self.list(Self::claim)? },
            7 => Record::Witness { case: self.index()?, input: self.list(Self::double)? },
            kind => return Err(format!("a record of the unknown kind {kind}")),
        };
        self.count += 1;
        Ok(Some(record))
    }

    fn end(&mut self) -> Result<(), String> {
        let mut rest = [0];
        match self.records.read(&mut rest) {
            Ok(0) => Ok(()),
            Ok(_) => Err("there are bytes after the end".into()),
            Err(e) => Err(format!("damaged bytes after the end: {e}")),
        }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.records.read_exact(&mut bytes).map_err(|e| format!("damaged or truncated: {e}"))?;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.bytes::<1>()?[0])
    }

    /// LEB128.
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number is too long".into())
    }

    fn index(&mut self) -> Result<usize, String> {
        usize::try_from(self.varint()?).map_err(|_| "a number is too large".into())
    }

    fn double(&mut self) -> Result<f64, String> {
        let x = f64::from_le_bytes(self.bytes()?);
        if x.is_finite() { Ok(x) } else { Err("a number is not finite".into()) }
    }

    fn single(&mut self) -> Result<f64, String> {
        let x = f64::from(f32::from_le_bytes(self.bytes()?));
        if x.is_finite() { Ok(x) } else { Err("a number is not finite".into()) }
    }

    fn weight(&mut self) -> Result<f64, String> {
        let w = self.single()?;
        if w >= 0.0 { Ok(w) } else { Err("a weight is negative".into()) }
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T, String>) -> Result<Vec<T>, String> {
        let count = self.varint()?;
        if count > MOST {
            return Err(format!("a list of {count} numbers"));
        }
        (0..count).map(|_| item(self)).collect()
    }

    fn choice(&mut self) -> Result<Choice, String> {
        Ok(Choice { places: self.list(Self::byte)?, betas: self.list(Self::weight)? })
    }

    fn claim(&mut self) -> Result<Claim, String> {
        let (element, ends) = (self.index()?, [self.single()?, self.single()?]);
        let by = self.byte()?;
        let mut proof = |bit: u8| if by & bit == 0 { Ok(None) } else { self.tree(0).map(Some) };
        Ok(Claim { element, ends, proofs: [proof(1)?, proof(2)?] })
    }

    fn tree(&mut self, depth: usize) -> Result<Tree, String> {
        match self.byte()? {
            0 => Ok(Tree::Leaf(self.choice()?)),
            1 if depth < DEEPEST => Ok(Tree::Cut {
                function: self.index()?,
                element: self.index()?,
                place: (self.double()?, self.double()?),
                halves: Box::new([self.tree(depth + 1)?, self.tree(depth + 1)?]),
            }),
            _ => Err("a tree of cuts that is too deep or damaged".into()),
        }
    }
}

fn line(from: &mut impl BufRead) -> Result<String, String> {
    let mut line = String::new();
    from.take(LONGEST_LINE).read_line(&mut line).map_err(|e| format!("header: {e}"))?;
    match line.strip_suffix('\n') {
        Some(line) => Ok(line.into()),
        None => Err("header: it does not end".into()),
    }
}
