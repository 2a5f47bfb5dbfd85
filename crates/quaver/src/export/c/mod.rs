//! A question as one C99 file: the networks, the inputs, the claim, and a `main` for a terminal or for a model checker.

mod function;
mod net;
mod text;

use super::question::{Claim, ExportError, Question, comment, units};
use crate::model::ir::DType;
use crate::net::{Grid, Node};
use crate::num::{Dyadic, Ratio};
use net::Written;
use text::{Program, Type};

/// How the file reads the elements of an input.
struct Element {
    /// Type of the array.
    name: &'static str,
    /// What a model checker makes up, and its type there.
    made_up: (&'static str, &'static str),
    /// What a word is read as, and how.
    read: (&'static str, &'static str),
}

const FLOAT: Element =
    Element { name: "float", made_up: ("float", "nondet_float"), read: ("float", "strtof(word, &end)") };
const SMALL: Element =
    Element { name: "int32_t", made_up: ("int", "nondet_int"), read: ("long long", "strtoll(word, &end, 10)") };
const LARGE: Element = Element { name: "int64_t", made_up: ("long long", "nondet_longlong"), read: SMALL.read };

/// A C program.
#[derive(Clone, Debug)]
pub struct CFile {
    /// The program.
    pub text: String,
    /// Whether it computes what the nets compute, bit for bit.
    pub exact: bool,
}

/// The question as a C99 program. Without macros its `main` reads inputs, one a line, and prints outputs, whether the input is in the box and whether the
/// claim holds; with `-DVERIFY` its `main` is for a bounded model checker.
///
/// # Claim
/// If the header says that the program is exact, it computes what the nets compute, bit for bit, on every input; otherwise its outputs lie within those
/// of [`super::as_doubles`].
///
/// # Errors
/// If integers do not fit 62 bits, a rounding cannot be reproduced, or outputs cannot be compared.
pub fn write_c(question: &Question<'_>) -> Result<CFile, ExportError> {
    let element = element(question)?;
    let mut program = Program::default();
    let mut written = vec![];
    for (letter, network) in ["a", "b"].iter().zip(&question.networks) {
        written.push(net::write(letter, network, element.name, &mut program)?);
    }
    inputs(question, &element, &mut program);
    claim(question, &written, &mut program)?;
    check(question, &element, &written, &mut program);
    harness(question, &element, &written, &mut program);
    let text = header(question, &written) + &program.tables + "\n" + &program.code;
    Ok(CFile { text, exact: written.iter().all(|w| w.exact) })
}

fn element(question: &Question<'_>) -> Result<Element, ExportError> {
    match question.networks[0].lowered.input_types[0] {
        DType::F32 => Ok(FLOAT),
        DType::I8 | DType::U8 | DType::I16 | DType::U16 | DType::I32 => Ok(SMALL),
        DType::I64 => Ok(LARGE),
        DType::Bool => {
            Err(ExportError::at(question.networks[0].input(), "is of type bool", "give a model with numbers as inputs"))
        }
    }
}

fn header(question: &Question<'_>, written: &[Written]) -> String {
    let mut lines = vec!["A question about neural networks, written by Quaver.".to_string(), String::new()];
    lines.extend(question.remarks());
    lines.push(String::new());
    if written.iter().all(|w| w.exact) {
        lines.push(
            "Exact: every value is the number that the runtime computes, bit for bit. Integers do not overflow".into(),
        );
        lines.push("on any input of the input's type; doubles only hold numbers that a double represents.".into());
    } else {
        lines.push("In doubles: sums of real numbers are taken in binary64, in the order of the loops, as in CEG4N's abstraction.".into());
        lines.push(
            "Under profile float32 this is one of the runtimes that the profile allows, one that sums in binary64 and"
                .into(),
        );
        lines.push(
            "rounds each result to float32; under profile real each sum is off by its own rounding. Other runtimes"
                .into(),
        );
        lines.push("may differ in the last bits: what a model checker proves here is about these doubles.".into());
    }
    lines.push(String::new());
    for line in [
        "cc -std=c99 FILE.c: a program that reads inputs from stdin, one a line, and prints the outputs a and b,",
        "whether the input is in the box (assumption), and whether the claim holds (assertion).",
        "-DVERIFY: a main with nondeterministic inputs for ESBMC; with -DVERIFY -DCPROVER for CBMC.",
    ] {
        lines.push(line.into());
    }
    let body: String = lines.iter().map(|l| format!(" * {}", comment(l)).trim_end().to_string() + "\n").collect();
    let float =
        "#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0\n#error \"double must be evaluated as double\"\n#endif\n";
    format!(
        "/*\n{body} */\n#include <float.h>\n#include <stdint.h>\n#ifndef VERIFY\n#include <stdio.h>\n#include <stdlib.h>\n#endif\n\n{float}\n"
    )
}

/// Number of inputs and outputs, the box, and the input to compare with.
fn inputs(question: &Question<'_>, element: &Element, program: &mut Program) {
    let table = |name: &str, values: &[f64], program: &mut Program| {
        let float = |v: &f64| format!("{:?}f", *v as f32 + 0.0);
        let integer = |v: &f64| (*v as i64).to_string();
        match element.name {
            "float" => program.typed_table(name, "float", values.iter().map(float)),
            name_of_type => program.typed_table(name, name_of_type, values.iter().map(integer)),
        }
    };
    let region = &question.region;
    table("box_lo", &region.lo, program);
    table("box_hi", &region.hi, program);
    if let Some(center) = &question.center {
        table("center", center, program);
    }
}

/// `static int equivalent(a, b)`.
fn claim(question: &Question<'_>, written: &[Written], program: &mut Program) -> Result<(), ExportError> {
    let n = question.networks[0].output().len();
    let (a, b) = (written[0].output.name(), written[written.len() - 1].output.name());
    let signature = format!("static int equivalent(const {a} a[{n}], const {b} b[{n}]) {{");
    let what = format!("/* Whether {}. */", comment(&question.claim.words()));
    let Some(epsilon) = question.claim.epsilon() else {
        program.line(0, what);
        program.line(0, signature);
        program.line(1, "int p = 0, q = 0;");
        program.line(1, format!("for (int i = 1; i < {n}; i++) {{"));
        program.line(2, "if (a[i] > a[p]) p = i;");
        program.line(2, "if (b[i] > b[q]) q = i;");
        program.line(1, "}");
        program.line(1, "return p == q;");
        program.line(0, "}\n");
        return Ok(());
    };
    let last = question.networks.len() - 1;
    let [x, y] = [(0, "a"), (last, "b")].map(|(k, array)| real(question.networks[k].output(), array, program));
    let (x, y) = (x?, y?);
    if !matches!(question.claim, Claim::Strict) {
        within(&epsilon, program);
    }
    let holds = if matches!(question.claim, Claim::Strict) { "x == y" } else { "within(x, y)" };
    program.line(0, what);
    program.line(0, signature);
    program.line(1, format!("for (int i = 0; i < {n}; i++) {{"));
    program.line(2, format!("const double x = {x}, y = {y};"));
    program.line(2, format!("if (!({holds})) return 0;"));
    program.line(1, "}");
    program.line(1, "return 1;");
    program.line(0, "}\n");
    Ok(())
}

/// The real number that element i of an output stands for, as an exact `double`.
fn real(node: &Node, array: &str, program: &mut Program) -> Result<String, ExportError> {
    if node.grid != Grid::Integer {
        return Ok(format!("{array}[i]"));
    }
    let largest = node.range.0.abs().max(node.range.1.abs());
    let refuse =
        || ExportError::at(node, "its integers stand for numbers that a double does not hold", "ask for --top1");
    let all: Option<Vec<(f64, i64)>> = (0..node.len()).map(|i| units(node, i)).collect();
    let Some(all) = all else {
        return if largest <= 9_007_199_254_740_992.0 { Ok(format!("(double){array}[i]")) } else { Err(refuse()) };
    };
    let small = |(scale, zero): &(f64, i64)| {
        f64::from(*scale as f32) == *scale && scale.abs() > 1e-30 && largest + (*zero as f64).abs() < 268_435_456.0
    };
    if !all.iter().all(small) {
        return Err(refuse());
    }
    if all.iter().all(|u| *u == all[0]) {
        let (scale, zero) = all[0];
        return Ok(format!("{} * ((double){array}[i] - ({zero}))", Type::Double.literal(scale)));
    }
    let (scales, zeros) = (format!("scale_{array}"), format!("zero_{array}"));
    program.table(&scales, &all.iter().map(|u| u.0).collect::<Vec<_>>());
    program.integers(&zeros, &all.iter().map(|u| u.1).collect::<Vec<_>>());
    Ok(format!("(double){scales}[i] * ((double){array}[i] - {zeros}[i])"))
}

/// `static int within(x, y)`: whether |x - y| is at most a number, exactly.
///
/// # Claim
/// For doubles whose difference does not overflow the result is that of exact arithmetic.
///
/// # Why
/// s + e is x - y exactly (Knuth's two-sum). With d the largest double not above the bound E and u the next one: s < d means s + e < d, and s > u means
/// s + e > u > E. If s is d or u, s + e <= E says e <= E - s, and e is a double.
fn within(epsilon: &Ratio, program: &mut Program) {
    let down = epsilon.f64_down();
    let rest = |s: f64| {
        let exact = Dyadic::from_f64(s).unwrap_or_else(|| unreachable!("a finite bound"));
        Type::Double.literal(epsilon.minus(&Ratio::from_dyadic(&exact)).f64_down())
    };
    let (d, u) = (Type::Double.literal(down), Type::Double.literal(down.next_up()));
    program.line(0, "/* Whether s + e is at most the bound, where e is what was rounded away of s. */");
    program.line(0, "static int at_most(double s, double e) {");
    program.line(
        1,
        format!("return s < {d} || (s == {d} && e <= {}) || (s == {u} && e <= {});", rest(down), rest(down.next_up())),
    );
    program.line(0, "}\n");
    program.line(0, "static int within(double x, double y) {");
    program.line(1, "const double s = x - y, t = s - x, e = (x - (s - t)) - (y + t);");
    program.line(1, "return at_most(s, e) && at_most(-s, -e);");
    program.line(0, "}\n");
}

/// `static int check(x, a, b)`: fills the outputs and says whether the claim holds.
fn check(question: &Question<'_>, element: &Element, written: &[Written], program: &mut Program) {
    let (n_in, n_out) = (question.region.lo.len(), question.networks[0].output().len());
    let (a, b) = (written[0].output.name(), written[written.len() - 1].output.name());
    program.line(0, "/* Computes both outputs; whether the claim holds. */");
    program.line(0, format!("static int check(const {} x[{n_in}], {a} a[{n_out}], {b} b[{n_out}]) {{", element.name));
    program.line(1, "network_a(x, a);");
    program.line(1, if question.center.is_some() { "network_a(center, b);" } else { "network_b(x, b);" });
    program.line(1, "return equivalent(a, b);");
    program.line(0, "}\n");
}

fn harness(question: &Question<'_>, element: &Element, written: &[Written], program: &mut Program) {
    let (n_in, n_out) = (question.region.lo.len(), question.networks[0].output().len());
    let (a, b) = (written[0].output, written[written.len() - 1].output);
    let arrays = format!(
        "static {} x[{n_in}];\n    static {} a[{n_out}];\n    static {} b[{n_out}];",
        element.name,
        a.name(),
        b.name()
    );
    let ((kind, made_up), name) = (element.made_up, element.name);
    program.code += &format!(
        "#ifdef VERIFY
{kind} {made_up}(void);
#ifdef CPROVER
void __CPROVER_assume(_Bool condition);
void __CPROVER_assert(_Bool condition, const char *text);
#define ASSUME(condition) __CPROVER_assume(condition)
#define ASSERT(condition) __CPROVER_assert(condition, \"equivalent\")
#else
void __ESBMC_assume(_Bool condition);
void __ESBMC_assert(_Bool condition, const char *text);
#define ASSUME(condition) __ESBMC_assume(condition)
#define ASSERT(condition) __ESBMC_assert(condition, \"equivalent\")
#endif

int main(void) {{
    {arrays}
    for (int i = 0; i < {n_in}; i++) {{
        x[i] = ({name}){made_up}();
        ASSUME(box_lo[i] <= x[i] && x[i] <= box_hi[i]);
    }}
    const int holds = check(x, a, b);
    ASSERT(holds);
    return 0;
}}
#else
"
    );
    program.code += &reader(question, element);
    let [print_a, print_b] = [(a, "a"), (b, "b")].map(|(t, array)| printer(t, array, n_out));
    program.code += &format!(
        "int main(void) {{
    {arrays}
    for (long line = 1; read_row(x, line); line++) {{
        const int holds = check(x, a, b);
{print_a}{print_b}        printf(\"assumption %s\\n\", in_box(x) ? \"holds\" : \"fails\");
        printf(\"assertion %s\\n\", holds ? \"holds\" : \"fails\");
    }}
    return 0;
}}
#endif
"
    );
}

/// `static int in_box(x)`, and `static int read_row(x, line)`: one line of numbers, separated by spaces or commas. Blank lines are left out.
fn reader(question: &Question<'_>, element: &Element) -> String {
    let (lo, hi) = question.networks[0].input().range;
    let in_type = match element.name {
        "float" => String::new(),
        _ => format!(
            "            if (value < {} || value > {}) refuse(line, \"a number is outside the input's type\");\n",
            Type::Int64.literal(lo),
            Type::Int64.literal(hi)
        ),
    };
    format!(
        "/* Whether an input is in the box. */
static int in_box(const {name} x[{n_in}]) {{
    for (int i = 0; i < {n_in}; i++)
        if (!(box_lo[i] <= x[i] && x[i] <= box_hi[i])) return 0;
    return 1;
}}

static void refuse(long line, const char *why) {{
    fprintf(stderr, \"row %ld: %s\\n\", line, why);
    exit(2);
}}

/* Reads one line of {n_in} numbers; 0 at the end of the input. */
static int read_row({name} x[{n_in}], long line) {{
    char word[64];
    int n = 0, length = 0, c;
    do {{
        c = getchar();
        if (c != ' ' && c != '\\t' && c != '\\r' && c != ',' && c != '\\n' && c != EOF) {{
            if (length == 63) refuse(line, \"a number is too long\");
            word[length++] = (char)c;
        }} else if (length > 0) {{
            char *end;
            word[length] = 0;
            length = 0;
            if (n == {n_in}) refuse(line, \"more than {n_in} numbers\");
            const {kind} value = {read};
            if (*end != 0) refuse(line, \"something is not a number of the input's type\");
{in_type}            x[n++] = ({name})value;
        }}
    }} while (c != EOF && (c != '\\n' || n == 0));
    if (n != 0 && n != {n_in}) refuse(line, \"fewer than {n_in} numbers\");
    return n != 0;
}}

",
        name = element.name,
        n_in = question.region.lo.len(),
        kind = element.read.0,
        read = element.read.1,
    )
}

fn printer(t: Type, array: &str, n_out: usize) -> String {
    let (format, cast) = match t {
        Type::Int32 | Type::Int64 => ("%lld", "(long long)"),
        Type::Double => ("%.17g", ""),
    };
    format!(
        "        printf(\"{array}\");
        for (int i = 0; i < {n_out}; i++) printf(\" {format}\", {cast}{array}[i]);
        printf(\"\\n\");
"
    )
}
