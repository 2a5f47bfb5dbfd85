//! The models of a query's networks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use quaver::model::lower::Lowered;
use quaver::vnnlib::{ElementType, Equivalence, Spec, Version};

use super::Args;
use crate::load;
use crate::session::{Files, fail};

/// `f=/path/to/model.onnx`.
pub fn named(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !path.is_empty() => Ok((name.into(), path.into())),
        _ => Err(format!("`{text}` names no model: write NAME=MODEL.onnx")),
    }
}

/// Real arithmetic where the query says so; else the float32 whose net holds every order of summation.
pub fn default_profile(spec: &Spec) -> &'static str {
    let mut tensors = spec.networks.iter().flat_map(|n| n.inputs.iter().chain(&n.outputs));
    if tensors.any(|t| t.element != ElementType::Real) { "float32" } else { "real" }
}

/// The lowered model of each network; networks that are declared equal share one.
pub fn load(args: &Args, spec: &Spec, profile: &str, files: Files) -> Result<Vec<Arc<Lowered>>> {
    let given = paths(args, spec)?;
    let mut nets: Vec<Arc<Lowered>> = vec![];
    for (network, path) in spec.networks.iter().zip(&given) {
        let net = match (network.same, path) {
            (Some(Equivalence::EqualTo(other)), _) => nets[other].clone(),
            (_, Some(path)) => Arc::new(load::lowered(files, path, Some(profile))?.lowered),
            // Local invariant: `paths` found one.
            (_, None) => unreachable!("every network has a model"),
        };
        nets.push(net);
    }
    Ok(nets)
}

/// The model's file for each network; none for those that are declared equal to another.
pub fn paths<'a>(args: &'a Args, spec: &Spec) -> Result<Vec<Option<&'a Path>>> {
    let wanting: Vec<&str> = spec.networks.iter().filter(|n| !is_equal(n)).map(|n| &n.name[..]).collect();
    let mut given: Vec<(&str, &Path)> = args.network.iter().map(|(n, p)| (&n[..], p.as_path())).collect();
    if let ([only], Some(model)) = (&wanting[..], &args.model) {
        given.push((only, model));
    } else if args.model.is_some() {
        let problem =
            format!("the query declares {} networks, and the model is given without a name", spec.networks.len());
        return Err(fail(problem, format!("give each with --network NAME=MODEL: {}", wanting.join(", "))));
    }
    if let (Version::V1, [one]) = (spec.version, &given[..]) {
        return Ok(vec![Some(one.1)]);
    }
    let surplus =
        given.iter().enumerate().find(|(i, g)| !wanting.contains(&g.0) || given[..*i].iter().any(|o| o.0 == g.0));
    if let Some((_, (name, _))) = surplus {
        let problem = format!("no model is needed for `{name}`, or two are given");
        return Err(fail(problem, cure(spec, &wanting)));
    }
    let of = |n: &quaver::vnnlib::Network| {
        if is_equal(n) {
            return Ok(None);
        }
        let found = given.iter().find(|g| g.0 == n.name);
        found.map(|g| Some(g.1)).ok_or_else(|| fail(format!("network `{}` has no model", n.name), cure(spec, &wanting)))
    };
    spec.networks.iter().map(of).collect()
}

fn is_equal(network: &quaver::vnnlib::Network) -> bool {
    matches!(network.same, Some(Equivalence::EqualTo(_)))
}

fn cure(spec: &Spec, wanting: &[&str]) -> String {
    match spec.version {
        Version::V1 => "give one model: quaver verify QUERY MODEL.onnx".into(),
        Version::V2 => {
            let each: Vec<String> = wanting.iter().map(|name| format!("--network {name}=MODEL.onnx")).collect();
            format!("give {}", each.join(" "))
        }
    }
}
