//! Serves connections from the first accept to a graceful shutdown.
//!
//! [`services`] lists the gRPC services. `cores` runs a single-threaded runtime per core and
//! distributes connections to the runtimes. `connection` serves HTTP and passes each call to the
//! gate. `web` translates gRPC-Web for browsers.

mod connection;
mod connections;
mod cores;
mod counted;
mod http;
mod listeners;
mod readiness;
mod services;
mod web;
mod well_known;

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time;

use crate::{
    app::{App, Stores},
    audit::Refusals,
    envoy::Authorizer,
    gate::{Gate, GateLimits},
    mail::Mails,
};
use connection::Entry;
use connections::Connections;
use cores::Cores;
pub use listeners::Listeners;
use readiness::Readiness;
use services::Services;
use web::Web;

/// Serves until `stop` completes, then drains: readiness turns false, connections accept no new
/// calls, and the calls in progress may finish within the grace period.
///
/// # Errors
/// When Postgres or the key service is unavailable, when the database role is not bound by
/// row-level security, when the configured master key did not wrap the database's common data key,
/// or when the operating system cannot start the threads.
pub async fn serve(
    app: App,
    listeners: Listeners,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    app.stores.db.postgres().check_privileges().await?;
    app.stores.db.prepare().await?;
    let mut parts = app.start()?;
    let (config, stores) = (parts.server, parts.stores);
    stores.wait_for_redis().await;
    let (health, health_service) = tonic_health::server::health_reporter();
    let readiness = Readiness::new(health).await;

    let open = Connections::new(config.connections, &mut parts.registry);
    let keyring = parts.serving.auth.sign_ins.keyring.clone();
    let watchers = parts.serving.permissions.watch.watchers.clone();
    let seals = parts.serving.events.seals.clone();
    let limit = config.max_message_bytes;
    let keeper = Arc::new(parts.gatekeeper);
    let envoy = config.envoy.then(|| Authorizer::new(keeper.clone()));
    let services = Services::new(parts.serving, health_service, envoy, limit, config.reflection)?;
    let traces = parts.traces.clone();
    let limits = GateLimits {
        requests: config.max_requests,
        time: config.request_timeout,
        message: limit,
        threads: config.threads,
    };
    let gate = Gate::new(keeper, parts.calls, parts.traces, limits, &mut parts.registry)?;
    let routes =
        http::routes(parts.registry, readiness.subscribe()).merge(well_known::routes(keyring));
    let entry = Entry {
        gate,
        services,
        tls: parts.tls,
        web: config.web_origins.map(Web::for_pages_of),
        max_age: config.connections.max_age,
        grace: config.request_timeout,
    };
    let cores = Cores::start(config.threads, open, &Arc::new(entry))?;
    tokio::select! {
        () = stop => {}
        () = readiness.watch(&stores.db) => {}
        () = cores.accept(&listeners.grpc) => {}
        () = http::serve(listeners.http, routes) => {}
    }
    readiness.report(false).await;
    // A watch stream ends only when the server stops it.
    watchers.stop();
    seals.stop();
    let drained = cores.drain();
    drop(listeners.grpc);
    // A connection that ignores the graceful shutdown must not keep the process running.
    if time::timeout(config.shutdown_grace, drained).await.is_err() {
        tracing::warn!("stopped with connections still open");
    }
    drop(parts.keys);
    close(&parts.refusals, parts.mails.as_deref(), &stores).await;
    if let Some(traces) = traces {
        traces.finish().await;
    }
    Ok(())
}

async fn close(refusals: &Refusals, mails: Option<&Mails>, stores: &Stores) {
    const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
    if let Some(mails) = mails
        && time::timeout(CLOSE_TIMEOUT, mails.finish()).await.is_err()
    {
        tracing::warn!("stopped with mails that were not sent");
    }
    // Records the refusals that are only counted in memory.
    if !matches!(time::timeout(CLOSE_TIMEOUT, refusals.flush()).await, Ok(Ok(()))) {
        tracing::warn!("stopped before all refusals were recorded");
    }
    if time::timeout(CLOSE_TIMEOUT, stores.close()).await.is_err() {
        tracing::warn!("stopped with a store's connection still open");
    }
}
