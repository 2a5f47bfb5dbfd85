//! `torch-fbgemm`, `torch-onednn`, `torch-x86`, `torch-qnnpack`: PyTorch's quantized operators on a CPU.
//!
//! A file in Q/DQ form stands for the eager-mode model whose layers are its groups: `torch.ops.quantized.linear`, `conv2d`, `add`, with
//! float32 biases and a Relu fused into the layer before it. The engines differ in their rounding (`docs/profiles.md`).

mod kernels;
mod refuse;

use super::qdq::{self, Biases};
use super::{Addition, Average, Averaging, Inexact, Kernel, Limits, Profile, Quantizer, Requantizer, float32_step};
use crate::model::ir::Model;
use crate::model::lower::LowerError;
use crate::net::ScalarFn;

/// What `torch.backends.quantized.engine` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// FBGEMM.
    Fbgemm,
    /// oneDNN.
    Onednn,
    /// FBGEMM for matrix products and oneDNN for convolutions.
    X86,
    /// QNNPACK.
    Qnnpack,
}

impl Engine {
    /// All of them.
    pub const ALL: [Engine; 4] = [Engine::Fbgemm, Engine::Onednn, Engine::X86, Engine::Qnnpack];

    fn name(self) -> &'static str {
        match self {
            Engine::Fbgemm => "fbgemm",
            Engine::Onednn => "onednn",
            Engine::X86 => "x86",
            Engine::Qnnpack => "qnnpack",
        }
    }

    /// The engine that runs a kernel.
    fn of(self, kernel: Kernel) -> Engine {
        match (self, kernel) {
            (Engine::X86, Kernel::Convolution) => Engine::Onednn,
            (Engine::X86, _) => Engine::Fbgemm,
            _ => self,
        }
    }
}

/// PyTorch's quantized operators with one engine.
#[derive(Clone, Copy, Debug)]
pub struct Torch {
    /// The engine.
    pub engine: Engine,
}

impl Torch {
    /// The profile with this name.
    pub fn named(name: &str) -> Option<Torch> {
        Engine::ALL.into_iter().map(|engine| Torch { engine }).find(|t| t.id() == name)
    }
}

impl Profile for Torch {
    fn id(&self) -> String {
        format!("torch-{}", self.engine.name())
    }

    fn describe(&self) -> &'static str {
        match self.engine {
            Engine::Fbgemm => "PyTorch's quantized operators, engine fbgemm",
            Engine::Onednn => "PyTorch's quantized operators, engine onednn",
            Engine::X86 => "PyTorch's quantized operators, engine x86",
            Engine::Qnnpack => "PyTorch's quantized operators, engine qnnpack",
        }
    }

    fn rewrite(&self, model: &Model) -> Result<Model, LowerError> {
        let fused = qdq::fuse(model, Biases::Float)?;
        refuse::what_is_not_exact(&fused, self.engine)?;
        Ok(fused)
    }

    /// clip(rne(R(x R(1/s))) + z).
    fn quantize(&self, q: &Quantizer) -> ScalarFn {
        let guess = |k: i64| (k as f64 - q.zero_point as f64 - 0.5) * f64::from(q.scale);
        ScalarFn::Step(float32_step(q.range, |x| kernels::quantize(x, q), guess))
    }

    fn requantize(&self, r: &Requantizer) -> Result<ScalarFn, Inexact> {
        kernels::requantize(r, self.engine.of(r.kernel))
    }

    fn takes_float_biases(&self) -> bool {
        true
    }

    fn clip_end(&self, end: f32, q: &Quantizer) -> (i64, i64) {
        let rounded = kernels::quantize(end, q);
        (rounded, rounded)
    }

    fn add(&self, a: &Quantizer, b: &Quantizer, subtract: bool, output: &Quantizer) -> Result<Addition, Inexact> {
        if subtract || self.engine == Engine::Qnnpack {
            let what = if subtract { "a difference" } else { "qnnpack's sum" };
            return Err(Inexact::new(format!("{what} of quantized values has no known formula")));
        }
        kernels::add(a, b, output)
    }

    fn average(&self, average: &Average) -> Result<Averaging, Inexact> {
        if self.engine == Engine::Qnnpack {
            return Err(Inexact::new("qnnpack's mean of quantized values has no known formula"));
        }
        kernels::average(average)
    }

    fn rescale(&self, from: &Quantizer, to: &Quantizer) -> Result<ScalarFn, Inexact> {
        kernels::rescale(from, to)
    }

    fn limits(&self) -> Limits {
        Limits { accumulator: Some(1 << 24), saturating_pairs: false }
    }

    fn assumptions(&self) -> Vec<String> {
        let engine = self.engine.name();
        let mut all = vec![
            format!("PyTorch 2.15 quantized CPU operators, engine {engine}, one thread"),
            "float inputs stay below 2^31 - 128 quantization steps (beyond, PyTorch wraps where the zero point is above 127)"
                .to_string(),
        ];
        if self.engine != Engine::Qnnpack {
            all.push(
                "u8 x s8 products do not saturate in 16 bits (a CPU with VNNI, or weights that cannot reach it)".into(),
            );
        }
        all
    }
}
