//! One encounter as an SVG.

use std::fmt::Write;

use crate::dynamics::Craft;

/// A path with its name and how it is drawn.
pub struct Line {
    pub name: String,
    pub style: &'static str,
    pub path: Vec<Craft>,
}

const SIZE: f64 = 640.0;
const MARGIN: f64 = 24.0;

/// The lines, in one scale; where each begins is marked.
pub fn svg(lines: &[Line], title: &str) -> String {
    let points = || lines.iter().flat_map(|l| l.path.iter().map(|c| c.at));
    let ends = |i: usize| {
        points()
            .map(|p| p[i])
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi): (f64, f64), x| (lo.min(x), hi.max(x)))
    };
    let (x, y) = (ends(0), ends(1));
    let feet = (x.1 - x.0).max(y.1 - y.0).max(1.0);
    let scale = (SIZE - 2.0 * MARGIN) / feet;
    let place = |p: [f64; 2]| (MARGIN + (p[0] - x.0) * scale, MARGIN + (y.1 - p[1]) * scale);
    let (width, height) = (2.0 * MARGIN + (x.1 - x.0) * scale, 2.0 * MARGIN + (y.1 - y.0) * scale);
    let (width, legend) = (width.max(420.0), 20.0 * lines.len() as f64 + 44.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {:.0}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{MARGIN}\" y=\"18\">{title}</text>\n",
        height + legend
    );
    for line in lines {
        let at = |c: &Craft| format!("{:.1},{:.1}", place(c.at).0, place(c.at).1);
        let path: Vec<String> = line.path.iter().map(at).collect();
        let _ = writeln!(out, "<polyline fill=\"none\" {} points=\"{}\"/>", line.style, path.join(" "));
        if let Some((x, y)) = line.path.first().map(|c| place(c.at)) {
            let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"black\"/>");
        }
    }
    for (i, line) in lines.iter().enumerate() {
        let y = height + 20.0 * i as f64 + 8.0;
        let (end, text) = (MARGIN + 40.0, MARGIN + 50.0);
        let _ = writeln!(out, "<path {} d=\"M{MARGIN} {y:.0}H{end}\"/>", line.style);
        let _ = writeln!(out, "<text x=\"{text}\" y=\"{:.0}\">{}</text>", y + 4.0, line.name);
    }
    let (bar, y) = (10_000.0 * scale, height + 20.0 * lines.len() as f64 + 10.0);
    let _ = writeln!(out, "<path stroke=\"black\" d=\"M{MARGIN} {y:.0}h{bar:.1}\"/>");
    let _ = writeln!(out, "<text x=\"{:.0}\" y=\"{:.0}\">10,000 ft</text>\n</svg>", MARGIN + bar + 8.0, y + 4.0);
    out
}
