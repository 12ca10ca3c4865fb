//! Direct access to Redis.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    process::{Child, Command},
};

use super::{Cluster, wait_until};

/// Sends one command to the shared Redis and returns the whole reply.
pub async fn redis(command: &str) -> String {
    send(&Cluster::get().redis_socket(), command).await
}

async fn send(socket: &Path, command: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.expect("Redis listens");
    stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).await.expect("sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.expect("a reply");
    reply
}

/// A Redis for one test, for commands that would disturb other tests. Dropping the value stops the
/// Redis.
pub struct PrivateRedis {
    dir: TempDir,
    _process: Child,
}

impl PrivateRedis {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--unixsocket"]).arg(socket_path(dir.path()));
        command.current_dir(dir.path()).stdout(std::process::Stdio::null()).kill_on_drop(true);
        let server = Self { _process: command.spawn().expect("redis-server"), dir };
        wait_until(10, || async {
            UnixStream::connect(socket_path(server.dir.path())).await.is_ok()
        })
        .await;
        server
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", socket_path(self.dir.path()).display())
    }

    /// Path of the Unix socket.
    pub fn socket(&self) -> PathBuf {
        socket_path(self.dir.path())
    }

    /// Sends one command to this Redis and returns the whole reply.
    pub async fn ask(&self, command: &str) -> String {
        send(&socket_path(self.dir.path()), command).await
    }
}

fn socket_path(dir: &Path) -> PathBuf {
    dir.join("redis.sock")
}
