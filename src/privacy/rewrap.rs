//! Rotation of the master key: wraps each data key by the new master key. The data that a data key
//! sealed stays unchanged.
//!
//! The table `data_keys` records the master key of each data key, so an interrupted run can be
//! continued. Several runs may work concurrently, because a run replaces a data key only if no
//! other run replaced the data key since it was read.

use std::sync::Arc;

use anyhow::{Context, ensure};
use secrecy::zeroize::Zeroizing;

use super::{
    cipher::KEY_LENGTH,
    master::{MasterKeys, WrappedKey},
    store::{self, StoredDataKey},
};
use crate::{concurrency::step::bounded, error::Result, ids::TenantId, pg::Postgres};

/// Maximum number of data keys that one transaction reads or replaces.
const BATCH: i64 = 500;

/// Number of consecutive failures after which the run stops. So many failures in sequence are
/// probably caused by the key service, not by the single data keys.
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

/// The result of rewrapping one batch.
#[derive(Default)]
struct Batch {
    rewrapped: Vec<(StoredDataKey, WrappedKey)>,
    failed: u64,
    /// Number of failures since the last success, or since the start of the batch.
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
    let mut last_tenant = None;
    loop {
        // The transaction ends in this block, because no transaction may be open while a key
        // service is called.
        let rows = bounded(async {
            let mut tx = postgres.begin(TenantId::UNKNOWN).await?;
            store::wrapped_by_others(&mut tx, &progress.by, last_tenant, BATCH).await
        });
        let rows = rows.await?;
        let Some(last_row) = rows.last() else { return Ok(progress) };
        last_tenant = Some(last_row.tenant_id);
        let masters = masters.clone();
        let batch = tokio::task::spawn_blocking(move || Batch::rewrap(&masters, rows)).await?;
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
    fn rewrap(masters: &MasterKeys, rows: Vec<StoredDataKey>) -> Self {
        let mut batch = Self::default();
        for old in rows {
            match rewrap(masters, &old) {
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

fn rewrap(masters: &MasterKeys, old: &StoredDataKey) -> anyhow::Result<WrappedKey> {
    let tenant = TenantId(old.tenant_id);
    let wrapped = masters.unwrap(tenant, &old.key).and_then(|key| masters.wrap(tenant, &key));
    wrapped.with_context(|| format!("the data key of the tenant {tenant}"))
}

/// Writes a batch; returns the number of keys that were replaced.
async fn replace(postgres: &Postgres, batch: &[(StoredDataKey, WrappedKey)]) -> Result<u64> {
    let mut tx = bounded(postgres.begin(TenantId::UNKNOWN)).await?;
    let mut replaced_keys = 0;
    for (old, new) in batch {
        replaced_keys += u64::from(bounded(store::replace(&mut tx, old, new)).await?);
    }
    bounded(tx.commit()).await?;
    Ok(replaced_keys)
}

/// The master keys, each with the number of data keys that it wraps.
///
/// # Errors
/// When Postgres is unavailable.
pub async fn counts(postgres: &Postgres) -> anyhow::Result<Vec<(String, i64)>> {
    let counts = bounded(async {
        let mut tx = postgres.begin(TenantId::UNKNOWN).await?;
        store::counts(&mut tx).await
    });
    Ok(counts.await?)
}

/// The name of the current master key, in the format of the column `wrapped_by`. A key service
/// returns the version of its key only when it wraps a key, so this function wraps a dummy key.
///
/// # Errors
/// When the file of master keys can't be read, or when the key service is unavailable.
pub async fn current(masters: &Arc<MasterKeys>) -> anyhow::Result<String> {
    let masters = masters.clone();
    let wrap_dummy_key = move || {
        if let Some(keys) = masters.read_changed()? {
            // The caller has just added a key to the file. All earlier keys are still in the file,
            // so the changed keys need no check with a stored data key.
            masters.adopt(keys, TenantId::UNKNOWN, None)?;
        }
        masters.wrap(TenantId::UNKNOWN, &Zeroizing::new([0; KEY_LENGTH]))
    };
    Ok(tokio::task::spawn_blocking(wrap_dummy_key).await??.by)
}
