//! Permissions: `resource:action`. In a role, each part may be the wildcard `*`. `compiled.rs`
//! decides for all permissions of a role whether one of them covers a given permission.

use crate::error::{Error, Result};

/// The maximum length of a permission, in bytes.
const MAX_BYTES: usize = 200;

/// A well-formed permission.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Permission<'a> {
    text: &'a str,
    resource: &'a str,
    action: &'a str,
}

impl<'a> Permission<'a> {
    /// Parses a permission, which may have wildcards. Returns `None` when it is malformed.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (resource, action) = text.split_once(':').filter(|_| text.len() <= MAX_BYTES)?;
        (is_part(resource) && is_part(action)).then_some(Self { text, resource, action })
    }

    /// Parses the permission of a Check, which must not have wildcards.
    ///
    /// # Errors
    /// Returns `INVALID_ARGUMENT` for `field` when the permission is malformed or has a wildcard.
    pub fn parse_without_wildcards(field: &str, text: &'a str) -> Result<Self> {
        Self::parse(text)
            .filter(|permission| permission.resource != "*" && permission.action != "*")
            .ok_or_else(|| Error::field(field, "must be resource:action, each of [a-z0-9_.-]+"))
    }

    /// The whole permission, `resource:action`.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The part before the colon.
    #[must_use]
    pub fn resource(&self) -> &'a str {
        self.resource
    }

    /// The part after the colon.
    #[must_use]
    pub fn action(&self) -> &'a str {
        self.action
    }

    /// The resource and the action of each permission that covers this permission, from the most
    /// specific to `*:*`.
    #[must_use]
    pub fn covering_parts(&self) -> [(&'a str, &'a str); 4] {
        let Self { resource, action, .. } = *self;
        [(resource, action), (resource, "*"), ("*", action), ("*", "*")]
    }

    /// The permissions that cover this permission, from the most specific to `*:*`.
    #[must_use]
    pub fn covering_permissions(&self) -> [String; 4] {
        self.covering_parts().map(|(resource, action)| format!("{resource}:{action}"))
    }

    /// Whether a holder of this permission also holds `other`. Both may have wildcards. A `*`
    /// matches a whole part, never a part of a word.
    #[must_use]
    pub fn covers(&self, other: &Permission<'_>) -> bool {
        (self.resource == "*" || self.resource == other.resource)
            && (self.action == "*" || self.action == other.action)
    }
}

fn is_part(part: &str) -> bool {
    let is_allowed =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-');
    part == "*" || (!part.is_empty() && part.bytes().all(is_allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F02: a malformed permission is never accepted.
    #[test]
    fn only_well_formed_permissions_are_parsed() {
        for valid in ["users:read", "users:*", "*:*", "*:read", "a.b-c_d:0"] {
            assert!(Permission::parse(valid).is_some(), "{valid}");
        }
        let long = format!("{}:read", "a".repeat(1024));
        for malformed in [
            "",
            ":",
            "users",
            "users:",
            ":read",
            "Users:READ",
            "users:read:x",
            "users:re*d",
            "*",
            "users:read\0",
            "users：read", // A full-width colon.
            "users :read",
            "us*:read",
            "users:**",
            &long,
        ] {
            assert!(Permission::parse(malformed).is_none(), "{malformed}");
        }
        assert!(Permission::parse_without_wildcards("permission", "users:*").is_err());
        assert!(Permission::parse_without_wildcards("permission", "*:read").is_err());
    }

    /// F03: a wildcard never matches a part of a word.
    #[test]
    fn a_wildcard_matches_a_whole_part() {
        let covers = |held: &str, requested: &str| {
            let held = Permission::parse(held).expect("the permission is valid");
            held.covers(&Permission::parse(requested).expect("the permission is valid"))
        };
        assert!(covers("users:*", "users:read"));
        assert!(!covers("users:*", "users_archive:read"));
        assert!(covers("*:*", "users:read") && covers("*:*", "*:*") && covers("*:*", "users:*"));
        assert!(covers("*:read", "users:read") && !covers("*:read", "users:write"));
        assert!(!covers("users:read", "users:*") && !covers("users:*", "*:*"));
    }

    /// F03: [`Permission::covering_permissions`] and [`Permission::covers`] agree.
    #[test]
    fn covering_permissions_and_covers_agree() {
        let parts = ["a", "b", "a.b", "*"];
        let requested = Permission::parse("a:b").expect("the permission is valid");
        for held in parts.iter().flat_map(|r| parts.map(|action| format!("{r}:{action}"))) {
            let parsed = Permission::parse(&held).expect("the permission is valid");
            let covers = parsed.covers(&requested);
            assert_eq!(requested.covering_permissions().contains(&held), covers, "{held}");
        }
    }
}
