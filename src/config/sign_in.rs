//! Settings of sign-ins.

use std::str::FromStr;

/// The email addresses that a sign-in or a password reset looks up if the call names no tenant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TenantlessSignIn {
    /// Only verified addresses.
    #[default]
    Verified,
    /// All addresses. Verified addresses come before unverified addresses.
    Any,
    /// No address: each sign-in must name its tenant.
    Off,
}

impl FromStr for TenantlessSignIn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "verified" => Ok(Self::Verified),
            "any" => Ok(Self::Any),
            "off" => Ok(Self::Off),
            _ => Err("must be verified, any or off".to_owned()),
        }
    }
}
