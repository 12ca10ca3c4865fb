//! Client certificates with which service accounts sign in (RFC 8705, section 2).

use rcgen::{CertificateParams, KeyPair, SanType};
use tenantry::proto::v1::{
    CreateApiKeyRequest, ExchangeApiKeyRequest, WhoAmIRequest, create_api_key_request::Credential,
};
use tonic::{Code, Response, Status};

use super::{Authority, CertificateAndKey, Files, channel};
use crate::harness::{Client, TestApp, assert_refused};

const SPIFFE: &str = "spiffe://example.org/billing";

impl Authority {
    /// Creates a certificate for this URI.
    fn sign_uri(&self, uri: &str) -> CertificateAndKey {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("names");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("a URI"))];
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        CertificateAndKey { cert: cert.pem(), key: key.serialize_pem() }
    }
}

/// Creates an API key that accepts client certificates with this name.
async fn create_certificate_key(admin: &Client, account: &str, name: &str) -> Result<(), Status> {
    let request = CreateApiKeyRequest {
        service_account_id: account.into(),
        credential: Some(Credential::CertificateName(name.into())),
        ..CreateApiKeyRequest::default()
    };
    admin.service_accounts().create_api_key(request).await.map(drop)
}

#[tokio::test]
async fn a_client_certificate_signs_in_its_service_account() {
    let (authority, client_authority) = (Authority::new(), Authority::new());
    let files = Files::create(&authority);
    let app =
        TestApp::with_settings(|values| files.set_with_clients(values, &client_authority)).await;
    let client_with = |certificate: &CertificateAndKey| {
        Client::anonymous(channel(&app, &authority, Some(certificate)))
    };
    let (host_certificate, uri_certificate) =
        (client_authority.sign("Billing.internal"), client_authority.sign_uri(SPIFFE));
    let acme = client_with(&host_certificate).sign_up_tenant("acme").await;
    let other = client_with(&host_certificate).sign_up_tenant("other").await;
    let host_account = acme.create_service_account("by host", &[]).await;
    let uri_account = acme.create_service_account("by URI", &[]).await;
    create_certificate_key(&acme, &host_account, "billing.internal").await.expect("a key");
    create_certificate_key(&acme, &uri_account, SPIFFE).await.expect("a key");
    let result =
        create_certificate_key(&acme, &uri_account, "BILLING.internal").await.map(Response::new);
    assert_refused(result, Code::AlreadyExists, "CERTIFICATE_NAME_TAKEN");

    for (certificate, id) in [(&host_certificate, &host_account), (&uri_certificate, &uri_account)]
    {
        let client = client_with(certificate).with_metadata("x-tenant-id", "acme");
        let reply = client.auth().exchange_api_key(ExchangeApiKeyRequest::default()).await;
        let token = reply.expect("a token").into_inner().access_token;
        let account_client = client_with(certificate).with_token(&token);
        let me = account_client.identity().await;
        assert_eq!(&me.service_account.expect("the account").id, id);
    }
    for client in [
        client_with(&client_authority.sign("shipping.internal"))
            .with_metadata("x-tenant-id", "acme"),
        client_with(&client_authority.sign_uri("spiffe://example.org/billing/x"))
            .with_metadata("x-tenant-id", "acme"),
        client_with(&host_certificate).with_metadata("x-tenant-id", &other.tenant_id),
        client_with(&host_certificate).with_metadata("x-tenant-id", "nowhere"),
    ] {
        let reply = client.auth().exchange_api_key(ExchangeApiKeyRequest::default()).await;
        assert_refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
    let reply = client_with(&host_certificate)
        .auth()
        .exchange_api_key(ExchangeApiKeyRequest::default())
        .await;
    assert_refused(reply, Code::InvalidArgument, "TENANT_REQUIRED");
    // A certificate alone does not authenticate a call, because one connection may carry calls
    // of several callers.
    let result = client_with(&host_certificate)
        .with_metadata("x-tenant-id", "acme")
        .auth()
        .who_am_i(WhoAmIRequest {})
        .await;
    assert_refused(result, Code::Unauthenticated, "TOKEN_MISSING");
}

/// N11: a caller that may create keys can register another name of the same certificate for another
/// account. Then a request must name the account, and each account can sign in only as itself.
#[tokio::test]
async fn a_certificate_with_several_names_signs_in_the_named_account() {
    let (authority, client_authority) = (Authority::new(), Authority::new());
    let files = Files::create(&authority);
    let app =
        TestApp::with_settings(|values| files.set_with_clients(values, &client_authority)).await;
    let certificate = client_authority.sign_all(&["billing.svc", "billing.internal"]);
    let client = Client::anonymous(channel(&app, &authority, Some(&certificate)));
    let acme = client.sign_up_tenant("acme").await;
    let client = client.with_metadata("x-tenant-id", "acme");
    let exchange = async |account: &str| {
        let service_account_id = account.to_owned();
        let request = ExchangeApiKeyRequest { service_account_id, ..Default::default() };
        client.auth().exchange_api_key(request).await
    };
    let billing = acme.create_service_account("billing", &[]).await;
    create_certificate_key(&acme, &billing, "billing.svc").await.expect("a key");
    exchange("").await.expect("only one account matches");

    let other = acme.create_service_account("other", &[]).await;
    create_certificate_key(&acme, &other, "billing.internal").await.expect("a key");
    assert_refused(exchange("").await, Code::Unauthenticated, "INVALID_CREDENTIALS");
    for account in [&billing, &other] {
        let token = exchange(account).await.expect("a token").into_inner().access_token;
        let account_client = acme.with_token(&token);
        let me = account_client.identity().await;
        assert_eq!(&me.service_account.expect("the account").id, account);
    }
    let third_account = acme.create_service_account("third", &[]).await;
    assert_refused(exchange(&third_account).await, Code::Unauthenticated, "INVALID_CREDENTIALS");
    assert_refused(exchange("billing").await, Code::InvalidArgument, "INVALID_FIELDS");
}
