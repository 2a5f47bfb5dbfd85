//! Runs NSGA-II on a problem with known answers, for comparison with pymoo (`tools/nsga2_compare.py`):
//! `nsga2 NEEDS LEAST..MOST POPULATION GENERATIONS wide|narrow pareto|single RUNS` prints for each seed the members of the last population that violate
//! nothing.

use quaver::quantize::search::nsga2::{Options, Valued, minimise};
use quaver::quantize::search::{Bits, Objective, Oracle, Space, Variation};

/// Each layer needs so many bits; accuracy grows with bits.
struct Needs(Bits);

impl Oracle for Needs {
    fn layers(&self) -> usize {
        self.0.len()
    }

    fn violation(&mut self, bits: &[u8]) -> f64 {
        bits.iter().zip(&self.0).map(|(b, need)| f64::from(need.saturating_sub(*b))).sum()
    }

    fn refuted_by(&mut self, bits: &[u8]) -> Option<usize> {
        bits.iter().zip(&self.0).position(|(b, need)| b < need)
    }

    fn accuracy(&mut self, bits: &[u8]) -> f64 {
        1.0 - bits.iter().zip(1..).map(|(b, l)| f64::from(l) * 2f64.powi(-i32::from(*b))).sum::<f64>() / 16.0
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [needs, widths, population, generations, variation, objective, runs] = &arguments[..] else {
        return Err("usage: nsga2 NEEDS LEAST..MOST POPULATION GENERATIONS wide|narrow pareto|single RUNS".into());
    };
    let needs = needs.split(',').map(str::parse).collect::<Result<Bits, _>>()?;
    let (least, most) = widths.split_once("..").ok_or("widths are LEAST..MOST")?;
    let space = Space::uniform(vec![1; needs.len()], least.parse()?..=most.parse()?)?;
    let variation = if variation == "wide" { Variation::wide() } else { Variation::default() };
    let objective = if objective == "pareto" { Objective::BitsAndAccuracy } else { Objective::TotalBits };
    let (population, generations) = (population.parse()?, generations.parse()?);
    let start = std::time::Instant::now();
    let runs: u64 = runs.parse()?;
    let mut evaluated = 0;
    for seed in 0..runs {
        let options = Options { population, generations, variation, seed, start: vec![] };
        let found = minimise(&mut Needs(needs.clone()), &space, &objective, &options);
        evaluated += found.evaluated;
        let good: Vec<&Valued> = found.population.iter().filter(|v| v.violation == 0.0).collect();
        println!("{}", serde_json::to_string(&good)?);
    }
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    eprintln!("{:.3} ms a run, {} vectors evaluated", milliseconds / runs as f64, evaluated as f64 / runs as f64);
    Ok(())
}
