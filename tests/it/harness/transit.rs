//! A key service with Vault's Transit API. It follows the documented paths, field names and
//! formats of `transit/keys`, `transit/sign`, `transit/hmac`, `transit/encrypt` and
//! `transit/decrypt`.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    encoding::{AsDer, PublicKeyX509Der},
    hmac,
    rand::{self, SystemRandom},
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RsaKeyPair,
    },
};
use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{net::TcpListener, task::AbortHandle};

/// Name of the master key in the key service.
pub const MASTER_KEY_NAME: &str = "tenantry-master";

const TOKEN: &str = "hvs.CAESIJ-of-the-tests";

enum PrivateKey {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    /// An encryption key. It cannot sign.
    Aes(RandomizedNonceKey),
}

struct KeyVersion {
    private: PrivateKey,
    hmac: hmac::Key,
    created: OffsetDateTime,
}

struct Key {
    kind: &'static str,
    versions: BTreeMap<u32, KeyVersion>,
    min_decryption_version: u32,
    /// Number of sign requests for this key.
    sign_requests: u32,
}

type Keys = Arc<Mutex<BTreeMap<String, Key>>>;

/// A running key service. Dropping it stops the service.
pub struct KeyService {
    pub addr: SocketAddr,
    keys: Keys,
    dir: tempfile::TempDir,
    task: AbortHandle,
}

impl Drop for KeyService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl KeyService {
    /// Starts a key service with a signing key for each kind of token, and a master key. `kind` is
    /// the type of the signing keys, such as `ecdsa-p256`.
    pub async fn start(kind: &'static str) -> Self {
        let keys = Keys::default();
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("token"), format!("{TOKEN}\n"))
            .expect("the token is written");
        let (addr, task) = serve("127.0.0.1:0".parse().expect("an address"), &keys).await;
        let service = Self { addr, keys, dir, task };
        for name in ["tenantry-access", "tenantry-refresh"] {
            service.add_key(name, kind);
        }
        service.add_key(MASTER_KEY_NAME, "aes256-gcm96");
        service
    }

    fn add_key(&self, name: &str, kind: &'static str) {
        let key =
            Key { kind, versions: BTreeMap::new(), min_decryption_version: 1, sign_requests: 0 };
        self.keys.lock().expect("no panic").insert(name.into(), key);
        self.rotate(name, OffsetDateTime::UNIX_EPOCH);
    }

    /// Adds a key version with this creation time.
    pub fn rotate(&self, name: &str, created: OffsetDateTime) {
        let mut keys = self.keys.lock().expect("no panic");
        let key = keys.get_mut(name).expect("a key");
        let number = key.versions.keys().last().map_or(1, |last| last + 1);
        key.versions.insert(number, KeyVersion::new(key.kind, created));
    }

    /// Retires the key versions below `version`.
    pub fn retire_before(&self, name: &str, version: u32) {
        let mut keys = self.keys.lock().expect("no panic");
        keys.get_mut(name).expect("a key").min_decryption_version = version;
    }

    /// Number of sign requests for a key.
    pub fn sign_request_count(&self, name: &str) -> u32 {
        self.keys.lock().expect("no panic")[name].sign_requests
    }

    /// Sets the settings of a server that signs with this service instead of key files.
    pub fn apply_settings(&self, values: &mut tenantry::config::Values) {
        values.set("TRANSIT_URL", format!("http://{}", self.addr));
        values.set("TRANSIT_TOKEN_PATH", self.token_path().display().to_string());
        for name in [
            "JWT_ACCESS_PRIVATE_KEY_PATH",
            "JWT_ACCESS_PUBLIC_KEY_PATH",
            "JWT_REFRESH_PRIVATE_KEY_PATH",
            "JWT_REFRESH_PUBLIC_KEY_PATH",
        ] {
            values.set(name, "");
        }
    }

    /// Settings of a command that wraps data keys with this service.
    pub fn master_settings(&self) -> [(&'static str, String); 3] {
        [
            ("TRANSIT_URL", format!("http://{}", self.addr)),
            ("TRANSIT_TOKEN_PATH", self.token_path().display().to_string()),
            ("MASTER_TRANSIT_KEY", MASTER_KEY_NAME.into()),
        ]
    }

    /// Path of the file with the service's access token.
    pub fn token_path(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    /// Stops the service.
    pub fn stop(&self) {
        self.task.abort();
    }

    /// Starts the service again with the same address and keys.
    pub async fn restart(&mut self) {
        (_, self.task) = serve(self.addr, &self.keys).await;
    }
}

async fn serve(addr: SocketAddr, keys: &Keys) -> (SocketAddr, AbortHandle) {
    // After a stop, the address is in use for a short time.
    let listener = loop {
        if let Ok(listener) = TcpListener::bind(addr).await {
            break listener;
        }
        tokio::task::yield_now().await;
    };
    let addr = listener.local_addr().expect("an address");
    let routes = Router::new()
        .route("/v1/transit/keys/{name}", get(read_key))
        .route("/v1/transit/sign/{name}/{hash}", post(sign))
        .route("/v1/transit/hmac/{name}/{hash}", post(compute_hmac))
        .route("/v1/transit/encrypt/{name}", post(encrypt))
        .route("/v1/transit/decrypt/{name}", post(decrypt))
        .with_state(keys.clone());
    let task = tokio::spawn(async move { axum::serve(listener, routes).await.ok() });
    (addr, task.abort_handle())
}

impl KeyVersion {
    fn new(kind: &str, created: OffsetDateTime) -> Self {
        let private = match kind {
            "rsa-2048" => PrivateKey::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")),
            "ecdsa-p256" => PrivateKey::Ec(
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"),
            ),
            "ed25519" => PrivateKey::Ed(Ed25519KeyPair::generate().expect("a key")),
            "aes256-gcm96" => {
                let mut key = [0; 32];
                rand::fill(&mut key).expect("random bytes");
                PrivateKey::Aes(RandomizedNonceKey::new(&AES_256_GCM, &key).expect("a key"))
            }
            other => panic!("{other}"),
        };
        let hmac = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).expect("a key");
        Self { private, hmac, created }
    }

    fn public_key(&self) -> String {
        let pem = |der: PublicKeyX509Der| pem::encode(&pem::Pem::new("PUBLIC KEY", der.as_ref()));
        match &self.private {
            PrivateKey::Rsa(key) => pem(key.public_key().as_der().expect("DER")),
            PrivateKey::Ec(key) => pem(key.public_key().as_der().expect("DER")),
            PrivateKey::Ed(key) => BASE64_STANDARD.encode(key.public_key().as_ref()),
            PrivateKey::Aes(_) => String::new(),
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.private {
            PrivateKey::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("signed");
                signature
            }
            PrivateKey::Ec(key) => key.sign(&random, message).expect("signed").as_ref().to_vec(),
            PrivateKey::Ed(key) => key.sign(message).as_ref().to_vec(),
            PrivateKey::Aes(_) => panic!("an encryption key cannot sign"),
        }
    }
}

impl PrivateKey {
    fn aes(&self) -> &RandomizedNonceKey {
        let Self::Aes(key) = self else { panic!("a signing key cannot encrypt") };
        key
    }
}

type HttpResponse = (StatusCode, String);

fn error_response(status: StatusCode, text: &str) -> HttpResponse {
    (status, json!({ "errors": [text] }).to_string())
}

fn ok_response(data: &Value) -> HttpResponse {
    (StatusCode::OK, json!({ "request_id": "", "data": data }).to_string())
}

/// Checks the request's token and calls `respond` with the key.
fn with_key(
    keys: &Keys,
    headers: &HeaderMap,
    name: &str,
    respond: impl FnOnce(&mut Key) -> HttpResponse,
) -> HttpResponse {
    if headers.get("x-vault-token").is_none_or(|token| token != TOKEN) {
        return error_response(StatusCode::FORBIDDEN, "permission denied");
    }
    let mut keys = keys.lock().unwrap_or_else(PoisonError::into_inner);
    match keys.get_mut(name) {
        Some(key) => respond(key),
        None => error_response(StatusCode::NOT_FOUND, "no such key"),
    }
}

async fn read_key(
    State(keys): State<Keys>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> HttpResponse {
    with_key(&keys, &headers, &name, |key| {
        let versions = key.versions.range(key.min_decryption_version..).map(|(number, version)| {
            let created = version.created.format(&Rfc3339).expect("a time");
            let entry = json!({ "creation_time": created, "name": key.kind,
                "public_key": version.public_key() });
            (number.to_string(), entry)
        });
        ok_response(&json!({
            "type": key.kind,
            "latest_version": key.versions.keys().last(),
            "min_decryption_version": key.min_decryption_version,
            "min_encryption_version": 0,
            "keys": versions.collect::<serde_json::Map<_, _>>(),
            "supports_signing": true,
        }))
    })
}

/// Version number, key version, input and body of a request to sign or to compute an HMAC. `None`
/// when the request is invalid.
fn parse_request<'a>(key: &'a Key, body: &[u8]) -> Option<(u32, &'a KeyVersion, Vec<u8>, Value)> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let number = u32::try_from(body["key_version"].as_u64()?).ok()?;
    let input = BASE64_STANDARD.decode(body["input"].as_str()?).ok()?;
    Some((number, key.versions.get(&number)?, input, body))
}

async fn sign(
    State(keys): State<Keys>,
    Path((name, hash)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> HttpResponse {
    with_key(&keys, &headers, &name, |key| {
        key.sign_requests += 1;
        let Some((number, version, input, body)) = parse_request(key, &body) else {
            return error_response(StatusCode::BAD_REQUEST, "invalid request");
        };
        let is_rsa = matches!(version.private, PrivateKey::Rsa(_));
        if hash != "sha2-256" || is_rsa && body["signature_algorithm"] != "pkcs1v15" {
            return error_response(StatusCode::BAD_REQUEST, "unsupported algorithm");
        }
        let signature = version.sign(&input);
        let text = match body["marshaling_algorithm"].as_str() {
            Some("jws") => BASE64_URL_SAFE_NO_PAD.encode(signature),
            _ => BASE64_STANDARD.encode(signature),
        };
        ok_response(
            &json!({ "signature": format!("vault:v{number}:{text}"), "key_version": number }),
        )
    })
}

/// The decoded bytes of a base64 field of a request.
fn decode_field(body: &Value, field: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(body[field].as_str().unwrap_or_default()).unwrap_or_default()
}

async fn encrypt(
    State(keys): State<Keys>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> HttpResponse {
    with_key(&keys, &headers, &name, |key| {
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (number, version) = key.versions.last_key_value().expect("a version");
        let mut data = decode_field(&body, "plaintext");
        let aad = Aad::from(decode_field(&body, "associated_data"));
        let nonce = version.private.aes().seal_in_place_append_tag(aad, &mut data);
        let sealed = [nonce.expect("sealed").as_ref().as_slice(), &data].concat();
        let text = format!("vault:v{number}:{}", BASE64_STANDARD.encode(sealed));
        ok_response(&json!({ "ciphertext": text, "key_version": number }))
    })
}

async fn decrypt(
    State(keys): State<Keys>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> HttpResponse {
    with_key(&keys, &headers, &name, |key| {
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        // A closure, so that `?` stops at the first invalid part of the ciphertext.
        let plaintext = (|| {
            let rest = body["ciphertext"].as_str()?.strip_prefix("vault:v")?;
            let (number, sealed) = rest.split_once(':')?;
            let number = number.parse().ok().filter(|n| *n >= key.min_decryption_version)?;
            let sealed = BASE64_STANDARD.decode(sealed).ok()?;
            let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
            let mut text = text.to_vec();
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let aad = Aad::from(decode_field(&body, "associated_data"));
            let version = key.versions.get(&number)?;
            let text = version.private.aes().open_in_place(nonce, aad, &mut text).ok()?;
            Some(BASE64_STANDARD.encode(text))
        })();
        match plaintext {
            Some(plaintext) => ok_response(&json!({ "plaintext": plaintext })),
            None => {
                error_response(StatusCode::BAD_REQUEST, "cipher: message authentication failed")
            }
        }
    })
}

async fn compute_hmac(
    State(keys): State<Keys>,
    Path((name, _)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> HttpResponse {
    with_key(&keys, &headers, &name, |key| {
        let Some((number, version, input, _)) = parse_request(key, &body) else {
            return error_response(StatusCode::BAD_REQUEST, "invalid request");
        };
        let tag = BASE64_STANDARD.encode(hmac::sign(&version.hmac, &input));
        ok_response(&json!({ "hmac": format!("vault:v{number}:{tag}") }))
    })
}
