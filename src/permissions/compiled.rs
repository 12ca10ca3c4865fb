//! The permissions of a role, compiled for fast checks. [`PermissionSet::covers`] decides whether
//! the set has a permission, perhaps with a wildcard, that covers a given permission. A replica
//! makes thousands of these checks per second.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
};

use foldhash::fast::RandomState;

use super::Permission;

/// Each set has its own hash seed. Only an administrator of the tenant can provoke collisions, and
/// the collisions slow down only lookups in that role.
type Names = HashSet<Box<str>, RandomState>;

/// Approximate memory of one permission without its text, in bytes. A permission is stored twice,
/// in the list and in a set; each copy is a pointer with a length, and a heap block.
const BYTES_PER_PERMISSION: usize = 2 * (16 + 16) + 8;

/// The permissions of a role. Lookups take constant time for any number of permissions.
#[derive(Debug, Default)]
pub struct PermissionSet {
    /// All permissions, sorted.
    listed: Box<[Box<str>]>,
    /// Permissions without a wildcard, as `resource:action`.
    exact: Names,
    /// The resources of `resource:*`.
    any_action: Names,
    /// The actions of `*:action`.
    any_resource: Names,
    /// Whether the role has `*:*`.
    everything: bool,
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
                ("*", "*") => set.everything = true,
                ("*", action) => _ = set.any_resource.insert(action.into()),
                (resource, "*") => _ = set.any_action.insert(resource.into()),
                _ => _ = set.exact.insert(text.as_str().into()),
            }
        }
        set.bytes = permissions.iter().map(|text| 2 * text.len() + BYTES_PER_PERMISSION).sum();
        set.listed = permissions.into_iter().map(String::into_boxed_str).collect();
        set
    }

    /// Whether this set covers `permission`, which may itself have wildcards. Allocates nothing. A
    /// lookup in an empty set computes no hash.
    #[must_use]
    pub fn covers(&self, permission: &Permission<'_>) -> bool {
        self.everything
            || self.exact.contains(permission.text())
            || self.any_action.contains(permission.resource())
            || self.any_resource.contains(permission.action())
    }

    /// Approximate memory use, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The permissions, sorted.
    #[must_use]
    pub fn listed(&self) -> &[Box<str>] {
        &self.listed
    }

    /// Iterates over the permissions, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.listed.iter().map(AsRef::as_ref)
    }
}

/// A value that many standings share. One change marks the value as stale for all standings at
/// once, so the cost of a change does not depend on the number of standings.
#[derive(Debug)]
pub struct Shared<T> {
    value: T,
    stale: AtomicBool,
}

impl<T> Shared<T> {
    /// Creates a value that is not stale.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self { value, stale: AtomicBool::new(false) }
    }

    /// The value at the time of the read.
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
    pub fn make_stale(&self) {
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
        // Checks every pair of held permissions against every wanted permission.
        for first in &all {
            for second in &all {
                let set = PermissionSet::compile(vec![first.clone(), second.clone()]);
                for wanted in &all {
                    let wanted = Permission::parse(wanted).expect("the permission is valid");
                    let model = [first, second].iter().any(|held| {
                        Permission::parse(held).expect("the permission is valid").covers(&wanted)
                    });
                    assert_eq!(set.covers(&wanted), model, "{first} {second} {wanted:?}");
                }
            }
        }
    }
}
