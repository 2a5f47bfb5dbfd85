//! Vector kernels against the portable ones, before they are used: a processor or an emulator that computes something else is not believed.

use super::portable::{self, LANES, Product};
use super::simd::Machine;

/// Numbers that look random, the same ones always.
struct Mixer(u64);

impl Mixer {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Some numbers, every third one of two extremes.
    fn numbers<T: Copy>(&mut self, n: usize, extremes: [T; 2], of: impl Fn(u64) -> T) -> Vec<T> {
        let mut number = || {
            let x = self.next();
            if x.is_multiple_of(3) { extremes[(x >> 40) as usize % 2] } else { of(x >> 20) }
        };
        (0..n).map(|_| number()).collect()
    }
}

/// Whether a machine's kernels give what the portable ones give, on all shapes of tiles, with random numbers and with the largest ones.
pub(super) fn agrees(machine: Machine) -> bool {
    let mut mixer = Mixer(1);
    let shapes = [(1, 1, 1), (1, 2, 5), (1, 4, 3), (1, 7, 9), (2, 9, 4), (4, 2, 33), (5, 3, 8), (9, 5, 2)];
    shapes.iter().all(|&(rows, panels, groups)| {
        let inputs = mixer.numbers(rows * groups * 2, [0, 32_767], |x| x as u16 & 0x7fff);
        let weights = mixer.numbers(panels * groups * LANES * 2, [i16::MIN, i16::MAX], |x| x as i16);
        let same_words =
            same(&inputs, &weights, (rows, panels, groups), 2, portable::words, |p, out| machine.words(p, out));
        let inputs = mixer.numbers(rows * groups * 4, [0, 255], |x| x as u8);
        let weights = mixer.numbers(panels * groups * LANES * 4, [i8::MIN, i8::MAX], |x| x as i8);
        same_words
            && same(&inputs, &weights, (rows, panels, groups), 4, portable::bytes, |p, out| machine.bytes(p, out))
    })
}

fn same<X, W>(
    inputs: &[X],
    weights: &[W],
    (rows, panels, groups): (usize, usize, usize),
    group: usize,
    first: impl Fn(Product<X, W>, &mut [f64]),
    second: impl Fn(Product<X, W>, &mut [f64]),
) -> bool {
    let out_pitch = panels * LANES;
    let mut outs = [vec![3.0; rows * out_pitch], vec![3.0; rows * out_pitch]];
    for (from, to, keep) in [(0, groups, 0.0), (groups / 2, groups, 1.0), (0, groups.div_ceil(2), 256.0)] {
        let p = || Product { inputs, pitch: groups * group, rows, weights, panels, groups, from, to, out_pitch, keep };
        first(p(), &mut outs[0]);
        second(p(), &mut outs[1]);
    }
    outs[0] == outs[1]
}

#[cfg(test)]
mod tests {
    use super::super::Isa;
    use super::*;

    #[test]
    fn machines_that_are_here_agree() {
        for isa in [Isa::Portable, Isa::Avx2, Isa::Vnni] {
            let machine = Machine::detect(isa);
            println!("{isa:?} runs as {:?}", machine.isa());
            assert!(agrees(machine));
        }
    }

    #[test]
    fn a_wrong_kernel_is_found_out() {
        let (inputs, weights) = (vec![255u8; 4], vec![127i8; LANES * 4]);
        let saturating = |p: Product<u8, i8>, out: &mut [f64]| {
            portable::bytes(p, out);
            out.iter_mut().for_each(|x| *x = x.min(65_534.0));
        };
        assert!(same(&inputs, &weights, (1, 1, 1), 4, portable::bytes, portable::bytes));
        assert!(!same(&inputs, &weights, (1, 1, 1), 4, portable::bytes, saturating));
    }
}
