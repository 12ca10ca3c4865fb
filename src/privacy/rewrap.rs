//! Rotation of the master key: each data key is wrapped anew, and what it sealed stays
//! as it is.
//!
//! What is left to do is what the table says: it can end anywhere and go on later, and
//! several can work at once, for a key is replaced only as it was read.

use std::sync::Arc;

use anyhow::{Context, ensure};
use secrecy::zeroize::Zeroizing;

use super::{
    cipher::KEY,
    master::{MasterKeys, Wrapped},
    store::{self, Kept},
};
use crate::{ids::TenantId, pg::Postgres};

/// Data keys that are read and replaced at once.
const BATCH: i64 = 500;

/// How many data keys in a row may fail before the work ends: the fault is the key
/// service's then, and not theirs.
const MAX_CONSECUTIVE_FAILURES: u64 = 20;

/// How much was done.
#[derive(Default, Debug)]
pub struct Progress {
    /// What wraps data keys now.
    pub by: String,
    /// Data keys that were wrapped anew.
    pub rewrapped: u64,
    /// Those that could not be.
    pub failed: u64,
    /// The last reason.
    pub reason: String,
}

/// What became of a batch.
#[derive(Default)]
struct Batch {
    ready: Vec<(Kept, Wrapped)>,
    failed: u64,
    failed_in_a_row: u64,
    reason: String,
}

/// Wraps all data keys by the current master key. `tell` hears of each batch.
///
/// # Errors
/// When there is no master key, or Postgres or a key service is away.
pub async fn all(
    postgres: &Postgres,
    masters: &Arc<MasterKeys>,
    tell: impl Fn(&Progress),
) -> anyhow::Result<Progress> {
    ensure!(
        masters.is_there(),
        "there is no master key: set MASTER_KEY_PATH or MASTER_TRANSIT_KEY"
    );
    let mut progress = Progress { by: current(masters).await?, ..Progress::default() };
    let mut after = None;
    loop {
        let mut tx = postgres.begin(TenantId::UNKNOWN).await?;
        let kept = store::others(&mut tx, &progress.by, after, BATCH).await?;
        // None is held while a key service is asked.
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

/// Writes a batch; says how many had not changed meanwhile.
async fn replace(postgres: &Postgres, batch: &[(Kept, Wrapped)]) -> anyhow::Result<u64> {
    let mut tx = postgres.begin(TenantId::UNKNOWN).await?;
    let mut replaced = 0;
    for (old, new) in batch {
        replaced += u64::from(store::rewrap(&mut tx, old, new).await?);
    }
    tx.commit().await?;
    Ok(replaced)
}

/// How many data keys each master key wraps.
///
/// # Errors
/// When Postgres is away.
pub async fn counts(postgres: &Postgres) -> anyhow::Result<Vec<(String, i64)>> {
    let mut tx = postgres.begin(TenantId::UNKNOWN).await?;
    Ok(store::counts(&mut tx).await?)
}

/// What a data key would be wrapped by: a key service says so once it wraps one.
///
/// # Errors
/// When the file can't be read or the key service is away.
pub async fn current(masters: &Arc<MasterKeys>) -> anyhow::Result<String> {
    let masters = masters.clone();
    let probe = move || {
        masters.reload()?;
        masters.wrap(TenantId::UNKNOWN, &Zeroizing::new([0; KEY]))
    };
    Ok(tokio::task::spawn_blocking(probe).await??.by)
}
