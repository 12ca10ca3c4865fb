//! The keys in force: signs and verifies.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, ensure};
use arc_swap::ArcSwap;
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::Header;
use secrecy::ExposeSecret;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Claims, LEEWAY_SECONDS, SubjectType, Token, TokenKind,
    key::{self, Purpose, SigningKey, VerifyingKey, name, signer_away},
    source::{KeySource, Keys, Source},
};
use crate::{
    clock,
    error::{Error, Result},
    ids::{SessionId, TenantId, UserId},
    proto::v1::JsonWebKey,
};

/// How long the token counts that a new keyring is tried out with.
const LIFE_OF_TRIAL: time::Duration = time::Duration::SECOND;

/// The longest token that is looked at, in bytes: refusing a longer one must
/// cost nothing.
const MAX_TOKEN: usize = 8192;

/// The bytes of role names, as JSON, that a token has room for: with more it would be too
/// long to be sent. Decisions never depend on the names.
const MAX_ROLES: usize = 2048;

/// What a token is to say, times in whole seconds.
pub struct TokenContent {
    /// The subject.
    pub user: UserId,
    /// What kind of subject it is.
    pub subject_type: SubjectType,
    /// The subject's tenant.
    pub tenant: TenantId,
    /// The session; a service account's API key.
    pub session: SessionId,
    /// The names of the subject's roles; empty in a refresh token. Those beyond
    /// [`MAX_ROLES`] are left out.
    pub roles: Vec<String>,
    /// The token's own id.
    pub jti: String,
    /// From when it counts.
    pub issued_at: OffsetDateTime,
    /// When it ends.
    pub expires_at: OffsetDateTime,
}

/// The keys of one kind of token.
struct KeySet {
    keys: Keys,
    /// The one of those that sign that does so now.
    current: usize,
}

/// The keys of one moment.
struct Ring {
    access: KeySet,
    refresh: KeySet,
}

/// The service's keys, as their source has them. Reading them is the only way to make
/// one, so one that exists can sign and verify.
pub struct Keyring {
    source: Source,
    /// Whether the source answered when it was last asked.
    reached: AtomicBool,
    issuer: String,
    audiences: [String; 2],
    ring: ArcSwap<Ring>,
}

/// A key, for people to look at.
pub struct Listed {
    /// Its id (RFC 7638).
    pub kid: String,
    /// Its algorithm (RFC 7518, 3.1).
    pub alg: &'static str,
    /// published: verifies, and will sign; signing; retired: verifies what it signed.
    pub state: &'static str,
    /// From when it signs, where its file says so.
    pub starts: Option<OffsetDateTime>,
}

/// The key that verified a token, as long as a keyring has it.
#[derive(Clone, Debug)]
pub struct VerifiedBy(Weak<VerifyingKey>);

impl VerifiedBy {
    /// Whether it still verifies tokens.
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl Keyring {
    /// Reads the keys, and signs and verifies with those that sign. Blocks where they
    /// are in a key service, and must then not be called on the runtime's threads.
    ///
    /// # Errors
    /// When a file can't be read or has no key, a key is none of RSA with at least
    /// 2048 bits, P-256 and Ed25519, a private key's public key is missing, both
    /// kinds share a key, or the key service does not answer. No error repeats key
    /// bytes.
    pub fn load(source: &KeySource, issuer: &str, audience: &str) -> anyhow::Result<Self> {
        let source = Source::open(source)?;
        let audiences = [audience.to_owned(), format!("{audience}/refresh")];
        let ring = Ring::load(&source, issuer, &audiences, None)?;
        let (ring, issuer) = (ArcSwap::from_pointee(ring), issuer.to_owned());
        Ok(Self { source, reached: AtomicBool::new(true), issuer, audiences, ring })
    }

    /// Reads the keys again; says whether anything is different. What stays is not
    /// touched: tokens that its keys verified are still known.
    ///
    /// # Errors
    /// Like [`Keyring::load`]; the keys in force stay so.
    pub fn reload(&self) -> anyhow::Result<bool> {
        let old = self.ring.load_full();
        let new = Ring::load(&self.source, &self.issuer, &self.audiences, Some(&old));
        self.reached.store(new.is_ok() || !self.source.is_remote(), Ordering::Relaxed);
        let new = new?;
        let changed = !new.is_like(&old);
        if changed {
            self.ring.store(Arc::new(new));
        }
        Ok(changed)
    }

    /// Whether tokens can be signed, as far as is known: for whoever is about to do
    /// what can't be taken back, and has tokens to give out then.
    ///
    /// # Errors
    /// UNAVAILABLE while the key service does not answer.
    pub fn check_signs(&self) -> Result<()> {
        if self.reached.load(Ordering::Relaxed) { Ok(()) } else { Err(signer_away()) }
    }

    /// The id of the key that signs tokens of a kind now (RFC 7638).
    #[must_use]
    pub fn kid(&self, kind: TokenKind) -> String {
        self.ring.load().set(kind).current().kid.clone()
    }

    /// The tokens' `iss`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public keys that verify access tokens, or will soon (RFC 7517).
    #[must_use]
    pub fn jwks(&self) -> Vec<JsonWebKey> {
        self.ring.load().access.keys.verifying.iter().map(|key| key.jwk.clone()).collect()
    }

    /// The keys of a kind, oldest first.
    #[must_use]
    pub fn list(&self, kind: TokenKind) -> Vec<Listed> {
        let ring = self.ring.load();
        let set = ring.set(kind);
        let listed = set.keys.verifying.iter().map(|key| {
            let at = set.keys.signing.iter().position(|signing| signing.kid == key.kid);
            Listed {
                kid: key.kid.clone(),
                alg: name(key.alg),
                state: match at {
                    Some(at) if at == set.current => "signing",
                    Some(at) if at > set.current => "published",
                    _ => "retired",
                },
                starts: at.and_then(|at| set.keys.signing[at].starts),
            }
        });
        listed.collect()
    }

    /// Secrets for one use, the same on every replica: each is of one key that signs
    /// refresh tokens, the one that signs now first.
    ///
    /// # Errors
    /// When the derivation fails, which no input makes it do.
    pub fn derive(&self, label: &str) -> anyhow::Result<Vec<[u8; 32]>> {
        let ring = self.ring.load();
        let current = ring.refresh.current();
        let others = ring.refresh.keys.signing.iter().filter(|key| key.kid != current.kid);
        std::iter::once(current).chain(others).map(|key| expand(&key.root, label)).collect()
    }

    /// Signs a token with the key of this id, or, where that has gone, with the one
    /// that signs now. RS256 and `EdDSA` are deterministic: the same content gives the
    /// same bytes. Takes up to a millisecond of CPU, so call it off the runtime.
    ///
    /// # Errors
    /// INTERNAL when the key does not sign, which [`Keyring::load`] rules out.
    pub fn sign(&self, kind: TokenKind, key_id: &str, content: TokenContent) -> Result<Token> {
        let audience = &self.audiences[usize::from(kind == TokenKind::Refresh)];
        self.ring.load().set(kind).sign(kind, key_id, &self.issuer, audience, content)
    }

    /// The claims of a token of this kind that is well-formed, signed by us,
    /// and within its time; `None` for any other, whatever is wrong with it.
    #[must_use]
    pub fn verify(&self, kind: TokenKind, token: &str) -> Option<Claims> {
        self.verify_by(kind, token).map(|(claims, _)| claims)
    }

    /// The same, with the key that verified it, for those who remember the token:
    /// it counts no longer than its key.
    #[must_use]
    pub fn verify_by(&self, kind: TokenKind, token: &str) -> Option<(Claims, VerifiedBy)> {
        self.ring.load().set(kind).verify(kind, token)
    }
}

impl Ring {
    fn load(
        source: &Source,
        issuer: &str,
        audiences: &[String; 2],
        old: Option<&Self>,
    ) -> anyhow::Result<Self> {
        let load = |kind, audience: &str| {
            let purpose = Purpose { issuer, audience };
            let old = old.map(|old| old.set(kind));
            let set = KeySet::of(source.read(kind, purpose, old.map(|old| &old.keys))?);
            if !old.is_some_and(|old| old.is_like(&set)) {
                set.try_out(kind, purpose)?;
            }
            anyhow::Ok(set)
        };
        let ring = Self {
            access: load(TokenKind::Access, &audiences[0])?,
            refresh: load(TokenKind::Refresh, &audiences[1])?,
        };
        let [access, refresh] =
            [TokenKind::Access, TokenKind::Refresh].map(|kind| source.name(kind));
        let shared =
            ring.access.keys.verifying.iter().any(|key| ring.refresh.find(&key.kid).is_some());
        ensure!(
            !shared,
            "access and refresh tokens must have keys of their own, but {access} and {refresh} \
             share one"
        );
        Ok(ring)
    }

    fn is_like(&self, other: &Self) -> bool {
        self.access.is_like(&other.access) && self.refresh.is_like(&other.refresh)
    }

    fn set(&self, kind: TokenKind) -> &KeySet {
        match kind {
            TokenKind::Access => &self.access,
            TokenKind::Refresh => &self.refresh,
        }
    }
}

impl KeySet {
    fn of(mut keys: Keys) -> Self {
        keys.signing.sort_by_key(|key| key.starts);
        let now = clock::now();
        let started = |key: &Arc<SigningKey>| key.starts.is_none_or(|starts| starts <= now);
        let current = keys.signing.iter().rposition(started).unwrap_or(0);
        Self { keys, current }
    }

    fn current(&self) -> &Arc<SigningKey> {
        &self.keys.signing[self.current]
    }

    fn find(&self, kid: &str) -> Option<&Arc<VerifyingKey>> {
        self.keys.verifying(kid)
    }

    fn is_like(&self, other: &Self) -> bool {
        let signing = |set: &Self| -> Vec<_> {
            set.keys.signing.iter().map(|key| (key.kid.clone(), key.starts)).collect()
        };
        let verifying = |set: &Self| -> Vec<_> {
            set.keys.verifying.iter().map(|key| key.kid.clone()).collect()
        };
        self.current == other.current
            && signing(self) == signing(other)
            && verifying(self) == verifying(other)
    }

    fn sign(
        &self,
        kind: TokenKind,
        key_id: &str,
        issuer: &str,
        audience: &str,
        content: TokenContent,
    ) -> Result<Token> {
        let named = self.keys.signing.iter().find(|key| key.kid == key_id);
        let key = named.unwrap_or(self.current());
        let claims = Claims {
            iss: issuer.to_owned(),
            aud: audience.to_owned(),
            sub: content.user.0,
            sub_type: content.subject_type,
            org: content.tenant.0,
            roles: fitting(content.roles),
            sid: content.session.0,
            jti: content.jti,
            iat: content.issued_at.unix_timestamp(),
            nbf: content.issued_at.unix_timestamp(),
            exp: content.expires_at.unix_timestamp(),
        };
        let mut header = Header::new(key.alg);
        header.typ = Some(kind.typ().to_owned());
        header.kid = Some(key.kid.clone());
        let message = [part(&header)?, part(&claims)?].join(".");
        let signature = key.sign(&message)?;
        let jwt = [message, signature].join(".").into();
        Ok(Token { jwt, expires_at: content.expires_at })
    }

    fn verify(&self, kind: TokenKind, token: &str) -> Option<(Claims, VerifiedBy)> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        if !key::is_plain(&header) || !header.typ.as_deref().is_some_and(|typ| kind.matches(typ)) {
            return None;
        }
        let key = self.find(header.kid.as_deref()?)?;
        let claims: Claims =
            jsonwebtoken::decode(token, &key.decoding, &key.validation).ok()?.claims;
        // The library checks `exp` and `nbf`.
        let latest = clock::now().unix_timestamp() + LEEWAY_SECONDS;
        (claims.iat <= latest).then(|| (claims, VerifiedBy(Arc::downgrade(key))))
    }

    /// A library without its cryptography compiles, and fails at first use: that
    /// must be here and not in the first sign-in.
    fn try_out(&self, kind: TokenKind, purpose: Purpose<'_>) -> anyhow::Result<()> {
        let now = clock::now();
        for key in &self.keys.signing {
            let content = TokenContent {
                user: UserId(Uuid::nil()),
                subject_type: SubjectType::User,
                tenant: TenantId(Uuid::nil()),
                session: SessionId(Uuid::nil()),
                roles: Vec::new(),
                jti: super::new_jti(),
                issued_at: now,
                expires_at: now + LIFE_OF_TRIAL,
            };
            let token = self
                .sign(kind, &key.kid, purpose.issuer, purpose.audience, content)
                .context("a key does not sign")?;
            let verified = self.verify(kind, token.jwt.expose_secret());
            ensure!(verified.is_some(), "a key does not verify what it signed");
        }
        Ok(())
    }
}

/// A part of a JWT (RFC 7515, 3.1).
fn part(of: &impl Serialize) -> Result<String> {
    let json = serde_json::to_vec(of).map_err(|_| Error::defect("claims are no JSON"))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(json))
}

/// The names that a token has room for.
fn fitting(mut roles: Vec<String>) -> Vec<String> {
    let mut length = 0;
    roles.retain(|role| {
        // With the quotes and the comma of the JSON that they stand in.
        length += role.len() + 3;
        length <= MAX_ROLES
    });
    roles
}

fn expand(root: &Prk, label: &str) -> anyhow::Result<[u8; 32]> {
    let mut secret = [0; 32];
    root.expand(&[label.as_bytes()], HKDF_SHA256)
        .and_then(|derived| derived.fill(&mut secret))
        .ok()
        .context("a secret can't be derived")?;
    Ok(secret)
}
