//! A single command to Redis.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::StoreAddress;

/// Timeout of a command.
const LIMIT: Duration = Duration::from_secs(2);

/// Runs a command, and returns the text of the reply in Redis's protocol.
///
/// # Errors
/// Returns an error when Redis is unavailable or replies with an error.
pub async fn redis_command(address: &StoreAddress, command: &str) -> anyhow::Result<String> {
    let reply = async {
        match address {
            StoreAddress::Unix(path) => exchange(UnixStream::connect(path).await?, command).await,
            StoreAddress::Tcp(address) => {
                exchange(TcpStream::connect(address).await?, command).await
            }
            StoreAddress::Leader(leader) => {
                let address = leader.borrow().clone();
                exchange(TcpStream::connect(address).await?, command).await
            }
        }
    };
    let reply = timeout(LIMIT, reply).await.context("Redis did not reply")??;
    ensure!(!reply.starts_with('-'), "Redis replied {reply}");
    Ok(reply)
}

/// Sends the command and ends the stream, so that Redis closes the connection after the reply. The
/// command `QUIT` would not work, because a sentinel does not have it.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    command: &str,
) -> anyhow::Result<String> {
    stream.write_all(format!("{command}\r\n").as_bytes()).await?;
    stream.shutdown().await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    ensure!(reply.ends_with("\r\n"), "an incomplete reply");
    Ok(reply)
}
