//! Verifies access tokens with the server's published keys.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::Jwk};
use serde::Deserialize;
use tokio::{sync::Mutex, time::Instant};
use uuid::Uuid;

use crate::{
    client::Client,
    v1::{GetJwksRequest, JsonWebKey, auth_service_client::AuthServiceClient},
};

/// Maximum difference between the clocks of the server and of this client, in seconds.
const LEEWAY_SECONDS: u64 = 30;
/// Maximum length of a token, in bytes.
const MAX_TOKEN: usize = 8192;
/// Age after which the keys are read again, so that a retired key is no longer accepted.
const MAX_AGE: Duration = Duration::from_mins(5);
/// Minimum time between two reads of the keys. It bounds the number of reads that tokens with
/// unknown key ids can cause.
const MIN_READ_INTERVAL: Duration = Duration::from_secs(5);

/// The token cannot be verified with the server's published keys, or has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the access token is invalid or has expired")]
pub struct TokenInvalid;

/// The kind of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectType {
    /// A user.
    #[default]
    User,
    /// A service account: a program that signs in without a user.
    ServiceAccount,
}

/// The subject of an access token, with its tenant and session.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Principal {
    /// The user's or service account's id.
    #[serde(rename = "sub")]
    pub subject: Uuid,
    /// The kind of the subject.
    #[serde(rename = "sub_type", default)]
    pub subject_type: SubjectType,
    /// The id of the subject's tenant.
    #[serde(rename = "org")]
    pub tenant: Uuid,
    /// The session's id; for a service account, the id of its API key.
    #[serde(rename = "sid")]
    pub session: Uuid,
    /// The names of the subject's roles when the token was issued. Use them only for display, never
    /// for decisions.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Expiry time of the token, in seconds since 1970.
    #[serde(rename = "exp")]
    pub expires: u64,
}

/// A published key. It verifies tokens with only one algorithm (RFC 8725, 3.1).
struct Key {
    algorithm: Algorithm,
    decoding: DecodingKey,
    validation: Validation,
}

/// The published keys, and the time when they were read.
#[derive(Default)]
struct Keys {
    by_id: HashMap<String, Key>,
    read_at: Option<Instant>,
}

impl Keys {
    /// Whether the key with this id is known, and the keys are not too old.
    fn has_current(&self, kid: &str) -> bool {
        self.by_id.contains_key(kid) && self.read_at.is_some_and(|time| time.elapsed() < MAX_AGE)
    }
}

/// Verifies access tokens (RFC 9068) without a call for each token: the signature, the times, the
/// issuer and the audience. A `Verifier` accepts the tokens of a session that has ended, until they
/// expire. A [`Guard`](crate::Guard) refuses them.
pub struct Verifier {
    client: Client,
    issuer: String,
    audience: String,
    keys: ArcSwap<Keys>,
    /// Time of the last attempt to read the keys.
    last_attempt: Mutex<Option<Instant>>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Verifier {
    /// A verifier for tokens with this issuer and audience: the server's `JWT_ISSUER` and
    /// `JWT_AUDIENCE`.
    #[must_use]
    pub fn new(client: Client, issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            client,
            issuer: issuer.into(),
            audience: audience.into(),
            keys: ArcSwap::default(),
            last_attempt: Mutex::default(),
        }
    }

    /// Verifies a token and returns its principal.
    ///
    /// # Errors
    /// Returns [`TokenInvalid`] when the token cannot be verified or has expired, or when the keys
    /// could never be read.
    pub async fn verify(&self, token: &str) -> Result<Principal, TokenInvalid> {
        if token.len() > MAX_TOKEN {
            return Err(TokenInvalid);
        }
        let header = decode_header(token).map_err(|_| TokenInvalid)?;
        // A key in the token's header is never used, and no critical extension is supported.
        let is_plain = header.jwk.is_none()
            && header.jku.is_none()
            && header.x5u.is_none()
            && header.x5c.is_none()
            && header.crit.is_none();
        let typ = header.typ.as_deref().unwrap_or_default().to_ascii_lowercase();
        if !is_plain || typ.trim_start_matches("application/") != "at+jwt" {
            return Err(TokenInvalid);
        }
        let kid = header.kid.as_deref().ok_or(TokenInvalid)?;
        self.read_keys_if_needed(kid).await;
        let keys = self.keys.load();
        let key =
            keys.by_id.get(kid).filter(|key| key.algorithm == header.alg).ok_or(TokenInvalid)?;
        let decoded = decode(token, &key.decoding, &key.validation).map_err(|_| TokenInvalid)?;
        Ok(decoded.claims)
    }

    /// Reads the keys if they are too old or do not include this key. Concurrent calls share one
    /// read.
    async fn read_keys_if_needed(&self, kid: &str) {
        if self.keys.load().has_current(kid) {
            return;
        }
        let mut last_attempt = self.last_attempt.lock().await;
        let is_too_soon = last_attempt.is_some_and(|time| time.elapsed() < MIN_READ_INTERVAL);
        if is_too_soon || self.keys.load().has_current(kid) {
            return;
        }
        match AuthServiceClient::new(self.client.anonymous()).get_jwks(GetJwksRequest {}).await {
            Ok(response) => {
                let keys = response.into_inner().keys;
                let keys = keys.iter().filter_map(|key| Some((key.kid.clone(), self.parse(key)?)));
                let read_at = Some(Instant::now());
                self.keys.store(Arc::new(Keys { by_id: keys.collect(), read_at }));
            }
            // The keys of the last read stay in use.
            Err(status) => tracing::warn!(code = ?status.code(), "the keys can't be read"),
        }
        *last_attempt = Some(Instant::now());
    }

    /// Parses a published key. `None` for a key that cannot be used.
    fn parse(&self, key: &JsonWebKey) -> Option<Key> {
        let algorithm = match key.alg.as_str() {
            "RS256" => Algorithm::RS256,
            "ES256" => Algorithm::ES256,
            "EdDSA" => Algorithm::EdDSA,
            _ => return None,
        };
        let members = [
            ("kty", &key.kty),
            ("use", &key.r#use),
            ("alg", &key.alg),
            ("kid", &key.kid),
            ("n", &key.n),
            ("e", &key.e),
            ("crv", &key.crv),
            ("x", &key.x),
            ("y", &key.y),
        ];
        let present_members = members.into_iter().filter(|(_, value)| !value.is_empty());
        let json =
            present_members.map(|(name, value)| (name.to_owned(), value.clone().into())).collect();
        let jwk: Jwk = serde_json::from_value(serde_json::Value::Object(json)).ok()?;
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        Some(Key { algorithm, decoding: DecodingKey::from_jwk(&jwk).ok()?, validation })
    }
}
