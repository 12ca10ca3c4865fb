//! Metrics and traces of operations on Postgres and Redis: name, result and duration. The arguments
//! of an operation are never recorded.

use std::time::Instant;

use opentelemetry::{
    Context, KeyValue,
    trace::{Span, SpanKind, Status, Tracer},
};
use opentelemetry_sdk::trace::Span as SdkSpan;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{BUCKETS, traces::CallTracer};

/// Counts operations on stores. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Operations(Family<Operation, Histogram, fn() -> Histogram>);

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Operation {
    db_system_name: &'static str,
    db_operation_name: &'static str,
    error_type: String,
}

impl Default for Operations {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(BUCKETS)))
    }
}

impl Operations {
    /// Registers the metric.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Operations on Postgres and Redis, by error type, and their duration";
        let name = "db_client_operation_duration";
        registry.register_with_unit(name, help, Unit::Seconds, self.0.clone());
    }

    /// Begins an operation. The operation gets a span when the current call is traced.
    #[must_use]
    pub fn begin(&self, system: &'static str) -> RunningOperation {
        let span = Context::map_current(|context| {
            let tracer = context.get::<CallTracer>()?;
            let builder = tracer.0.span_builder(system).with_kind(SpanKind::Client);
            Some(builder.start_with_context(&tracer.0, context))
        });
        RunningOperation {
            operations: self.clone(),
            system,
            start: Instant::now(),
            span,
            is_recorded: false,
        }
    }
}

/// An operation in progress. An operation that is dropped before [`RunningOperation::end`] is
/// recorded as cancelled.
#[derive(Debug)]
pub struct RunningOperation {
    operations: Operations,
    system: &'static str,
    start: Instant,
    span: Option<SdkSpan>,
    is_recorded: bool,
}

impl RunningOperation {
    /// Whether the operation has a span.
    #[must_use]
    pub fn is_traced(&self) -> bool {
        self.span.is_some()
    }

    /// Records the end of the operation, with its name, its target (such as a table) and the type
    /// of its error.
    pub fn end(mut self, operation: &'static str, target: &str, error: Option<String>) {
        self.record(operation, target, error);
    }

    fn record(&mut self, operation: &'static str, target: &str, error: Option<String>) {
        self.is_recorded = true;
        if let Some(mut span) = self.span.take() {
            let span_name = [operation, target].join(" ");
            span.update_name(span_name.trim_end().to_owned());
            span.set_attribute(KeyValue::new("db.system.name", self.system));
            span.set_attribute(KeyValue::new("db.operation.name", operation));
            if let Some(error) = error.clone() {
                span.set_attribute(KeyValue::new("error.type", error));
                span.set_status(Status::error(""));
            }
            span.end();
        }
        let operation = Operation {
            db_system_name: self.system,
            db_operation_name: operation,
            error_type: error.unwrap_or_default(),
        };
        let duration = self.start.elapsed().as_secs_f64();
        self.operations.0.get_or_create(&operation).observe(duration);
    }
}

impl Drop for RunningOperation {
    fn drop(&mut self) {
        if !self.is_recorded {
            self.record("", "", Some("cancelled".to_owned()));
        }
    }
}
