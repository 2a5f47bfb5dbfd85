//! Arrays in `.npy` and `.npz` files.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::Result;
use npyz::npz::NpzArchive;
use npyz::{Deserialize, NpyFile, NpyWriter, Order, TypeChar, WriteOptions, WriterBuilder};
use quaver::model::ir::DType;

use crate::session::{Files, fail};

/// Elements as they are in the file.
#[derive(Debug)]
enum Elements {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I8(Vec<i8>),
    U8(Vec<u8>),
    I16(Vec<i16>),
    U16(Vec<u16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    Bool(Vec<bool>),
}

/// An array in C order.
#[derive(Debug)]
pub struct Array {
    /// The file, and the array in it, for messages.
    pub place: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    elements: Elements,
}

impl Array {
    /// Reads `FILE.npy`, `FILE.npz:ARRAY`, or `FILE.npz` that holds one array.
    pub fn read(files: Files, path: &Path) -> Result<Array> {
        let place = path.display().to_string();
        let Some((archive, name)) = archive_and_name(&place) else {
            let file = NpyFile::new(files.open(path)?).map_err(|e| unreadable(&place, &e))?;
            return Self::from_file(file, place);
        };
        let opened = files.open(Path::new(archive))?;
        let mut npz = NpzArchive::new(opened).map_err(|e| unreadable(archive, &e))?;
        let mut names: Vec<String> = npz.array_names().map(str::to_string).collect();
        names.sort();
        let name = match (name, &names[..]) {
            (Some(name), _) => name.to_string(),
            (None, [only]) => only.clone(),
            (None, _) => {
                let problem = format!("{archive}: holds {} arrays ({})", names.len(), names.join(", "));
                return Err(fail(
                    problem,
                    format!("name one of them, as in {archive}:{}", names.first().map_or("x", |n| n)),
                ));
            }
        };
        let place = format!("{archive}:{name}");
        match npz.by_name(&name).map_err(|e| unreadable(&place, &e))? {
            Some(file) => Self::from_file(file, place),
            None => {
                let problem = format!("{archive}: has no array `{name}`");
                Err(fail(problem, format!("use one of: {}", names.join(", "))))
            }
        }
    }

    fn from_file<R: Read>(file: NpyFile<R>, place: String) -> Result<Array> {
        let shape = checked_shape(file.shape(), &place)?;
        let npyz::DType::Plain(kind) = file.dtype() else {
            return Err(wrong_type(&place, "a record type"));
        };
        let elements = match (kind.type_char(), kind.size_field()) {
            (TypeChar::Float, 4) => Elements::F32(values(file, &shape, &place)?),
            (TypeChar::Float, 8) => Elements::F64(values(file, &shape, &place)?),
            (TypeChar::Int, 1) => Elements::I8(values(file, &shape, &place)?),
            (TypeChar::Uint, 1) => Elements::U8(values(file, &shape, &place)?),
            (TypeChar::Int, 2) => Elements::I16(values(file, &shape, &place)?),
            (TypeChar::Uint, 2) => Elements::U16(values(file, &shape, &place)?),
            (TypeChar::Int, 4) => Elements::I32(values(file, &shape, &place)?),
            (TypeChar::Int, 8) => Elements::I64(values(file, &shape, &place)?),
            (TypeChar::Bool, _) => Elements::Bool(values(file, &shape, &place)?),
            _ => return Err(wrong_type(&place, &format!("type {kind}"))),
        };
        Ok(Array { place, shape, elements })
    }

    /// The element type as numpy calls it.
    pub fn type_name(&self) -> &'static str {
        match &self.elements {
            Elements::F64(_) => "float64",
            _ => self.dtype().map_or("", DType::name),
        }
    }

    /// The element type; `None` for float64, which no model has.
    pub fn dtype(&self) -> Option<DType> {
        Some(match &self.elements {
            Elements::F32(_) => DType::F32,
            Elements::F64(_) => return None,
            Elements::I8(_) => DType::I8,
            Elements::U8(_) => DType::U8,
            Elements::I16(_) => DType::I16,
            Elements::U16(_) => DType::U16,
            Elements::I32(_) => DType::I32,
            Elements::I64(_) => DType::I64,
            Elements::Bool(_) => DType::Bool,
        })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Element i; exact but for integers beyond 2^53.
    pub fn at(&self, i: usize) -> f64 {
        match &self.elements {
            Elements::F32(v) => v[i].into(),
            Elements::F64(v) => v[i],
            _ => self.integer(i).unwrap_or(0) as f64,
        }
    }

    /// Element i of an array of integers.
    pub fn integer(&self, i: usize) -> Option<i64> {
        Some(match &self.elements {
            Elements::F32(_) | Elements::F64(_) => return None,
            Elements::I8(v) => v[i].into(),
            Elements::U8(v) => v[i].into(),
            Elements::I16(v) => v[i].into(),
            Elements::U16(v) => v[i].into(),
            Elements::I32(v) => v[i].into(),
            Elements::I64(v) => v[i],
            Elements::Bool(v) => v[i].into(),
        })
    }

    /// `X.npy[3, 17]`: how to name element i.
    pub fn element(&self, i: usize) -> String {
        let mut rest = i;
        let mut index: Vec<usize> = self.shape.iter().rev().map(|&d| (rest % d, rest /= d).0).collect();
        index.reverse();
        format!("{}{index:?}", self.place)
    }
}

/// `FILE.npz` and the array's name, if it is such a path.
fn archive_and_name(path: &str) -> Option<(&str, Option<&str>)> {
    if path.ends_with(".npz") {
        return Some((path, None));
    }
    path.rfind(".npz:").map(|at| (&path[..at + 4], Some(&path[at + 5..])))
}

fn unreadable(place: &str, error: &std::io::Error) -> anyhow::Error {
    let message = error.to_string();
    let what = match error.kind() {
        ErrorKind::UnexpectedEof => "the file is cut short",
        _ if message.contains("magic not found") => "it is not a .npy file",
        _ if message.contains("type string") => return wrong_type(place, "an unknown type, or Python objects,"),
        _ => &message,
    };
    fail(format!("{place}: cannot read the array: {what}"), "save it again with numpy.save or numpy.savez")
}

fn wrong_type(place: &str, found: &str) -> anyhow::Error {
    let problem = format!("{place}: elements of {found} are not supported");
    fail(
        problem,
        "save float32, float64, bool, int8 to int64, uint8 or uint16, as in numpy.save(file, x.astype(numpy.float32))",
    )
}

/// The shape, if its elements can be counted.
fn checked_shape(shape: &[u64], place: &str) -> Result<Vec<usize>> {
    let sizes: Option<Vec<usize>> = shape.iter().map(|&d| usize::try_from(d).ok()).collect();
    let fits = |s: &Vec<usize>| s.iter().try_fold(8usize, |n, &d| n.checked_mul(d)).is_some();
    sizes.filter(fits).ok_or_else(|| fail(format!("{place}: the shape {shape:?} is too large"), "save fewer rows"))
}

fn values<T: Deserialize + Copy, R: Read>(file: NpyFile<R>, shape: &[usize], place: &str) -> Result<Vec<T>> {
    let order = file.order();
    let data: Vec<T> = file.into_vec().map_err(|e| unreadable(place, &e))?;
    Ok(if order == Order::Fortran { to_c_order(shape, &data) } else { data })
}

/// Elements in C order, of an array in Fortran order.
fn to_c_order<T: Copy>(shape: &[usize], data: &[T]) -> Vec<T> {
    let strides: Vec<usize> = shape.iter().scan(1, |s, &d| Some(std::mem::replace(s, *s * d))).collect();
    let (mut index, mut at) = (vec![0; shape.len()], 0);
    let mut next = || {
        let here = at;
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
        data[here]
    };
    (0..data.len()).map(|_| next()).collect()
}

type Sink<T> = NpyWriter<T, BufWriter<File>>;

enum Typed {
    F32(Sink<f32>),
    I8(Sink<i8>),
    U8(Sink<u8>),
    I16(Sink<i16>),
    U16(Sink<u16>),
    I32(Sink<i32>),
    I64(Sink<i64>),
    Bool(Sink<bool>),
}

/// Writes a `.npy` file in C order, element by element.
pub struct Writer {
    path: PathBuf,
    sink: Typed,
}

impl Writer {
    /// A new file for an array of this shape and type.
    pub fn create(path: &Path, shape: &[usize], dtype: DType) -> Result<Writer> {
        let sink = match dtype {
            DType::F32 => Typed::F32(sink(path, shape)?),
            DType::I8 => Typed::I8(sink(path, shape)?),
            DType::U8 => Typed::U8(sink(path, shape)?),
            DType::I16 => Typed::I16(sink(path, shape)?),
            DType::U16 => Typed::U16(sink(path, shape)?),
            DType::I32 => Typed::I32(sink(path, shape)?),
            DType::I64 => Typed::I64(sink(path, shape)?),
            DType::Bool => Typed::Bool(sink(path, shape)?),
        };
        Ok(Writer { path: path.into(), sink })
    }

    /// Adds the next element.
    pub fn push(&mut self, x: f64) -> Result<()> {
        let pushed = match &mut self.sink {
            Typed::F32(w) => w.push(&(x as f32)),
            Typed::I8(w) => w.push(&(x as i8)),
            Typed::U8(w) => w.push(&(x as u8)),
            Typed::I16(w) => w.push(&(x as i16)),
            Typed::U16(w) => w.push(&(x as u16)),
            Typed::I32(w) => w.push(&(x as i32)),
            Typed::I64(w) => w.push(&(x as i64)),
            Typed::Bool(w) => w.push(&(x != 0.0)),
        };
        pushed.map_err(|e| unwritable(&self.path, &e))
    }

    /// Completes the file and gives its path.
    pub fn finish(self) -> Result<PathBuf> {
        let done = match self.sink {
            Typed::F32(w) => w.finish(),
            Typed::I8(w) => w.finish(),
            Typed::U8(w) => w.finish(),
            Typed::I16(w) => w.finish(),
            Typed::U16(w) => w.finish(),
            Typed::I32(w) => w.finish(),
            Typed::I64(w) => w.finish(),
            Typed::Bool(w) => w.finish(),
        };
        done.map_err(|e| unwritable(&self.path, &e))?;
        Ok(self.path)
    }
}

fn sink<T: npyz::AutoSerialize>(path: &Path, shape: &[usize]) -> Result<Sink<T>> {
    let shape: Vec<u64> = shape.iter().map(|&d| d as u64).collect();
    let file = File::create(path).map_err(|e| unwritable(path, &e))?;
    let options = WriteOptions::new().default_dtype().shape(&shape).writer(BufWriter::new(file));
    options.begin_nd().map_err(|e| unwritable(path, &e))
}

fn unwritable(path: &Path, error: &std::io::Error) -> anyhow::Error {
    fail(format!("{}: cannot write the file: {error}", path.display()), "check that the folder exists and has room")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fortran_order_becomes_c_order() {
        // [[0, 1, 2], [3, 4, 5]] stored column by column.
        assert_eq!(to_c_order(&[2, 3], &[0, 3, 1, 4, 2, 5]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(to_c_order(&[2, 1, 2], &[0, 2, 1, 3]), [0, 1, 2, 3]);
        assert_eq!(to_c_order(&[], &[7]), [7]);
    }

    #[test]
    fn archives_are_told_from_files() {
        assert_eq!(archive_and_name("a/b.npz:X"), Some(("a/b.npz", Some("X"))));
        assert_eq!(archive_and_name("a/b.npz"), Some(("a/b.npz", None)));
        assert_eq!(archive_and_name("a/b.npy"), None);
    }
}
