//! `tenantry serve`

use anyhow::Context;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{
    app::App,
    config::{Config, Values},
    server, telemetry,
};

/// Serves until SIGINT or SIGTERM, then drains.
pub(super) async fn run(values: Values) -> anyhow::Result<()> {
    let config = Config::check(&values)?;
    telemetry::init(&values)?;
    let listener = bind(&config).await?;
    let app = App::build(config)?;
    tracing::info!(address = %listener.local_addr()?, "serving");
    server::serve(app, listener, stop_signal()?).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Listens on `GRPC_ADDR`.
pub(super) async fn bind(config: &Config) -> anyhow::Result<TcpListener> {
    let addr = config.server.addr;
    TcpListener::bind(addr).await.with_context(|| format!("can't listen on {addr}"))
}

/// Completes at the first SIGINT or SIGTERM. The handlers stay: a second one
/// ends the process at once.
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::process::exit(130);
        });
    })
}
