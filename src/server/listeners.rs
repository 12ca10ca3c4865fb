//! Where the server listens.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::net::TcpListener;

use crate::config::{DEFAULT_HTTP_ADDR, Server};

/// The open ports.
pub struct Listeners {
    /// For gRPC.
    pub grpc: TcpListener,
    /// For metrics and probes over HTTP; `None` where they are not served.
    pub http: Option<TcpListener>,
}

impl Listeners {
    /// Listens where the settings say.
    ///
    /// # Errors
    /// When an address can't be had. The default for HTTP is done without where
    /// somebody else has it: nobody asked for it.
    pub async fn bind(config: &Server) -> anyhow::Result<Self> {
        let grpc = bind(config.addr).await?;
        let http = match config.http_addr {
            None => None,
            Some(addr) => match bind(addr).await {
                Err(error) if addr == DEFAULT_HTTP_ADDR => {
                    tracing::warn!("no metrics and no probes over HTTP: {error:#}; set HTTP_ADDR");
                    None
                }
                bound => Some(bound?),
            },
        };
        Ok(Self { grpc, http })
    }
}

async fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).await.with_context(|| format!("can't listen on {addr}"))
}
