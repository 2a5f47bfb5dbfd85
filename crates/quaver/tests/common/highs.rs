//! HiGHS for tests.

use std::sync::Arc;

use quaver::lp::{Highs, Solver, find_highs};

/// HiGHS, or a message that the test is skipped.
pub fn highs() -> Option<Arc<dyn Solver>> {
    let python = std::env::var("QUAVER_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let loaded = find_highs(&python).map_err(|e| e.to_string());
    match loaded.and_then(|path| Highs::load(Some(&path)).map_err(|e| e.to_string())) {
        Ok(highs) => Some(Arc::new(highs)),
        Err(why) => {
            println!("skipped: {why}");
            None
        }
    }
}
