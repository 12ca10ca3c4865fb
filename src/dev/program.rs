//! Code that is common to the programs Postgres and Redis.

use std::{env, path::PathBuf, time::Duration};

/// Timeout of the wait for the end of a server that an earlier run left running.
pub(super) const ORPHAN_LIMIT: Duration = Duration::from_secs(30);

/// How the servers store their data.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// With `true`, all data survives crashes and power failures, for development. `false` is
    /// faster, for tests: Postgres does not sync its files, and Redis writes nothing to disk.
    pub durable: bool,
}

/// Finds a program in the PATH, and returns its full path.
pub(super) fn find_in_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())
}
