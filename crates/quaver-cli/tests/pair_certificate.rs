//! Certificates about two networks from end to end: what the program writes is accepted by the checker, and nothing else is.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use quaver::model::build::ModelBuilder;
use quaver::model::ir::{DType, Op, Tensor};
use quaver::model::onnx;
use quaver_check::{Given, check_all};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use records::{Walker, closed, digest, opened, readdressed};

mod records;

/// What two networks and their inputs are like.
#[derive(Clone, Copy, Debug)]
struct Form {
    /// Numbers of elements of the input and of each layer.
    sizes: [usize; 4],
    /// The largest weight.
    most: i8,
    /// Of every input element.
    radius: f64,
}

/// With few inputs, these are split, with many the functions.
const NARROW: Form = Form { sizes: [3, 6, 6, 2], most: 3, radius: 1.0 };
const WIDE: Form = Form { sizes: [20, 6, 6, 2], most: 1, radius: 0.25 };

/// Two networks of ReLUs with small weights, of which the second has some that are a little off.
struct Pair {
    form: Form,
    /// For each layer the weights by inputs and the biases, of both.
    layers: Vec<[(Vec<f32>, Vec<f32>); 2]>,
    files: [Vec<u8>; 2],
}

impl Pair {
    fn new(seed: u64, form: Form) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut layers = vec![];
        for size in form.sizes.windows(2) {
            let weights: Vec<f32> =
                (0..size[0] * size[1]).map(|_| rng.random_range(-form.most..=form.most).into()).collect();
            let bias: Vec<f32> = (0..size[1]).map(|_| rng.random_range(-2i8..=2).into()).collect();
            let off =
                |w: &f32| w + if rng.random_bool(0.3) { f32::from(rng.random_range(-4i8..=4)) / 64.0 } else { 0.0 };
            let other = weights.iter().map(off).collect();
            layers.push([(weights, bias.clone()), (other, bias)]);
        }
        let files = [0, 1].map(|k| file(&layers, form.sizes, k));
        Pair { form, layers, files }
    }

    /// Executes one of both in f64, which is exact here.
    fn run(&self, k: usize, x: &[f64]) -> Vec<f64> {
        let mut values = x.to_vec();
        for (depth, layer) in self.layers.iter().enumerate() {
            let (weights, bias) = &layer[k];
            let sum = |j: usize| {
                let products = values.iter().enumerate().map(|(i, x)| x * f64::from(weights[i * bias.len() + j]));
                f64::from(bias[j]) + products.sum::<f64>()
            };
            let is_last = depth + 1 == self.layers.len();
            values = (0..bias.len()).map(sum).map(|y| if is_last { y } else { y.max(0.0) }).collect();
        }
        values
    }

    /// The largest distance of an output of both that is seen.
    fn distance(&self) -> f64 {
        let mut rng = StdRng::seed_from_u64(7);
        let mut largest = 0.0f64;
        for _ in 0..20_000 {
            let part = self.form.radius / 8.0;
            let x: Vec<f64> = (0..self.form.sizes[0]).map(|_| f64::from(rng.random_range(-8i8..=8)) * part).collect();
            let [y, z] = [self.run(0, &x), self.run(1, &x)];
            y.iter().zip(&z).for_each(|(y, z)| largest = largest.max((z - y).abs()));
        }
        largest
    }

    fn given(&self, names: [&str; 2]) -> Vec<Given> {
        let file = |k: usize| Given { name: Some(names[k].into()), bytes: self.files[k].clone() };
        vec![file(0), file(1)]
    }
}

fn file(layers: &[[(Vec<f32>, Vec<f32>); 2]], sizes: [usize; 4], k: usize) -> Vec<u8> {
    let mut b = ModelBuilder::new("chain");
    let mut x = b.input("x", DType::F32, &[1, sizes[0]]).unwrap();
    for (depth, layer) in layers.iter().enumerate() {
        let (weights, bias) = &layer[k];
        let shape = [sizes[depth], sizes[depth + 1]];
        let w = b.constant(&format!("w{depth}"), Tensor::f32(&shape, weights.clone())).unwrap();
        let c = b.constant(&format!("b{depth}"), Tensor::f32(&shape[1..], bias.clone())).unwrap();
        x = b.node(Op::MatMul, &[x, w]).unwrap();
        x = b.node(Op::Add, &[x, c]).unwrap();
        if depth + 1 < layers.len() {
            x = b.node(Op::Relu, &[x]).unwrap();
        }
    }
    b.output(x);
    onnx::write(&b.finish().unwrap()).unwrap()
}

/// Can the outputs of both be that far apart?
fn query(form: Form, distance: f64) -> String {
    let Form { sizes, radius, .. } = form;
    let mut text = String::from("(vnnlib-version <2.0>)\n");
    let tensors =
        |n: &str| format!("(declare-input X{n} real [1,{}]) (declare-output Y{n} real [1,{}])", sizes[0], sizes[3]);
    text += &format!("(declare-network f {})\n(declare-network g (isomorphic-to f) {})\n", tensors("f"), tensors("g"));
    for i in 0..sizes[0] {
        text +=
            &format!("(assert (and (<= -{radius:?} Xf[0,{i}]) (<= Xg[0,{i}] {radius:?}) (== Xf[0,{i}] Xg[0,{i}])))\n");
    }
    let far = |i: usize| {
        let (f, g) = (format!("Yf[0,{i}]"), format!("Yg[0,{i}]"));
        format!("(>= {g} (+ {f} {distance:?})) (<= {g} (- {f} {distance:?}))")
    };
    text + &format!("(assert (or {}))\n", (0..sizes[3]).map(far).collect::<String>())
}

/// What the program says and writes.
struct Answer {
    word: String,
    certificate: Vec<u8>,
    /// How far from the query every input is, at least.
    bound: f64,
}

fn verify(name: &str, pair: &Pair, query: &str, more: &[&str]) -> Answer {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pair");
    fs::create_dir_all(&folder).unwrap();
    let path = |what: &str| folder.join(format!("{name}{what}"));
    fs::write(path(".vnnlib"), query).unwrap();
    let _ = fs::remove_file(path(".cert"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_quaver"));
    command
        .args(["verify", "--threads", "1", "--timeout", "20", "--certificate"])
        .args([path(".cert"), path(".vnnlib")]);
    for (k, n) in ["f", "g"].into_iter().enumerate() {
        fs::write(path(&format!(".{n}.onnx")), &pair.files[k]).unwrap();
        command.arg("--network").arg(format!("{n}={}", path(&format!(".{n}.onnx")).display()));
    }
    let output = command.args(more).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let word = String::from_utf8(output.stdout).unwrap().lines().next().unwrap().into();
    let bound = said.split("bound ").last().and_then(|b| b.trim().parse().ok()).unwrap_or(f64::NAN);
    Answer { word, certificate: fs::read(path(".cert")).unwrap_or_default(), bound }
}

/// Answers that were checked.
#[derive(Debug, Default)]
struct Checked {
    unsat: usize,
    sat: usize,
    other: usize,
    /// Records of each kind.
    kinds: [usize; 8],
}

impl Checked {
    /// Asks whether a pair can be that far apart, and has the answer checked; the proved bound.
    fn ask(&mut self, name: &str, pair: &Pair, distance: f64) -> f64 {
        let text = query(pair.form, distance);
        let answer = verify(name, pair, &text, &[]);
        let count = match &answer.word[..] {
            "unsat" => &mut self.unsat,
            "sat" => &mut self.sat,
            _ => {
                self.other += 1;
                return answer.bound;
            }
        };
        *count += 1;
        let proved = check_all(&pair.given(["f", "g"]), text.as_bytes(), &answer.certificate[..]);
        let proved = proved.unwrap_or_else(|e| panic!("{name}, {distance}: {}, {e}", answer.word));
        assert_eq!((proved.holds, proved.cases), (answer.word == "unsat", 4), "{name}, {distance}");
        let records = opened(&answer.certificate).1;
        Walker::new(&records).records.iter().for_each(|r| self.kinds[usize::from(r.1)] += 1);
        answer.bound
    }
}

#[test]
fn proofs_by_splits_of_the_input_are_accepted() {
    let mut checked = Checked::default();
    for seed in 0..12 {
        let pair = Pair::new(seed, NARROW);
        let distance = pair.distance();
        for share in [0.7, 1.3, 4.0] {
            checked.ask(&format!("narrow_{seed}"), &pair, share * distance);
        }
    }
    assert!(checked.unsat >= 15 && checked.sat >= 6 && checked.other == 0, "{checked:?}");
    assert!(checked.kinds[2] > 100 && checked.kinds[4] > 20 && checked.kinds[7] >= 6, "{checked:?}");
}

#[test]
fn proofs_by_splits_of_functions_are_accepted() {
    let mut checked = Checked::default();
    for seed in 0..10 {
        let (pair, name) = (Pair::new(seed, WIDE), format!("wide_{seed}"));
        let seen = pair.distance();
        // What linear bounds prove; less than that needs splits.
        let tight = 8.0 * seen - checked.ask(&name, &pair, 8.0 * seen);
        for distance in [0.97 * tight, 0.8 * tight, 0.7 * seen] {
            checked.ask(&name, &pair, distance);
        }
    }
    assert!(checked.unsat >= 20 && checked.sat >= 8, "{checked:?}");
    assert!(checked.kinds[5] > 50 && checked.kinds[6] > 10, "{checked:?}");
}

/// A pair, a distance that it does not reach, and the certificate of that.
fn proved(name: &str) -> (Pair, f64, Vec<u8>) {
    let pair = Pair::new(1, NARROW);
    let distance = 1.3 * pair.distance();
    let answer = verify(name, &pair, &query(NARROW, distance), &[]);
    assert_eq!(answer.word, "unsat");
    (pair, distance, answer.certificate)
}

#[test]
fn each_flaw_of_a_pair_is_refused() {
    let (pair, distance, certificate) = proved("flaws");
    let (text, names) = (query(NARROW, distance), ["f", "g"]);
    let (header, records) = opened(&certificate);
    let with = |models: &[Given], text: &str, certificate: &[u8]| {
        check_all(models, text.as_bytes(), certificate).map_or_else(|e| e, |_| "accepted".into())
    };
    let models = pair.given(names);
    assert_eq!(with(&models, &text, &certificate), "accepted");
    assert!(with(&pair.given(["g", "f"]), &text, &certificate).contains("for other models"));
    assert!(with(&Pair::new(2, NARROW).given(names), &text, &certificate).contains("for other models"));
    let twice = vec![models[0].clone(), Given { name: Some("g".into()), bytes: pair.files[0].clone() }];
    assert!(with(&twice, &text, &certificate).contains("for other models"));
    assert!(with(&models[..1], &text, &certificate).contains("network `g` has no model"));
    let unnamed: Vec<Given> = models.iter().map(|m| Given { name: None, ..m.clone() }).collect();
    assert!(with(&unnamed, &text, &certificate).contains("give NAME=MODEL"));
    assert!(
        with(&[&models[..], &models[..1]].concat(), &text, &certificate).contains("3 models are given for 2 networks")
    );
    assert!(with(&models, &query(NARROW, 0.9 * distance), &certificate).contains("another property"));
    // Without an equation, and with a wider box, even with a header that names the property.
    for changed in [
        text.replace("(== Xf[0,1] Xg[0,1])", "(<= Xf[0,1] Xg[0,1])"),
        text.replace("(<= Xg[0,0] 1.0)", "(<= Xg[0,0] 4.0)"),
    ] {
        let header = readdressed(&header, text.as_bytes(), changed.as_bytes());
        assert_ne!(with(&models, &changed, &closed(&header, &records)), "accepted");
    }
    // Other models, even with a header that names these.
    for seed in 2..6 {
        let other = Pair::new(seed, NARROW);
        let header = (0..2).fold(header.clone(), |h, k| readdressed(&h, &pair.files[k], &other.files[k]));
        assert!(String::from_utf8_lossy(&header).contains(&digest(&other.files[1])));
        assert!(
            with(&other.given(names), &text, &closed(&header, &records)).starts_with("record")
                || other.distance() < distance
        );
    }
    let walker = Walker::new(&records);
    let places: Vec<usize> = walker.records.iter().map(|r| r.0).chain([records.len()]).collect();
    // A record that is missing: never accepted, but for claims that were not needed.
    for k in 0..places.len() - 1 {
        let left = [&records[..places[k]], &records[places[k + 1]..]].concat();
        assert!(with(&models, &text, &closed(&header, &left)) != "accepted" || walker.records[k].1 == 6, "{k}");
    }
    // A place that is nudged: some half is then larger than what its walks prove.
    let nudged = |halve: usize| {
        let goals = usize::from(records[halve + 2]);
        let at = halve + 3 + goals + 1;
        let mut records = records.clone();
        let place = f64::from_le_bytes(records[at..at + 8].try_into().unwrap());
        records[at..at + 8].copy_from_slice(&(place + 0.3).to_le_bytes());
        with(&models, &text, &closed(&header, &records))
    };
    let halves: Vec<usize> = walker.of_kind(4).into_iter().filter(|h| records[h + 1] < 128).collect();
    assert!(!halves.is_empty() && halves.into_iter().any(|h| nudged(h) != "accepted"));
}

/// The proof of a true claim with some bytes changed, offered as a proof of a claim that is false by little.
#[test]
fn changed_bytes_prove_nothing_false_of_two_networks() {
    let (pair, distance, certificate) = proved("false");
    let (truth, falsehood) = (query(NARROW, distance), query(NARROW, pair.distance()));
    let (header, records) = opened(&certificate);
    let forged = readdressed(&header, truth.as_bytes(), falsehood.as_bytes());
    let models = pair.given(["f", "g"]);
    let mut rng = StdRng::seed_from_u64(5);
    for k in 0..1_000 {
        let mut mutated = records.clone();
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(0..mutated.len());
            mutated[at] = if rng.random() { rng.random() } else { mutated[at] ^ (1 << rng.random_range(0..8)) };
        }
        let accepted = check_all(&models, falsehood.as_bytes(), &closed(&forged, &mutated)[..]);
        assert!(accepted.is_err(), "{k} was accepted");
        // Whatever it is, it is no panic.
        let _ = check_all(&models, truth.as_bytes(), &closed(&header, &mutated)[..]);
    }
}

#[test]
fn certified_answers_about_two_networks_are_those_that_the_checker_accepts() {
    let checker = PathBuf::from(env!("CARGO_BIN_EXE_quaver")).with_file_name("quaver-check");
    if !checker.exists() {
        return println!("skipped: {} is not built", checker.display());
    }
    let pair = Pair::new(3, NARROW);
    let far = query(NARROW, 1.5 * pair.distance());
    assert_eq!(verify("certified", &pair, &far, &["--certified"]).word, "unsat");
    assert_eq!(verify("refused", &pair, &far, &["--certified", "--checker", "false"]).word, "unknown");
    assert_eq!(verify("refuted", &pair, &query(NARROW, 0.5 * pair.distance()), &["--certified"]).word, "sat");
}
