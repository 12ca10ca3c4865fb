//! The private Redis.

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

/// Long enough to load what a developer has stored.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Finds the server program.
///
/// # Errors
///
/// When it is not installed.
pub(super) fn find() -> anyhow::Result<PathBuf> {
    in_path("redis-server")
        .context("Redis is not installed; on Debian and Ubuntu, the package is redis-server")
}

/// Starts the server, after the end of one that an earlier run may have left.
///
/// # Errors
///
/// When it cannot be started or the earlier server does not end.
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
            // As the directory is locked, nobody can be using it; it is probably ending already.
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
/// When a server of the group ends instead, or neither happens in time.
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

/// `false` while it is still loading its data.
async fn ping(socket: &Path) -> std::io::Result<bool> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).await?;
    Ok(&reply == b"+PONG\r\n")
}
