//! A small HTTP client, for Patroni, etcd and metrics.

use std::time::Duration;

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Sends an HTTP request, and returns the reply with its headers.
///
/// # Errors
/// Returns an error when there is no reply in time.
pub async fn request(
    address: &str,
    method: &str,
    path: &str,
    body: &str,
    limit: Duration,
) -> anyhow::Result<String> {
    let text = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(text.as_bytes()).await?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await?;
        anyhow::Ok(reply)
    };
    timeout(limit, exchange).await.with_context(|| format!("{address} did not reply"))?
}
