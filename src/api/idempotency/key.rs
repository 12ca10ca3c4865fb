//! The key of an idempotency record. It identifies a request and the request's retries.

use uuid::Uuid;

use crate::{
    ids::{SubjectId, TenantId},
    privacy::Cipher,
};

/// Identifies a request and the request's retries.
pub struct Key<'a> {
    /// The tenant that the record belongs to. The transaction must work in this tenant.
    pub tenant: TenantId,
    /// The caller; `None` for a call without a token.
    pub actor: Option<SubjectId>,
    /// The name of the method.
    pub method: &'static str,
    /// The client's `request_id`. With an empty `request_id`, no record is stored or found.
    pub request_id: &'a str,
    /// The hash of the request's content, from [`super::fingerprint`].
    pub fingerprint: Vec<u8>,
}

impl Key<'_> {
    /// The keyed hash of the fingerprint, for storage. Without the key, a reader of the database
    /// can't test guesses of emails or passwords against the hash.
    pub(super) fn keyed_fingerprint(&self, cipher: &Cipher) -> Vec<u8> {
        cipher.blind_index("request", &self.fingerprint).to_vec()
    }

    /// The bytes that identify the row of the record. The response is sealed for this row.
    pub(super) fn row_bytes(&self) -> Vec<u8> {
        let actor = self.actor_or_nil();
        [actor.as_bytes(), self.method.as_bytes(), b"/", self.request_id.as_bytes()].concat()
    }

    /// The stored id of the caller; the nil UUID for a call without a token.
    pub(super) fn actor_or_nil(&self) -> Uuid {
        self.actor.map_or(Uuid::nil(), |user| user.0)
    }
}
