//! Identifiers that can't be swapped for one another.
//!
//! All are UUIDv7 (RFC 9562): ordered by creation, so that primary keys grow at
//! one end. They are names, never secrets: 74 random bits are too few.

use std::fmt;

use uuid::Uuid;

use crate::error::Error;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new, unique id.
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
    /// Stands for whatever tenant was named and does not exist: what is counted and
    /// recorded of it.
    pub const UNKNOWN: Self = Self(Uuid::nil());
}

/// Ids that requests name things by.
macro_rules! named_in_requests {
    ($($name:ident),*) => {$(
        impl $name {
            /// Reads an id from a request's field, which its rules already
            /// require to be a UUID.
            ///
            /// # Errors
            /// INVALID_ARGUMENT naming `field` when the text is no UUID.
            pub(crate) fn parse(field: &str, text: &str) -> Result<Self, Error> {
                Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| Error::field(field, "must be a UUID"))
            }
        }
    )*};
}

/// Those that a request may do without.
macro_rules! optional_in_requests {
    ($($name:ident),*) => {$(
        impl $name {
            /// Reads an id that a request may leave empty.
            ///
            /// # Errors
            /// INVALID_ARGUMENT naming `field` when the text is no UUID.
            pub(crate) fn parse_optional(field: &str, text: &str) -> Result<Option<Self>, Error> {
                if text.is_empty() { Ok(None) } else { Self::parse(field, text).map(Some) }
            }
        }
    )*};
}

id!(
    /// A tenant.
    TenantId
);
id!(
    /// A subject in a tenant: a user, or a service account.
    UserId
);
id!(
    /// A session: the `sid` of its tokens.
    SessionId
);
id!(
    /// A role in a tenant.
    RoleId
);
id!(
    /// A role that a user has.
    AssignmentId
);

id!(
    /// A service account's key: the `sid` of the tokens that it leads to.
    ApiKeyId
);

named_in_requests!(UserId, SessionId, RoleId, ApiKeyId);
optional_in_requests!(UserId, SessionId, RoleId);
