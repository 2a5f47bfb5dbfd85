//! Certificates as bytes, for tests that change them.
#![allow(dead_code)] // each test makes use of a part

use std::io::{Read, Write};

use sha2::{Digest, Sha256};

/// The header, and the records unpacked.
pub fn opened(certificate: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let end = certificate.windows(2).position(|w| w == b"\n\n").unwrap() + 2;
    let mut records = vec![];
    flate2::read::MultiGzDecoder::new(&certificate[end..]).read_to_end(&mut records).unwrap();
    (certificate[..end].to_vec(), records)
}

pub fn closed(header: &[u8], records: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(header.to_vec(), flate2::Compression::fast());
    out.write_all(records).unwrap();
    out.finish().unwrap()
}

/// The SHA-256 of some bytes, as headers name it.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// A header that names another property.
pub fn readdressed(header: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    String::from_utf8(header.to_vec()).unwrap().replace(&digest(from), &digest(to)).into_bytes()
}

/// Reads records as the format says: where each begins, its kind, where the bounds of claims are, and the multipliers of choices.
pub struct Walker<'w> {
    bytes: &'w [u8],
    at: usize,
    pub records: Vec<(usize, u8)>,
    pub ends: Vec<usize>,
    pub multipliers: Vec<usize>,
}

impl<'w> Walker<'w> {
    pub fn new(bytes: &'w [u8]) -> Self {
        let mut walker = Walker { bytes, at: 0, records: vec![], ends: vec![], multipliers: vec![] };
        while walker.at < bytes.len() {
            walker.record();
        }
        walker
    }

    fn byte(&mut self) -> u8 {
        self.at += 1;
        self.bytes[self.at - 1]
    }

    fn number(&mut self) -> usize {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = self.byte();
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    fn numbers(&mut self, count: usize) {
        (0..count).for_each(|_| _ = self.number());
    }

    fn list(&mut self, size: usize) {
        self.at += self.number() * size;
    }

    fn choice(&mut self) {
        self.list(1);
        let count = self.number();
        self.multipliers.extend((0..count).map(|k| self.at + 4 * k));
        self.at += 4 * count;
    }

    fn tree(&mut self) {
        if self.byte() == 0 {
            return self.choice();
        }
        self.numbers(2);
        self.at += 16;
        self.tree();
        self.tree();
    }

    fn record(&mut self) {
        let start = self.at;
        let kind = self.byte();
        self.records.push((start, kind));
        match kind {
            0 => {}
            1 => {
                let cases = self.number();
                self.numbers(cases);
            }
            2 => {
                self.numbers(2);
                self.list(4);
                self.choice();
            }
            3 => self.numbers(1),
            4 => {
                self.numbers(1);
                let goals = self.number();
                self.numbers(goals + 1);
                self.at += 8;
            }
            5 => {
                self.numbers(4);
                self.at += 16;
            }
            6 => {
                self.numbers(2);
                for _ in 0..self.number() {
                    self.numbers(1);
                    self.ends.push(self.at);
                    self.at += 8;
                    let trees = self.byte();
                    (0..trees.count_ones()).for_each(|_| self.tree());
                }
            }
            _ => {
                self.numbers(1);
                self.list(8);
            }
        }
    }

    pub fn of_kind(&self, kind: u8) -> Vec<usize> {
        self.records.iter().filter(|r| r.1 == kind).map(|r| r.0).collect()
    }
}
