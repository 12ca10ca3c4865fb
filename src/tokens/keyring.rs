//! The keyring: the keys that sign and verify tokens.

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
    key::{self, Purpose, SigningKey, VerifyingKey, algorithm_name, signer_unavailable},
    source::{KeySource, Keys, Source},
};
use crate::{
    clock,
    error::{Error, Result},
    ids::{SessionId, SubjectId, TenantId},
    proto::v1::JsonWebKey,
};

/// Lifetime of the trial tokens that test a new keyring.
const TRIAL_LIFETIME: time::Duration = time::Duration::SECOND;

/// Maximum length of a token, in bytes. A longer token is refused before any other work.
const MAX_TOKEN: usize = 8192;

/// Maximum length of the role names in a token, in bytes as JSON. A token with more role names
/// could be too long to be sent. Decisions never depend on the names.
const MAX_ROLES_BYTES: usize = 2048;

/// The content of a token to be signed. The token contains the times in whole seconds.
pub struct TokenContent {
    /// The id of the user or service account.
    pub user: SubjectId,
    pub subject_type: SubjectType,
    pub tenant: TenantId,
    /// The session; for a service account, the API key.
    pub session: SessionId,
    /// The names of the subject's roles; empty in a refresh token. Names that do not fit into
    /// [`MAX_ROLES_BYTES`] are omitted.
    pub roles: Vec<String>,
    /// The id of the token.
    pub jti: String,
    /// Start of the validity.
    pub issued_at: OffsetDateTime,
    /// Expiry.
    pub expires_at: OffsetDateTime,
}

/// The keys for one kind of token.
struct KeySet {
    keys: Keys,
    /// Index of the signing key in use, in `keys.signing`.
    current_index: usize,
}

/// The keys for both kinds of token, read at the same time.
struct KeySets {
    access: KeySet,
    refresh: KeySet,
}

/// The keys that sign and verify tokens. [`Keyring::load`] checks that the keys sign and verify.
pub struct Keyring {
    source: Source,
    /// Whether the key service responded at the last reload. Always true for keys in files.
    is_source_available: AtomicBool,
    issuer: String,
    audiences: [String; 2],
    key_sets: ArcSwap<KeySets>,
}

/// A key, in the form that operators see.
pub struct KeyEntry {
    /// The key id: the key's thumbprint (RFC 7638).
    pub kid: String,
    /// Name of the algorithm (RFC 7518, section 3.1).
    pub alg: &'static str,
    /// `published`: the key verifies, and signs later. `signing`: the key signs now. `retired`: the
    /// key only verifies tokens that it signed before.
    pub state: &'static str,
    /// Time from which the key signs; `None` when its source contains no start time.
    pub starts: Option<OffsetDateTime>,
}

/// A weak reference to the key that verified a token. It is valid while the keyring has the key.
#[derive(Clone, Debug)]
pub struct VerifiedBy(Weak<VerifyingKey>);

impl VerifiedBy {
    /// Whether the keyring still has the key.
    #[must_use]
    pub fn is_key_in_keyring(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl Keyring {
    /// Reads the keys, then signs and verifies a trial token with each signing key. If the keys are
    /// in a key service, this function blocks and must not run on a thread of the async runtime.
    ///
    /// # Errors
    /// When a file can't be read or has no key, when a key is not RSA with at least 2048 bits,
    /// P-256 or Ed25519, when the public key of a private key is missing, when both kinds of token
    /// have the same key, or when the key service does not respond. No error contains key bytes.
    pub fn load(source: &KeySource, issuer: &str, audience: &str) -> anyhow::Result<Self> {
        let source = Source::open(source)?;
        let audiences = [audience.to_owned(), format!("{audience}/refresh")];
        let key_sets = KeySets::load(&source, issuer, &audiences, None)?;
        let (key_sets, issuer) = (ArcSwap::from_pointee(key_sets), issuer.to_owned());
        Ok(Self { source, is_source_available: AtomicBool::new(true), issuer, audiences, key_sets })
    }

    /// Reads the keys again; returns whether anything changed. The values of unchanged keys are
    /// reused, so cached tokens that they verified stay valid.
    ///
    /// # Errors
    /// As [`Keyring::load`]. After an error the old keys stay in use.
    pub fn reload(&self) -> anyhow::Result<bool> {
        let old_sets = self.key_sets.load_full();
        let new_sets = KeySets::load(&self.source, &self.issuer, &self.audiences, Some(&old_sets));
        self.is_source_available
            .store(new_sets.is_ok() || !self.source.is_remote(), Ordering::Relaxed);
        let new_sets = new_sets?;
        let has_changed = !new_sets.equals(&old_sets);
        if has_changed {
            let accepts_earlier_tokens = new_sets.verifies_with_key_of(&old_sets);
            self.key_sets.store(Arc::new(new_sets));
            if !accepts_earlier_tokens {
                tracing::warn!(
                    access = self.kid(TokenKind::Access),
                    refresh = self.kid(TokenKind::Refresh),
                    "no earlier key verifies tokens any more: all earlier tokens are refused"
                );
            }
        }
        Ok(has_changed)
    }

    /// Checks that the key service responded at the last reload, so tokens can probably be signed.
    /// For operations that make an irreversible change and issue tokens afterwards.
    ///
    /// # Errors
    /// UNAVAILABLE when the key service did not respond at the last reload.
    pub fn check_available(&self) -> Result<()> {
        if self.is_source_available.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err(signer_unavailable())
        }
    }

    /// The id (RFC 7638) of the key that now signs tokens of this kind.
    #[must_use]
    pub fn kid(&self, kind: TokenKind) -> String {
        self.key_sets.load().set(kind).current_key().kid.clone()
    }

    /// The issuer, `iss`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public keys for access tokens, including keys that sign later (RFC 7517).
    #[must_use]
    pub fn jwks(&self) -> Vec<JsonWebKey> {
        self.key_sets.load().access.keys.verifying.iter().map(|key| key.jwk.clone()).collect()
    }

    /// The keys for a kind of token, oldest first.
    #[must_use]
    pub fn list(&self, kind: TokenKind) -> Vec<KeyEntry> {
        let key_sets = self.key_sets.load();
        let set = key_sets.set(kind);
        let entries = set.keys.verifying.iter().map(|key| {
            let index = set.keys.signing.iter().position(|signing| signing.kid == key.kid);
            KeyEntry {
                kid: key.kid.clone(),
                alg: algorithm_name(key.alg),
                state: match index {
                    Some(index) if index == set.current_index => "signing",
                    Some(index) if index > set.current_index => "published",
                    _ => "retired",
                },
                starts: index.and_then(|index| set.keys.signing[index].start_time),
            }
        });
        entries.collect()
    }

    /// The key that now signs access tokens.
    pub(super) fn access_signing_key(&self) -> Arc<SigningKey> {
        self.key_sets.load().access.current_key().clone()
    }

    /// The keys that verify access tokens, including keys that sign later.
    pub(super) fn access_verifying_keys(&self) -> Vec<Arc<VerifyingKey>> {
        self.key_sets.load().access.keys.verifying.clone()
    }

    /// Derives secrets for one purpose. All replicas derive the same secrets: one secret from each
    /// signing key for refresh tokens. The secret from the current key comes first.
    ///
    /// # Errors
    /// When the derivation fails. This does not happen with a valid keyring.
    pub fn derive(&self, purpose: &str) -> anyhow::Result<Vec<[u8; 32]>> {
        let key_sets = self.key_sets.load();
        let current = key_sets.refresh.current_key();
        let other_keys = key_sets.refresh.keys.signing.iter().filter(|key| key.kid != current.kid);
        std::iter::once(current)
            .chain(other_keys)
            .map(|key| expand(&key.root_secret, purpose))
            .collect()
    }

    /// Signs a token with the key of this id. If the key does not exist, the current key signs.
    /// RS256 and `EdDSA` are deterministic: the same content gives the same bytes. Signing takes
    /// up to a millisecond of CPU time and may call a key service, so this function must not run on
    /// a thread of the async runtime.
    ///
    /// # Errors
    /// UNAVAILABLE when the key service does not sign; INTERNAL when a key in memory does not sign,
    /// which [`Keyring::load`] has excluded.
    pub fn sign(&self, kind: TokenKind, key_id: &str, content: TokenContent) -> Result<Token> {
        let audience = &self.audiences[usize::from(kind == TokenKind::Refresh)];
        self.key_sets.load().set(kind).sign(kind, key_id, &self.issuer, audience, content)
    }

    /// Verifies the signature, the kind and the times of a token; `None` when the token is invalid.
    #[must_use]
    pub fn verify(&self, kind: TokenKind, token: &str) -> Option<Claims> {
        self.verify_and_get_key(kind, token).map(|(claims, _)| claims)
    }

    /// Like [`Keyring::verify`], and also returns the key that verified the token, because a cached
    /// token must not be accepted after its key was removed.
    #[must_use]
    pub fn verify_and_get_key(&self, kind: TokenKind, token: &str) -> Option<(Claims, VerifiedBy)> {
        self.key_sets.load().set(kind).verify(kind, token)
    }
}

impl KeySets {
    fn load(
        source: &Source,
        issuer: &str,
        audiences: &[String; 2],
        old_sets: Option<&Self>,
    ) -> anyhow::Result<Self> {
        let load = |kind, audience: &str| {
            let purpose = Purpose { issuer, audience };
            let old_set = old_sets.map(|old_sets| old_sets.set(kind));
            let old_keys = old_set.map(|old_set| &old_set.keys);
            let set = KeySet::new(source.read(kind, purpose, old_keys)?);
            if !old_set.is_some_and(|old_set| old_set.equals(&set)) {
                set.check_with_trial_tokens(kind, purpose)?;
            }
            anyhow::Ok(set)
        };
        let key_sets = Self {
            access: load(TokenKind::Access, &audiences[0])?,
            refresh: load(TokenKind::Refresh, &audiences[1])?,
        };
        let [access, refresh] =
            [TokenKind::Access, TokenKind::Refresh].map(|kind| source.name(kind));
        let is_key_shared = key_sets
            .access
            .keys
            .verifying
            .iter()
            .any(|key| key_sets.refresh.find_verifying_key(&key.kid).is_some());
        ensure!(
            !is_key_shared,
            "access and refresh tokens must use different keys, but {access} and {refresh} \
             share one"
        );
        Ok(key_sets)
    }

    fn equals(&self, other: &Self) -> bool {
        self.access.equals(&other.access) && self.refresh.equals(&other.refresh)
    }

    /// Whether tokens of each kind that a key of `old` signed can still be valid.
    fn verifies_with_key_of(&self, old: &Self) -> bool {
        [(&self.access, &old.access), (&self.refresh, &old.refresh)].iter().all(|(new, old)| {
            let old_keys: Vec<_> = old.keys.verifying.iter().map(|key| &key.kid).collect();
            new.keys.verifying.iter().any(|key| old_keys.contains(&&key.kid))
        })
    }

    fn set(&self, kind: TokenKind) -> &KeySet {
        match kind {
            TokenKind::Access => &self.access,
            TokenKind::Refresh => &self.refresh,
        }
    }
}

impl KeySet {
    fn new(mut keys: Keys) -> Self {
        keys.signing.sort_by_key(|key| key.start_time);
        let now = clock::now();
        let has_started =
            |key: &Arc<SigningKey>| key.start_time.is_none_or(|start_time| start_time <= now);
        let current_index = keys.signing.iter().rposition(has_started).unwrap_or(0);
        Self { keys, current_index }
    }

    fn current_key(&self) -> &Arc<SigningKey> {
        &self.keys.signing[self.current_index]
    }

    fn find_verifying_key(&self, kid: &str) -> Option<&Arc<VerifyingKey>> {
        self.keys.find_verifying_key(kid)
    }

    fn equals(&self, other: &Self) -> bool {
        let signing = |set: &Self| -> Vec<_> {
            set.keys.signing.iter().map(|key| (key.kid.clone(), key.start_time)).collect()
        };
        let verifying = |set: &Self| -> Vec<_> {
            set.keys.verifying.iter().map(|key| key.kid.clone()).collect()
        };
        self.current_index == other.current_index
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
        let requested_key = self.keys.signing.iter().find(|key| key.kid == key_id);
        let key = requested_key.unwrap_or(self.current_key());
        let claims = Claims {
            iss: issuer.to_owned(),
            aud: audience.to_owned(),
            sub: content.user.0,
            sub_type: content.subject_type,
            org: content.tenant.0,
            roles: fitting_roles(content.roles),
            sid: content.session.0,
            jti: content.jti,
            iat: content.issued_at.unix_timestamp(),
            nbf: content.issued_at.unix_timestamp(),
            exp: content.expires_at.unix_timestamp(),
        };
        let mut header = Header::new(key.alg);
        header.typ = Some(kind.typ().to_owned());
        header.kid = Some(key.kid.clone());
        let message = [encode_part(&header)?, encode_part(&claims)?].join(".");
        let signature = key.sign(&message)?;
        let jwt = [message, signature].join(".").into();
        Ok(Token { jwt, expires_at: content.expires_at })
    }

    fn verify(&self, kind: TokenKind, token: &str) -> Option<(Claims, VerifiedBy)> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        if !key::has_no_embedded_key(&header)
            || !header.typ.as_deref().is_some_and(|typ| kind.matches(typ))
        {
            return None;
        }
        let key = self.find_verifying_key(header.kid.as_deref()?)?;
        let claims: Claims =
            jsonwebtoken::decode(token, &key.decoding_key, &key.validation).ok()?.claims;
        // The library checks `exp` and `nbf`.
        let latest_issue = clock::now().unix_timestamp() + LEEWAY_SECONDS;
        (claims.iat <= latest_issue).then(|| (claims, VerifiedBy(Arc::downgrade(key))))
    }

    /// Signs and verifies a trial token with each key. The JWT library also compiles without its
    /// cryptography, and then fails at the first use. Because of the trial, the server fails at its
    /// start instead.
    fn check_with_trial_tokens(&self, kind: TokenKind, purpose: Purpose<'_>) -> anyhow::Result<()> {
        let now = clock::now();
        for key in &self.keys.signing {
            let content = TokenContent {
                user: SubjectId(Uuid::nil()),
                subject_type: SubjectType::User,
                tenant: TenantId(Uuid::nil()),
                session: SessionId(Uuid::nil()),
                roles: Vec::new(),
                jti: super::new_jti(),
                issued_at: now,
                expires_at: now + TRIAL_LIFETIME,
            };
            let token = self
                .sign(kind, &key.kid, purpose.issuer, purpose.audience, content)
                .context("a key does not sign")?;
            let verified = self.verify(kind, token.jwt.expose_secret());
            ensure!(verified.is_some(), "a key does not verify its own signature");
        }
        Ok(())
    }
}

/// Encodes a part of a JWT (RFC 7515, section 3.1).
pub(super) fn encode_part(value: &impl Serialize) -> Result<String> {
    let json = serde_json::to_vec(value)
        .map_err(|_| Error::defect("a part of a token can't be encoded as JSON"))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(json))
}

/// The role names that fit into a token.
fn fitting_roles(mut roles: Vec<String>) -> Vec<String> {
    let mut length = 0;
    roles.retain(|role| {
        // In the JSON list, each name has two quotes and a comma.
        length += role.len() + 3;
        length <= MAX_ROLES_BYTES
    });
    roles
}

fn expand(root: &Prk, purpose: &str) -> anyhow::Result<[u8; 32]> {
    let mut secret = [0; 32];
    root.expand(&[purpose.as_bytes()], HKDF_SHA256)
        .and_then(|derived| derived.fill(&mut secret))
        .ok()
        .context("a secret can't be derived")?;
    Ok(secret)
}
