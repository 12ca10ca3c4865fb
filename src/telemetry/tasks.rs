//! Number of tasks of the server's runtimes.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};
use tokio::runtime::Handle;

/// Counts the tasks that have not ended. A number that grows without end is a leak.
#[derive(Debug)]
pub struct TaskGauge {
    /// All runtimes of the server.
    pub runtimes: Vec<Handle>,
}

impl Collector for TaskGauge {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let tasks: usize =
            self.runtimes.iter().map(|runtime| runtime.metrics().num_alive_tasks()).sum();
        let help = "Tasks that have not ended, of all runtimes";
        let encoder = encoder.encode_descriptor("tenantry_tasks", help, None, MetricType::Gauge)?;
        ConstGauge::new(u64::try_from(tasks).unwrap_or(u64::MAX)).encode(encoder)
    }
}
