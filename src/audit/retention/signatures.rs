//! Signs checkpoints again with the current key. After a rotation, the previous key stays published
//! only for a limited time. After this time, nobody could verify the signatures of that key.

use std::sync::Arc;

use tokio::time::{self, Instant};
use uuid::Uuid;

use super::{super::checkpoint, store};
use crate::{
    concurrency::step::bounded,
    db::Db,
    error::Result,
    ids::TenantId,
    tokens::{Keyring, StatementKeys, TokenKind},
};

/// Maximum number of checkpoints that one statement reads.
const CHECKPOINTS: i64 = 100;

/// Signs all checkpoints again that were not signed with the current key, if `keys` verify them.
/// Calls `on_invalid` with the tenant of each checkpoint that is not valid, and the reason. Returns
/// the number of signed checkpoints. After each page, pauses as long as the page took.
///
/// # Errors
/// UNAVAILABLE when Postgres or the key service is unavailable.
pub async fn sign_stale(
    db: &Db,
    keyring: &Arc<Keyring>,
    keys: &Arc<StatementKeys>,
    mut on_invalid: impl FnMut(TenantId, &str),
) -> Result<u64> {
    let (mut signed_count, mut after) = (0, Uuid::nil());
    loop {
        let started_at = Instant::now();
        let current_key = keyring.kid(TokenKind::Access);
        let rows = bounded(store::stale_checkpoints(db, &current_key, after, CHECKPOINTS)).await?;
        let Some(last) = rows.last() else { return Ok(signed_count) };
        after = last.tenant_id;
        for row in rows {
            let (tenant, keys) = (TenantId(row.tenant_id), keys.clone());
            // An error of the outer result is a failure to sign. An error of the inner result is
            // the reason why the checkpoint is not valid.
            let result = checkpoint::on_blocking_thread(keyring, move |keyring| {
                match checkpoint::verify(&row, &keys) {
                    Ok(checkpoint) => checkpoint.sign_again(keyring, &row.hash).map(Ok),
                    Err(why) => Ok(Err(why)),
                }
            });
            match result.await? {
                Ok(row) => {
                    bounded(store::replace_signature(db, &row)).await?;
                    signed_count += 1;
                }
                Err(why) => on_invalid(tenant, &why),
            }
        }
        time::sleep(started_at.elapsed()).await;
    }
}
