//! Constant tensors of a file, with their elements in the file or beside it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use super::proto::{TensorProto, data_type as dt};
use crate::model::build::Problem;
use crate::model::build::shape::{MAX_RANK, elements};
use crate::model::ir::{DType, Data, Tensor};
use crate::num::float16;

const EXPORT: &str = "export the model for float32 or for 8- or 16-bit integer quantization";

/// The element type with this number, or why it is refused.
pub(super) fn element_type(number: i32) -> Result<DType, Problem> {
    Ok(match number {
        dt::FLOAT => DType::F32,
        dt::UINT8 => DType::U8,
        dt::INT8 => DType::I8,
        dt::UINT16 => DType::U16,
        dt::INT16 => DType::I16,
        dt::INT32 => DType::I32,
        dt::INT64 => DType::I64,
        dt::BOOL => DType::Bool,
        other => {
            let what = format!("element type {} ({other}) is not supported", dt::name(other));
            return Err(Problem::whole(what, EXPORT));
        }
    })
}

/// The number of an element type.
pub(super) fn element_number(dtype: DType) -> i32 {
    match dtype {
        DType::F32 => dt::FLOAT,
        DType::U8 => dt::UINT8,
        DType::I8 => dt::INT8,
        DType::U16 => dt::UINT16,
        DType::I16 => dt::INT16,
        DType::I32 => dt::INT32,
        DType::I64 => dt::INT64,
        DType::Bool => dt::BOOL,
    }
}

/// Bytes of one element.
fn width(dtype: DType) -> usize {
    match dtype {
        DType::U8 | DType::I8 | DType::Bool => 1,
        DType::U16 | DType::I16 => 2,
        DType::F32 | DType::I32 => 4,
        DType::I64 => 8,
    }
}

fn malformed(what: impl Into<String>) -> Problem {
    Problem::whole(what, "export the model again")
}

/// Reads tensors; knows where external data lies and how much of it may still be read.
pub(super) struct TensorReader<'a> {
    folder: &'a Path,
    external_left: u64,
}

impl<'a> TensorReader<'a> {
    /// A reader for the model file at `file`; external data of all tensors together is at most `limit` bytes.
    pub fn new(file: &'a Path, limit: u64) -> Self {
        TensorReader { folder: file.parent().unwrap_or(Path::new("")), external_left: limit }
    }

    /// The tensor a message stands for.
    pub fn read(&mut self, proto: &TensorProto) -> Result<Tensor, Problem> {
        let dtype = element_type(proto.data_type())?;
        if proto.segment.is_some() {
            return Err(malformed("tensor segments are not supported"));
        }
        let shape = dims(&proto.dims)?;
        let count = elements(&shape).ok_or_else(|| malformed(format!("dimensions {shape:?} overflow")))?;
        let data = match proto.data_location() {
            1 => {
                check_no_data(proto, "external data")?;
                let bytes = self.external(proto, dtype, count)?;
                decode(dtype, count, &bytes)?
            }
            0 if !proto.external_data.is_empty() => {
                return Err(malformed("has external data, but its data location says otherwise"));
            }
            0 => inline(proto, dtype, count)?,
            other => return Err(malformed(format!("data location {other} is unknown"))),
        };
        Ok(Tensor { shape, data })
    }

    /// A tensor of float16 numbers, as float32 numbers.
    pub fn read_float16(&mut self, proto: &TensorProto) -> Result<Tensor, Problem> {
        // They are kept like 16-bit integers.
        let bits = self.read(&TensorProto { data_type: Some(dt::UINT16), ..proto.clone() })?;
        let Data::U16(bits_of) = &bits.data else { return Err(malformed("is no tensor of float16 numbers")) };
        let data = Data::F32(bits_of.iter().map(|&b| float16::value(b)).collect());
        Ok(Tensor { data, ..bits })
    }

    fn external(&mut self, proto: &TensorProto, dtype: DType, count: usize) -> Result<Vec<u8>, Problem> {
        let (mut location, mut offset, mut length) = (None, 0u64, None);
        for entry in &proto.external_data {
            let number = || {
                entry.value().parse::<u64>().map_err(|_| malformed(format!("external `{}` is no number", entry.key())))
            };
            match entry.key() {
                "location" => location = Some(entry.value()),
                "offset" => offset = number()?,
                "length" => length = Some(number()?),
                "checksum" => {}
                other => return Err(malformed(format!("external data key `{other}` is not understood"))),
            }
        }
        let location = location.ok_or_else(|| malformed("external data without a location"))?;
        let need = (count as u64).checked_mul(width(dtype) as u64).ok_or_else(|| malformed("dimensions overflow"))?;
        if let Some(length) = length.filter(|&length| length != need) {
            return Err(malformed(format!("external data has {length} bytes, but the dimensions ask for {need}")));
        }
        self.external_left = self.external_left.checked_sub(need).ok_or_else(|| {
            Problem::whole("external data is larger than the limit", "raise `max_file_bytes` if that is meant")
        })?;
        read_external(self.folder, location, offset, need)
    }
}

/// The bytes `offset..offset + need` of a file inside the model's folder.
fn read_external(folder: &Path, location: &str, offset: u64, need: u64) -> Result<Vec<u8>, Problem> {
    let relative = Path::new(location);
    let inside =
        !location.is_empty() && relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !inside {
        let what = format!("external data location `{location}` is not a plain path below the model's folder");
        return Err(Problem::whole(what, "put the data file beside the model and refer to it by its relative name"));
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let io = |e: std::io::Error| {
        Problem::whole(format!("cannot read external data `{location}`: {e}"), "put the data file beside the model")
    };
    let target = folder.join(relative).canonicalize().map_err(io)?;
    if !target.starts_with(folder.canonicalize().map_err(io)?) {
        let what = format!("external data location `{location}` leads out of the model's folder");
        return Err(Problem::whole(what, "put the data file itself beside the model"));
    }
    let mut file = File::open(target).map_err(io)?;
    let info = file.metadata().map_err(io)?;
    let end = offset.checked_add(need);
    if !info.is_file() || end.is_none_or(|end| end > info.len()) {
        let what = format!("external data `{location}` has {} bytes; {need} at {offset} are needed", info.len());
        return Err(Problem::whole(what, "the data file is truncated or belongs to another model"));
    }
    file.seek(SeekFrom::Start(offset)).map_err(io)?;
    let mut bytes = Vec::with_capacity(usize::try_from(need).map_err(|_| malformed("external data is too large"))?);
    file.take(need).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// Declared dimensions of a constant.
fn dims(dims: &[i64]) -> Result<Vec<usize>, Problem> {
    if dims.len() > MAX_RANK {
        return Err(malformed(format!("has {} dimensions, at most {MAX_RANK} are supported", dims.len())));
    }
    dims.iter().map(|&d| usize::try_from(d).map_err(|_| malformed(format!("has the negative dimension {d}")))).collect()
}

/// Names and lengths of the data fields.
fn fields(proto: &TensorProto) -> [(&'static str, usize); 7] {
    [
        ("raw_data", proto.raw_data.as_ref().map_or(0, Vec::len)),
        ("float_data", proto.float_data.len()),
        ("int32_data", proto.int32_data.len()),
        ("int64_data", proto.int64_data.len()),
        ("double_data", proto.double_data.len()),
        ("uint64_data", proto.uint64_data.len()),
        ("string_data", proto.string_data.len()),
    ]
}

/// Refuses data in any field but the one named.
fn check_no_data(proto: &TensorProto, but: &str) -> Result<(), Problem> {
    match fields(proto).iter().find(|(name, len)| *name != but && *len > 0) {
        None => Ok(()),
        Some((name, _)) => Err(malformed(format!("has elements in {name} besides those in {but}"))),
    }
}

/// Elements stored in the message itself.
fn inline(proto: &TensorProto, dtype: DType, count: usize) -> Result<Data, Problem> {
    if let Some(raw) = proto.raw_data.as_ref().filter(|raw| !raw.is_empty()) {
        check_no_data(proto, "raw_data")?;
        return decode(dtype, count, raw);
    }
    let (field, found) = match dtype {
        DType::F32 => ("float_data", proto.float_data.len()),
        DType::I64 => ("int64_data", proto.int64_data.len()),
        _ => ("int32_data", proto.int32_data.len()),
    };
    check_no_data(proto, field)?;
    if found != count {
        return Err(malformed(format!("has {found} elements, but its dimensions {:?} ask for {count}", proto.dims)));
    }
    let ints = &proto.int32_data;
    Ok(match dtype {
        DType::F32 => Data::F32(proto.float_data.clone()),
        DType::I64 => Data::I64(proto.int64_data.clone()),
        DType::I32 => Data::I32(ints.clone()),
        DType::I8 => Data::I8(narrow(ints)?),
        DType::U8 => Data::U8(narrow(ints)?),
        DType::I16 => Data::I16(narrow(ints)?),
        DType::U16 => Data::U16(narrow(ints)?),
        DType::Bool => Data::Bool(narrow::<u8>(ints)?.into_iter().map(boolean).collect::<Result<_, _>>()?),
    })
}

fn narrow<T: TryFrom<i32>>(ints: &[i32]) -> Result<Vec<T>, Problem> {
    ints.iter().map(|&x| T::try_from(x).map_err(|_| malformed(format!("element {x} is out of range")))).collect()
}

fn boolean(x: u8) -> Result<bool, Problem> {
    if x < 2 { Ok(x == 1) } else { Err(malformed(format!("boolean element {x} is neither 0 nor 1"))) }
}

/// Elements from little-endian bytes.
fn decode(dtype: DType, count: usize, raw: &[u8]) -> Result<Data, Problem> {
    if count.checked_mul(width(dtype)) != Some(raw.len()) {
        return Err(malformed(format!(
            "has {} bytes of {dtype} elements, but its dimensions ask for {count} elements",
            raw.len()
        )));
    }
    Ok(match dtype {
        DType::F32 => Data::F32(raw.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        DType::I32 => Data::I32(raw.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect()),
        DType::I64 => Data::I64(raw.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect()),
        DType::I16 => Data::I16(raw.as_chunks().0.iter().map(|b| i16::from_le_bytes(*b)).collect()),
        DType::U16 => Data::U16(raw.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect()),
        DType::I8 => Data::I8(raw.iter().map(|&b| b as i8).collect()),
        DType::U8 => Data::U8(raw.to_vec()),
        DType::Bool => Data::Bool(raw.iter().map(|&b| boolean(b)).collect::<Result<_, _>>()?),
    })
}

/// A tensor as the bytes of an ONNX `TensorProto` of a type, or of doubles; `None` where a value is not one of the type.
pub fn tensor_bytes(name: &str, shape: &[usize], dtype: Option<DType>, values: &[f64]) -> Option<Vec<u8>> {
    let raw: Vec<u8> = match dtype {
        None => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Some(DType::F32) => values.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect(),
        Some(integer) => {
            let (lo, hi) = integer.integer_range()?;
            let bytes = (i64::BITS - (hi - 1).leading_zeros()).div_ceil(8).max(1) as usize;
            let one = |&x: &f64| {
                let fits = x.fract() == 0.0 && (lo as f64..=hi as f64).contains(&x);
                fits.then(|| (x as i64).to_le_bytes()[..bytes].to_vec())
            };
            values.iter().map(one).collect::<Option<Vec<_>>>()?.concat()
        }
    };
    let proto = TensorProto {
        dims: shape.iter().map(|&d| d as i64).collect(),
        data_type: Some(dtype.map_or(super::proto::data_type::DOUBLE, element_number)),
        name: Some(name.to_string()),
        raw_data: Some(raw),
        ..TensorProto::default()
    };
    Some(prost::Message::encode_to_vec(&proto))
}

/// The message that stands for a tensor of float32 numbers, rounded to float16.
pub(super) fn to_float16_proto(name: &str, tensor: &Tensor) -> TensorProto {
    let bits = |x: &f32| float16::bits(float16::nearest(*x));
    let data = Data::U16(tensor.as_f32().unwrap_or_default().iter().map(bits).collect());
    let proto = to_proto(name, &Tensor { data, shape: tensor.shape.clone() });
    TensorProto { data_type: Some(dt::FLOAT16), ..proto }
}

/// The message that stands for a tensor.
pub(super) fn to_proto(name: &str, tensor: &Tensor) -> TensorProto {
    let raw = match &tensor.data {
        Data::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::I16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::U16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::I8(v) => v.iter().map(|&x| x as u8).collect(),
        Data::U8(v) => v.clone(),
        Data::Bool(v) => v.iter().map(|&x| x as u8).collect(),
    };
    TensorProto {
        dims: tensor.shape.iter().map(|&d| d as i64).collect(),
        data_type: Some(element_number(tensor.dtype())),
        name: Some(name.to_string()),
        raw_data: Some(raw),
        ..TensorProto::default()
    }
}
