//! Permissions: `resource:action`. In a role, either part may be the wildcard `*`;
//! `compiled` decides what a wildcard covers.

use crate::error::{Error, Result};

/// The maximum length of a permission, in bytes.
const MAX: usize = 200;

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
        let (resource, action) = text.split_once(':').filter(|_| text.len() <= MAX)?;
        (is_part(resource) && is_part(action)).then_some(Self { text, resource, action })
    }

    /// Parses a permission that a Check asks for, without wildcards.
    ///
    /// # Errors
    /// Returns `INVALID_ARGUMENT` for `field` when it is malformed or has a wildcard.
    pub fn concrete(field: &str, text: &'a str) -> Result<Self> {
        Self::parse(text)
            .filter(|p| p.resource != "*" && p.action != "*")
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

    /// Resource and action of every permission that covers this one, from the most specific to
    /// `*:*`.
    #[must_use]
    pub fn covering(&self) -> [(&'a str, &'a str); 4] {
        let Self { resource, action, .. } = *self;
        [(resource, action), (resource, "*"), ("*", action), ("*", "*")]
    }

    /// The permissions of [`covering`](Self::covering), as text.
    #[must_use]
    pub fn forms(&self) -> [String; 4] {
        self.covering().map(|(resource, action)| format!("{resource}:{action}"))
    }

    /// Whether a holder of this permission also holds `wanted`. Both may have wildcards. A `*`
    /// matches a whole part, never a part of a word.
    #[must_use]
    pub fn covers(&self, wanted: &Permission<'_>) -> bool {
        (self.resource == "*" || self.resource == wanted.resource)
            && (self.action == "*" || self.action == wanted.action)
    }
}

fn is_part(part: &str) -> bool {
    let is_letter =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-');
    part == "*" || (!part.is_empty() && part.bytes().all(is_letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F02
    #[test]
    fn the_grammar_has_no_accidents() {
        for good in ["users:read", "users:*", "*:*", "*:read", "a.b-c_d:0"] {
            assert!(Permission::parse(good).is_some(), "{good}");
        }
        let long = format!("{}:read", "a".repeat(1024));
        for bad in [
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
            "users：read",
            "users :read",
            "us*:read",
            "users:**",
            &long,
        ] {
            assert!(Permission::parse(bad).is_none(), "{bad}");
        }
        assert!(Permission::concrete("permission", "users:*").is_err());
        assert!(Permission::concrete("permission", "*:read").is_err());
    }

    /// F03
    #[test]
    fn wildcards_stand_for_whole_parts() {
        let covers = |held: &str, wanted: &str| {
            let held = Permission::parse(held).expect("held");
            held.covers(&Permission::parse(wanted).expect("wanted"))
        };
        assert!(covers("users:*", "users:read"));
        assert!(!covers("users:*", "users_archive:read"));
        assert!(covers("*:*", "users:read") && covers("*:*", "*:*") && covers("*:*", "users:*"));
        assert!(covers("*:read", "users:read") && !covers("*:read", "users:write"));
        assert!(!covers("users:read", "users:*") && !covers("users:*", "*:*"));
    }

    /// F03
    #[test]
    fn the_forms_are_just_those_that_cover() {
        let parts = ["a", "b", "a.b", "*"];
        let wanted = Permission::parse("a:b").expect("wanted");
        for held in parts.iter().flat_map(|r| parts.map(|action| format!("{r}:{action}"))) {
            let covers = Permission::parse(&held).expect("held").covers(&wanted);
            assert_eq!(wanted.forms().contains(&held), covers, "{held}");
        }
    }
}
