//! Makes valid and invalid tokens, signed with the server's real keys.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tenantry::tokens::KeyPaths;

/// The server's signing keys, for making tokens.
pub struct Forge {
    pub access: EncodingKey,
    pub refresh: EncodingKey,
    pub access_public_pem: Vec<u8>,
}

impl Forge {
    pub fn new(keys: &KeyPaths) -> Self {
        let read_key = |path| std::fs::read(path).expect("a key file");
        let signing_key = |path| EncodingKey::from_rsa_pem(&read_key(path)).expect("a key");
        Self {
            access: signing_key(&keys.access_private),
            refresh: signing_key(&keys.refresh_private),
            access_public_pem: read_key(&keys.access_public),
        }
    }

    /// Header and claims of a token. Does not verify the signature.
    pub fn read(token: &str) -> (Header, Value) {
        let data = jsonwebtoken::dangerous::insecure_decode::<Value>(token).expect("a token");
        (data.header, data.claims)
    }

    /// A copy of `token` with these claims changed, signed with the access key. Null removes a
    /// claim.
    pub fn with_claims(&self, token: &str, changes: &Value) -> String {
        let (header, mut claims) = Self::read(token);
        let object = claims.as_object_mut().expect("an object");
        for (name, value) in changes.as_object().expect("an object") {
            match value {
                Value::Null => object.remove(name),
                value => object.insert(name.clone(), value.clone()),
            };
        }
        self.sign(&header, &claims)
    }

    /// A token with this header and these claims, signed with the access key.
    pub fn sign(&self, header: &Header, claims: &Value) -> String {
        assert_eq!(header.alg, Algorithm::RS256);
        jsonwebtoken::encode(header, claims, &self.access).expect("a token")
    }

    /// A token with exactly this header and payload text, signed with the access key. For JSON
    /// that libraries do not write, such as a claim that occurs twice.
    pub fn sign_raw(&self, header: &str, claims: &str) -> String {
        Self::sign_with(&self.access, Algorithm::RS256, header, claims)
    }

    /// Like [`Forge::sign_raw`], with any key and algorithm.
    pub fn sign_with(key: &EncodingKey, alg: Algorithm, header: &str, claims: &str) -> String {
        let message = Self::unsigned(header, claims);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, alg);
        format!("{message}.{}", signature.expect("a signature"))
    }

    /// A token without its signature: the header and the payload, which the signature covers.
    pub fn unsigned(header: &str, claims: &str) -> String {
        let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}", encode(header), encode(claims))
    }

    /// A copy of `token` whose signature differs in the last character.
    pub fn tampered(token: &str) -> String {
        let (rest, last) = token.split_at(token.len() - 1);
        format!("{rest}{}", if last == "A" { "B" } else { "A" })
    }

    /// A copy of `token` that expired one hour before `token` was issued.
    pub fn expired(&self, token: &str) -> String {
        let (_, claims) = Self::read(token);
        let iat = claims["iat"].as_i64().expect("iat");
        let times = json!({ "iat": iat - 7200, "nbf": iat - 7200, "exp": iat - 3600 });
        self.with_claims(token, &times)
    }
}
