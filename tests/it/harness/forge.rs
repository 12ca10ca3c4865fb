//! Makes tokens with the server's real keys, and with anything wrong with them.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tenantry::tokens::KeyPaths;

/// The keys, and the shape of the tokens that the server makes with them.
pub struct Forge {
    pub access: EncodingKey,
    pub refresh: EncodingKey,
    pub access_public_pem: Vec<u8>,
}

impl Forge {
    pub fn new(keys: &KeyPaths) -> Self {
        let read = |path| std::fs::read(path).expect("a key file");
        let key = |path| EncodingKey::from_rsa_pem(&read(path)).expect("a key");
        Self {
            access: key(&keys.access_private),
            refresh: key(&keys.refresh_private),
            access_public_pem: read(&keys.access_public),
        }
    }

    /// The header and the claims of a token that the server made, to change
    /// one thing about.
    pub fn read(token: &str) -> (Header, Value) {
        let data = jsonwebtoken::dangerous::insecure_decode::<Value>(token).expect("a token");
        (data.header, data.claims)
    }

    /// A token like `token`, with claims merged over its own: null removes one.
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

    /// A token like `token` that ended an hour ago.
    pub fn expired(&self, token: &str) -> String {
        let (_, claims) = Self::read(token);
        let iat = claims["iat"].as_i64().expect("iat");
        let past = json!({ "iat": iat - 7200, "nbf": iat - 7200, "exp": iat - 3600 });
        self.with_claims(token, &past)
    }
}
