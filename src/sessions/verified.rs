//! The in-memory cache of verified access tokens. Each replica checks the signature of a token
//! once.
//!
//! The key of an entry is the [`Digest`] of the whole token, so an entry applies to exactly these
//! bytes. An entry expires at the token's `exp`. An entry becomes invalid at once when the signing
//! key leaves the keyring, and when the session ends: all tokens of a session share one
//! [`SessionStatus`], which the change feed sets to revoked.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use quick_cache::sync::Cache;
use uuid::Uuid;

use super::cache::MAX_STALENESS;
use crate::{
    clock,
    credentials::api_keys::store::LiveKey,
    feed::{Change, ChangeListener, Kind},
    ids::{SessionId, TenantId, UserId},
    tokens::{Claims, LEEWAY_SECONDS, SubjectType, VerifiedBy},
};

/// Maximum time for which the secret of an API key is cached.
const API_KEY_TRUST: Duration = Duration::from_mins(5);

/// A verified token whose session was live at the time of the verification.
#[derive(Clone, Debug)]
pub struct Verified {
    pub tenant: TenantId,
    pub user: UserId,
    pub subject_type: SubjectType,
    /// The session; for a service account, the id of its API key.
    pub session: SessionId,
    /// Expiry of the token, in seconds since 1970.
    pub expires_at: i64,
    /// Start of the token's validity, in seconds since 1970.
    not_before: i64,
    /// Expiry of the entry if it is before the token's `exp`: for a session that only Redis
    /// reported as live, and for an API key.
    trusted_until: Option<Instant>,
    /// The key that signed the token; `None` for the secret of an API key.
    key: Option<VerifiedBy>,
    status: Arc<SessionStatus>,
}

/// The state of a session as far as this replica knows.
#[derive(Debug, Default)]
pub struct SessionStatus {
    revoked: AtomicBool,
    /// The feed no longer reports the end of the session, so the session must be looked up again.
    forgotten: AtomicBool,
}

impl SessionStatus {
    /// Whether the session is not revoked and the feed reports its end.
    fn is_followed(&self) -> bool {
        !self.revoked.load(Ordering::Acquire) && !self.forgotten.load(Ordering::Acquire)
    }
}

/// The SHA-256 of a whole token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of this token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        Self(out)
    }
}

/// The bounded cache of verified tokens.
pub struct VerifiedTokens {
    tokens: Cache<Digest, Arc<Verified>>,
    statuses: Mutex<SessionStatuses>,
}

type SessionKey = (TenantId, Uuid);

#[derive(Default)]
struct SessionStatuses {
    by_session: HashMap<SessionKey, Weak<SessionStatus>>,
    /// Size of the map at which the entries that no token uses are removed.
    sweep_at: usize,
    /// Sessions that ended recently, with the time at which each ended. The cache in Redis may
    /// still report such a session as live, for at most [`MAX_STALENESS`].
    recently_ended: HashMap<SessionKey, Instant>,
}

impl Verified {
    /// Whether the bearer is the secret of an API key, not a token that was issued for an API key.
    #[must_use]
    pub fn is_api_key(&self) -> bool {
        self.key.is_none()
    }

    /// The same token, cached no longer than `until`.
    #[must_use]
    pub fn trusted_until(&self, until: Instant) -> Self {
        Self { trusted_until: Some(until), ..self.clone() }
    }

    /// Whether the token is in its validity period now. The clock may have been set since the
    /// token was verified.
    fn is_in_time(&self) -> bool {
        let now = clock::now().unix_timestamp();
        let is_within_validity =
            now >= self.not_before - LEEWAY_SECONDS && now <= self.expires_at + LEEWAY_SECONDS;
        is_within_validity && self.trusted_until.is_none_or(|until| Instant::now() < until)
    }
}

impl VerifiedTokens {
    /// Creates a cache for at most this many tokens.
    #[must_use]
    pub fn new(tokens: usize) -> Self {
        Self { tokens: Cache::new(tokens), statuses: Mutex::default() }
    }

    /// The entry of a token that is still valid.
    #[must_use]
    pub fn get(&self, token: &Digest) -> Option<Arc<Verified>> {
        let verified = self.tokens.get(token)?;
        let is_invalid = verified.key.as_ref().is_some_and(|key| !key.is_in_force())
            || !verified.status.is_followed()
            || !verified.is_in_time();
        if is_invalid {
            self.tokens.remove(token);
            return None;
        }
        Some(verified)
    }

    /// Starts to follow the session of verified claims in the change feed. Call it before the
    /// session is looked up, so that no revocation after the look-up is missed.
    #[must_use]
    pub fn follow(&self, claims: &Claims, key: VerifiedBy) -> Verified {
        let (tenant, session) = (TenantId(claims.org), SessionId(claims.sid));
        Verified {
            tenant,
            user: UserId(claims.sub),
            subject_type: claims.sub_type,
            session,
            expires_at: claims.exp,
            not_before: claims.nbf.max(claims.iat),
            trusted_until: None,
            key: Some(key),
            status: self.statuses().status((tenant, session.0)),
        }
    }

    /// Starts to follow an API key whose secret is the bearer. The key is looked up again after at
    /// most [`API_KEY_TRUST`], and this look-up records the use of the key.
    #[must_use]
    pub fn follow_key(&self, tenant: TenantId, key: &LiveKey) -> Verified {
        Verified {
            tenant,
            user: key.account_id,
            subject_type: SubjectType::ServiceAccount,
            session: SessionId(key.key_id.0),
            // This service set the expiry, so the leeway for other clocks does not apply.
            expires_at: key.expires_at.unix_timestamp() - LEEWAY_SECONDS,
            not_before: i64::MIN + LEEWAY_SECONDS,
            trusted_until: Some(Instant::now() + API_KEY_TRUST),
            key: None,
            status: self.statuses().status((tenant, key.key_id.0)),
        }
    }

    /// Caches a token whose session was live at its look-up. Returns whether the session is still
    /// live.
    pub fn remember(&self, token: Digest, verified: Arc<Verified>) -> bool {
        let is_live = !verified.status.revoked.load(Ordering::Acquire);
        if verified.status.is_followed() {
            self.tokens.insert(token, verified);
        }
        is_live
    }

    fn statuses(&self) -> MutexGuard<'_, SessionStatuses> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionStatuses {
    fn status(&mut self, session: SessionKey) -> Arc<SessionStatus> {
        if let Some(status) = self.by_session.get(&session).and_then(Weak::upgrade) {
            return status;
        }
        if self.by_session.len() >= self.sweep_at {
            self.by_session.retain(|_, status| status.strong_count() > 0);
            self.sweep_at = (self.by_session.len() * 2).max(1024);
        }
        let status = Arc::new(SessionStatus::default());
        status.revoked.store(self.recently_ended.contains_key(&session), Ordering::Release);
        self.by_session.insert(session, Arc::downgrade(&status));
        status
    }

    fn end(&mut self, session: SessionKey) {
        let now = Instant::now();
        self.recently_ended.retain(|_, ended| now.duration_since(*ended) < MAX_STALENESS);
        self.recently_ended.insert(session, now);
        if let Some(status) = self.by_session.remove(&session).and_then(|status| status.upgrade()) {
            status.revoked.store(true, Ordering::Release);
        }
    }
}

impl ChangeListener for VerifiedTokens {
    fn apply(&self, change: &Change) {
        if change.kind == Kind::Session {
            self.statuses().end((change.tenant, change.subject));
        }
    }

    fn clear(&self) {
        let mut statuses = self.statuses();
        for status in statuses.by_session.drain().filter_map(|(_, status)| status.upgrade()) {
            status.forgotten.store(true, Ordering::Release);
        }
        self.tokens.clear();
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::tokens::{Keyring, SubjectType, TokenContent, TokenKind, pem};

    fn keyring() -> Keyring {
        let dir = tempfile::tempdir().expect("a folder is created");
        pem::ensure(dir.path(), pem::KeyAlgorithm::Rs256).expect("the keys are generated");
        Keyring::load(&pem::source(dir.path()), "issuer", "audience")
            .expect("the keyring is loaded")
    }

    fn token(keyring: &Keyring) -> String {
        let content = TokenContent {
            user: UserId::new(),
            subject_type: SubjectType::User,
            tenant: TenantId::new(),
            session: SessionId::new(),
            roles: Vec::new(),
            jti: "a".into(),
            issued_at: clock::now(),
            expires_at: clock::now() + time::Duration::MINUTE,
        };
        let token = keyring
            .sign(TokenKind::Access, &keyring.kid(TokenKind::Access), content)
            .expect("the token is signed");
        token.jwt.expose_secret().to_owned()
    }

    /// The session was live when it was looked up, but the feed no longer reports its end.
    #[test]
    fn a_token_is_accepted_but_not_cached_if_the_cache_was_cleared_during_its_look_up() {
        let (tokens, keyring) = (VerifiedTokens::new(10), keyring());
        let jwt = token(&keyring);
        let (claims, key) =
            keyring.verify_by(TokenKind::Access, &jwt).expect("the token is verified");
        let verified = Arc::new(tokens.follow(&claims, key));
        tokens.clear();
        assert!(tokens.remember(Digest::of(&jwt), verified));
        assert!(tokens.get(&Digest::of(&jwt)).is_none());
    }

    /// N23: a token whose session only Redis reported as live is cached for a limited time.
    #[test]
    fn an_entry_with_an_expiry_is_not_used_after_it() {
        let (tokens, keyring) = (VerifiedTokens::new(10), keyring());
        let now = Instant::now();
        for (until, is_cached) in [(now + Duration::from_mins(1), true), (now, false)] {
            let jwt = token(&keyring);
            let (claims, key) =
                keyring.verify_by(TokenKind::Access, &jwt).expect("the token is verified");
            let verified = tokens.follow(&claims, key).trusted_until(until);
            assert!(tokens.remember(Digest::of(&jwt), Arc::new(verified)));
            assert_eq!(tokens.get(&Digest::of(&jwt)).is_some(), is_cached);
        }
    }

    /// N26: a cached token is refused before its start of validity. The clock was ahead when the
    /// token was verified, and was corrected since then.
    #[test]
    fn a_cached_token_that_is_not_valid_yet_is_not_used() {
        let (tokens, keyring) = (VerifiedTokens::new(10), keyring());
        for (seconds_ahead, is_cached) in [(0, true), (LEEWAY_SECONDS + 60, false)] {
            let jwt = token(&keyring);
            let (mut claims, key) =
                keyring.verify_by(TokenKind::Access, &jwt).expect("the token is verified");
            claims.nbf += seconds_ahead;
            claims.exp += seconds_ahead;
            assert!(tokens.remember(Digest::of(&jwt), Arc::new(tokens.follow(&claims, key))));
            assert_eq!(tokens.get(&Digest::of(&jwt)).is_some(), is_cached);
        }
    }

    #[test]
    fn a_token_is_cached_as_long_as_its_key_is_in_a_keyring() {
        let tokens = VerifiedTokens::new(10);
        let (dropped_keyring, kept_keyring) = (keyring(), keyring());
        let tokens_of_keyrings = [&dropped_keyring, &kept_keyring].map(|keyring| {
            let jwt = token(keyring);
            let (claims, key) =
                keyring.verify_by(TokenKind::Access, &jwt).expect("the token is verified");
            let token = Digest::of(&jwt);
            assert!(tokens.remember(token, Arc::new(tokens.follow(&claims, key))));
            token
        });
        assert!(tokens_of_keyrings.iter().all(|token| tokens.get(token).is_some()));

        drop(dropped_keyring);
        let is_cached = tokens_of_keyrings.map(|token| tokens.get(&token).is_some());
        assert_eq!(is_cached, [false, true]);
    }
}
