//! What is counted of calls: how many, how they ended, how long they took.

use std::time::Duration;

use opentelemetry::Context;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{exemplar::HistogramWithExemplars, family::Family},
    registry::{Registry, Unit},
};
use tonic::Code;

use super::BUCKETS;

type Durations = HistogramWithExemplars<Trace>;

/// Counts calls. The clock runs from when the call's metadata is there until its answer
/// is; of a call that stays open, until that begins.
pub struct Calls {
    durations: Family<Call, Durations, fn() -> Durations>,
    /// Those of calls that ended well, by the method's number: what most calls are
    /// counted in is at hand.
    well: Vec<Durations>,
}

#[expect(clippy::struct_field_names, reason = "labels are called so")]
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Call {
    rpc_system_name: &'static str,
    rpc_method: String,
    rpc_response_status_code: &'static str,
}

/// The trace of one call among those in a bucket.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Trace {
    trace_id: String,
}

impl Calls {
    /// Counts calls of these methods, each a `package.Service/Method`.
    #[must_use]
    pub fn register(methods: &[&str], registry: &mut Registry) -> Self {
        let new: fn() -> Durations = || Durations::new(BUCKETS.into_iter());
        let durations = Family::new_with_constructor(new);
        let help = "Calls, by how they ended, and how long their answers took";
        let name = "rpc_server_call_duration";
        registry.register_with_unit(name, help, Unit::Seconds, durations.clone());
        let well =
            methods.iter().map(|method| durations.get_or_create_owned(&call(method, Code::Ok)));
        Self { well: well.collect(), durations }
    }

    /// A call of the method with this number ended.
    pub fn ended(
        &self,
        method: (usize, &str),
        code: Code,
        took: Duration,
        trace: Option<&Context>,
    ) {
        let (number, name) = method;
        match self.well.get(number).filter(|_| code == Code::Ok) {
            Some(durations) => observe(durations, took, trace),
            None => observe(&self.durations.get_or_create(&call(name, code)), took, trace),
        }
    }
}

fn observe(durations: &Durations, took: Duration, trace: Option<&Context>) {
    let trace = trace.map(|call| Trace { trace_id: super::traces::trace_id(call) });
    durations.observe(took.as_secs_f64(), trace, None);
}

fn call(method: &str, code: Code) -> Call {
    Call {
        rpc_system_name: "grpc",
        rpc_method: method.to_owned(),
        rpc_response_status_code: name(code),
    }
}

/// The code's name (gRPC, `Status codes and their use`).
pub(super) fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Whether a server's span with this code is an error (semantic conventions for gRPC).
pub(super) fn is_servers_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}
