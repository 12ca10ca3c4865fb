//! Bounds on what is stored, checked when it is written: docs/limits.md lists them with
//! all others. What exceeds one already can be read and removed; it can't grow.
//!
//! They keep the work for one decision, one reply and one entry of a cache small. A bound
//! on a single field is a field rule, in the proto or beside the code that reads the field.

use crate::error::{Bound, Error, Result};

/// Role assignments of one subject that have not ended.
pub const ASSIGNMENTS_OF_SUBJECT: Bound = Bound {
    name: "assignments_of_subject",
    max: 1_000,
    meaning: "role assignments of one subject",
};

/// Bytes of the scopes of one subject's assignments that have not ended, together: as
/// Postgres writes JSON, which is what is read for a decision.
pub const SCOPE_BYTES_OF_SUBJECT: Bound = Bound {
    name: "scope_bytes_of_subject",
    max: 256 * 1024,
    meaning: "bytes of the scopes of one subject's role assignments",
};

/// Roles of one tenant, the system roles among them.
pub const ROLES_OF_TENANT: Bound =
    Bound { name: "roles_of_tenant", max: 1_000, meaning: "roles of the tenant" };

/// Permissions of all roles of one tenant. All that one subject may hold is among them, so
/// this and the next bound the replies that name a subject's permissions too.
pub const PERMISSIONS_OF_ROLES: Bound = Bound {
    name: "permissions_of_roles",
    max: 50_000,
    meaning: "permissions of all roles of the tenant",
};

/// Bytes of these.
pub const PERMISSION_BYTES_OF_ROLES: Bound = Bound {
    name: "permission_bytes_of_roles",
    max: 1024 * 1024,
    meaning: "bytes of the permissions of all roles of the tenant",
};

/// Service accounts of one tenant.
pub const SERVICE_ACCOUNTS_OF_TENANT: Bound = Bound {
    name: "service_accounts_of_tenant",
    max: 10_000,
    meaning: "service accounts of the tenant",
};

/// Assignments of one subject that have ended and are kept to explain denials: the latest.
pub const ENDED_ASSIGNMENTS_KEPT: i64 = 100;

impl Bound {
    /// Checks what there would be after a write. Whoever asks holds a lock against other
    /// writes of the same kind.
    ///
    /// # Errors
    /// `LIMIT_REACHED` when it is more than there may be.
    pub fn check(&'static self, would_be: i64) -> Result<()> {
        if would_be > self.max { Err(Error::Limit(self)) } else { Ok(()) }
    }
}
