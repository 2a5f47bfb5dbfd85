//! The models that a property is about, as one network.

use sha2::{Digest, Sha256};

use crate::file::Header;
use crate::net::Net;
use crate::property::{Network, Property};
use crate::{onnx, pair};

/// A model file.
#[derive(Clone, Debug)]
pub struct Given {
    /// The network that it is, as the property names it; none if there is only one.
    pub name: Option<String>,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Whether bytes have the digest that a header names.
pub fn agrees(digest: &str, bytes: &[u8], what: &str) -> Result<(), String> {
    let own = sha256(bytes);
    match digest == own {
        true => Ok(()),
        false => Err(format!("header: the certificate is for another {what} (SHA-256 {digest}, not {own})")),
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The network that a property is about, with what its arithmetic takes for granted.
///
/// # Errors
/// If a model is missing, is not one that the header names, or is not understood.
pub fn network(given: &[Given], header: &Header, property: &Property) -> Result<(Net, Vec<String>), String> {
    let profile = header.get("profile")?;
    let read = |network: &Network| {
        let model = of(given, network, property)?;
        let (net, assumed) = onnx::read(&model.bytes, profile).map_err(|e| format!("{}: {e}", network.label()))?;
        fits(network, &net).map(|()| (net, assumed))
    };
    let wanted: Vec<&Network> = property.networks.iter().filter(|n| n.equal_to.is_none()).collect();
    if given.len() > wanted.len() {
        return Err(format!("{} models are given for {} networks", given.len(), wanted.len()));
    }
    match &property.networks[..] {
        [only] => {
            agrees(header.get("model")?, &of(given, only, property)?.bytes, "model")?;
            read(only)
        }
        [first, second] => {
            if profile != "real" {
                return Err(format!("two networks are understood under the profile `real` only, not `{profile}`"));
            }
            let digest = |n: &&Network| Ok(format!("{} {}", n.name, sha256(&of(given, n, property)?.bytes)));
            let own = wanted.iter().map(digest).collect::<Result<Vec<_>, String>>()?;
            let named: Vec<&String> = header.lines.iter().filter(|l| l.0 == "network").map(|l| &l.1).collect();
            if !own.iter().eq(named.iter().copied()) {
                let named = named.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", ");
                return Err(format!(
                    "header: the certificate is for other models (SHA-256 {named}, not {})",
                    own.join(", ")
                ));
            }
            let (net, assumed) = read(first)?;
            let other = if second.equal_to.is_some() { net.clone() } else { read(second)?.0 };
            fits(second, &other)?;
            Ok((pair::merged(net, other)?, assumed))
        }
        networks => Err(format!("{} networks are not supported, only one or two", networks.len())),
    }
}

/// The model of a network.
fn of<'g>(given: &'g [Given], network: &Network, property: &Property) -> Result<&'g Given, String> {
    let is_own = |g: &&Given| g.name.as_ref().is_none_or(|name| *name == network.name || network.name.is_empty());
    let has_one = property.networks.iter().filter(|n| n.equal_to.is_none()).count() == 1;
    let mut found = given.iter().filter(|g| has_one || g.name.is_some()).filter(is_own);
    match (found.next(), found.next()) {
        (Some(model), None) => Ok(model),
        _ => Err(format!("{} has no model, or several: give NAME=MODEL for each network", network.label())),
    }
}

/// Whether a net is as the property declares it.
fn fits(network: &Network, net: &Net) -> Result<(), String> {
    let (inputs, outputs) = (net.values[net.input].len(), net.values[net.output].len());
    if (inputs, outputs) == (network.inputs, network.outputs) {
        return Ok(());
    }
    let (n, m) = (network.inputs, network.outputs);
    Err(format!("the property is about {n} inputs and {m} outputs, {} has {inputs} and {outputs}", network.label()))
}
