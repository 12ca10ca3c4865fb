//! Credentials: passwords of users and API keys of service accounts.

pub mod api_keys;
pub mod current_password;
pub mod password;

use crate::{error::Error, proto::v1::ErrorReason};

/// UNAUTHENTICATED, the same for every reason for which a sign-in fails.
pub fn invalid_credentials() -> Error {
    Error::refused(ErrorReason::InvalidCredentials, "the credentials are not valid")
}
