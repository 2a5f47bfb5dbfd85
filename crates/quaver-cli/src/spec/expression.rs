//! Linear comparisons as people write them: `Y[0] - 2*Y[1] + 0.5 <= X[3]`.

use std::str::FromStr;

use anyhow::Result;
use quaver::vnnlib::Decimal;

use super::Draft;
use crate::session::fail;

/// A sum on each side.
#[derive(Clone, Debug)]
pub struct Comparison {
    word: &'static str,
    left: Vec<Term>,
    right: Vec<Term>,
}

/// A number, or a number times an element.
#[derive(Clone, Debug)]
struct Term {
    coefficient: Decimal,
    element: Option<(char, usize)>,
}

/// In the order in which they are looked for.
const WORDS: [&str; 6] = ["<=", ">=", "==", "<", ">", "="];

impl FromStr for Comparison {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let word = WORDS
            .into_iter()
            .find(|w| text.contains(w))
            .ok_or("no comparison: write for example Y[0] - Y[1] <= 0.5")?;
        let (left, right) = text.split_once(word).unwrap_or((text, ""));
        let word = if word == "=" { "==" } else { word };
        Ok(Comparison { word, left: sum(left)?, right: sum(right)? })
    }
}

/// Terms with their signs; a sign right behind an `e` belongs to a number.
fn sum(text: &str) -> Result<Vec<Term>, String> {
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let (mut parts, mut current): (Vec<String>, String) = (vec![], String::new());
    for c in compact.chars() {
        if matches!(c, '+' | '-') && !current.is_empty() && !current.ends_with(['e', 'E', '*']) {
            parts.push(std::mem::take(&mut current));
        }
        current.push(c);
    }
    parts.push(current);
    parts.iter().map(|p| term(p)).collect()
}

fn term(text: &str) -> Result<Term, String> {
    let bad = || format!("`{text}` is not a term: write a number, Y[0], or 2*Y[0]");
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let number = |t: &str| Decimal::parse(&format!("{sign}{t}")).ok_or_else(bad);
    let element = |t: &str| {
        let index = t.get(1..)?.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?;
        t.chars().next().filter(|c| matches!(c, 'X' | 'Y')).map(|c| (c, index))
    };
    if let Some((a, b)) = unsigned.split_once('*') {
        let (factor, name) = if element(b).is_some() { (a, b) } else { (b, a) };
        return Ok(Term { coefficient: number(factor)?, element: Some(element(name).ok_or_else(bad)?) });
    }
    match element(unsigned) {
        Some(found) => Ok(Term { coefficient: number("1")?, element: Some(found) }),
        None => Ok(Term { coefficient: number(unsigned)?, element: None }),
    }
}

impl Comparison {
    /// As the query language writes it.
    pub fn prefix(&self, draft: &Draft) -> Result<String> {
        let side = |terms: &[Term]| -> Result<String> {
            let parts = terms.iter().map(|t| t.prefix(draft)).collect::<Result<Vec<_>>>()?;
            Ok(if let [only] = &parts[..] { only.clone() } else { format!("(+ {})", parts.join(" ")) })
        };
        Ok(format!("({} {} {})", self.word, side(&self.left)?, side(&self.right)?))
    }
}

impl Term {
    fn prefix(&self, draft: &Draft) -> Result<String> {
        let Some((letter, element)) = self.element else { return Ok(self.coefficient.to_string()) };
        let (inputs, outputs) = draft.size();
        let (size, name) = if letter == 'X' { (inputs, draft.x(element)) } else { (outputs, draft.y(element)) };
        if element >= size {
            let problem = format!("`{letter}[{element}]`, and the model has {size} such elements");
            return Err(fail(problem, "count from 0, in row-major order"));
        }
        let one = self.coefficient.is_unit() && !self.coefficient.is_negative();
        Ok(if one { name } else { format!("(* {} {name})", self.coefficient) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_or_refused() {
        for text in ["Y[0] <= 0.5", "Y[0]-2*Y[1] + 1e-3 < X[3]", "-Y[0] = Y[1]*-3", "1 >= Y[0]"] {
            let read: Comparison = text.parse().expect("a comparison");
            assert!(!read.left.is_empty() && !read.right.is_empty(), "{text}");
        }
        for text in ["Y[0]", "Y[0] <=", "Z[0] <= 1", "Y[a] <= 1", "Y[0]*Y[1] <= 1", "<= 1", "Y[0] <= 1 <= 2"] {
            assert!(text.parse::<Comparison>().is_err(), "{text}");
        }
    }
}
