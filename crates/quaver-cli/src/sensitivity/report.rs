//! What was measured, as tables or as JSON.

use anyhow::Result;
use quaver::model::lower::Lowered;
use quaver::quantize::one_layer::{Loss, Measured, OneLayer};
use serde_json::{Value, json};

use super::{Args, Row};
use crate::format::{self, Table, number};
use crate::session::Session;

/// A measurement that has a table of its own: its heading, and the text of a cell.
type Column = (&'static str, fn(&Measured) -> Option<String>);

const COLUMNS: [Column; 3] = [
    ("accuracy in percent with one layer quantized, by its bits", |m| m.accuracy.map(percent)),
    ("least proved margin", |m| m.least().map(number)),
    ("balls that stay proved", |m| (!m.margins.is_empty()).then(|| format!("{}/{}", m.proved(), m.margins.len()))),
];

/// What the answer is made from.
pub struct Report<'a> {
    pub args: &'a Args,
    pub original: &'a Lowered,
    pub one: &'a OneLayer<'a>,
}

fn percent(share: f64) -> String {
    format!("{:.2}", 100.0 * share)
}

/// The name of an integer type in ONNX Runtime's quantizer.
pub fn type_name(bits: Option<u8>) -> String {
    bits.map_or("float".into(), |bits| format!("QInt{bits}"))
}

impl Report<'_> {
    /// The float network.
    pub fn begin(&self, session: &mut Session<'_>) -> Result<()> {
        let float = self.one.float();
        let (balls, kept) = (float.margins.len(), self.one.kept());
        let least = kept.iter().map(|&b| float.margins[b].bound).reduce(f64::min);
        if session.json {
            return session.line(&json!({
                "layer": null, "profile": self.original.profile, "accuracy": float.accuracy,
                "balls": balls, "proved": kept.len(), "margin": least,
            }));
        }
        session.say(format!("{} under profile {}", self.args.model.display(), self.original.profile))?;
        let assumptions = self.original.assumptions.iter();
        assumptions.into_iter().try_for_each(|a| session.say(format!("assumes {a}")))?;
        let mut parts = vec![];
        parts.extend(float.accuracy.map(|a| format!("accuracy {} %", percent(a))));
        if balls > 0 {
            parts.push(format!("{} of {} proved", kept.len(), format::count(balls, "ball")));
        }
        parts.extend(least.map(|m| format!("least margin of these {}", number(m))));
        session.say(format!("float network: {}", parts.join(", ")))
    }

    /// The layers.
    pub fn end(&self, found: &[Row], seconds: f64, session: &mut Session<'_>) -> Result<()> {
        if session.json {
            for (k, row) in found.iter().enumerate() {
                self.json(k, row).iter().try_for_each(|line| session.line(line))?;
            }
            return session.line(&json!({ "summary": { "layers": found.len(), "seconds": seconds } }));
        }
        for (heading, cell) in COLUMNS {
            let Some(table) = self.table(found, cell) else { continue };
            session.say(heading)?;
            table.write(session.out)?;
        }
        session
            .say("least width of ONNX Runtime's quantizer that keeps these proofs, and accuracy but for --max-drop")?;
        let mut table = Table::new(&["layer", "weights", "why not fewer bits"]);
        for row in found {
            let why = row.advice.below.as_ref().map_or("the fewest".into(), |(bits, loss)| reason(*bits, loss));
            table.row([row.name.clone(), type_name(row.advice.bits), why]);
        }
        table.write(session.out)?;
        session.say(format!("{seconds:.2} s"))
    }

    /// One measurement of every layer at every width; `None` if it was not made.
    fn table(&self, found: &[Row], cell: fn(&Measured) -> Option<String>) -> Option<Table> {
        let bits: Vec<String> = self.args.bits.clone().map(|b| format!(">{b}")).collect();
        let headings: Vec<&str> = std::iter::once("layer").chain(bits.iter().map(String::as_str)).collect();
        let mut table = Table::new(&headings);
        for row in found {
            let cells = row.cells.iter().map(cell).collect::<Option<Vec<String>>>()?;
            table.row([vec![row.name.clone()], cells].concat());
        }
        Some(table)
    }

    fn json(&self, layer: usize, row: &Row) -> Vec<Value> {
        let measured = |bits: u8, m: &Measured| {
            json!({
                "layer": layer, "name": row.name, "bits": bits, "accuracy": m.accuracy,
                "balls": m.margins.len(), "proved": m.proved(), "margin": m.least(),
            })
        };
        let mut lines: Vec<Value> = self.args.bits.clone().zip(&row.cells).map(|(b, m)| measured(b, m)).collect();
        let advice = &row.advice;
        lines.push(json!({
            "layer": layer, "name": row.name, "recommended": type_name(advice.bits),
            "accuracy": advice.measured.as_ref().and_then(|m| m.accuracy),
            "proved": advice.measured.as_ref().map(Measured::proved),
            "why_not_fewer": advice.below.as_ref().map(|(bits, loss)| reason(*bits, loss)),
        }));
        lines
    }
}

fn reason(bits: u8, loss: &Loss) -> String {
    match loss {
        Loss::Accuracy(drop) => format!("with {bits} bits accuracy falls by {} points", number(100.0 * drop)),
        Loss::Proofs(1) => format!("with {bits} bits a ball is no longer proved"),
        Loss::Proofs(count) => format!("with {bits} bits {count} balls are no longer proved"),
    }
}
