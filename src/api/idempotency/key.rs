//! The identity of a request for retries.

use uuid::Uuid;

use crate::{
    ids::{TenantId, UserId},
    privacy::Cipher,
};

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
    /// The hash of the request's content, from [`super::fingerprint`].
    pub fingerprint: Vec<u8>,
}

impl Key<'_> {
    /// The fingerprint as it is stored. It is keyed, so that a reader of the database can't test
    /// guesses of emails or passwords against it.
    pub(super) fn keyed(&self, cipher: &Cipher) -> Vec<u8> {
        cipher.index("request", &self.fingerprint).to_vec()
    }

    pub(super) fn row(&self) -> Vec<u8> {
        let actor = self.actor_or_nil();
        [actor.as_bytes(), self.method.as_bytes(), b"/", self.request_id.as_bytes()].concat()
    }

    /// The caller as it is stored; the nil UUID for a call without a token.
    pub(super) fn actor_or_nil(&self) -> Uuid {
        self.actor.map_or(Uuid::nil(), |user| user.0)
    }
}
