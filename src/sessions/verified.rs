//! The in-memory cache of verified access tokens. Each replica checks the signature of a token
//! once.
//!
//! The key is the [`Digest`] of the whole token, so an entry applies to exactly these bytes. An
//! entry ends with the token's `exp`. It ends at once when the key that verified it leaves the
//! keyring, and when its session ends: all tokens of a session share its [`Life`], which the
//! change feed ends.

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

/// How long the secret of an API key is cached.
const API_KEY_TRUST: Duration = Duration::from_mins(5);

/// A verified token whose session was live at that time.
#[derive(Clone, Debug)]
pub struct Verified {
    pub tenant: TenantId,
    pub user: UserId,
    pub subject_type: SubjectType,
    /// The session; for a service account, the id of its API key.
    pub session: SessionId,
    /// When the token expires, in seconds since 1970.
    pub expires_at: i64,
    /// When the token becomes valid, in seconds since 1970.
    not_before: i64,
    /// When the entry expires, if that is before the token's `exp`: for a session that only Redis
    /// reported as live, and for an API key.
    trusted_until: Option<Instant>,
    /// The key that signed the token; `None` for the secret of an API key.
    key: Option<VerifiedBy>,
    life: Arc<Life>,
}

/// The state of a session as far as this replica knows.
#[derive(Debug, Default)]
pub struct Life {
    revoked: AtomicBool,
    /// The feed no longer reports the end of the session, so it must be looked up again.
    forgotten: AtomicBool,
}

impl Life {
    fn is_known(&self) -> bool {
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
    lives: Mutex<TokenLives>,
}

type SessionKey = (TenantId, Uuid);

#[derive(Default)]
struct TokenLives {
    by_session: HashMap<SessionKey, Weak<Life>>,
    /// When the map has this size, entries that no token uses are removed.
    sweep_at: usize,
    /// Sessions that ended recently. The cache in Redis may still report one as live, for at most
    /// [`MAX_STALENESS`].
    just_ended: HashMap<SessionKey, Instant>,
}

impl Verified {
    /// Whether the bearer is the secret of an API key, and not a token that was issued for one.
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
        let within =
            now >= self.not_before - LEEWAY_SECONDS && now <= self.expires_at + LEEWAY_SECONDS;
        within && self.trusted_until.is_none_or(|until| Instant::now() < until)
    }
}

impl VerifiedTokens {
    /// Creates a cache for at most this many tokens.
    #[must_use]
    pub fn new(tokens: usize) -> Self {
        Self { tokens: Cache::new(tokens), lives: Mutex::default() }
    }

    /// The entry of a token that is still valid.
    #[must_use]
    pub fn get(&self, token: &Digest) -> Option<Arc<Verified>> {
        let known = self.tokens.get(token)?;
        let over = known.key.as_ref().is_some_and(|key| !key.is_in_force())
            || !known.life.is_known()
            || !known.is_in_time();
        if over {
            self.tokens.remove(token);
            return None;
        }
        Some(known)
    }

    /// Starts to follow the session of verified claims. Call it before the session is looked up:
    /// a revocation after this call is seen.
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
            life: self.lives().life((tenant, session.0)),
        }
    }

    /// Starts to follow an API key whose secret is the bearer. The key is looked up again within
    /// [`API_KEY_TRUST`], which records its use.
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
            life: self.lives().life((tenant, key.key_id.0)),
        }
    }

    /// Caches a token whose session was found live. Returns whether the session still is.
    pub fn remember(&self, token: Digest, verified: Arc<Verified>) -> bool {
        let live = !verified.life.revoked.load(Ordering::Acquire);
        if verified.life.is_known() {
            self.tokens.insert(token, verified);
        }
        live
    }

    fn lives(&self) -> MutexGuard<'_, TokenLives> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenLives {
    fn life(&mut self, session: SessionKey) -> Arc<Life> {
        if let Some(life) = self.by_session.get(&session).and_then(Weak::upgrade) {
            return life;
        }
        if self.by_session.len() >= self.sweep_at {
            self.by_session.retain(|_, life| life.strong_count() > 0);
            self.sweep_at = (self.by_session.len() * 2).max(1024);
        }
        let life = Arc::new(Life::default());
        life.revoked.store(self.just_ended.contains_key(&session), Ordering::Release);
        self.by_session.insert(session, Arc::downgrade(&life));
        life
    }

    fn end(&mut self, session: SessionKey) {
        let now = Instant::now();
        self.just_ended.retain(|_, ended| now.duration_since(*ended) < MAX_STALENESS);
        self.just_ended.insert(session, now);
        if let Some(life) = self.by_session.remove(&session).and_then(|life| life.upgrade()) {
            life.revoked.store(true, Ordering::Release);
        }
    }
}

impl ChangeListener for VerifiedTokens {
    fn apply(&self, change: &Change) {
        if change.kind == Kind::Session {
            self.lives().end((change.tenant, change.subject));
        }
    }

    fn clear(&self) {
        let mut lives = self.lives();
        for life in lives.by_session.drain().filter_map(|(_, life)| life.upgrade()) {
            life.forgotten.store(true, Ordering::Release);
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
        let dir = tempfile::tempdir().expect("a folder");
        pem::ensure(dir.path(), pem::KeyAlgorithm::Rs256).expect("keys");
        Keyring::load(&pem::source(dir.path()), "issuer", "audience").expect("a keyring")
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
            .expect("a token");
        token.jwt.expose_secret().to_owned()
    }

    /// The session was live when it was looked up, but the feed would not report its end.
    #[test]
    fn a_token_whose_session_was_forgotten_meanwhile_counts_and_is_not_remembered() {
        let (tokens, keyring) = (VerifiedTokens::new(10), keyring());
        let jwt = token(&keyring);
        let (claims, key) = keyring.verify_by(TokenKind::Access, &jwt).expect("its own");
        let verified = Arc::new(tokens.follow(&claims, key));
        tokens.clear();
        assert!(tokens.remember(Digest::of(&jwt), verified));
        assert!(tokens.get(&Digest::of(&jwt)).is_none());
    }

    /// N23: a session that only Redis reported as live.
    #[test]
    fn an_entry_with_an_end_is_not_cached_beyond_it() {
        let (tokens, keyring) = (VerifiedTokens::new(10), keyring());
        let now = Instant::now();
        for (until, remembered) in [(now + Duration::from_mins(1), true), (now, false)] {
            let jwt = token(&keyring);
            let (claims, key) = keyring.verify_by(TokenKind::Access, &jwt).expect("its own");
            let verified = tokens.follow(&claims, key).trusted_until(until);
            assert!(tokens.remember(Digest::of(&jwt), Arc::new(verified)));
            assert_eq!(tokens.get(&Digest::of(&jwt)).is_some(), remembered);
        }
    }

    /// N26: the clock was ahead when the token was verified, and was corrected since.
    #[test]
    fn a_token_from_the_future_is_not_remembered() {
        let (tokens, keyring) = (VerifiedTokens::new(10), keyring());
        for (ahead, remembered) in [(0, true), (LEEWAY_SECONDS + 60, false)] {
            let jwt = token(&keyring);
            let (mut claims, key) = keyring.verify_by(TokenKind::Access, &jwt).expect("its own");
            claims.nbf += ahead;
            claims.exp += ahead;
            assert!(tokens.remember(Digest::of(&jwt), Arc::new(tokens.follow(&claims, key))));
            assert_eq!(tokens.get(&Digest::of(&jwt)).is_some(), remembered);
        }
    }

    #[test]
    fn a_token_is_remembered_as_long_as_its_key_is_in_a_keyring() {
        let tokens = VerifiedTokens::new(10);
        let (leaving, staying) = (keyring(), keyring());
        let remembered = [&leaving, &staying].map(|keyring| {
            let jwt = token(keyring);
            let (claims, key) = keyring.verify_by(TokenKind::Access, &jwt).expect("its own");
            let token = Digest::of(&jwt);
            assert!(tokens.remember(token, Arc::new(tokens.follow(&claims, key))));
            token
        });
        assert!(remembered.iter().all(|token| tokens.get(token).is_some()));

        drop(leaving);
        let known = remembered.map(|token| tokens.get(&token).is_some());
        assert_eq!(known, [false, true]);
    }
}
