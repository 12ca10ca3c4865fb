//! Keys in a key service that speaks Vault's Transit API: private keys never
//! leave it (ASVS 13.3.3).
//!
//! A version of a key verifies from the moment it is made, and signs a quarter of an
//! hour later, as keys in files do. Raising `min_decryption_version` retires those
//! before it.
//!
//! The client blocks, as signing does: it is called off the runtime's threads.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use anyhow::{Context, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use pem::Pem;
use reqwest::{
    Certificate,
    blocking::{Client, RequestBuilder},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use url::Url;

use super::{TokenKind, files::Block};

/// How long the service may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long a version is published before it signs: longer than anybody may keep the
/// page with the keys.
const AHEAD: time::Duration = time::Duration::minutes(15);

/// What secrets are derived from, of each version of a key.
const ROOT: &str = "tenantry: root of derived secrets";

/// What an Ed25519 public key of 32 bytes begins with as
/// `SubjectPublicKeyInfo`
/// (RFC 8410, 4).
const ED25519_SPKI: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Where the service is, and what its keys are called.
#[derive(Clone, Debug)]
pub struct TransitPaths {
    /// Its address.
    pub url: Url,
    /// Where the engine is mounted.
    pub mount: String,
    /// The file with the token, read at each call: an agent renews it.
    pub token: PathBuf,
    /// The file with the service's authority; `None` for those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The key for access tokens.
    pub access: String,
    /// The key for refresh tokens.
    pub refresh: String,
}

impl TransitPaths {
    /// The name of a kind's key.
    pub(super) fn name(&self, kind: TokenKind) -> &str {
        match kind {
            TokenKind::Access => &self.access,
            TokenKind::Refresh => &self.refresh,
        }
    }
}

/// The service.
pub(super) struct Transit {
    client: Client,
    pub paths: TransitPaths,
}

/// A version of a key, as the service tells of it.
pub(super) struct Version {
    pub number: u32,
    /// The public half, and from when the private one signs.
    pub public: Block,
    /// Whether the service still signs with it.
    pub signs: bool,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Key {
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
struct Signed {
    signature: String,
}

#[derive(Deserialize)]
struct Hmac {
    hmac: String,
}

impl Transit {
    /// A client; it connects when it is asked for something.
    pub fn new(paths: &TransitPaths) -> anyhow::Result<Self> {
        let mut client = Client::builder().timeout(TIMEOUT).no_proxy();
        if let Some(path) = &paths.ca {
            let shown = path.display();
            let pem = fs::read(path).with_context(|| format!("can't read {shown}"))?;
            let authorities = Certificate::from_pem_bundle(&pem);
            let authorities = authorities.ok().filter(|found| !found.is_empty());
            client = client
                .tls_certs_only(authorities.with_context(|| format!("{shown} has no authority"))?);
        }
        let client = client.build().context("no client for TRANSIT_URL")?;
        Ok(Self { client, paths: paths.clone() })
    }

    /// A key's versions, oldest first.
    pub fn versions(&self, name: &str) -> anyhow::Result<Vec<Version>> {
        let request = self.client.get(self.address(&["keys", name])?);
        let key: Key = self.ask(request)?;
        let oldest = key.keys.keys().next().copied();
        let versions = key.keys.iter().map(|(number, public)| {
            let made = OffsetDateTime::parse(&public.creation_time, &Rfc3339);
            let made = made.ok().context("it has no time of creation")?;
            let starts = (Some(*number) != oldest).then(|| made + AHEAD);
            Ok(Version {
                number: *number,
                public: Block::new(starts, public.pem(&key.kind)?),
                signs: *number >= key.min_encryption_version,
            })
        });
        versions.collect()
    }

    /// A signature, as JWS has it (RFC 7515): base64url.
    pub fn sign(&self, name: &str, version: u32, message: &[u8]) -> anyhow::Result<String> {
        let body = json!({
            "input": BASE64_STANDARD.encode(message),
            "key_version": version,
            "marshaling_algorithm": "jws",
            "signature_algorithm": "pkcs1v15",
        });
        let request = self.client.post(self.address(&["sign", name, "sha2-256"])?).json(&body);
        let signed: Signed = self.ask(request)?;
        Ok(value(&signed.signature, version)?.to_owned())
    }

    /// A secret of a version's.
    pub fn root(&self, name: &str, version: u32) -> anyhow::Result<Vec<u8>> {
        let body = json!({ "input": BASE64_STANDARD.encode(ROOT), "key_version": version });
        let request = self.client.post(self.address(&["hmac", name, "sha2-256"])?).json(&body);
        let hmac: Hmac = self.ask(request)?;
        let secret = BASE64_STANDARD.decode(value(&hmac.hmac, version)?);
        let secret = secret.ok().context("the key service answers with no base64")?;
        ensure!(secret.len() == 32, "the key service answers with no HMAC of 32 bytes");
        Ok(secret)
    }

    fn address(&self, path: &[&str]) -> anyhow::Result<Url> {
        let mut url = self.paths.url.clone();
        {
            let mut segments =
                url.path_segments_mut().ok().context("TRANSIT_URL can't have a path")?;
            segments.pop_if_empty().push("v1").extend(self.paths.mount.split('/')).extend(path);
        }
        Ok(url)
    }

    /// No error repeats what was sent or answered: it may be secret.
    fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let shown = self.paths.token.display();
        let token = fs::read_to_string(&self.paths.token)
            .map(SecretString::from)
            .with_context(|| format!("can't read {shown}"))?;
        let answer = request
            .header("x-vault-token", token.expose_secret().trim())
            .header("x-vault-request", "true")
            .send()
            .map_err(|error| {
                anyhow::anyhow!("the key service does not answer: {}", kind(&error))
            })?;
        let status = answer.status();
        ensure!(status.is_success(), "the key service answers {status}");
        let answer: Answer<T> =
            answer.json().ok().context("the key service answers something else")?;
        Ok(answer.data)
    }
}

impl PublicKey {
    fn pem(&self, kind: &str) -> anyhow::Result<Pem> {
        match kind {
            "ed25519" => {
                let raw = BASE64_STANDARD.decode(&self.public_key).ok();
                let raw = raw.filter(|raw| raw.len() == 32).context("no Ed25519 public key")?;
                Ok(Pem::new("PUBLIC KEY", [&ED25519_SPKI[..], &raw].concat()))
            }
            "ecdsa-p256" | "rsa-2048" | "rsa-3072" | "rsa-4096" => {
                pem::parse(&self.public_key).ok().context("no public key in PEM")
            }
            other => bail!("it is of the type {other}; use rsa-3072, ecdsa-p256 or ed25519"),
        }
    }
}

/// What stands after the prefix of a version's answers, `vault:v1:`.
fn value(text: &str, version: u32) -> anyhow::Result<&str> {
    let value = text.strip_prefix("vault:v").and_then(|rest| rest.split_once(':'));
    match value {
        Some((number, value)) if number.parse() == Ok(version) => Ok(value),
        _ => bail!("the key service did not use version {version}"),
    }
}

fn kind(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "it takes too long"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    }
}
