//! Opens a session: inserts its row and creates the contents of its first two tokens.
//!
//! - Rule: `open_session` (`migrations/0018_open_session.sql`) decides whether the user, the tenant
//!   and the password hash are unchanged since the verification, and writes the session.
//! - Rule: `refuse_suspended` (`migrations/0013_sessions.sql`) refuses a session in a tenant that
//!   was suspended since the verification (trigger).

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
    ids::{SessionId, SubjectId, TenantId},
    tokens::{Keyring, SubjectType, TokenContent, TokenKind, TokenPair, new_jti},
};

/// A verified proof of the user's identity.
pub enum Proof<'a> {
    /// A password that matched the stored hash.
    Password {
        /// The hash that the password matched. The session opens only if this is still the hash of
        /// the user.
        verified_hash: &'a str,
        /// A new hash of the password, if the parameters of `verified_hash` are outdated. It
        /// replaces `verified_hash`.
        new_hash: Option<&'a str>,
    },
}

impl Proof<'_> {
    /// The authentication methods (`amr`, RFC 8176).
    fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::Password { .. } => &["pwd"],
        }
    }
}

/// A session to open.
pub struct NewSession<'a> {
    pub tenant: TenantId,
    pub user: SubjectId,
    /// The id of the new session.
    pub session: SessionId,
    pub proof: Proof<'a>,
    /// The user's name for the device.
    pub device_name: &'a str,
    /// The origin of the sign-in request.
    pub origin: &'a Origin,
}

/// Inserts the session. Returns the contents of its first two tokens; `None` when the user, the
/// tenant or the password changed after the proof was verified.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn open(
    db: &Db,
    keyring: &Keyring,
    lifetimes: Lifetimes,
    new_session: NewSession<'_>,
) -> Result<Option<UnsignedTokens>> {
    let issued_at =
        clock::now().replace_nanosecond(0).map_err(|_| Error::defect("the time is invalid"))?;
    let expires_at = issued_at + to_time_duration(lifetimes.session)?;
    let mut unsigned_tokens = UnsignedTokens {
        tenant: new_session.tenant,
        user: new_session.user,
        session: new_session.session,
        roles: Vec::new(),
        issued_at,
        access_jti: new_jti(),
        access_expires_at: expires_at.min(issued_at + to_time_duration(lifetimes.access)?),
        access_kid: keyring.kid(TokenKind::Access),
        refresh_jti: new_jti(),
        refresh_kid: keyring.kid(TokenKind::Refresh),
        refresh_expires_at: expires_at.min(issued_at + to_time_duration(lifetimes.refresh)?),
    };
    let Some(cipher) = db.cipher(new_session.tenant).await? else { return Ok(None) };
    let event = Uuid::now_v7();
    let amr: Vec<_> = new_session.proof.methods().iter().map(|&method| method.to_owned()).collect();
    let Proof::Password { verified_hash, new_hash } = new_session.proof;
    let query_result = sqlx::query!(
        r#"
        select roles as "roles!" from open_session(
            p_tenant => $1, p_user => $2,
            p_amr => $3, p_verified_hash => $4, p_new_hash => $5,
            p_session => $6, p_client => $7,
            p_refresh_jti => $8, p_refresh_kid => $9, p_refresh_expires_at => $10,
            p_access_jti => $11, p_access_kid => $12, p_access_expires_at => $13,
            p_issued_at => $14, p_expires_at => $15,
            p_event => $16, p_correlation_id => $17, p_ip => $18
        )
        "#,
        new_session.tenant.0,
        new_session.user.0,
        &amr,
        verified_hash,
        new_hash,
        unsigned_tokens.session.0,
        SessionClient::of(&new_session).seal(
            &cipher,
            unsigned_tokens.session.0,
            unsigned_tokens.user.0
        )?,
        unsigned_tokens.refresh_jti,
        unsigned_tokens.refresh_kid,
        unsigned_tokens.refresh_expires_at,
        unsigned_tokens.access_jti,
        unsigned_tokens.access_kid,
        unsigned_tokens.access_expires_at,
        issued_at,
        expires_at,
        event,
        new_session.origin.correlation_id.to_string(),
        new_session.origin.sealed_ip(&cipher, event)?,
    )
    .fetch_optional(db.executor_in_share(new_session.tenant).await?)
    .await;
    let session_row = match query_result {
        Err(error) if is_tenant_suspended(&error) => None,
        result => result?,
    };
    Ok(session_row.map(|row| {
        unsigned_tokens.roles = row.roles;
        unsigned_tokens
    }))
}

/// Whether the database refused the session because the tenant is suspended.
fn is_tenant_suspended(error: &sqlx::Error) -> bool {
    let constraint = error.as_database_error().and_then(|error| error.constraint());
    constraint == Some("sessions_tenant_active")
}

impl SessionClient {
    fn of(new_session: &NewSession<'_>) -> Self {
        Self {
            device_name: new_session.device_name.to_owned(),
            ip: new_session.origin.ip.map(|ip| ip.to_string()).unwrap_or_default(),
            user_agent: new_session.origin.user_agent(),
        }
    }
}

/// Converts a lifetime to the duration type of the crate `time`.
///
/// # Errors
/// INTERNAL when the lifetime is out of range. No setting allows that.
pub fn to_time_duration(lifetime: std::time::Duration) -> Result<Duration> {
    Duration::try_from(lifetime).map_err(|_| Error::defect("a lifetime is out of range"))
}

/// The contents of an access token and a refresh token that are not signed yet. The session's row
/// contains the same values.
pub struct UnsignedTokens {
    pub tenant: TenantId,
    pub user: SubjectId,
    pub session: SessionId,
    /// The names of the user's roles.
    pub roles: Vec<String>,
    /// The `iat` and `nbf` of both tokens.
    pub issued_at: OffsetDateTime,
    pub access_jti: String,
    /// The id of the key that signs the access token.
    pub access_kid: String,
    pub access_expires_at: OffsetDateTime,
    pub refresh_jti: String,
    /// The id of the key that signs the refresh token.
    pub refresh_kid: String,
    pub refresh_expires_at: OffsetDateTime,
}

impl UnsignedTokens {
    /// Signs both tokens on a thread for blocking work. The same content gives the same bytes.
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
            .map_err(|_| Error::defect("a signing thread panicked"))?
    }
}
