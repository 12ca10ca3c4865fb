//! The private Redis server.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::{
    data_dir::DataDir,
    group::Group,
    program::{ORPHAN_LIMIT, Options, in_path},
    wait::{pause, within},
};

/// Timeout of the start. It is long enough to load a developer's data.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Finds the server program.
///
/// # Errors
///
/// When Redis is not installed.
pub(super) fn find() -> anyhow::Result<PathBuf> {
    in_path("redis-server")
        .context("Redis is not installed; on Debian and Ubuntu, the package is redis-server")
}

/// Starts the server. First ends a server that an earlier run left behind.
///
/// # Errors
///
/// When the server cannot be started or the earlier server does not end.
pub(super) async fn spawn(
    program: &Path,
    dir: &DataDir,
    group: &mut Group,
    options: Options,
) -> anyhow::Result<()> {
    let data = dir.server_dir("redis")?;
    let socket = dir.redis_socket();
    within(ORPHAN_LIMIT, "the end of Redis of an earlier run", async {
        while let Ok(mut orphan) = UnixStream::connect(&socket).await {
            // The directory is locked, so nobody uses this server. It is probably ending
            // already.
            let _ = orphan.write_all(b"SHUTDOWN\r\n").await;
            pause().await;
        }
        Ok(())
    })
    .await?;

    let mut command = dir.user.command(program, &dir.home);
    command
        .args(["--port", "0", "--unixsocketperm", "700", "--unixsocket"])
        .arg(&socket)
        .arg("--dir")
        .arg(&data)
        .args(["--save", ""])
        .args(["--appendonly", if options.durable { "yes" } else { "no" }]);
    group.spawn("Redis", dir.path.join("redis.log"), command)
}

/// Waits until the server answers.
///
/// # Errors
///
/// When a server of the group ends, or the timeout passes.
pub(super) async fn ready(dir: &DataDir, group: &mut Group) -> anyhow::Result<()> {
    let socket = dir.redis_socket();
    within(READY_LIMIT, "Redis's readiness", async {
        while !ping(&socket).await.unwrap_or(false) {
            group.check()?;
            pause().await;
        }
        Ok(())
    })
    .await
}

/// Whether the server answers a PING. It does not while it loads its data.
async fn ping(socket: &Path) -> std::io::Result<bool> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).await?;
    Ok(&reply == b"+PONG\r\n")
}
