//! How users sign in.

use std::str::FromStr;

/// Which email addresses count where a sign-in or a password reset names no tenant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TenantlessSignIn {
    /// Verified addresses only.
    #[default]
    Verified,
    /// All addresses; verified ones come before others.
    Any,
    /// None: each sign-in must name its tenant.
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
