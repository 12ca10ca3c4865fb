//! Direct access to Redis.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    process::{Child, Command},
};

use super::{Cluster, until};

/// Sends one command to the shared Redis and returns the whole reply.
pub async fn redis(command: &str) -> String {
    ask(&Cluster::get().redis_socket(), command).await
}

async fn ask(socket: &Path, command: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.expect("Redis");
    stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).await.expect("sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.expect("a reply");
    reply
}

/// A Redis for one test, for commands that would disturb other tests. Dropping it stops it.
pub struct OwnRedis {
    dir: TempDir,
    _process: Child,
}

impl OwnRedis {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--unixsocket"]).arg(socket(dir.path()));
        command.current_dir(dir.path()).stdout(std::process::Stdio::null()).kill_on_drop(true);
        let own = Self { _process: command.spawn().expect("redis-server"), dir };
        until(10, || async { UnixStream::connect(socket(own.dir.path())).await.is_ok() }).await;
        own
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", socket(self.dir.path()).display())
    }

    /// Sends one command to this Redis and returns the whole reply.
    pub async fn ask(&self, command: &str) -> String {
        ask(&socket(self.dir.path()), command).await
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("redis.sock")
}
