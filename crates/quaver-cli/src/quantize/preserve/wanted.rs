//! The properties that are to be kept, and their texts.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use quaver::model::lower::Lowered;
use quaver::net::execute;
use quaver::property::vnnlib::Problem;
use quaver::property::{Robustness, Ties};
use quaver::quantize::preimage::Preimage;
use quaver::quantize::preserve::Wanted;
use quaver::verify::Options;
use quaver::vnnlib;

use super::preimage::Method;
use super::{Dropped, Job, backdoor};
use crate::equivalence::Areas;
use crate::format::argmax;
use crate::npy::Array;
use crate::session::{Session, fail};
use crate::spec::draft::Draft;

/// A property and the query that says the same: an input that satisfies it refutes the property.
pub struct Property {
    pub wanted: Wanted,
    pub text: String,
    /// Known already.
    pub preimage: Option<Preimage>,
}

/// Everything that --preserve names; beside it, why inputs are left out.
pub fn read(
    job: &Job<'_>,
    original: &Arc<Lowered>,
    (options, method): (&Options, Option<&Method>),
    session: &mut Session<'_>,
) -> Result<(Vec<Property>, Vec<Dropped>)> {
    let (mut properties, mut left_out) = (vec![], vec![]);
    for what in &job.args.preserve.what {
        match what.as_str() {
            "robustness" => balls(job, original, session, &mut properties, &mut left_out)?,
            "backdoor" => properties.extend(backdoor::collect(job, original, options, method, session)?),
            path => queries(Path::new(path), original, &mut properties)?,
        }
    }
    Ok((properties, left_out))
}

/// The class of each row is kept in a ball around it.
fn balls(
    job: &Job<'_>,
    original: &Lowered,
    session: &Session<'_>,
    properties: &mut Vec<Property>,
    left_out: &mut Vec<Dropped>,
) -> Result<()> {
    let area = &job.args.refine.area;
    if area.inputs.is_none() {
        return Err(fail("robustness of what is not said", "give --inputs X.npy and --radius R"));
    }
    let areas = Areas::new(area, original, session.files)?;
    let labels = job.args.preserve.labels.as_deref().map(|path| labels(path, areas.rows, original, session));
    let labels = labels.transpose()?;
    let classes = original.net.node(original.net.outputs()[0]).len();
    if classes < 2 {
        return Err(fail(format!("the model has {classes} output"), "give a model with one score for each class"));
    }
    for i in 0..areas.len() {
        let area = areas.at(i, original, original)?;
        let class = argmax(&execute(&original.net, std::slice::from_ref(&area.start), 1)[0].center);
        let label = labels.as_ref().map_or(class, |l| l[area.row]);
        let radius = areas.radii.len() > 1;
        let name = format!("row{}{}", area.row, if radius { format!("_radius{}", area.radius) } else { String::new() });
        if label != class {
            let why = format!("{name}: left out, for the model gives it class {class} and not {label}");
            left_out.push(Dropped { why, input: Some(area.start) });
            continue;
        }
        let mut draft = draft(original);
        draft.bound(&area.region)?;
        draft.contest(label, false);
        let claim = Robustness { region: area.region, center: Some(area.start), label, ties: Ties::Strict };
        let wanted = Wanted { name, query: claim.query(classes) };
        properties.push(Property { wanted, text: draft.plain(), preimage: None });
    }
    Ok(())
}

/// A query about numbers of the model's shapes.
pub fn draft(original: &Lowered) -> Draft {
    let shape = |id: quaver::net::NodeId| &original.net.node(id).shape;
    Draft::of_shapes(shape(original.net.inputs()[0]), shape(original.net.outputs()[0]))
}

/// The classes of rows.
fn labels(path: &Path, rows: usize, original: &Lowered, session: &Session<'_>) -> Result<Vec<usize>> {
    crate::robustness::labels(&Array::read(session.files, path)?, rows, original)
}

/// The arithmetic that is meant where none is named: exact, unless a query declares float32.
pub fn arithmetic(what: &[String]) -> Result<&'static str> {
    let files = what.iter().map(Path::new).filter(|path| path.is_file());
    let each = files.map(|path| Ok(crate::verify::networks::default_profile(&vnnlib::read(path)?)));
    let each: Vec<&str> = each.collect::<Result<_>>()?;
    Ok(if each.contains(&"float32") { "float32" } else { "real" })
}

/// The parts of a query.
fn queries(path: &Path, original: &Arc<Lowered>, properties: &mut Vec<Property>) -> Result<()> {
    let place = path.display();
    if !path.exists() {
        return Err(fail(
            format!("--preserve {place}: it is neither `robustness` nor `backdoor`, and no file"),
            "give --preserve robustness or backdoor, or the path of a query",
        ));
    }
    let spec = vnnlib::read(path)?;
    // What the certificates are about: the query without comments.
    let text = vnnlib::write(&spec);
    let problem = Problem::new(&spec, std::slice::from_ref(original)).map_err(|e| anyhow::anyhow!("{place}: {e}"))?;
    let stem = path.file_stem().map_or(place.to_string(), |s| s.to_string_lossy().into_owned());
    let many = problem.parts.len() > 1;
    for (k, part) in problem.parts.iter().enumerate() {
        if !Arc::ptr_eq(&part.lowered, original) {
            return Err(fail(
                format!("{place}: it compares inputs with outputs, or names several networks"),
                "give a query about the outputs of one network, with bounds on its inputs",
            ));
        }
        let name = if many { format!("{stem}_part{k}") } else { stem.clone() };
        properties.push(Property {
            wanted: Wanted { name, query: part.query.clone() },
            text: text.clone(),
            preimage: None,
        });
    }
    Ok(())
}
