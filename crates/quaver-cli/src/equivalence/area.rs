//! Where two networks are compared: balls around inputs, or boxes.

use std::path::PathBuf;

use anyhow::Result;
use quaver::model::lower::Lowered;
use quaver::num::Ratio;
use quaver::property::{self, Region};

use crate::ball::{Radius, Rows, clip, rows};
use crate::inputs::{Inputs, rows_between};
use crate::npy::Array;
use crate::session::{Files, fail};

/// The places.
#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// Inputs in the models' own type, [N, shape] or [N, elements], each the centre of a ball: FILE.npy, FILE.npz or FILE.npz:ARRAY
    #[arg(long, value_name = "X.npy", conflicts_with_all = ["range", "lower", "upper"])]
    pub inputs: Option<PathBuf>,
    /// Radius of the balls, such as 4/255, 0.03 or, for an integer input, 1step; several are separated by commas
    #[arg(long, value_name = "R", requires = "inputs", value_delimiter = ',', allow_hyphen_values = true)]
    pub radius: Vec<Radius>,
    /// Rows to look at, such as 0..100 or 3,7,20..30 [default: all]
    #[arg(long, visible_alias = "rows", value_name = "ROWS", value_delimiter = ',', conflicts_with = "range")]
    pub indices: Vec<Rows>,
    /// Smallest and largest value of an input element of a ball, such as 0,1
    #[arg(long, value_name = "LO,HI", requires = "inputs", value_parser = clip, allow_hyphen_values = true)]
    pub clip: Option<(Ratio, Ratio)>,
    /// One box instead of balls: smallest and largest value of every input element, in the models' own type
    #[arg(long = "box", value_name = "LO,HI", conflicts_with_all = ["lower", "upper"], value_parser = clip, allow_hyphen_values = true)]
    pub range: Option<(Ratio, Ratio)>,
    /// Boxes instead of balls: their lower corners, [N, shape] or [N, elements], in the models' own type or float64
    #[arg(long, value_name = "L.npy", requires = "upper")]
    pub lower: Option<PathBuf>,
    /// Their upper corners
    #[arg(long, value_name = "U.npy", requires = "lower")]
    pub upper: Option<PathBuf>,
}

/// One place.
pub struct Area {
    /// Row in the files.
    pub row: usize,
    /// Number of the radius.
    pub radius: usize,
    /// Exact bounds, as they were given.
    pub lo: Vec<Ratio>,
    pub hi: Vec<Ratio>,
    pub region: Region,
    pub inside: Option<Region>,
    /// An input that is tried first: the centre of a ball, or near the middle of a box.
    pub start: Vec<f64>,
}

/// All places.
pub struct Areas<'a> {
    args: &'a Args,
    kind: Kind,
    /// (row, number of the radius).
    cases: Vec<(usize, usize)>,
    /// In real units; none for boxes.
    pub radii: Vec<Ratio>,
    /// Rows in the files.
    pub rows: usize,
}

enum Kind {
    Balls(Inputs),
    Boxes([Array; 2]),
    Everywhere(Ratio, Ratio),
}

impl<'a> Areas<'a> {
    /// Reads what is named; `lowered` is the first network.
    pub fn new(args: &'a Args, lowered: &Lowered, files: Files) -> Result<Areas<'a>> {
        let number = |found: Vec<usize>, radii: usize| {
            (0..radii).flat_map(|r| found.iter().map(move |&row| (row, r))).collect::<Vec<_>>()
        };
        if let (Some(path), radii) = (&args.inputs, &args.radius) {
            if radii.is_empty() {
                return Err(fail("the radius of the balls is not said", "give --radius R, such as 4/255"));
            }
            let inputs = Inputs::read(files, std::slice::from_ref(path), lowered)?;
            let radii = radii.iter().map(|r| r.value(lowered)).collect::<Result<Vec<_>>>()?;
            let cases = number(rows(&args.indices, inputs.rows, path)?, radii.len());
            return Ok(Areas { args, cases, radii, rows: inputs.rows, kind: Kind::Balls(inputs) });
        }
        if let (Some(lower), Some(upper)) = (&args.lower, &args.upper) {
            let corners = [Array::read(files, lower)?, Array::read(files, upper)?];
            let [count, other] = [rows_between(&corners[0], lowered)?, rows_between(&corners[1], lowered)?];
            if count != other {
                let problem = format!("{} has {count} rows, and {} has {other}", lower.display(), upper.display());
                return Err(fail(problem, "give a lower and an upper corner for each box"));
            }
            let cases = number(rows(&args.indices, count, lower)?, 1);
            return Ok(Areas { args, cases, radii: vec![], rows: count, kind: Kind::Boxes(corners) });
        }
        let Some((lo, hi)) = &args.range else {
            let cure = "give --inputs X.npy with --radius R, --box LO,HI, or --lower L.npy with --upper U.npy";
            return Err(fail("where the networks are compared is not said", cure));
        };
        Ok(Areas { args, cases: vec![(0, 0)], radii: vec![], rows: 1, kind: Kind::Everywhere(lo.clone(), hi.clone()) })
    }

    /// Number of places.
    pub fn len(&self) -> usize {
        self.cases.len()
    }

    /// How places are called.
    pub fn name(&self) -> &'static str {
        if matches!(self.kind, Kind::Balls(_)) { "input" } else { "box" }
    }

    /// A place; `first` is the first network, `merged` both together.
    pub fn at(&self, i: usize, first: &Lowered, merged: &Lowered) -> Result<Area> {
        let (row, radius) = self.cases[i];
        let n = first.net.node(first.net.inputs()[0]).len();
        let wrong = |e: &dyn std::fmt::Display, cure: &str| fail(format!("row {row}: {e}"), cure);
        let (lo, hi) = match &self.kind {
            Kind::Balls(inputs) => {
                let start = inputs.batch(row, row + 1).swap_remove(0);
                let region = property::ball(first, &start, &self.radii[radius], self.args.clip.as_ref())
                    .map_err(|e| wrong(&e, "change --clip, or leave the row out with --indices"))?;
                let exact = |x: &[f64]| x.iter().filter_map(|&x| Ratio::from_f64(x)).collect();
                let (lo, hi) = (exact(&region.lo), exact(&region.hi));
                return Ok(Area { row, radius, lo, hi, region, inside: None, start });
            }
            Kind::Boxes(corners) => {
                let corner = |k: usize| (row * n..(row + 1) * n).filter_map(move |i| Ratio::from_f64(corners[k].at(i)));
                (corner(0).collect::<Vec<_>>(), corner(1).collect::<Vec<_>>())
            }
            Kind::Everywhere(lo, hi) => (vec![lo.clone(); n], vec![hi.clone(); n]),
        };
        let c = property::corners(merged, &lo, &hi).map_err(|e| wrong(&e, "give corners with a value between them"))?;
        Ok(Area { row, radius, lo, hi, region: c.region, inside: Some(c.inside), start: c.middle })
    }
}
