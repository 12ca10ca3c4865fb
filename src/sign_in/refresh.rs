//! `Refresh`: exchanges a refresh token for its successor (RFC 9700, section 4.14.2).
//!
//! One SQL statement either marks the token as used and writes the successor, or finds that the
//! token was used before and revokes the session. So the change is committed before the client
//! receives the response, and a cancelled call leaves no partial change.
//!
//! Rule: `rotate_session` (`migrations/0019_rotate_session.sql`) decides whether the session
//! has ended, and whether the token is the newest, a retry of the same request, or reused. On
//! reuse, `rotate_session` revokes the session.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::SignIns;
use crate::{
    audit::{Actor, Event, EventKind, Origin, Refusal},
    error::{Error, Result},
    gate::NamedTenant,
    ids::{SessionId, SubjectId, TenantId},
    limits::RateClass,
    pg::interval,
    proto::v1::{ErrorReason, RefreshRequest},
    sessions::{EndedSessions, open::UnsignedTokens},
    tokens::{Claims, TokenKind, TokenPair, new_jti},
};

/// Time in which a retry with the same `request_id` gets the same new tokens.
const RETRY_WINDOW: Duration = Duration::from_secs(10);

impl SignIns {
    pub async fn refresh(
        &self,
        named: &NamedTenant,
        origin: &Origin,
        message: RefreshRequest,
    ) -> Result<TokenPair> {
        let claims = self.keyring.verify(TokenKind::Refresh, &message.refresh_token);
        let claims = claims.ok_or_else(token_invalid)?;
        if named.is_other_than(TenantId(claims.org)) {
            // The call does not count as reuse of the token, so the session is not revoked.
            // Otherwise a client that sends the token with the name of another tenant could end
            // the session.
            return Err(token_invalid());
        }
        self.limits.count_for_tenant(RateClass::Refresh, TenantId(claims.org)).await?;
        // Check the keys first. If the token were marked as used and no successor could be signed,
        // the client would lose the session.
        self.keyring.check_available()?;
        let request_id = Some(message.request_id.as_str()).filter(|id| !id.is_empty());
        let unsigned_tokens = self.rotate(&claims, request_id, origin).await?;
        unsigned_tokens.sign(self.keyring.clone()).await
    }

    async fn rotate(
        &self,
        claims: &Claims,
        request_id: Option<&str>,
        origin: &Origin,
    ) -> Result<UnsignedTokens> {
        let tenant = TenantId(claims.org);
        let Some(cipher) = self.db.cipher(tenant).await? else { return Err(token_invalid()) };
        let event = Uuid::now_v7();
        let row = sqlx::query_as!(
            Rotation,
            r#"
            select outcome as "outcome!", refresh_jti, access_jti, refresh_kid, access_kid,
                   issued_at, refresh_expires_at, access_expires_at, roles
            from rotate_session(
                p_tenant => $1, p_user => $2, p_session => $3, p_jti => $4, p_request_id => $5,
                p_refresh_jti => $6, p_access_jti => $7,
                p_refresh_kid => $8, p_access_kid => $9,
                p_refresh_lifetime => $10, p_access_lifetime => $11, p_replay_window => $12,
                p_event => $13, p_correlation_id => $14, p_ip => $15
            )
            "#,
            claims.org,
            claims.sub,
            claims.sid,
            claims.jti,
            request_id,
            new_jti(),
            new_jti(),
            self.keyring.kid(TokenKind::Refresh),
            self.keyring.kid(TokenKind::Access),
            interval(self.lifetimes.refresh)?,
            interval(self.lifetimes.access)?,
            interval(RETRY_WINDOW)?,
            event,
            origin.correlation_id.to_string(),
            origin.sealed_ip(&cipher, event)?,
        )
        .fetch_one(self.db.executor_in_share(tenant).await?)
        .await?;
        if row.outcome == "reused" {
            tracing::warn!(session = %claims.sid, "a refresh token was reused");
            // The function has revoked the session and committed.
            self.db.wait_for_caches().await;
            // One session ended; the cache drops all entries of the tenant.
            self.session_cache.forget(EndedSessions::in_tenant(tenant)).await;
        }
        if row.outcome == "ended" {
            self.record_refusal(claims, origin).await;
        }
        row.into_unsigned_tokens(claims).ok_or_else(token_invalid)
    }

    /// Records a refresh of a session that has ended.
    async fn record_refusal(&self, claims: &Claims, origin: &Origin) {
        let (tenant, subject) = (TenantId(claims.org), SubjectId(claims.sub));
        let session = Some(SessionId(claims.sid));
        let actor = Actor { session, ..Actor::anonymous(origin) };
        let event = Event::new(EventKind::RefreshRefused).target(subject.0);
        self.refusals.record(Refusal { tenant, subject, actor, event }).await;
    }
}

/// The row that `rotate_session` returns. When `outcome` is `ended` or `reused`, all other fields
/// are `None`.
struct Rotation {
    outcome: String,
    refresh_jti: Option<String>,
    access_jti: Option<String>,
    refresh_kid: Option<String>,
    access_kid: Option<String>,
    issued_at: Option<OffsetDateTime>,
    refresh_expires_at: Option<OffsetDateTime>,
    access_expires_at: Option<OffsetDateTime>,
    roles: Option<Vec<String>>,
}

impl Rotation {
    fn into_unsigned_tokens(self, claims: &Claims) -> Option<UnsignedTokens> {
        Some(UnsignedTokens {
            tenant: TenantId(claims.org),
            user: SubjectId(claims.sub),
            session: SessionId(claims.sid),
            roles: self.roles?,
            issued_at: self.issued_at?,
            access_jti: self.access_jti?,
            access_kid: self.access_kid?,
            access_expires_at: self.access_expires_at?,
            refresh_jti: self.refresh_jti?,
            refresh_kid: self.refresh_kid?,
            refresh_expires_at: self.refresh_expires_at?,
        })
    }
}

fn token_invalid() -> Error {
    Error::refused(ErrorReason::TokenInvalid, "the refresh token is not in force")
}
