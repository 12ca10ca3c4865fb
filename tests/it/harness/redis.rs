//! The shared Redis, asked directly.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::Cluster;

/// Sends one command to Redis; the whole reply.
pub async fn redis(command: &str) -> String {
    let mut stream = UnixStream::connect(Cluster::get().redis_socket()).await.expect("Redis");
    stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).await.expect("sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.expect("a reply");
    reply
}
