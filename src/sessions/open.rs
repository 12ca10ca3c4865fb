//! Opens a session: its row, its first two tokens.

use std::sync::Arc;

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::store::SessionClient;
use crate::{
    audit::Origin,
    clock,
    config::Lifetimes,
    db::Db,
    error::{Error, Result},
    ids::{SessionId, TenantId, UserId},
    tokens::{Keyring, SubjectType, TokenContent, TokenKind, TokenPair, new_jti},
};

/// Who signs in, from where.
pub struct Opening<'a> {
    /// The tenant.
    pub tenant: TenantId,
    /// The user.
    pub user: UserId,
    /// The session to open.
    pub session: SessionId,
    /// The hash that the password was found right against: the session opens
    /// only while that is still the user's.
    pub verified_hash: &'a str,
    /// What replaces it, where it is outdated.
    pub new_hash: Option<&'a str>,
    /// What the user calls the device.
    pub device_name: &'a str,
    /// Where the sign-in comes from.
    pub origin: &'a Origin,
}

/// Writes the session, and returns what is to be signed; `None` when user,
/// tenant or password changed meanwhile.
///
/// # Errors
/// When Postgres is away.
pub async fn open(
    db: &Db,
    keyring: &Keyring,
    lifetimes: Lifetimes,
    opening: Opening<'_>,
) -> Result<Option<Unsigned>> {
    let issued_at = clock::now().replace_nanosecond(0).map_err(|_| Error::defect("the clock"))?;
    let expires_at = issued_at + span(lifetimes.session)?;
    let mut unsigned = Unsigned {
        tenant: opening.tenant,
        user: opening.user,
        session: opening.session,
        roles: Vec::new(),
        issued_at,
        access_jti: new_jti(),
        access_expires_at: expires_at.min(issued_at + span(lifetimes.access)?),
        access_kid: keyring.kid(TokenKind::Access),
        refresh_jti: new_jti(),
        refresh_kid: keyring.kid(TokenKind::Refresh),
        refresh_expires_at: expires_at.min(issued_at + span(lifetimes.refresh)?),
    };
    let Some(cipher) = db.cipher(opening.tenant).await? else { return Ok(None) };
    let event = Uuid::now_v7();
    let opened = sqlx::query!(
        r#"
        select roles as "roles!" from open_session(
            $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17
        )
        "#,
        opening.tenant.0,
        opening.user.0,
        opening.verified_hash,
        opening.new_hash,
        unsigned.session.0,
        SessionClient::of(&opening).seal(&cipher, unsigned.session.0, unsigned.user.0)?,
        unsigned.refresh_jti,
        unsigned.refresh_kid,
        unsigned.refresh_expires_at,
        unsigned.access_jti,
        unsigned.access_kid,
        unsigned.access_expires_at,
        issued_at,
        expires_at,
        event,
        opening.origin.correlation_id.to_string(),
        opening.origin.sealed_ip(&cipher, event)?,
    )
    .fetch_optional(db.statement_in_share(opening.tenant).await?)
    .await;
    let opened = match opened {
        Err(error) if is_suspended(&error) => None,
        other => other?,
    };
    Ok(opened.map(|row| {
        unsigned.roles = row.roles;
        unsigned
    }))
}

/// Whether the tenant was suspended while the session waited to be opened.
fn is_suspended(error: &sqlx::Error) -> bool {
    let constraint = error.as_database_error().and_then(|error| error.constraint());
    constraint == Some("sessions_tenant_active")
}

impl SessionClient {
    fn of(opening: &Opening<'_>) -> Self {
        Self {
            device_name: opening.device_name.to_owned(),
            ip: opening.origin.ip.map(|ip| ip.to_string()).unwrap_or_default(),
            user_agent: opening.origin.user_agent(),
        }
    }
}

/// A lifetime, as times are counted on by it.
///
/// # Errors
/// INTERNAL when it is out of range, which no setting is.
pub fn span(life: std::time::Duration) -> Result<Duration> {
    Duration::try_from(life).map_err(|_| Error::defect("a lifetime is out of range"))
}

/// A pair of tokens that are still to be signed: what the session's row says of
/// them.
pub struct Unsigned {
    /// The tenant.
    pub tenant: TenantId,
    /// The user.
    pub user: UserId,
    /// The session.
    pub session: SessionId,
    /// The names of the user's roles.
    pub roles: Vec<String>,
    /// When both count from.
    pub issued_at: OffsetDateTime,
    /// The access token's id.
    pub access_jti: String,
    /// The key that signs it.
    pub access_kid: String,
    /// When it ends.
    pub access_expires_at: OffsetDateTime,
    /// The refresh token's id.
    pub refresh_jti: String,
    /// The key that signs it.
    pub refresh_kid: String,
    /// When it ends.
    pub refresh_expires_at: OffsetDateTime,
}

impl Unsigned {
    /// Signs both, off the runtime's threads. The same content gives the same
    /// bytes.
    ///
    /// # Errors
    /// INTERNAL when a key does not sign.
    pub async fn sign(self, keyring: Arc<Keyring>) -> Result<TokenPair> {
        let content = |roles, jti, expires_at| TokenContent {
            user: self.user,
            subject_type: SubjectType::User,
            tenant: self.tenant,
            session: self.session,
            roles,
            jti,
            issued_at: self.issued_at,
            expires_at,
        };
        let access = content(self.roles, self.access_jti, self.access_expires_at);
        let refresh = content(Vec::new(), self.refresh_jti, self.refresh_expires_at);
        let (session, access_kid, refresh_kid) = (self.session, self.access_kid, self.refresh_kid);
        let sign = move || -> Result<TokenPair> {
            Ok(TokenPair {
                access: keyring.sign(TokenKind::Access, &access_kid, access)?,
                refresh: keyring.sign(TokenKind::Refresh, &refresh_kid, refresh)?,
                session,
            })
        };
        tokio::task::spawn_blocking(sign)
            .await
            .map_err(|_| Error::defect("a signing thread died"))?
    }
}
