//! Authentication of access tokens.
//!
//! A tenant may allow its service accounts to send the secret of an API key instead of a token.
//! Such a secret is looked up in Postgres once and then cached like a token.

use std::sync::Arc;

use super::{
    Lookup, SessionCache, VerifiedToken, VerifiedTokens, cache::MAX_STALENESS, verified::Digest,
};
use crate::{
    clock,
    credentials::api_keys::{Secret, store},
    db::Db,
    error::Result,
    feed::Feed,
    ids::TenantId,
    permissions::{Engine, Standing},
    proto::v1::Consistency,
    tokens::{Keyring, TokenKind},
};

/// Authenticates access tokens. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    pub keyring: Arc<Keyring>,
    pub tokens: Arc<VerifiedTokens>,
    /// The change feed. It knows whether the in-memory caches are fresh enough to be used.
    pub feed: Feed,
    pub engine: Engine,
    pub session_cache: SessionCache,
    pub db: Db,
}

/// A valid token of a live session, and its subject.
pub struct Authenticated {
    pub token: Arc<VerifiedToken>,
    /// The roles and permissions of the subject. The subject may have been disabled, and the tenant
    /// suspended, since the sign-in.
    pub standing: Arc<Standing>,
}

impl Authenticated {
    /// Returns the value itself; `None` for the secret of an API key, if the tenant does not accept
    /// API keys as bearer tokens.
    fn if_accepted(self) -> Option<Self> {
        (!self.token.is_api_key() || self.standing.tenant.get().accepts_api_key_bearer)
            .then_some(self)
    }
}

impl Authenticator {
    /// Authenticates an access token, or an API key if its tenant accepts API keys as bearer
    /// tokens. `None` when the bearer token is not valid, for any reason. The look-up of an API key
    /// uses a connection of the share of `charged_tenant`, because anybody can make a key that
    /// names any tenant.
    ///
    /// # Errors
    /// UNAVAILABLE when the in-memory caches can't be used and Postgres is unavailable; OVERLOADED
    /// when no connection of the share becomes free.
    pub async fn authenticate(
        &self,
        bearer: &str,
        charged_tenant: impl FnOnce() -> TenantId,
    ) -> Result<Option<Authenticated>> {
        let digest = Digest::of(bearer);
        match self.find_cached(&digest) {
            Some(authenticated) => Ok(Some(authenticated)),
            // Boxed, so that the future of a cache hit stays small.
            None => Box::pin(self.look_up(bearer, digest, charged_tenant)).await,
        }
    }

    /// Whether the in-memory caches can authenticate the bearer token.
    #[must_use]
    pub fn is_cached(&self, bearer: &str) -> bool {
        self.find_cached(&Digest::of(bearer)).is_some()
    }

    /// The valid token and its subject from the in-memory caches, if the feed was read recently
    /// enough.
    fn find_cached(&self, digest: &Digest) -> Option<Authenticated> {
        let fresh = self.feed.freshness_proof()?;
        let token = self.tokens.get(digest)?;
        let standing = self.engine.cached_standing(token.tenant, token.user, fresh)?;
        Authenticated { token, standing }.if_accepted()
    }

    async fn look_up(
        &self,
        bearer: &str,
        digest: Digest,
        charged_tenant: impl FnOnce() -> TenantId,
    ) -> Result<Option<Authenticated>> {
        let cached_token = if self.feed.is_fresh() { self.tokens.get(&digest) } else { None };
        let Some(token) = cached_token else {
            return match Secret::parse(bearer) {
                Some(secret) => self.verify_secret(&secret, digest, charged_tenant()).await,
                None => self.verify(bearer, digest).await,
            };
        };
        let standing =
            self.engine.standing(token.tenant, token.user, Consistency::MinimizeLatency).await?;
        Ok(standing.and_then(|standing| Authenticated { token, standing }.if_accepted()))
    }

    /// Verifies the secret of an API key that is not cached.
    async fn verify_secret(
        &self,
        secret: &Secret,
        digest: Digest,
        charged_tenant: TenantId,
    ) -> Result<Option<Authenticated>> {
        let tenant = secret.tenant;
        let mut tx = self.db.begin_without_cipher_in_share(charged_tenant, tenant).await?;
        let Some(key) = store::by_secret(&mut tx, tenant, &secret.hash).await? else {
            return Ok(None);
        };
        store::record_use(&mut tx, tenant, key.key_id).await?;
        tx.commit().await?;
        let token = Arc::new(self.tokens.follow_key(tenant, &key));
        let state =
            self.engine.read_standing_and_session(tenant, token.user, Some(token.session)).await?;
        let Some(state) = state.filter(|state| state.session_live) else { return Ok(None) };
        let authenticated = self.cache_verified(digest, token, state.standing);
        Ok(authenticated.and_then(Authenticated::if_accepted))
    }

    /// Verifies a token that is not cached: its signature, and that its session is live. When the
    /// subject's standing is cached, the session is looked up in Redis. Otherwise Postgres returns
    /// the standing and the session in one query.
    async fn verify(&self, jwt: &str, digest: Digest) -> Result<Option<Authenticated>> {
        let Some((claims, key)) = self.keyring.verify_and_get_key(TokenKind::Access, jwt) else {
            return Ok(None);
        };
        let token = Arc::new(self.tokens.follow(&claims, key));
        let (tenant, user, session) = (token.tenant, token.user, token.session);
        let mut ticket = None;
        let cached_standing = || {
            self.feed
                .freshness_proof()
                .and_then(|fresh| self.engine.cached_standing(tenant, user, fresh))
        };
        // An entry in Redis may be older than the time at which this replica began to follow the
        // feed. Then the replica may have missed the end of the session. So Redis is used only when
        // this replica has followed the feed for longer than an entry can be used.
        if self.feed.has_followed_for(MAX_STALENESS) && cached_standing().is_some() {
            match self.session_cache.lookup(tenant, session, user).await {
                // Read the standing again: the cache may have evicted it during the call to Redis.
                Lookup::Live(until) => {
                    if let Some(standing) = cached_standing() {
                        let token = Arc::new(token.cached_until(until));
                        return Ok(self.cache_verified(digest, token, standing));
                    }
                }
                Lookup::Unknown(new_ticket) => ticket = Some(new_ticket),
            }
        }
        let state = self.engine.read_standing_and_session(tenant, user, Some(session)).await?;
        let Some(state) = state.filter(|state| state.session_live) else { return Ok(None) };
        if let Some(ticket) = ticket.filter(|_| state.standing.is_active()) {
            let seconds_left = claims.exp - clock::now().unix_timestamp();
            self.session_cache.fill(ticket, seconds_left).await;
        }
        Ok(self.cache_verified(digest, token, state.standing))
    }

    /// Caches the token. `None` when the session ended during the look-up.
    fn cache_verified(
        &self,
        digest: Digest,
        token: Arc<VerifiedToken>,
        standing: Arc<Standing>,
    ) -> Option<Authenticated> {
        self.tokens.insert(digest, token.clone()).then_some(Authenticated { token, standing })
    }
}
