//! The permissions of a role, compiled for fast checks. [`PermissionSet::covers`] decides whether
//! one of the permissions, which may have wildcards, covers a given permission. A replica makes
//! thousands of these checks per second.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
};

use foldhash::fast::RandomState;

use super::Permission;

/// This fast hash does not resist chosen collisions. That is acceptable: each set has a separate
/// hash seed, only an administrator of the tenant can provoke collisions, and the collisions slow
/// down only lookups in one role.
type TextSet = HashSet<Box<str>, RandomState>;

/// Approximate memory of one permission without its text, in bytes. A permission is stored twice,
/// in the list and in a set. Each copy has a pointer with a length (16 bytes) and a heap block with
/// an overhead of 16 bytes. 8 bytes estimate the other overhead of the set.
const BYTES_PER_PERMISSION: usize = 2 * (16 + 16) + 8;

/// The permissions of a role. Lookups take constant time for any number of permissions.
#[derive(Debug, Default)]
pub struct PermissionSet {
    /// All permissions, sorted.
    permissions: Box<[Box<str>]>,
    /// Permissions without a wildcard, as `resource:action`.
    without_wildcard: TextSet,
    /// The resources of the permissions `resource:*`.
    with_any_action: TextSet,
    /// The actions of the permissions `*:action`.
    with_any_resource: TextSet,
    /// Whether the role has `*:*`.
    has_all: bool,
    /// Approximate memory use, in bytes.
    bytes: usize,
}

impl PermissionSet {
    /// Compiles the permissions of a role. A malformed permission grants nothing.
    #[must_use]
    pub fn compile(mut permissions: Vec<String>) -> Self {
        permissions.sort_unstable();
        let mut set = Self::default();
        for text in &permissions {
            let Some(permission) = Permission::parse(text) else { continue };
            match (permission.resource(), permission.action()) {
                ("*", "*") => set.has_all = true,
                ("*", action) => _ = set.with_any_resource.insert(action.into()),
                (resource, "*") => _ = set.with_any_action.insert(resource.into()),
                _ => _ = set.without_wildcard.insert(text.as_str().into()),
            }
        }
        set.bytes = permissions.iter().map(|text| 2 * text.len() + BYTES_PER_PERMISSION).sum();
        set.permissions = permissions.into_iter().map(String::into_boxed_str).collect();
        set
    }

    /// Whether this set covers `permission`, which may also have wildcards. Allocates nothing. A
    /// lookup in an empty set computes no hash.
    #[must_use]
    pub fn covers(&self, permission: &Permission<'_>) -> bool {
        self.has_all
            || self.without_wildcard.contains(permission.text())
            || self.with_any_action.contains(permission.resource())
            || self.with_any_resource.contains(permission.action())
    }

    /// Approximate memory use, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The permissions, sorted.
    #[must_use]
    pub fn as_sorted_slice(&self) -> &[Box<str>] {
        &self.permissions
    }

    /// Iterates over the permissions, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.permissions.iter().map(AsRef::as_ref)
    }
}

/// A role or a tenant that many standings share. A change marks the value as stale once, for all
/// standings. So the cost of a change does not depend on the number of standings.
#[derive(Debug)]
pub struct Invalidatable<T> {
    value: T,
    stale: AtomicBool,
}

impl<T> Invalidatable<T> {
    /// Creates a value that is not stale.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self { value, stale: AtomicBool::new(false) }
    }

    /// The value, as it was read.
    #[must_use]
    pub fn get(&self) -> &T {
        &self.value
    }

    /// Whether the value has changed since the read.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    /// Marks the value as stale.
    pub fn mark_stale(&self) {
        self.stale.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_covers_a_permission_when_one_of_its_permissions_covers_it() {
        let parts = ["a", "b", "c.d", "*"];
        let all: Vec<String> =
            parts.iter().flat_map(|r| parts.iter().map(move |a| format!("{r}:{a}"))).collect();
        // Checks every pair of held permissions against every requested permission.
        for first in &all {
            for second in &all {
                let set = PermissionSet::compile(vec![first.clone(), second.clone()]);
                for requested in &all {
                    let requested = Permission::parse(requested).expect("the permission is valid");
                    let is_covered = [first, second].iter().any(|held| {
                        let held = Permission::parse(held).expect("the permission is valid");
                        held.covers(&requested)
                    });
                    assert_eq!(
                        set.covers(&requested),
                        is_covered,
                        "{first} {second} {requested:?}"
                    );
                }
            }
        }
    }
}
