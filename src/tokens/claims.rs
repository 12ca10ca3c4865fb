//! The claims of tokens. `config/tokens.rs` has the lifetimes of tokens.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Clock leeway between the issuer and the verifier of a token, in seconds.
pub const LEEWAY_SECONDS: i64 = 30;

/// The kind of a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenKind {
    /// Authenticates calls (RFC 9068).
    Access,
    /// Accepted only by the method `Refresh`.
    Refresh,
}

impl TokenKind {
    /// The `typ` of the header, in its short form.
    #[must_use]
    pub fn typ(self) -> &'static str {
        match self {
            Self::Access => "at+jwt",
            Self::Refresh => "rt+jwt",
        }
    }

    /// Whether a header's `typ` stands for this kind. The `typ` is a media type, so case does not
    /// matter and the prefix `application/` is optional (RFC 7515, section 4.1.9).
    pub(super) fn matches(self, typ: &str) -> bool {
        const PREFIX: &str = "application/";
        let short = match typ.get(..PREFIX.len()) {
            Some(prefix) if prefix.eq_ignore_ascii_case(PREFIX) => &typ[PREFIX.len()..],
            _ => typ,
        };
        short.eq_ignore_ascii_case(self.typ())
    }

    /// The value of `token_type` in an introspection response.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Access => "access_token",
            Self::Refresh => "refresh_token",
        }
    }
}

/// The kind of a token's subject.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectType {
    /// A person.
    #[default]
    User,
    /// A program.
    ServiceAccount,
}

impl SubjectType {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    fn is_user(&self) -> bool {
        *self == Self::User
    }

    /// The value of a token's claim `sub_type`, and of the column in Postgres.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::ServiceAccount => "service_account",
        }
    }
}

/// The claims of a token (RFC 7519, section 4.1). All claims are required, except `sub_type` and
/// `roles`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// The issuer.
    pub iss: String,
    /// The audience. Access and refresh tokens have different audiences.
    pub aud: String,
    /// The id of the user or service account.
    pub sub: Uuid,
    /// The kind of the subject. A user's token omits the claim.
    #[serde(default, skip_serializing_if = "SubjectType::is_user")]
    pub sub_type: SubjectType,
    /// The subject's tenant.
    pub org: Uuid,
    /// The names of the subject's roles at the time of issue. Only access tokens contain role
    /// names, as information for other services. Decisions never use these names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The session; for a service account, the API key.
    pub sid: Uuid,
    /// The id of the token.
    pub jti: String,
    /// Time of issue, in seconds since 1970.
    pub iat: i64,
    /// Start of the validity, in seconds since 1970.
    pub nbf: i64,
    /// Expiry, in seconds since 1970. No token outlasts its session or its API key.
    pub exp: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typ_is_compared_as_a_media_type() {
        for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
            assert!(TokenKind::Access.matches(typ), "{typ}");
        }
        for typ in ["JWT", "rt+jwt", "", "application/", "applicationat+jwt", "ät+jwt"] {
            assert!(!TokenKind::Access.matches(typ), "{typ}");
        }
    }
}
