//! Limits on stored data, checked on each write. docs/limits.md lists the limits. Data that already
//! exceeds a limit can still be read and removed, but it can't grow.
//!
//! The limits keep decisions fast, and responses and cache entries small. A limit on one value of a
//! request is not here. It is a field rule in the proto, or a constant next to the code that parses
//! the value (e.g. `permissions/scope.rs`).

use crate::error::{Bound, Error, Result};

/// The maximum number of role assignments of one subject. Expired assignments are not counted.
pub const ASSIGNMENTS_OF_SUBJECT: Bound = Bound {
    name: "assignments_of_subject",
    max: 1_000,
    meaning: "role assignments of one subject",
};

/// The maximum total size of the scopes of one subject's role assignments, in bytes of the JSON
/// text that Postgres returns, because decisions parse this text.
pub const SCOPE_BYTES_OF_SUBJECT: Bound = Bound {
    name: "scope_bytes_of_subject",
    max: 256 * 1024,
    meaning: "bytes of the scopes of one subject's role assignments",
};

/// The maximum number of roles of one tenant, including system roles.
pub const ROLES_OF_TENANT: Bound =
    Bound { name: "roles_of_tenant", max: 1_000, meaning: "roles of the tenant" };

/// The maximum total number of permissions of all roles of one tenant. A subject gets permissions
/// only from these roles. So this limit and [`PERMISSION_BYTES_OF_ROLES`] also bound the responses
/// that list a subject's permissions.
pub const PERMISSIONS_OF_ROLES: Bound = Bound {
    name: "permissions_of_roles",
    max: 50_000,
    meaning: "permissions of all roles of the tenant",
};

/// The maximum total length of the permissions of all roles of one tenant, in bytes.
pub const PERMISSION_BYTES_OF_ROLES: Bound = Bound {
    name: "permission_bytes_of_roles",
    max: 1024 * 1024,
    meaning: "bytes of the permissions of all roles of the tenant",
};

/// The maximum number of service accounts of one tenant.
pub const SERVICE_ACCOUNTS_OF_TENANT: Bound = Bound {
    name: "service_accounts_of_tenant",
    max: 10_000,
    meaning: "service accounts of the tenant",
};

/// The number of expired assignments that are kept for each subject, to explain why a permission is
/// denied. The most recently expired assignments are kept.
pub const EXPIRED_ASSIGNMENTS_KEPT: i64 = 100;

impl Bound {
    /// Checks the total that the data will have after a write. The calling code must hold a lock
    /// that excludes concurrent writes of the same kind.
    ///
    /// # Errors
    /// Returns `LIMIT_REACHED` when the total exceeds the limit.
    pub fn check(&'static self, new_total: i64) -> Result<()> {
        if new_total > self.max { Err(Error::Limit(self)) } else { Ok(()) }
    }
}
