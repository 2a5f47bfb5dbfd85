//! What is read, what is refused and where, and normal form.

use super::*;

fn v1(asserts: &str) -> String {
    let declared = "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)\n";
    format!("{declared}{asserts}")
}

fn v2(asserts: &str) -> String {
    format!(
        "(vnnlib-version <2.0>) ; a comment (\n(declare-network f (declare-input X real [2,3]) (declare-output Y Real []))\n\
         (declare-network g (equal-to f) (declare-input U real [2,3]) (declare-output V real []))\n{asserts}"
    )
}

/// The constraints of each case as text.
fn cases(text: &str) -> Vec<Vec<String>> {
    let spec = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let shown = |c: &Constraint| {
        let term = |(v, a): &(Variable, Decimal)| format!("{a} {}", spec.shown(*v));
        let terms: Vec<String> = c.terms.iter().map(term).collect();
        let word = match c.relation {
            Relation::LessEqual => "<=",
            Relation::Less => "<",
            Relation::Equal => "==",
        };
        format!("{} {word} {}", terms.join(" + "), c.bound)
    };
    let all = |case: &Vec<u32>| spec.listed(&spec.always).chain(spec.listed(case)).map(shown).collect();
    spec.cases.iter().map(all).collect()
}

#[track_caller]
fn normal(text: &str, expected: &[&[&str]]) {
    assert_eq!(cases(text), expected, "{text}");
}

#[track_caller]
fn refused(text: &str, line: usize, column: usize, what: &str) {
    let error = parse(text).err().unwrap_or_else(|| panic!("{text} is accepted"));
    assert_eq!((error.line, error.column), (line, column), "{error}");
    assert!(error.to_string().contains(what) && !error.cure.is_empty(), "{error}");
}

#[test]
fn comparisons_have_a_normal_form() {
    normal(&v1("(assert (<= X_0 0.5))"), &[&["1.0 X_0 <= 0.5"]]);
    normal(&v1("(assert (>= X_0 -1e-3))"), &[&["-1.0 X_0 <= 0.001"]]);
    normal(&v1("(assert (< 2 Y_0))"), &[&["-1.0 Y_0 < -2.0"]]);
    normal(&v1("(assert (= Y_0 Y_1))"), &[&["1.0 Y_0 + -1.0 Y_1 == 0.0"]]);
    normal(&v1("(assert (<= (+ Y_0 5 Y_0) (- Y_1)))"), &[&["2.0 Y_0 + 1.0 Y_1 <= -5.0"]]);
    normal(&v1("(assert (<= (- Y_0 Y_1 3) (* 2 (- 1 Y_0) 0.5)))"), &[&["2.0 Y_0 + -1.0 Y_1 <= 4.0"]]);
    normal(&v1("(assert (<= (* 2.0 3.0 2.5) 20.0))"), &[&[]]);
    normal(&v1("(assert (<= (- X_0 X_0) -1))"), &[]);
    normal(
        &v2("(assert (<= X[1,2] 1))(assert (== V (+ Y 0.05)))"),
        &[&["1.0 X[1,2] <= 1.0", "-1.0 Y + 1.0 V == 0.05"]],
    );
}

#[test]
fn chains_and_the_infix_form_are_read() {
    normal(&v2("(assert (Y < V))"), &[&["1.0 Y + -1.0 V < 0.0"]]);
    normal(&v2("(assert (0 <= X[0,0] < 1))"), &[&["-1.0 X[0,0] <= 0.0", "1.0 X[0,0] < 1.0"]]);
    normal(&v2("(assert (<= 0 X [0, 0] 1))"), &[&["-1.0 X[0,0] <= 0.0", "1.0 X[0,0] <= 1.0"]]);
    normal(&v2("(assert (!= Y V))"), &[&["1.0 Y + -1.0 V < 0.0"], &["-1.0 Y + 1.0 V < 0.0"]]);
}

#[test]
fn assertions_become_cases() {
    let text =
        "(assert (<= X_0 1))(assert (or (and (<= Y_0 1) (<= Y_1 2)) (<= Y_0 3)))(assert (or (<= X_1 4) (<= X_1 5)))";
    let expected: [&[&str]; 4] = [
        &["1.0 X_0 <= 1.0", "1.0 Y_0 <= 1.0", "1.0 Y_1 <= 2.0", "1.0 X_1 <= 4.0"],
        &["1.0 X_0 <= 1.0", "1.0 Y_0 <= 1.0", "1.0 Y_1 <= 2.0", "1.0 X_1 <= 5.0"],
        &["1.0 X_0 <= 1.0", "1.0 Y_0 <= 3.0", "1.0 X_1 <= 4.0"],
        &["1.0 X_0 <= 1.0", "1.0 Y_0 <= 3.0", "1.0 X_1 <= 5.0"],
    ];
    normal(&v1(text), &expected);
    normal(&v1("(assert (or))"), &[]);
    normal(&v1("(assert (and))(assert (or (or (and (<= 1 0)))  (and (and (<= Y_0 0)))))"), &[&["1.0 Y_0 <= 0.0"]]);
}

#[test]
fn errors_say_where_and_what_to_do() {
    refused(&v1("(assert (<= X_0 0.5)"), 2, 1, "never closed");
    refused(&v1("(assert (<= X_7 0.5))"), 2, 13, "`X_7` is not declared");
    refused(&v1("(assert (<= (* X_0 Y_0) 0.5))"), 2, 13, "not linear");
    refused(&v1("(assert (<= (/ X_0 2) 0.5))"), 2, 13, "`(/ ...)`");
    refused(&v1("\n(assert (not (<= X_0 1)))"), 3, 9, "`not`");
    refused(&v1("(assert (<= X_0 0x5))"), 2, 17, "`0x5` is not a number");
    refused(&v1("(assert (<= X_0))"), 2, 9, "two sides");
    refused(&v1("(minimize X_0)"), 2, 1, "minimize");
    refused("(declare-const X_1 Real)(declare-const Y_0 Real)", 1, 49, "`X_0` is not declared");
    refused("(declare-const Z_1 Real)", 1, 16, "neither an input nor an output");
    refused("(declare-const X_0 Int)", 1, 20, "not a type");
    refused("(declare-const X_0 Real)(declare-const X_0 Real)", 1, 40, "twice");
    refused("", 1, 1, "`X_0` is not declared");
    refused(")", 1, 1, "closes nothing");
    refused("x", 1, 1, "outside of any list");
    refused("(vnnlib-version <3.0>)", 1, 1, "`<3.0>`");
    refused("(vnnlib-version <2.0>)", 1, 23, "no network");
    refused(&v2("(assert (<= X[0,3] 1))"), 4, 13, "outside of `X`");
    refused(&v2("(assert (<= X[0] 1))"), 4, 13, "1 indices");
    refused(&v2("(assert (<= X 1))"), 4, 13, "0 indices");
    refused(&v2("(assert (<= f 1))"), 4, 13, "is a network");
    refused(&v2("(assert (<= X[a] 1))"), 4, 14, "`[a]` is no index");
    refused(&v2("(declare-const X_0 Real)"), 4, 1, "declares networks");
}

#[test]
fn declarations_are_checked() {
    let network = |inner: &str| format!("(vnnlib-version <2.0>)\n(declare-network f {inner})");
    let whole = "(declare-input X real [1]) (declare-output Y real [1])";
    refused(&network("(declare-input X real [1])"), 2, 1, "no output");
    refused(&network("(declare-input X real [1]) (declare-hidden H real [1] \"h\")"), 2, 47, "hidden tensor `H`");
    refused(&network("(declare-input X text [1])"), 2, 37, "`text` is no element type");
    refused(&network("(declare-input X real [1] initialized)"), 2, 46, "initialized");
    refused(&network("(declare-input X real [4294967295,4294967295]) (declare-output Y real [1])"), 2, 1, "more than");
    refused(&network("(declare-input X real [1]) (declare-output X real [1])"), 2, 1, "`X` is declared twice");
    refused(
        &format!(
            "{} (declare-network g (equal-to f) (declare-input U real [2]) (declare-output V real [1]))",
            network(whole)
        ),
        2,
        76,
        "other tensors",
    );
    refused(
        &format!("{} (declare-network g (equal-to h) {whole})", network(whole)),
        2,
        95,
        "`h` cannot be referred to",
    );
    let text =
        "(vnnlib-version <2.1>) (declare-network f-1 (declare-input X float32 [1 3]) (declare-output B int16 [1 4]))";
    let spec = parse(text).unwrap();
    assert_eq!(
        spec.networks[0].inputs[0],
        Tensor { name: "X".into(), element: ElementType::Float32, shape: vec![1, 3] }
    );
}

#[test]
fn hostile_texts_end_soon() {
    let deep = |n: usize| format!("(assert (<= {}X_0{} 1))", "(- ".repeat(n), ")".repeat(n));
    assert!(parse(&v1(&deep(900))).is_ok());
    refused(&v1(&deep(100_000)), 2, 3007, "nested more than 1000 deep");
    let power = format!("(assert (<= (* X_0 {}) 1))", "1.23456789 ".repeat(1000));
    refused(&v1(&power), 2, 9, "400 digits");
    let cases = "(assert (or (<= Y_0 0) (<= Y_1 0)))".repeat(30);
    let error = parse(&v1(&cases)).unwrap_err();
    assert!(error.problem.contains("131072 cases"), "{error}");
    let long = "9".repeat(1_000_000);
    assert!(parse(&v1(&format!("(assert (<= X_0 {long}))"))).unwrap_err().problem.len() < 200);
    let sum = format!("(assert (<= (+ {}) 1))", "1e-300 1e300 ".repeat(20_000));
    assert!(parse(&v1(&sum)).is_err());
    let many = format!("(assert (<= (+ {}) 1))", "X_0 0.001 ".repeat(100_000));
    assert!(parse(&v1(&many)).is_ok());
}

#[test]
fn decimals_are_exact() {
    for (text, shown) in
        [("0.50", "0.5"), ("-1e-3", "-0.001"), ("12e2", "1200.0"), ("-0", "0.0"), (".5", "0.5"), ("5.", "5.0")]
    {
        assert_eq!(Decimal::parse(text).unwrap().to_string(), shown, "{text}");
    }
    for text in ["", ".", "-", "e5", "1e", "0x1", "1e999", "--1", "1_0", "+-1", "nan", "1.-5"] {
        assert!(Decimal::parse(text).is_none(), "{text}");
    }
    for x in [0.1f64, 1.0 / 3.0, f64::from(f32::MIN_POSITIVE) / 8.0, -1e300, 0.0] {
        let d = Decimal::from_f64(x).unwrap();
        assert!(d.ratio().minus(&crate::num::Ratio::from_f64(x).unwrap()).is_zero(), "{x}");
        assert_eq!(d.to_string().parse::<f64>().unwrap(), x);
    }
    assert!(Decimal::from_f64(f64::NAN).is_none() && Decimal::from_f64(f64::INFINITY).is_none());
    assert!(Decimal::from_f64(5e-324).is_none(), "too many digits");
    let third: crate::num::Ratio = "1/3".parse().unwrap();
    assert!(Decimal::from_ratio(&third).is_none());
    let eighth: crate::num::Ratio = "-1/8".parse().unwrap();
    assert_eq!(Decimal::from_ratio(&eighth).unwrap().to_string(), "-0.125");
}
