//! Credentials: passwords of users and API keys of service accounts.

pub mod api_keys;
pub mod current_password;
pub mod password;

use crate::{error::Error, proto::v1::ErrorReason};

/// The error of a failed sign-in: UNAUTHENTICATED, with the same text for every reason.
pub fn invalid_credentials() -> Error {
    Error::refused(ErrorReason::InvalidCredentials, "the credentials are not valid")
}
