//! Handles requests for links, for a password reset or the verification of an email: finds the
//! accounts, and queues a mail with a link for each account.

use secrecy::ExposeSecret;
use uuid::Uuid;

use super::{
    kind::Kind,
    link::{Link, Purpose},
    outbox::{self, LinkRequest, RequestedTenants},
    store,
    text::Pages,
};
use crate::{
    audit::{self, Actor, Event, EventKind, Origin},
    credentials::password,
    db::Db,
    email,
    error::Result,
    ids::{SubjectId, TenantId},
    limits::Limits,
    proto::v1::ErrorReason,
    secrets::secret,
    tenants, users,
};

/// The id of the mail for one tenant of a request. The id is the same each time that the
/// request is handled, so the mail is queued only once.
fn mail_id(request_id: Uuid, tenant: TenantId) -> Uuid {
    let mut bytes = [0; 16];
    let hash = secret::hash(&[*request_id.as_bytes(), *tenant.0.as_bytes()].concat());
    bytes.copy_from_slice(&hash[..16]);
    Uuid::new_v8(bytes)
}

/// The handler of requests for links.
pub(super) struct RequestHandler {
    pub db: Db,
    pub limits: Limits,
    pub pages: Pages,
}

/// One account that a request may mean.
struct RequestedAccount<'a> {
    purpose: Purpose,
    tenant: TenantId,
    mail_id: Uuid,
    normalized_email: &'a str,
}

impl RequestedAccount<'_> {
    fn mail_kind(&self) -> Kind {
        match self.purpose {
            Purpose::PasswordReset => Kind::PasswordReset,
            _ => Kind::EmailVerification,
        }
    }

    fn event(&self) -> Event {
        Event::new(match self.purpose {
            Purpose::PasswordReset => EventKind::PasswordResetRequested,
            _ => EventKind::EmailVerificationRequested,
        })
    }
}

impl RequestHandler {
    /// Handles the request with this id. If a request is handled again after a crash, no mail is
    /// queued twice.
    ///
    /// The lookup and the audit event use Postgres connections from the share of `charged_tenant`.
    /// The transaction that queues the mail uses the share of its own tenant.
    ///
    /// # Errors
    /// `OVERLOADED` when the outbox is full, or when the share of connections is used up;
    /// UNAVAILABLE when Postgres is unavailable.
    pub(super) async fn handle(
        &self,
        purpose: Purpose,
        charged_tenant: TenantId,
        request_id: Uuid,
        request: &LinkRequest,
    ) -> Result<()> {
        let (normalized_email, origin) = (email::normalized(&request.email), request.origin());
        for tenant in self.find_tenants(charged_tenant, request.tenants, &normalized_email).await? {
            let mail_id = mail_id(request_id, tenant);
            let normalized_email = &normalized_email;
            let account = RequestedAccount { purpose, tenant, mail_id, normalized_email };
            self.handle_in_tenant(charged_tenant, account, &origin).await?;
        }
        Ok(())
    }

    /// The tenants in which a request is handled.
    async fn find_tenants(
        &self,
        charged_tenant: TenantId,
        requested_tenants: RequestedTenants,
        normalized_email: &str,
    ) -> Result<Vec<TenantId>> {
        let only_verified_emails = match requested_tenants {
            RequestedTenants::One(tenant) => return Ok(vec![tenant]),
            RequestedTenants::ByEmail { only_verified_emails } => only_verified_emails,
        };
        let (db, only_verified) = (&self.db, only_verified_emails);
        let tenants =
            tenants::find_by_email(db, charged_tenant, normalized_email, only_verified).await?;
        // The request is recorded even if no account has the email: under the id for unknown
        // tenants.
        Ok(if tenants.is_empty() { vec![TenantId::UNKNOWN] } else { tenants })
    }

    async fn handle_in_tenant(
        &self,
        charged_tenant: TenantId,
        account: RequestedAccount<'_>,
        origin: &Origin,
    ) -> Result<()> {
        let RequestedAccount { tenant, normalized_email, .. } = account;
        let candidate =
            password::find_candidate(&self.db, charged_tenant, tenant, normalized_email).await?;
        let user = candidate.as_ref().map(|candidate| candidate.user);
        let mut event = account.event();
        if let Some(user) = user {
            event = event.target(user.0);
        }
        let actor = Actor::anonymous(origin);
        let active_user =
            candidate.filter(|candidate| candidate.active).map(|candidate| candidate.user);
        match active_user {
            Some(user) if self.try_count_mail(charged_tenant, &account, user).await? => {
                self.queue_mail(&account, user, &actor, event).await
            }
            _ => {
                let db = &self.db;
                audit::record_in_own_transaction_charged_to(
                    db,
                    charged_tenant,
                    tenant,
                    &actor,
                    event,
                )
                .await
            }
        }
    }

    /// Counts a mail to the account. Returns whether the rate limits allow the mail. The limit of
    /// the address in all tenants applies only while the address is unverified: anybody can create
    /// accounts with an address of somebody else, and could otherwise use up the limit of the
    /// owner's account.
    async fn try_count_mail(
        &self,
        charged_tenant: TenantId,
        account: &RequestedAccount<'_>,
        user: SubjectId,
    ) -> Result<bool> {
        let RequestedAccount { tenant, purpose, normalized_email, .. } = *account;
        // Mails of each purpose are counted separately. So requests for one purpose do not use up
        // the mails for another purpose.
        let counter_name = match purpose {
            Purpose::PasswordReset => normalized_email.to_owned(),
            _ => format!("{} {normalized_email}", purpose.as_str()),
        };
        let mut tx = self.db.begin_in_share(charged_tenant, tenant).await?;
        let is_verified = match users::store::get(&mut tx, tenant, user).await {
            Err(error) if error.reason() == ErrorReason::NotFound => return Ok(false),
            row => row?.email_verified,
        };
        // The connection is returned before the request to Redis.
        drop(tx);
        let result = if is_verified {
            self.limits.check_account_mail_rate(tenant, &counter_name).await
        } else {
            self.limits.check_account_and_address_mail_rate(tenant, &counter_name).await
        };
        if result.is_err() {
            let purpose = purpose.as_str();
            tracing::info!(%tenant, %user, purpose, "a mail was not sent because of the rate limit");
        }
        Ok(result.is_ok())
    }

    /// Queues the mail, stores the link and records the request, in one transaction. If the mail is
    /// no longer needed, only records the request.
    async fn queue_mail(
        &self,
        account: &RequestedAccount<'_>,
        user: SubjectId,
        actor: &Actor,
        event: Event,
    ) -> Result<()> {
        let RequestedAccount { tenant, purpose, mail_id, normalized_email } = *account;
        let (link, token) = Link::new(purpose, tenant, user)?;
        let mut tx = self.db.begin(tenant).await?;
        // If this transaction locks the row first, a concurrent change of the email waits, and its
        // trigger then invalidates the link. If the change is first, the row has the new email, and
        // no mail is queued.
        let row = users::store::lock(&mut tx, tenant, user).await?;
        audit::record(&mut tx, actor, event).await?;
        let is_needed = purpose == Purpose::PasswordReset || !row.email_verified;
        if is_needed && email::normalized(&row.email) == normalized_email {
            let slug = tenants::store::get(&mut tx, tenant).await?.slug;
            let cipher = tx.cipher(tenant)?;
            store::set_link(&mut tx, &link, &row.email).await?;
            let content = self.pages.mail(purpose, row.email, &slug, token.expose_secret());
            if !outbox::queue(&mut tx, &cipher, mail_id, account.mail_kind(), &content, None)
                .await?
            {
                // An earlier run already queued this mail. Dropping `tx` rolls back, so the event
                // is not recorded twice, and the link of the mail stays valid.
                return Ok(());
            }
        }
        tx.commit_without_waiting().await
    }
}
