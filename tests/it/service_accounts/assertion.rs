//! Assertions that a service account signs with its own key (RFC 7523).

use std::sync::LazyLock;

use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData};
use serde_json::{Value, json};
use tenantry::{
    clock,
    proto::v1::{CreateApiKeyRequest, create_api_key_request::Credential},
};
use tonic::Code;

use super::assertion_request;
use crate::harness::{Client, Cluster, TestApp, assert_refused, unknown_id};

/// A key pair of a service account.
struct AccountKey {
    algorithm: Algorithm,
    public_pem: String,
    private_key: EncodingKey,
}

impl AccountKey {
    fn ec() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let private_key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a key");
        Self { algorithm: Algorithm::ES256, public_pem: encode_public_key(&pair), private_key }
    }

    fn ed() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let private_key = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).expect("a key");
        Self { algorithm: Algorithm::EdDSA, public_pem: encode_public_key(&pair), private_key }
    }

    /// The keys of the test cluster, because generating RSA keys is slow.
    fn rsa() -> Self {
        let keys = &Cluster::get().keys;
        let private_pem = std::fs::read(&keys.refresh_private).expect("a file");
        Self {
            algorithm: Algorithm::RS256,
            public_pem: std::fs::read_to_string(&keys.refresh_public).expect("a file"),
            private_key: EncodingKey::from_rsa_pem(&private_pem).expect("a key"),
        }
    }
}

fn encode_public_key(pair: &KeyPair) -> String {
    pem::encode(&pem::Pem::new("PUBLIC KEY", pair.subject_public_key_info()))
}

/// A service account with a key pair.
struct Account {
    id: String,
    key_id: String,
    key: AccountKey,
    /// A client without a token. Its metadata contains the tenant.
    anonymous: Client,
}

impl Account {
    async fn create(app: &TestApp, acme: &Client, name: &str, key: AccountKey) -> Self {
        let id = acme.create_service_account(name, &[]).await;
        let request = CreateApiKeyRequest {
            service_account_id: id.clone(),
            credential: Some(Credential::PublicKey(key.public_pem.clone())),
            ..CreateApiKeyRequest::default()
        };
        let reply = acme.service_accounts().create_api_key(request).await.expect("a key");
        let response = reply.into_inner();
        assert_eq!(response.secret, "");
        let api_key = response.api_key.expect("a key");
        assert_eq!(api_key.public_key, key.public_pem);
        let anonymous = app.anonymous().with_metadata("x-tenant-id", &acme.tenant_id);
        Self { id, key_id: api_key.id, key, anonymous }
    }

    fn header(&self) -> Header {
        Header { kid: Some(self.key_id.clone()), ..Header::new(self.key.algorithm) }
    }

    fn claims(&self) -> Value {
        let now = clock::now().unix_timestamp();
        json!({
            "iss": self.id, "sub": self.id, "aud": "tenantry", "jti": unknown_id(),
            "iat": now, "exp": now + 60,
        })
    }

    fn sign(&self, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &self.key.private_key).expect("an assertion")
    }

    /// Asserts that an exchange of this assertion is refused.
    async fn assert_refused(&self, what: &str, jwt: String) {
        println!("{what}");
        let reply = self.anonymous.auth().exchange_api_key(assertion_request(jwt)).await;
        assert_refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
}

#[tokio::test]
async fn an_assertion_with_any_kind_of_key_works_once() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    for (name, key) in
        [("ec", AccountKey::ec()), ("ed", AccountKey::ed()), ("rsa", AccountKey::rsa())]
    {
        let account = Account::create(&app, &acme, name, key).await;
        let jwt = account.sign(&account.header(), &account.claims());
        let reply = account.anonymous.auth().exchange_api_key(assertion_request(jwt.clone())).await;
        let token = reply.expect("a token").into_inner().access_token;
        let account_client = app.anonymous().with_token(&token);
        let me = account_client.identity().await;
        assert_eq!(me.service_account.expect("the account").id, account.id);
        assert_eq!(me.session_id, account.key_id);
        account.assert_refused("a repeated assertion", jwt).await;
    }
    assert_eq!(app.audit_event_count(&acme.tenant_id, "sign_in_failed").await, 3);
}

/// Of many concurrent calls with the same assertion, one gets a token.
#[tokio::test]
async fn an_assertion_that_is_sent_concurrently_works_once() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let account = Account::create(&app, &acme, "ec", AccountKey::ec()).await;
    let jwt = account.sign(&account.header(), &account.claims());
    let calls = (0..20).map(|_| {
        let (mut auth, jwt) = (account.anonymous.auth(), jwt.clone());
        async move { auth.exchange_api_key(assertion_request(jwt)).await }
    });
    let replies = futures::future::join_all(calls).await;
    assert_eq!(replies.iter().filter(|reply| reply.is_ok()).count(), 1);
}

#[tokio::test]
async fn an_assertion_with_one_wrong_claim_is_refused() {
    static WRONG_CLAIMS: LazyLock<Vec<(&str, Value)>> = LazyLock::new(|| {
        let now = clock::now().unix_timestamp();
        vec![
            ("another audience", json!({ "aud": "somebody-else" })),
            ("no audience", json!({ "aud": null })),
            ("another issuer", json!({ "iss": unknown_id() })),
            ("another subject", json!({ "sub": unknown_id() })),
            ("no subject", json!({ "sub": null })),
            ("no token id", json!({ "jti": null })),
            ("an empty token id", json!({ "jti": "" })),
            ("no expiry", json!({ "exp": null })),
            ("expired", json!({ "exp": now - 60 })),
            ("too long a lifetime", json!({ "exp": now + 600 })),
            ("not valid yet", json!({ "nbf": now + 120 })),
            ("a text instead of a time", json!({ "exp": "9999999999" })),
        ]
    });
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let account = Account::create(&app, &acme, "ec", AccountKey::ec()).await;
    for (what, changes) in WRONG_CLAIMS.iter() {
        let mut claims = account.claims();
        let object = claims.as_object_mut().expect("an object");
        for (name, value) in changes.as_object().expect("an object") {
            match value {
                Value::Null => object.remove(name),
                value => object.insert(name.clone(), value.clone()),
            };
        }
        account.assert_refused(what, account.sign(&account.header(), &claims)).await;
    }
    let valid_assertion = account.sign(&account.header(), &account.claims());
    account
        .anonymous
        .auth()
        .exchange_api_key(assertion_request(valid_assertion))
        .await
        .expect("the unchanged claims are valid");
}

/// A01: an assertion without a signature is refused.
/// A02: the public key of the account is not an HMAC secret.
/// A08: a key in the header is not used.
/// A09: the `kid` selects only among the keys of the account.
#[tokio::test]
async fn an_assertion_with_another_key_is_refused() {
    let app = TestApp::shared();
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let account = Account::create(&app, &acme, "ec", AccountKey::ec()).await;
    let other_account = Account::create(&app, &acme, "other", AccountKey::ec()).await;
    let account_of_other_tenant = Account::create(&app, &other, "ec", AccountKey::ec()).await;

    let signed_by_other = other_account.sign(&account.header(), &account.claims());
    account.assert_refused("another account's signature", signed_by_other).await;
    let header_of_other = Header { kid: Some(other_account.key_id.clone()), ..account.header() };
    account
        .assert_refused(
            "another account's key id",
            account.sign(&header_of_other, &account.claims()),
        )
        .await;
    account
        .assert_refused(
            "another account's key id and signature",
            other_account.sign(&header_of_other, &account.claims()),
        )
        .await;
    account
        .assert_refused(
            "an account of another tenant",
            account_of_other_tenant
                .sign(&account_of_other_tenant.header(), &account_of_other_tenant.claims()),
        )
        .await;
    let jwk =
        Jwk::from_encoding_key(&other_account.key.private_key, Algorithm::ES256).expect("a key");
    let header_with_key = Header { jwk: Some(jwk), ..account.header() };
    account
        .assert_refused(
            "a key in the header",
            other_account.sign(&header_with_key, &account.claims()),
        )
        .await;
    for kid in [None, Some("../../dev/null".to_owned()), Some(unknown_id())] {
        let header = Header { kid, ..account.header() };
        account.assert_refused("an unknown key id", account.sign(&header, &account.claims())).await;
    }
    let header = Header { kid: Some(account.key_id.clone()), ..Header::new(Algorithm::HS256) };
    let public_key_as_secret = EncodingKey::from_secret(account.key.public_pem.as_bytes());
    let signed_with_public_key =
        jsonwebtoken::encode(&header, &account.claims(), &public_key_as_secret).expect("a token");
    account.assert_refused("the public key as a secret", signed_with_public_key).await;
    let valid_assertion = account.sign(&account.header(), &account.claims());
    let (_, rest) = valid_assertion.split_once('.').expect("a header");
    let (claims, _) = rest.rsplit_once('.').expect("a signature");
    let unsigned_header = crate::harness::Forge::unsigned(
        &format!(r#"{{"alg":"none","kid":"{}"}}"#, account.key_id),
        "",
    );
    account.assert_refused("no signature", format!("{unsigned_header}{claims}.")).await;
    account.assert_refused("not a token", "x".into()).await;
}

#[tokio::test]
async fn an_assertion_requires_a_tenant() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let account = Account::create(&app, &acme, "ec", AccountKey::ec()).await;
    let new_assertion = || account.sign(&account.header(), &account.claims());
    let result = app.anonymous().auth().exchange_api_key(assertion_request(new_assertion())).await;
    assert_refused(result, Code::InvalidArgument, "TENANT_REQUIRED");
    let client = app.anonymous().with_metadata("x-tenant-id", "nowhere");
    let result = client.auth().exchange_api_key(assertion_request(new_assertion())).await;
    assert_refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
}
