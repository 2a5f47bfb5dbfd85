//! What is printed.

use anyhow::Result;

use super::folder::Folder;
use super::strategy::{Costs, LayerPlan, Strategy};
use crate::format::{Table, grouped, percent};
use crate::session::Session;
use quaver::quantize::preserve::{Mark, Rounding};

/// Prints a strategy, as text or as JSON.
pub fn print(strategy: &Strategy, folder: &Folder, session: &mut Session<'_>) -> Result<()> {
    if session.json {
        return session.line(&strategy.json());
    }
    layers(strategy).write(session.out)?;
    session.say(work(strategy))?;
    if strategy.resumed > 0 {
        session.say(format!("{} facts were known from before", grouped(strategy.resumed)))?;
    }
    if strategy.front.len() > 1 {
        session.say("what other networks give:")?;
        front(strategy).write(session.out)?;
    }
    for line in certificates(strategy) {
        session.say(line)?;
    }
    let rounding = if strategy.best.rounding == Rounding::Learned { ", learned rounding" } else { "" };
    let total: u32 = strategy.best.bits.iter().map(|b| u32::from(*b)).sum();
    let kept = format!("{} of {} properties proved with {total} bits in all", strategy.properties, strategy.properties);
    session.say(format!("{kept}{rounding}{}", accuracy(strategy)))?;
    session.say(format!("wrote {}", folder.path.display()))
}

/// What was done.
fn work(strategy: &Strategy) -> String {
    if let Some((sets, bits)) = strategy.preimages {
        return format!("sets of values found in {sets:.2} s, bits in {bits:.2} s; {:.2} s in all", strategy.seconds);
    }
    let account = &strategy.account;
    let end = if account.is_complete { "to its end" } else { "until time was over" };
    format!(
        "search {end}: {} networks verified, {} refuted, {} undecided, {:.2} s",
        account.verified, account.refuted, account.undecided, strategy.seconds
    )
}

fn layers(strategy: &Strategy) -> Table {
    let mut table = Table::new(&["layer", ">bits", "fixed point", "why not fewer"]);
    for LayerPlan { name, bits, integer, why, .. } in &strategy.layers {
        let point = integer.map_or("-".into(), |i| format!("{i}.{}", i32::from(*bits) - i));
        table.row([name.clone(), bits.to_string(), point, why.clone()]);
    }
    table
}

fn front(strategy: &Strategy) -> Table {
    let mut table = Table::new(&["bits", ">in all", ">bytes", ">bit operations", ">proved", ">accuracy"]);
    for (Costs { bits, bytes, operations }, Mark { candidate, certified, wrong, .. }) in &strategy.front {
        let list = candidate.bits.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
        let learned = if candidate.rounding == Rounding::Learned { " learned" } else { "" };
        let right =
            wrong.zip(strategy.rows).map_or("-".into(), |(w, (rows, _))| percent((rows - w) as u64, rows as u64));
        table.row([
            list + learned,
            bits.to_string(),
            grouped(*bytes as usize),
            grouped(*operations as usize),
            format!("{certified}/{}", strategy.properties),
            right,
        ]);
    }
    table
}

fn accuracy(strategy: &Strategy) -> String {
    let Some(((rows, original), wrong)) = strategy.rows.zip(strategy.wrong()) else { return String::new() };
    let of = |wrong: usize| percent((rows - wrong) as u64, rows as u64);
    format!("; accuracy {} (model {})", of(wrong), of(original))
}

fn certificates(strategy: &Strategy) -> Vec<String> {
    let Some(written) = &strategy.certificates else { return vec![] };
    let accepted = if written.accepted { ", accepted by the checker" } else { "" };
    let mut lines = vec![format!("{} certificates{accepted}", written.count)];
    lines.extend(written.missing.iter().map(|why| format!("no certificate: {why}")));
    lines
}
