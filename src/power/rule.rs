//! The rule for power over others.
//!
//! An actor *covers* a target when the actor's level is no lower than the level of each role of
//! the target, and the actor holds each permission of those roles without a scope. All roles of the
//! target count, also roles with a scope.
//!
//! To take a right from the target, the actor must cover the target now. To give a right, the actor
//! must hold the given level and permissions until the given right expires. To make a change that
//! lets the actor act as the target, the actor must cover the target for as long as the target's
//! roles last.

use std::collections::{BTreeMap, HashMap};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::{
    concurrency::pace::Pace,
    error::{Error, Result},
    permissions::{Grant, Permission, Role, Standing},
    proto::v1::ErrorReason,
};

/// The expiry of a right.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Expiry {
    /// At this time, in seconds since 1970.
    At(i64),
    /// The right never expires.
    Never,
}

impl From<Option<OffsetDateTime>> for Expiry {
    fn from(at: Option<OffsetDateTime>) -> Self {
        at.map(OffsetDateTime::unix_timestamp).into()
    }
}

impl From<Option<i64>> for Expiry {
    fn from(seconds: Option<i64>) -> Self {
        seconds.map_or(Self::Never, Self::At)
    }
}

/// The levels and permissions that an actor holds without a scope, each with its expiry. When
/// several grants contain the same permission, the latest expiry applies.
pub struct Rights<'a> {
    /// The levels of the actor's roles, each with its latest expiry.
    levels: BTreeMap<i32, Expiry>,
    /// The expiry of each permission, by resource and action. Resource and action may be wildcards.
    permissions: HashMap<(&'a str, &'a str), Expiry>,
    /// All rights expire at this time at the latest.
    latest_end: Expiry,
}

impl<'a> Rights<'a> {
    /// Collects the rights from all unscoped grants of the actor.
    pub async fn of(actor: &'a Standing) -> Self {
        let mut pace = Pace::new();
        let mut rights = Self {
            levels: BTreeMap::new(),
            permissions: HashMap::new(),
            latest_end: Expiry::Never,
        };
        for (role, end) in roles_with_latest_end(actor.unscoped_grants()) {
            let level_end = rights.levels.entry(role.level).or_insert(end);
            *level_end = end.max(*level_end);
            for permission in role.permissions.iter().filter_map(Permission::parse) {
                let key = (permission.resource(), permission.action());
                let permission_end = rights.permissions.entry(key).or_insert(end);
                *permission_end = end.max(*permission_end);
                pace.pause().await;
            }
        }
        rights
    }

    /// The same rights, but each ends with this permission at the latest: the actor can use its
    /// rights only while it holds the permission.
    ///
    /// # Errors
    /// Returns `PERMISSION_DENIED` when the actor does not hold the permission now.
    pub fn while_holding(self, permission: &str) -> Result<Self> {
        let latest_end = self.expiry_of_permission(permission)?;
        Ok(Self { latest_end, ..self })
    }

    /// The time until which the actor holds both a level and all of these permissions.
    ///
    /// # Errors
    /// Returns `PERMISSION_DENIED` when the actor does not hold the level and all permissions now.
    pub async fn expiry_of_all<'p>(
        &self,
        level: i32,
        permissions: impl IntoIterator<Item = &'p str>,
        pace: &mut Pace,
    ) -> Result<Expiry> {
        let mut until = self.expiry_of_level(level)?;
        for text in permissions {
            until = until.min(self.expiry_of_permission(text)?);
            pace.pause().await;
        }
        Ok(until)
    }

    /// The time until which the actor holds a level or a higher level.
    ///
    /// # Errors
    /// Returns `PERMISSION_DENIED` when the actor does not hold the level now.
    pub fn expiry_of_level(&self, level: i32) -> Result<Expiry> {
        let end = self.levels.range(level..).map(|(_, end)| *end).max();
        end.map(|end| end.min(self.latest_end)).ok_or_else(level_too_high)
    }

    /// The time until which the actor holds a permission.
    ///
    /// # Errors
    /// Returns `PERMISSION_DENIED` when the actor does not hold the permission now.
    pub fn expiry_of_permission(&self, text: &str) -> Result<Expiry> {
        let permission = Permission::parse(text).ok_or_else(not_held)?;
        let covering_parts = permission.covering_parts();
        let ends = covering_parts.iter().filter_map(|parts| self.permissions.get(parts));
        ends.max().map(|end| *end.min(&self.latest_end)).ok_or_else(not_held)
    }
}

/// Checks that the actor covers the target now.
///
/// # Errors
/// Returns `PERMISSION_DENIED` when the actor does not cover the target.
pub async fn check_covers(actor: &Rights<'_>, target: &Standing) -> Result<()> {
    covered_until(actor, target).await.map(drop)
}

/// Checks that the actor's level is no lower than the target's highest level.
///
/// # Errors
/// Returns `PERMISSION_DENIED` when the actor's level is lower.
pub fn check_outranks(actor: &Standing, target: &Standing) -> Result<()> {
    let highest = target.unexpired_grants().map(|grant| grant.role.get().level).max();
    if highest.is_some_and(|highest| highest > actor.level()) {
        return Err(level_too_high());
    }
    Ok(())
}

/// Checks that the actor covers the target for as long as each of the target's roles lasts.
///
/// # Errors
/// Returns `PERMISSION_DENIED` when the actor does not cover the target.
pub async fn check_covers_while_target_holds(actor: &Rights<'_>, target: &Standing) -> Result<()> {
    match covered_until(actor, target).await? {
        Expiry::Never => Ok(()),
        until @ Expiry::At(_) => Err(outlasts(until)),
    }
}

/// The time until which the actor covers the target: the earliest time at which the actor loses a
/// level or a permission that the target still holds. [`Expiry::Never`] when the actor loses none of
/// them before the target does.
///
/// # Errors
/// Returns `PERMISSION_DENIED` when the actor does not cover the target now.
pub async fn covered_until(actor: &Rights<'_>, target: &Standing) -> Result<Expiry> {
    let (mut until, mut pace) = (Expiry::Never, Pace::new());
    for (role, needed_until) in roles_with_latest_end(target.unexpired_grants()) {
        let held_until =
            actor.expiry_of_all(role.level, role.permissions.iter(), &mut pace).await?;
        if held_until < needed_until {
            until = until.min(held_until);
        }
    }
    Ok(until)
}

/// Checks that a right that the actor gives until `given_end` expires no later than the actor's own
/// right, `own_end`.
///
/// # Errors
/// Returns `PERMISSION_DENIED` with the latest allowed expiry when the given right expires later.
pub fn check_end(given_end: Expiry, own_end: Expiry) -> Result<()> {
    if given_end > own_end { Err(outlasts(own_end)) } else { Ok(()) }
}

/// The roles of the given grants, each once, with the latest expiry of the grants of the role.
fn roles_with_latest_end<'a>(
    grants: impl Iterator<Item = &'a Grant>,
) -> impl Iterator<Item = (&'a Role, Expiry)> {
    let mut roles: BTreeMap<Uuid, (&Role, Expiry)> = BTreeMap::new();
    for grant in grants {
        let (role, end) = (grant.role.get(), Expiry::from(grant.expires_at()));
        let (_, latest_end) = roles.entry(role.id).or_insert((role, end));
        *latest_end = end.max(*latest_end);
    }
    roles.into_values()
}

fn level_too_high() -> Error {
    let text = "the level of the role or of the subject is higher than the caller's level";
    Error::refused(ErrorReason::LevelTooHigh, text)
}

fn not_held() -> Error {
    let text = "the caller lacks a required permission, or holds it only with a scope";
    Error::refused(ErrorReason::GrantNotHeld, text)
}

/// The error for a given right that would expire later than the actor's own right.
fn outlasts(own_end: Expiry) -> Error {
    let expiry = match own_end {
        Expiry::At(seconds) => OffsetDateTime::from_unix_timestamp(seconds).ok(),
        Expiry::Never => None,
    };
    let expiry = expiry.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default();
    let text = format!("the caller's own right expires at {expiry}; the expiry must not be later");
    Error::refused(ErrorReason::GrantOutlastsGiver, text)
}
