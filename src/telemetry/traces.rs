//! Traces: a span for each sampled call, with a child span for each operation on a store. The spans
//! are sent to a collector by OTLP.
//!
//! A call continues the trace of its client (W3C Trace Context), and the client decides whether
//! the trace is recorded. Of the calls without a trace, a configured fraction is recorded. A call
//! that is not recorded costs only this decision. While the collector is unavailable, spans are
//! dropped when the queue is full.

use std::time::Duration;

use anyhow::Context as _;
use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, TextMapPropagator},
    trace::{SpanKind, Status, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};
use tonic::{Code, transport::ClientTlsConfig};

use super::{codes, watched_exporter::WatchedExporter};

/// Timeout of sending a batch to the collector, and of sending the remaining spans at shutdown.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum length of a trace header that is read, in bytes (W3C Trace Context, section
/// 3.3.1.5).
const MAX_HEADER: usize = 512;

/// The collector, and the fraction of calls that is recorded.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The collector's URL.
    pub endpoint: String,
    /// The fraction of the calls without a trace that is recorded, from 0 to 1.
    pub ratio: f64,
}

/// Begins traces and sends them to the collector.
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
}

/// The tracer in a call's context, for the spans of its operations.
pub(super) struct CallTracer(pub(super) SdkTracer);

impl Traces {
    /// Creates the exporter. The exporter connects when it has spans to send. Must be called
    /// within a Tokio runtime.
    ///
    /// # Errors
    /// When the URL is invalid.
    pub fn start(settings: &Settings) -> anyhow::Result<Self> {
        let mut exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&settings.endpoint)
            .with_timeout(EXPORT_TIMEOUT);
        if settings.endpoint.starts_with("https://") {
            exporter = exporter.with_tls_config(ClientTlsConfig::new().with_native_roots());
        }
        let exporter = exporter.build().context("the collector's URL can't be used")?;
        let exporter = WatchedExporter::new(exporter, &settings.endpoint);
        let ratio_sampler = Sampler::TraceIdRatioBased(settings.ratio);
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(ratio_sampler)))
            .with_resource(Resource::builder().with_attributes(resource_attributes()).build())
            .build();
        let tracer = provider.tracer("tenantry");
        Ok(Self { provider, tracer, propagator: TraceContextPropagator::new() })
    }

    /// Begins a call's trace; `None` when the call is not recorded.
    #[must_use]
    pub fn begin(&self, headers: &HeaderMap) -> Option<Context> {
        let parent = self.propagator.extract_with_context(&Context::new(), &Headers(headers));
        let builder = self.tracer.span_builder("rpc").with_kind(SpanKind::Server);
        let span = builder.start_with_context(&self.tracer, &parent);
        let context = Context::new().with_span(span);
        context
            .span()
            .span_context()
            .is_sampled()
            .then(|| context.with_value(CallTracer(self.tracer.clone())))
    }

    /// Sends the remaining spans, for up to `EXPORT_TIMEOUT`.
    pub async fn finish(&self) {
        let provider = self.provider.clone();
        let flush = move || provider.shutdown_with_timeout(EXPORT_TIMEOUT);
        if !matches!(tokio::task::spawn_blocking(flush).await, Ok(Ok(()))) {
            tracing::warn!("stopped before all traces were sent");
        }
    }
}

/// The resource attributes of the traces. `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`
/// override them.
fn resource_attributes() -> Vec<KeyValue> {
    let mut attributes = vec![KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))];
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        attributes.push(KeyValue::new("service.name", "tenantry"));
    }
    attributes
}

/// Ends a call's span. `method` is `package.Service/Method`.
pub(crate) fn end_span(context: &Context, method: &str, code: Code, request_id: &str) {
    let span = context.span();
    span.update_name(method.to_owned());
    span.set_attribute(KeyValue::new("rpc.system.name", "grpc"));
    span.set_attribute(KeyValue::new("rpc.method", method.to_owned()));
    span.set_attribute(KeyValue::new("rpc.response.status_code", codes::name(code)));
    span.set_attribute(KeyValue::new("tenantry.request_id", request_id.to_owned()));
    if codes::is_server_error(code) {
        span.set_status(Status::error(""));
    }
    span.end();
}

/// The id of a call's trace.
pub(crate) fn trace_id(context: &Context) -> String {
    context.span().span_context().trace_id().to_string()
}

/// The headers that continue a trace. A header that is repeated or too long is treated as
/// absent.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let mut values = self.0.get_all(key).iter();
        let value = values.next().filter(|value| value.len() <= MAX_HEADER)?;
        if values.next().is_some() { None } else { value.to_str().ok() }
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
