//! Idempotent retries (AIP-155): when a caller repeats a request with the same `request_id`, it
//! gets the first response again.
//!
//! A record expires after [`LIFE`].
//!
//! - Rule: `forget_requests` (`migrations/0006_idempotency.sql`) deletes a record with the object
//!   that its request created, and with its caller (triggers).
//! - Rule: `forget_request_of_key` (`migrations/0006_idempotency.sql`) deletes the record of a
//!   revoked API key (trigger).

mod trim;

use aws_lc_rs::digest;
use prost::Message;
use sqlx::postgres::types::PgInterval;
use uuid::Uuid;
use zeroize::Zeroizing;

pub use trim::spawn_trimming;

use crate::{
    db::TenantTx,
    error::{Error, Result},
    ids::{TenantId, UserId},
    privacy::{Cipher, SealContext},
    proto::v1::ErrorReason,
};

/// How long a record is kept: 24 hours, in microseconds.
const LIFE: PgInterval = PgInterval { months: 0, days: 0, microseconds: 24 * 60 * 60 * 1_000_000 };

/// The table whose name is part of the seal of each response.
const TABLE: &str = "idempotency_records";

/// Identifies a request for retries.
pub struct Key<'a> {
    /// The tenant of the transaction, which keeps the record.
    pub tenant: TenantId,
    /// The caller; `None` for a call without a token.
    pub actor: Option<UserId>,
    /// The name of the method.
    pub method: &'static str,
    /// The client's `request_id`. When it is empty, nothing is stored or found.
    pub request_id: &'a str,
    /// The hash of the request's content, from [`fingerprint`].
    pub fingerprint: Vec<u8>,
}

impl Key<'_> {
    /// The fingerprint as it is stored. It is keyed, so that a reader of the database can't test
    /// guesses of emails or passwords against it.
    fn keyed(&self, cipher: &Cipher) -> Vec<u8> {
        cipher.index("request", &self.fingerprint).to_vec()
    }

    fn row(&self) -> Vec<u8> {
        let actor = actor(self);
        [actor.as_bytes(), self.method.as_bytes(), b"/", self.request_id.as_bytes()].concat()
    }
}

/// The SHA-256 of a whole request, including its secrets. Keep it in memory only; the database
/// stores a keyed hash of it.
#[must_use]
pub fn fingerprint(request: &impl Message) -> Vec<u8> {
    let bytes = Zeroizing::new(request.encode_to_vec());
    digest::digest(&digest::SHA256, &bytes).as_ref().to_vec()
}

/// The first response, if this request was made before. Equal requests in other transactions wait
/// from this call until this transaction ends.
///
/// # Errors
/// Returns `INVALID_ARGUMENT` when the id was used for a different request.
pub async fn recall<R: Message + Default>(tx: &mut TenantTx, key: &Key<'_>) -> Result<Option<R>> {
    if key.request_id.is_empty() {
        return Ok(None);
    }
    let lock = format!("{} {} {} {}", key.tenant, actor(key), key.method, key.request_id);
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended($1, 0))", lock)
        .execute(tx.conn())
        .await?;
    let kept = sqlx::query!(
        r#"
        select fingerprint, response from idempotency_records
        where tenant_id = $1 and actor_id = $2 and method = $3 and request_id = $4
          and created_at > now() - $5::interval
        "#,
        key.tenant.0,
        actor(key),
        key.method,
        key.request_id,
        LIFE,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(kept) = kept else { return Ok(None) };
    let cipher = tx.cipher(key.tenant)?;
    if kept.fingerprint != key.keyed(&cipher) {
        return Err(Error::refused(
            ErrorReason::RequestIdReused,
            "this request_id was used for another request",
        ));
    }
    let response = cipher.open(SealContext { table: TABLE, row: &key.row() }, &kept.response)?;
    let response = R::decode(response.as_slice());
    response.map(Some).map_err(|_| Error::defect("an unreadable idempotency record"))
}

/// Stores the response for retries. The record is deleted with the resource `made`.
///
/// # Errors
/// Returns UNAVAILABLE when Postgres is unavailable.
pub async fn remember(
    tx: &mut TenantTx,
    key: &Key<'_>,
    made: Uuid,
    response: &impl Message,
) -> Result<()> {
    if key.request_id.is_empty() {
        return Ok(());
    }
    let cipher = tx.cipher(key.tenant)?;
    let response =
        cipher.seal(SealContext { table: TABLE, row: &key.row() }, &response.encode_to_vec())?;
    sqlx::query!(
        r#"
        insert into idempotency_records
            (tenant_id, actor_id, method, request_id, fingerprint, response, made_id)
        values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (tenant_id, actor_id, method, request_id) do update
        set fingerprint = excluded.fingerprint, response = excluded.response,
            made_id = excluded.made_id, created_at = excluded.created_at
        "#,
        key.tenant.0,
        actor(key),
        key.method,
        key.request_id,
        key.keyed(&cipher),
        response,
        made,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

fn actor(key: &Key<'_>) -> Uuid {
    key.actor.map_or(Uuid::nil(), |user| user.0)
}
