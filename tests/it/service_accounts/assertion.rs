//! Assertions that an account signs with its own key (RFC 7523).

use std::sync::LazyLock;

use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData};
use serde_json::{Value, json};
use tenantry::{
    clock,
    proto::v1::{CreateApiKeyRequest, WhoAmIRequest, create_api_key_request::Credential},
};
use tonic::Code;

use super::by_assertion;
use crate::harness::{Client, Cluster, TestApp, refused, unknown_id};

/// A key pair of an account.
struct Own {
    algorithm: Algorithm,
    public: String,
    private: EncodingKey,
}

impl Own {
    fn ec() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let private = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a key");
        Self { algorithm: Algorithm::ES256, public: public_pem(&pair), private }
    }

    fn ed() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let private = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).expect("a key");
        Self { algorithm: Algorithm::EdDSA, public: public_pem(&pair), private }
    }

    /// The keys of the test cluster, because generating RSA keys is slow.
    fn rsa() -> Self {
        let keys = &Cluster::get().keys;
        let private = std::fs::read(&keys.refresh_private).expect("a file");
        Self {
            algorithm: Algorithm::RS256,
            public: std::fs::read_to_string(&keys.refresh_public).expect("a file"),
            private: EncodingKey::from_rsa_pem(&private).expect("a key"),
        }
    }
}

fn public_pem(pair: &KeyPair) -> String {
    pem::encode(&pem::Pem::new("PUBLIC KEY", pair.subject_public_key_info()))
}

/// A service account with a key pair.
struct Account {
    id: String,
    key_id: String,
    own: Own,
    /// A client without a token that names the tenant.
    nobody: Client,
}

impl Account {
    async fn with(app: &TestApp, acme: &Client, name: &str, own: Own) -> Self {
        let id = acme.create_service_account(name, &[]).await;
        let request = CreateApiKeyRequest {
            service_account_id: id.clone(),
            credential: Some(Credential::PublicKey(own.public.clone())),
            ..CreateApiKeyRequest::default()
        };
        let made = acme.service_accounts().create_api_key(request).await.expect("a key");
        let made = made.into_inner();
        assert_eq!(made.secret, "");
        let key = made.api_key.expect("a key");
        assert_eq!(key.public_key, own.public);
        let nobody = app.anonymous().with("x-tenant-id", &acme.tenant_id);
        Self { id, key_id: key.id, own, nobody }
    }

    fn header(&self) -> Header {
        Header { kid: Some(self.key_id.clone()), ..Header::new(self.own.algorithm) }
    }

    fn claims(&self) -> Value {
        let now = clock::now().unix_timestamp();
        json!({
            "iss": self.id, "sub": self.id, "aud": "tenantry", "jti": unknown_id(),
            "iat": now, "exp": now + 60,
        })
    }

    fn sign(&self, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &self.own.private).expect("an assertion")
    }

    async fn refused(&self, what: &str, jwt: String) {
        println!("{what}");
        let reply = self.nobody.auth().exchange_api_key(by_assertion(jwt)).await;
        refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
}

#[tokio::test]
async fn an_assertion_with_any_kind_of_key_works_once() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    for (name, own) in [("ec", Own::ec()), ("ed", Own::ed()), ("rsa", Own::rsa())] {
        let account = Account::with(&app, &acme, name, own).await;
        let jwt = account.sign(&account.header(), &account.claims());
        let reply = account.nobody.auth().exchange_api_key(by_assertion(jwt.clone())).await;
        let token = reply.expect("a token").into_inner().access_token;
        let itself = app.anonymous().with_token(&token);
        let me = itself.auth().who_am_i(WhoAmIRequest {}).await.expect("itself").into_inner();
        assert_eq!(me.service_account.expect("the account").id, account.id);
        assert_eq!(me.session_id, account.key_id);
        account.refused("again", jwt).await;
    }
    assert_eq!(app.audited(&acme.tenant_id, "sign_in_failed").await, 3);
}

/// Of many concurrent calls with the same assertion, one gets a token.
#[tokio::test]
async fn an_assertion_works_once_even_when_sent_concurrently() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let account = Account::with(&app, &acme, "ec", Own::ec()).await;
    let jwt = account.sign(&account.header(), &account.claims());
    let tried = (0..20).map(|_| {
        let (mut auth, jwt) = (account.nobody.auth(), jwt.clone());
        async move { auth.exchange_api_key(by_assertion(jwt)).await }
    });
    let replies = futures::future::join_all(tried).await;
    assert_eq!(replies.iter().filter(|reply| reply.is_ok()).count(), 1);
}

#[tokio::test]
async fn an_assertion_with_one_wrong_claim_is_refused() {
    static BAD: LazyLock<Vec<(&str, Value)>> = LazyLock::new(|| {
        let now = clock::now().unix_timestamp();
        vec![
            ("another audience", json!({ "aud": "somebody-else" })),
            ("no audience", json!({ "aud": null })),
            ("another issuer", json!({ "iss": unknown_id() })),
            ("another subject", json!({ "sub": unknown_id() })),
            ("no subject", json!({ "sub": null })),
            ("no id", json!({ "jti": null })),
            ("an empty id", json!({ "jti": "" })),
            ("no end", json!({ "exp": null })),
            ("expired", json!({ "exp": now - 60 })),
            ("too long", json!({ "exp": now + 600 })),
            ("not yet", json!({ "nbf": now + 120 })),
            ("a text for a time", json!({ "exp": "9999999999" })),
        ]
    });
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let account = Account::with(&app, &acme, "ec", Own::ec()).await;
    for (what, changes) in BAD.iter() {
        let mut claims = account.claims();
        let object = claims.as_object_mut().expect("an object");
        for (name, value) in changes.as_object().expect("an object") {
            match value {
                Value::Null => object.remove(name),
                value => object.insert(name.clone(), value.clone()),
            };
        }
        account.refused(what, account.sign(&account.header(), &claims)).await;
    }
    let good = account.sign(&account.header(), &account.claims());
    account.nobody.auth().exchange_api_key(by_assertion(good)).await.expect("the rest is right");
}

/// A01, A02, A08 and A09 for assertions.
#[tokio::test]
async fn an_assertion_with_another_key_is_refused() {
    let app = TestApp::shared();
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let account = Account::with(&app, &acme, "ec", Own::ec()).await;
    let second_replica = Account::with(&app, &acme, "twin", Own::ec()).await;
    let foreign = Account::with(&app, &other, "ec", Own::ec()).await;

    let by_twin = second_replica.sign(&account.header(), &account.claims());
    account.refused("another's signature", by_twin).await;
    let named_twin = Header { kid: Some(second_replica.key_id.clone()), ..account.header() };
    account.refused("another's key", account.sign(&named_twin, &account.claims())).await;
    account.refused("another's whole", second_replica.sign(&named_twin, &account.claims())).await;
    account.refused("another tenant's", foreign.sign(&foreign.header(), &foreign.claims())).await;
    let jwk = Jwk::from_encoding_key(&second_replica.own.private, Algorithm::ES256).expect("a key");
    let brings = Header { jwk: Some(jwk), ..account.header() };
    account.refused("a key of its own", second_replica.sign(&brings, &account.claims())).await;
    for kid in [None, Some("../../dev/null".to_owned()), Some(unknown_id())] {
        let header = Header { kid, ..account.header() };
        account.refused("an unknown key", account.sign(&header, &account.claims())).await;
    }
    let header = Header { kid: Some(account.key_id.clone()), ..Header::new(Algorithm::HS256) };
    let public = EncodingKey::from_secret(account.own.public.as_bytes());
    let confused = jsonwebtoken::encode(&header, &account.claims(), &public).expect("a token");
    account.refused("the public key as a secret", confused).await;
    let good = account.sign(&account.header(), &account.claims());
    let (_, rest) = good.split_once('.').expect("a header");
    let (claims, _) = rest.rsplit_once('.').expect("a signature");
    let none = crate::harness::Forge::unsigned(
        &format!(r#"{{"alg":"none","kid":"{}"}}"#, account.key_id),
        "",
    );
    account.refused("no signature", format!("{none}{claims}.")).await;
    account.refused("no token", "x".into()).await;
}

#[tokio::test]
async fn an_assertion_requires_a_tenant() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let account = Account::with(&app, &acme, "ec", Own::ec()).await;
    let jwt = || account.sign(&account.header(), &account.claims());
    let nowhere = app.anonymous().auth().exchange_api_key(by_assertion(jwt())).await;
    refused(nowhere, Code::InvalidArgument, "TENANT_REQUIRED");
    let unknown = app.anonymous().with("x-tenant-id", "nowhere");
    let unknown = unknown.auth().exchange_api_key(by_assertion(jwt())).await;
    refused(unknown, Code::Unauthenticated, "INVALID_CREDENTIALS");
}
