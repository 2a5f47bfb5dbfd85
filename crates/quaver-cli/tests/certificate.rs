//! Certificates from end to end: what the program writes is accepted by the checker, and nothing else is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use quaver_check::check;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use records::{Walker, closed, opened, readdressed};

mod records;

const MODEL: &str = "models/iris_float.onnx";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn model() -> Vec<u8> {
    fs::read(root().join(MODEL)).unwrap()
}

/// A query about the whole range of the flowers: can the first output reach `most`?
fn query(most: f64) -> String {
    let mut text = String::new();
    (0..4).for_each(|i| text += &format!("(declare-const X_{i} Real)\n"));
    (0..3).for_each(|i| text += &format!("(declare-const Y_{i} Real)\n"));
    for (i, (lo, hi)) in [(4.0, 8.0), (2.0, 4.5), (1.0, 7.0), (0.1, 2.5)].into_iter().enumerate() {
        text += &format!("(assert (>= X_{i} {lo}))\n(assert (<= X_{i} {hi}))\n");
    }
    text + &format!("(assert (or (and (>= Y_0 {most:.2})) (and (<= Y_0 -400.0) (<= Y_1 -1000.0))))\n")
}

/// The true maximum is 56.23.
const TRUE: f64 = 56.25;
const FALSE: f64 = 56.20;

/// What the program writes for a query, on one thread so that it is always the same; each test has its own name.
fn certificate(name: &str, query: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("certificate");
    fs::create_dir_all(&folder).unwrap();
    let (text, out) = (folder.join(format!("{name}.vnnlib")), folder.join(format!("{name}.cert")));
    fs::write(&text, query).unwrap();
    let _ = fs::remove_file(&out);
    let quaver = env!("CARGO_BIN_EXE_quaver");
    let output = Command::new(quaver)
        .current_dir(root())
        .args(["verify", "--threads", "1"])
        .args([&text])
        .arg(MODEL)
        .arg("--certificate")
        .arg(&out)
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "unsat\n");
    fs::read(out).unwrap()
}

fn refused(model: &[u8], query: &str, certificate: &[u8]) -> String {
    check(model, query.as_bytes(), certificate).expect_err("the checker must refuse this")
}

#[test]
fn what_the_program_writes_is_accepted() {
    let text = query(TRUE);
    let proved = check(&model(), text.as_bytes(), &certificate("accepted", &text)[..]).unwrap();
    assert_eq!((proved.profile.as_str(), proved.cases), ("real", 2));
    assert!(proved.records > 30, "{proved:?}");
}

#[test]
fn each_flaw_is_refused_by_name() {
    let text = query(TRUE);
    let whole = certificate("flaws", &text);
    let (header, records) = opened(&whole);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut records = records.clone();
        change(&mut records);
        refused(&model(), &text, &closed(&header, &records))
    };

    let mut other = model();
    *other.last_mut().unwrap() ^= 1;
    assert!(refused(&other, &text, &whole).contains("another model"));
    assert!(refused(&model(), &query(TRUE + 1.0), &whole).contains("another property"));
    let another_input = text.replace("(<= X_0 8)", "(<= X_0 9)");
    assert!(refused(&model(), &another_input, &whole).contains("another property"));
    assert!(refused(&model(), &text, &whole[..(header.len() + whole.len()) / 2]).contains("truncated"));
    assert!(refused(&model(), &text, &whole[..40]).contains("header"));
    assert!(refused(&model(), &text, &[b"\x1f\x8b", &[7; 300][..]].concat()).contains("header"));
    assert!(refused(&model(), &text, &[&whole[..], b"more"].concat()).contains("after the end"));

    // Cases 0 and 1 of the question; part 0 is halved first. Records: 1 cases, 2 close, 3 empty, 4 halve, 0 end.
    assert_eq!(records[..4], [1, 2, 0, 1]);
    let walker = Walker::new(&records);
    let places: Vec<usize> = walker.records.iter().map(|r| r.0).collect();
    let of_kind = |kind: u8| walker.of_kind(kind);
    let halve = of_kind(4)[0];
    let only_first_case = || {
        let kept = places.windows(2).filter(|p| records[p[0]] != 2 || records[p[0] + 2] == 0);
        let mut left = kept.flat_map(|p| records[p[0]..p[1]].to_vec()).chain([0]).collect::<Vec<u8>>();
        left.splice(1..4, [1, 0]);
        left
    };
    assert!(with(&|r| r[3] = 9).contains("record 0: there is no case 9"));
    assert!(with(&|r| *r = only_first_case()).contains("nothing is proved about case 1"));
    assert!(with(&|r| drop(r.splice(1..4, [1, 0]))).contains("goal 1 is closed or was never there"));
    let element = halve + 3 + usize::from(records[halve + 2]);
    assert!(with(&|r| r[element] = 77).contains("there is no element 77"));
    assert!(with(&|r| r[halve + 3] = 7).contains("goal 7 is closed or was never there"));
    assert!(with(&|r| drop(r.splice(halve + 2..element, [0]))).contains("is closed or was never"));
    assert!(with(&|r| r[halve + 1] = 1).contains("part 1 is closed or was never made"));
    assert!(with(&|r| r[halve] = 9).contains("unknown kind 9"));
    // A split in another place: a half is empty, or some walk after it proves too little.
    assert!(with(&|r| r[element + 7] ^= 0x10).contains("is empty"));
    let moved = |halve: usize| {
        let at = halve + 3 + usize::from(records[halve + 2]) + 7;
        let mut records = records.clone();
        records[at] ^= 0x08;
        check(&model(), text.as_bytes(), &closed(&header, &records)[..]).err().unwrap_or_default()
    };
    assert!(of_kind(4).into_iter().any(|halve| moved(halve).contains("proves nothing")));
    // The last close record is gone: 2, part, goal, one weight of four bytes, nothing chosen.
    let last = of_kind(2)[of_kind(2).len() - 1];
    assert_eq!((last + 10, records[last + 3]), (records.len() - 1, 1));
    assert!(with(&|r| drop(r.drain(last..last + 10))).contains("is not closed"));
    assert!(with(&|r| r[last + 4..last + 8].fill(0)).contains("no weight is positive"));
    assert!(with(&|r| r[last + 7] = 0xbf).contains("negative"));
    assert!(with(&|r| r[last + 3] = 0).contains("0 weights for 1 rows"));
    assert!(with(&|r| r.truncate(last)).contains("truncated"));
}

/// A property and its certificate.
struct Answer {
    verdict: String,
    property: Vec<u8>,
    certificate: Vec<u8>,
}

/// What `quaver robustness` says and writes about some rows of the digits.
fn robustness(name: &str, model: &str, profile: &str, rows: &str, radius: &str) -> Vec<Answer> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    let output = Command::new(env!("CARGO_BIN_EXE_quaver"))
        .current_dir(root().join("models"))
        .args(["robustness", model, "--inputs", "digits_x.npy", "--labels", "digits_y.npy", "--clip", "0,1", "--json"])
        .args(["--profile", profile, "--indices", rows, "--radius", radius, "--timeout", "5", "--certificate"])
        .arg(&folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |row: &str, kind: &str| fs::read(folder.join(format!("row{row}_radius0.{kind}"))).unwrap_or_default();
    let field = |line: &str, name: &str| {
        let at = line.find(&format!("\"{name}\":")).unwrap() + name.len() + 3;
        line[at..].split([',', '}']).next().unwrap().trim_matches('"').to_string()
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|l| l.contains("\"index\""));
    lines
        .map(|l| {
            let row = field(l, "index");
            Answer { verdict: field(l, "verdict"), property: read(&row, "vnnlib"), certificate: read(&row, "cert") }
        })
        .collect()
}

fn digits(model: &str) -> Vec<u8> {
    fs::read(root().join("models").join(model)).unwrap()
}

#[test]
fn answers_about_robustness_are_accepted() {
    let cases = [
        ("digits_mlp_float.onnx", "real", "0.1"),
        ("digits_conv_float.onnx", "real", "0.05"),
        ("digits_mlp_qdq.onnx", "ort-fused", "0.05"),
        ("digits_conv_qdq.onnx", "ort-fused", "0.05"),
        ("digits_mlp_qop.onnx", "ort-fused", "0.03"),
    ];
    let mut kinds = [0; 8];
    for (model, profile, radius) in cases {
        let (mut hold, mut fall) = (0, 0);
        for answer in robustness(&format!("robust_{model}"), model, profile, "0..20", radius) {
            if answer.verdict == "undecided" {
                continue;
            }
            let proved = check(&digits(model), &answer.property, &answer.certificate[..]).unwrap();
            assert_eq!(proved.holds, answer.verdict == "holds", "{}", answer.verdict);
            (hold, fall) = (hold + usize::from(proved.holds), fall + usize::from(!proved.holds));
            let records = opened(&answer.certificate).1;
            Walker::new(&records).records.iter().for_each(|r| kinds[usize::from(r.1)] += 1);
        }
        assert!(hold > 0 && fall > 0, "{model}: {hold} hold, {fall} are violated");
    }
    assert!(kinds[5] > 20 && kinds[6] > 20 && kinds[7] > 20, "{kinds:?}");
}

#[test]
fn each_flaw_of_a_split_of_functions_is_refused_by_name() {
    let model = digits("digits_mlp_float.onnx");
    let answer = &robustness("splits", "digits_mlp_float.onnx", "real", "29", "0.1")[0];
    let (header, records) = opened(&answer.certificate);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut records = records.clone();
        change(&mut records);
        check(&model, &answer.property, &closed(&header, &records)[..]).map_or_else(|e| e, |_| "accepted".into())
    };
    let walker = Walker::new(&records);
    let (cut, close, claim) = (walker.of_kind(5)[0], *walker.of_kind(2).last().unwrap(), walker.ends[0]);
    assert_eq!(with(&|_| {}), "accepted");
    assert!(with(&|r| r[cut + 3] = 9).contains("there is no function 9"));
    assert!(with(&|r| r[cut + 2] = 99).contains("goal 99 is closed or was never there"));
    // The upper half begins above where the lower one ends.
    let above = cut + 1 + 4 + 8;
    assert!(with(&|r| r[above..above + 8].copy_from_slice(&0.5f64.to_le_bytes())).contains("there is a gap"));
    // A multiplier that proves nothing.
    let multiplier = walker.multipliers[walker.multipliers.len() - 1];
    assert!(with(&|r| r[multiplier..multiplier + 4].copy_from_slice(&1e6f32.to_le_bytes())).contains("proves nothing"));
    assert!(with(&|r| drop(r.drain(close + 1 + 3..close + 1 + 7))).contains("record"));
    // A bound that is not proved.
    let nudged = |r: &mut Vec<u8>| {
        let lower = f32::from_le_bytes(r[claim..claim + 4].try_into().unwrap());
        r[claim..claim + 4].copy_from_slice(&(lower + 0.01 * lower.abs()).to_le_bytes());
    };
    assert!(with(&nudged).contains("is not proved for element"));
}

#[test]
fn a_bound_on_integers_nudged_by_one_is_refused() {
    let model = digits("digits_mlp_qdq.onnx");
    let answers = robustness("nudged", "digits_mlp_qdq.onnx", "ort-fused", "0..30", "0.08");
    let mut nudged = 0;
    for answer in answers.iter().filter(|a| a.verdict == "holds") {
        let (header, records) = opened(&answer.certificate);
        for at in Walker::new(&records).ends.into_iter().take(3) {
            let mut changed = records.clone();
            let lower = f32::from_le_bytes(changed[at..at + 4].try_into().unwrap());
            changed[at..at + 4].copy_from_slice(&(lower + 1.0).to_le_bytes());
            let error = check(&model, &answer.property, &closed(&header, &changed)[..]).unwrap_err();
            assert!(error.contains("is not proved for element"), "{error}");
            nudged += 1;
        }
    }
    assert!(nudged > 3, "{nudged}");
}

#[test]
fn a_witness_must_be_one() {
    let model = digits("digits_mlp_float.onnx");
    let answers = robustness("witness", "digits_mlp_float.onnx", "real", "0..20", "0.1");
    let [first, second] = [0, 1].map(|k| answers.iter().filter(|a| a.verdict == "violated").nth(k).unwrap());
    let (header, records) = opened(&first.certificate);
    let with = |records: &[u8], property: &[u8]| {
        let header = readdressed(&header, &first.property, property);
        check(&model, property, &closed(&header, records)[..]).map(|p| p.holds)
    };
    let witness = Walker::new(&records).of_kind(7)[0];
    assert_eq!(with(&records, &first.property), Ok(false));
    assert!(with(&records, &second.property).unwrap_err().contains("not in the box of case"));
    let mut other = records.clone();
    other[witness + 1] = (other[witness + 1] + 1) % 9;
    assert!(with(&other, &first.property).unwrap_err().contains("does not satisfy all rows"));
}

/// With a checker that accepts nothing there is no answer.
#[test]
fn certified_answers_are_those_that_the_checker_accepts() {
    let checker = Path::new(env!("CARGO_BIN_EXE_quaver")).with_file_name("quaver-check");
    if !checker.exists() {
        return println!("skipped: {} is not built", checker.display());
    }
    let run = |checker: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_quaver"))
            .current_dir(root().join("models"))
            .args(["robustness", "digits_mlp_float.onnx", "--profile", "real", "--inputs", "digits_x.npy"])
            .args(["--clip", "0,1", "--indices", "0..20", "--radius", "0.1", "--certified", "--checker"])
            .arg(checker)
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let counts = |text: &str| ["holds ", "violated ", "undecided "].map(|w| text.matches(&format!("s  {w}")).count());
    let [hold, fall, open] = counts(&run(&checker));
    assert!(hold > 2 && fall > 2 && open == 0, "{hold} {fall} {open}");
    // It exits with 0 for everything, also where it should say that a counterexample was found.
    let accepts = run(Path::new("true"));
    assert_eq!(counts(&accepts), [hold, 0, fall]);
    let refuses = run(Path::new("false"));
    assert_eq!(counts(&refuses), [0, 0, hold + fall]);
    assert!(refuses.contains("the checker does not accept the certificate"));
}

/// Random changes of a proof by splits of functions: of the true claim they prove nothing else, and of a false one nothing.
#[test]
fn changed_splits_of_functions_prove_nothing_false() {
    let model = digits("digits_mlp_float.onnx");
    let truth = &robustness("true_splits", "digits_mlp_float.onnx", "real", "29", "0.1")[0];
    let falsehood = &robustness("false_splits", "digits_mlp_float.onnx", "real", "29", "0.14")[0];
    assert_eq!((&truth.verdict[..], &falsehood.verdict[..]), ("holds", "violated"));
    let (header, records) = opened(&truth.certificate);
    let forged = readdressed(&header, &truth.property, &falsehood.property);
    let mut rng = StdRng::seed_from_u64(3);
    for k in 0..300 {
        let mut mutated = records.clone();
        for _ in 0..rng.random_range(0..3) {
            let at = rng.random_range(0..mutated.len());
            mutated[at] = rng.random();
        }
        assert!(check(&model, &falsehood.property, &closed(&forged, &mutated)[..]).is_err(), "{k}");
        // Whatever it is, it is no panic.
        let _ = check(&model, &truth.property, &closed(&header, &mutated)[..]);
    }
}

/// The proof of a true claim with some bytes changed, offered as a proof of a claim that is false by very little.
fn never_for_a_false_claim(name: &str, flips: u64) {
    let truth = certificate(name, &query(TRUE));
    let (header, records) = opened(&truth);
    let text = query(FALSE);
    let header = readdressed(&header, query(TRUE).as_bytes(), text.as_bytes());
    let model = model();
    let mut rng = StdRng::seed_from_u64(1);
    for k in 0..flips {
        let mut mutated = records.clone();
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(0..mutated.len());
            mutated[at] = if rng.random() { rng.random() } else { mutated[at] ^ (1 << rng.random_range(0..8)) };
        }
        let forged = closed(&header, &mutated);
        assert!(check(&model, text.as_bytes(), &forged[..]).is_err(), "flip {k} was accepted");
    }
}

/// A certificate with some bytes changed is refused, or what it says is still a proof of this true claim; nothing panics.
fn flips_do_no_harm(name: &str, flips: u64) {
    let text = query(TRUE);
    let truth = certificate(name, &text);
    let (header, records) = opened(&truth);
    let model = model();
    let mut rng = StdRng::seed_from_u64(2);
    let mut accepted = 0;
    for k in 0..flips {
        let packed = k % 2 == 0;
        let mut bytes = if packed { truth.clone() } else { records.clone() };
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8);
        let bytes = if packed { bytes } else { closed(&header, &bytes) };
        accepted += u64::from(check(&model, text.as_bytes(), &bytes[..]).is_ok());
    }
    // A weight, a place or the spelling of a header line that the checker does not read may change; most bytes may not.
    assert!(accepted < flips / 2, "{accepted} of {flips} accepted");
}

#[test]
fn changed_bytes_prove_nothing_false() {
    never_for_a_false_claim("false_short", 2_000);
    flips_do_no_harm("flips_short", 2_000);
}

/// The long run: `cargo test --release -p quaver-cli --test certificate -- --ignored`.
#[test]
#[ignore = "a minute"]
fn many_changed_bytes_prove_nothing_false() {
    never_for_a_false_claim("false_long", 100_000);
    flips_do_no_harm("flips_long", 100_000);
}
