//! The float32 lattice: its order as integers, and rounding onto it.

/// An integer that orders finite float32 values (both zeros are 0).
pub fn key(x: f32) -> i64 {
    let bits = x.to_bits();
    let magnitude = (bits & 0x7fff_ffff) as i64;
    if bits >> 31 == 0 { magnitude } else { -magnitude }
}

/// The float32 with this [`key`]; keys beyond the largest finite value give the largest finite value.
pub fn from_key(k: i64) -> f32 {
    let magnitude = k.unsigned_abs().min(0x7f7f_ffff) as u32;
    let value = f32::from_bits(magnitude);
    if k < 0 { -value } else { value }
}

/// Smallest finite float32 for which a monotone predicate (false then true) holds; `None` if it never does.
pub fn first_true(predicate: impl Fn(f32) -> bool) -> Option<f32> {
    let largest = key(f32::MAX);
    first_key_true(-largest, largest, |k| predicate(from_key(k))).map(from_key)
}

/// Smallest integer in [lo, hi] for which a monotone predicate (false then true) holds; `None` if it never does.
pub fn first_key_true(lo: i64, hi: i64, predicate: impl Fn(i64) -> bool) -> Option<i64> {
    if lo > hi || !predicate(hi) {
        return None;
    }
    let (mut lo, mut hi) = (lo, hi);
    while lo < hi {
        let mid = lo + (hi - lo) / 2;
        if predicate(mid) {
            hi = mid;
        } else {
            lo = mid + 1;
        }
    }
    Some(hi)
}

/// Largest float32 not above x.
pub fn floor_f64(x: f64) -> f32 {
    let y = x as f32;
    if y as f64 > x { y.next_down() } else { y }
}

/// Smallest float32 not below x.
pub fn ceil_f64(x: f64) -> f32 {
    -floor_f64(-x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_floats() {
        let xs = [f32::MIN, -1.5, -1e-45, 0.0, 1e-45, 1.0, f32::MAX];
        for pair in xs.windows(2) {
            assert!(key(pair[0]) < key(pair[1]));
            assert_eq!(from_key(key(pair[0])), pair[0]);
        }
    }

    #[test]
    fn bisection_finds_the_first() {
        assert_eq!(first_true(|x| x >= 0.3), Some(0.3));
        assert_eq!(first_true(|x| x > 0.0), Some(f32::from_bits(1)));
        assert_eq!(first_true(|_| false), None);
    }
}
