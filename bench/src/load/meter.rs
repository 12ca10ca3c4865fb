//! Meter of the CPU that the server and the load generator use during a measurement.

use std::time::Duration;

use crate::{
    cores::Cores,
    proc::{self, CoreTimes},
};

/// Reads the CPU times of a server and of the cores.
pub struct Meter {
    pid: u32,
    cores: Cores,
}

/// CPU times at one moment.
pub struct Reading {
    /// Processor time of the server process.
    server_process_time: Duration,
    server_core: CoreTimes,
    load_cores: Vec<CoreTimes>,
}

/// CPU time used between two readings.
#[derive(Clone, Copy)]
pub struct CpuUsage {
    /// Processor time of the server process.
    pub server_process_time: Duration,
    /// Share of the time in which the server's core was busy with any process, from 0 to 1.
    pub server_core_busy: f64,
    /// Average share of the time in which a load core was busy, from 0 to 1.
    pub load_cores_busy: f64,
}

impl Meter {
    /// A meter of the server with this process id.
    pub fn new(pid: u32, cores: Cores) -> Self {
        Self { pid, cores }
    }

    /// Reads all CPU times.
    ///
    /// # Errors
    /// Returns an error when the server has ended.
    pub fn read(&self) -> anyhow::Result<Reading> {
        Ok(Reading {
            server_process_time: proc::cpu_time(self.pid)?,
            server_core: CoreTimes::read(self.cores.server)?,
            load_cores: self
                .cores
                .load
                .iter()
                .map(|core| CoreTimes::read(*core))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl Reading {
    /// CPU time used since an earlier reading.
    pub fn since(&self, earlier: &Self) -> CpuUsage {
        let busy_load_cores: f64 = self
            .load_cores
            .iter()
            .zip(&earlier.load_cores)
            .map(|(core, earlier_core)| core.busy_since(*earlier_core))
            .sum();
        CpuUsage {
            server_process_time: self
                .server_process_time
                .saturating_sub(earlier.server_process_time),
            server_core_busy: self.server_core.busy_since(earlier.server_core),
            load_cores_busy: busy_load_cores / crate::to_f64(self.load_cores.len() as u64),
        }
    }
}
