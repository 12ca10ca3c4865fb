//! The rule for power over others.
//!
//! *Covers*: the actor's level is no lower than that of each role that the target has,
//! wherever that applies, and the actor holds each of their permissions everywhere.
//! Who takes covers the target now; who gives holds what it gives for as long as it
//! gives it; who may act as the target afterwards covers it for as long as its roles last.

use std::collections::BTreeMap;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::{
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

/// Until when a subject holds a level and permissions, all of it, everywhere: of each, the
/// latest end among the grants that have it.
///
/// # Errors
/// `PERMISSION_DENIED` when it does not hold it now.
pub fn right<'a>(
    actor: &Standing,
    level: i32,
    permissions: impl IntoIterator<Item = &'a str>,
) -> Result<End> {
    let level = holds_level(actor, level)?;
    permissions.into_iter().try_fold(level, |until, text| Ok(until.min(holds(actor, text)?)))
}

/// Until when a subject holds a level everywhere.
///
/// # Errors
/// `PERMISSION_DENIED` when it does not hold it now.
pub fn holds_level(actor: &Standing, level: i32) -> Result<End> {
    latest(actor, |grant| grant.role.get().level >= level).ok_or_else(level_too_high)
}

/// Until when a subject holds a permission everywhere.
///
/// # Errors
/// `PERMISSION_DENIED` when it does not hold it now.
pub fn holds(actor: &Standing, text: &str) -> Result<End> {
    let wanted = Permission::parse(text);
    let ends = wanted.and_then(|wanted| latest(actor, |grant| grant.permits(&wanted)));
    ends.ok_or_else(not_held)
}

/// Checks that the actor covers the target now.
///
/// # Errors
/// `PERMISSION_DENIED`.
pub fn covers(actor: &Standing, target: &Standing) -> Result<()> {
    rights(actor, target).try_for_each(|right| right.map(drop))
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
pub fn covers_to_the_end(actor: &Standing, target: &Standing) -> Result<()> {
    match ends_before(actor, target)? {
        End::Never => Ok(()),
        until @ End::At(_) => Err(outlasts(until)),
    }
}

/// Until when the actor covers the target: the earliest time at which the actor loses what
/// the target still holds.
///
/// # Errors
/// `PERMISSION_DENIED` when it does not cover it now.
pub fn ends_before(actor: &Standing, target: &Standing) -> Result<End> {
    let mut until = End::Never;
    for right in rights(actor, target) {
        let Right { held_until, needed_until } = right?;
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

/// Until when the actor holds what a role of the target permits, and the target has it.
struct Right {
    held_until: End,
    needed_until: End,
}

/// The actor's right to each of the target's roles.
fn rights(actor: &Standing, target: &Standing) -> impl Iterator<Item = Result<Right>> {
    let mut roles: BTreeMap<Uuid, (&Role, End)> = BTreeMap::new();
    for grant in target.grants() {
        let role = grant.role.get();
        let ends = End::from(grant.expires_at());
        let (_, needed_until) = roles.entry(role.id).or_insert((role, ends));
        *needed_until = ends.max(*needed_until);
    }
    roles.into_values().map(|(role, needed_until)| {
        let held_until = right(actor, role.level, role.permissions.iter())?;
        Ok(Right { held_until, needed_until })
    })
}

fn latest(actor: &Standing, has_it: impl Fn(&Grant) -> bool) -> Option<End> {
    actor.unscoped().filter(|grant| has_it(grant)).map(|grant| grant.expires_at().into()).max()
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
