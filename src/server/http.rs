//! HTTP for metrics and probes. [`super::well_known`] has the routes for public keys.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{encoding::text, registry::Registry};
use tokio::{net::TcpListener, sync::watch};

/// The media type of `OpenMetrics` 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes for metrics and probes.
pub(super) fn routes(registry: Registry, ready: watch::Receiver<bool>) -> Router {
    Router::new()
        // Fails only when the process does not respond. Other failures are not reported here,
        // because a restart would not repair them.
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz).with_state(ready))
        .route("/metrics", get(metrics).with_state(Arc::new(registry)))
}

/// Serves HTTP while the future is polled. The future never completes, also without a listener.
pub(super) async fn serve(listener: Option<TcpListener>, routes: Router) {
    let Some(listener) = listener else { return std::future::pending().await };
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "HTTP is not served any more");
        std::future::pending::<()>().await;
    }
}

async fn readyz(State(ready): State<watch::Receiver<bool>>) -> impl IntoResponse {
    if *ready.borrow() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    }
}

async fn metrics(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    let mut body = String::new();
    match text::encode(&mut body, &registry) {
        Ok(()) => Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], body)),
        Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}
