//! Who gives the advisories, and flights by them.

use quaver::guard::kernels::Scratch;
use quaver::guard::kernels::float::FloatNet;
use quaver::guard::run::{Answer, Continuous, Memory};

use crate::dynamics::{Craft, Encounter, Turn};
use crate::networks::{BITS, Classifier};

/// What gives the advisories.
#[derive(Clone, Copy, PartialEq)]
pub enum System {
    /// The float32 networks.
    Float,
    /// The quantized networks with one of the bits.
    Plain(usize),
    /// Guards that begin with one of the bits, for each input anew.
    Anew(usize),
    /// Guards that begin with what was enough for the input before, whichever of the five classifiers it had.
    Continuous(usize),
}

impl System {
    /// What it is called.
    pub fn name(self) -> String {
        match self {
            System::Float => "float32".into(),
            System::Plain(i) => format!("INT{}", BITS[i]),
            System::Anew(i) => format!("guard from INT{}", BITS[i]),
            System::Continuous(i) => format!("continuous guard from INT{}", BITS[i]),
        }
    }
}

/// How often guards began with a network and answered with another, counted from INT4; the float network is the last.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    /// By first and last network.
    pub answers: [[u64; 5]; 5],
    /// Inputs that thresholds do not hold for.
    pub outside: u64,
}

impl Tally {
    /// Both together.
    pub fn plus(mut self, other: &Tally) -> Tally {
        let own = self.answers.iter_mut().flatten();
        own.zip(other.answers.iter().flatten()).for_each(|(a, b)| *a += b);
        self.outside += other.outside;
        self
    }

    fn count(&mut self, answer: Answer, from: usize, first: usize) {
        self.outside += u64::from(!answer.known);
        self.answers[from + first][answer.stage as usize + first] += 1;
    }
}

/// One system during one flight.
pub struct Pilot<'a> {
    system: System,
    classifiers: &'a [Classifier],
    state: Continuous,
    memory: Memory,
    answers: Vec<Answer>,
    scratch: Scratch,
    scores: Vec<i64>,
    pub tally: Tally,
}

impl<'a> Pilot<'a> {
    /// At the begin of a flight.
    pub fn new(system: System, classifiers: &'a [Classifier]) -> Self {
        let (state, memory, scratch, tally) = Default::default();
        Pilot { system, classifiers, state, memory, answers: vec![], scratch, scores: vec![], tally }
    }

    /// The advisory for an input, by the classifier of the advisory before.
    pub fn advise(&mut self, previous: usize, x: &[f32; 5]) -> usize {
        let classifier = &self.classifiers[previous];
        match self.system {
            System::Float => advised(&classifier.float, x),
            System::Plain(i) => {
                let net = &classifier.quantized[i];
                self.scores.clear();
                net.run(x, &mut self.scratch, &mut self.scores);
                net.scores().argmax(&self.scores)
            }
            System::Anew(i) => {
                self.answers.clear();
                classifier.guards[i].run(x, &mut self.memory, &mut self.answers);
                let answer = self.answers[0];
                let from = if answer.known { 0 } else { answer.stage as usize };
                self.tally.count(answer, from, i);
                answer.class as usize
            }
            System::Continuous(i) => {
                let (answer, from) = classifier.guards[i].next(x, &mut self.state, &mut self.memory);
                self.tally.count(answer, from, i);
                answer.class as usize
            }
        }
    }
}

/// The class of a float network: the first of the largest outputs.
pub fn advised(net: &FloatNet, x: &[f32; 5]) -> usize {
    let y = net.run(x);
    (1..y.len()).fold(0, |best, i| if y[i] > y[best] { i } else { best })
}

/// A flight.
pub struct Flight {
    /// The own aircraft after each second.
    pub path: Vec<Craft>,
    /// How often a network was asked.
    pub asked: u64,
    /// The least distance at a whole second.
    pub closest: f64,
}

/// Flies for some seconds: an advisory by `advise` for the last one and the input, and a second with it.
pub fn fly(
    start: &Encounter,
    seconds: usize,
    turns: &[Turn; 5],
    mut advise: impl FnMut(usize, &[f32; 5]) -> usize,
) -> Flight {
    let (mut now, mut advisory) = (*start, 0);
    let mut flight = Flight { path: Vec::with_capacity(seconds), asked: 0, closest: now.own.distance(&now.intruder) };
    for _ in 0..seconds {
        advisory = match now.input() {
            None => 0,
            Some(x) => {
                flight.asked += 1;
                advise(advisory, &x)
            }
        };
        now = Encounter { own: now.own.after(turns[advisory]), intruder: now.intruder.after(turns[0]) };
        flight.closest = flight.closest.min(now.own.distance(&now.intruder));
        flight.path.push(now.own);
    }
    flight
}
