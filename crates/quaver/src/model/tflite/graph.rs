//! The model as it grows: each tensor of the file with the values that stand for it, in the file's layout and channels first.

use std::collections::HashMap;
use std::sync::Arc;

use super::tensors::{Info, constant};
use crate::model::build::{Assembly, Hint, Problem};
use crate::model::ir::{DType, Data, Op, Tensor, ValueId};

/// The order of a value's axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// As in the file: images are [N, H, W, C].
    File,
    /// [N, C, H, W], for four dimensions only.
    ChannelsFirst,
}

/// Channels first from the file's layout, and back. The second is also where each axis of the file lies in the first.
const TO_FIRST: [usize; 4] = [0, 3, 1, 2];
const TO_FILE: [usize; 4] = [0, 2, 3, 1];

impl Layout {
    /// Where an axis of the file lies in this layout.
    pub fn axis(self, axis: usize) -> usize {
        match self {
            Layout::File => axis,
            Layout::ChannelsFirst => TO_FILE.get(axis).copied().unwrap_or(axis),
        }
    }

    /// A list with one entry for each axis of the file, in the order of this layout.
    pub fn permuted<T: Copy>(self, list: &[T]) -> Vec<T> {
        match (self, list) {
            (Layout::ChannelsFirst, &[n, h, w, c]) => vec![n, c, h, w],
            _ => list.to_vec(),
        }
    }
}

/// Constants that are the same are made once: bits of scales, or zero points (one, or a number of zeros).
#[derive(Clone, PartialEq, Eq, Hash)]
enum Parameter {
    Scales(Vec<u32>),
    ZeroPoints(Vec<i8>),
}

/// Values of the tensors, and the assembly they are in.
pub(super) struct Graph<'a> {
    pub asm: Assembly,
    names: Vec<String>,
    infos: Vec<Result<Info<'a>, Problem>>,
    in_file: Vec<Option<ValueId>>,
    channels_first: Vec<Option<ValueId>>,
    parameters: HashMap<Parameter, ValueId>,
    constant_bytes_left: usize,
}

impl<'a> Graph<'a> {
    /// A graph without values; all constants together may take `constant_bytes`.
    pub fn new(
        asm: Assembly,
        names: Vec<String>,
        infos: Vec<Result<Info<'a>, Problem>>,
        constant_bytes: usize,
    ) -> Self {
        let n = infos.len();
        Graph {
            asm,
            names,
            infos,
            in_file: vec![None; n],
            channels_first: vec![None; n],
            parameters: HashMap::new(),
            constant_bytes_left: constant_bytes,
        }
    }

    /// Index of a tensor that exists.
    pub fn index(&self, tensor: i32) -> Result<usize, Problem> {
        usize::try_from(tensor).ok().filter(|&i| i < self.infos.len()).ok_or_else(|| {
            Problem::whole(format!("refers to tensor {tensor}, which does not exist"), "export the model again")
        })
    }

    /// Name for messages, never empty.
    pub fn name(&self, tensor: usize) -> &str {
        &self.names[tensor]
    }

    /// Description of a tensor; the problem does not name it.
    pub fn info(&self, tensor: usize) -> Result<&Info<'a>, Problem> {
        self.infos[tensor].as_ref().map_err(Problem::clone)
    }

    /// Whether a constant stands for the tensor.
    pub fn is_constant(&self, tensor: usize) -> bool {
        self.infos[tensor].as_ref().is_ok_and(|info| info.data.is_some())
    }

    /// Whether a value stands for the tensor already.
    pub fn is_computed(&self, tensor: usize) -> bool {
        self.in_file[tensor].or(self.channels_first[tensor]).is_some()
    }

    /// Whether a value that is not a constant stands for it with channels first.
    pub fn has_channels_first(&self, tensor: usize) -> bool {
        self.channels_first[tensor].is_some()
    }

    /// Makes a value stand for a tensor.
    pub fn set(&mut self, tensor: usize, layout: Layout, id: ValueId) {
        match layout {
            Layout::File => self.in_file[tensor] = Some(id),
            Layout::ChannelsFirst => self.channels_first[tensor] = Some(id),
        }
    }

    /// An unused name for a value of the tensor.
    pub fn fresh(&mut self, tensor: usize, suffix: &str) -> String {
        let name = format!("{}{suffix}", self.names[tensor]);
        // The second attempt keeps files with many equal names from taking long.
        if self.asm.claim(&name) { name } else { self.asm.fresh(&format!("{name}_{tensor}")) }
    }

    /// The elements of a constant.
    pub fn tensor(&mut self, tensor: usize) -> Result<Tensor, Problem> {
        let info = self.infos[tensor].as_ref().map_err(Problem::clone)?;
        let Some(bytes) = info.data else {
            return Err(Problem::whole("is not a constant", "only constants are supported here"));
        };
        self.constant_bytes_left = self.constant_bytes_left.checked_sub(bytes.len()).ok_or_else(|| {
            Problem::whole("shares its bytes with too many other tensors", "store every constant in its own buffer")
        })?;
        constant(info.dtype, &info.shape, bytes)
    }

    /// The value that stands for a tensor in a layout, made where it does not exist yet.
    pub fn value(&mut self, tensor: usize, layout: Layout) -> Result<ValueId, Problem> {
        match layout {
            Layout::File => self.value_in_file(tensor),
            Layout::ChannelsFirst => self.value_channels_first(tensor),
        }
    }

    fn value_in_file(&mut self, tensor: usize) -> Result<ValueId, Problem> {
        if let Some(id) = self.in_file[tensor] {
            return Ok(id);
        }
        let id = match self.channels_first[tensor] {
            Some(id) => self.transposed(tensor, id, TO_FILE, "_nhwc")?,
            None if self.is_constant(tensor) => {
                let elements = Arc::new(self.tensor(tensor)?);
                let name = self.fresh(tensor, "");
                self.asm.constant(name, elements)
            }
            None => {
                self.info(tensor)?;
                let what = "is read before anything computes it";
                return Err(Problem::whole(what, "export the model again"));
            }
        };
        self.in_file[tensor] = Some(id);
        Ok(id)
    }

    fn value_channels_first(&mut self, tensor: usize) -> Result<ValueId, Problem> {
        if let Some(id) = self.channels_first[tensor] {
            return Ok(id);
        }
        let mut id = self.value_in_file(tensor)?;
        let shape = &self.asm.value(id).shape;
        if self.is_constant(tensor) && shape.len() < 4 {
            // A constant operand with fewer dimensions, which broadcasts.
            let wide = [&vec![1; 4 - shape.len()][..], shape].concat();
            let name = self.fresh(tensor, "_wide");
            let hint = Hint { shape: Some(wide), dtype: None };
            id = self.asm.emit(&name.clone(), name, Op::Reshape, &[Some(id)], &hint)?;
        }
        let id = self.transposed(tensor, id, TO_FIRST, "_nchw")?;
        self.channels_first[tensor] = Some(id);
        Ok(id)
    }

    fn transposed(&mut self, tensor: usize, id: ValueId, perm: [usize; 4], suffix: &str) -> Result<ValueId, Problem> {
        let name = self.fresh(tensor, suffix);
        let op = Op::Transpose { perm: perm.to_vec() };
        self.asm.emit(&name.clone(), name, op, &[Some(id)], &Hint::default())
    }

    /// The constant with these scales: one, or one for each channel.
    pub fn scales(&mut self, tensor: usize, scales: &[f32]) -> ValueId {
        let key = Parameter::Scales(scales.iter().map(|s| s.to_bits()).collect());
        self.parameter(tensor, key, "_scale", scales.len(), Data::F32(scales.to_vec()))
    }

    /// The constant with these zero points.
    pub fn zero_points(&mut self, tensor: usize, zero_points: &[i8]) -> ValueId {
        let key = Parameter::ZeroPoints(zero_points.to_vec());
        self.parameter(tensor, key, "_zero_point", zero_points.len(), Data::I8(zero_points.to_vec()))
    }

    fn parameter(&mut self, tensor: usize, key: Parameter, suffix: &str, n: usize, data: Data) -> ValueId {
        if let Some(&id) = self.parameters.get(&key) {
            return id;
        }
        let name = self.fresh(tensor, suffix);
        let shape = if n == 1 { vec![] } else { vec![n] };
        let id = self.asm.constant(name, Arc::new(Tensor { shape, data }));
        self.parameters.insert(key, id);
        id
    }

    /// Refuses a value that is not what the file declares for its tensor.
    pub fn check_declared(&self, tensor: usize, layout: Layout, id: ValueId) -> Result<(), Problem> {
        let (info, value) = (self.info(tensor)?, self.asm.value(id));
        let declared = layout.permuted(&info.shape);
        if info.dtype != value.dtype || declared != value.shape {
            let (d, v) = (kind(info.dtype, &declared), kind(value.dtype, &value.shape));
            return Err(Problem::whole(format!("is declared as {d}, but computed as {v}"), "export the model again"));
        }
        Ok(())
    }
}

fn kind(dtype: DType, shape: &[usize]) -> String {
    format!("{dtype} {shape:?}")
}
