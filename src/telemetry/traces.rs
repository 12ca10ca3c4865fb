//! Traces: a span for each call that is sampled, and one in it for each call of a
//! store, sent to a collector by OTLP.
//!
//! The caller's trace goes on here (W3C Trace Context), and the caller decides whether
//! it is recorded; where there is none, a share of calls is. A call that is not recorded
//! pays for the decision alone. While the collector is away, spans beyond those that
//! fit into a queue are dropped.

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

use super::codes;

/// How long the collector has for a batch, and for what is left at a stop.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest header of a trace that is read, in bytes (W3C Trace Context, 3.3.1.5).
const MAX_HEADER: usize = 512;

/// Where traces go, and which.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The collector's URL.
    pub endpoint: String,
    /// Of the calls that bring no trace, so many are recorded: from 0 to 1.
    pub ratio: f64,
}

/// Begins traces, and sends them.
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
}

/// The tracer of a call's context, for the spans of what it waits for.
pub(super) struct CallTracer(pub(super) SdkTracer);

impl Traces {
    /// Connects to the collector once there is something to send. Call it within a
    /// runtime.
    ///
    /// # Errors
    /// When the URL can't be used.
    pub fn start(settings: &Settings) -> anyhow::Result<Self> {
        let mut exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&settings.endpoint)
            .with_timeout(EXPORT_TIMEOUT);
        if settings.endpoint.starts_with("https://") {
            exporter = exporter.with_tls_config(ClientTlsConfig::new().with_native_roots());
        }
        let exporter = exporter.build().context("the collector's URL can't be used")?;
        let share = Sampler::TraceIdRatioBased(settings.ratio);
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(share)))
            .with_resource(Resource::builder().with_attributes(resource()).build())
            .build();
        let tracer = provider.tracer("tenantry");
        Ok(Self { provider, tracer, propagator: TraceContextPropagator::new() })
    }

    /// The context of a call that is recorded; `None` for one that is not.
    #[must_use]
    pub fn begin(&self, headers: &HeaderMap) -> Option<Context> {
        let caller = self.propagator.extract_with_context(&Context::new(), &Headers(headers));
        let builder = self.tracer.span_builder("rpc").with_kind(SpanKind::Server);
        let span = builder.start_with_context(&self.tracer, &caller);
        let recorded = Context::new().with_span(span);
        recorded
            .span()
            .span_context()
            .is_sampled()
            .then(|| recorded.with_value(CallTracer(self.tracer.clone())))
    }

    /// Sends what is left, for a while.
    pub async fn finish(&self) {
        let provider = self.provider.clone();
        let flush = move || provider.shutdown_with_timeout(EXPORT_TIMEOUT);
        if !matches!(tokio::task::spawn_blocking(flush).await, Ok(Ok(()))) {
            tracing::warn!("stopped with traces that were not sent");
        }
    }
}

/// What the traces are of, but for what `OTEL_RESOURCE_ATTRIBUTES` and
/// `OTEL_SERVICE_NAME` say.
fn resource() -> Vec<KeyValue> {
    let mut resource = vec![KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))];
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource.push(KeyValue::new("service.name", "tenantry"));
    }
    resource
}

/// Ends a call's span. `method` is `package.Service/Method`.
pub(crate) fn end(call: &Context, method: &str, code: Code, request_id: &str) {
    let span = call.span();
    span.update_name(method.to_owned());
    span.set_attribute(KeyValue::new("rpc.system.name", "grpc"));
    span.set_attribute(KeyValue::new("rpc.method", method.to_owned()));
    span.set_attribute(KeyValue::new("rpc.response.status_code", codes::name(code)));
    span.set_attribute(KeyValue::new("tenantry.request_id", request_id.to_owned()));
    if codes::is_servers_fault(code) {
        span.set_status(Status::error(""));
    }
    span.end();
}

/// The id of a call's trace.
pub(crate) fn trace_id(call: &Context) -> String {
    call.span().span_context().trace_id().to_string()
}

/// The headers that a trace is continued by; those that are there twice, or too long,
/// are not there.
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
