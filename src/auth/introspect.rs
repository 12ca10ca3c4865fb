//! IntrospectToken (RFC 7662): whether a token is in force.

use super::Auth;
use crate::{
    error::Result,
    gate::{Reach, Reaching},
    ids::{TenantId, UserId},
    proto::v1::IntrospectTokenResponse,
    tokens::{Claims, TokenKind},
};

impl Auth {
    /// Another tenant's token, and without the permission another user's, is
    /// not in force here: whoever asks learns nothing of it (RFC 7662, 2.2).
    pub(super) async fn introspect(
        &self,
        reaching: &Reaching,
        token: &str,
    ) -> Result<IntrospectTokenResponse> {
        let (caller, reach) = reaching.within();
        let read = |kind| self.keyring.verify(kind, token).map(|claims| (kind, claims));
        let found = read(TokenKind::Access).or_else(|| read(TokenKind::Refresh));
        let in_reach = |claims: &Claims| {
            TenantId(claims.org) == caller.tenant()
                && match reach {
                    Reach::Tenant => true,
                    Reach::Own(user) => UserId(claims.sub) == user,
                }
        };
        let Some((kind, claims)) = found.filter(|(_, claims)| in_reach(claims)) else {
            return Ok(IntrospectTokenResponse::default());
        };
        let active = match kind {
            TokenKind::Access => self.session_live(token).await?,
            TokenKind::Refresh => self.is_newest_refresh(&claims).await?,
        };
        Ok(if active { describe(kind, claims) } else { IntrospectTokenResponse::default() })
    }

    async fn session_live(&self, token: &str) -> Result<bool> {
        let found = self.authenticator.authenticate(token).await?;
        Ok(found.is_some_and(|found| found.standing.is_active()))
    }

    async fn is_newest_refresh(&self, claims: &Claims) -> Result<bool> {
        let tenant = TenantId(claims.org);
        let mut tx = self.db.begin(tenant).await?;
        let newest = sqlx::query_scalar!(
            r#"
            select exists (
                select from sessions s
                join users u on u.tenant_id = s.tenant_id and u.user_id = s.user_id
                join tenants t on t.tenant_id = s.tenant_id
                where s.tenant_id = $1 and s.session_id = $2 and s.user_id = $3
                  and s.refresh_jti = $4 and s.revoked_at is null and s.expires_at > now()
                  and u.state = 'active' and t.state = 'active'
            ) as "newest!"
            "#,
            claims.org,
            claims.sid,
            claims.sub,
            claims.jti,
        )
        .fetch_one(tx.conn())
        .await?;
        Ok(newest)
    }
}

fn describe(kind: TokenKind, claims: Claims) -> IntrospectTokenResponse {
    IntrospectTokenResponse {
        active: true,
        sub: claims.sub.to_string(),
        org: claims.org.to_string(),
        sid: claims.sid.to_string(),
        roles: claims.roles,
        exp: claims.exp,
        iat: claims.iat,
        jti: claims.jti,
        token_type: kind.name().to_owned(),
    }
}
