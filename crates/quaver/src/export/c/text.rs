//! Number types, tables and lines of a C program.

use std::fmt::Write;

/// A number type of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    /// `int32_t`.
    Int32,
    /// `int64_t`.
    Int64,
    /// `double`.
    Double,
}

impl Type {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Type::Int32 => "int32_t",
            Type::Int64 => "int64_t",
            Type::Double => "double",
        }
    }

    /// A constant of this type.
    pub fn literal(self, x: f64) -> String {
        match self {
            Type::Int32 | Type::Int64 => integer(x),
            Type::Double => double(x),
        }
    }
}

fn integer(x: f64) -> String {
    // Integers of the program are below 2^62 in magnitude: a limit beyond is never met, wherever it is.
    let most = (1i64 << 62) as f64;
    (x.clamp(-most, most) as i64).to_string()
}

/// The shortest decimal that a correct compiler reads as x.
fn double(x: f64) -> String {
    // Adding zero turns -0 into 0.
    infinite(x).unwrap_or_else(|| format!("{:?}", x + 0.0))
}

fn float(x: f64) -> String {
    infinite(x).unwrap_or_else(|| format!("{:?}f", x as f32 + 0.0))
}

/// Infinities, which have no decimal.
fn infinite(x: f64) -> Option<String> {
    x.is_infinite().then(|| format!("({}1.0 / 0.0)", if x < 0.0 { "-" } else { "" }))
}

/// The smallest type for the elements of a table, and how it writes one.
fn element(values: &[f64]) -> (&'static str, fn(f64) -> String) {
    let within = |lo: f64, hi: f64| values.iter().all(|v| v.fract() == 0.0 && (lo..=hi).contains(v));
    let floats = values.iter().all(|&v| f64::from(v as f32) == v);
    match () {
        () if within(-128.0, 127.0) => ("int8_t", integer),
        () if within(-32768.0, 32767.0) => ("int16_t", integer),
        () if within(-2_147_483_648.0, 2_147_483_647.0) => ("int32_t", integer),
        () if floats => ("float", float),
        () => ("double", double),
    }
}

/// A program that is being written.
#[derive(Default)]
pub struct Program {
    /// Constant tables, before everything else.
    pub tables: String,
    /// Functions.
    pub code: String,
}

impl Program {
    /// Adds lines of code.
    pub fn line(&mut self, depth: usize, text: impl AsRef<str>) {
        // Local invariant: writing to a string does not fail.
        let _ = writeln!(self.code, "{}{}", "    ".repeat(depth), text.as_ref());
    }

    /// Adds a table of numbers in the smallest type that holds them.
    pub fn table(&mut self, name: &str, values: &[f64]) {
        let (element, write) = element(values);
        self.typed_table(name, element, values.iter().map(|&v| write(v)));
    }

    /// Adds a table of integers that int64_t holds, in the smallest type.
    pub fn integers(&mut self, name: &str, values: &[i64]) {
        let (lo, hi) = values.iter().fold((0, 0), |(lo, hi), &v| (v.min(lo), v.max(hi)));
        let within = |bits: u32| lo >= -(1 << (bits - 1)) && hi < 1 << (bits - 1);
        let small = [(8, "int8_t"), (16, "int16_t"), (32, "int32_t")].into_iter().find(|t| within(t.0));
        self.typed_table(name, small.map_or("int64_t", |t| t.1), values.iter().map(i64::to_string));
    }

    /// Adds a table of numbers in a given type.
    pub fn typed_table(&mut self, name: &str, element: &str, values: impl ExactSizeIterator<Item = String>) {
        let _ = write!(self.tables, "static const {element} {name}[{}] = {{\n   ", values.len());
        let mut column = 3;
        for (i, value) in values.enumerate() {
            if i > 0 && column + value.len() > 110 {
                self.tables.push_str("\n   ");
                column = 3;
            }
            let _ = write!(self.tables, " {value},");
            column += value.len() + 2;
        }
        self.tables.push_str("\n};\n");
    }
}
