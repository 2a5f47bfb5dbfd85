//! Numbers in text that are read as they were written, infinities too: decimal strings with as many digits as tell a binary64 number from all others.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

pub fn serialize<S: Serializer>(numbers: &[f64], s: S) -> Result<S::Ok, S::Error> {
    numbers.iter().map(|x| format!("{x:?}")).collect::<Vec<_>>().serialize(s)
}

pub fn deserialize<'d, D: Deserializer<'d>>(d: D) -> Result<Vec<f64>, D::Error> {
    Vec::<String>::deserialize(d)?.iter().map(|text| number(text)).collect()
}

fn number<E: Error>(text: &str) -> Result<f64, E> {
    match text.parse::<f64>() {
        Ok(x) if !x.is_nan() => Ok(x),
        _ => Err(E::custom(format!("`{text}` is not a number"))),
    }
}

/// A single number.
pub mod one {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(x: &f64, s: S) -> Result<S::Ok, S::Error> {
        format!("{x:?}").serialize(s)
    }

    pub fn deserialize<'d, D: Deserializer<'d>>(d: D) -> Result<f64, D::Error> {
        super::number(&String::deserialize(d)?)
    }
}
