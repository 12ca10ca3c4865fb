//! Rotation of the master key: each data key is wrapped by the new master key. Data that the
//! data keys sealed stays unchanged.
//!
//! The table `data_keys` records which keys are still to do, so an interrupted run can be
//! continued. Several runs may work concurrently, because a key is replaced only if it has not
//! changed since it was read.

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

/// Number of consecutive failures after which the run stops: then the key service is probably
/// at fault, not the individual data keys.
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
    ready: Vec<(Kept, Wrapped)>,
    failed: u64,
    failed_in_a_row: u64,
    reason: String,
}

/// Wraps all data keys by the current master key. Calls `tell` after each batch.
///
/// # Errors
/// When there is no master key, or when Postgres or the key service is unavailable.
pub async fn all(
    postgres: &Postgres,
    masters: &Arc<MasterKeys>,
    tell: impl Fn(&Progress),
) -> anyhow::Result<Progress> {
    ensure!(
        masters.is_configured(),
        "there is no master key: set MASTER_KEY_PATH or MASTER_TRANSIT_KEY"
    );
    let mut progress = Progress { by: current(masters).await?, ..Progress::default() };
    let mut after = None;
    loop {
        let mut tx = postgres.begin(TenantId::UNKNOWN).await?;
        let kept = store::others(&mut tx, &progress.by, after, BATCH).await?;
        // No transaction may be open while a key service is called.
        drop(tx);
        let Some(last) = kept.last() else { return Ok(progress) };
        after = Some(last.tenant_id);
        let masters = masters.clone();
        let batch = tokio::task::spawn_blocking(move || Batch::wrap(&masters, kept)).await?;
        progress.rewrapped += replace(postgres, &batch.ready).await?;
        progress.failed += batch.failed;
        if batch.failed > 0 {
            progress.reason = batch.reason;
        }
        tell(&progress);
        if batch.failed_in_a_row >= MAX_CONSECUTIVE_FAILURES {
            return Ok(progress);
        }
    }
}

impl Batch {
    fn wrap(masters: &MasterKeys, kept: Vec<Kept>) -> Self {
        let mut batch = Self::default();
        for kept in kept {
            match wrap(masters, &kept) {
                Ok(new) => {
                    batch.ready.push((kept, new));
                    batch.failed_in_a_row = 0;
                }
                Err(error) => {
                    batch.failed += 1;
                    batch.failed_in_a_row += 1;
                    batch.reason = format!("{error:#}");
                    if batch.failed_in_a_row >= MAX_CONSECUTIVE_FAILURES {
                        break;
                    }
                }
            }
        }
        batch
    }
}

fn wrap(masters: &MasterKeys, kept: &Kept) -> anyhow::Result<Wrapped> {
    let tenant = TenantId(kept.tenant_id);
    let wrapped = masters.unwrap(tenant, &kept.key).and_then(|key| masters.wrap(tenant, &key));
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
/// returns its key's version only when it wraps a key, so this wraps a dummy key.
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
