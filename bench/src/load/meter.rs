//! Meter of the CPU that the server and the load use during a measurement.

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
    cpu: Duration,
    server: CoreTimes,
    load: Vec<CoreTimes>,
}

/// CPU time used between two readings.
#[derive(Clone, Copy)]
pub struct Used {
    /// Processor time of the server.
    pub cpu: Duration,
    /// Share of the time in which the server's core was busy, from 0 to 1.
    pub server_core: f64,
    /// Average share of the time in which a load core was busy, from 0 to 1.
    pub load_cores: f64,
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
            cpu: proc::cpu_time(self.pid)?,
            server: CoreTimes::read(self.cores.server)?,
            load: self
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
    pub fn since(&self, earlier: &Self) -> Used {
        let load: f64 = self
            .load
            .iter()
            .zip(&earlier.load)
            .map(|(now, earlier)| now.busy_since(*earlier))
            .sum();
        Used {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            server_core: self.server.busy_since(earlier.server),
            load_cores: load / crate::number(self.load.len() as u64),
        }
    }
}
