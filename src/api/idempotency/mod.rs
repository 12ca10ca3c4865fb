//! Idempotent retries (AIP-155): a caller that repeats a request with the same `request_id` gets
//! the first response again.
//!
//! A record expires after 24 hours. `Refresh` does not use these records. Its retries have their
//! own rule: `rotate_session` (`migrations/0019_rotate_session.sql`).
//!
//! - Rule: `forget_requests` (`migrations/0006_idempotency.sql`) deletes a record when the object
//!   that the request created is deleted, or when the caller of the request is deleted (triggers).
//! - Rule: `forget_request_of_key` (`migrations/0006_idempotency.sql`) deletes the record of a
//!   revoked API key (trigger).

mod key;
mod store;

use aws_lc_rs::digest;
use prost::Message;
use uuid::Uuid;
use zeroize::Zeroizing;

pub use key::Key;
pub use store::LIFETIME;

use store::Record;

use crate::{
    db::TenantTx,
    error::{Error, Result},
    privacy::SealContext,
    proto::v1::ErrorReason,
};

/// The name of the table. A response is sealed for its row of this table, so that a copy in another
/// row can't be decrypted.
const TABLE: &str = "idempotency_records";

/// The SHA-256 of a whole request, including the request's secrets. Keep this hash in memory only;
/// the database stores a keyed hash of this hash.
#[must_use]
pub fn fingerprint(request: &impl Message) -> Vec<u8> {
    let bytes = Zeroizing::new(request.encode_to_vec());
    digest::digest(&digest::SHA256, &bytes).as_ref().to_vec()
}

/// Runs `work` in the transaction, stores the response and commits. `work` returns the id of the
/// created resource, and the response. For a repeated request, does not run `work`, and returns the
/// first response again.
///
/// # Errors
/// Returns `INVALID_ARGUMENT` when the request id was used for a different request, and the errors
/// of `work`.
pub async fn once<R: Message + Default>(
    mut tx: TenantTx,
    key: &Key<'_>,
    work: impl AsyncFnOnce(&mut TenantTx) -> Result<(Uuid, R)>,
) -> Result<R> {
    if let Some(response) = find_response(&mut tx, key).await? {
        return Ok(response);
    }
    let (created_id, response) = work(&mut tx).await?;
    store_response(&mut tx, key, created_id, &response).await?;
    tx.commit().await?;
    Ok(response)
}

/// Finds the first response to this request; `None` when the request is new. Until this transaction
/// ends, other transactions with the same request id wait in this function.
///
/// # Errors
/// Returns `INVALID_ARGUMENT` when the request id was used for a different request.
pub async fn find_response<R: Message + Default>(
    tx: &mut TenantTx,
    key: &Key<'_>,
) -> Result<Option<R>> {
    if key.request_id.is_empty() {
        return Ok(None);
    }
    store::lock(tx, key).await?;
    let Some(record) = store::find(tx, key).await? else { return Ok(None) };
    let cipher = tx.cipher(key.tenant)?;
    if record.fingerprint != key.keyed_fingerprint(&cipher) {
        return Err(Error::refused(
            ErrorReason::RequestIdReused,
            "this request_id was used for another request",
        ));
    }
    let response =
        cipher.open(SealContext { table: TABLE, row: &key.row_bytes() }, &record.response)?;
    let response = R::decode(response.as_slice());
    response.map(Some).map_err(|_| Error::defect("an idempotency record can't be decoded"))
}

/// Stores the response for retries. The record is deleted together with the resource
/// `created_id`.
///
/// # Errors
/// Returns UNAVAILABLE when Postgres is unavailable.
pub async fn store_response(
    tx: &mut TenantTx,
    key: &Key<'_>,
    created_id: Uuid,
    response: &impl Message,
) -> Result<()> {
    if key.request_id.is_empty() {
        return Ok(());
    }
    let cipher = tx.cipher(key.tenant)?;
    let response = cipher
        .seal(SealContext { table: TABLE, row: &key.row_bytes() }, &response.encode_to_vec())?;
    let record = Record { fingerprint: key.keyed_fingerprint(&cipher), response };
    store::save(tx, key, &record, created_id).await
}
