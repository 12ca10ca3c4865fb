//! How often a test repeats a race.

use std::env;

/// The rounds of a test that looks for a rare order of events. With `FULL_ROUNDS` set, as
/// in CI, these are all of them, and otherwise a fifth.
pub fn rounds(all: usize) -> usize {
    if env::var_os("FULL_ROUNDS").is_some() { all } else { all.div_ceil(5) }
}
