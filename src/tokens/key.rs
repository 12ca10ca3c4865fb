//! Keys of tokens, each for one kind of token and one algorithm (RFC 8725, section 3.1).

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, ThumbprintHash},
};
use time::OffsetDateTime;

use super::{
    LEEWAY_SECONDS,
    files::KeyBlock,
    signer::Signer,
    transit::{KeyService, Version},
};
use crate::{
    error::{Error, Result},
    proto::v1::{ErrorReason, JsonWebKey},
};

/// Minimum length of an RSA modulus, in bytes (RFC 7518, section 3.3).
const MIN_MODULUS: usize = 2048 / 8;

/// The issuer and the audience that a key verifies tokens for.
#[derive(Clone, Copy)]
pub(super) struct Purpose<'a> {
    pub issuer: &'a str,
    pub audience: &'a str,
}

/// A private key, and the time from which it signs.
pub(super) struct SigningKey {
    pub kid: String,
    pub start_time: Option<OffsetDateTime>,
    pub alg: Algorithm,
    /// The root for secrets that are derived from this key (RFC 5869).
    pub root_secret: Prk,
    private: PrivateKey,
}

/// The storage of a private key: memory, or a key service.
enum PrivateKey {
    InMemory(Signer),
    Transit { service: Arc<KeyService>, name: String, version: u32 },
}

impl SigningKey {
    /// Reads a private key of a supported algorithm.
    pub fn read(block: &KeyBlock) -> anyhow::Result<Self> {
        let text = block.text();
        let (encoding_key, alg) = if let Ok(key) = EncodingKey::from_rsa_pem(text.as_bytes()) {
            (key, Algorithm::RS256)
        } else if let Ok(key) = EncodingKey::from_ec_pem(text.as_bytes()) {
            (key, Algorithm::ES256)
        } else if let Ok(key) = EncodingKey::from_ed_pem(text.as_bytes()) {
            (key, Algorithm::EdDSA)
        } else {
            bail!("a key is not an RSA, P-256 or Ed25519 private key in PEM");
        };
        let jwk = Jwk::from_encoding_key(&encoding_key, alg).ok().context("a key is invalid")?;
        let kid = thumbprint(&jwk)?;
        // A key that can't be published must not sign.
        published_jwk(&jwk, alg, &kid)?;
        let root_secret = derive_root(encoding_key.as_bytes());
        let private = PrivateKey::InMemory(Signer::parse(&encoding_key, alg)?);
        Ok(Self { kid, start_time: block.start_time, alg, root_secret, private })
    }

    /// A version of a key in a key service. `public` is the public key of that version.
    ///
    /// # Errors
    /// When the service returns no root secret for the version.
    pub fn in_transit(
        service: &Arc<KeyService>,
        name: &str,
        version: &Version,
        public: &VerifyingKey,
    ) -> anyhow::Result<Self> {
        let root_secret = derive_root(&service.root_secret(name, version.number)?);
        let (service, name, version_number) = (service.clone(), name.to_owned(), version.number);
        Ok(Self {
            kid: public.kid.clone(),
            start_time: version.public.start_time,
            alg: public.alg,
            root_secret,
            private: PrivateKey::Transit { service, name, version: version_number },
        })
    }

    /// Signs the first two parts of a JWT, header and claims. Returns the encoded signature
    /// (RFC 7515, section 5.1).
    ///
    /// # Errors
    /// UNAVAILABLE when the key service does not sign.
    pub fn sign(&self, message: &str) -> Result<String> {
        match &self.private {
            PrivateKey::InMemory(key) => {
                Ok(BASE64_URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes())?))
            }
            PrivateKey::Transit { service, name, version } => {
                service.sign(name, *version, message.as_bytes()).map_err(|error| {
                    tracing::error!(error = format!("{error:#}"), "a token was not signed");
                    signer_unavailable()
                })
            }
        }
    }
}

/// The error for a key service that is unavailable or does not sign.
pub(super) fn signer_unavailable() -> Error {
    Error::refused(ErrorReason::StoreUnavailable, "tokens can't be signed now; try again")
}

fn derive_root(secret: &[u8]) -> Prk {
    Salt::new(HKDF_SHA256, &[]).extract(secret)
}

/// A public key, with the checks for tokens that it verifies.
pub(super) struct VerifyingKey {
    pub kid: String,
    pub alg: Algorithm,
    pub decoding_key: DecodingKey,
    pub validation: Validation,
    pub jwk: JsonWebKey,
}

impl VerifyingKey {
    /// Reads a public key of a supported algorithm.
    pub fn read(block: &KeyBlock, purpose: Purpose<'_>) -> anyhow::Result<Self> {
        Self::from_pem(&block.text(), purpose)
    }

    /// Like [`VerifyingKey::read`], for a public key as PEM text.
    pub fn from_pem(text: &str, purpose: Purpose<'_>) -> anyhow::Result<Self> {
        let (decoding_key, alg) = if let Ok(key) = DecodingKey::from_rsa_pem(text.as_bytes()) {
            (key, Algorithm::RS256)
        } else if let Ok(key) = DecodingKey::from_ec_pem(text.as_bytes()) {
            (key, Algorithm::ES256)
        } else if let Ok(key) = DecodingKey::from_ed_pem(text.as_bytes()) {
            (key, Algorithm::EdDSA)
        } else {
            bail!("the key is not an RSA, P-256 or Ed25519 public key in PEM");
        };
        let public_jwk =
            Jwk::from_decoding_key(&decoding_key, Some(alg)).ok().context("the key is invalid")?;
        let kid = thumbprint(&public_jwk)?;
        let jwk = published_jwk(&public_jwk, alg, &kid)?;
        let mut validation = Validation::new(alg);
        validation.leeway = LEEWAY_SECONDS.unsigned_abs();
        validation.validate_nbf = true;
        validation.set_issuer(&[purpose.issuer]);
        validation.set_audience(&[purpose.audience]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        Ok(Self { kid, alg, decoding_key, validation, jwk })
    }
}

/// Whether a token's header contains no key, no address of a key and no critical extension. A key
/// must never come from the token itself (RFC 8725, section 3.1). A token with a critical extension
/// that is not supported must be refused (RFC 7515, section 4.1.11), and no extension is supported.
pub(super) fn has_no_embedded_key(header: &Header) -> bool {
    header.jwk.is_none()
        && header.jku.is_none()
        && header.x5u.is_none()
        && header.x5c.is_none()
        && header.crit.is_none()
}

fn thumbprint(jwk: &Jwk) -> anyhow::Result<String> {
    jwk.thumbprint(ThumbprintHash::SHA256).ok().context("a key has no thumbprint (RFC 7638)")
}

/// The published form of a public key (RFC 7517, RFC 8037).
fn published_jwk(jwk: &Jwk, alg: Algorithm, kid: &str) -> anyhow::Result<JsonWebKey> {
    let mut published_key = JsonWebKey {
        r#use: "sig".into(),
        alg: algorithm_name(alg).into(),
        kid: kid.into(),
        ..JsonWebKey::default()
    };
    match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let modulus = BASE64_URL_SAFE_NO_PAD.decode(&rsa.n).context("an unreadable modulus")?;
            ensure!(modulus.len() >= MIN_MODULUS, "RSA keys must have at least 2048 bits");
            published_key.kty = "RSA".into();
            (published_key.n, published_key.e) = (rsa.n.clone(), rsa.e.clone());
        }
        AlgorithmParameters::EllipticCurve(ec) => {
            ensure!(ec.curve == EllipticCurve::P256, "EC keys must be of the curve P-256");
            (published_key.kty, published_key.crv) = ("EC".into(), "P-256".into());
            (published_key.x, published_key.y) = (ec.x.clone(), ec.y.clone());
        }
        AlgorithmParameters::OctetKeyPair(okp) => {
            (published_key.kty, published_key.crv) = ("OKP".into(), "Ed25519".into());
            published_key.x.clone_from(&okp.x);
        }
        _ => bail!("the kind of a key is unknown"),
    }
    Ok(published_key)
}

/// The name of an algorithm (RFC 7518, section 3.1).
pub(super) fn algorithm_name(alg: Algorithm) -> &'static str {
    match alg {
        Algorithm::ES256 => "ES256",
        Algorithm::EdDSA => "EdDSA",
        _ => "RS256",
    }
}
