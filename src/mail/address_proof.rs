//! Mails to an address that is not proved yet to belong to the client: for a registration, and for
//! a change of an email. The client must not learn whether another user of the tenant has the
//! address. So the response of the call is the same in both cases, and the worker chooses the text
//! of the mail.

use super::{
    kind::Kind,
    link::Purpose,
    outbox::{AddressProof, Mail},
    text::{self, Pages},
};
use crate::{db::Db, email, error::Result, ids::TenantId, limits::Limits, users};

impl Purpose {
    /// The kind of the rows with an [`AddressProof`] for this purpose.
    pub(super) const fn proof_kind(self) -> Kind {
        match self {
            Self::Registration => Kind::Registration,
            _ => Kind::EmailChange,
        }
    }
}

impl AddressProof {
    /// Counts the mail, and checks the rates of mails to the account and to the address.
    ///
    /// # Errors
    /// `RATE_LIMITED` after too many mails of this purpose to the address.
    pub(super) async fn check_rate(
        &self,
        limits: &Limits,
        tenant: TenantId,
        purpose: Purpose,
    ) -> Result<()> {
        // Mails of each purpose are counted separately. Otherwise registrations with the email of
        // another person, which anybody can make, could use up that person's reset mails.
        let counter_name = format!("{} {}", purpose.as_str(), email::normalized(&self.email));
        limits.check_account_and_address_mail_rate(tenant, &counter_name).await
    }

    /// The mail: with the link if no other user of the tenant has the address, otherwise without
    /// it.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres or the data key is unavailable.
    pub(super) async fn to_mail(
        &self,
        db: &Db,
        pages: &Pages,
        tenant: TenantId,
        purpose: Purpose,
    ) -> Result<Mail> {
        let mut tx = db.begin(tenant).await?;
        let owner = users::store::find_by_email(&mut tx, tenant, &self.email).await?;
        drop(tx);
        let to = self.email.clone();
        Ok(match owner {
            Some(owner) if owner.user_id != self.user => text::address_taken(to, &self.tenant_slug),
            _ => pages.mail(purpose, to, &self.tenant_slug, &self.token),
        })
    }
}
