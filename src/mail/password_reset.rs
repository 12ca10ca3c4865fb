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
    secrets::secret,
    tenants, users,
};

/// The id of the mail for one tenant of a request. The id is the same each time that the request is
/// handled, so the mail is queued only once.
fn mail_id(request: Uuid, tenant: TenantId) -> Uuid {
    let mut bytes = [0; 16];
    let hash = secret::hash(&[*request.as_bytes(), *tenant.0.as_bytes()].concat());
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
    /// Handles the request with this id. The connections count against the limits of
    /// `charged_tenant`. If a request is handled again after a crash, no mail is queued twice.
    ///
    /// # Errors
    /// `OVERLOADED` when too many mails wait; UNAVAILABLE when Postgres is unavailable.
    pub(super) async fn handle(
        &self,
        charged_tenant: TenantId,
        id: Uuid,
        request: &ResetRequest,
    ) -> Result<()> {
        let (email_key, origin) = (email::normalized(&request.email), request.origin());
        for tenant in self.tenants(request.tenants, &email_key).await? {
            let mail_id = mail_id(id, tenant);
            self.handle_in_tenant(charged_tenant, tenant, mail_id, &email_key, &origin).await?;
        }
        Ok(())
    }

    /// The tenants in which a request is handled.
    async fn tenants(&self, requested: RequestedTenants, email_key: &str) -> Result<Vec<TenantId>> {
        let only_verified_emails = match requested {
            RequestedTenants::One(tenant) => return Ok(vec![tenant]),
            RequestedTenants::ByEmail { only_verified_emails } => only_verified_emails,
        };
        let tenants = tenants::find_by_email(&self.db, email_key, only_verified_emails).await?;
        // The request is recorded even if no account has the email.
        Ok(if tenants.is_empty() { vec![TenantId::UNKNOWN] } else { tenants })
    }

    async fn handle_in_tenant(
        &self,
        charged_tenant: TenantId,
        tenant: TenantId,
        mail_id: Uuid,
        email_key: &str,
        origin: &Origin,
    ) -> Result<()> {
        let candidate = password::candidate(&self.db, charged_tenant, tenant, email_key).await?;
        let user = candidate.as_ref().map(|candidate| candidate.user);
        let mut event = Event::new(EventKind::PasswordResetRequested);
        if let Some(user) = user {
            event = event.target(user.0);
        }
        let actor = Actor::anonymous(origin);
        let active_user = candidate.filter(|candidate| candidate.active).map(|active| active.user);
        let Some(user) = active_user else {
            return audit::record_in_share(&self.db, charged_tenant, tenant, &actor, event).await;
        };
        if self.limits.count_mail(tenant, email_key).await.is_err() {
            tracing::info!(%tenant, %user, "a reset mail was not sent because of the rate limit");
            return audit::record_in_share(&self.db, charged_tenant, tenant, &actor, event).await;
        }
        self.queue(tenant, user, mail_id, email_key, &actor, event).await
    }

    /// Queues the mail, stores the link and records the request, in one transaction.
    async fn queue(
        &self,
        tenant: TenantId,
        user: SubjectId,
        mail_id: Uuid,
        email_key: &str,
        actor: &Actor,
        event: Event,
    ) -> Result<()> {
        let (link, token) = Link::new(Purpose::PasswordReset, tenant, user)?;
        let mut tx = self.db.begin(tenant).await?;
        // A change of the address waits for this row lock and then invalidates the link, or this
        // transaction waits for the change and then reads the new address.
        let row = users::store::lock(&mut tx, tenant, user).await?;
        audit::record(&mut tx, actor, event).await?;
        if email::normalized(&row.email) == email_key {
            let slug = tenants::store::get(&mut tx, tenant).await?.slug;
            let content = Mail {
                to: row.email,
                subject: format!("A new password for {slug}"),
                text: self.text(&slug, &token),
            };
            let cipher = tx.cipher(tenant)?;
            if !outbox::queue(&mut tx, &cipher, mail_id, Kind::PasswordReset, &content).await? {
                // The mail was queued before. The rollback removes the second event.
                return Ok(());
            }
            store::set_link(&mut tx, &link).await?;
        }
        tx.commit_without_waiting().await
    }

    /// The text of the mail. The text names the tenant by its slug. The text does not contain the
    /// tenant's name, which is free text of the person who registered the tenant: the address may
    /// belong to anybody.
    fn text(&self, tenant_slug: &str, token: &SecretString) -> String {
        let token = token.expose_secret();
        let link = match &self.page_url {
            Some(url) => url.replace(TOKEN_PLACEHOLDER, token),
            None => token.to_owned(),
        };
        let minutes = Purpose::PasswordReset.lifetime().as_secs() / 60;
        format!(
            "Somebody has asked for a new password for your account at {tenant_slug}.\n\n\
             If it was you, choose a new password here:\n\n{link}\n\n\
             This works once, and for {minutes} minutes. If it was not you, ignore this mail: \
             nothing has changed.\n"
        )
    }
}
