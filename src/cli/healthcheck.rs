//! The command `tenantry healthcheck`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, ensure};
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time};
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::config::Values;

const TIMEOUT: Duration = Duration::from_secs(3);

/// Fails unless the server is ready.
pub(super) async fn run(values: Values) -> anyhow::Result<()> {
    // With TLS, the server may require a client certificate, which this command does not have. So
    // this command checks the readiness over HTTP.
    if values.get("TLS_CERT_PATH").is_some_and(|path| path != "off") {
        return time::timeout(TIMEOUT, check_over_http(&values))
            .await
            .context("the server did not answer in time")?;
    }
    let addr = values.get("GRPC_ADDR").context("GRPC_ADDR must be set")?;
    let addr: SocketAddr = addr.parse().context("GRPC_ADDR is not an address")?;
    let channel = Endpoint::from_shared(format!("http://{}", connect_addr(addr)))?
        .connect_timeout(TIMEOUT)
        .timeout(TIMEOUT)
        .connect()
        .await
        .with_context(|| format!("nothing answers on {addr}"))?;
    let response = HealthClient::new(channel).check(HealthCheckRequest::default()).await?;
    let status = response.into_inner().status();
    ensure!(status == ServingStatus::Serving, "the server is {}", status.as_str_name());
    out!("{}", status.as_str_name());
    Ok(())
}

async fn check_over_http(values: &Values) -> anyhow::Result<()> {
    let addr = values.get("HTTP_ADDR").filter(|addr| *addr != "off");
    let addr = addr.context(
        "set HTTP_ADDR to an address: with TLS, this command checks over HTTP, because it has no \
         client certificate for gRPC",
    )?;
    let addr = connect_addr(addr.parse().context("HTTP_ADDR is not an address")?);
    let stream = TcpStream::connect(addr);
    let stream = stream.await.with_context(|| format!("nothing answers on {addr}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The request is sent only while this future runs.
    tokio::spawn(connection);
    let request =
        Request::get("/readyz").header(header::HOST, "localhost").body(Empty::<Bytes>::new())?;
    let status = sender.send_request(request).await?.status();
    ensure!(status == StatusCode::OK, "the server is not ready");
    out!("{}", ServingStatus::Serving.as_str_name());
    Ok(())
}

/// The address to connect to. For a server that listens on all addresses, this is the loopback
/// address.
fn connect_addr(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}
