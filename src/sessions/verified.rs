//! The in-memory cache of verified access tokens. Each replica checks the signature of a token
//! once.
//!
//! The key of an entry is the [`Digest`] of the whole token, so an entry applies to exactly these
//! bytes. An entry expires at the token's `exp`. It becomes invalid immediately when the signing
//! key is removed from the keyring, and when the session ends: all tokens of a session share one
//! [`SessionStatus`], which the change feed sets to revoked.

use std::{
    collections::{HashMap, VecDeque},
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
    ids::{SessionId, SubjectId, TenantId},
    tokens::{Claims, LEEWAY_SECONDS, SubjectType, VerifiedBy},
};

/// Maximum time for which the secret of an API key is cached.
const MAX_API_KEY_CACHE_TIME: Duration = Duration::from_mins(5);

/// A verified token whose session was live at the time of the verification.
#[derive(Clone, Debug)]
pub struct VerifiedToken {
    pub tenant: TenantId,
    pub user: SubjectId,
    pub subject_type: SubjectType,
    /// The session; for a service account, the id of its API key.
    pub session: SessionId,
    /// Expiry of the token, in seconds since 1970.
    pub expires_at: i64,
    /// Start of the token's validity, in seconds since 1970.
    not_before: i64,
    /// Expiry of the entry, if it is earlier than the token's `exp`: for a session that Redis, not
    /// Postgres, reported as live, and for an API key.
    cached_until: Option<Instant>,
    /// The key that signed the token; `None` for the secret of an API key.
    key: Option<VerifiedBy>,
    status: Arc<SessionStatus>,
}

/// The state of a session as far as this replica knows.
#[derive(Debug, Default)]
pub struct SessionStatus {
    is_revoked: AtomicBool,
    /// Whether this replica may have missed the end of the session in the feed. Then the session
    /// must be looked up again.
    may_have_missed_end: AtomicBool,
}

impl SessionStatus {
    /// Whether the session is not revoked, as far as the feed reports, and the feed is complete.
    fn is_known_to_be_live(&self) -> bool {
        !self.is_revoked.load(Ordering::Acquire)
            && !self.may_have_missed_end.load(Ordering::Acquire)
    }
}

/// The SHA-256 of a whole token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of this token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }
}

/// The bounded cache of verified tokens.
pub struct VerifiedTokens {
    tokens: Cache<Digest, Arc<VerifiedToken>>,
    statuses: Mutex<SessionStatuses>,
}

type SessionKey = (TenantId, Uuid);

#[derive(Default)]
struct SessionStatuses {
    by_session: HashMap<SessionKey, Weak<SessionStatus>>,
    /// Size of `by_session` at which the entries that no token uses are removed.
    sweep_at: usize,
    /// Sessions that ended recently, with the time at which each ended. The cache in Redis may
    /// still report such a session as live, for at most [`MAX_STALENESS`].
    recently_ended: HashMap<SessionKey, Instant>,
    /// The sessions of `recently_ended`, in the order in which they ended.
    order_of_ends: VecDeque<(Instant, SessionKey)>,
}

impl VerifiedToken {
    /// Whether the bearer token is the secret of an API key itself, not an access token that was
    /// issued for an API key.
    #[must_use]
    pub fn is_api_key(&self) -> bool {
        self.key.is_none()
    }

    /// The same token, cached no longer than `until`.
    #[must_use]
    pub fn cached_until(&self, until: Instant) -> Self {
        Self { cached_until: Some(until), ..self.clone() }
    }

    /// Whether the token is in its validity period now. The clock may have been corrected since the
    /// token was verified.
    fn is_valid_now(&self) -> bool {
        let now = clock::now().unix_timestamp();
        let is_within_validity =
            now >= self.not_before - LEEWAY_SECONDS && now <= self.expires_at + LEEWAY_SECONDS;
        is_within_validity && self.cached_until.is_none_or(|until| Instant::now() < until)
    }
}

impl VerifiedTokens {
    /// Creates a cache for at most `max_tokens` tokens.
    #[must_use]
    pub fn new(max_tokens: usize) -> Self {
        Self { tokens: Cache::new(max_tokens), statuses: Mutex::default() }
    }

    /// The entry of a token that is still valid.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<Arc<VerifiedToken>> {
        let verified = self.tokens.get(digest)?;
        let is_invalid = verified.key.as_ref().is_some_and(|key| !key.is_key_in_keyring())
            || !verified.status.is_known_to_be_live()
            || !verified.is_valid_now();
        if is_invalid {
            self.tokens.remove(digest);
            return None;
        }
        Some(verified)
    }

    /// Starts to follow the session of verified claims in the change feed. Call it before the
    /// session is looked up, so that no revocation after the look-up is missed.
    #[must_use]
    pub fn follow(&self, claims: &Claims, key: VerifiedBy) -> VerifiedToken {
        let (tenant, session) = (TenantId(claims.org), SessionId(claims.sid));
        VerifiedToken {
            tenant,
            user: SubjectId(claims.sub),
            subject_type: claims.sub_type,
            session,
            expires_at: claims.exp,
            not_before: claims.nbf.max(claims.iat),
            cached_until: None,
            key: Some(key),
            status: self.lock_statuses().get_or_create((tenant, session.0)),
        }
    }

    /// Starts to follow an API key whose secret is the bearer token. The key is looked up again
    /// after at most [`MAX_API_KEY_CACHE_TIME`], and each look-up records the use of the key.
    #[must_use]
    pub fn follow_key(&self, tenant: TenantId, key: &LiveKey) -> VerifiedToken {
        VerifiedToken {
            tenant,
            user: key.account_id,
            subject_type: SubjectType::ServiceAccount,
            session: SessionId(key.key_id.0),
            // Postgres checks the expiry without a leeway, so the leeway of `is_valid_now` is
            // subtracted.
            expires_at: key.expires_at.unix_timestamp() - LEEWAY_SECONDS,
            not_before: i64::MIN + LEEWAY_SECONDS,
            cached_until: Some(Instant::now() + MAX_API_KEY_CACHE_TIME),
            key: None,
            status: self.lock_statuses().get_or_create((tenant, key.key_id.0)),
        }
    }

    /// Caches a token whose session was live at its look-up. Returns whether the session is still
    /// live, as far as the feed reports.
    pub fn insert(&self, digest: Digest, verified: Arc<VerifiedToken>) -> bool {
        let is_live = !verified.status.is_revoked.load(Ordering::Acquire);
        if verified.status.is_known_to_be_live() {
            self.tokens.insert(digest, verified);
        }
        is_live
    }

    fn lock_statuses(&self) -> MutexGuard<'_, SessionStatuses> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionStatuses {
    fn get_or_create(&mut self, session: SessionKey) -> Arc<SessionStatus> {
        if let Some(status) = self.by_session.get(&session).and_then(Weak::upgrade) {
            return status;
        }
        if self.by_session.len() >= self.sweep_at {
            self.by_session.retain(|_, status| status.strong_count() > 0);
            self.sweep_at = (self.by_session.len() * 2).max(1024);
        }
        let status = Arc::new(SessionStatus::default());
        status.is_revoked.store(self.recently_ended.contains_key(&session), Ordering::Release);
        self.by_session.insert(session, Arc::downgrade(&status));
        status
    }

    fn mark_ended(&mut self, session: SessionKey) {
        let now = Instant::now();
        while let Some((ended, oldest)) = self.order_of_ends.front()
            && now.duration_since(*ended) >= MAX_STALENESS
        {
            // If the session was ended again later, the newer time stays in the map.
            if self.recently_ended.get(oldest) == Some(ended) {
                self.recently_ended.remove(oldest);
            }
            self.order_of_ends.pop_front();
        }
        self.recently_ended.insert(session, now);
        self.order_of_ends.push_back((now, session));
        if let Some(status) = self.by_session.remove(&session).and_then(|status| status.upgrade()) {
            status.is_revoked.store(true, Ordering::Release);
        }
    }
}

impl ChangeListener for VerifiedTokens {
    fn apply(&self, change: &Change) {
        if change.kind == Kind::Session {
            self.lock_statuses().mark_ended((change.tenant, change.subject));
        }
    }

    fn clear(&self) {
        let mut statuses = self.lock_statuses();
        for status in statuses.by_session.drain().filter_map(|(_, status)| status.upgrade()) {
            status.may_have_missed_end.store(true, Ordering::Release);
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
            user: SubjectId::new(),
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

    /// The session was live when it was looked up, but the replica may have missed its end.
    #[test]
    fn a_token_is_accepted_but_not_cached_if_the_cache_was_cleared_during_its_look_up() {
        let (tokens, keyring) = (VerifiedTokens::new(10), keyring());
        let jwt = token(&keyring);
        let (claims, key) =
            keyring.verify_and_get_key(TokenKind::Access, &jwt).expect("the token is verified");
        let verified = Arc::new(tokens.follow(&claims, key));
        tokens.clear();
        assert!(tokens.insert(Digest::of(&jwt), verified));
        assert!(tokens.get(&Digest::of(&jwt)).is_none());
    }

    /// N23: a token whose session Redis, not Postgres, reported as live is cached for a limited
    /// time.
    #[test]
    fn an_entry_is_not_used_after_its_expiry() {
        let (tokens, keyring) = (VerifiedTokens::new(10), keyring());
        let now = Instant::now();
        for (until, is_cached) in [(now + Duration::from_mins(1), true), (now, false)] {
            let jwt = token(&keyring);
            let (claims, key) =
                keyring.verify_and_get_key(TokenKind::Access, &jwt).expect("the token is verified");
            let verified = tokens.follow(&claims, key).cached_until(until);
            assert!(tokens.insert(Digest::of(&jwt), Arc::new(verified)));
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
                keyring.verify_and_get_key(TokenKind::Access, &jwt).expect("the token is verified");
            claims.nbf += seconds_ahead;
            claims.exp += seconds_ahead;
            assert!(tokens.insert(Digest::of(&jwt), Arc::new(tokens.follow(&claims, key))));
            assert_eq!(tokens.get(&Digest::of(&jwt)).is_some(), is_cached);
        }
    }

    #[test]
    fn a_token_is_cached_as_long_as_its_key_is_in_a_keyring() {
        let tokens = VerifiedTokens::new(10);
        let (dropped_keyring, other_keyring) = (keyring(), keyring());
        let digests = [&dropped_keyring, &other_keyring].map(|keyring| {
            let jwt = token(keyring);
            let (claims, key) =
                keyring.verify_and_get_key(TokenKind::Access, &jwt).expect("the token is verified");
            let digest = Digest::of(&jwt);
            assert!(tokens.insert(digest, Arc::new(tokens.follow(&claims, key))));
            digest
        });
        assert!(digests.iter().all(|digest| tokens.get(digest).is_some()));

        drop(dropped_keyring);
        let is_cached = digests.map(|digest| tokens.get(&digest).is_some());
        assert_eq!(is_cached, [false, true]);
    }
}
