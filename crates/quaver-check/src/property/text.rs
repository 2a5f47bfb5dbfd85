//! A text as a list of tokens, each with its line.

/// The smallest parts of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// One of `( ) [ ] ,`.
    Mark(char),
    /// Everything else between spaces, marks and comments.
    Word(&'a str),
    /// Nothing is left.
    End,
}

impl std::fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Token::Mark(mark) => write!(f, "`{mark}`"),
            Token::Word(word) if word.len() > 60 => write!(f, "a word of {} bytes", word.len()),
            Token::Word(word) => write!(f, "`{word}`"),
            Token::End => write!(f, "the end of the text"),
        }
    }
}

/// Reads tokens one after the other.
#[derive(Clone)]
pub(super) struct Tokens<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Tokens<'a> {
        Tokens { text, at: 0, line: 1 }
    }

    /// Where the last token was, counted from 1.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// A message about the last token.
    pub(super) fn fail<T>(&self, what: impl std::fmt::Display) -> Result<T, String> {
        Err(format!("line {}: {what}", self.line))
    }

    /// The next token, which stays the next one.
    pub(super) fn peek(&self) -> Token<'a> {
        self.clone().next()
    }

    pub(super) fn next(&mut self) -> Token<'a> {
        self.skip_blanks();
        let start = self.at;
        match self.text.as_bytes().get(start) {
            None => Token::End,
            Some(&mark) if is_mark(mark) => {
                self.at += 1;
                Token::Mark(char::from(mark))
            }
            Some(_) => {
                let rest = &self.text.as_bytes()[start..];
                let ends = |b: &u8| is_mark(*b) || b.is_ascii_whitespace() || *b == b';';
                self.at += rest.iter().position(ends).unwrap_or(rest.len());
                Token::Word(&self.text[start..self.at])
            }
        }
    }

    /// The next token, which must be a word.
    pub(super) fn word(&mut self) -> Result<&'a str, String> {
        match self.next() {
            Token::Word(word) => Ok(word),
            other => self.fail(format!("expected a word, found {other}")),
        }
    }

    /// The next token must be this mark.
    pub(super) fn expect(&mut self, mark: char) -> Result<(), String> {
        match self.next() {
            Token::Mark(found) if found == mark => Ok(()),
            other => self.fail(format!("expected `{mark}`, found {other}")),
        }
    }

    /// The numbers in `[2,3]`, brackets included.
    pub(super) fn sizes(&mut self) -> Result<Vec<usize>, String> {
        self.expect('[')?;
        let mut sizes = Vec::new();
        if self.peek() == Token::Mark(']') {
            self.next();
            return Ok(sizes);
        }
        loop {
            let word = self.word()?;
            let Some(size) = whole_number(word) else {
                return self.fail(format!("{} is no index or size", Token::Word(word)));
            };
            sizes.push(size);
            match self.next() {
                Token::Mark(',') => {}
                Token::Mark(']') => return Ok(sizes),
                other => return self.fail(format!("expected `,` or `]`, found {other}")),
            }
        }
    }

    fn skip_blanks(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            match byte {
                b';' => {
                    let rest = &bytes[self.at..];
                    self.at += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
                    continue;
                }
                b'\n' => self.line += 1,
                _ if byte.is_ascii_whitespace() => {}
                _ => return,
            }
            self.at += 1;
        }
    }
}

fn is_mark(byte: u8) -> bool {
    matches!(byte, b'(' | b')' | b'[' | b']' | b',')
}

/// Digits only, and no zero in front: a number has one way to be written.
pub(super) fn whole_number(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (digits && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok()).flatten()
}
