//! The inputs of a convolution's positions, copied side by side.

/// For each position the places of its inputs, in an order in which many are neighbours.
pub(super) struct Gather {
    depth: usize,
    /// `[positions, depth]`.
    places: Vec<u32>,
    /// For each position the runs of neighbouring places, if copying these is better: (place, length).
    runs: Option<Vec<Vec<(u32, u32)>>>,
}

/// Mean length from which runs are copied as such.
const RUN: usize = 6;

impl Gather {
    /// From the places `[positions, depth]`; those from `width` on are constants. Also gives the order of the inputs.
    pub fn new(columns: &[u32], depth: usize, width: usize) -> (Gather, Vec<usize>) {
        let constants = |position: &&[u32]| position.iter().filter(|c| **c as usize >= width).count();
        let typical = columns.chunks(depth).min_by_key(constants).unwrap_or(&[]);
        let mut order: Vec<usize> = (0..depth).collect();
        order.sort_by_key(|&j| typical.get(j));
        let places: Vec<u32> = columns.chunks(depth).flat_map(|c| order.iter().map(|&j| c[j])).collect();
        let runs: Vec<Vec<(u32, u32)>> = places.chunks(depth).map(runs).collect();
        let count: usize = runs.iter().map(Vec::len).sum();
        let runs = (places.len() >= RUN * count).then_some(runs);
        (Gather { depth, places, runs }, order)
    }

    /// Copies the inputs of each position to the front of a row of `pitch` elements.
    pub fn copy<X: Copy>(&self, from: &[X], to: &mut [X], pitch: usize) {
        match &self.runs {
            Some(runs) => {
                for (runs, mut to) in runs.iter().zip(to.chunks_mut(pitch)) {
                    for &(place, length) in runs {
                        let (now, later) = to.split_at_mut(length as usize);
                        now.copy_from_slice(&from[place as usize..][..length as usize]);
                        to = later;
                    }
                }
            }
            None => {
                for (places, to) in self.places.chunks(self.depth).zip(to.chunks_mut(pitch)) {
                    places.iter().zip(to).for_each(|(&place, to)| *to = from[place as usize]);
                }
            }
        }
    }
}

fn runs(places: &[u32]) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = vec![];
    for &place in places {
        match runs.last_mut() {
            Some((start, length)) if *start + *length == place => *length += 1,
            _ => runs.push((place, 1)),
        }
    }
    runs
}
