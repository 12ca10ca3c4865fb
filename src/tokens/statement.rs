//! Signed statements: JWTs that state a fact and authenticate nobody. The keys that sign access
//! tokens also sign statements. The public keys of these keys are published, so anybody can verify
//! a statement.
//!
//! A statement is never accepted as a token: it has another `typ`, and none of the claims `aud`,
//! `exp` and `sub`, which every verifier of access tokens requires (RFC 8725, section 3.11).

use std::{collections::HashMap, fmt};

use anyhow::Context;
use jsonwebtoken::{
    Algorithm, DecodingKey, Header, Validation,
    jwk::{JwkSet, KeyAlgorithm},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{Keyring, key::has_no_embedded_key, keyring::encode_part};
use crate::error::Result;

/// A signed statement.
pub struct Statement {
    /// The JWT.
    pub jwt: String,
    /// The id of the key that signed it.
    pub kid: String,
}

/// The public keys that verify statements, by key id.
#[derive(Default)]
pub struct StatementKeys(HashMap<String, (Algorithm, DecodingKey)>);

/// Why a statement is not valid.
#[derive(Debug)]
pub enum Unverified {
    /// None of the keys has this id.
    UnknownKey(String),
    /// The text is not a JWT of this `typ`, another key signed it, or it was altered.
    Invalid,
}

impl Keyring {
    /// Signs a statement with the current key for access tokens. May call a key service, so this
    /// function must not run on a thread of the async runtime, nor while a transaction is open.
    ///
    /// # Errors
    /// UNAVAILABLE when the key service does not sign.
    pub fn sign_statement(&self, typ: &str, claims: &impl Serialize) -> Result<Statement> {
        let key = self.access_signing_key();
        let mut header = Header::new(key.alg);
        header.typ = Some(typ.to_owned());
        header.kid = Some(key.kid.clone());
        let message = [encode_part(&header)?, encode_part(claims)?].join(".");
        let signature = key.sign(&message)?;
        Ok(Statement { jwt: [message, signature].join("."), kid: key.kid.clone() })
    }

    /// The keys that verify statements: the published keys for access tokens.
    #[must_use]
    pub fn statement_keys(&self) -> StatementKeys {
        let keys = self.access_verifying_keys();
        let keys = keys.iter().map(|key| (key.kid.clone(), (key.alg, key.decoding_key.clone())));
        StatementKeys(keys.collect())
    }
}

impl StatementKeys {
    /// Reads a JWK set (RFC 7517), as the server publishes it. Keys without an id, and keys of
    /// algorithms that do not sign tokens, are left out.
    ///
    /// # Errors
    /// When the text is no JWK set, or when a key is invalid.
    pub fn from_jwks(text: &str) -> anyhow::Result<Self> {
        let set: JwkSet = serde_json::from_str(text).context("this is no JWK set")?;
        let mut keys = HashMap::new();
        for jwk in set.keys {
            let algorithm = match jwk.common.key_algorithm {
                Some(KeyAlgorithm::RS256) => Algorithm::RS256,
                Some(KeyAlgorithm::ES256) => Algorithm::ES256,
                Some(KeyAlgorithm::EdDSA) => Algorithm::EdDSA,
                _ => continue,
            };
            let Some(kid) = jwk.common.key_id.clone() else { continue };
            let key = DecodingKey::from_jwk(&jwk).ok().context("a key of the set is invalid")?;
            keys.insert(kid, (algorithm, key));
        }
        Ok(Self(keys))
    }

    /// Verifies the signature and the `typ` of a statement, and returns its claims.
    ///
    /// # Errors
    /// When the statement is not valid.
    pub fn verify<T: DeserializeOwned + Clone>(
        &self,
        typ: &str,
        jwt: &str,
    ) -> Result<T, Unverified> {
        let header = jsonwebtoken::decode_header(jwt).map_err(|_| Unverified::Invalid)?;
        let kid = header.kid.clone().unwrap_or_default();
        if !has_no_embedded_key(&header) || header.typ.as_deref() != Some(typ) {
            return Err(Unverified::Invalid);
        }
        let Some((algorithm, key)) = self.0.get(&kid) else {
            return Err(Unverified::UnknownKey(kid));
        };
        let mut validation = Validation::new(*algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let token = jsonwebtoken::decode(jwt, key, &validation);
        token.map(|token| token.claims).map_err(|_| Unverified::Invalid)
    }
}

impl fmt::Display for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey(kid) => write!(f, "there is no public key {kid}"),
            Self::Invalid => f.write_str("its signature is not valid"),
        }
    }
}
