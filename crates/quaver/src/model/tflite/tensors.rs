//! Tensors of a file: shapes, element types, quantization and the bytes of constants, all checked.

use flatbuffers::Vector;

use super::names;
use super::schema::{self, Known, List, QuantizationParameters};
use crate::model::build::Problem;
use crate::model::build::shape::{MAX_RANK, elements};
use crate::model::ir::{DType, Data, Tensor};

const EXPORT: &str = "export the model again";

/// Scales and zero points: one, or one for each index of an axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Quantization {
    pub scales: Vec<f32>,
    pub zero_points: Vec<i64>,
    pub axis: i32,
}

/// What the file says about a tensor.
#[derive(Clone, Debug)]
pub(super) struct Info<'a> {
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// Absent where there are no scales.
    pub quantization: Option<Quantization>,
    /// The bytes of a constant.
    pub data: Option<&'a [u8]>,
}

/// Refuses tables with fields that the schema known here does not have.
pub(super) fn known<T: Known>(table: &T) -> Result<(), Problem> {
    match table.unknown_slot() {
        None => Ok(()),
        Some(slot) => {
            let what = format!("field {slot} of {} is unknown: the file was made for a newer runtime", T::NAME);
            Err(Problem::whole(what, "convert the model with an older version of the converter"))
        }
    }
}

/// Reads one tensor's description.
pub(super) fn read<'a>(
    tensor: &schema::Tensor<'a>,
    buffers: Option<List<'a, schema::Buffer<'a>>>,
) -> Result<Info<'a>, Problem> {
    known(tensor)?;
    if tensor.is_variable() {
        let what = "is a variable, which keeps its value from one run to the next";
        return Err(Problem::whole(what, "export the model without state"));
    }
    if tensor.sparsity() {
        return Err(Problem::whole("is sparse", "store weights as dense tensors"));
    }
    if tensor.variant_tensors() {
        return Err(Problem::whole("is a variant", "use dense tensors"));
    }
    if tensor.external_buffer() != 0 {
        return Err(Problem::whole("is stored in another file", "export the model to one file"));
    }
    let dtype = element_type(tensor.kind())?;
    let shape = shape(tensor.shape(), tensor.shape_signature())?;
    let quantization = match tensor.quantization() {
        Some(q) => quantization(&q)?,
        None => None,
    };
    let data = bytes(tensor.buffer(), buffers, &shape)?;
    Ok(Info { dtype, shape, quantization, data })
}

fn element_type(kind: i8) -> Result<DType, Problem> {
    let cure = match kind {
        0 => return Ok(DType::F32),
        2 => return Ok(DType::I32),
        4 => return Ok(DType::I64),
        9 => return Ok(DType::I8),
        1 => "convert the model without float16 quantization",
        3 => "convert the model with int8 quantization; uint8 is an older scheme with other arithmetic",
        7 | 17 => "convert the model with int8 activations and weights",
        _ => "only float32 and int8 networks are supported",
    };
    Err(Problem::whole(format!("is {}, which is not supported", names::element_type(kind)), cure))
}

fn shape(dims: Option<Vector<'_, i32>>, signature: Option<Vector<'_, i32>>) -> Result<Vec<usize>, Problem> {
    let dims: Vec<i32> = dims.iter().flat_map(|v| v.iter()).take(MAX_RANK + 1).collect();
    let signature: Vec<i32> = signature.iter().flat_map(|v| v.iter()).take(MAX_RANK + 1).collect();
    if dims.len() > MAX_RANK {
        return Err(Problem::whole(format!("has more than {MAX_RANK} dimensions"), "use fewer dimensions"));
    }
    let shape: Option<Vec<usize>> = dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let Some(shape) = shape.filter(|s| elements(s).is_some()) else {
        return Err(Problem::whole(format!("has shape {dims:?}"), "fix the shape when converting"));
    };
    if !signature.is_empty() && signature.len() != dims.len() {
        return Err(Problem::whole(format!("has shape {dims:?}, but signature {signature:?}"), EXPORT));
    }
    for (i, (&free, &dim)) in signature.iter().zip(&dims).enumerate() {
        match free {
            -1 if i > 0 => {
                let what = format!("dimension {i} is dynamic; only the first, the batch, may be");
                return Err(Problem::whole(what, "fix the input's shape when converting"));
            }
            -1 if dim != 1 => {
                return Err(Problem::whole(format!("has a dynamic batch, but shape {dims:?}"), "convert for batch 1"));
            }
            -1 => {}
            _ if free == dim => {}
            _ => return Err(Problem::whole(format!("has shape {dims:?}, but signature {signature:?}"), EXPORT)),
        }
    }
    Ok(shape)
}

fn quantization(q: &QuantizationParameters<'_>) -> Result<Option<Quantization>, Problem> {
    known(q)?;
    if q.details_type() != 0 || q.details() {
        return Err(Problem::whole("has quantization of an unknown kind (custom or blockwise)", "use scales"));
    }
    let scales: Vec<f32> = q.scale().iter().flat_map(|v| v.iter()).collect();
    let mut zero_points: Vec<i64> = q.zero_point().iter().flat_map(|v| v.iter()).collect();
    if scales.is_empty() {
        return match zero_points.iter().all(|&z| z == 0) {
            true => Ok(None),
            false => Err(Problem::whole("has zero points without scales", EXPORT)),
        };
    }
    if zero_points.is_empty() {
        zero_points = vec![0; scales.len()];
    }
    if zero_points.len() != scales.len() {
        return Err(Problem::whole(
            format!("has {} scales and {} zero points", scales.len(), zero_points.len()),
            EXPORT,
        ));
    }
    if let Some(bad) = scales.iter().find(|s| !s.is_finite() || **s < 0.0) {
        return Err(Problem::whole(format!("has the scale {bad}"), "use positive scales"));
    }
    Ok(Some(Quantization { scales, zero_points, axis: q.quantized_dimension() }))
}

/// The bytes of a constant; buffers without bytes are for values that are computed.
fn bytes<'a>(
    buffer: u32,
    buffers: Option<List<'a, schema::Buffer<'a>>>,
    shape: &[usize],
) -> Result<Option<&'a [u8]>, Problem> {
    let at = usize::try_from(buffer).ok().zip(buffers).filter(|(at, list)| *at < list.len());
    let Some((at, list)) = at else {
        return match buffer {
            0 => Ok(None),
            _ => Err(Problem::whole(format!("refers to buffer {buffer}, which does not exist"), EXPORT)),
        };
    };
    let buffer = list.get(at);
    known(&buffer)?;
    // The converter writes 1 as a mark in files whose data follow the tables.
    if buffer.offset() > 1 || buffer.size() > 1 {
        let what = "is stored behind the tables of the file (a model larger than 2 GB)";
        return Err(Problem::whole(what, "convert the model with buffers inside the tables"));
    }
    let data = buffer.data().map(|v| v.bytes());
    Ok(data.filter(|d| !d.is_empty() || shape.contains(&0)))
}

/// Bytes of one element.
fn width(dtype: DType) -> usize {
    match dtype {
        DType::I8 => 1,
        DType::I64 => 8,
        _ => 4,
    }
}

/// The constant with these bytes; copies no more than there are.
pub(super) fn constant(dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Tensor, Problem> {
    let wanted = elements(shape).and_then(|n| n.checked_mul(width(dtype)));
    if wanted != Some(bytes.len()) {
        let what = format!("has {} bytes, which does not fit {dtype} of shape {shape:?}", bytes.len());
        return Err(Problem::whole(what, EXPORT));
    }
    let data = match dtype {
        DType::I8 => Data::I8(bytes.iter().map(|&b| b as i8).collect()),
        DType::I32 => Data::I32(numbers(bytes, i32::from_le_bytes)),
        DType::I64 => Data::I64(numbers(bytes, i64::from_le_bytes)),
        _ => Data::F32(numbers(bytes, f32::from_le_bytes)),
    };
    Ok(Tensor { shape: shape.to_vec(), data })
}

fn numbers<const N: usize, T>(bytes: &[u8], from: fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| from(chunk)).collect()
}
