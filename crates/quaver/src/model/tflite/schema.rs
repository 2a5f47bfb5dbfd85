//! The tables of the TensorFlow Lite schema that the reader knows, by slot number; every table is verified before it is read.

use flatbuffers::{
    Follow, ForwardsUOffset, InvalidFlatbuffer, Table, VOffsetT, Vector, Verifiable, Verifier, VerifierOptions,
    root_with_opts,
};

/// A list of tables or strings.
pub(super) type List<'a, T> = Vector<'a, ForwardsUOffset<T>>;

/// Position of a slot in a vtable, behind two lengths.
pub(super) const fn offset(slot: VOffsetT) -> VOffsetT {
    4 + 2 * slot
}

/// What is common to all tables.
pub(super) trait Known {
    /// Name in the schema.
    const NAME: &'static str;

    /// A slot that holds something, and that the schema known here does not have.
    fn unknown_slot(&self) -> Option<VOffsetT>;
}

/// The options of an operator.
pub(super) trait Options<'a>: Known + Verifiable + Follow<'a, Inner = Self> + 'a {
    /// Number of the table in the union `BuiltinOptions`.
    const TYPE: u8;
}

/// Declares a table: numbers with their defaults, links to tables, lists and strings, and fields that are only asked whether they are there.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident, $slots:literal slots;
     numbers { $($ns:literal $nf:ident: $nt:ty = $nd:expr;)* }
     links { $($ls:literal $lf:ident: $lt:ty;)* }
     flags { $($fs:literal $ff:ident;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(super) struct $name<'a>(Table<'a>);

        impl<'a> Follow<'a> for $name<'a> {
            type Inner = Self;

            // SAFETY: as the trait says: the caller has verified that there is a table of this kind.
            unsafe fn follow(buf: &'a [u8], loc: usize) -> Self {
                $name(unsafe { Table::new(buf, loc) })
            }
        }

        impl<'a> Verifiable for $name<'a> {
            fn run_verifier(v: &mut Verifier<'_, '_>, pos: usize) -> Result<(), InvalidFlatbuffer> {
                v.visit_table(pos)?
                    $(.visit_field::<$nt>(stringify!($nf), offset($ns), false)?)*
                    $(.visit_field::<ForwardsUOffset<$lt>>(stringify!($lf), offset($ls), false)?)*
                    .finish();
                Ok(())
            }
        }

        impl Known for $name<'_> {
            const NAME: &'static str = stringify!($name);

            fn unknown_slot(&self) -> Option<VOffsetT> {
                let vtable = self.0.vtable();
                let slots = u16::try_from(vtable.num_bytes()).unwrap_or(u16::MAX).saturating_sub(offset(0)) / 2;
                ($slots..slots).find(|&slot| vtable.get(offset(slot)) != 0)
            }
        }

        #[allow(dead_code)]
        impl<'a> $name<'a> {
            $(pub fn $nf(&self) -> $nt {
                // SAFETY: the table can only come from verified bytes, and the verifier has seen this field as this type.
                unsafe { self.0.get::<$nt>(offset($ns), None) }.unwrap_or($nd)
            })*
            $(pub fn $lf(&self) -> Option<<$lt as Follow<'a>>::Inner> {
                // SAFETY: as above.
                unsafe { self.0.get::<ForwardsUOffset<$lt>>(offset($ls), None) }
            })*
            $(pub fn $ff(&self) -> bool {
                self.0.vtable().get(offset($fs)) != 0
            })*
        }
    };
}

table! {
    /// The whole file. Metadata and signatures say nothing about what is computed.
    Model, 10 slots;
    numbers { 0 version: u32 = 0; }
    links {
        1 operator_codes: List<'a, OperatorCode<'a>>;
        2 subgraphs: List<'a, SubGraph<'a>>;
        3 description: &'a str;
        4 buffers: List<'a, Buffer<'a>>;
    }
    flags { 8 external_buffer_groups; 9 external_buffers; }
}

table! {
    /// Which operator; the version (slot 2) says which fields and types a runtime must know, and these are checked themselves.
    OperatorCode, 4 slots;
    numbers { 0 deprecated_builtin_code: i8 = 0; 3 builtin_code: i32 = 0; }
    links { 1 custom_code: &'a str; }
    flags {}
}

table! {
    /// A graph; slot 5 is for debuggers.
    SubGraph, 6 slots;
    numbers {}
    links {
        0 tensors: List<'a, Tensor<'a>>;
        1 inputs: Vector<'a, i32>;
        2 outputs: Vector<'a, i32>;
        3 operators: List<'a, Operator<'a>>;
        4 name: &'a str;
    }
    flags {}
}

table! {
    /// A tensor; `has_rank` (slot 8) tells a scalar from an unknown shape, and shapes are inferred here.
    Tensor, 11 slots;
    numbers { 1 kind: i8 = 0; 2 buffer: u32 = 0; 5 is_variable: bool = false; 10 external_buffer: u32 = 0; }
    links {
        0 shape: Vector<'a, i32>;
        3 name: &'a str;
        4 quantization: QuantizationParameters<'a>;
        7 shape_signature: Vector<'a, i32>;
    }
    flags { 6 sparsity; 9 variant_tensors; }
}

table! {
    /// Scales and zero points; the smallest and largest value seen (slots 0 and 1) are for converters.
    QuantizationParameters, 7 slots;
    numbers { 4 details_type: u8 = 0; 6 quantized_dimension: i32 = 0; }
    links { 2 scale: Vector<'a, f32>; 3 zero_point: Vector<'a, i64>; }
    flags { 5 details; }
}

table! {
    /// The bytes of constants.
    Buffer, 3 slots;
    numbers { 1 offset: u64 = 0; 2 size: u64 = 0; }
    links { 0 data: Vector<'a, u8>; }
    flags {}
}

table! {
    /// An operator; slot 13 is for debuggers.
    Operator, 14 slots;
    numbers { 0 opcode_index: u32 = 0; 3 options_type: u8 = 0; 11 options_2_type: u8 = 0; 9 large_options_offset: u64 = 0; }
    links {
        1 inputs: Vector<'a, i32>;
        2 outputs: Vector<'a, i32>;
        5 custom_options: Vector<'a, u8>;
        7 mutating_variable_inputs: Vector<'a, bool>;
        8 intermediates: Vector<'a, i32>;
    }
    flags { 12 options_2; }
}

table! {
    /// CONV_2D.
    Conv2DOptions, 7 slots;
    numbers {
        0 padding: i8 = 0; 1 stride_w: i32 = 0; 2 stride_h: i32 = 0; 3 activation: i8 = 0;
        4 dilation_w: i32 = 1; 5 dilation_h: i32 = 1; 6 bias_type: i8 = 0;
    }
    links {}
    flags {}
}

table! {
    /// DEPTHWISE_CONV_2D.
    DepthwiseConv2DOptions, 7 slots;
    numbers {
        0 padding: i8 = 0; 1 stride_w: i32 = 0; 2 stride_h: i32 = 0; 3 depth_multiplier: i32 = 0; 4 activation: i8 = 0;
        5 dilation_w: i32 = 1; 6 dilation_h: i32 = 1;
    }
    links {}
    flags {}
}

table! {
    /// AVERAGE_POOL_2D, MAX_POOL_2D.
    Pool2DOptions, 6 slots;
    numbers {
        0 padding: i8 = 0; 1 stride_w: i32 = 0; 2 stride_h: i32 = 0; 3 filter_width: i32 = 0; 4 filter_height: i32 = 0;
        5 activation: i8 = 0;
    }
    links {}
    flags {}
}

table! {
    /// FULLY_CONNECTED.
    FullyConnectedOptions, 6 slots;
    numbers {
        0 activation: i8 = 0; 1 weights_format: i8 = 0; 2 keep_num_dims: bool = false;
        3 asymmetric_quantize_inputs: bool = false; 4 bias_type: i8 = 0;
    }
    links {}
    flags { 5 quant_spec; }
}

table! {
    /// ADD; slot 1 concerns int16.
    AddOptions, 2 slots;
    numbers { 0 activation: i8 = 0; }
    links {}
    flags {}
}

table! {
    /// SUB; slot 1 concerns int16.
    SubOptions, 2 slots;
    numbers { 0 activation: i8 = 0; }
    links {}
    flags {}
}

table! {
    /// MUL.
    MulOptions, 1 slots;
    numbers { 0 activation: i8 = 0; }
    links {}
    flags {}
}

table! {
    /// CONCATENATION.
    ConcatenationOptions, 2 slots;
    numbers { 0 axis: i32 = 0; 1 activation: i8 = 0; }
    links {}
    flags {}
}

table! {
    /// SOFTMAX.
    SoftmaxOptions, 1 slots;
    numbers { 0 beta: f32 = 0.0; }
    links {}
    flags {}
}

table! {
    /// MEAN.
    ReducerOptions, 1 slots;
    numbers { 0 keep_dims: bool = false; }
    links {}
    flags {}
}

table! {
    /// RESHAPE.
    ReshapeOptions, 1 slots;
    numbers {}
    links { 0 new_shape: Vector<'a, i32>; }
    flags {}
}

table! {
    /// SQUEEZE.
    SqueezeOptions, 1 slots;
    numbers {}
    links { 0 squeeze_dims: Vector<'a, i32>; }
    flags {}
}

/// Options without fields.
macro_rules! empty {
    ($($name:ident)*) => {
        $(table! {
            /// No fields.
            $name, 0 slots;
            numbers {}
            links {}
            flags {}
        })*
    };
}

empty! { PadOptions PadV2Options TransposeOptions ExpandDimsOptions QuantizeOptions DequantizeOptions }

macro_rules! options {
    ($($number:literal $name:ident)*) => {
        $(impl<'a> Options<'a> for $name<'a> {
            const TYPE: u8 = $number;
        })*
    };
}

options! {
    1 Conv2DOptions
    2 DepthwiseConv2DOptions
    5 Pool2DOptions
    8 FullyConnectedOptions
    9 SoftmaxOptions
    10 ConcatenationOptions
    11 AddOptions
    17 ReshapeOptions
    21 MulOptions
    22 PadOptions
    26 TransposeOptions
    27 ReducerOptions
    28 SubOptions
    30 SqueezeOptions
    38 DequantizeOptions
    43 PadV2Options
    52 ExpandDimsOptions
    89 QuantizeOptions
}

/// Depth and size are bounded by what the bytes can hold; sharing of parts may enlarge them a little.
fn limits(bytes: usize) -> VerifierOptions {
    VerifierOptions {
        max_depth: 8,
        max_tables: 1_000_000,
        max_apparent_size: bytes.saturating_mul(4).saturating_add(1 << 20),
        ignore_missing_null_terminator: false,
    }
}

/// The model in these bytes, every part of it verified except the options of operators.
pub(super) fn root(bytes: &[u8]) -> Result<Model<'_>, InvalidFlatbuffer> {
    // The library reads the root's offset from the first bytes; a verifier checks that they are there.
    root_with_opts::<Model<'_>>(&limits(bytes.len()), bytes)
}

impl<'a> Operator<'a> {
    /// The options, verified now as those of type `T`; the caller has compared `options_type` with `T::TYPE`.
    pub fn options<T: Options<'a>>(&self) -> Result<Option<T>, InvalidFlatbuffer> {
        let (bytes, field) = (self.0.buf(), self.0.vtable().get(offset(4)));
        if field == 0 {
            return Ok(None);
        }
        let at = self.0.loc().saturating_add(usize::from(field));
        <ForwardsUOffset<T>>::run_verifier(&mut Verifier::new(&limits(bytes.len()), bytes), at)?;
        // SAFETY: the line above has verified that there is a table of this kind.
        Ok(Some(unsafe { <ForwardsUOffset<T>>::follow(bytes, at) }))
    }
}
