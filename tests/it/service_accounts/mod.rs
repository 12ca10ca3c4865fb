//! Service accounts, which sign in without a user.

mod accounts;
mod assertion;
mod bearer;
mod exchange;
mod keys;

use tenantry::proto::v1::{ExchangeApiKeyRequest, exchange_api_key_request::Credential};

/// A request with the secret of an API key.
pub fn secret_request(secret: &str) -> ExchangeApiKeyRequest {
    let credential = Some(Credential::ApiKey(secret.into()));
    ExchangeApiKeyRequest { credential, ..Default::default() }
}

/// A request with a signed assertion.
pub fn assertion_request(jwt: String) -> ExchangeApiKeyRequest {
    let credential = Some(Credential::ClientAssertion(jwt));
    ExchangeApiKeyRequest { credential, ..Default::default() }
}
