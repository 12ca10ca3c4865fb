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
    program::{ORPHAN_LIMIT, Options, find_in_path},
    wait::{pause, with_timeout},
};

/// Timeout of the start, long enough to load the data of a developer.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Finds the server program.
///
/// # Errors
///
/// Fails when Redis is not installed.
pub(super) fn find() -> anyhow::Result<PathBuf> {
    find_in_path("redis-server")
        .context("Redis is not installed; on Debian and Ubuntu, the package is redis-server")
}

/// Starts the server. First ends a server that an earlier run left running.
///
/// # Errors
///
/// Fails when the server cannot be started or the earlier server does not end.
pub(super) async fn spawn(
    program: &Path,
    dir: &DataDir,
    group: &mut Group,
    options: Options,
) -> anyhow::Result<()> {
    let data = dir.make_server_dir("redis")?;
    let socket = dir.redis_socket();
    with_timeout(ORPHAN_LIMIT, "the end of Redis of an earlier run", async {
        while let Ok(mut connection) = UnixStream::connect(&socket).await {
            // This process has locked the directory, so nobody uses the earlier server. An error is
            // ignored, because the server may already be shutting down.
            let _ = connection.write_all(b"SHUTDOWN\r\n").await;
            pause().await;
        }
        Ok(())
    })
    .await?;

    let mut command = dir.user.command(program, &dir.servers_dir);
    command
        .args(["--port", "0", "--unixsocketperm", "700", "--unixsocket"])
        .arg(&socket)
        .arg("--dir")
        .arg(&data)
        .args(["--save", ""])
        .args(["--appendonly", if options.durable { "yes" } else { "no" }]);
    group.spawn("Redis", dir.path.join("redis.log"), command)
}

/// Waits until the server is ready for commands.
///
/// # Errors
///
/// Fails when a server of the group ends, or when the timeout passes.
pub(super) async fn wait_until_ready(dir: &DataDir, group: &mut Group) -> anyhow::Result<()> {
    let socket = dir.redis_socket();
    with_timeout(READY_LIMIT, "Redis's readiness", async {
        while !ping(&socket).await.unwrap_or(false) {
            group.check_members()?;
            pause().await;
        }
        Ok(())
    })
    .await
}

/// Whether the server replies to PING with PONG. A server that loads its data replies with an
/// error.
async fn ping(socket: &Path) -> std::io::Result<bool> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).await?;
    Ok(&reply == b"+PONG\r\n")
}
