//! Operators that only move elements.

use std::rc::Rc;

use super::call::{Call, Known, Stored};
use super::lower::Lowering;
use crate::net::{Op, Source};

impl Lowering {
    pub(super) fn flatten(&mut self, call: &Call) -> Result<Known, String> {
        let x = call.input(0)?;
        let (rank, given) = (x.shape.len(), call.int("axis", 1)?);
        let axis = if given == rank as i64 { rank } else { axis(given, rank)? };
        let (outer, inner) = x.shape.split_at(axis);
        Ok(Known { shape: vec![outer.iter().product(), inner.iter().product()], data: x.data.clone() })
    }

    pub(super) fn reshape(&mut self, call: &Call) -> Result<Known, String> {
        call.only("allowzero", 0)?;
        let x = call.input(0)?;
        let wanted = call.ints_at("shape", 1, 0)?.ok_or("the shape is missing")?;
        let mut shape = vec![];
        for (i, &size) in wanted.iter().enumerate() {
            shape.push(match size {
                0 => *x.shape.get(i).ok_or("a size to be copied does not exist")?,
                -1 => 1,
                _ => usize::try_from(size).map_err(|_| format!("the size {size} is not understood"))?,
            });
        }
        let (elements, given) = (x.len(), shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)));
        let free: Vec<usize> = (0..shape.len()).filter(|&i| wanted[i] == -1).collect();
        match (&free[..], given) {
            (&[i], Some(given)) if given > 0 && elements % given == 0 => shape[i] = elements / given,
            ([], Some(given)) if given > 0 && given == elements => {}
            _ => return Err(format!("{:?} cannot take the shape {wanted:?}", x.shape)),
        }
        Ok(Known { shape, data: x.data.clone() })
    }

    pub(super) fn squeeze(&mut self, call: &Call) -> Result<Known, String> {
        let x = call.input(0)?;
        let drop = match call.ints_at("axes", 1, 13)? {
            Some(given) => distinct_axes(&given, x.shape.len())?,
            None => (0..x.shape.len()).filter(|&i| x.shape[i] == 1).collect(),
        };
        if let Some(i) = drop.iter().find(|&&i| x.shape[i] != 1) {
            return Err(format!("axis {i} has the size {}, not 1", x.shape[*i]));
        }
        let kept = (0..x.shape.len()).filter(|i| !drop.contains(i)).map(|i| x.shape[i]);
        Ok(Known { shape: kept.collect(), data: x.data.clone() })
    }

    pub(super) fn unsqueeze(&mut self, call: &Call) -> Result<Known, String> {
        let x = call.input(0)?;
        let given = call.ints_at("axes", 1, 13)?.ok_or("the axes are missing")?;
        let mut new = distinct_axes(&given, x.shape.len() + given.len())?;
        new.sort_unstable();
        let mut shape = x.shape.clone();
        new.into_iter().for_each(|i| shape.insert(i, 1));
        Ok(Known { shape, data: x.data.clone() })
    }

    pub(super) fn transpose(&mut self, call: &Call) -> Result<Known, String> {
        let x = call.input(0)?;
        let rank = x.shape.len();
        let order = match call.ints("perm")? {
            Some(given) => distinct_axes(&given, rank)?,
            None => (0..rank).rev().collect(),
        };
        if order.len() != rank {
            return Err(format!("perm does not name the {rank} axes"));
        }
        let steps = strides(&x.shape);
        let shape: Vec<usize> = order.iter().map(|&i| x.shape[i]).collect();
        let steps: Vec<usize> = order.iter().map(|&i| steps[i]).collect();
        self.room(&shape)?;
        Ok(self.moved(call.name(), x, walk(&shape, &steps), shape))
    }

    pub(super) fn pad(&mut self, call: &Call) -> Result<Known, String> {
        let mode = call.text("mode", "constant")?;
        if mode != "constant" {
            return Err(format!("the mode '{mode}' is not supported"));
        }
        let (_, x) = call.value(0)?;
        let pads = call.ints_at("pads", 1, 11)?.ok_or("the pads are missing")?;
        let pads = pads.iter().map(|&p| usize::try_from(p).map_err(|_| format!("the pad {p} is not supported")));
        let pads = pads.collect::<Result<Vec<_>, _>>()?;
        let fill = call.float_at("value", 2, 11)?.unwrap_or(0.0);
        if pads.len() != 2 * x.shape.len() || !fill.is_finite() {
            return Err(format!("{} pads with {fill} do not fit the shape {:?}", pads.len(), x.shape));
        }
        let (begin, end) = pads.split_at(x.shape.len());
        self.padded(call.name(), x, begin, end, fill)
    }

    /// A value with elements added at both ends of each axis; the value itself if there are none.
    pub(super) fn padded(
        &mut self,
        name: &str,
        x: &Known,
        begin: &[usize],
        end: &[usize],
        fill: f64,
    ) -> Result<Known, String> {
        let (Some(of), false) = (x.id(), begin.iter().chain(end).all(|&p| p == 0)) else { return Ok(x.clone()) };
        let sizes = x.shape.iter().zip(begin).zip(end);
        let shape: Vec<usize> = sizes.map(|((n, b), e)| n.saturating_add(*b).saturating_add(*e)).collect();
        self.room(&shape)?;
        let from = margins(&x.shape, begin, &shape);
        let from = from.iter().map(|p| p.map_or(Source::Constant(fill), |p| Source::Element(p as u32))).collect();
        Ok(self.push(name, shape, Op::Move { of, from }))
    }

    /// A computed value as numpy broadcasts it to a shape.
    pub(super) fn stretched(&mut self, call: &Call, x: &Known, shape: &[usize]) -> Result<Known, String> {
        let places = spread(&x.shape, shape)?;
        if x.len() < places.len() {
            self.room(shape)?;
        }
        Ok(self.moved(&format!("{}/broadcast", call.name()), x, places, shape.to_vec()))
    }

    /// The elements at some places of a tensor; the tensor itself in another shape if they are all in order.
    fn moved(&mut self, name: &str, x: &Known, places: Vec<usize>, shape: Vec<usize>) -> Known {
        if places.len() == x.len() && places.iter().enumerate().all(|(i, &place)| i == place) {
            return Known { shape, data: x.data.clone() };
        }
        let data = match &x.data {
            Stored::Reals(reals) => Stored::Reals(Rc::new(places.iter().map(|&p| reals[p]).collect())),
            Stored::Ints(ints) => Stored::Ints(Rc::new(places.iter().map(|&p| ints[p]).collect())),
            &Stored::Value(of) => {
                let from = places.iter().map(|&p| Source::Element(p as u32)).collect();
                return self.push(name, shape, Op::Move { of, from });
            }
        };
        Known { shape, data }
    }
}

/// The place of each element of a shape, in its order, in a tensor where a step along an axis is that long.
fn walk(shape: &[usize], steps: &[usize]) -> Vec<usize> {
    let mut places = vec![0];
    for (&size, &step) in shape.iter().zip(steps) {
        places = places.iter().flat_map(|&place| (0..size).map(move |i| place + i * step)).collect();
    }
    places
}

/// For each element of a shape its place in a smaller tensor within, or none in the margin.
pub(super) fn margins(inner: &[usize], begin: &[usize], shape: &[usize]) -> Vec<Option<usize>> {
    let mut places = vec![Some(0)];
    for (axis, step) in strides(inner).into_iter().enumerate() {
        let place = |i: usize| i.checked_sub(begin[axis]).filter(|&i| i < inner[axis]).map(|i| i * step);
        let along: Vec<Option<usize>> = (0..shape[axis]).map(place).collect();
        places = places.iter().flat_map(|&p| along.iter().map(move |&q| Some(p? + q?))).collect();
    }
    places
}

/// For each element of a shape its place in a tensor that numpy broadcasts to it.
pub(super) fn spread(from: &[usize], to: &[usize]) -> Result<Vec<usize>, String> {
    let skip = to.len().checked_sub(from.len());
    let Some(skip) = skip.filter(|&skip| from.iter().zip(&to[skip..]).all(|(&n, &m)| n == m || n == 1)) else {
        return Err(format!("the shape {from:?} cannot be broadcast to {to:?}"));
    };
    let own = strides(from).into_iter().zip(from).map(|(step, &size)| if size == 1 { 0 } else { step });
    Ok(walk(to, &[0].repeat(skip).into_iter().chain(own).collect::<Vec<_>>()))
}

/// The shape that two tensors have when numpy broadcasts them to each other.
pub(super) fn common_shape(a: &[usize], b: &[usize]) -> Vec<usize> {
    let size = |shape: &[usize], i: usize| shape.len().checked_sub(i).map_or(1, |i| shape[i]);
    (1..=a.len().max(b.len())).rev().map(|i| if size(a, i) == 1 { size(b, i) } else { size(a, i) }).collect()
}

fn strides(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect()
}

fn axis(given: i64, rank: usize) -> Result<usize, String> {
    let counted = if given < 0 { given + rank as i64 } else { given };
    usize::try_from(counted).ok().filter(|&i| i < rank).ok_or_else(|| format!("there is no axis {given}"))
}

fn distinct_axes(given: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    let axes = given.iter().map(|&a| axis(a, rank)).collect::<Result<Vec<_>, _>>()?;
    match axes.iter().enumerate().find(|(i, a)| axes[..*i].contains(a)) {
        Some((_, a)) => Err(format!("axis {a} is given twice")),
        None => Ok(axes),
    }
}
