//! Results: a CSV file, lines, a summary, and disagreements that nobody can miss.

use std::fs::File;
use std::io::Write;

use anyhow::Result;

/// One instance's result.
pub struct Line {
    pub name: String,
    pub expected: String,
    pub verdict: String,
    pub wall_s: f64,
    pub cpu_s: Option<f64>,
    pub rss_mb: Option<f64>,
    pub subproblems: Option<u64>,
    /// Whether the verdict contradicts the expected one.
    pub wrong: bool,
}

/// Verdicts that say something.
pub struct Kind {
    /// The two that settle an instance.
    pub settled: [&'static str; 2],
}

/// Results so far.
pub struct Report {
    kind: Kind,
    file: Option<File>,
    lines: Vec<Line>,
    cpu_s: f64,
    peak_mb: f64,
}

impl Report {
    /// No results, and the head of the table.
    pub fn new(kind: Kind, mut file: Option<File>) -> Result<Report> {
        if let Some(file) = &mut file {
            writeln!(file, "instance,expected,verdict,wall_s,cpu_s,rss_mb,subproblems")?;
        }
        Ok(Report { kind, file, lines: vec![], cpu_s: 0.0, peak_mb: 0.0 })
    }

    /// Shows and keeps a result.
    pub fn add(&mut self, line: Line, of: usize) -> Result<()> {
        let optional = |x: Option<f64>| x.map_or(String::new(), |x| format!("{x:.3}"));
        let (cpu, rss) = (optional(line.cpu_s), optional(line.rss_mb));
        let subproblems = line.subproblems.map_or(String::new(), |n| n.to_string());
        if let Some(file) = &mut self.file {
            let (name, expected, verdict) = (&line.name, &line.expected, &line.verdict);
            writeln!(file, "{name},{expected},{verdict},{:.3},{cpu},{rss},{subproblems}", line.wall_s)?;
            file.flush()?;
        }
        let width = of.to_string().len();
        let expected = if line.expected.is_empty() { String::new() } else { format!("  expected {}", line.expected) };
        println!(
            "{:>width$}/{of}  {:<10} {:>8.3} s  {}{expected}",
            self.lines.len() + 1,
            line.verdict,
            line.wall_s,
            line.name
        );
        if line.wrong {
            // Bold: one of the two is wrong, and it may be a proof.
            println!("\x1b[1mWRONG\x1b[0m  {}: {} where {} is published", line.name, line.verdict, line.expected);
        }
        self.lines.push(line);
        Ok(())
    }

    /// Counts what a process used.
    pub fn used(&mut self, cpu_s: f64, peak_mb: f64) {
        self.cpu_s += cpu_s;
        self.peak_mb = self.peak_mb.max(peak_mb);
    }

    /// Prints the summary; whether no verdict is contradicted.
    pub fn finish(&self) -> bool {
        let count = |verdict: &str| self.lines.iter().filter(|l| l.verdict == verdict).count();
        let [first, second] = self.kind.settled;
        let (n, a, b) = (self.lines.len(), count(first), count(second));
        let mut times: Vec<f64> = self.lines.iter().map(|l| l.wall_s).collect();
        times.sort_by(f64::total_cmp);
        let wrong = self.lines.iter().filter(|l| l.wrong).count();
        let possible = self.lines.iter().filter(|l| self.kind.settled.contains(&&l.expected[..])).count();
        let agree = self
            .lines
            .iter()
            .filter(|l| l.verdict == l.expected && self.kind.settled.contains(&&l.verdict[..]))
            .count();
        println!("\nsolved {} of {n}: {first} {a}, {second} {b}, neither {}", a + b, n - a - b);
        println!("published {possible}, of which {agree} the same, {wrong} contradicted");
        let median = times.get(n / 2).copied().unwrap_or(0.0);
        println!(
            "seconds: median {median:.3}, total {:.1}, max {:.3}",
            times.iter().sum::<f64>(),
            times.last().unwrap_or(&0.0)
        );
        println!("cpu seconds: total {:.1}; peak MB: {:.1}", self.cpu_s, self.peak_mb);
        wrong == 0
    }
}
