//! The TCP ports that the server listens on.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::net::TcpListener;

use crate::config::{DEFAULT_HTTP_ADDR, Server};

/// The open ports.
pub struct Listeners {
    /// The port for gRPC.
    pub grpc: TcpListener,
    /// The port for metrics, probes and public keys over HTTP; `None` when HTTP is not served.
    pub http: Option<TcpListener>,
}

impl Listeners {
    /// Listens on the configured addresses.
    ///
    /// # Errors
    /// When an address cannot be used. If only the default HTTP address cannot be used, the server
    /// starts without HTTP, because the operator did not configure that address.
    pub async fn bind(config: &Server) -> anyhow::Result<Self> {
        let grpc = bind(config.addr).await?;
        let http = match config.http_addr {
            None => None,
            Some(addr) => match bind(addr).await {
                Err(error) if addr == DEFAULT_HTTP_ADDR => {
                    tracing::warn!("no metrics and no probes over HTTP: {error:#}; set HTTP_ADDR");
                    None
                }
                result => Some(result?),
            },
        };
        Ok(Self { grpc, http })
    }
}

async fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).await.with_context(|| format!("can't listen on {addr}"))
}
