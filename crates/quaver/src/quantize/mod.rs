//! Quantizers: a float model and a scheme give a model with fewer bits.
//!
//! [`layers`] finds the layers that hold weights, [`Quantizer`] makes the same network at any bits of each layer (weights become the float32
//! values that their integers stand for), [`qdq`] writes integers, scales and quantized activations as QuantizeLinear and DequantizeLinear,
//! [`gpfq`] and [`learned`] choose the integers layer by layer from data. [`search`] proposes bits and [`refine`] proves them; [`preserve`] does so for many
//! properties at once, by verifying the quantized network; [`preimage`] computes what each layer may do and then the bits, and [`sprt`] says when enough
//! inputs were looked at. [`one_layer`] measures what a network loses when one layer alone is quantized. The formulas are in [`scheme`] and in
//! `docs/quantize.md`.

pub mod activations;
mod data;
mod error;
pub mod gpfq;
mod judge;
mod layers;
pub mod learned;
mod matrix;
pub mod one_layer;
pub mod preimage;
pub mod preserve;
pub mod qdq;
mod quantizer;
pub mod refine;
mod round;
pub mod scheme;
pub mod search;
pub mod sprt;

pub use data::Data;
pub use error::{NetworkError, QuantizeError};
pub use layers::{Kind, Layer, Parameter, layers};
pub use quantizer::{Quantized, QuantizedLayer, QuantizedTensor, Quantizer, quantize_weights};
pub use scheme::{BiasRule, LayerScheme, Levels, WeightRule};
