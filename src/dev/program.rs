//! What Postgres and Redis have in common as programs.

use std::{env, path::PathBuf, time::Duration};

/// Timeout of waiting for the end of an earlier, crashed run's server.
pub(super) const ORPHAN_LIMIT: Duration = Duration::from_secs(30);

/// How the servers store their data.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `true` keeps all data across crashes and power failures, for development. `false` is
    /// faster, for tests: Postgres syncs nothing and Redis writes nothing to disk.
    pub durable: bool,
}

/// The full path of a program in the PATH.
pub(super) fn in_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())
}
