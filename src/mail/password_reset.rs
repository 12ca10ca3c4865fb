//! Handles requests for password resets: finds the accounts, and queues a mail with a link for
//! each account. This file also contains the text of the mail.

use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::{
    kind::Kind,
    link::{Link, Purpose},
    outbox::{self, Mail, RequestedTenants, ResetRequest},
    store,
};
use crate::{
    audit::{self, Actor, Event, EventKind, Origin},
    config::TOKEN_PLACEHOLDER,
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

/// The id of the mail for one tenant of a reset request. The id is the same each time that the
/// request is handled, so the mail is queued only once.
fn mail_id(reset_request_id: Uuid, tenant: TenantId) -> Uuid {
    let mut bytes = [0; 16];
    let hash = secret::hash(&[*reset_request_id.as_bytes(), *tenant.0.as_bytes()].concat());
    bytes.copy_from_slice(&hash[..16]);
    Uuid::new_v8(bytes)
}

/// The handler of password reset requests.
pub(super) struct ResetHandler {
    pub db: Db,
    pub limits: Limits,
    /// The URL of the page that resets a password, with [`TOKEN_PLACEHOLDER`] in it; `None` when
    /// mails contain only the token.
    pub page_url: Option<String>,
}

impl ResetHandler {
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
        charged_tenant: TenantId,
        reset_request_id: Uuid,
        request: &ResetRequest,
    ) -> Result<()> {
        let (normalized_email, origin) = (email::normalized(&request.email), request.origin());
        for tenant in self.tenants(charged_tenant, request.tenants, &normalized_email).await? {
            let mail_id = mail_id(reset_request_id, tenant);
            self.handle_in_tenant(charged_tenant, tenant, mail_id, &normalized_email, &origin)
                .await?;
        }
        Ok(())
    }

    /// The tenants in which a request is handled.
    async fn tenants(
        &self,
        charged_tenant: TenantId,
        requested: RequestedTenants,
        normalized_email: &str,
    ) -> Result<Vec<TenantId>> {
        let only_verified_emails = match requested {
            RequestedTenants::One(tenant) => return Ok(vec![tenant]),
            RequestedTenants::ByEmail { only_verified_emails } => only_verified_emails,
        };
        let (db, only_verified) = (&self.db, only_verified_emails);
        let tenants =
            tenants::find_by_email(db, charged_tenant, normalized_email, only_verified).await?;
        // The request is recorded even if no account has the email.
        Ok(if tenants.is_empty() { vec![TenantId::UNKNOWN] } else { tenants })
    }

    async fn handle_in_tenant(
        &self,
        charged_tenant: TenantId,
        tenant: TenantId,
        mail_id: Uuid,
        normalized_email: &str,
        origin: &Origin,
    ) -> Result<()> {
        let candidate =
            password::candidate(&self.db, charged_tenant, tenant, normalized_email).await?;
        let user = candidate.as_ref().map(|candidate| candidate.user);
        let mut event = Event::new(EventKind::PasswordResetRequested);
        if let Some(user) = user {
            event = event.target(user.0);
        }
        let actor = Actor::anonymous(origin);
        let active_user = candidate.filter(|candidate| candidate.active).map(|active| active.user);
        match active_user {
            Some(user) if self.may_mail(charged_tenant, tenant, user, normalized_email).await? => {
                self.queue(tenant, user, mail_id, normalized_email, &actor, event).await
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

    /// Whether the rate limits allow another mail to the account. The limit of the address in all
    /// tenants applies only while the address is unverified: anybody can create accounts with an
    /// address of somebody else, and could otherwise use up the limit of the owner's account.
    async fn may_mail(
        &self,
        charged_tenant: TenantId,
        tenant: TenantId,
        user: SubjectId,
        normalized_email: &str,
    ) -> Result<bool> {
        let mut tx = self.db.begin_in_share(charged_tenant, tenant).await?;
        let is_verified = match users::store::get(&mut tx, tenant, user).await {
            Err(error) if error.reason() == ErrorReason::NotFound => return Ok(false),
            row => row?.email_verified,
        };
        // No connection is held while Redis is asked.
        drop(tx);
        let limit = if is_verified {
            self.limits.check_account_mail_rate(tenant, normalized_email).await
        } else {
            self.limits.check_account_and_address_mail_rate(tenant, normalized_email).await
        };
        if limit.is_err() {
            tracing::info!(%tenant, %user, "a reset mail was not sent because of the rate limit");
        }
        Ok(limit.is_ok())
    }

    /// Queues the mail, stores the link and records the request, in one transaction.
    async fn queue(
        &self,
        tenant: TenantId,
        user: SubjectId,
        mail_id: Uuid,
        normalized_email: &str,
        actor: &Actor,
        event: Event,
    ) -> Result<()> {
        let (link, token) = Link::new(Purpose::PasswordReset, tenant, user)?;
        let mut tx = self.db.begin(tenant).await?;
        // If this transaction locks the row first, a concurrent change of the email waits, and its
        // trigger then invalidates the link. If the change is first, the row has the new email, and
        // no mail is queued.
        let row = users::store::lock(&mut tx, tenant, user).await?;
        audit::record(&mut tx, actor, event).await?;
        if email::normalized(&row.email) == normalized_email {
            let slug = tenants::store::get(&mut tx, tenant).await?.slug;
            let content = Mail {
                to: row.email,
                subject: format!("A new password for {slug}"),
                text: self.text(&slug, &token),
            };
            let cipher = tx.cipher(tenant)?;
            if !outbox::queue(&mut tx, &cipher, mail_id, Kind::PasswordReset, &content).await? {
                // An earlier run already queued this mail. Dropping `tx` rolls back, so the event
                // is not recorded twice.
                return Ok(());
            }
            store::set_link(&mut tx, &link).await?;
        }
        tx.commit_without_waiting().await
    }

    /// The text of the mail, with the tenant's slug. The text does not contain the tenant's name.
    /// Anybody can register a tenant with any text as its name, and could then send mails with this
    /// text to a stranger's address.
    fn text(&self, tenant_slug: &str, token: &SecretString) -> String {
        let token = token.expose_secret();
        let url_or_token = match &self.page_url {
            Some(url) => url.replace(TOKEN_PLACEHOLDER, token),
            None => token.to_owned(),
        };
        let minutes = Purpose::PasswordReset.lifetime().as_secs() / 60;
        format!(
            "Somebody has asked for a new password for your account at {tenant_slug}.\n\n\
             If it was you, choose a new password here:\n\n{url_or_token}\n\n\
             This works once, and for {minutes} minutes. If it was not you, ignore this mail: \
             nothing has changed.\n"
        )
    }
}
