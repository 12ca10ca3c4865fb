//! Assignment of CPU cores. The server has one core. The load generator and the stores (Postgres
//! and Redis) never use the server's core.

use anyhow::{Context, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

/// Maximum number of cores that generate load. With more load cores, the benchmark would measure
/// stores that lack CPU.
const MAX_LOAD_CORES: usize = 3;

/// Core numbers by purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cores {
    /// The server's core.
    pub server: usize,
    /// Cores that generate load.
    pub load: Vec<usize>,
    /// Cores of Postgres and Redis. On a machine with two cores, the stores share the core of the
    /// load generator.
    pub stores: Vec<usize>,
}

impl Cores {
    /// Divides the cores in this process's CPU affinity mask.
    ///
    /// # Errors
    /// Returns an error when fewer than two cores are available.
    pub fn divide() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(None).context("can't read the CPU affinity mask")?;
        let allowed: Vec<usize> =
            (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
        Self::divide_cores(&allowed)
    }

    fn divide_cores(allowed: &[usize]) -> anyhow::Result<Self> {
        ensure!(
            allowed.len() > 1,
            "the benchmark needs two cores: one for the server and one for the load generator"
        );
        // The server gets the last core, because devices interrupt the first core most.
        let (other_cores, server) = allowed.split_at(allowed.len() - 1);
        let (load, stores) = other_cores.split_at((other_cores.len() / 2).clamp(1, MAX_LOAD_CORES));
        let stores = if stores.is_empty() { load } else { stores };
        Ok(Self { server: server[0], load: load.to_vec(), stores: stores.to_vec() })
    }
}

/// Pins this thread, and every thread and process that it starts later, to these cores.
///
/// # Errors
/// Returns an error when the system refuses, for example because a core does not exist.
pub fn pin(cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    sched_setaffinity(None, &set)
        .with_context(|| format!("can't pin this thread to the cores {cores:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_gets_a_core_that_nothing_else_uses() {
        assert!(Cores::divide_cores(&[3]).is_err());
        let divide = |allowed: &[usize]| Cores::divide_cores(allowed).expect("two cores or more");
        assert_eq!(divide(&[0, 1]), Cores { server: 1, load: vec![0], stores: vec![0] });
        assert_eq!(divide(&[0, 2, 5]), Cores { server: 5, load: vec![0], stores: vec![2] });
        let sixteen_cores: Vec<usize> = (0..16).collect();
        assert_eq!(
            divide(&sixteen_cores),
            Cores { server: 15, load: vec![0, 1, 2], stores: (3..15).collect() }
        );
    }
}
