//! Every layer and every service, one a line; and a stop that loses nothing.

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{net::TcpListener, sync::Notify, time};
use tonic::{
    server::NamedService,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tonic_reflection::server::{
    v1::{ServerReflection, ServerReflectionServer as V1},
    v1alpha::{ServerReflection as AlphaReflection, ServerReflectionServer as V1Alpha},
};

use crate::{
    app::{App, Stores},
    auth::Auth,
    db::Db,
    gate::GateLayer,
    permissions::Permissions,
    proto::{
        DESCRIPTORS,
        v1::{
            auth_service_server::AuthServiceServer,
            permission_service_server::PermissionServiceServer,
            role_service_server::RoleServiceServer, session_service_server::SessionServiceServer,
            tenant_service_server::TenantServiceServer, user_service_server::UserServiceServer,
        },
    },
    roles::Roles,
    sessions::Sessions,
    tenants::Tenants,
    users::Users,
};

/// The metadata of a call that is read at all, in bytes. The gate takes less, and
/// says so; beyond this the connection answers, in HTTP's words (431).
const MAX_METADATA_READ: u32 = 32 * 1024;

/// The streams that one connection may have open.
const MAX_STREAMS: u32 = 1024;

/// How often Postgres is asked whether it is there.
const READINESS_INTERVAL: Duration = Duration::from_secs(1);

/// How long it may take to say so: one that hangs is as good as none.
const READINESS_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection may be silent before it is pinged, and then before it
/// is closed.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Serves until `stop` completes, then drains: not ready first, then no new
/// calls, and those in progress finish within the grace.
///
/// # Errors
/// When the connection to Postgres is too powerful, or serving fails.
pub async fn serve(
    app: App,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    app.db.check_privileges().await?;
    let parts = app.into_parts();
    let (health, health_service) = tonic_health::server::health_reporter();
    // Known from the first call on, and not ready until Postgres has been asked.
    report(&health, ServingStatus::NotServing).await;
    let watch = tokio::spawn(watch_readiness(parts.stores.db.clone(), health.clone()));

    let config = parts.server;
    let limit = config.max_message_bytes;
    let gate = GateLayer::new(parts.gatekeeper, config.max_requests, config.request_timeout);
    let (reflection, reflection_alpha) = reflection(config.reflection)?;
    let router = Server::builder()
        // Answers are small: waiting to fill a packet costs 40 ms.
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .http2_max_header_list_size(MAX_METADATA_READ)
        .max_concurrent_streams(MAX_STREAMS)
        // Everything is admitted in one place.
        .layer(gate)
        .add_service(health_service)
        .add_optional_service(reflection)
        .add_optional_service(reflection_alpha)
        .add_service(TenantServiceServer::new(parts.tenants).max_decoding_message_size(limit))
        .add_service(AuthServiceServer::new(parts.auth).max_decoding_message_size(limit))
        .add_service(SessionServiceServer::new(parts.sessions).max_decoding_message_size(limit))
        .add_service(UserServiceServer::new(parts.users).max_decoding_message_size(limit))
        .add_service(RoleServiceServer::new(parts.roles).max_decoding_message_size(limit))
        .add_service(
            PermissionServiceServer::new(parts.permissions).max_decoding_message_size(limit),
        );

    let draining = Arc::new(Notify::new());
    let begun = draining.clone();
    let stop = async move {
        stop.await;
        watch.abort();
        report(&health, ServingStatus::NotServing).await;
        begun.notify_one();
    };
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = router.serve_with_incoming_shutdown(incoming, stop);
    // A connection that ignores the goodbye must not keep the process
    // (hyperium/hyper#4170).
    let out_of_patience = async {
        draining.notified().await;
        time::sleep(config.shutdown_grace).await;
    };
    tokio::select! {
        served = serving => served.context("serving failed")?,
        () = out_of_patience => tracing::warn!("stopped with connections still open"),
    }
    close(&parts.stores).await;
    Ok(())
}

async fn close(stores: &Stores) {
    const PATIENCE: Duration = Duration::from_secs(2);
    if time::timeout(PATIENCE, stores.close()).await.is_err() {
        tracing::warn!("stopped with a store's connection still open");
    }
}

/// Reflection in the version of today and in the one that older clients speak.
fn reflection(
    enabled: bool,
) -> anyhow::Result<(Option<V1<impl ServerReflection>>, Option<V1Alpha<impl AlphaReflection>>)> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that clients can show the errors' details.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let (v1, alpha) = (builder().build_v1()?, builder().build_v1alpha()?);
    Ok((enabled.then_some(v1), enabled.then_some(alpha)))
}

/// Tells probes whether Postgres is there: without it nothing can be answered.
async fn watch_readiness(db: Db, health: HealthReporter) {
    let mut ticks = time::interval(READINESS_INTERVAL);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let status = match time::timeout(READINESS_TIMEOUT, db.is_up()).await {
            Ok(true) => ServingStatus::Serving,
            Ok(false) | Err(_) => ServingStatus::NotServing,
        };
        report(&health, status).await;
    }
}

/// The names that health knows: the server's, empty, and each service's.
const SERVICES: &[&str] = &[
    "",
    TenantServiceServer::<Tenants>::NAME,
    AuthServiceServer::<Auth>::NAME,
    SessionServiceServer::<Sessions>::NAME,
    UserServiceServer::<Users>::NAME,
    RoleServiceServer::<Roles>::NAME,
    PermissionServiceServer::<Permissions>::NAME,
];

async fn report(health: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        health.set_service_status(*service, status).await;
    }
}
