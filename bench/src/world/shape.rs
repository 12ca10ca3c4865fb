//! The contents of a database: ids, roles, assignments and sessions, all calculated from the number
//! of users.

use tenantry::ids::{SessionId, SubjectId, TenantId};
use uuid::Uuid;

/// Number of the tenant's roles.
pub const ROLES: u64 = 50;

/// Number of permissions of a role.
pub const ROLE_PERMISSIONS: u64 = 10;

/// Number of different permissions. Roles have permissions in common.
pub const PERMISSIONS: u64 = 100;

/// Number of roles of a subject. In the benchmark, a subject is a user that scenarios check. All
/// other users have one role.
pub const SUBJECT_ROLES: u64 = 5;

/// Maximum number of subjects.
const MAX_SUBJECTS: u64 = 100_000;

/// Number of the first session. It belongs to the first subject.
pub const FIRST_SESSION: u64 = 0;

/// Number of sessions of the subjects.
pub const SESSIONS: u64 = 10_000;

/// Number of sessions of the checker (the user that may check other subjects).
pub const CHECKER_SESSIONS: u64 = 1_000;

/// The contents of a database with this number of users.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Shape {
    /// Number of users, without the checker and the guests.
    pub users: u64,
}

/// Kind of an object with an id. The value is a part of the id.
#[derive(Clone, Copy)]
enum Kind {
    Tenant = 1,
    User = 2,
    Role = 3,
    Assignment = 4,
    Session = 5,
}

/// Number of guests, that is, users with a password.
const GUESTS: u64 = 64;

impl Shape {
    /// Number of subjects. The subjects are spread evenly over all users.
    pub fn subjects(self) -> u64 {
        self.users.min(MAX_SUBJECTS)
    }

    /// User number of the subject with this index.
    pub fn subject(self, index: u64) -> u64 {
        index % self.subjects() * self.stride()
    }

    /// User number of the checker (the user that may check other subjects).
    pub fn checker(self) -> u64 {
        self.users
    }

    /// User numbers of the guests, who sign in. There are so many guests that none of them reaches
    /// the limit on sign-ins per account.
    pub fn guests(self) -> std::ops::Range<u64> {
        self.users + 1..self.users + 1 + GUESTS
    }

    /// User number of a session. The first sessions belong to the subjects in turn, the other
    /// sessions to the checker.
    pub fn session_user(self, session: u64) -> u64 {
        if session < SESSIONS { self.subject(session) } else { self.checker() }
    }

    /// The roles of a user.
    pub fn roles_of(self, user: u64) -> impl Iterator<Item = u64> {
        // Each step is coprime to 50 (`ROLES`), so the roles of a user are all different.
        const STEPS: [u64; 8] = [1, 3, 7, 9, 11, 13, 17, 19];
        let is_checker = user == self.checker();
        let is_subject = user < self.users && user.is_multiple_of(self.stride());
        let number = user / self.stride();
        let (first_role, step) = (number % ROLES, STEPS[to_usize(number / ROLES % 8)]);
        let count = if is_subject { SUBJECT_ROLES } else { 1 };
        (0..count)
            .map(move |index| if is_checker { ROLES } else { (first_role + index * step) % ROLES })
    }

    /// A permission that a user holds through the user's first role.
    pub fn permission_of(self, user: u64) -> String {
        let first_role = self.roles_of(user).next().unwrap_or_default();
        permissions_of_role(first_role).into_iter().next().unwrap_or_default()
    }

    /// The distance between the user numbers of two neighbouring subjects.
    fn stride(self) -> u64 {
        self.users / self.subjects()
    }
}

/// The permissions of a role. Roles with adjacent numbers have most permissions in common. The role
/// with the number [`ROLES`] is the checker's role.
pub fn permissions_of_role(role: u64) -> Vec<String> {
    if role == ROLES {
        return vec!["permission:check".to_owned(), "user:read".to_owned()];
    }
    (0..ROLE_PERMISSIONS).map(|index| permission((role * 2 + index) % PERMISSIONS)).collect()
}

/// Name of a permission.
pub fn permission(number: u64) -> String {
    format!("resource-{:02}:{}", number / 2, ["read", "write"][to_usize(number % 2)])
}

/// The tenant that all data belongs to.
pub fn tenant() -> TenantId {
    TenantId(id(Kind::Tenant, 0))
}

pub fn user_id(user: u64) -> SubjectId {
    SubjectId(id(Kind::User, user))
}

pub fn role_id(role: u64) -> Uuid {
    id(Kind::Role, role)
}

pub fn assignment_id(assignment: u64) -> Uuid {
    id(Kind::Assignment, assignment)
}

pub fn session_id(session: u64) -> SessionId {
    SessionId(id(Kind::Session, session))
}

/// A `UUIDv7` that grows with `number`, as the service's ids grow with time.
fn id(kind: Kind, number: u64) -> Uuid {
    const EPOCH_MILLIS: u128 = 0x0190_0000_0000;
    Uuid::from_u128(
        (EPOCH_MILLIS + u128::from(number)) << 80 | 0x7 << 76 | (kind as u128) << 64 | 0b10 << 62,
    )
}

fn to_usize(small: u64) -> usize {
    usize::try_from(small).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn subjects_have_five_different_roles_and_other_users_have_one() {
        for users in [1_000, 100_000, 1_000_000] {
            let shape = Shape { users };
            for subject in 0..1_000 {
                let roles: HashSet<_> = shape.roles_of(shape.subject(subject)).collect();
                assert_eq!(roles.len(), 5, "{users} {subject}: {roles:?}");
            }
        }
        let shape = Shape { users: 1_000_000 };
        assert_eq!(shape.roles_of(1).count(), 1);
        assert_eq!(shape.roles_of(shape.checker()).collect::<Vec<_>>(), [ROLES]);
        // 100,000 subjects among 1,000,000 users: every tenth user is a subject.
        assert_eq!(shape.subject(99_999), 999_990);
    }

    #[test]
    fn ids_are_version_7_and_in_order() {
        let ids: Vec<_> = (0..1_000).map(|user| user_id(user).0).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
        assert_ne!(role_id(3), assignment_id(3));
    }
}
