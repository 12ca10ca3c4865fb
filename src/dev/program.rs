//! What Postgres and Redis have in common as programs.

use std::{env, path::PathBuf, time::Duration};

/// How long a server of an earlier, crashed run gets to end.
pub(super) const ORPHAN_LIMIT: Duration = Duration::from_secs(30);

/// How the servers treat their data.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `true` keeps everything across crashes and power cuts, as development wants. `false` trades
    /// that for speed, as tests want: Postgres syncs nothing and Redis writes nothing to disk.
    pub durable: bool,
}

/// The full path of a program that is found through the PATH.
pub(super) fn in_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())
}
