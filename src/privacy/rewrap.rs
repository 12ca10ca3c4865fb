//! Rotation of the master key: each data key is wrapped by the new master key. Data that the
//! data keys sealed stays unchanged.
//!
//! The table `data_keys` records the master key of each data key, so an interrupted run can be
//! continued. Several runs may work concurrently, because a data key is replaced only if it has
//! not changed since it was read.

use std::sync::Arc;

use anyhow::{Context, ensure};
use secrecy::zeroize::Zeroizing;

use super::{
    cipher::KEY,
    master::{MasterKeys, Wrapped},
    store::{self, Kept},
};
use crate::{ids::TenantId, pg::Postgres};

/// Maximum number of data keys that one transaction reads or replaces.
const BATCH: i64 = 500;

/// Number of consecutive failures after which the run stops. After this number, the key service is
/// probably at fault, not the single data keys.
const MAX_CONSECUTIVE_FAILURES: u64 = 20;

/// The result of a run so far.
#[derive(Default, Debug)]
pub struct Progress {
    /// The master key that wraps data keys now, in the format of the column `wrapped_by`.
    pub by: String,
    /// Number of data keys that were rewrapped.
    pub rewrapped: u64,
    /// Number of data keys that could not be rewrapped.
    pub failed: u64,
    /// The error of the last failure.
    pub reason: String,
}

/// The result of wrapping one batch.
#[derive(Default)]
struct Batch {
    rewrapped: Vec<(Kept, Wrapped)>,
    failed: u64,
    consecutive_failures: u64,
    reason: String,
}

/// Wraps all data keys by the current master key. Calls `report` after each batch.
///
/// # Errors
/// When there is no master key, or when Postgres or the key service is unavailable.
pub async fn all(
    postgres: &Postgres,
    masters: &Arc<MasterKeys>,
    report: impl Fn(&Progress),
) -> anyhow::Result<Progress> {
    ensure!(
        masters.is_configured(),
        "there is no master key: set MASTER_KEY_PATH or MASTER_TRANSIT_KEY"
    );
    let mut progress = Progress { by: current(masters).await?, ..Progress::default() };
    let mut after = None;
    loop {
        let mut tx = postgres.begin(TenantId::UNKNOWN).await?;
        let rows = store::others(&mut tx, &progress.by, after, BATCH).await?;
        // No transaction may be open while a key service is called.
        drop(tx);
        let Some(last) = rows.last() else { return Ok(progress) };
        after = Some(last.tenant_id);
        let masters = masters.clone();
        let batch = tokio::task::spawn_blocking(move || Batch::wrap(&masters, rows)).await?;
        progress.rewrapped += replace(postgres, &batch.rewrapped).await?;
        progress.failed += batch.failed;
        if batch.failed > 0 {
            progress.reason = batch.reason;
        }
        report(&progress);
        if batch.consecutive_failures >= MAX_CONSECUTIVE_FAILURES {
            return Ok(progress);
        }
    }
}

impl Batch {
    fn wrap(masters: &MasterKeys, rows: Vec<Kept>) -> Self {
        let mut batch = Self::default();
        for old in rows {
            match wrap(masters, &old) {
                Ok(new) => {
                    batch.rewrapped.push((old, new));
                    batch.consecutive_failures = 0;
                }
                Err(error) => {
                    batch.failed += 1;
                    batch.consecutive_failures += 1;
                    batch.reason = format!("{error:#}");
                    if batch.consecutive_failures >= MAX_CONSECUTIVE_FAILURES {
                        break;
                    }
                }
            }
        }
        batch
    }
}

fn wrap(masters: &MasterKeys, old: &Kept) -> anyhow::Result<Wrapped> {
    let tenant = TenantId(old.tenant_id);
    let wrapped = masters.unwrap(tenant, &old.key).and_then(|key| masters.wrap(tenant, &key));
    wrapped.with_context(|| format!("the data key of the tenant {tenant}"))
}

/// Writes a batch; returns the number of keys that were replaced.
async fn replace(postgres: &Postgres, batch: &[(Kept, Wrapped)]) -> anyhow::Result<u64> {
    let mut tx = postgres.begin(TenantId::UNKNOWN).await?;
    let mut replaced = 0;
    for (old, new) in batch {
        replaced += u64::from(store::rewrap(&mut tx, old, new).await?);
    }
    tx.commit().await?;
    Ok(replaced)
}

/// Number of data keys that each master key wraps.
///
/// # Errors
/// When Postgres is unavailable.
pub async fn counts(postgres: &Postgres) -> anyhow::Result<Vec<(String, i64)>> {
    let mut tx = postgres.begin(TenantId::UNKNOWN).await?;
    Ok(store::counts(&mut tx).await?)
}

/// The name of the current master key, in the format of the column `wrapped_by`. A key service
/// returns the version of its key only when it wraps a key, so this function wraps a dummy key.
///
/// # Errors
/// When the file can't be read or the key service is unavailable.
pub async fn current(masters: &Arc<MasterKeys>) -> anyhow::Result<String> {
    let masters = masters.clone();
    let probe = move || {
        masters.reload()?;
        masters.wrap(TenantId::UNKNOWN, &Zeroizing::new([0; KEY]))
    };
    Ok(tokio::task::spawn_blocking(probe).await??.by)
}
