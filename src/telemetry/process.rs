//! Metrics of the process, with the names that Prometheus's client libraries use. They are read from
//! `/proc`, so they exist only on Linux.

use std::fmt;

use procfs::{
    WithCurrentSystemInfo,
    process::{LimitValue, Process},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// The collector of these metrics.
#[derive(Debug)]
pub struct ProcessMetrics;

/// The values at one time.
struct Usage {
    cpu_seconds: f64,
    start_time_seconds: u64,
    resident_bytes: u64,
    threads: i64,
    open_files: Option<usize>,
    max_files: Option<u64>,
}

impl Usage {
    fn read() -> Option<Self> {
        let process = Process::myself().ok()?;
        let stat = process.stat().ok()?;
        let ticks = u32::try_from(procfs::ticks_per_second()).ok()?;
        let cpu_ticks = u32::try_from(stat.utime + stat.stime).unwrap_or(u32::MAX);
        let limits = process.limits().ok();
        Some(Self {
            cpu_seconds: f64::from(cpu_ticks) / f64::from(ticks),
            start_time_seconds: procfs::boot_time_secs().ok()? + stat.starttime / u64::from(ticks),
            resident_bytes: stat.rss_bytes().get(),
            threads: stat.num_threads,
            open_files: process.fd_count().ok(),
            max_files: limits.and_then(|limits| match limits.max_open_files.soft_limit {
                LimitValue::Value(value) => Some(value),
                LimitValue::Unlimited => None,
            }),
        })
    }
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(usage) = Usage::read() else { return Ok(()) };
        let help = "CPU time of the process, in user mode and in the kernel";
        let unit = Some(&Unit::Seconds);
        let cpu = encoder.encode_descriptor("process_cpu", help, unit, MetricType::Counter)?;
        ConstCounter::new(usage.cpu_seconds).encode(cpu)?;
        let to_u64 = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        for (name, help, value) in [
            (
                "process_start_time_seconds",
                "Start of the process, in seconds since 1970",
                Some(usage.start_time_seconds),
            ),
            (
                "process_resident_memory_bytes",
                "Memory of the process that is in RAM",
                Some(usage.resident_bytes),
            ),
            ("process_threads", "Threads of the process", u64::try_from(usage.threads).ok()),
            ("process_open_fds", "Open file descriptors", usage.open_files.map(to_u64)),
            ("process_max_fds", "Maximum number of open file descriptors", usage.max_files),
        ] {
            let Some(value) = value else { continue };
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(encoder)?;
        }
        Ok(())
    }
}
