//! Single-threaded matrix products over slices, and loops in the widest vectors of the machine; the only `unsafe` of the library but for
//! reading verified tables of files (`model/tflite/schema.rs`) and calling HiGHS (`lp/highs.rs`).

/// Element types that have a fast product.
pub trait Scalar: Copy + Default + Send + Sync + std::ops::AddAssign + std::ops::Mul<Output = Self> + 'static {
    /// The number one.
    const ONE: Self;
}
impl Scalar for f32 {
    const ONE: f32 = 1.0;
}
impl Scalar for f64 {
    const ONE: f64 = 1.0;
}

/// A matrix inside a slice: element (i, j) is at `i * row_stride + j * col_stride`.
#[derive(Clone, Copy)]
pub struct Strides {
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns.
    pub col: usize,
}

impl Strides {
    /// Row-major with this many columns.
    pub fn rows(columns: usize) -> Self {
        Strides { row: columns, col: 1 }
    }

    /// The transpose of a row-major matrix that has this many columns.
    pub fn transposed(columns: usize) -> Self {
        Strides { row: 1, col: columns }
    }

    /// One past the largest index of an m x n matrix.
    fn extent(self, m: usize, n: usize) -> usize {
        if m == 0 || n == 0 { 0 } else { (m - 1) * self.row + (n - 1) * self.col + 1 }
    }
}

/// c += a b, or c = a b when `accumulate` is false; a is m x k, b is k x n, c is m x n row-major. The order of summation is
/// unspecified; callers account for it with [`crate::num::round::gamma64`].
///
/// # Panics
/// If a slice is too short for its matrix.
pub fn product<T: Scalar>(
    (m, k, n): (usize, usize, usize),
    (a, a_strides): (&[T], Strides),
    (b, b_strides): (&[T], Strides),
    c: &mut [T],
    accumulate: bool,
) {
    product_within((m, k, n), (a, a_strides), (b, b_strides), (c, n), accumulate);
}

/// [`product`] where the rows of c are `c_row` apart; what lies between them stays as it is.
///
/// # Panics
/// If a slice is too short for its matrix, or the rows of c overlap.
pub fn product_within<T: Scalar>(
    (m, k, n): (usize, usize, usize),
    (a, a_strides): (&[T], Strides),
    (b, b_strides): (&[T], Strides),
    (c, c_row): (&mut [T], usize),
    accumulate: bool,
) {
    assert!(a.len() >= a_strides.extent(m, k) && b.len() >= b_strides.extent(k, n));
    assert!(c_row >= n && c.len() >= Strides::rows(c_row).extent(m, n));
    if m == 0 || n == 0 {
        return;
    }
    // SAFETY: the asserts above bound every index that the strides can reach, and c does not overlap a or b (it is
    // borrowed mutably).
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            c_row as isize,
            accumulate,
            a.as_ptr(),
            a_strides.col as isize,
            a_strides.row as isize,
            b.as_ptr(),
            b_strides.col as isize,
            b_strides.row as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Runs a closure that the compiler may turn into the widest vector instructions of this machine (what is not inlined into it stays
/// as it is). Every operation on numbers is the same and in the same order.
#[inline]
pub fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_definition() {
        let a: Vec<f64> = (0..6).map(f64::from).collect();
        let b: Vec<f64> = (0..12).map(|i| f64::from(i * i)).collect();
        let mut c = vec![1.0; 8];
        product((2, 3, 4), (&a, Strides::rows(3)), (&b, Strides::rows(4)), &mut c, true);
        for i in 0..2 {
            for j in 0..4 {
                let exact: f64 = (0..3).map(|p| a[i * 3 + p] * b[p * 4 + j]).sum();
                assert_eq!(c[i * 4 + j], exact + 1.0);
            }
        }
    }
}
