//! Exported questions as other tools read them: C programs compiled and executed, formulas decided by Z3. Both are compared with exact execution and
//! enumeration. Tests say so where there is no C compiler, or no Z3 beside the Python that `QUAVER_TEST_PYTHON` names (package z3-solver).

#[path = "common/mod.rs"]
mod common;
#[path = "common/random_nets.rs"]
mod random_nets;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{array, models};
use quaver::export::{Claim, InputForm, Network, Question, as_doubles, write_c, write_smtlib};
use quaver::model::ir::DType;
use quaver::model::lower::{Lowered, lower};
use quaver::model::{ReadOptions, profile, read};
use quaver::net::{Grid, Net, Op, Rounding, execute, execute_exact};
use quaver::num::float32;
use quaver::property::{Region, ball};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use random_nets::{Kind, enumerate, exact, lowered, random_net, random_region, with_weights};

fn folder() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("export");
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn has_compiler() -> bool {
    let found = Command::new("cc").arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        println!("skipped: there is no C compiler `cc`");
    }
    found
}

/// Compiles a program, all warnings being errors.
fn compile(name: &str, text: &str, more: &[&str]) -> PathBuf {
    let (source, program) = (folder().join(name).with_extension("c"), folder().join(name));
    fs::write(&source, text).expect("a written file");
    let flags = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-o"];
    let output = Command::new("cc").args(flags).arg(&program).arg(&source).args(more).output().expect("a compiler");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    program
}

/// What a program prints for rows of inputs.
fn feed(program: &Path, rows: &[Vec<f64>]) -> String {
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a program");
    let number = |x: &f64| if x.fract() == 0.0 && x.abs() < 1e15 { format!("{}", *x as i64) } else { format!("{x:?}") };
    let text: String = rows.iter().map(|r| r.iter().map(number).collect::<Vec<_>>().join(" ") + "\n").collect();
    let mut stdin = child.stdin.take().expect("a pipe");
    // The program reads while it writes: another thread feeds it.
    let feeding = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("an end");
    feeding.join().expect("a thread").expect("a reader");
    assert!(output.status.success(), "{}", program.display());
    String::from_utf8(output.stdout).expect("text")
}

/// What a program says about one row.
struct Said {
    a: Vec<f64>,
    b: Vec<f64>,
    inside: bool,
    holds: bool,
}

fn said(program: &Path, rows: &[Vec<f64>]) -> Vec<Said> {
    let text = feed(program, rows);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4 * rows.len());
    let numbers = |line: &str, letter: &str| -> Vec<f64> {
        line.strip_prefix(letter)
            .expect("its letter")
            .split_whitespace()
            .map(|w| w.parse().expect("a number"))
            .collect()
    };
    let of = |l: &[&str]| Said {
        a: numbers(l[0], "a"),
        b: numbers(l[1], "b"),
        inside: l[2] == "assumption holds",
        holds: l[3] == "assertion holds",
    };
    lines.chunks(4).map(of).collect()
}

fn exact_output(net: &Net, x: &[f64]) -> Vec<f64> {
    let values = execute_exact(net, &[x.iter().map(|&x| exact(x)).collect()]);
    values[net.outputs()[0].0].iter().map(|v| v.to_f64()).collect()
}

fn claim(k: u64, epsilon: &str) -> Claim {
    match k % 3 {
        0 => Claim::Top1,
        1 => Claim::Epsilon(epsilon.parse().expect("a number")),
        _ => Claim::Strict,
    }
}

fn of_file(path: &Path, profile: Option<&str>) -> Lowered {
    let model = read(path, &ReadOptions::default()).expect("a readable model");
    let profile = profile.map_or_else(|| profile::default_for(&model), |p| profile::parse(p).expect("a profile"));
    lower(&model, &*profile).expect("a model with a meaning")
}

fn network<'a>(name: &'a str, lowered: &'a Lowered) -> Network<'a> {
    Network { name, lowered }
}

/// A net for float32 inputs.
fn for_floats(net: Net) -> Lowered {
    Lowered { input_types: vec![DType::F32], output_types: vec![DType::F32], ..lowered(net) }
}

/// Checks an exact program against exact execution: outputs bit for bit, box and claim.
fn check_exact(name: &str, question: &Question<'_>, nets: [&Net; 2], region: &Region, rows: &[Vec<f64>]) -> [usize; 2] {
    let file = write_c(question).expect("a program");
    assert!(file.exact, "{name}");
    let mut counts = [0, 0];
    for (row, said) in rows.iter().zip(said(&compile(name, &file.text, &[]), rows)) {
        assert_eq!(said.a, exact_output(nets[0], row), "{name}: {row:?}");
        assert_eq!(said.b, exact_output(nets[1], row), "{name}: {row:?}");
        assert_eq!(said.inside, region.contains(row), "{name}: {row:?}");
        assert_eq!(said.holds, question.holds_at(row), "{name}: {row:?}");
        counts[usize::from(said.holds)] += 1;
    }
    counts
}

#[test]
fn c_of_random_integer_nets_is_exact_execution() {
    if !has_compiler() {
        return;
    }
    let mut counts = [0, 0];
    for seed in 0..40 {
        let kind = Kind { dequantized: seed % 4 == 3, ..Kind::new(4, 3) };
        let nets = [random_net(seed, &kind), random_net(seed + 1000, &kind)];
        let pair = nets.clone().map(lowered);
        let mut rng = StdRng::seed_from_u64(seed);
        let region = random_region(4, true, &mut rng);
        let row = |rng: &mut StdRng| (0..4).map(|_| f64::from(rng.random_range(-8i32..=8))).collect::<Vec<f64>>();
        let mut rows: Vec<Vec<f64>> = (0..40).map(|_| row(&mut rng)).collect();
        rows.extend(enumerate(&region).into_iter().take(40));
        let claim = claim(seed, "12.3");
        let question = Question::of_pair(network("a", &pair[0]), network("b", &pair[1]), region.clone(), claim);
        let found = check_exact(
            &format!("random_{seed}"),
            &question.expect("a question"),
            [&nets[0], &nets[1]],
            &region,
            &rows,
        );
        counts = [counts[0] + found[0], counts[1] + found[1]];
    }
    println!("{} claims fail, {} hold", counts[0], counts[1]);
    assert!(counts[0] > 300 && counts[1] > 300, "{counts:?}");
}

/// The files of the repository whose nets are integers between input and output, and their golden inputs, which hit the rounding's ties.
#[test]
fn c_of_integer_models_is_exact_execution() {
    if !has_compiler() {
        return;
    }
    let cases = [
        ("digits_mlp_qdq.onnx", None, 60),
        ("digits_mlp_qop.onnx", None, 60),
        ("digits_mlp_int.onnx", None, 60),
        ("digits_conv_qdq.onnx", None, 60),
        ("iris_qdq.onnx", None, 100),
        ("digits_mlp_float.onnx", Some("fixed-point(8,6)"), 60),
        ("kws_ref_model.tflite", Some("tflite-reference"), 2),
    ];
    for (k, (name, profile, count)) in (0..).zip(cases) {
        let net = of_file(&models().join(name), profile);
        let (stem, n) = (name.split_once('.').expect("an ending").0, net.net.node(net.net.inputs()[0]).len());
        let (_, x) = array(&models().join("golden").join(format!("{stem}.npz")), "X");
        let rows: Vec<Vec<f64>> = x.chunks(n).rev().take(count).map(<[f64]>::to_vec).collect();
        let region = ball(&net, &rows[0], &"1/32".parse().expect("a number"), None).expect("a box");
        // The output at the first row, for every row.
        let question = Question::of_one(network(name, &net), rows[0].clone(), region.clone(), claim(k, "0.7"))
            .expect("a question");
        let file = write_c(&question).expect("a program");
        assert!(file.exact, "{name}");
        let center = exact_output(&net.net, &rows[0]);
        for (row, said) in rows.iter().zip(said(&compile(&format!("model_{stem}"), &file.text, &[]), &rows)) {
            assert_eq!((said.a, &said.b), (exact_output(&net.net, row), &center), "{name}");
            assert_eq!((said.inside, said.holds), (region.contains(row), question.holds_at(row)), "{name}");
        }
    }
}

/// Sums in double: within the slack that binary64 needs, and for the float32 profile one of the executions that it allows.
#[test]
fn c_of_float_models_is_within_the_enclosure() {
    if !has_compiler() {
        return;
    }
    for (name, profile) in [
        ("digits_mlp_float", "float32"),
        ("digits_mlp_float", "real"),
        ("digits_conv_float", "float32"),
        ("digits_conv_float", "real"),
        ("iris_float", "float32"),
        ("iris_qdq", "real"),
    ] {
        let net = of_file(&models().join(name).with_extension("onnx"), Some(profile));
        let (_, x) = array(&models().join("golden").join(name).with_extension("npz"), "X");
        let n = net.net.node(net.net.inputs()[0]).len();
        let rows: Vec<Vec<f64>> = x.chunks(n).map(<[f64]>::to_vec).collect();
        let region = Region { lo: vec![0.0; n], hi: vec![1.0; n] };
        let question = Question::of_one(network(name, &net), rows[0].clone(), region, Claim::Top1).expect("a question");
        let file = write_c(&question).expect("a program");
        assert!(!file.exact, "{name}");
        let allowed = if profile == "float32" { net.net.clone() } else { as_doubles(&net.net).expect("a net") };
        let bounds = execute(&allowed, &[rows.concat()], rows.len()).remove(0);
        let program = compile(&format!("{name}_{profile}"), &file.text, &[]);
        for (r, said) in said(&program, &rows).into_iter().enumerate() {
            for (k, y) in said.a.iter().enumerate() {
                let i = r * said.a.len() + k;
                assert!(bounds.lo(i) <= *y && *y <= bounds.hi(i), "{name} {profile}: row {r} [{k}] {y}");
            }
        }
    }
}

/// Random float nets, with sums that are exact, rounded once or in any order: refused by name, or within their enclosure.
#[test]
fn c_of_random_float_nets_is_refused_or_within_the_enclosure() {
    if !has_compiler() {
        return;
    }
    let mut written = 0;
    for seed in 0..60 {
        let net = random_net(seed, &Kind { integer: false, depth: 1..4, ..Kind::new(4, 3) });
        let lowered = for_floats(net.clone());
        let mut rng = StdRng::seed_from_u64(seed);
        let rows: Vec<Vec<f64>> =
            (0..50).map(|_| (0..4).map(|_| f64::from(rng.random_range(-8.0f32..8.0))).collect()).collect();
        let region = Region { lo: vec![-8.0; 4], hi: vec![8.0; 4] };
        let question =
            Question::of_one(network("random", &lowered), rows[0].clone(), region, Claim::Strict).expect("a question");
        let Ok(file) = write_c(&question) else { continue };
        let allowed = as_doubles(&net).expect("what has a program has a net of doubles");
        let bounds = execute(&allowed, &[rows.concat()], rows.len()).remove(0);
        for (r, said) in said(&compile(&format!("float_{seed}"), &file.text, &[]), &rows).into_iter().enumerate() {
            let inside = |(k, y): (usize, &f64)| bounds.lo(3 * r + k) <= *y && *y <= bounds.hi(3 * r + k);
            assert!(said.a.iter().enumerate().all(inside), "seed {seed}, row {r}: {:?}", said.a);
        }
        written += 1;
    }
    println!("{written} of 60 programs");
    assert!(written >= 15, "{written}");
}

/// A model checker's main, with a stand-in for the checker that takes the inputs from stdin.
#[test]
fn the_verification_main_assumes_and_asserts() {
    if !has_compiler() {
        return;
    }
    let stub = folder().join("checker.c");
    let text = "#include <stdio.h>\n#include <stdlib.h>\nint nondet_int(void);\nvoid CHECKER_assume(_Bool c);\nvoid CHECKER_assert(_Bool c, const char *t);\n\
                int nondet_int(void) { int x; if (scanf(\"%d\", &x) != 1) exit(9); return x; }\n\
                void CHECKER_assume(_Bool c) { if (!c) { printf(\"outside\"); exit(0); } }\n\
                void CHECKER_assert(_Bool c, const char *t) { printf(\"%s %s\", t, c ? \"holds\" : \"fails\"); }\n";
    let mut seen = [0, 0, 0];
    for (seed, checker) in [(1, "__ESBMC"), (2, "__CPROVER"), (3, "__ESBMC")] {
        fs::write(&stub, text.replace("CHECKER", checker)).expect("a written file");
        let pair = [random_net(seed, &Kind::new(3, 3)), random_net(seed + 1, &Kind::new(3, 3))].map(lowered);
        let region = Region { lo: vec![-2.0; 3], hi: vec![2.0; 3] };
        let question = Question::of_pair(network("a", &pair[0]), network("b", &pair[1]), region.clone(), Claim::Top1)
            .expect("a question");
        let more = [stub.to_str().expect("a path"), "-DVERIFY", "-DCPROVER"];
        let flags = if checker == "__ESBMC" { &more[..2] } else { &more[..] };
        let program = compile(&format!("verify_{seed}"), &write_c(&question).expect("a program").text, flags);
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..30 {
            let row: Vec<f64> = (0..3).map(|_| f64::from(rng.random_range(-3i32..=3))).collect();
            let text = feed(&program, std::slice::from_ref(&row));
            let expected = match (region.contains(&row), question.holds_at(&row)) {
                (false, _) => "outside",
                (true, true) => "equivalent holds",
                (true, false) => "equivalent fails",
            };
            assert_eq!(text, expected, "{row:?}");
            seen[["outside", "equivalent holds", "equivalent fails"]
                .iter()
                .position(|e| *e == expected)
                .expect("one")] += 1;
        }
    }
    assert!(seen.iter().all(|n| *n > 5), "{seen:?}");
}

/// Z3 beside the tests' Python.
fn z3() -> Option<PathBuf> {
    let python = std::env::var("QUAVER_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let program = Path::new(&python).with_file_name("z3");
    let found = Command::new(&program).arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        println!(
            "skipped: there is no `{}` (pip install z3-solver, QUAVER_TEST_PYTHON names the Python)",
            program.display()
        );
    }
    found.then_some(program)
}

/// Z3's answer, with the bits of each input where it is sat.
enum Answer {
    Sat(Vec<(u64, u32)>),
    Unsat,
    Unknown,
}

/// Asks Z3, which gives up after a number of its own steps, so that a busy machine changes nothing.
fn decide(z3: &Path, name: &str, text: &str, inputs: usize, steps: u32) -> Answer {
    let names: Vec<String> = (0..inputs).map(|i| format!("x_{i}")).collect();
    let request = format!("(get-value ({}))", names.join(" "));
    assert!(text.trim_end().ends_with(&format!("; {request}")), "the file tells how to ask for the model");
    let path = folder().join(name).with_extension("smt2");
    fs::write(&path, format!("{text}{request}\n")).expect("a written file");
    let output = Command::new(z3).arg(format!("rlimit={steps}")).arg(&path).output().expect("Z3");
    let said = String::from_utf8(output.stdout).expect("text");
    let (first, rest) = said.split_once('\n').unwrap_or((&said, ""));
    match first.trim() {
        "sat" => Answer::Sat((0..inputs).map(|i| bits(rest, &format!("(x_{i} #"))).collect()),
        "unsat" => Answer::Unsat,
        "timeout" | "unknown" => Answer::Unknown,
        other => panic!("{name}: {other} {rest}"),
    }
}

/// A bit vector and its width.
fn bits(text: &str, before: &str) -> (u64, u32) {
    let at = text.find(before).expect("the input's value") + before.len();
    let word = text[at..].split(')').next().expect("an end");
    let (base, digits) = word.split_at(1);
    match base {
        "x" => (u64::from_str_radix(digits, 16).expect("digits"), 4 * digits.len() as u32),
        _ => (u64::from_str_radix(digits, 2).expect("digits"), digits.len() as u32),
    }
}

/// Two's complement.
fn signed((bits, width): (u64, u32)) -> f64 {
    (((bits << (64 - width)) as i64) >> (64 - width)) as f64
}

#[test]
fn formulas_of_random_integer_nets_agree_with_enumeration() {
    let Some(z3) = z3() else { return };
    let mut counts = [0, 0, 0];
    for seed in 0..40 {
        let kind = Kind { dequantized: seed % 5 == 4, ..Kind::new(3, 3) };
        let near = |net: Net, on: bool| if on { moved_a_little(&net, seed) } else { random_net(seed + 500, &kind) };
        let first = random_net(seed, &kind);
        let pair = [first.clone(), near(first, seed % 2 == 0)].map(lowered);
        let region = random_region(3, true, &mut StdRng::seed_from_u64(seed));
        let question =
            Question::of_pair(network("a", &pair[0]), network("b", &pair[1]), region.clone(), claim(seed, "31/2"))
                .expect("a question");
        let holds = enumerate(&region).iter().all(|x| question.holds_at(x));
        let text = write_smtlib(&question, InputForm::Type).expect("a formula");
        match decide(&z3, &format!("integers_{seed}"), &text, 3, 150_000) {
            Answer::Unsat => assert!(holds, "seed {seed}: unsat is wrong"),
            Answer::Sat(model) => {
                let x: Vec<f64> = model.into_iter().map(signed).collect();
                assert!(region.contains(&x) && !question.holds_at(&x), "seed {seed}: {x:?} is no counterexample");
                counts[1] += 1;
                continue;
            }
            Answer::Unknown => {
                counts[2] += 1;
                continue;
            }
        }
        counts[0] += 1;
    }
    println!("{} unsat, {} sat, {} not decided", counts[0], counts[1], counts[2]);
    assert!(counts[0] >= 5 && counts[1] >= 10 && counts[2] <= 5, "{counts:?}");
}

/// The net with one bias changed by one.
fn moved_a_little(net: &Net, seed: u64) -> Net {
    let mut out = Net::new();
    let affine: Vec<usize> = (0..net.nodes().len()).filter(|&i| matches!(net.nodes()[i].op, Op::Affine(_))).collect();
    let chosen = affine[seed as usize / 2 % affine.len()];
    for (i, node) in net.nodes().iter().enumerate() {
        let mut node = node.clone();
        if let (Op::Affine(a), true) = (&mut node.op, i == chosen) {
            a.bias.data[0] += 1.0;
        }
        if !matches!(node.op, Op::Input(_)) {
            node.range = out.range_of(&node.op);
        }
        out.add(node);
    }
    out.set_outputs(net.outputs().to_vec());
    out
}

/// The net with exact sums, and with constants of few bits, which a solver multiplies in a moment.
fn made_exact(net: &Net) -> Net {
    let mut out = Net::new();
    for node in net.nodes() {
        let mut node = node.clone();
        if let Op::Affine(a) = &mut node.op {
            let mut coarse = |w: &f64| (w * 64.0).round() / 64.0;
            a.rounding = Rounding::Exact;
            a.bias = a.bias.map(&mut coarse);
            a.terms.iter_mut().for_each(|t| t.1 = with_weights(&t.1, &mut coarse));
        }
        if !matches!(node.op, Op::Input(_)) {
            node.range = out.range_of(&node.op);
        }
        out.add(node);
    }
    out.set_outputs(net.outputs().to_vec());
    out
}

/// Real arithmetic on a grid: all numbers are dyadic.
#[test]
fn formulas_of_random_real_nets_agree_with_enumeration_of_the_grid() {
    let Some(z3) = z3() else { return };
    let mut counts = [0, 0, 0];
    for seed in 0..30 {
        let kind = Kind { integer: false, depth: 1..3, ..Kind::new(2, 2) };
        let pair = [seed, seed + 300].map(|s| for_floats(made_exact(&random_net(s, &kind))));
        let mut region = random_region(2, true, &mut StdRng::seed_from_u64(seed));
        region.hi.iter_mut().zip(&region.lo).for_each(|(h, l)| *h = h.min(l + 1.0));
        let question =
            Question::of_pair(network("a", &pair[0]), network("b", &pair[1]), region.clone(), claim(seed, "1.7"))
                .expect("a question");
        let quarters =
            Region { lo: region.lo.iter().map(|x| x * 4.0).collect(), hi: region.hi.iter().map(|x| x * 4.0).collect() };
        let points = enumerate(&quarters).into_iter().map(|p| p.iter().map(|x| x / 4.0).collect::<Vec<f64>>());
        let holds = points.clone().all(|x| question.holds_at(&x));
        let text = write_smtlib(&question, InputForm::Grid(2)).expect("a formula");
        match decide(&z3, &format!("reals_{seed}"), &text, 2, 150_000) {
            Answer::Unsat => {
                assert!(holds, "seed {seed}: unsat is wrong");
                counts[0] += 1;
            }
            Answer::Sat(model) => {
                let x: Vec<f64> = model.into_iter().map(|b| signed(b) / 4.0).collect();
                assert!(region.contains(&x) && !question.holds_at(&x), "seed {seed}: {x:?} is no counterexample");
                counts[1] += 1;
            }
            Answer::Unknown => counts[2] += 1,
        }
    }
    println!("{} unsat, {} sat, {} not decided", counts[0], counts[1], counts[2]);
    assert!(counts[0] >= 3 && counts[1] >= 10 && counts[2] <= 5, "{counts:?}");
}

/// A quantized model, every float32 input of a box: one answer of each kind.
#[test]
fn a_quantized_model_is_decided_for_all_float32_inputs() {
    let Some(z3) = z3() else { return };
    let net = of_file(&models().join("iris_qdq.onnx"), None);
    let (_, x) = array(&models().join("golden/iris_qdq.npz"), "X");
    let center = &x[..4];
    let question = |radius: &str| {
        let region = ball(&net, center, &radius.parse().expect("a number"), None).expect("a box");
        let question = Question::of_one(network("iris_qdq", &net), center.to_vec(), region.clone(), Claim::Top1);
        (question.expect("a question"), region)
    };
    let (near, _) = question("1/256");
    let text = write_smtlib(&near, InputForm::Type).expect("a formula");
    assert!(matches!(decide(&z3, "iris_near", &text, 4, 200_000_000), Answer::Unsat));
    let (far, region) = question("1/20");
    let text = write_smtlib(&far, InputForm::Type).expect("a formula");
    let Answer::Sat(model) = decide(&z3, "iris_far", &text, 4, 200_000_000) else {
        panic!("a class changes within 1/20")
    };
    let x: Vec<f64> = model.iter().map(|b| f64::from(f32::from_bits(b.0 as u32))).collect();
    assert!(region.contains(&x) && !far.holds_at(&x), "{x:?} is no counterexample");
}

/// Two quantized models: how far their rounded outputs are apart, through the float32 rounding of dequantization.
#[test]
fn the_rounding_of_outputs_is_in_the_formula() {
    let Some(z3) = z3() else { return };
    let net = of_file(&models().join("iris_qdq.onnx"), None);
    let (_, x) = array(&models().join("golden/iris_qdq.npz"), "X");
    let center: Vec<f64> = x[..4].to_vec();
    let near: Vec<f64> =
        center.iter().map(|x| f64::from(float32::from_key(float32::key(*x as f32) + 2_000_000))).collect();
    let region = Region { lo: center.clone(), hi: near.clone() };
    let apart = |a: &[f64], b: &[f64]| {
        let (a, b) = (exact_output(&net.net, a), exact_output(&net.net, b));
        a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    let seen = apart(&center, &near);
    assert!(seen > 0.0, "the corners differ");
    for (epsilon, expected) in [(seen / 2.0, false), (1e6, true)] {
        let claim = Claim::Epsilon(quaver::num::Ratio::from_f64(epsilon).expect("a number"));
        let question =
            Question::of_one(network("iris_qdq", &net), center.clone(), region.clone(), claim).expect("a question");
        let text = write_smtlib(&question, InputForm::Type).expect("a formula");
        match decide(&z3, "iris_epsilon", &text, 4, 200_000_000) {
            Answer::Unsat => assert!(expected),
            Answer::Sat(model) => {
                let x: Vec<f64> = model.iter().map(|b| f64::from(f32::from_bits(b.0 as u32))).collect();
                assert!(!expected && region.contains(&x) && !question.holds_at(&x), "{x:?}");
            }
            Answer::Unknown => panic!("not decided"),
        }
    }
}

#[test]
fn what_cannot_be_said_is_refused_by_name() {
    let float = of_file(&models().join("iris_float.onnx"), Some("float32"));
    let real = of_file(&models().join("iris_float.onnx"), Some("real"));
    let bands = of_file(&models().join("iris_qdq.onnx"), Some("any-engine"));
    let center = vec![0.5; 4];
    let region = Region { lo: vec![0.25; 4], hi: vec![0.75; 4] };
    let one = |l| Question::of_one(network("iris", l), center.clone(), region.clone(), Claim::Top1);
    let refusal = |r: Result<String, quaver::export::ExportError>| r.expect_err("a refusal").to_string();
    let said = refusal(write_smtlib(&one(&float).expect("a question"), InputForm::Type));
    assert!(said.contains("`z0`") && said.contains("--profile real"), "{said}");
    let said = refusal(write_smtlib(&one(&real).expect("a question"), InputForm::Type));
    assert!(said.contains("`z0`") && said.contains("--grid"), "{said}");
    let said = refusal(write_smtlib(&one(&real).expect("a question"), InputForm::Grid(40)));
    assert!(said.contains("coarser"), "{said}");
    let said = one(&bands).expect_err("a refusal").to_string();
    assert!(said.contains("any-engine") && said.contains("--profile"), "{said}");
    let digits = of_file(&models().join("digits_mlp_float.onnx"), Some("real"));
    let said = Question::of_pair(network("iris", &real), network("digits", &digits), region.clone(), Claim::Top1);
    assert!(said.expect_err("a refusal").to_string().contains("64 elements"));
    assert_eq!(real.net.node(real.net.inputs()[0]).grid, Grid::Real);
}
