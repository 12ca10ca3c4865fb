//! Process and core statistics from Linux's `/proc`.

use std::{fs, time::Duration};

use anyhow::Context;

/// Processor time that the threads of a process have used so far, with nanosecond resolution.
/// Excludes the threads that have ended. A server under load ends no thread.
///
/// # Errors
/// Returns an error when the process has ended.
pub fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let tasks = format!("/proc/{pid}/task");
    let mut nanos = 0;
    for task in fs::read_dir(&tasks).with_context(|| tasks.clone())? {
        // The thread may have ended since the directory was read.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let used_nanos = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        nanos += used_nanos.context("schedstat has no number")?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Private memory of a process (`RssAnon`), in bytes.
///
/// # Errors
/// Returns an error when the process has ended.
pub fn anonymous_memory(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let kib = field(&text, "RssAnon:").and_then(|value| value.split_whitespace().next());
    let kib: u64 = kib.context("no RssAnon")?.parse()?;
    Ok(kib * 1024)
}

/// Idle and total time of a core so far, in kernel ticks.
#[derive(Clone, Copy)]
pub struct CoreTimes {
    idle: u64,
    total: u64,
}

impl CoreTimes {
    /// Reads the times of a core.
    ///
    /// # Errors
    /// Returns an error when there is no such core.
    pub fn read(core: usize) -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        Self::parse(&text, core).with_context(|| format!("no core {core} in /proc/stat"))
    }

    fn parse(text: &str, core: usize) -> Option<Self> {
        let times: Vec<u64> = field(text, &format!("cpu{core} "))?
            .split_whitespace()
            .map_while(|word| word.parse().ok())
            .collect();
        // Columns: user, nice, system, idle, iowait, irq, softirq, steal. The guest columns
        // follow; user already includes them.
        let idle = times.get(3)? + times.get(4)?;
        Some(Self { idle, total: times.iter().take(8).sum() })
    }

    /// Share of the time since `earlier` in which the core was busy, from 0 to 1.
    pub fn busy_since(self, earlier: Self) -> f64 {
        let total = self.total.saturating_sub(earlier.total).max(1);
        let idle = self.idle.saturating_sub(earlier.idle);
        1.0 - crate::to_f64(idle) / crate::to_f64(total)
    }
}

/// Returns the rest of the line that begins with `name`, trimmed.
pub fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_was_only_idle_is_not_busy() {
        let text = "cpu  9 9 9 9\ncpu1 10 0 10 70 5 0 5 0 0 0\ncpu10 1 1 1 1 1 1 1 1 0 0\n";
        // cpu1 has 75 idle ticks (70 idle, 5 iowait) of 100. So all 50 ticks since `earlier` were
        // idle.
        let earlier = CoreTimes { idle: 25, total: 50 };
        let now = CoreTimes::parse(text, 1).expect("cpu1 is in the text");
        assert!((now.busy_since(earlier) - 0.0).abs() < 1e-9);
        assert_eq!(CoreTimes::parse(text, 10).expect("cpu10 is in the text").total, 8);
        assert!(CoreTimes::parse(text, 2).is_none());
    }

    #[test]
    fn this_process_has_used_time_and_memory() {
        let pid = std::process::id();
        assert!(cpu_time(pid).expect("/proc has the CPU times") > Duration::ZERO);
        assert!(anonymous_memory(pid).expect("/proc has the memory") > 0);
    }
}
