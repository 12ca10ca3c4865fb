//! Whose token this is, and whether it is in force.
//!
//! A tenant may let its service accounts send the secret of an API key in a token's
//! place; it is looked up in Postgres once, and then remembered like a token.

use std::sync::Arc;

use super::{
    Lookup, SessionCache, Verified, VerifiedTokens, cache::MAX_STALENESS, verified::Digest,
};
use crate::{
    clock,
    credentials::api_keys::{Secret, store},
    db::Db,
    error::Result,
    feed::Feed,
    permissions::{Engine, Standing},
    proto::v1::Consistency,
    tokens::{Keyring, TokenKind},
};

/// Authenticates access tokens. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    /// Verifies signatures.
    pub keyring: Arc<Keyring>,
    /// Remembers tokens.
    pub tokens: Arc<VerifiedTokens>,
    /// Says whether memory may answer.
    pub feed: Feed,
    /// Knows what subjects hold.
    pub engine: Engine,
    /// Knows which sessions are live.
    pub cache: SessionCache,
    /// Knows API keys.
    pub db: Db,
}

/// A token in force, and its subject.
pub struct Authenticated {
    /// The token, its session live.
    pub token: Arc<Verified>,
    /// What its subject holds. The user or the tenant may have been disabled
    /// since the sign-in.
    pub standing: Arc<Standing>,
}

impl Authenticated {
    /// `None` for an API key whose tenant does not take them in the place of tokens.
    fn if_taken(self) -> Option<Self> {
        (!self.token.is_api_key() || self.standing.tenant.get().takes_api_keys).then_some(self)
    }
}

impl Authenticator {
    /// Authenticates an access token, or an API key where its tenant takes them for
    /// one; `None` for what is not in force, whatever is wrong with it.
    ///
    /// # Errors
    /// UNAVAILABLE when memory may not answer and Postgres is away.
    pub async fn authenticate(&self, bearer: &str) -> Result<Option<Authenticated>> {
        let digest = Digest::of(bearer);
        match self.remembered(&digest) {
            Some(found) => Ok(Some(found)),
            // Boxed, so that what memory answers need not carry its size along.
            None => Box::pin(self.look_up(bearer, digest)).await,
        }
    }

    /// Whether memory answers for it.
    #[must_use]
    pub fn remembers(&self, bearer: &str) -> bool {
        self.remembered(&Digest::of(bearer)).is_some()
    }

    /// What memory knows of a token in force, where it may answer.
    fn remembered(&self, digest: &Digest) -> Option<Authenticated> {
        let fresh = self.feed.fresh()?;
        let token = self.tokens.get(digest)?;
        let standing = self.engine.remembered(token.tenant, token.user, fresh)?;
        Authenticated { token, standing }.if_taken()
    }

    async fn look_up(&self, bearer: &str, digest: Digest) -> Result<Option<Authenticated>> {
        let known = if self.feed.is_fresh() { self.tokens.get(&digest) } else { None };
        let Some(token) = known else {
            return match Secret::read(bearer) {
                Some(secret) => self.verify_secret(&secret, digest).await,
                None => self.verify(bearer, digest).await,
            };
        };
        let standing =
            self.engine.standing(token.tenant, token.user, Consistency::MinimizeLatency).await?;
        Ok(standing.and_then(|standing| Authenticated { token, standing }.if_taken()))
    }

    /// A secret that memory does not know.
    async fn verify_secret(
        &self,
        secret: &Secret,
        digest: Digest,
    ) -> Result<Option<Authenticated>> {
        let tenant = secret.tenant;
        let mut tx = self.db.begin_unsealed(tenant).await?;
        let Some(key) = store::by_secret(&mut tx, tenant, &secret.hash).await? else {
            return Ok(None);
        };
        store::record_use(&mut tx, tenant, key.key_id).await?;
        tx.commit().await?;
        let token = Arc::new(self.tokens.follow_key(tenant, &key));
        let read = self.engine.read(tenant, token.user, Some(token.session)).await?;
        let Some(read) = read.filter(|read| read.session_live) else { return Ok(None) };
        let found = self.remember(digest, token, read.standing);
        Ok(found.and_then(Authenticated::if_taken))
    }

    /// A token that memory does not know: its signature is checked and its
    /// session looked up. Where the subject's standing is in memory, Redis is
    /// asked about the session; where Postgres is asked for the standing
    /// anyway, the session comes with it.
    async fn verify(&self, jwt: &str, digest: Digest) -> Result<Option<Authenticated>> {
        let Some((claims, key)) = self.keyring.verify_by(TokenKind::Access, jwt) else {
            return Ok(None);
        };
        let token = Arc::new(self.tokens.follow(&claims, key));
        let (tenant, user, session) = (token.tenant, token.user, token.session);
        let mut ticket = None;
        let remembered =
            || self.feed.fresh().and_then(|fresh| self.engine.remembered(tenant, user, fresh));
        // An entry in Redis may be older than what memory was told: it would keep a
        // session that ended between the two.
        if self.feed.has_followed_for(MAX_STALENESS) && remembered().is_some() {
            match self.cache.lookup(tenant, session, user).await {
                // Asked for again: Redis may have taken its time.
                Lookup::Live(until) => {
                    if let Some(standing) = remembered() {
                        let token = Arc::new(token.trusted_until(until));
                        return Ok(self.remember(digest, token, standing));
                    }
                }
                Lookup::Unknown(to_fill) => ticket = Some(to_fill),
            }
        }
        let read = self.engine.read(tenant, user, Some(session)).await?;
        let Some(read) = read.filter(|read| read.session_live) else { return Ok(None) };
        if let Some(ticket) = ticket.filter(|_| read.standing.is_active()) {
            let ends_in = claims.exp - clock::now().unix_timestamp();
            self.cache.fill(ticket, ends_in).await;
        }
        Ok(self.remember(digest, token, read.standing))
    }

    /// `None` when the session ended while it was looked up.
    fn remember(
        &self,
        digest: Digest,
        token: Arc<Verified>,
        standing: Arc<Standing>,
    ) -> Option<Authenticated> {
        self.tokens.remember(digest, token.clone()).then_some(Authenticated { token, standing })
    }
}
