//! What people read: numbers, shapes, classes and aligned tables.

use std::io::Write;

/// A number with at most five significant digits.
pub fn number(x: f64) -> String {
    if !x.is_finite() {
        return if x.is_nan() {
            "nan".into()
        } else if x > 0.0 {
            "inf".into()
        } else {
            "-inf".into()
        };
    }
    if x == 0.0 {
        return "0".into();
    }
    if x.fract() == 0.0 && x.abs() < 1e15 {
        return format!("{x:.0}");
    }
    let exponent = x.abs().log10().floor() as i32;
    if !(-5..9).contains(&exponent) {
        return format!("{x:.3e}");
    }
    let text = format!("{x:.*}", (4 - exponent).max(0) as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

/// A name of at most 48 characters: of longer ones the beginning and the end. A text with blanks is no name, and stays whole.
pub fn short(text: &str) -> String {
    let length = text.chars().count();
    if length <= 48 || text.contains(char::is_whitespace) {
        return text.into();
    }
    let (head, tail): (String, String) = (text.chars().take(34).collect(), text.chars().skip(length - 13).collect());
    format!("{head}…{tail}")
}

/// A share as a percentage; `0` and `100` only where they are exact.
pub fn percent(part: u64, whole: u64) -> String {
    match (part, whole) {
        (_, 0) => "-".into(),
        (0, _) => "0 %".into(),
        (p, w) if p == w => "100 %".into(),
        (p, w) => format!("{:.1} %", (100.0 * p as f64 / w as f64).clamp(0.1, 99.9)),
    }
}

/// An integer in groups of three digits.
pub fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let first = (digits.len() + 2) % 3 + 1;
    let (head, tail) = digits.split_at(first);
    tail.as_bytes().chunks(3).fold(head.to_string(), |text, group| text + " " + &String::from_utf8_lossy(group))
}

/// `[1, 64]`.
pub fn shape(shape: &[usize]) -> String {
    format!("{shape:?}")
}

/// `[0, 255]`, or `-` where it is unbounded.
pub fn range((lo, hi): (f64, f64)) -> String {
    if lo.is_infinite() && hi.is_infinite() { "-".into() } else { format!("[{}, {}]", number(lo), number(hi)) }
}

/// The first few of a list, comma-separated, and how many more there are.
pub fn first_few(items: impl ExactSizeIterator<Item = String>, few: usize) -> String {
    let more = items.len().saturating_sub(few);
    let shown: Vec<String> = items.take(few).collect();
    if more > 0 { format!("{}, and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

/// `1 row`, `2 rows`.
pub fn count(n: usize, what: &str) -> String {
    let ending = if what.ends_with('x') { "es" } else { "s" };
    if n == 1 { format!("1 {what}") } else { format!("{} {what}{ending}", grouped(n)) }
}

/// Position of the first largest element.
pub fn argmax(values: &[f64]) -> usize {
    values.iter().enumerate().fold(0, |best, (i, x)| if *x > values[best] { i } else { best })
}

/// A table with aligned columns.
pub struct Table {
    /// Heading, and whether the column is aligned to the right.
    columns: Vec<(String, bool)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings; one that begins with `>` is aligned to the right.
    pub fn new(headings: &[&str]) -> Self {
        let column = |h: &&str| (h.trim_start_matches('>').to_string(), h.starts_with('>'));
        Table { columns: headings.iter().map(column).collect(), rows: vec![] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl AsRef<[String]>) {
        self.rows.push(cells.as_ref().iter().map(|c| short(c)).collect());
    }

    /// Writes it, indented by two blanks.
    pub fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let length = |text: &str| text.chars().count();
        let widest = |c: usize| self.rows.iter().map(|r| length(&r[c])).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(|c| widest(c).max(length(&self.columns[c].0))).collect();
        let headings = self.columns.iter().map(|c| c.0.clone()).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::from(" ");
            for ((cell, (_, right)), width) in row.iter().zip(&self.columns).zip(&widths) {
                let blank = " ".repeat(width - length(cell));
                line += &if *right { format!(" {blank}{cell} ") } else { format!(" {cell}{blank} ") };
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_five_digits() {
        for (x, text) in [
            (0.0, "0"),
            (-3.0, "-3"),
            (0.1, "0.1"),
            (1.0 / 3.0, "0.33333"),
            (12345.678, "12346"),
            (1e-7, "1.000e-7"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(number(x), text);
        }
    }

    #[test]
    fn shares_are_never_rounded_to_none_or_all() {
        assert_eq!(percent(1, 100_000), "0.1 %");
        assert_eq!(percent(99_999, 100_000), "99.9 %");
        assert_eq!(percent(0, 0), "-");
    }

    #[test]
    fn the_first_of_equals_wins() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!([0, 12, 123, 1234, 1_234_567].map(grouped), ["0", "12", "123", "1 234", "1 234 567"]);
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["name", ">n"]);
        table.row(["a".into(), "10".into()]);
        table.row(["long".into(), "9".into()]);
        let mut text = vec![];
        assert!(table.write(&mut text).is_ok());
        assert_eq!(String::from_utf8_lossy(&text), "  name   n\n  a     10\n  long   9\n");
    }
}
