//! Client certificates with which service accounts sign in (RFC 8705, section 2).

use rcgen::{CertificateParams, KeyPair, SanType};
use tenantry::proto::v1::{
    CreateApiKeyRequest, ExchangeApiKeyRequest, WhoAmIRequest, create_api_key_request::Credential,
};
use tonic::{Code, Response, Status};

use super::{Authority, Files, Signed, channel};
use crate::harness::{Client, TestApp, refused};

const SPIFFE: &str = "spiffe://example.org/billing";

impl Authority {
    fn sign_uri(&self, uri: &str) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("names");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("a URI"))];
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        Signed { cert: cert.pem(), key: key.serialize_pem() }
    }
}

async fn map(admin: &Client, account: &str, name: &str) -> Result<(), Status> {
    let request = CreateApiKeyRequest {
        service_account_id: account.into(),
        credential: Some(Credential::CertificateName(name.into())),
        ..CreateApiKeyRequest::default()
    };
    admin.service_accounts().create_api_key(request).await.map(drop)
}

#[tokio::test]
async fn a_client_certificate_signs_in_its_service_account() {
    let (authority, of_clients) = (Authority::new(), Authority::new());
    let files = Files::of(&authority);
    let app = TestApp::with(|values| files.set_with_clients(values, &of_clients)).await;
    let on = |signed: &Signed| Client::anonymous(channel(&app, &authority, Some(signed)));
    let (host, uri) = (of_clients.sign("Billing.internal"), of_clients.sign_uri(SPIFFE));
    let acme = on(&host).sign_up_tenant("acme").await;
    let other = on(&host).sign_up_tenant("other").await;
    let by_host = acme.create_service_account("by host", &[]).await;
    let by_uri = acme.create_service_account("by URI", &[]).await;
    map(&acme, &by_host, "billing.internal").await.expect("a key");
    map(&acme, &by_uri, SPIFFE).await.expect("a key");
    let again = map(&acme, &by_uri, "BILLING.internal").await.map(Response::new);
    refused(again, Code::AlreadyExists, "CERTIFICATE_NAME_TAKEN");

    for (signed, id) in [(&host, &by_host), (&uri, &by_uri)] {
        let client = on(signed).with("x-tenant-id", "acme");
        let reply = client.auth().exchange_api_key(ExchangeApiKeyRequest::default()).await;
        let token = reply.expect("a token").into_inner().access_token;
        let itself = on(signed).with_token(&token);
        let me = itself.auth().who_am_i(WhoAmIRequest {}).await.expect("itself").into_inner();
        assert_eq!(&me.service_account.expect("the account").id, id);
    }
    for client in [
        on(&of_clients.sign("shipping.internal")).with("x-tenant-id", "acme"),
        on(&of_clients.sign_uri("spiffe://example.org/billing/x")).with("x-tenant-id", "acme"),
        on(&host).with("x-tenant-id", &other.tenant_id),
        on(&host).with("x-tenant-id", "nowhere"),
    ] {
        let reply = client.auth().exchange_api_key(ExchangeApiKeyRequest::default()).await;
        refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
    let reply = on(&host).auth().exchange_api_key(ExchangeApiKeyRequest::default()).await;
    refused(reply, Code::InvalidArgument, "TENANT_REQUIRED");
    // A certificate alone does not authenticate a call, because one connection may carry calls
    // of several callers.
    let bare = on(&host).with("x-tenant-id", "acme").auth().who_am_i(WhoAmIRequest {}).await;
    refused(bare, Code::Unauthenticated, "TOKEN_MISSING");
}

/// N11: a caller that may create keys can assign another name of the same certificate to
/// another account. An account that is named in the request still signs in, and never as the
/// other account.
#[tokio::test]
async fn a_certificate_with_several_names_signs_in_the_named_account() {
    let (authority, of_clients) = (Authority::new(), Authority::new());
    let files = Files::of(&authority);
    let app = TestApp::with(|values| files.set_with_clients(values, &of_clients)).await;
    let signed = of_clients.sign_all(&["billing.svc", "billing.internal"]);
    let client = Client::anonymous(channel(&app, &authority, Some(&signed)));
    let acme = client.sign_up_tenant("acme").await;
    let client = client.with("x-tenant-id", "acme");
    let exchange = async |account: &str| {
        let service_account_id = account.to_owned();
        let request = ExchangeApiKeyRequest { service_account_id, ..Default::default() };
        client.auth().exchange_api_key(request).await
    };
    let billing = acme.create_service_account("billing", &[]).await;
    map(&acme, &billing, "billing.svc").await.expect("a key");
    exchange("").await.expect("only one account matches");

    let other = acme.create_service_account("other", &[]).await;
    map(&acme, &other, "billing.internal").await.expect("a key");
    refused(exchange("").await, Code::Unauthenticated, "INVALID_CREDENTIALS");
    for account in [&billing, &other] {
        let token = exchange(account).await.expect("a token").into_inner().access_token;
        let itself = acme.with_token(&token);
        let me = itself.auth().who_am_i(WhoAmIRequest {}).await.expect("itself").into_inner();
        assert_eq!(&me.service_account.expect("the account").id, account);
    }
    let third = acme.create_service_account("third", &[]).await;
    refused(exchange(&third).await, Code::Unauthenticated, "INVALID_CREDENTIALS");
    refused(exchange("billing").await, Code::InvalidArgument, "INVALID_FIELDS");
}
