//! Permissions in the form that is asked thousands of times a second.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
};

use foldhash::fast::RandomState;

use super::Permission;

/// Hashed with a seed of each set's own. Who can guess it is a tenant's
/// administrator, and slows down no more than the look-ups in its own role.
type Names = HashSet<Box<str>, RandomState>;

/// What each permission takes besides its text, in bytes, about: in the list and in a set,
/// a pointer with a length, and a block.
const EACH: usize = 2 * (16 + 16) + 8;

/// What a role permits: constant-time look-ups, whatever its size.
#[derive(Debug, Default)]
pub struct PermissionSet {
    /// Sorted.
    listed: Box<[Box<str>]>,
    /// `resource:action`
    exact: Names,
    /// The resources of `resource:*`.
    any_action: Names,
    /// The actions of `*:action`.
    any_resource: Names,
    /// `*:*`
    everything: bool,
    /// The memory that it takes, in bytes, about.
    bytes: usize,
}

impl PermissionSet {
    /// Compiles a role's permissions; a malformed one permits nothing.
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
        set.bytes = permissions.iter().map(|text| 2 * text.len() + EACH).sum();
        set.listed = permissions.into_iter().map(String::into_boxed_str).collect();
        set
    }

    /// Whether holding this set means holding `wanted`, itself perhaps with
    /// wildcards. Nothing is allocated, and a look-up in an empty set hashes
    /// nothing.
    #[must_use]
    pub fn covers(&self, wanted: &Permission<'_>) -> bool {
        self.everything
            || self.exact.contains(wanted.text())
            || self.any_action.contains(wanted.resource())
            || self.any_resource.contains(wanted.action())
    }

    /// The memory that it takes, in bytes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The permissions, sorted.
    #[must_use]
    pub fn listed(&self) -> &[Box<str>] {
        &self.listed
    }

    /// The permissions, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.listed.iter().map(AsRef::as_ref)
    }
}

/// Something that many standings share and one change makes stale for all of
/// them at once: a change costs the same however many hold it.
#[derive(Debug)]
pub struct Shared<T> {
    value: T,
    stale: AtomicBool,
}

impl<T> Shared<T> {
    /// A value that is as it was read.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self { value, stale: AtomicBool::new(false) }
    }

    /// The value, as it was read.
    #[must_use]
    pub fn get(&self) -> &T {
        &self.value
    }

    /// Whether it has changed since it was read.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    /// Says that it has changed.
    pub fn make_stale(&self) {
        self.stale.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_covers_what_one_of_its_permissions_covers() {
        let parts = ["a", "b", "c.d", "*"];
        let all: Vec<String> =
            parts.iter().flat_map(|r| parts.iter().map(move |a| format!("{r}:{a}"))).collect();
        // Every pair of held permissions against every wanted one.
        for first in &all {
            for second in &all {
                let set = PermissionSet::compile(vec![first.clone(), second.clone()]);
                for wanted in &all {
                    let wanted = Permission::parse(wanted).expect("wanted");
                    let model = [first, second]
                        .iter()
                        .any(|held| Permission::parse(held).expect("held").covers(&wanted));
                    assert_eq!(set.covers(&wanted), model, "{first} {second} {wanted:?}");
                }
            }
        }
    }
}
