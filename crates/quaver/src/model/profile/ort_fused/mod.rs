//! `ort-fused`: what ONNX Runtime's CPU provider executes at its default optimization level.
//!
//! The runtime turns groups of DequantizeLinear, an operation and QuantizeLinear into integer kernels, quantizes some
//! float biases on the way, and leaves the rest in float32. The passes below do the same to the graph, in the same order; the
//! conditions were measured group by group (`docs/profiles.md`).

mod fuse;
mod passes;

use super::graph::{Graph, passes_integers};
use super::{Addition, Average, Averaging, Inexact, Limits, Profile, Quantizer, Requantizer, ort};
use crate::model::ir::Model;
use crate::model::lower::LowerError;
use crate::net::ScalarFn;

/// ONNX Runtime, default optimization level, on a CPU whose u8 x s8 products do not saturate (VNNI), or on any x86 CPU.
#[derive(Clone, Copy, Debug)]
pub struct OrtFused {
    /// Refuse models whose 8-bit products could saturate on CPUs without VNNI.
    pub any_x86: bool,
}

impl Profile for OrtFused {
    fn id(&self) -> String {
        if self.any_x86 { "ort-fused-any-x86".into() } else { "ort-fused".into() }
    }

    fn describe(&self) -> &'static str {
        "ONNX Runtime on a CPU at its default optimization level"
    }

    fn rewrite(&self, model: &Model) -> Result<Model, LowerError> {
        if model.source.format == "tflite" {
            let problem = "ONNX Runtime does not run TensorFlow Lite files";
            return Err(LowerError::at(model, None, problem, "use --profile tflite-xnnpack, or convert the file"));
        }
        refuse_unused_nodes(model)?;
        let mut graph = Graph { model: model.clone() };
        graph.remove_identities();
        graph.refuse_odd_parameters()?;
        graph.matmul_add_to_gemm();
        graph.signed_to_unsigned();
        graph.propagate_quantize();
        graph.propagate_dequantize(passes_integers);
        graph.refuse_what_is_not_exact()?;
        graph.refuse_misread_products()?;
        graph.quantize_biases()?;
        graph.fuse();
        graph.cancel_pairs();
        graph.remove_dead();
        Ok(graph.model)
    }

    fn quantize(&self, q: &Quantizer) -> ScalarFn {
        ScalarFn::Step(ort::quantize(q))
    }

    fn requantize(&self, r: &Requantizer) -> Result<ScalarFn, Inexact> {
        ort::requantize(r)
    }

    fn add(&self, a: &Quantizer, b: &Quantizer, subtract: bool, output: &Quantizer) -> Result<Addition, Inexact> {
        ort::add(a, b, subtract, output)
    }

    fn average(&self, average: &Average) -> Result<Averaging, Inexact> {
        ort::average(average)
    }

    fn rescale(&self, from: &Quantizer, to: &Quantizer) -> Result<ScalarFn, Inexact> {
        ort::rescale(from, to, |v| v)
    }

    fn limits(&self) -> Limits {
        Limits { saturating_pairs: self.any_x86, ..ort::LIMITS }
    }

    fn assumptions(&self) -> Vec<String> {
        let mut all = vec!["ONNX Runtime 1.31 CPU kernels, graph optimization level ALL".to_string()];
        if !self.any_x86 {
            all.push(
                "u8 x s8 products do not saturate in 16 bits (a CPU with VNNI, or weights that cannot reach it)".into(),
            );
        }
        all
    }
}

/// The runtime rewrites around nodes that nothing needs, too: they can change what is fused.
fn refuse_unused_nodes(model: &Model) -> Result<(), LowerError> {
    match model.unused.first() {
        Some(name) if model.nodes.iter().any(|n| n.op.is_quantized()) => Err(LowerError::at(
            model,
            None,
            format!(
                "node `{name}` is not needed for any output, and ONNX Runtime lets such nodes change what it fuses"
            ),
            "remove unused nodes from the file, or use --profile float32",
        )),
        _ => Ok(()),
    }
}
