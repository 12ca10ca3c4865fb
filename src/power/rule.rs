//! The rule for power over others.
//!
//! *Covers*: the actor's level is no lower than that of each role that the target has,
//! wherever that applies, and the actor holds each of their permissions everywhere.
//! Who takes covers the target now; who gives holds what it gives for as long as it
//! gives it; who may act as the target afterwards covers it for as long as its roles last.

use std::collections::{BTreeMap, HashMap};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::{
    concurrency::pace::Pace,
    error::{Error, Result},
    permissions::{Grant, Permission, Role, Standing},
    proto::v1::ErrorReason,
};

/// When a right ends, in seconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum End {
    /// At this time.
    At(i64),
    /// It has no end.
    Never,
}

impl From<Option<OffsetDateTime>> for End {
    fn from(at: Option<OffsetDateTime>) -> Self {
        at.map(OffsetDateTime::unix_timestamp).into()
    }
}

impl From<Option<i64>> for End {
    fn from(seconds: Option<i64>) -> Self {
        seconds.map_or(Self::Never, Self::At)
    }
}

/// What an actor holds everywhere, and until when: of each permission, the latest end
/// among the grants that have it.
pub struct Rights<'a> {
    /// The roles' levels.
    levels: BTreeMap<i32, End>,
    /// By resource and action, each perhaps a wildcard.
    permissions: HashMap<(&'a str, &'a str), End>,
}

impl<'a> Rights<'a> {
    /// Gathers them from all of the actor's grants.
    pub async fn of(actor: &'a Standing) -> Self {
        let mut pace = Pace::new();
        let mut rights = Self { levels: BTreeMap::new(), permissions: HashMap::new() };
        for (role, end) in latest(actor.unscoped()) {
            let level = rights.levels.entry(role.level).or_insert(end);
            *level = end.max(*level);
            for permission in role.permissions.iter().filter_map(Permission::parse) {
                let key = (permission.resource(), permission.action());
                let held = rights.permissions.entry(key).or_insert(end);
                *held = end.max(*held);
                pace.pause().await;
            }
        }
        rights
    }

    /// Until when the actor holds a level and permissions, all of it.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when it does not hold it now.
    pub async fn all<'p>(
        &self,
        level: i32,
        permissions: impl IntoIterator<Item = &'p str>,
        pace: &mut Pace,
    ) -> Result<End> {
        let mut until = self.level(level)?;
        for text in permissions {
            until = until.min(self.permission(text)?);
            pace.pause().await;
        }
        Ok(until)
    }

    /// Until when the actor holds a level.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when it does not hold it now.
    pub fn level(&self, level: i32) -> Result<End> {
        self.levels.range(level..).map(|(_, end)| *end).max().ok_or_else(level_too_high)
    }

    /// Until when the actor holds a permission.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when it does not hold it now.
    pub fn permission(&self, text: &str) -> Result<End> {
        let wanted = Permission::parse(text).ok_or_else(not_held)?;
        let covering = wanted.covering();
        let ends = covering.iter().filter_map(|form| self.permissions.get(form));
        ends.max().copied().ok_or_else(not_held)
    }
}

/// Checks that the actor covers the target now.
///
/// # Errors
/// `PERMISSION_DENIED`.
pub async fn covers(actor: &Rights<'_>, target: &Standing) -> Result<()> {
    ends_before(actor, target).await.map(drop)
}

/// Checks that the actor's level is no lower than the target's.
///
/// # Errors
/// `PERMISSION_DENIED`.
pub fn outranks(actor: &Standing, target: &Standing) -> Result<()> {
    let highest = target.grants().map(|grant| grant.role.get().level).max();
    if highest.is_some_and(|highest| highest > actor.level()) {
        return Err(level_too_high());
    }
    Ok(())
}

/// Checks that the actor covers the target for as long as each of its roles lasts.
///
/// # Errors
/// `PERMISSION_DENIED`.
pub async fn covers_to_the_end(actor: &Rights<'_>, target: &Standing) -> Result<()> {
    match ends_before(actor, target).await? {
        End::Never => Ok(()),
        until @ End::At(_) => Err(outlasts(until)),
    }
}

/// Until when the actor covers the target: the earliest time at which the actor loses what
/// the target still holds.
///
/// # Errors
/// `PERMISSION_DENIED` when it does not cover it now.
pub async fn ends_before(actor: &Rights<'_>, target: &Standing) -> Result<End> {
    let (mut until, mut pace) = (End::Never, Pace::new());
    for (role, needed_until) in latest(target.grants()) {
        let held_until = actor.all(role.level, role.permissions.iter(), &mut pace).await?;
        if held_until < needed_until {
            until = until.min(held_until);
        }
    }
    Ok(until)
}

/// Checks that what the actor gives ends no later than its own right to it.
///
/// # Errors
/// `PERMISSION_DENIED`, naming the latest end that is allowed.
pub fn within(given: End, right: End) -> Result<()> {
    if given > right { Err(outlasts(right)) } else { Ok(()) }
}

/// The roles of some grants, each once with the latest of its ends.
fn latest<'a>(grants: impl Iterator<Item = &'a Grant>) -> impl Iterator<Item = (&'a Role, End)> {
    let mut roles: BTreeMap<Uuid, (&Role, End)> = BTreeMap::new();
    for grant in grants {
        let (role, end) = (grant.role.get(), End::from(grant.expires_at()));
        let (_, latest) = roles.entry(role.id).or_insert((role, end));
        *latest = end.max(*latest);
    }
    roles.into_values()
}

fn level_too_high() -> Error {
    Error::refused(ErrorReason::LevelTooHigh, "it stands above the caller's level")
}

fn not_held() -> Error {
    let text = "it permits what the caller does not hold, everywhere, itself";
    Error::refused(ErrorReason::GrantNotHeld, text)
}

/// The refusal of what lasts longer than the right to it.
fn outlasts(right: End) -> Error {
    let at = match right {
        End::At(seconds) => OffsetDateTime::from_unix_timestamp(seconds).ok(),
        End::Never => None,
    };
    let at = at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default();
    let text = format!("the caller's own right ends before it does: {at} at the latest");
    Error::refused(ErrorReason::GrantOutlastsGiver, text)
}
