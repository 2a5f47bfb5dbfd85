//! Certificates from end to end: what the program writes is accepted by the checker, and nothing else is.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use quaver_check::check;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

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

/// The header, and the records unpacked.
fn opened(certificate: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let end = certificate.windows(2).position(|w| w == b"\n\n").unwrap() + 2;
    let mut records = vec![];
    flate2::read::MultiGzDecoder::new(&certificate[end..]).read_to_end(&mut records).unwrap();
    (certificate[..end].to_vec(), records)
}

fn closed(header: &[u8], records: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(header.to_vec(), flate2::Compression::fast());
    out.write_all(records).unwrap();
    out.finish().unwrap()
}

fn refused(model: &[u8], query: &str, certificate: &[u8]) -> String {
    check(model, query.as_bytes(), certificate).expect_err("the checker must refuse this")
}

/// Where each record begins; every number of these short proofs is one byte.
fn places(records: &[u8]) -> Vec<usize> {
    let mut places = vec![0];
    loop {
        let at = places[places.len() - 1];
        let len = match records[at] {
            0 => return places,
            1 => 2 + usize::from(records[at + 1]),
            2 => 6 + 4 * usize::from(records[at + 3]),
            3 => 2,
            _ => 12 + usize::from(records[at + 2]),
        };
        places.push(at + len);
    }
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
    let places = places(&records);
    let of_kind = |kind: u8| -> Vec<usize> { places.iter().copied().filter(|&at| records[at] == kind).collect() };
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
    assert!(with(&|r| r[element + 7] ^= 0x01).contains("proves nothing"));
    // The last close record is gone: 2, part, goal, one weight of four bytes, nothing chosen.
    let last = of_kind(2)[of_kind(2).len() - 1];
    assert_eq!((last + 10, records[last + 3]), (records.len() - 1, 1));
    assert!(with(&|r| drop(r.drain(last..last + 10))).contains("is not closed"));
    assert!(with(&|r| r[last + 4..last + 8].fill(0)).contains("proves nothing"));
    assert!(with(&|r| r[last + 7] = 0xbf).contains("negative"));
    assert!(with(&|r| r[last + 3] = 0).contains("0 weights for 1 rows"));
    assert!(with(&|r| r.truncate(last)).contains("truncated"));
}

/// The proof of a true claim with some bytes changed, offered as a proof of a claim that is false by very little.
fn never_for_a_false_claim(name: &str, flips: u64) {
    let truth = certificate(name, &query(TRUE));
    let (header, records) = opened(&truth);
    let text = query(FALSE);
    let digest = |t: &str| -> String { Sha256::digest(t).iter().map(|b| format!("{b:02x}")).collect() };
    let header = String::from_utf8(header).unwrap().replace(&digest(&query(TRUE)), &digest(&text));
    let model = model();
    let mut rng = StdRng::seed_from_u64(1);
    for k in 0..flips {
        let mut mutated = records.clone();
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(0..mutated.len());
            mutated[at] = if rng.random() { rng.random() } else { mutated[at] ^ (1 << rng.random_range(0..8)) };
        }
        let forged = closed(header.as_bytes(), &mutated);
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
