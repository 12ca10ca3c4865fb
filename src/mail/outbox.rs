//! The outbox: mails in Postgres, which wait until the worker has sent them. A mail is queued
//! in the transaction of the change that it is about.

use std::{net::IpAddr, time::Duration};

use http::HeaderValue;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{link::Purpose, store};
use crate::{
    audit::{Origin, RequestId},
    db::{Db, TenantTx},
    error::Result,
    ids::{TenantId, UserId},
    privacy::{Cipher, SealContext},
};

/// The kinds of rows in the outbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A call of `RequestPasswordReset` that was not handled yet.
    ResetRequest,
    /// A mail with a link that resets a password.
    PasswordReset,
    /// A changed email, of which the old address gets a notice.
    EmailChanged,
}

/// Maximum number of waiting rows of a kind. Further rows are refused.
pub(super) struct Bounds {
    pub of_tenant: i64,
    pub total: i64,
}

/// Bounds of requests, which anybody may send.
const MAX_REQUESTS: Bounds = Bounds { of_tenant: 125, total: 1_000 };

/// Bounds of mails.
const MAX_MAILS: Bounds = Bounds { of_tenant: 1_000, total: 10_000 };

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::ResetRequest => "reset_request",
            Self::PasswordReset => "password_reset",
            Self::EmailChanged => "email_changed",
        }
    }

    pub(super) const fn bounds(self) -> Bounds {
        match self {
            Self::ResetRequest => MAX_REQUESTS,
            Self::PasswordReset | Self::EmailChanged => MAX_MAILS,
        }
    }

    /// Time after which the row is deleted unsent. A mail is useless when its link has ended.
    pub(super) const fn lifetime(self) -> Duration {
        match self {
            Self::ResetRequest | Self::PasswordReset => Purpose::PasswordReset.lifetime(),
            Self::EmailChanged => Duration::from_hours(24),
        }
    }
}

/// A call of `RequestPasswordReset`. The account may or may not exist.
#[derive(Serialize, Deserialize)]
pub struct ResetRequest {
    pub(super) tenants: NamedTenants,
    pub(super) email: String,
    ip: Option<IpAddr>,
    correlation_id: String,
}

/// The tenants of a request.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub enum NamedTenants {
    /// The tenant that the request names; [`TenantId::UNKNOWN`] when it does not exist.
    One(Uuid),
    /// The request names no tenant: at most three tenants that have a user with the email.
    ByEmail {
        /// Whether only verified addresses count.
        only_verified: bool,
    },
}

impl ResetRequest {
    #[must_use]
    pub fn new(tenants: NamedTenants, email: String, origin: &Origin) -> Self {
        Self { tenants, email, ip: origin.ip, correlation_id: origin.request_id.to_string() }
    }

    pub(super) fn origin(&self) -> Origin {
        let sent = HeaderValue::from_str(&self.correlation_id).ok();
        let request_id = sent.and_then(|sent| RequestId::accept(&sent));
        Origin {
            request_id: request_id.unwrap_or_else(RequestId::new),
            ip: self.ip,
            user_agent: None,
        }
    }
}

/// A changed email.
#[derive(Serialize, Deserialize)]
pub struct EmailChanged {
    pub user: Uuid,
    /// The address before the change, which gets the mail.
    pub old_email: String,
    /// Whether the user had verified the old address.
    pub was_verified: bool,
}

impl EmailChanged {
    pub(super) fn user(&self) -> UserId {
        UserId(self.user)
    }
}

/// A mail that is ready to be sent.
#[derive(Serialize, Deserialize)]
pub(super) struct Mail {
    pub to: String,
    pub subject: String,
    pub text: String,
}

/// The place of a row's content, to which it is sealed.
pub(super) fn context(id: &Uuid) -> SealContext<'_> {
    SealContext::row("mail_outbox", id)
}

/// Queues a request. It is the same work whether or not the tenant and the account exist.
///
/// # Errors
/// `OVERLOADED` when too many requests wait; UNAVAILABLE when Postgres is unavailable.
pub(super) async fn queue_request(db: &Db, share: TenantId, request: &ResetRequest) -> Result<()> {
    let id = Uuid::now_v7();
    let content = db.common_cipher()?.seal_parts(context(&id), request)?;
    let mut tx = db.begin_unsealed(share).await?;
    store::queue(&mut tx, id, Kind::ResetRequest, &content).await?;
    tx.commit_record().await
}

/// Queues a row in the transaction of its tenant. Returns false when it was queued before.
///
/// # Errors
/// `OVERLOADED` when too many rows wait; UNAVAILABLE when Postgres or the data key is
/// unavailable.
pub(super) async fn queue(
    tx: &mut TenantTx,
    cipher: &Cipher,
    id: Uuid,
    kind: Kind,
    content: &impl Serialize,
) -> Result<bool> {
    let content = cipher.seal_parts(context(&id), content)?;
    store::queue(tx, id, kind, &content).await
}
