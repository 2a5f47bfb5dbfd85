use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

/// Two inputs between 0 and 1, two outputs, and more.
fn text(more: &str) -> String {
    let declared =
        "(declare-const X_0 Real) (declare-const X_1 Real)\n(declare-const Y_0 Real) (declare-const Y_1 Real)\n";
    let bounds = "(assert (<= X_0 1)) ; a comment )(\n(assert (>= X_0 0.0))\n(assert (and (<= 0 X_1) (<= X_1 1e0)))\n";
    format!("{declared}{bounds}{more}")
}

/// The same in version 2.0, with two rows of inputs.
fn text_2(element: &str, more: &str) -> String {
    let network = format!("(declare-network N (declare-input A {element} [2,1]) (declare-output B {element} [2]))");
    format!("(vnnlib-version <2.0>)\n{network}\n(assert (and (<= 0 A[0,0]) (<= A[0, 0] 1) (== A [1,0] 0.1)))\n{more}")
}

fn read_text(text: &str) -> Result<Property, String> {
    read(text.as_bytes())
}

fn number(text: &str) -> Rational {
    Rational::parse(text).unwrap()
}

fn row(terms: &[(usize, &str)], bound: &str) -> Row {
    Row { terms: terms.iter().map(|(i, c)| (*i, number(c))).collect(), bound: number(bound), strict: false }
}

fn refused(text: &str, why: &str) {
    let error = read_text(text).unwrap_err();
    assert!(error.contains(why), "`{error}` should say `{why}`");
}

#[test]
fn reads_a_box_and_rows() {
    let more = "(assert (<= (+ (* 2 Y_0) (- Y_1) -0.5 Y_1 Y_1) (- Y_1 (* 3 Y_0 0.5) 1)))";
    let property = read_text(&text(more)).unwrap();
    assert_eq!((property.inputs, property.outputs, property.cases.len()), (2, 2, 1));
    let case = &property.cases[0];
    assert_eq!(case.lo, [number("0"), number("0")]);
    assert_eq!(case.hi, [number("1"), number("1")]);
    assert_eq!(case.rows, [row(&[(0, "3.5")], "-0.5")]);
}

#[test]
fn packed_and_plain_texts_are_the_same() {
    let plain = text("(assert (>= Y_0 Y_1))");
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(plain.as_bytes()).unwrap();
    let packed = packer.finish().unwrap();
    assert_eq!(read(&packed).unwrap(), read_text(&plain).unwrap());
    assert!(read(&packed[..packed.len() / 2]).unwrap_err().contains("unpacked"));
}

#[test]
fn multiplies_out_in_the_order_of_the_text() {
    let more = "(assert (or (<= Y_0 1) (and (<= Y_0 2) (or (<= Y_1 3) (or (<= Y_1 4))))))\n\
                (assert (or (<= Y_1 5) (<= Y_1 6)))";
    let property = read_text(&text(more)).unwrap();
    let bounds = |case: &Case| case.rows.iter().map(|row| row.bound.to_string()).collect::<String>();
    let all: Vec<String> = property.cases.iter().map(bounds).collect();
    assert_eq!(all, ["15", "16", "235", "236", "245", "246"]);
}

#[test]
fn boxes_are_multiplied_and_empty_ones_dropped() {
    let more = "(assert (or (and (<= X_0 0.5) (>= X_1 0.5)) (<= X_0 -1) (and (>= (* -2 X_0) -0.25))))\n\
                (assert (or (and (<= Y_0 Y_1)) (and (<= Y_1 Y_0))))";
    let cases = read_text(&text(more)).unwrap().cases;
    assert_eq!(cases.len(), 4);
    assert_eq!((&cases[0].hi[0], &cases[0].lo[1]), (&number("0.5"), &number("0.5")));
    assert_eq!((&cases[3].hi[0], &cases[3].lo[1]), (&number("0.125"), &number("0")));
    assert_eq!(cases[1].rows, [row(&[(0, "-1"), (1, "1")], "0")]);
}

#[test]
fn comparisons_of_numbers_are_decided() {
    let count = |more: &str| read_text(&text(more)).unwrap().cases.len();
    assert_eq!(count("(assert (>= Y_0 Y_0))"), 1);
    assert_eq!(count("(assert (<= 1 0))"), 0);
    assert_eq!(count("(assert (or (<= 1 0) (<= (- X_0 X_0) 0)))"), 1);
    assert_eq!(read_text(&text_2("real", "(assert (< B[0] B[0]))")).unwrap().cases.len(), 0);
}

#[test]
fn equality_is_two_rows() {
    for sign in ["=", "=="] {
        let property = read_text(&text(&format!("(assert ({sign} Y_0 0.5))"))).unwrap();
        assert_eq!(property.cases[0].rows, [row(&[(0, "1")], "0.5"), row(&[(0, "-1")], "-0.5")]);
    }
}

#[test]
fn reads_version_2() {
    let property = read_text(&text_2("real", "(assert (and (< B[1] 0.3)))")).unwrap();
    let case = &property.cases[0];
    assert_eq!((property.inputs, property.outputs), (2, 2));
    assert_eq!((&case.lo[1], &case.hi[1]), (&number("0.1"), &number("0.1")));
    assert_eq!(case.rows, [Row { strict: true, ..row(&[(1, "1")], "0.3") }]);
    let unequal = read_text(&text_2("Real", "(assert (!= B[0] 1))(assert (> A[0,0] 0.5))")).unwrap();
    assert_eq!(unequal.cases.len(), 2);
    assert_eq!(unequal.cases[1].lo[0], number("0.5"));
    let scalar = "(vnnlib-version <2.0>)(declare-network n (declare-input x real []) (declare-output y real [1]))";
    assert_eq!(read_text(&format!("{scalar}(assert (== x 3))(assert (<= y[0] 1))")).unwrap().cases[0].rows.len(), 1);
}

#[test]
fn numbers_of_float32_queries_are_float32() {
    let property = read_text(&text_2("float32", "(assert (<= B[0] 0.3))")).unwrap();
    assert_eq!(property.cases[0].lo[1], Rational::from_f64(f64::from(0.1f32)).unwrap());
    assert_eq!(property.cases[0].rows[0].bound, Rational::from_f64(f64::from(0.3f32)).unwrap());
    refused(&text_2("float32", "(assert (<= B[0] 1e39))"), "line 4: `1e39` is beyond float32");
    refused(&text_2("float32", "(assert (<= (+ B[0] 1) 1))"), "`+` on float32");
}

#[test]
fn refuses_what_it_does_not_understand() {
    for (more, why) in [
        ("(assert (<= X_0 X_1))", "line 6: constraint on several inputs"),
        ("(assert (<= X_0 Y_1))", "line 6: constraint on inputs and outputs together"),
        ("\n(assert (<= (* Y_0 Y_1) 0))", "line 7: a product of variables"),
        ("(assert (< Y_0 0))", "`<` is not in version 1.0"),
        ("(assert (not (<= Y_0 0)))", "the operator `not` is not understood"),
        ("(assert (<= Y_2 0))", "`Y_2` is not declared"),
        ("(assert (<= Y_00 0))", "`Y_00` is not declared"),
        ("(assert (<= Y_0 Z))", "`Z` is not declared"),
        ("(assert (<= Y_0 1e6000))", "exponent"),
        ("(assert (<= Y_0 0 1))", "two terms"),
        ("(assert (<= Y_0))", "two terms"),
        ("(assert (<= Y_0 (<= Y_1 0)))", "a comparison stands"),
        ("(assert (and Y_0))", "a number or variable stands"),
        ("(assert (or))", "without arguments"),
        ("(assert Y_0)", "needs a comparison"),
        ("(assert (<= Y_0 (+ )))", "without arguments"),
        ("(assert ((<= Y_0 1)))", "expected a word"),
        ("(assert (<= Y_0 1)", "the end of the text"),
        ("(assert (<= Y_0 1)))", "expected `(`"),
        ("(check-sat)", "`check-sat` is not understood"),
        ("(declare-const Z Real)", "neither X_i nor Y_i"),
        ("(declare-const Y_1 Real)", "Y_1 is declared twice"),
        ("(declare-const Y_3 Real)", "Y_2 is not declared"),
        ("(declare-const Y_2 Int)", "the type `Int`"),
        ("(declare-const X_2 Real)", "the input X_2 has no lower bound"),
        ("(declare-const X_2 Real)(assert (>= X_2 0))", "the input X_2 has no upper bound"),
        ("(declare-network N)", "first command"),
    ] {
        refused(&text(more), why);
    }
    refused("", "X_0 is not declared");
    refused("(declare-const X_0 Real)", "Y_0 is not declared");
    refused(&text("(assert (<= Y_0 1)) \u{e9}"), "expected `(`");
    assert!(read(b"\xff\xfe").is_err());
}

#[test]
fn refuses_parts_of_version_2() {
    let tensors = "(declare-input X real [1]) (declare-output Y real [1])";
    let network = |inside: &str| format!("(vnnlib-version <2.0>)\n\n(declare-network f {inside})");
    for (inside, why) in [
        ("(equal-to g)", "line 3: there is no network `g`"),
        ("(alike g)", "line 3: `alike` is not supported"),
        ("(declare-input X real [1]) (declare-hidden H real [1] \"h\")", "`declare-hidden` is not supported"),
        ("(declare-input X real [1]) (declare-input Z real [1])", "several inputs"),
        ("(declare-input X real [1])", "an input and an output"),
        ("(declare-input X int8 [1])", "the type `int8`"),
        ("(declare-input X real [0])", "no elements or too many"),
        ("(declare-input X real [99999999999,99999999999])", "no elements or too many"),
        ("(declare-input X real [1] \"name\")", "expected `)`"),
        ("(declare-input X real [1)", "expected `,` or `]`"),
        ("(declare-input X real [1]) (declare-output X real [1])", "declared twice"),
        ("(declare-input X real [1]) (declare-output Y float32 [1])", "different types"),
    ] {
        refused(&network(inside), why);
    }
    refused(&format!("{}{}", network(tensors), "(declare-network g)"), "an input and an output");
    refused(&format!("{}{}", network(tensors), "(declare-const X_0 Real)"), "version 1.0");
    refused("(vnnlib-version <3.0>)", "version `<3.0>`");
    refused("(vnnlib-version <2.0>) (assert (<= X_0 1))", "`X_0` is not declared");
    refused(&network(tensors), "the input element X 0 has no lower bound");
    for more in ["(assert (<= B[2] 1))", "(assert (<= B 1))", "(assert (<= A[0] 1))", "(assert (<= A[0,1] 1))"] {
        refused(&text_2("real", more), "has no element");
    }
}

/// Two networks with two inputs each, and the assertions that equate these.
fn text_of_two(second: &str, equations: &str, more: &str) -> String {
    let first = "(declare-network f (declare-input X real [2]) (declare-output Y real [1,2]))";
    let bounds = "(assert (and (<= 0 X[0]) (<= X[0] 1) (<= 0 Z[1]) (<= X[1] 2)))";
    format!("(vnnlib-version <2.0>)\n{first}\n(declare-network g {second})\n{equations}\n{bounds}\n{more}")
}

const SECOND: &str = "(isomorphic-to f) (declare-input Z real [2]) (declare-output V real [1,2])";
const EQUATIONS: &str = "(assert (and (== X[0] Z[0]) (== Z[1] X[1])))";

#[test]
fn reads_two_networks_with_equal_inputs() {
    let more = "(assert (or (> V[0,1] (+ Y[0,0] 0.5)) (and (<= Z[0] 0.25) (<= V[0,0] Y[0,1]))))";
    let property = read_text(&text_of_two(SECOND, EQUATIONS, more)).unwrap();
    assert_eq!((property.inputs, property.outputs, property.networks.len()), (2, 4, 2));
    assert_eq!(property.networks[1].equal_to, None);
    let [one, two] = &property.cases[..] else { panic!("two cases") };
    assert_eq!((&one.lo[1], &one.hi[1]), (&number("0"), &number("2")));
    assert_eq!(one.rows, [Row { strict: true, ..row(&[(0, "1"), (3, "-1")], "-0.5") }]);
    assert_eq!((&two.hi[0], &two.rows[0]), (&number("0.25"), &row(&[(1, "-1"), (2, "1")], "0")));
    let equal = SECOND.replace("isomorphic-to", "equal-to");
    assert_eq!(read_text(&text_of_two(&equal, EQUATIONS, more)).unwrap().networks[1].equal_to, Some(0));
    // Equal inputs are not different.
    let cases = |more: &str| read_text(&text_of_two(SECOND, EQUATIONS, more)).unwrap().cases.len();
    assert_eq!((cases("(assert (< X[0] Z[0]))"), cases("(assert (>= X[0] Z[0]))")), (0, 1));
    assert_eq!((cases("(assert (<= (+ X[0] 1) Z[0]))"), cases("(assert (!= X[0] Z[0]))")), (0, 0));
}

#[test]
fn other_relations_of_two_networks_are_refused() {
    for (equations, why) in [
        ("", "element 0 of `X` and of `Z` are not equated; other relations of inputs are not supported"),
        ("(assert (== X[0] Z[0]))", "element 1 of `X`"),
        ("(assert (and (== X[0] Z[0]) (<= X[1] Z[1])))", "element 1 of `X`"),
        ("(assert (or (and (== X[0] Z[0]) (== X[1] Z[1])) (<= Y[0,0] 0)))", "element 0 of `X`"),
        ("(assert (and (== X[0] Z[1]) (== X[1] Z[0])))", "constraint on several inputs"),
        ("(assert (and (== X[0] Z[0]) (== X[1] (* 2 Z[1]))))", "element 1 of `X`"),
        ("(assert (and (== X[0] Z[0]) (== X[1] (+ 1 Z[1]))))", "element 1 of `X`"),
    ] {
        refused(&text_of_two(SECOND, equations, ""), why);
    }
    for (second, why) in [
        ("(declare-input Z real [3]) (declare-output V real [1,2])", "inputs of other sizes"),
        ("(isomorphic-to f) (declare-input Z real [1,2]) (declare-output V real [1,2])", "tensors of other shapes"),
        ("(isomorphic-to h) (declare-input Z real [2]) (declare-output V real [1,2])", "there is no network `h`"),
        ("(declare-input X real [2]) (declare-output V real [1,2])", "`X` is declared twice"),
        ("(declare-input Z float32 [2]) (declare-output V float32 [1,2])", "different types"),
    ] {
        refused(&text_of_two(second, EQUATIONS, ""), why);
    }
    let third = "(declare-network h (declare-input A real [2]) (declare-output B real [2]))";
    refused(&text_of_two(SECOND, EQUATIONS, third), "more than two networks");
}

#[test]
fn refuses_what_is_too_large() {
    let pair = "(or (<= Y_0 0) (<= Y_1 0))";
    refused(&text(&format!("(assert {pair})").repeat(17)), "more than 100000 cases");
    refused(&text(&format!("(assert (and {}))", pair.repeat(17))), "more than 100000 cases");
    refused(&text(&format!("(assert (or {}))", "(<= Y_0 0)".repeat(100_001))), "more than 100000 cases");
    assert_eq!(read_text(&text(&format!("(assert {pair})").repeat(10))).unwrap().cases.len(), 1024);
    let rows = "(assert (<= Y_0 0))".repeat(2000);
    refused(&text(&(rows + &format!("(assert {pair})").repeat(16))), "bounds and constraints");
    refused(&text(&format!("(assert (and {} {}))", "(<= Y_0 0)".repeat(2000), pair.repeat(16))), "together");
    refused(&text(&format!("(assert (<= Y_0 (* {})))", "1e5000 ".repeat(9))), "bits");
}

#[test]
fn nesting_is_limited() {
    let nested = |depth: usize| text(&format!("(assert {}(<= Y_0 0){})", "(and ".repeat(depth), ")".repeat(depth)));
    assert!(read_text(&nested(999)).is_ok());
    refused(&nested(1000), "inside each other");
    refused(&text(&format!("(assert {}", "(or ".repeat(1_000_000))), "inside each other");
    refused(&"(".repeat(1_000_000), "expected a word");
}

proptest! {
    #[test]
    fn broken_texts_never_panic(
        version_2 in any::<bool>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..24), 1..8),
    ) {
        let pieces = [
            "(", ")", "[", "]", ",", ";", "\n", "X_0", "Y_1", "A", "B[0]", "or", "and", "<=", "-", "* ", "1e5000",
            "0", "99999999999999999999", "assert", "declare-const", "\u{e9}", "\0", "",
        ];
        let formula = "(assert (or (and (<= V 1) (>= V (- 2 (* 3 V)))) (== V 0.5)))";
        let valid = match version_2 {
            true => text_2("real", &formula.replace('V', "B[1]")),
            false => text(&formula.replace('V', "Y_1")),
        };
        prop_assert!(read_text(&valid).is_ok());
        let mut bytes = valid.into_bytes();
        for (place, piece) in edits {
            let at = place.index(bytes.len());
            bytes.splice(at..(at + piece % 5).min(bytes.len()), pieces[piece].bytes());
        }
        let _ = read(&bytes);
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), packed in any::<bool>()) {
        let head: &[u8] = if packed { &[0x1f, 0x8b, 8, 0] } else { b"(assert " };
        let _ = read(&[head, &bytes].concat());
    }
}

/// A formula that tests can judge by themselves.
#[derive(Clone, Debug)]
enum Formula {
    All(Vec<Formula>),
    Any(Vec<Formula>),
    /// `2 * coefficient * variable OPERATOR bound - variable`, where the second variable is an output or missing.
    Compare {
        operator: &'static str,
        first: usize,
        coefficient: i64,
        second: Option<usize>,
        bound: i64,
    },
}

const VARIABLES: [&str; 4] = ["X_0", "X_1", "Y_0", "Y_1"];

impl Formula {
    fn render(&self) -> String {
        let list = |parts: &[Formula]| parts.iter().map(Formula::render).collect::<Vec<_>>().join(" ");
        match self {
            Formula::All(parts) => format!("(and {})", list(parts)),
            Formula::Any(parts) => format!("(or {})", list(parts)),
            Formula::Compare { operator, first, coefficient, second, bound } => {
                let right = second.map_or(bound.to_string(), |i| format!("(- {bound} {})", VARIABLES[i]));
                format!("({operator} (* 2 {} {coefficient}.0) {right})", VARIABLES[*first])
            }
        }
    }

    fn holds(&self, point: &[i64; 4]) -> bool {
        match self {
            Formula::All(parts) => parts.iter().all(|part| part.holds(point)),
            Formula::Any(parts) => parts.iter().any(|part| part.holds(point)),
            Formula::Compare { operator, first, coefficient, second, bound } => {
                let (left, right) = (2 * coefficient * point[*first], bound - second.map_or(0, |i| point[i]));
                match *operator {
                    "<=" => left <= right,
                    ">=" => left >= right,
                    _ => left == right,
                }
            }
        }
    }
}

fn formula() -> impl Strategy<Value = Formula> {
    let operator = prop::sample::select(vec!["<=", ">=", "="]);
    let leaf = (operator, 0usize..4, 1i64..3, any::<bool>(), prop::option::of(2usize..4), -4i64..5).prop_map(
        |(operator, first, size, negative, second, bound)| {
            let coefficient = if negative { -size } else { size };
            Formula::Compare { operator, first, coefficient, second: second.filter(|_| first >= 2), bound }
        },
    );
    leaf.prop_recursive(4, 12, 3, |inner| {
        let parts = || prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![parts().prop_map(Formula::All), parts().prop_map(Formula::Any)]
    })
}

fn is_counterexample(case: &Case, point: &[i64; 4]) -> bool {
    let at = |i: usize| Rational::from(point[i]);
    let in_box = (0..2).all(|i| case.lo[i] <= at(i) && at(i) <= case.hi[i]);
    let value = |row: &Row| row.terms.iter().fold(Rational::zero(), |sum, (i, c)| &sum + &(c * &at(2 + i)));
    in_box && case.rows.iter().all(|row| value(row) <= row.bound)
}

proptest! {
    #[test]
    fn cases_mean_what_the_text_says(formulas in prop::collection::vec(formula(), 0..3)) {
        let asserts: String = formulas.iter().map(|f| format!("(assert {})\n", f.render())).collect();
        let property = read_text(&text(&asserts)).unwrap();
        for number in 0..4 * 7 * 7 {
            let point = [number % 2, number / 2 % 2, number / 4 % 7 - 3, number / 28 - 3];
            let expected = formulas.iter().all(|f| f.holds(&point));
            let found = property.cases.iter().any(|case| is_counterexample(case, &point));
            prop_assert_eq!(expected, found, "{:?} {}", point, asserts);
        }
    }
}

/// The first thirty properties of a published benchmark.
fn published(folder: &Path) -> Vec<PathBuf> {
    let list = std::fs::read_to_string(folder.join("instances.csv")).unwrap_or_default();
    let mut files: Vec<PathBuf> =
        list.lines().skip(1).filter_map(|l| l.split(',').nth(1)).map(|f| folder.join(f)).collect();
    files.dedup();
    files.truncate(30);
    files
}

#[test]
fn reads_published_properties() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    for (name, inputs) in [
        ("acasxu", 5),
        ("mnist_fc", 784),
        ("oval21", 3072),
        ("verivital_conv", 784),
        ("eran_fc", 784),
        ("rl_controllers", 0),
    ] {
        let files = published(&data.join(name));
        if files.is_empty() {
            println!("{name} is skipped: there is no list of instances");
        }
        for file in files {
            let property = read(&std::fs::read(&file).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            assert!(property.inputs == inputs || inputs == 0 && property.inputs > 0, "{}", file.display());
            assert!(property.outputs > 0 && !property.cases.is_empty(), "{}", file.display());
        }
    }
}
