//! Number of rounds of a test that repeats a race.

use std::env;

/// Number of rounds of a test that searches for a rare order of events. This is `all` when
/// `FULL_ROUNDS` is set, as in CI, and otherwise a fifth of `all`.
pub fn rounds(all: usize) -> usize {
    if env::var_os("FULL_ROUNDS").is_some() { all } else { all.div_ceil(5) }
}
