//! `IntrospectToken` (RFC 7662): reports whether a token is valid.

use super::SignIns;
use crate::{
    credentials::api_keys::{Secret, store},
    error::Result,
    gate::{Caller, Reach, SelfOrPermitted},
    ids::{SubjectId, TenantId},
    proto::v1::IntrospectTokenResponse,
    tokens::{Claims, SubjectType, TokenKind},
};

impl SignIns {
    /// Describes a token. The response is `active: false` for a token of another tenant, and for a
    /// token of another subject if the caller lacks the permission. So the caller learns nothing
    /// about tokens that it may not introspect (RFC 7662, section 2.2).
    pub async fn introspect(
        &self,
        self_or_permitted: &SelfOrPermitted,
        token: &str,
    ) -> Result<IntrospectTokenResponse> {
        let (caller, reach) = self_or_permitted.caller_and_reach();
        if let Some(secret) = Secret::parse(token) {
            return self.introspect_secret(caller, reach, token, &secret).await;
        }
        let verify = |kind| self.keyring.verify(kind, token).map(|claims| (kind, claims));
        let verified = verify(TokenKind::Access).or_else(|| verify(TokenKind::Refresh));
        let is_in_reach = |claims: &Claims| {
            TenantId(claims.org) == caller.tenant() && reach.includes(SubjectId(claims.sub))
        };
        let Some((kind, claims)) = verified.filter(|(_, claims)| is_in_reach(claims)) else {
            return Ok(IntrospectTokenResponse::default());
        };
        let active = match kind {
            TokenKind::Access => self.is_session_live(caller, token).await?,
            TokenKind::Refresh => self.is_newest_refresh_token(&claims).await?,
        };
        Ok(if active { describe(kind, claims) } else { IntrospectTokenResponse::default() })
    }

    /// Describes the secret of an API key. The secret is active only if the tenant accepts API keys
    /// as bearer tokens.
    async fn introspect_secret(
        &self,
        caller: &Caller,
        reach: Reach,
        text: &str,
        secret: &Secret,
    ) -> Result<IntrospectTokenResponse> {
        let inactive = IntrospectTokenResponse::default();
        if secret.tenant != caller.tenant() {
            return Ok(inactive);
        }
        let mut tx = self.db.begin_without_cipher(secret.tenant).await?;
        let key = store::by_secret(&mut tx, secret.tenant, &secret.hash).await?;
        drop(tx);
        let Some(key) = key.filter(|key| reach.includes(key.account_id)) else {
            return Ok(inactive);
        };
        let authenticated = self.authenticator.authenticate(text, || caller.own_tenant()).await?;
        let Some(authenticated) =
            authenticated.filter(|authenticated| authenticated.standing.is_active())
        else {
            return Ok(inactive);
        };
        Ok(IntrospectTokenResponse {
            active: true,
            sub: key.account_id.to_string(),
            org: secret.tenant.to_string(),
            sid: key.key_id.to_string(),
            roles: authenticated.standing.role_names(),
            exp: key.expires_at.unix_timestamp(),
            token_type: "api_key".to_owned(),
            sub_type: SubjectType::ServiceAccount.name().to_owned(),
            ..inactive
        })
    }

    async fn is_session_live(&self, caller: &Caller, token: &str) -> Result<bool> {
        let authenticated = self.authenticator.authenticate(token, || caller.own_tenant()).await?;
        Ok(authenticated.is_some_and(|authenticated| authenticated.standing.is_active()))
    }

    async fn is_newest_refresh_token(&self, claims: &Claims) -> Result<bool> {
        let tenant = TenantId(claims.org);
        let mut tx = self.db.begin(tenant).await?;
        let is_newest = sqlx::query_scalar!(
            r#"
            select exists (
                select from sessions s
                join users u on u.tenant_id = s.tenant_id and u.user_id = s.user_id
                join tenants t on t.tenant_id = s.tenant_id
                where s.tenant_id = $1 and s.session_id = $2 and s.user_id = $3
                  and s.refresh_jti = $4 and s.revoked_at is null
                  and s.expires_at > now() and s.refresh_expires_at > now()
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
        Ok(is_newest)
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
        sub_type: claims.sub_type.name().to_owned(),
    }
}
