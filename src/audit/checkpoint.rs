//! Signed checkpoints. The oldest events of a trail are deleted when their retention is over. A
//! checkpoint remains: the position and the hash of the last deleted event. The hash of the next
//! event covers this hash, so the chain can still be verified.
//!
//! An administrator of the database can delete events, but can't sign a checkpoint for them.
//! docs/audit.md describes the format.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{chain, store::CheckpointRow};
use crate::{
    clock,
    error::{Error, Result},
    tokens::{Keyring, StatementKeys},
};

/// The `typ` of a signed checkpoint.
const TYP: &str = "tenantry-audit-checkpoint+jwt";

/// The claims of a signed checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The issuer, as in tokens.
    pub iss: String,
    /// The time of the signature, in seconds since 1970.
    pub iat: i64,
    pub tenant_id: Uuid,
    /// The position of the last deleted event.
    pub position: i64,
    /// The hash of that event, in base64url.
    pub hash: String,
    /// The time of that event.
    pub event_time: String,
    /// The time at which the events were deleted.
    pub trim_time: String,
}

impl Checkpoint {
    /// The checkpoint after an event that is about to be deleted. `position`, `hash` and
    /// `event_time` belong to this event.
    pub(super) fn after(
        keyring: &Keyring,
        tenant: Uuid,
        position: i64,
        hash: &[u8],
        event_time: OffsetDateTime,
    ) -> Self {
        let now = clock::now();
        Self {
            iss: keyring.issuer().to_owned(),
            iat: now.unix_timestamp(),
            tenant_id: tenant,
            position,
            hash: chain::encode_hash(hash),
            event_time: clock::rfc3339(event_time),
            trim_time: clock::rfc3339(now),
        }
    }

    /// Signs the checkpoint. Returns the row to store; `hash` is the hash of the checkpoint as
    /// bytes. May call a key service, so this function must not run on a thread of the async
    /// runtime, nor while a transaction is open.
    ///
    /// # Errors
    /// UNAVAILABLE when the key service does not sign.
    pub(super) fn sign(&self, keyring: &Keyring, hash: &[u8]) -> Result<CheckpointRow> {
        let statement = keyring.sign_statement(TYP, self)?;
        Ok(CheckpointRow {
            tenant_id: self.tenant_id,
            position: self.position,
            hash: hash.to_vec(),
            signed_by: statement.kid,
            statement: statement.jwt,
        })
    }

    /// Signs a verified checkpoint again, with the current key.
    ///
    /// # Errors
    /// As [`Checkpoint::sign`].
    pub(super) fn sign_again(mut self, keyring: &Keyring, hash: &[u8]) -> Result<CheckpointRow> {
        self.iat = clock::now().unix_timestamp();
        self.sign(keyring, hash)
    }
}

/// Verifies a stored checkpoint: its signature, and that it was signed for this tenant, position
/// and hash. An error describes the fault.
pub(super) fn verify(row: &CheckpointRow, keys: &StatementKeys) -> Result<Checkpoint, String> {
    let fault =
        |why: String| format!("the checkpoint at position {} is not valid: {why}", row.position);
    let checkpoint: Checkpoint =
        keys.verify(TYP, &row.statement).map_err(|error| fault(error.to_string()))?;
    let matches_row = checkpoint.tenant_id == row.tenant_id
        && checkpoint.position == row.position
        && checkpoint.hash == chain::encode_hash(&row.hash);
    if matches_row {
        Ok(checkpoint)
    } else {
        Err(fault("it was signed for another tenant, position or hash".into()))
    }
}

/// Runs `work` on a thread that it may block: to sign, `work` may call a key service.
///
/// # Errors
/// The error of `work`.
pub(super) async fn on_blocking_thread<T: Send + 'static>(
    keyring: &Arc<Keyring>,
    work: impl FnOnce(&Keyring) -> Result<T> + Send + 'static,
) -> Result<T> {
    let keyring = keyring.clone();
    let result = tokio::task::spawn_blocking(move || work(&keyring)).await;
    result.map_err(|_| Error::defect("a thread that signs a checkpoint panicked"))?
}
