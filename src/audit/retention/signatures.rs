//! Signs checkpoints again: a key leaves the published keys some time after it has signed for the last
//! time, and nobody could verify its signatures then.

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

/// Signs the checkpoints again that another key than the current one signed, if `keys` verify them.
/// Calls `refused` with the tenant of each checkpoint that is not valid, and the reason. Returns the
/// number of signed checkpoints. After each page, pauses as long as it took.
///
/// # Errors
/// UNAVAILABLE when Postgres or the key service is unavailable.
pub async fn sign_stale(
    db: &Db,
    keyring: &Arc<Keyring>,
    keys: &Arc<StatementKeys>,
    mut refused: impl FnMut(TenantId, &str),
) -> Result<u64> {
    let (mut signed, mut after) = (0, Uuid::nil());
    loop {
        let started_at = Instant::now();
        let current_key = keyring.kid(TokenKind::Access);
        let rows = bounded(store::stale_checkpoints(db, &current_key, after, CHECKPOINTS)).await?;
        let Some(last) = rows.last() else { return Ok(signed) };
        after = last.tenant_id;
        for row in rows {
            let (tenant, keys) = (TenantId(row.tenant_id), keys.clone());
            let result = checkpoint::on_blocking_thread(keyring, move |keyring| {
                match checkpoint::verify(&row, &keys) {
                    Ok(checkpoint) => checkpoint.sign_again(keyring, &row.hash).map(Ok),
                    Err(why) => Ok(Err(why)),
                }
            });
            match result.await? {
                Ok(row) => {
                    bounded(store::replace_signature(db, &row)).await?;
                    signed += 1;
                }
                Err(why) => refused(tenant, &why),
            }
        }
        time::sleep(started_at.elapsed()).await;
    }
}
