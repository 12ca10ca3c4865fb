//! What a token says.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How far the clocks of a token's maker and reader may be apart, in seconds.
pub const LEEWAY_SECONDS: i64 = 30;

/// Which of the two tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenKind {
    /// For calls (RFC 9068).
    Access,
    /// For Refresh alone.
    Refresh,
}

impl TokenKind {
    /// The header's `typ`, in its short form.
    #[must_use]
    pub fn typ(self) -> &'static str {
        match self {
            Self::Access => "at+jwt",
            Self::Refresh => "rt+jwt",
        }
    }

    /// Whether a header's `typ` names this kind: a media type, so in any case
    /// and with or without `application/` (RFC 7515, 4.1.9).
    pub(super) fn matches(self, typ: &str) -> bool {
        const PREFIX: &str = "application/";
        let short = match typ.get(..PREFIX.len()) {
            Some(prefix) if prefix.eq_ignore_ascii_case(PREFIX) => &typ[PREFIX.len()..],
            _ => typ,
        };
        short.eq_ignore_ascii_case(self.typ())
    }

    /// The name in an introspection's `token_type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Access => "access_token",
            Self::Refresh => "refresh_token",
        }
    }
}

/// What kind of subject a token is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectType {
    /// A person.
    #[default]
    User,
    /// What signs in by itself.
    ServiceAccount,
}

impl SubjectType {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    fn is_user(&self) -> bool {
        *self == Self::User
    }

    /// The name in a token's `sub_type`, and in Postgres.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::ServiceAccount => "service_account",
        }
    }
}

/// The claims of a token (RFC 7519, 4.1), all required but `roles`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// Who made it.
    pub iss: String,
    /// Whom it is for; differs between the kinds.
    pub aud: String,
    /// The subject.
    pub sub: Uuid,
    /// What kind of subject that is; a user's tokens don't say it.
    #[serde(default, skip_serializing_if = "SubjectType::is_user")]
    pub sub_type: SubjectType,
    /// The subject's tenant.
    pub org: Uuid,
    /// The names of the subject's roles when it was made; in access tokens only,
    /// for readers' convenience. Decisions never rely on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The session; a service account's API key.
    pub sid: Uuid,
    /// The token's own id.
    pub jti: String,
    /// When it was made, in seconds since 1970.
    pub iat: i64,
    /// From when it counts, in seconds since 1970.
    pub nbf: i64,
    /// When it ends, in seconds since 1970.
    pub exp: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typ_is_a_media_type() {
        for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
            assert!(TokenKind::Access.matches(typ), "{typ}");
        }
        for typ in ["JWT", "rt+jwt", "", "application/", "applicationat+jwt", "ät+jwt"] {
            assert!(!TokenKind::Access.matches(typ), "{typ}");
        }
    }
}
