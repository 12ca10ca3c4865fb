//! Signing keys in a key service.
//!
//! A version of a key verifies from its creation on, and signs from 15 minutes after its creation
//! on. The oldest version has no start time: it signs immediately. An operator retires older
//! versions with `min_decryption_version`.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use pem::Pem;
use serde::Deserialize;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{TokenKind, files::KeyBlock};
use crate::secrets::transit::{Transit, TransitConnection};

/// Time between the creation of a version and its first signature. This time exceeds the cache
/// lifetime of the published keys.
const PUBLISHED_BEFORE_SIGNING: time::Duration = time::Duration::minutes(15);

/// Input of the HMAC that computes the root secret of a version. Other secrets are derived from the
/// root secret.
const ROOT_SECRET_INPUT: &str = "tenantry: root of derived secrets";

/// Prefix of an Ed25519 public key as `SubjectPublicKeyInfo` (RFC 8410, section 4). After the
/// prefix come the 32 bytes of the key.
const ED25519_SPKI: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The connection to the key service, and the names of the keys.
#[derive(Clone, Debug)]
pub struct TransitKeys {
    pub service: TransitConnection,
    /// Name of the key for access tokens.
    pub access: String,
    /// Name of the key for refresh tokens.
    pub refresh: String,
}

impl TransitKeys {
    /// The name of the key for a kind of token.
    pub(super) fn name(&self, kind: TokenKind) -> &str {
        match kind {
            TokenKind::Access => &self.access,
            TokenKind::Refresh => &self.refresh,
        }
    }
}

/// The client of the key service, and the names of the keys.
pub(super) struct KeyService {
    client: Transit,
    pub keys: TransitKeys,
}

/// A version of a key in the service.
pub(super) struct Version {
    pub number: u32,
    /// The public key, and the time from which the private key signs.
    pub public: KeyBlock,
    /// Whether the service still signs with this version.
    pub can_sign: bool,
}

#[derive(Deserialize)]
struct KeyResponse {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    min_encryption_version: u32,
    keys: BTreeMap<u32, PublicKey>,
}

#[derive(Deserialize)]
struct PublicKey {
    creation_time: String,
    public_key: String,
}

#[derive(Deserialize)]
struct SignResponse {
    signature: String,
}

#[derive(Deserialize)]
struct HmacResponse {
    hmac: String,
}

impl KeyService {
    pub fn new(keys: &TransitKeys) -> anyhow::Result<Self> {
        Ok(Self { client: Transit::new(&keys.service)?, keys: keys.clone() })
    }

    /// The versions of a key, oldest first.
    pub fn versions(&self, name: &str) -> anyhow::Result<Vec<Version>> {
        let key: KeyResponse = self.client.get(&["keys", name])?;
        let oldest = key.keys.keys().next().copied();
        let versions = key.keys.iter().map(|(number, public)| {
            let creation_time = OffsetDateTime::parse(&public.creation_time, &Rfc3339);
            let creation_time = creation_time.ok().context("a version has no creation time")?;
            let start_time =
                (Some(*number) != oldest).then(|| creation_time + PUBLISHED_BEFORE_SIGNING);
            Ok(Version {
                number: *number,
                public: KeyBlock::new(start_time, public.to_pem(&key.kind)?),
                can_sign: *number >= key.min_encryption_version,
            })
        });
        versions.collect()
    }

    /// Signs a message; returns the signature in base64url, as JWS uses it (RFC 7515).
    pub fn sign(&self, name: &str, version: u32, message: &[u8]) -> anyhow::Result<String> {
        let body = json!({
            "input": BASE64_STANDARD.encode(message),
            "key_version": version,
            "marshaling_algorithm": "jws",
            "signature_algorithm": "pkcs1v15",
        });
        let response: SignResponse = self.client.post(&["sign", name, "sha2-256"], &body)?;
        Ok(strip_version(&response.signature, version)?.to_owned())
    }

    /// The root secret of a version, for deriving other secrets.
    pub fn root_secret(&self, name: &str, version: u32) -> anyhow::Result<Vec<u8>> {
        let body =
            json!({ "input": BASE64_STANDARD.encode(ROOT_SECRET_INPUT), "key_version": version });
        let hmac: HmacResponse = self.client.post(&["hmac", name, "sha2-256"], &body)?;
        let secret = BASE64_STANDARD.decode(strip_version(&hmac.hmac, version)?);
        let secret = secret.ok().context("the response of the key service is not base64")?;
        ensure!(secret.len() == 32, "the response of the key service is not an HMAC of 32 bytes");
        Ok(secret)
    }
}

impl PublicKey {
    fn to_pem(&self, kind: &str) -> anyhow::Result<Pem> {
        match kind {
            "ed25519" => {
                let raw = BASE64_STANDARD.decode(&self.public_key).ok();
                let raw = raw.filter(|raw| raw.len() == 32).context("no Ed25519 public key")?;
                Ok(Pem::new("PUBLIC KEY", [&ED25519_SPKI[..], &raw].concat()))
            }
            "ecdsa-p256" | "rsa-2048" | "rsa-3072" | "rsa-4096" => {
                pem::parse(&self.public_key).ok().context("no public key in PEM")
            }
            other => bail!("the key has the type {other}; use rsa-3072, ecdsa-p256 or ed25519"),
        }
    }
}

/// Removes the prefix of a result, such as `vault:v1:`, and checks the version in the prefix.
fn strip_version(text: &str, version: u32) -> anyhow::Result<&str> {
    let value = text.strip_prefix("vault:v").and_then(|rest| rest.split_once(':'));
    match value {
        Some((number, value)) if number.parse() == Ok(version) => Ok(value),
        _ => bail!("the key service did not use version {version}"),
    }
}
