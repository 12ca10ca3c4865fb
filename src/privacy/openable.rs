//! Checks that the configured master keys unwrap all data keys of the database.

use std::{collections::BTreeMap, sync::Arc};

use super::{master::MasterKeys, store};
use crate::{concurrency::step::bounded, ids::TenantId, pg::Postgres};

/// Number of data keys that one transaction reads.
const BATCH: i64 = 500;

/// Data keys that can't be unwrapped, by the name of the master key that wraps them.
pub type Unopened = BTreeMap<String, UnopenedKeys>;

/// The data keys that one master key should unwrap.
#[derive(Default)]
pub struct UnopenedKeys {
    pub count: u64,
    /// The error of the last data key.
    pub reason: String,
}

/// Unwraps all data keys, and returns those that can't be unwrapped. Calls `report` with the number
/// of keys after each batch.
///
/// # Errors
/// When Postgres is unavailable.
pub async fn unopened(
    postgres: &Postgres,
    masters: &Arc<MasterKeys>,
    report: impl Fn(u64),
) -> anyhow::Result<Unopened> {
    let (mut unopened, mut count, mut last_tenant) = (Unopened::new(), 0, None);
    loop {
        // The transaction ends in this block, because no transaction may be open while a key
        // service is called. No master key has the empty name, so all data keys are read.
        let rows = bounded(async {
            let mut tx = postgres.begin(TenantId::UNKNOWN).await?;
            store::wrapped_by_others(&mut tx, "", last_tenant, BATCH).await
        });
        let rows = rows.await?;
        let Some(last_row) = rows.last() else { return Ok(unopened) };
        last_tenant = Some(last_row.tenant_id);
        count += rows.len() as u64;
        let masters = masters.clone();
        let errors = tokio::task::spawn_blocking(move || {
            let unwrap = |row: store::StoredDataKey| {
                let error = masters.unwrap(TenantId(row.tenant_id), &row.key).err()?;
                Some((row.key.by, error))
            };
            rows.into_iter().filter_map(unwrap).collect::<Vec<_>>()
        });
        for (by, error) in errors.await? {
            let keys = unopened.entry(by).or_default();
            keys.count += 1;
            keys.reason = format!("{error:#}");
        }
        report(count);
    }
}
