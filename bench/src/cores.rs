//! Which cores do what. The server gets one of its own; whatever measures it, and
//! the stores, stay off that.

use anyhow::{Context, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

/// The most cores that make load: more would measure the stores' hunger.
const MAX_LOAD: usize = 3;

/// The numbers of the cores, by what they do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cores {
    /// The server's.
    pub server: usize,
    /// Those that make load.
    pub load: Vec<usize>,
    /// Postgres's and Redis's; the load's on a machine with two.
    pub stores: Vec<usize>,
}

impl Cores {
    /// Divides the cores that this process may use.
    ///
    /// # Errors
    /// When there is only one.
    pub fn divide() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(None).context("can't ask for the cores")?;
        let allowed: Vec<usize> =
            (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
        Self::of(&allowed)
    }

    fn of(allowed: &[usize]) -> anyhow::Result<Self> {
        ensure!(
            allowed.len() > 1,
            "measuring takes two cores: one for the server and one for the load"
        );
        // Devices interrupt the first core most.
        let (rest, server) = allowed.split_at(allowed.len() - 1);
        let (load, stores) = rest.split_at((rest.len() / 2).clamp(1, MAX_LOAD));
        let stores = if stores.is_empty() { load } else { stores };
        Ok(Self { server: server[0], load: load.to_vec(), stores: stores.to_vec() })
    }
}

/// Keeps this thread, and what it starts from here on, on these cores.
///
/// # Errors
/// When the system does not let it.
pub fn pin(cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    sched_setaffinity(None, &set).with_context(|| format!("can't move to the cores {cores:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_shares_its_core_with_nobody() {
        assert!(Cores::of(&[3]).is_err());
        let of = |allowed: &[usize]| Cores::of(allowed).expect("cores");
        assert_eq!(of(&[0, 1]), Cores { server: 1, load: vec![0], stores: vec![0] });
        assert_eq!(of(&[0, 2, 5]), Cores { server: 5, load: vec![0], stores: vec![2] });
        let many: Vec<usize> = (0..16).collect();
        assert_eq!(of(&many), Cores { server: 15, load: vec![0, 1, 2], stores: (3..15).collect() });
    }
}
