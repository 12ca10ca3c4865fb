//! Metrics of calls: their number, status code and duration.

use std::time::Duration;

use opentelemetry::Context;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{exemplar::HistogramWithExemplars, family::Family},
    registry::{Registry, Unit},
};
use tonic::Code;

use super::{BUCKETS, codes, traces::trace_id};

type Durations = HistogramWithExemplars<TraceLabel>;

/// Counts calls. The duration of a call ends at its response. The duration of a stream ends at the
/// start of the response. Both begin when the metadata arrives.
pub struct Calls {
    durations: Family<CallLabel, Durations, fn() -> Durations>,
    /// The histograms of successful calls, by the index of the method. Most calls are successful,
    /// and the index avoids a lookup by name.
    success_durations: Vec<Durations>,
}

#[expect(clippy::struct_field_names, reason = "the fields have the names of the labels")]
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct CallLabel {
    rpc_system_name: &'static str,
    rpc_method: String,
    rpc_response_status_code: &'static str,
}

/// The exemplar of a bucket: the trace of one call.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct TraceLabel {
    trace_id: String,
}

impl Calls {
    /// Registers the metric for these methods (`package.Service/Method`).
    #[must_use]
    pub fn register(methods: &[&str], registry: &mut Registry) -> Self {
        let new_histogram: fn() -> Durations = || Durations::new(BUCKETS.into_iter());
        let durations = Family::new_with_constructor(new_histogram);
        let help = "Calls, by status code, and the time to their responses";
        let name = "rpc_server_call_duration";
        registry.register_with_unit(name, help, Unit::Seconds, durations.clone());
        let success_durations = methods
            .iter()
            .map(|method| durations.get_or_create_owned(&call_label(method, Code::Ok)));
        Self { success_durations: success_durations.collect(), durations }
    }

    /// Counts a finished call. `method` is the index and the name of the method.
    pub fn record_call(
        &self,
        method: (usize, &str),
        code: Code,
        duration: Duration,
        trace: Option<&Context>,
    ) {
        let (index, name) = method;
        match self.success_durations.get(index).filter(|_| code == Code::Ok) {
            Some(durations) => observe(durations, duration, trace),
            None => {
                observe(&self.durations.get_or_create(&call_label(name, code)), duration, trace);
            }
        }
    }
}

fn observe(durations: &Durations, duration: Duration, trace: Option<&Context>) {
    let trace = trace.map(|context| TraceLabel { trace_id: trace_id(context) });
    durations.observe(duration.as_secs_f64(), trace, None);
}

fn call_label(method: &str, code: Code) -> CallLabel {
    CallLabel {
        rpc_system_name: "grpc",
        rpc_method: method.to_owned(),
        rpc_response_status_code: codes::name(code),
    }
}
