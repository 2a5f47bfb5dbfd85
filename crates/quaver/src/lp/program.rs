//! Mixed-integer linear programs as plain data.

/// A variable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Column {
    /// Smallest value; may be minus infinity.
    pub lo: f64,
    /// Largest value; may be infinity.
    pub hi: f64,
    /// Coefficient in the objective, which is minimised.
    pub cost: f64,
    /// Whether only integers are meant.
    pub integer: bool,
}

/// lo <= sum of coefficient * column <= hi; either side may be infinite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row<'p> {
    /// Left side.
    pub lo: f64,
    /// Right side.
    pub hi: f64,
    /// Columns; none twice.
    pub columns: &'p [u32],
    /// Their coefficients.
    pub coefficients: &'p [f64],
}

impl<'p> Row<'p> {
    /// (column, coefficient) for each term.
    pub fn terms(&self) -> impl Iterator<Item = (usize, f64)> + use<'p> {
        self.columns.iter().map(|&j| j as usize).zip(self.coefficients.iter().copied())
    }
}

/// Minimise the sum of cost * column within column bounds and rows. Every `f64` is the exact number it denotes.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The variables.
    pub columns: Vec<Column>,
    sides: Vec<(f64, f64)>,
    /// Where the terms of each row end; the next row begins there.
    ends: Vec<usize>,
    indices: Vec<u32>,
    coefficients: Vec<f64>,
}

impl Program {
    /// A program without variables.
    pub fn new() -> Self {
        Program::default()
    }

    /// Adds a variable and returns its number.
    pub fn add_column(&mut self, column: Column) -> usize {
        self.columns.push(column);
        self.columns.len() - 1
    }

    /// Adds lo <= sum <= hi. No column may be named twice.
    ///
    /// # Panics
    /// If a column does not exist.
    pub fn add_row(&mut self, lo: f64, terms: &[(usize, f64)], hi: f64) {
        for &(j, a) in terms.iter().filter(|t| t.1 != 0.0) {
            assert!(j < self.columns.len(), "column {j} of {}", self.columns.len());
            self.indices.push(j as u32);
            self.coefficients.push(a);
        }
        self.sides.push((lo, hi));
        self.ends.push(self.indices.len());
    }

    /// Number of rows.
    pub fn row_count(&self) -> usize {
        self.sides.len()
    }

    /// Number of coefficients that are not zero.
    pub fn nonzeros(&self) -> usize {
        self.indices.len()
    }

    /// A row.
    pub fn row(&self, i: usize) -> Row<'_> {
        let terms = self.start(i)..self.ends[i];
        let (lo, hi) = self.sides[i];
        Row { lo, hi, columns: &self.indices[terms.clone()], coefficients: &self.coefficients[terms] }
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.row_count()).map(|i| self.row(i))
    }

    /// Where the terms of a row begin in [`Self::indices`].
    pub(super) fn start(&self, i: usize) -> usize {
        if i == 0 { 0 } else { self.ends[i - 1] }
    }

    /// The columns of all rows' terms, row after row.
    pub(super) fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// The coefficients of all rows' terms, row after row.
    pub(super) fn coefficients(&self) -> &[f64] {
        &self.coefficients
    }
}
