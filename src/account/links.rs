//! The checks that all operations with a link of a mail have in common.

use secrecy::SecretString;

use super::Accounts;
use crate::{
    audit::{self, Actor, Event, EventKind, Origin},
    error::{Error, Result},
    gate::NamedTenant,
    ids::TenantId,
    limits::RateClass,
    mail::{Link, Purpose},
    proto::v1::ErrorReason,
    sign_in::named_tenant,
};

impl Accounts {
    /// Parses the token of a link with one of these purposes, and counts the call. Returns the link
    /// and the tenant whose limits the call counts against. The link is not looked up, so it may be
    /// invalid.
    ///
    /// # Errors
    /// `TOKEN_INVALID` when the token is malformed, has another purpose, or belongs to another
    /// tenant than the metadata names; `RATE_LIMITED` above the tenant's rate.
    pub(super) async fn admit_link(
        &self,
        purposes: &[Purpose],
        named: &NamedTenant,
        origin: &Origin,
        token: impl Into<SecretString>,
    ) -> Result<(Link, TenantId)> {
        let link = Link::parse(purposes, &token.into()).ok_or_else(token_invalid)?;
        if named.is_other_than(link.tenant) {
            return Err(token_invalid());
        }
        let (_, charged_tenant) =
            named_tenant::tenant_and_charged_tenant(&self.db, &self.limits, link.tenant, origin.ip)
                .await?;
        self.limits.count_for_tenant(RateClass::PasswordReset, charged_tenant).await?;
        Ok((link, charged_tenant))
    }

    /// Records that a link is not valid. Returns the refusal.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable.
    pub(super) async fn record_link_refusal(&self, link: &Link, origin: &Origin) -> Result<Error> {
        let kind = match link.purpose {
            Purpose::PasswordReset => EventKind::PasswordResetFailed,
            _ => EventKind::EmailVerificationFailed,
        };
        self.record_link_event(link, origin, Event::new(kind).target(link.user.0)).await?;
        Ok(token_invalid())
    }

    /// Records an event in the audit trail of the link's tenant, or of [`TenantId::UNKNOWN`] if
    /// that tenant does not exist.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable.
    pub(super) async fn record_link_event(
        &self,
        link: &Link,
        origin: &Origin,
        event: Event,
    ) -> Result<()> {
        let (tenant, charged_tenant) =
            named_tenant::tenant_and_charged_tenant(&self.db, &self.limits, link.tenant, origin.ip)
                .await?;
        let actor = Actor::anonymous(origin);
        audit::record_in_own_transaction_charged_to(&self.db, charged_tenant, tenant, &actor, event)
            .await
    }
}

fn token_invalid() -> Error {
    Error::refused(ErrorReason::TokenInvalid, "the token is not in force")
}
