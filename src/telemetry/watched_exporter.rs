//! Writes to the log when the trace collector stops accepting spans, and when it accepts spans
//! again. The wrapped exporter drops spans without a log line.

use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};

/// An exporter, with one log line for each change between success and failure.
#[derive(Debug)]
pub(super) struct WatchedExporter<E> {
    inner: E,
    /// The origin of the collector's URL, which contains no user name and no password.
    collector: String,
    is_failing: AtomicBool,
}

impl<E> WatchedExporter<E> {
    pub(super) fn new(inner: E, endpoint: &str) -> Self {
        let url = url::Url::parse(endpoint).ok();
        let collector = url.map(|url| url.origin().ascii_serialization()).unwrap_or_default();
        Self { inner, collector, is_failing: AtomicBool::new(false) }
    }
}

impl<E: SpanExporter> SpanExporter for WatchedExporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.inner.export(batch).await;
        let was_failing = self.is_failing.swap(result.is_err(), Ordering::Relaxed);
        let collector = &self.collector;
        match &result {
            Err(error) if !was_failing => {
                tracing::warn!(%error, collector, "the collector accepts no traces; they are dropped");
            }
            Ok(()) if was_failing => {
                tracing::info!(collector, "the collector accepts traces again");
            }
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: std::time::Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
