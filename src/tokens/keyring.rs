//! The keys in force: signs and verifies.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use anyhow::{Context, bail, ensure};
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    hkdf::{HKDF_SHA256, Prk, Salt},
    rsa::KeyPair,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation,
    jwk::{AlgorithmParameters, Jwk, ThumbprintHash},
};
use secrecy::{ExposeSecret, SecretSlice};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Claims, Token, TokenKind};
use crate::{
    clock,
    error::{Error, Result},
    ids::{SessionId, TenantId, UserId},
    proto::v1::JsonWebKey,
};

/// How far the clocks of a token's maker and reader may be apart, in seconds.
pub const LEEWAY_SECONDS: i64 = 30;

/// How long the token counts that a new keyring is tried out with.
const LIFE_OF_TRIAL: time::Duration = time::Duration::SECOND;

/// The longest token that is looked at, in bytes: refusing a longer one must
/// cost nothing.
const MAX_TOKEN: usize = 8192;

/// The bytes of role names that a token has room for: with more it would be too
/// long to be sent. Decisions never depend on the names.
const MAX_ROLES: usize = 2048;

/// The smallest RSA modulus (RFC 7518, 3.3), in bytes.
const MIN_MODULUS: usize = 2048 / 8;

/// Where the PEM files of both key pairs are.
#[derive(Clone, Debug)]
pub struct KeyPaths {
    /// The private key for access tokens.
    pub access_private: PathBuf,
    /// Its public key.
    pub access_public: PathBuf,
    /// The private key for refresh tokens.
    pub refresh_private: PathBuf,
    /// Its public key.
    pub refresh_public: PathBuf,
}

/// What a token is to say, times in whole seconds.
pub struct TokenContent {
    /// The user.
    pub user: UserId,
    /// The user's tenant.
    pub tenant: TenantId,
    /// The session.
    pub session: SessionId,
    /// The names of the user's roles; empty in a refresh token. Those beyond
    /// [`MAX_ROLES`] are left out.
    pub roles: Vec<String>,
    /// The token's own id.
    pub jti: String,
    /// From when it counts.
    pub issued_at: OffsetDateTime,
    /// When it ends.
    pub expires_at: OffsetDateTime,
}

/// One key pair, bound to one kind of token and one algorithm.
struct Key {
    kid: String,
    audience: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    jwk: JsonWebKey,
}

/// The service's keys. Reading them is the only way to make one, so one that
/// exists can sign and verify.
pub struct Keyring {
    issuer: String,
    access: Arc<Key>,
    refresh: Arc<Key>,
    /// What further secrets are derived from.
    root: Prk,
}

/// The key that verified a token, as long as a keyring has it.
#[derive(Clone, Debug)]
pub struct VerifiedBy(Weak<Key>);

impl VerifiedBy {
    /// Whether it still verifies tokens.
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl Keyring {
    /// Reads both key pairs, and signs and verifies with each once.
    ///
    /// # Errors
    /// When a file can't be read or is no RSA key of at least 2048 bits, a
    /// public key is not its private key's, or both pairs are the same. No
    /// error repeats key bytes.
    pub fn load(paths: &KeyPaths, issuer: &str, audience: &str) -> anyhow::Result<Self> {
        let access =
            Key::load(&paths.access_private, &paths.access_public, issuer, audience.to_owned())?;
        let refresh = Key::load(
            &paths.refresh_private,
            &paths.refresh_public,
            issuer,
            format!("{audience}/refresh"),
        )?;
        ensure!(
            access.kid != refresh.kid,
            "access and refresh tokens must have keys of their own, but {} and {} are the same",
            paths.access_private.display(),
            paths.refresh_private.display()
        );
        let root = root(&paths.refresh_private)?;
        let ring = Self {
            issuer: issuer.to_owned(),
            access: Arc::new(access),
            refresh: Arc::new(refresh),
            root,
        };
        ring.try_out(TokenKind::Access)?;
        ring.try_out(TokenKind::Refresh)?;
        Ok(ring)
    }

    /// The id of the key that signs tokens of a kind (RFC 7638).
    #[must_use]
    pub fn kid(&self, kind: TokenKind) -> &str {
        &self.key(kind).kid
    }

    /// The tokens' `iss`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public keys that verify access tokens (RFC 7517).
    #[must_use]
    pub fn jwks(&self) -> Vec<JsonWebKey> {
        vec![self.access.jwk.clone()]
    }

    /// A secret for one use, the same on every replica: they share the key that
    /// signs refresh tokens.
    ///
    /// # Errors
    /// When the derivation fails, which no input makes it do.
    pub fn derive(&self, label: &str) -> anyhow::Result<[u8; 32]> {
        let mut secret = [0; 32];
        self.root
            .expand(&[label.as_bytes()], HKDF_SHA256)
            .and_then(|derived| derived.fill(&mut secret))
            .ok()
            .context("a secret can't be derived")?;
        Ok(secret)
    }

    /// Signs a token. RS256 is deterministic: the same content gives the same
    /// bytes. Takes about a millisecond of CPU, so call it off the runtime.
    ///
    /// # Errors
    /// INTERNAL when the key does not sign, which [`Keyring::load`] rules out.
    pub fn sign(&self, kind: TokenKind, content: TokenContent) -> Result<Token> {
        let key = self.key(kind);
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: key.audience.clone(),
            sub: content.user.0,
            org: content.tenant.0,
            roles: fitting(content.roles),
            sid: content.session.0,
            jti: content.jti,
            iat: content.issued_at.unix_timestamp(),
            nbf: content.issued_at.unix_timestamp(),
            exp: content.expires_at.unix_timestamp(),
        };
        let mut header = Header::new(Algorithm::RS256);
        header.typ = Some(kind.typ().to_owned());
        header.kid = Some(key.kid.clone());
        let jwt = jsonwebtoken::encode(&header, &claims, &key.encoding)
            .map_err(|_| Error::defect("a loaded key does not sign"))?;
        Ok(Token { jwt: jwt.into(), expires_at: content.expires_at })
    }

    /// The claims of a token of this kind that is well-formed, signed by us,
    /// and within its time; `None` for any other, whatever is wrong with it.
    #[must_use]
    pub fn verify(&self, kind: TokenKind, token: &str) -> Option<Claims> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let key = self.key(kind);
        let header = jsonwebtoken::decode_header(token).ok()?;
        // Keys come from our ring alone, never from the token (RFC 8725, 3.1);
        // a critical extension that we don't know must be refused (RFC 7515,
        // 4.1.11), and we know none.
        let brings_keys = header.jwk.is_some()
            || header.jku.is_some()
            || header.x5u.is_some()
            || header.x5c.is_some();
        if brings_keys
            || header.crit.is_some()
            || header.kid.as_deref() != Some(&key.kid)
            || !header.typ.as_deref().is_some_and(|typ| kind.matches(typ))
        {
            return None;
        }
        let claims: Claims =
            jsonwebtoken::decode(token, &key.decoding, &key.validation).ok()?.claims;
        // The library checks `exp` and `nbf`.
        let latest = clock::now().unix_timestamp() + LEEWAY_SECONDS;
        (claims.iat <= latest).then_some(claims)
    }

    /// The same, with the key that verified it, for those who remember the token:
    /// it counts no longer than its key.
    #[must_use]
    pub fn verify_by(&self, kind: TokenKind, token: &str) -> Option<(Claims, VerifiedBy)> {
        let key = VerifiedBy(Arc::downgrade(self.key(kind)));
        self.verify(kind, token).map(|claims| (claims, key))
    }

    /// A library without its cryptography compiles, and fails at first use: that
    /// must be here and not in the first sign-in.
    fn try_out(&self, kind: TokenKind) -> anyhow::Result<()> {
        let now = clock::now();
        let content = TokenContent {
            user: UserId(Uuid::nil()),
            tenant: TenantId(Uuid::nil()),
            session: SessionId(Uuid::nil()),
            roles: Vec::new(),
            jti: super::new_jti(),
            issued_at: now,
            expires_at: now + LIFE_OF_TRIAL,
        };
        let token = self.sign(kind, content).context("a key does not sign")?;
        let verified = self.verify(kind, token.jwt.expose_secret());
        ensure!(verified.is_some(), "a key does not verify what it signed");
        Ok(())
    }

    fn key(&self, kind: TokenKind) -> &Arc<Key> {
        match kind {
            TokenKind::Access => &self.access,
            TokenKind::Refresh => &self.refresh,
        }
    }
}

impl Key {
    fn load(private: &Path, public: &Path, issuer: &str, audience: String) -> anyhow::Result<Self> {
        let private_pem = read(private)?;
        let encoding = EncodingKey::from_rsa_pem(private_pem.expose_secret())
            .ok()
            .with_context(|| format!("{} is no RSA private key in PEM", private.display()))?;
        let public_pem = read(public)?;
        let decoding = DecodingKey::from_rsa_pem(public_pem.expose_secret())
            .ok()
            .with_context(|| format!("{} is no RSA public key in PEM", public.display()))?;

        let own = Jwk::from_encoding_key(&encoding, Algorithm::RS256)
            .ok()
            .with_context(|| format!("{} is no RSA private key", private.display()))?;
        let published = Jwk::from_decoding_key(&decoding, Some(Algorithm::RS256))
            .ok()
            .with_context(|| format!("{} is no RSA public key", public.display()))?;
        let id = thumbprint(&own)?;
        ensure!(
            id == thumbprint(&published)?,
            "{} is not the public key of {}",
            public.display(),
            private.display()
        );
        let jwk = public_jwk(&own, &id)
            .with_context(|| format!("{} can't be used", private.display()))?;

        let mut validation = Validation::new(Algorithm::RS256);
        validation.leeway = LEEWAY_SECONDS.unsigned_abs();
        validation.validate_nbf = true;
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[&audience]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        Ok(Self { kid: id, audience, encoding, decoding, validation, jwk })
    }
}

/// The names that a token has room for.
fn fitting(mut roles: Vec<String>) -> Vec<String> {
    let mut length = 0;
    roles.retain(|role| {
        length += role.len();
        length <= MAX_ROLES
    });
    roles
}

fn read(path: &Path) -> anyhow::Result<SecretSlice<u8>> {
    let bytes = std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    Ok(SecretSlice::from(bytes))
}

/// The root of derived secrets (RFC 5869): of the key itself, however its file
/// spells it.
fn root(private: &Path) -> anyhow::Result<Prk> {
    let parsed = pem::parse(read(private)?.expose_secret()).ok().map(pem::Pem::into_contents);
    let parsed = parsed.map(SecretSlice::from).and_then(|der| {
        let der = der.expose_secret();
        KeyPair::from_pkcs8(der).or_else(|_| KeyPair::from_der(der)).ok()
    });
    let key = parsed.with_context(|| format!("{} is no RSA private key", private.display()))?;
    let der: Pkcs8V1Der<'_> = key.as_der().ok().context("an RSA key can't be encoded")?;
    Ok(Salt::new(HKDF_SHA256, &[]).extract(der.as_ref()))
}

fn thumbprint(jwk: &Jwk) -> anyhow::Result<String> {
    jwk.thumbprint(ThumbprintHash::SHA256).context("no thumbprint (RFC 7638) of a key")
}

fn public_jwk(jwk: &Jwk, kid: &str) -> anyhow::Result<JsonWebKey> {
    let AlgorithmParameters::RSA(rsa) = &jwk.algorithm else { bail!("not an RSA key") };
    let modulus = BASE64_URL_SAFE_NO_PAD.decode(&rsa.n).context("an unreadable modulus")?;
    ensure!(modulus.len() >= MIN_MODULUS, "RSA keys must have at least 2048 bits");
    Ok(JsonWebKey {
        kty: "RSA".into(),
        r#use: "sig".into(),
        alg: "RS256".into(),
        kid: kid.into(),
        n: rsa.n.clone(),
        e: rsa.e.clone(),
    })
}
