//! Logs, traces and metrics of calls, and of operations on Postgres and Redis. Where
//! OpenTelemetry's semantic conventions define a name, it is used.
//!
//! Logs, traces and metrics contain ids, but never emails, tokens or secrets.

mod build_info;
mod calls;
mod codes;
mod failures;
mod logs;
mod operations;
#[cfg(target_os = "linux")]
mod process;
mod resource_gauges;
mod tasks;
mod traces;
mod watched_exporter;

pub use build_info::register_build_info;
pub use calls::Calls;
pub use failures::FailureLog;
pub use logs::{DroppedLines, init, non_blocking_writer, write_last_line};
pub use operations::{Operations, RunningOperation};
#[cfg(target_os = "linux")]
pub use process::ProcessMetrics;
pub use resource_gauges::ResourceGauges;
pub use tasks::TaskGauge;
pub use traces::{Settings, Traces};
pub(crate) use traces::{end_span, trace_id};

/// Upper bounds of the histogram buckets, in seconds. Decisions from the cache are in the first
/// bucket. Calls that take longer than 10 s are in the overflow bucket.
pub(crate) const BUCKETS: [f64; 13] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0];
