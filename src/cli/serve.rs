//! The command `tenantry serve`.

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    app::App,
    config::{Config, Values},
    server::{self, Listeners},
    telemetry,
};

/// Serves until SIGINT or SIGTERM, then lets the calls in progress finish.
pub(super) async fn run(values: Values) -> anyhow::Result<()> {
    let config = Config::check(&values)?;
    let _log_guard = telemetry::init(&values)?;
    let listeners = Listeners::bind(&config.server).await?;
    let app = App::build(config)?;
    Box::pin(server::serve(app, listeners, stop_signal()?)).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Completes at the first SIGINT or SIGTERM. The second signal ends the process immediately.
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
            // By convention, 130 is the exit code of a program that SIGINT ended.
            std::process::exit(130);
        });
    })
}
