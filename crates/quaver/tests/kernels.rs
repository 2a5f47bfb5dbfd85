//! Integer kernels against the exact execution of the net that they were made from, with tolerance zero.

mod common;
#[path = "common/random_nets.rs"]
mod random_nets;

use common::models;
use proptest::prelude::*;
use quaver::guard::kernels::float::{FloatNet, FloatScratch};
use quaver::guard::kernels::{Compiled, Isa, Scratch};
use quaver::model::ir::Model;
use quaver::model::lower::{Lowered, lower};
use quaver::model::profile::{Float32, OrtFused, Real};
use quaver::model::{ReadOptions, read};
use quaver::net::{
    Affine, Conv, Cut, Dense, From, Geometry, Grid, LinearMap, Max, Move, Net, Node, NodeId, Op, Piecewise, Pointwise,
    Quantization, Rounding, ScalarFn, Spread, Step, Weights, execute, execute_all, execute_exact,
};
use quaver::num::{Dyadic, Ratio};
use quaver::property::Region;
use quaver::quantize::activations::{ActivationScheme, proved};
use quaver::quantize::qdq::to_qdq;
use quaver::quantize::{BiasRule, LayerScheme, QuantizeError, Quantizer, WeightRule};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A random chain as profile `real` makes it of a QDQ file.
struct Maker {
    rng: StdRng,
    net: Net,
    bits: u32,
    /// Scales are powers of two, so that numbers fall between two levels often.
    ties: bool,
    /// A tensor in the middle: channels, height, width.
    shape: [usize; 3],
    last: NodeId,
    /// Scale and zero point of the last integers.
    scale: f64,
    zero: i64,
}

impl Maker {
    fn new(seed: u64, bits: u32, shape: [usize; 3]) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut net, ties) = (Net::new(), rng.random_bool(0.5));
        let range = (f64::NEG_INFINITY, f64::INFINITY);
        let node = Node {
            name: "x".into(),
            shape: shape.into(),
            op: Op::Input(0),
            grid: Grid::Real,
            range,
            quantization: None,
        };
        let last = net.add(node);
        Maker { rng, net, bits, ties, shape, last, scale: 1.0, zero: 0 }
    }

    fn add(&mut self, op: Op, quantization: Option<Quantization>) {
        let grid = if self.net.makes_integers(&op) { Grid::Integer } else { Grid::Real };
        let name = format!("v{}", self.net.nodes().len());
        let range = self.net.range_of(&op);
        self.last = self.net.add(Node { name, shape: self.shape.into(), op, grid, range, quantization });
    }

    fn function(&mut self, f: ScalarFn) {
        let op = Op::Pointwise(Pointwise { input: self.last, functions: Spread::all(f) });
        self.add(op, None);
    }

    fn positive(&mut self, near: f64) -> f64 {
        if self.ties {
            2f64.powi(near.log2().round() as i32)
        } else {
            f64::from((near * self.rng.random_range(0.6..1.7)) as f32)
        }
    }

    /// [Clip,] QuantizeLinear and DequantizeLinear of numbers about as large as `reach`.
    fn quantize(&mut self, reach: f64) {
        let levels = (1i64 << self.bits) - 1;
        let is_signed = self.rng.random_bool(0.3);
        let (lo, hi) = if is_signed { (-(levels / 2) - 1, levels / 2) } else { (0, levels) };
        let zero = if self.rng.random_bool(0.5) { 0 } else { self.rng.random_range(lo..=hi) };
        let scale = self.positive(reach / levels as f64);
        if self.rng.random_bool(0.5) {
            let ends = [lo - zero, hi - zero].map(|q| f64::from((q as f64 * scale) as f32));
            self.function(ScalarFn::Piecewise(Piecewise::clip(ends[0], ends[1])));
        }
        let cut = |q: i64| Cut { at: ((q - zero) as f64 - 0.5) * scale, strict: (q - zero) % 2 != 0 };
        let step = Step::new((lo + 1..=hi).map(cut).collect(), (lo..=hi).map(|q| q as f64).collect());
        let functions = Spread::all(ScalarFn::Step(step));
        let quantization = Quantization { scale: Spread::all(scale), zero_point: Spread::all(zero) };
        self.add(Op::Pointwise(Pointwise { input: self.last, functions }), Some(quantization));
        let map = LinearMap::Diagonal { len: self.shape.iter().product(), scale: Spread::all(scale) };
        self.affine(map, Spread::all(-scale * zero as f64));
        (self.scale, self.zero) = (scale, zero);
    }

    fn affine(&mut self, map: LinearMap, bias: Spread<f64>) {
        let affine = Affine { terms: vec![(self.last, map)], bias, rounding: Rounding::Exact };
        self.add(Op::Affine(affine), None);
    }

    /// Rows of weights on one scale, or on one for each row.
    fn weights(&mut self, rows: usize, depth: usize, per_channel: bool) -> Vec<f64> {
        let bits = self.rng.random_range(2..=self.bits.min(15));
        let most = (1i64 << (bits - 1)) - 1;
        let shared = self.positive(1.0 / most as f64);
        let mut weights = vec![];
        for _ in 0..rows {
            let scale = if per_channel { self.positive(1.0 / most as f64) } else { shared };
            let saturates = self.rng.random_bool(0.2);
            let mut weight = || if saturates { most } else { self.rng.random_range(-most..=most) };
            weights.extend((0..depth).map(|_| weight() as f64 * scale));
        }
        weights
    }

    fn biases(&mut self, n: usize) -> Vec<f64> {
        let unit = if self.rng.random_bool(0.5) { self.scale / 4.0 } else { 0.0 };
        let exactly = |rng: &mut StdRng| f64::from(rng.random_range(-9i32..9)) * unit;
        let bias = |rng: &mut StdRng| if unit > 0.0 { exactly(rng) } else { f64::from(rng.random_range(-1.0f32..1.0)) };
        (0..n).map(|_| bias(&mut self.rng)).collect()
    }

    fn pad(&mut self) {
        let [c, h, w] = self.shape;
        let place = |i: usize| {
            let (c, y, x) = (i / ((h + 2) * (w + 2)), i / (w + 2) % (h + 2), i % (w + 2));
            let inside = (1..=h).contains(&y) && (1..=w).contains(&x);
            let index = || ((c * h + y - 1) * w + x - 1) as u32;
            if inside { From::Element { source: 0, index: index() } } else { From::Constant(0.0) }
        };
        self.shape = [c, h + 2, w + 2];
        let from = (0..self.shape.iter().product()).map(place).collect();
        self.add(Op::Move(Move { sources: vec![self.last], from }), None);
    }

    fn conv(&mut self) {
        let padded = self.shape[1] < 3 || self.shape[2] < 3 || self.rng.random_bool(0.5);
        if padded {
            self.pad();
        }
        let [channels, h, w] = self.shape;
        let groups = if self.rng.random_bool(0.3) { channels } else { 1 };
        let (kernel, stride) = ([self.rng.random_range(1..=3), 3], [self.rng.random_range(1..=2), 1]);
        let out_size = [(h - kernel[0]) / stride[0] + 1, (w - kernel[1]) / stride[1] + 1];
        let out_channels = groups * self.rng.random_range(1..=9usize.div_ceil(groups));
        let (in_channels, in_size, dilation) = (channels, [h, w], [1, 1]);
        let geometry = Geometry { groups, in_channels, in_size, out_channels, out_size, kernel, stride, dilation };
        let weights = self.weights(out_channels, channels / groups * kernel[0] * kernel[1], true);
        let bias = Spread::axis(self.biases(out_channels), out_size[0] * out_size[1]);
        self.shape = [out_channels, out_size[0], out_size[1]];
        self.affine(LinearMap::Conv(Conv { geometry, weights: Weights::new(weights) }), bias);
    }

    fn dense(&mut self, n_out: usize, per_channel: bool) {
        let n_in = self.shape.iter().product();
        let weights = Weights::new(self.weights(n_out, n_in, per_channel));
        self.shape = [n_out, 1, 1];
        let bias = Spread::each(self.biases(n_out));
        self.affine(LinearMap::Dense(Dense { outer: 1, n_in, n_out, weights }), bias);
    }

    fn pool(&mut self) {
        let [c, h, w] = self.shape;
        let (starts, members) = ((0..=c * h).map(|i| (i * w) as u32).collect(), (0..(c * h * w) as u32).collect());
        self.shape = [c, h, 1];
        self.add(Op::Max(Max { input: self.last, starts, members }), None);
    }

    fn transpose(&mut self) {
        let [c, h, w] = self.shape;
        let from = |i: usize| From::Element { source: 0, index: ((i % c * h + i / c % h) * w + i / (c * h)) as u32 };
        let from = (0..c * h * w).map(from).collect();
        self.shape = [w, h, c];
        self.add(Op::Move(Move { sources: vec![self.last], from }), None);
    }

    fn inner_layer(&mut self, convolutional: bool) {
        if convolutional {
            self.conv()
        } else {
            let n = self.rng.random_range(1..12);
            self.dense(n, true)
        }
        if self.rng.random_bool(0.7) {
            self.function(ScalarFn::Piecewise(Piecewise::relu()));
        }
        let reach = self.rng.random_range(0.5..4.0);
        self.quantize(reach);
        match self.rng.random_range(0..5) {
            0 => self.pool(),
            1 => self.transpose(),
            _ => {}
        }
    }

    fn finish(mut self) -> (Lowered, StdRng) {
        self.net.set_outputs(vec![self.last]);
        (random_nets::lowered(self.net), self.rng)
    }
}

/// The thresholds and levels of the input quantizer, their neighbours, and numbers around.
fn inputs(net: &Net, rows: usize, rng: &mut StdRng) -> Vec<f32> {
    let is_step = |n: &&Node| matches!(&n.op, Op::Pointwise(p) if matches!(p.functions.data[0], ScalarFn::Step(_)));
    let first = net.nodes().iter().find(is_step).expect("a quantizer");
    let Op::Pointwise(p) = &first.op else { unreachable!("a step") };
    let ScalarFn::Step(step) = &p.functions.data[0] else { unreachable!("a step") };
    let cuts = step.cuts();
    let number = |rng: &mut StdRng| {
        let at = cuts[rng.random_range(0..cuts.len())].at as f32;
        match rng.random_range(0..6) {
            0 => at,
            1 => at.next_up(),
            2 => at.next_down(),
            3 => at * 100.0,
            4 => {
                if rng.random_bool(0.5) {
                    f32::MAX
                } else {
                    f32::MIN
                }
            }
            _ => at + rng.random_range(-1.0f32..1.0) * (cuts[cuts.len() - 1].at - cuts[0].at) as f32 * 0.1,
        }
    };
    (0..rows * net.node(net.inputs()[0]).len()).map(|_| number(rng)).collect()
}

fn exact(x: f64) -> Dyadic {
    Dyadic::from_f64(x).expect("a finite number")
}

fn exact_outputs(net: &Net, x: &[f32]) -> Vec<Dyadic> {
    let x = vec![x.iter().map(|&x| exact(x.into())).collect()];
    execute_exact(net, &x).swap_remove(net.outputs()[0].0)
}

/// The scores of a batch at all sizes of batches and on all machines; each is what the exact outputs say.
fn check_exactly(lowered: &Lowered, x: &[f32]) -> (Compiled, Vec<i64>) {
    let made: Vec<Compiled> =
        Isa::available().iter().map(|&isa| Compiled::new(lowered, isa).expect("a chain")).collect();
    let (inputs, classes) = (made[0].input_len(), made[0].classes());
    let scores = same_everywhere(&made, x);
    let view = made[0].scores();
    for (x, scores) in x.chunks(inputs).zip(scores.chunks(classes)) {
        let outputs = exact_outputs(&lowered.net, x);
        for (k, output) in outputs.iter().enumerate() {
            let said = &(view.unit() * &Dyadic::from_int(scores[k])) + &view.offsets()[k];
            let said = if view.rounding().signum() == 0 { said } else { exact(said.to_f32().into()) };
            assert_eq!(said, *output, "class {k} for {x:?}");
        }
        let first = (0..classes).rev().max_by(|&a, &b| outputs[a].cmp(&outputs[b])).expect("classes");
        assert_eq!(view.argmax(scores), first);
    }
    (Compiled::new(lowered, Isa::best()).expect("a chain"), scores)
}

/// Scores that do not depend on the machine or on how rows are divided.
fn same_everywhere(made: &[Compiled], x: &[f32]) -> Vec<i64> {
    let (mut scratch, mut scores) = (Scratch::new(), vec![]);
    made[0].run(x, &mut scratch, &mut scores);
    for made in made {
        for batch in [1, 3, 64, usize::MAX / made.input_len()] {
            let mut again = vec![];
            x.chunks(batch * made.input_len()).for_each(|x| made.run(x, &mut scratch, &mut again));
            assert_eq!(again, scores, "{:?}, batches of {batch}", made.isa());
        }
    }
    scores
}

fn random_chain(seed: u64, bits: u32) -> (Lowered, StdRng) {
    let mut chooser = StdRng::seed_from_u64(seed ^ 0x5eed);
    let convolutional = chooser.random_bool(0.5);
    let shape = if convolutional { [chooser.random_range(1..4), 4, 5] } else { [chooser.random_range(1..40), 1, 1] };
    let mut maker = Maker::new(seed, bits, shape);
    if chooser.random_bool(0.2) {
        maker.transpose();
    }
    maker.quantize(2.0);
    for _ in 0..chooser.random_range(0..3) {
        maker.inner_layer(convolutional);
    }
    let classes = chooser.random_range(1..11);
    maker.dense(classes, false);
    if chooser.random_bool(0.2) {
        maker.quantize(3.0);
    }
    maker.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn random_chains_of_few_bits_are_their_nets(seed in any::<u64>(), bits in prop::sample::select(vec![2u32, 4, 8])) {
        let (lowered, mut rng) = random_chain(seed, bits);
        let x = inputs(&lowered.net, 9, &mut rng);
        check_exactly(&lowered, &x);
    }

    #[test]
    fn random_chains_of_twelve_bits_are_their_nets(seed in any::<u64>()) {
        let (lowered, mut rng) = random_chain(seed, 12);
        let x = inputs(&lowered.net, 9, &mut rng);
        check_exactly(&lowered, &x);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn random_chains_of_sixteen_bits_are_their_nets(seed in any::<u64>()) {
        let (lowered, mut rng) = random_chain(seed, 16);
        let x = inputs(&lowered.net, 7, &mut rng);
        check_exactly(&lowered, &x);
    }
}

/// A quantized file of an example model.
struct File {
    bits: u8,
    activations: u8,
    symmetric: bool,
    per_channel: bool,
    outputs: bool,
    biases: BiasRule,
}

impl File {
    fn real(bits: u8, symmetric: bool) -> File {
        File { bits, activations: bits, symmetric, per_channel: false, outputs: false, biases: BiasRule::Float }
    }

    fn model(&self, name: &str) -> Result<Model, QuantizeError> {
        let model = read(&models().join(name), &ReadOptions::default()).expect("an example model");
        let quantizer = Quantizer::new(&model).expect("layers");
        let File { bits, activations: wide, symmetric, per_channel, outputs, biases } = *self;
        let scheme = LayerScheme { bits, rule: WeightRule::Symmetric, per_channel, biases };
        let quantized = quantizer.at(&vec![scheme; quantizer.layers().len()]).expect("a quantized network");
        let activations = ActivationScheme { bits: wide, symmetric, outputs, input_step: None };
        let inputs = model.value(model.inputs[0]).shape.iter().product();
        let unit = Region { lo: vec![0.0; inputs], hi: vec![1.0; inputs] };
        let ranges = proved(&model, outputs, &unit).expect("ranges");
        to_qdq(&quantizer, &quantized, Some((&activations, &ranges)))
    }

    fn lowered(&self, name: &str) -> Lowered {
        lower(&self.model(name).expect("a file"), &Real).expect("a net")
    }
}

fn rows(name: &str) -> Vec<f32> {
    npyz::NpyFile::new(&std::fs::read(models().join(name)).expect("rows")[..])
        .expect("an npy file")
        .into_vec::<f32>()
        .expect("float32")
}

const MODELS: [(&str, &str, usize); 3] = [
    ("iris_float.onnx", "iris_x.npy", 4),
    ("digits_mlp_float.onnx", "digits_x.npy", 64),
    ("digits_conv_float.onnx", "digits_x.npy", 64),
];

#[test]
fn example_models_run_in_integers_of_any_width() {
    for (name, x, len) in MODELS {
        let x = &rows(x)[..12 * len];
        for bits in [4, 8, 12, 16] {
            for symmetric in [false, true] {
                let lowered = File::real(bits, symmetric).lowered(name);
                let (made, _) = check_exactly(&lowered, x);
                assert_eq!((made.effective_bits(), made.scores().rounding().signum()), (Some(bits), 0), "{name}");
                let all = lowered.net.multiplications() as u64;
                assert!((1..=all).contains(&made.multiplications()), "{name}");
            }
        }
    }
}

#[test]
fn integer_kernels_of_the_runtime_are_matched() {
    let (profile, mut checked) = (OrtFused { any_x86: false }, 0);
    for (name, x, len) in MODELS {
        let x = &rows(x)[..12 * len];
        for (symmetric, per_channel, outputs) in
            [(false, true, true), (true, false, true), (false, false, false), (true, true, true)]
        {
            let biases = BiasRule::Accumulator;
            let file = File { bits: 8, activations: 8, symmetric, per_channel, outputs, biases };
            // Some channel's weights are so small that its bias has no int32 on their scale.
            let Ok(model) = file.model(name) else { continue };
            let (made, _) = check_exactly(&lower(&model, &profile).expect("a net"), x);
            assert_eq!(made.scores().rounding().signum(), 1);
            checked += 1;
        }
    }
    assert!(checked >= 9, "{checked} files");
    for name in ["digits_mlp_qdq", "digits_mlp_qop", "digits_conv_qdq", "digits_mlp_int", "iris_qdq"] {
        let model = read(&models().join(name).with_extension("onnx"), &ReadOptions::default()).expect("a model");
        let lowered = lower(&model, &profile).expect("a net");
        let is_integer = lowered.net.node(lowered.net.inputs()[0]).grid == Grid::Integer;
        let x = if name.starts_with("iris") { rows("iris_x.npy") } else { rows("digits_x.npy") };
        let x: Vec<f32> = x.iter().take(640).map(|x| if is_integer { (x * 255.0).round() } else { *x }).collect();
        check_exactly(&lowered, &x);
    }
}

#[test]
fn the_quantized_input_is_the_nets() {
    let lowered = File::real(12, false).lowered("digits_mlp_float.onnx");
    let x = &rows("digits_x.npy")[..128];
    let made = Compiled::new(&lowered, Isa::best()).expect("a chain");
    let mut stored = vec![];
    made.quantized_input(x, &mut stored);
    let node = lowered.net.ids().find(|&id| lowered.net.node(id).grid == Grid::Integer).expect("integers");
    let all = execute_all(&lowered.net, &[x.iter().map(|&x| x.into()).collect()], 2);
    let found: Vec<f64> = stored.iter().map(|&q| (i64::from(q) + made.input_levels().0) as f64).collect();
    assert_eq!(found, all.value(node).center);
}

fn ratio(x: &Dyadic) -> Ratio {
    Ratio::from_dyadic(x)
}

/// Whether x > y.
fn above(x: &Ratio, y: &Ratio) -> bool {
    y.minus(x).is_negative()
}

#[test]
fn differences_of_scores_are_compared_exactly() {
    for seed in 0..30 {
        let (lowered, _) = random_chain(seed, [4, 8, 12][seed as usize % 3]);
        let made = Compiled::new(&lowered, Isa::Portable).expect("a chain");
        let view = made.scores();
        let difference = |c: usize, k: usize, n: i64| {
            ratio(&(&(&(view.unit() * &Dyadic::from_int(n)) + &view.offsets()[c]) - &view.offsets()[k]))
        };
        for (c, k) in (0..made.classes()).flat_map(|c| (0..made.classes()).map(move |k| (c, k))) {
            let zero = ratio(&Dyadic::zero());
            let first = |n: i64| {
                let d = difference(c, k, n);
                above(&d, &zero) || d.is_zero() && c < k
            };
            let least = view.beats(c, k);
            assert!(first(least) && !first(least - 1), "classes {c} and {k}");
            let exactly = difference(c, k, 17).approx();
            for t in [0.0, 0.1, -0.3, 1e-9, exactly, exactly.next_up(), exactly.next_down()] {
                let n = view.at_least_above(c, k, t);
                let t = Ratio::from_f64(t).expect("finite");
                assert!(above(&difference(c, k, n), &t) && !above(&difference(c, k, n - 1), &t), "{c} {k} {t}");
            }
            assert_eq!(view.at_least_above(c, k, f64::INFINITY), i64::MAX);
        }
    }
}

#[test]
fn differences_of_rounded_outputs_are_on_the_safe_side() {
    let model = read(&models().join("digits_mlp_qdq.onnx"), &ReadOptions::default()).expect("a model");
    let lowered = lower(&model, &OrtFused { any_x86: false }).expect("a net");
    let made = Compiled::new(&lowered, Isa::best()).expect("a chain");
    let (view, classes) = (made.scores(), made.classes());
    let output = |k: usize, score: i64| (&(view.unit() * &Dyadic::from_int(score)) + &view.offsets()[k]).to_f32();
    for t in [0.0, 0.5, f64::from(output(0, 3)), -1.25] {
        let n = view.at_least_above(0, 1, t);
        // Scores are at most 255 apart.
        for (a, b) in (-140..=120).flat_map(|a: i64| (-140..=120).map(move |b| (a, b))).filter(|(a, b)| a - b >= n) {
            assert!(f64::from(output(0, a)) - f64::from(output(1, b)) > t);
        }
    }
    assert_eq!(classes, 10);
}

#[test]
fn what_has_no_integer_kernels_is_refused() {
    let refusal = |lowered: &Lowered| Compiled::new(lowered, Isa::best()).err().expect("a refusal").to_string();
    let float = read(&models().join("iris_float.onnx"), &ReadOptions::default()).expect("a model");
    let text = refusal(&lower(&float, &Real).expect("a net"));
    assert!(text.contains("its numbers are not integers") && text.contains("--activations"), "{text}");
    let model = File::real(12, true).model("iris_float.onnx").expect("a file");
    let text = refusal(&lower(&model, &OrtFused { any_x86: false }).expect("a net"));
    assert!(text.contains("rounds here to float32") && text.contains("--profile real"), "{text}");
    let per_channel = File { per_channel: true, ..File::real(12, true) };
    let text = refusal(&per_channel.lowered("iris_float.onnx"));
    assert!(text.contains("classes have weights on different scales") && text.contains("--per-channel"), "{text}");
    let wide = File { bits: 20, activations: 16, ..File::real(16, true) };
    let text = refusal(&wide.lowered("iris_float.onnx"));
    assert!(text.contains("within 16 bits"), "{text}");
}

#[test]
fn float_networks_run_within_their_enclosures() {
    for (name, x, len) in MODELS {
        let model = read(&models().join(name), &ReadOptions::default()).expect("an example model");
        let lowered = lower(&model, &Float32).expect("a net");
        let made = FloatNet::new(&lowered).expect("a float network");
        let x: Vec<f32> = rows(x).iter().cycle().take(70 * len).copied().collect();
        let all = &execute(&lowered.net, &[x.iter().map(|&x| x.into()).collect()], 70)[0];
        let (whole, mut scratch) = (made.run(&x), FloatScratch::new());
        for batch in [1, 3, 64, 70] {
            let mut out = vec![];
            x.chunks(batch * len).for_each(|x| made.append(x, &mut scratch, &mut out));
            // Dense layers add in one order, whatever the batch.
            assert!(name.contains("conv") || out == whole);
            assert_eq!(out.len(), 70 * made.output_len());
            for (i, y) in out.iter().enumerate() {
                assert!(all.lo(i) <= f64::from(*y) && f64::from(*y) <= all.hi(i), "{name}: output {i}");
            }
        }
    }
}
