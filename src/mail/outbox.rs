//! The outbox: a table in Postgres with the mails that the worker must still send, and the requests
//! for links that the worker must still handle. A mail is queued in the transaction of
//! the change that the mail reports.

use std::net::IpAddr;

use http::HeaderValue;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{kind::Kind, store};
use crate::{
    audit::{CorrelationId, Origin},
    db::{Db, TenantTx},
    error::Result,
    ids::{SubjectId, TenantId},
    limits,
    privacy::{Cipher, Index, SealContext},
};

/// A call of `RequestPasswordReset` or `RequestEmailVerification`. The account may or may not exist.
#[derive(Serialize, Deserialize)]
pub struct LinkRequest {
    pub(super) tenants: RequestedTenants,
    pub(super) email: String,
    ip: Option<IpAddr>,
    correlation_id: String,
}

/// The tenants of a request.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub enum RequestedTenants {
    /// The tenant that the request names; [`TenantId::UNKNOWN`] when the tenant does not exist.
    One(TenantId),
    /// The request names no tenant. The request applies to at most three tenants that have a user
    /// with the email.
    ByEmail {
        /// Whether only users with a verified email are found.
        #[serde(rename = "only_verified")]
        only_verified_emails: bool,
    },
}

impl LinkRequest {
    #[must_use]
    pub fn new(tenants: RequestedTenants, email: String, origin: &Origin) -> Self {
        Self { tenants, email, ip: origin.ip, correlation_id: origin.correlation_id.to_string() }
    }

    pub(super) fn origin(&self) -> Origin {
        let header = HeaderValue::from_str(&self.correlation_id).ok();
        let correlation_id = header.and_then(|header| CorrelationId::accept(&header));
        Origin {
            correlation_id: correlation_id.unwrap_or_else(CorrelationId::new),
            ip: self.ip,
            user_agent: None,
        }
    }
}

/// The notice of a changed email.
#[derive(Serialize, Deserialize)]
pub struct EmailChanged {
    pub user: SubjectId,
    /// The address before the change, which gets the mail.
    pub old_email: String,
    /// Whether the user had verified the old address.
    pub was_verified: bool,
}

/// A mail with the token of a link to an address that is not proved yet.
#[derive(Serialize, Deserialize)]
pub struct AddressProof {
    /// The user of the link.
    pub user: SubjectId,
    /// The address, which gets the mail.
    pub email: String,
    pub tenant_slug: String,
    /// The token of the link.
    pub token: String,
}

/// A mail that is ready to be sent.
#[derive(Serialize, Deserialize)]
pub(super) struct Mail {
    pub to: String,
    pub subject: String,
    pub text: String,
}

/// The seal context of a row: the sealed content of the row can't be opened in any other row.
pub(super) fn seal_context(id: &Uuid) -> SealContext<'_> {
    SealContext::row("mail_outbox", id)
}

/// Queues a request. The steps are the same whether or not the tenant and the account exist.
///
/// # Errors
/// `OVERLOADED` when too many requests wait, or when the share of connections is used up;
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn queue_request(
    db: &Db,
    kind: Kind,
    charged_tenant: TenantId,
    request: &LinkRequest,
) -> Result<()> {
    let id = Uuid::now_v7();
    let cipher = db.common_cipher()?;
    let content = cipher.seal_json(seal_context(&id), request)?;
    let network = network_index(&cipher, request.ip);
    let mut tx = db.begin_without_cipher(charged_tenant).await?;
    store::queue(&mut tx, id, kind, &content, network).await?;
    tx.commit_without_waiting().await
}

/// Queues a row in the transaction of its tenant. Returns false when the row was queued before.
/// `network` is the [`network_index`] of a client that requested the mail without a token.
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
    network: Option<Index>,
) -> Result<bool> {
    let content = cipher.seal_json(seal_context(&id), content)?;
    store::queue(tx, id, kind, &content, network).await
}

/// The keyed hash of a client's network, for the share of the network in the outbox.
pub(super) fn network_index(common_cipher: &Cipher, ip: Option<IpAddr>) -> Option<Index> {
    let network = limits::network(ip?).to_string();
    Some(common_cipher.blind_index("network", network.as_bytes()))
}
