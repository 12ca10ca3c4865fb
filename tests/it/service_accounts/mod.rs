//! Service accounts: what signs in by itself.

mod accounts;
mod assertion;
mod bearer;
mod exchange;
mod keys;

use tenantry::proto::v1::{ExchangeApiKeyRequest, exchange_api_key_request::Credential};

/// A request with an API key's secret.
pub fn by_secret(secret: &str) -> ExchangeApiKeyRequest {
    let credential = Some(Credential::ApiKey(secret.into()));
    ExchangeApiKeyRequest { credential, ..Default::default() }
}

/// A request with a signed assertion.
pub fn by_assertion(jwt: String) -> ExchangeApiKeyRequest {
    let credential = Some(Credential::ClientAssertion(jwt));
    ExchangeApiKeyRequest { credential, ..Default::default() }
}
