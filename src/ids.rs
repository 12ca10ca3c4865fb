//! Typed identifiers: an id of one kind can't be used as an id of another kind.
//!
//! All ids are UUIDv7 (RFC 9562). They are ordered by creation time, so that new primary keys are
//! inserted at the end of the index. Never use an id as a secret: 74 random bits are too few.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize, sqlx::Type,
        )]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Creates a new, unique id.
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    };
}

impl TenantId {
    /// The id that metrics, rate limits and audit events contain instead of the id of a tenant that
    /// does not exist.
    pub const UNKNOWN: Self = Self(Uuid::nil());
}

/// Implements parsing for the ids that requests contain.
macro_rules! request_ids {
    ($($name:ident),*) => {$(
        impl $name {
            /// Parses an id from a field of a request. The field's rules already require a UUID.
            ///
            /// # Errors
            /// Returns INVALID_ARGUMENT for `field` when the text is not a UUID.
            pub(crate) fn parse(field: &str, text: &str) -> Result<Self, Error> {
                Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| Error::field(field, "must be a UUID"))
            }
        }
    )*};
}

/// Implements parsing for the ids that requests may leave empty.
macro_rules! optional_request_ids {
    ($($name:ident),*) => {$(
        impl $name {
            /// Parses an id that may be empty.
            ///
            /// # Errors
            /// Returns INVALID_ARGUMENT for `field` when the text is not a UUID.
            pub(crate) fn parse_optional(field: &str, text: &str) -> Result<Option<Self>, Error> {
                if text.is_empty() { Ok(None) } else { Self::parse(field, text).map(Some) }
            }
        }
    )*};
}

id!(
    /// The id of a tenant.
    TenantId
);
id!(
    /// The id of a subject: a user or a service account of a tenant.
    SubjectId
);
id!(
    /// The id of a session: the `sid` claim of the session's tokens.
    SessionId
);
id!(
    /// The id of a role of a tenant.
    RoleId
);
id!(
    /// The id of a role assignment.
    AssignmentId
);

id!(
    /// The id of a service account's API key: the `sid` claim of the access tokens that are issued
    /// for the key.
    ApiKeyId
);

request_ids!(SubjectId, SessionId, RoleId, ApiKeyId);
optional_request_ids!(SubjectId, SessionId, RoleId);
