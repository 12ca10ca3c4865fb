//! Serves connections from the first accept to a graceful shutdown. `cli/serve.rs` decides which
//! signals stop the server.
//!
//! [`services`] lists the gRPC services. `cores` runs a single-threaded runtime per core and
//! distributes connections to the runtimes. `connection` serves HTTP and passes each call to the
//! gate. `web` translates gRPC-Web for browsers.

mod byte_counter;
mod connection;
mod connection_limiter;
mod cores;
mod http;
mod listeners;
mod readiness;
mod services;
mod web;
mod well_known;

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{runtime::Handle, time};

use crate::{
    app::{App, Stores},
    audit::Refusals,
    envoy::EnvoyAuthorization,
    gate::{Gate, GateLimits},
    mail::MailQueue,
    telemetry::TaskGauge,
};
use connection::ConnectionContext;
use connection_limiter::ConnectionLimiter;
use cores::Cores;
pub use listeners::Listeners;
use readiness::Readiness;
use services::Services;
use web::GrpcWeb;

/// Serves until `stop` completes. Then the server reports that it is not ready, connections accept
/// no new calls, and the calls in progress may finish within the grace period.
///
/// # Errors
/// When Postgres or the key service is unavailable, when Postgres is a standby or its schema does
/// not suit this program, when the database role can bypass row-level security, when the configured
/// master key cannot unwrap the data key for data that belongs to no tenant, or when the operating
/// system cannot start the threads.
pub async fn serve(
    app: App,
    listeners: Listeners,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    app.stores.db.postgres().check().await?;
    app.stores.db.postgres().check_privileges().await?;
    app.stores.db.load_common_data_key().await?;
    let mut parts = app.start()?;
    let (config, stores) = (parts.server, parts.stores);
    stores.wait_for_redis().await;
    let (health, health_service) = tonic_health::server::health_reporter();
    let readiness = Readiness::new(health).await;

    let connection_limiter = ConnectionLimiter::new(config.connections, &mut parts.registry);
    let keyring = parts.handlers.auth.sign_ins.keyring.clone();
    let watchers = parts.handlers.permissions.watch.watchers.clone();
    let chain_signal = parts.handlers.events.chain_signal.clone();
    let max_message_bytes = config.max_message_bytes;
    let authorizer = Arc::new(parts.authorizer);
    let envoy = config.envoy.then(|| EnvoyAuthorization::new(authorizer.clone()));
    let services =
        Services::new(parts.handlers, health_service, envoy, max_message_bytes, config.reflection)?;
    let traces = parts.traces.clone();
    let limits = GateLimits {
        requests: config.max_requests,
        time: config.request_timeout,
        message: max_message_bytes,
        threads: config.threads,
    };
    let gate = Gate::new(authorizer, parts.calls, parts.traces, limits, &mut parts.registry)?;
    let context = ConnectionContext {
        gate,
        services,
        tls: parts.tls,
        web: config.web_origins.map(GrpcWeb::with_allowed_origins),
        max_age: config.connections.max_age,
        grace_after_max_age: config.request_timeout,
    };
    let cores = Cores::start(config.threads, connection_limiter, &Arc::new(context))?;
    let runtimes = cores.handles().chain([Handle::current()]).collect();
    parts.registry.register_collector(Box::new(TaskGauge { runtimes }));
    let routes =
        http::routes(parts.registry, readiness.subscribe()).merge(well_known::routes(keyring));
    tracing::info!(address = %listeners.grpc.local_addr()?, "serving");
    // Only `stop` completes; the other futures run until then.
    tokio::select! {
        () = stop => {}
        () = readiness.keep_reporting(&stores.db) => {}
        () = cores.accept(&listeners.grpc) => {}
        () = http::serve(listeners.http, routes) => {}
    }
    readiness.report(false).await;
    // Watch streams do not end by themselves, so they are stopped before the server waits for calls
    // to end.
    watchers.stop();
    chain_signal.stop();
    let all_connections_ended = cores.drain();
    drop(listeners.grpc);
    // A connection that ignores the graceful shutdown must not keep the process running.
    if time::timeout(config.shutdown_grace, all_connections_ended).await.is_err() {
        tracing::warn!("stopped while connections of clients were open");
    }
    // Stops reloading the key files.
    drop(parts.keys);
    close(&parts.refusals, parts.mail_queue.as_deref(), &stores).await;
    if let Some(traces) = traces {
        traces.finish().await;
    }
    Ok(())
}

async fn close(refusals: &Refusals, mail_queue: Option<&MailQueue>, stores: &Stores) {
    const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
    if let Some(mail_queue) = mail_queue
        && time::timeout(CLOSE_TIMEOUT, mail_queue.send_due_and_stop()).await.is_err()
    {
        tracing::warn!("stopped before all mails were sent");
    }
    // Records the refusals that are only counted in memory.
    if !matches!(time::timeout(CLOSE_TIMEOUT, refusals.flush()).await, Ok(Ok(()))) {
        tracing::warn!("stopped before all refusals were recorded");
    }
    if time::timeout(CLOSE_TIMEOUT, stores.close()).await.is_err() {
        tracing::warn!("stopped while a connection to Postgres or Redis was open");
    }
}
