//! The kernels in vector instructions of x86-64; with `lp/highs.rs`, `net/gemm.rs` and `model/tflite/schema.rs` the only `unsafe` of the library.
//!
//! A [`Machine`] can be made only where its instructions were detected, so that calling them is sound. On other processors there is one machine, the
//! portable one.

use super::input::InputQuantizer;
use super::portable::{self, Product};
use super::requantizer::Requantizer;
use super::{Isa, selftest};

/// Instructions that this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Machine(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX2 and four products of bytes at once, encoded as in AVX-512 or without it.
    #[cfg(target_arch = "x86_64")]
    Vnni {
        avx512: bool,
    },
}

impl Machine {
    /// The instructions asked for, or the best below that are here and agree with the portable kernels on the self-test.
    pub fn detect(isa: Isa) -> Machine {
        let portable = Machine(Kind::Portable);
        match isa {
            Isa::Portable => portable,
            Isa::Avx2 => avx2().filter(|m| selftest::agrees(*m)).unwrap_or(portable),
            Isa::Vnni => vnni().filter(|m| selftest::agrees(*m)).unwrap_or_else(|| Machine::detect(Isa::Avx2)),
        }
    }

    /// The instruction set.
    pub fn isa(self) -> Isa {
        match self.0 {
            Kind::Portable => Isa::Portable,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Kind::Vnni { .. } => Isa::Vnni,
        }
    }

    /// [`portable::words`].
    pub fn words(self, p: Product<u16, i16>, out: &mut [f64]) {
        match self.0 {
            Kind::Portable => portable::words(p, out),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Vnni { .. } => {
                p.check(2, out);
                // SAFETY: such a machine is made only where AVX2 was detected; the slices were checked.
                unsafe { x86::words(p, out) }
            }
        }
    }

    /// [`portable::bytes`].
    pub fn bytes(self, p: Product<u8, i8>, out: &mut [f64]) {
        match self.0 {
            Kind::Portable => portable::bytes(p, out),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => portable::bytes(p, out),
            #[cfg(target_arch = "x86_64")]
            Kind::Vnni { avx512 } => {
                p.check(4, out);
                // SAFETY: such a machine is made only where these instructions were detected; the slices were checked.
                unsafe { if avx512 { x86::bytes_avx512(p, out) } else { x86::bytes_avx(p, out) } }
            }
        }
    }

    /// [`Requantizer::apply`].
    pub fn requantize(self, r: &Requantizer, sums: &[f64], out: &mut [u16]) {
        match self.0 {
            Kind::Portable => r.apply(sums, out),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: such a machine is made only where AVX2 was detected.
            Kind::Avx2 | Kind::Vnni { .. } => unsafe { x86::requantize(r, sums, out) },
        }
    }

    /// [`InputQuantizer::apply`].
    pub fn quantize(self, q: &InputQuantizer, x: &[f32], out: &mut [u16]) {
        match self.0 {
            Kind::Portable => q.apply(x, out),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: such a machine is made only where AVX2 was detected.
            Kind::Avx2 | Kind::Vnni { .. } => unsafe { x86::quantize(q, x, out) },
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn avx2() -> Option<Machine> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn vnni() -> Option<Machine> {
    None
}

#[cfg(target_arch = "x86_64")]
fn avx2() -> Option<Machine> {
    is_x86_feature_detected!("avx2").then_some(Machine(Kind::Avx2))
}

#[cfg(target_arch = "x86_64")]
fn vnni() -> Option<Machine> {
    let avx512 = is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl");
    let any = is_x86_feature_detected!("avx2") && (avx512 || is_x86_feature_detected!("avxvnni"));
    any.then_some(Machine(Kind::Vnni { avx512 }))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::input::InputQuantizer;
    use super::super::portable::{LANES, Product};
    use super::super::requantizer::Requantizer;

    /// The same loop as [`Requantizer::apply`], compiled for AVX2.
    #[target_feature(enable = "avx2")]
    pub fn requantize(r: &Requantizer, sums: &[f64], out: &mut [u16]) {
        r.apply(sums, out);
    }

    /// The same loop as [`InputQuantizer::apply`], compiled for AVX2.
    #[target_feature(enable = "avx2")]
    pub fn quantize(q: &InputQuantizer, x: &[f32], out: &mut [u16]) {
        q.apply(x, out);
    }

    /// `keep` times eight sums at `out`, plus eight integers.
    ///
    /// # Safety
    /// Eight numbers can be read and written at `out`.
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn store(out: *mut f64, sums: __m256i, keep: f64) {
        let keep = _mm256_set1_pd(keep);
        let halves = [_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums)];
        for (i, half) in halves.into_iter().enumerate() {
            // SAFETY: by the contract; i is 0 or 1.
            unsafe {
                let out = out.add(4 * i);
                let kept = _mm256_mul_pd(_mm256_loadu_pd(out), keep);
                _mm256_storeu_pd(out, _mm256_add_pd(kept, _mm256_cvtepi32_pd(half)));
            }
        }
    }

    /// A function that multiplies groups of $group integers, $step being sums + group products: R rows and Q panels at once in `tile`, all of them in `$name`.
    macro_rules! kernel {
        ($name:ident, $tile:ident, $tiles:ident, $features:literal, $group:literal, $input:ty, $weight:ty, $step:expr) => {
            /// R rows and Q panels, whose sums stay in registers.
            ///
            /// # Safety
            /// The product was checked, and the rows and panels are inside it.
            #[target_feature(enable = $features)]
            #[inline]
            unsafe fn $tile<const R: usize, const Q: usize>(
                p: &Product<$input, $weight>,
                (row, panel): (usize, usize),
                out: *mut f64,
            ) {
                let mut sums = [[_mm256_setzero_si256(); Q]; R];
                // SAFETY: rows below p.rows, panels below p.panels and groups below p.groups are inside the checked slices; a group is 32 bits of inputs
                // and 32 bytes of weights.
                unsafe {
                    let inputs: [*const $input; R] =
                        std::array::from_fn(|r| p.inputs.as_ptr().add((row + r) * p.pitch));
                    let weights: [*const __m256i; Q] =
                        std::array::from_fn(|q| p.weights.as_ptr().add((panel + q) * p.groups * LANES * $group).cast());
                    for g in p.from..p.to {
                        let w: [__m256i; Q] = std::array::from_fn(|q| _mm256_loadu_si256(weights[q].add(g)));
                        for r in 0..R {
                            let x = _mm256_set1_epi32(inputs[r].add(g * $group).cast::<i32>().read_unaligned());
                            for q in 0..Q {
                                sums[r][q] = $step(sums[r][q], x, w[q]);
                            }
                        }
                    }
                    for r in 0..R {
                        for q in 0..Q {
                            store(out.add((row + r) * p.out_pitch + (panel + q) * LANES), sums[r][q], p.keep);
                        }
                    }
                }
            }

            /// All panels for R rows, up to Q at once.
            ///
            /// # Safety
            /// The product was checked, and the rows are inside it.
            #[target_feature(enable = $features)]
            unsafe fn $tiles<const R: usize, const Q: usize>(p: &Product<$input, $weight>, row: usize, out: *mut f64) {
                let mut panel = 0;
                // SAFETY: by the contract; panels stay below p.panels.
                unsafe {
                    while panel + Q <= p.panels {
                        $tile::<R, Q>(p, (row, panel), out);
                        panel += Q;
                    }
                    while panel < p.panels {
                        $tile::<R, 1>(p, (row, panel), out);
                        panel += 1;
                    }
                }
            }

            /// The product.
            ///
            /// # Safety
            /// The product was checked with `out`.
            #[target_feature(enable = $features)]
            pub unsafe fn $name(p: Product<$input, $weight>, out: &mut [f64]) {
                let (mut row, out) = (0, out.as_mut_ptr());
                // SAFETY: by the contract; rows stay below p.rows.
                unsafe {
                    while row + 4 <= p.rows {
                        $tiles::<4, 2>(&p, row, out);
                        row += 4;
                    }
                    while row < p.rows {
                        match p.panels {
                            1 => $tiles::<1, 1>(&p, row, out),
                            2 | 3 => $tiles::<1, 2>(&p, row, out),
                            4 | 5 => $tiles::<1, 4>(&p, row, out),
                            7 | 14 => $tiles::<1, 7>(&p, row, out),
                            _ => $tiles::<1, 6>(&p, row, out),
                        }
                        row += 1;
                    }
                }
            }
        };
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn add_pairs(sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
        _mm256_add_epi32(sums, _mm256_madd_epi16(x, w))
    }

    kernel!(words, words_tile, words_tiles, "avx2", 2, u16, i16, add_pairs);
    kernel!(bytes_avx, bytes_avx_tile, bytes_avx_tiles, "avx2,avxvnni", 4, u8, i8, _mm256_dpbusd_avx_epi32);
    kernel!(
        bytes_avx512,
        bytes_avx512_tile,
        bytes_avx512_tiles,
        "avx2,avx512vnni,avx512vl",
        4,
        u8,
        i8,
        _mm256_dpbusd_epi32
    );
}
