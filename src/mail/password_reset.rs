//! Handles requests for password resets: finds the accounts, and queues a mail with a link for
//! each account. This module also contains the text of the mail.

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
    ids::{TenantId, UserId},
    limits::Limits,
    secrets::secret,
    tenants, users,
};

/// The id of the mail for one tenant of a request. The id is the same each time the request is
/// handled, so the mail is queued only once.
fn mail_id(request: Uuid, tenant: TenantId) -> Uuid {
    let mut bytes = [0; 16];
    let hash = secret::hash(&[*request.as_bytes(), *tenant.0.as_bytes()].concat());
    bytes.copy_from_slice(&hash[..16]);
    Uuid::new_v8(bytes)
}

/// The handler of password reset requests.
pub(super) struct Resets {
    pub db: Db,
    pub limits: Limits,
    /// The URL of the page that resets a password, with [`TOKEN_PLACEHOLDER`] in it.
    pub page: Option<String>,
}

impl Resets {
    /// Handles the request with this id. The connections count against the limits of `share`. If a
    /// request is handled again after a crash, no mail is queued twice.
    ///
    /// # Errors
    /// `OVERLOADED` when too many mails wait; UNAVAILABLE when Postgres is unavailable.
    pub(super) async fn handle(
        &self,
        share: TenantId,
        id: Uuid,
        request: &ResetRequest,
    ) -> Result<()> {
        let (key, origin) = (email::key(&request.email), request.origin());
        for tenant in self.tenants(request.tenants, &key).await? {
            self.handle_in(share, tenant, mail_id(id, tenant), &key, &origin).await?;
        }
        Ok(())
    }

    async fn tenants(&self, requested: RequestedTenants, key: &str) -> Result<Vec<TenantId>> {
        let only_verified = match requested {
            RequestedTenants::One(tenant) => return Ok(vec![tenant]),
            RequestedTenants::ByEmail { only_verified } => only_verified,
        };
        let tenants = tenants::find_by_email(&self.db, key, only_verified).await?;
        // The request is recorded even if no account has the email.
        Ok(if tenants.is_empty() { vec![TenantId::UNKNOWN] } else { tenants })
    }

    async fn handle_in(
        &self,
        share: TenantId,
        tenant: TenantId,
        mail: Uuid,
        key: &str,
        origin: &Origin,
    ) -> Result<()> {
        let candidate = password::candidate(&self.db, share, tenant, key).await?;
        let user = candidate.as_ref().map(|candidate| candidate.user);
        let mut event = Event::new(EventKind::PasswordResetRequested);
        if let Some(user) = user {
            event = event.target(user.0);
        }
        let actor = Actor::anonymous(origin);
        let active_user = candidate.filter(|candidate| candidate.active).map(|active| active.user);
        let Some(user) = active_user else {
            return audit::record_in_share(&self.db, share, tenant, &actor, event).await;
        };
        if self.limits.mail(tenant, key).await.is_err() {
            tracing::info!(%tenant, %user, "a password reset mail is over the limit");
            return audit::record_in_share(&self.db, share, tenant, &actor, event).await;
        }
        self.queue(tenant, user, mail, key, &actor, event).await
    }

    /// Queues the mail, stores its link and records the request, in one transaction.
    async fn queue(
        &self,
        tenant: TenantId,
        user: UserId,
        mail: Uuid,
        key: &str,
        actor: &Actor,
        event: Event,
    ) -> Result<()> {
        let (link, token) = Link::new(Purpose::PasswordReset, tenant, user)?;
        let mut tx = self.db.begin(tenant).await?;
        // The lock orders this transaction against a change of the address. Either that change
        // invalidates the link, or this transaction reads the new address.
        let row = users::store::lock(&mut tx, tenant, user).await?;
        audit::record(&mut tx, actor, event).await?;
        if email::key(&row.email) == key {
            let slug = tenants::store::get(&mut tx, tenant).await?.slug;
            let content = Mail {
                to: row.email,
                subject: format!("A new password for {slug}"),
                text: self.text(&slug, &token),
            };
            let cipher = tx.cipher(tenant)?;
            if !outbox::queue(&mut tx, &cipher, mail, Kind::PasswordReset, &content).await? {
                return Ok(());
            }
            store::set_link(&mut tx, &link).await?;
        }
        tx.commit_record().await
    }

    /// The text of the mail. It names the organisation by its slug. It does not contain the name of
    /// the tenant: that name is free text of the person who registered the tenant, and the address
    /// may belong to anybody.
    fn text(&self, organisation: &str, token: &SecretString) -> String {
        let token = token.expose_secret();
        let link = match &self.page {
            Some(page) => page.replace(TOKEN_PLACEHOLDER, token),
            None => token.to_owned(),
        };
        let minutes = Purpose::PasswordReset.lifetime().as_secs() / 60;
        format!(
            "Somebody has asked for a new password for your account at {organisation}.\n\n\
             If it was you, choose one here:\n\n{link}\n\n\
             This works once, and for {minutes} minutes. If it was not you, leave this mail \
             alone: nothing has changed.\n"
        )
    }
}
