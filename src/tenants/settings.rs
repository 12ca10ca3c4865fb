//! A tenant's settings: any JSON object, in which some keys have a meaning.

use serde_json::{Map, Value};

use super::store::TenantRow;
use crate::{
    error::{Error, Result},
    passwords::PasswordPolicy,
};

const SELF_REGISTRATION: &str = "self_registration";
/// Read by `subject_standings` in SQL.
const API_KEY_BEARER: &str = "api_key_bearer";
const PASSWORD_MIN_LENGTH: &str = "password_min_length";

/// The keys that have a meaning.
pub(super) const KNOWN: &[&str] = &[SELF_REGISTRATION, API_KEY_BEARER, PASSWORD_MIN_LENGTH];

/// The settings as JSON, in bytes, at most.
const MAX: usize = 64 * 1024;

/// What the known keys say.
pub struct Known {
    /// Whether people may register themselves; no, when not set.
    pub self_registration: bool,
    /// The shortest password; the server's own, when not set.
    pub password_min_length: Option<usize>,
}

impl Known {
    /// What a tenant's stored settings say. A value of the wrong type, which
    /// [`check`] never lets in, counts as not set, and so do all that can't be read.
    #[must_use]
    pub fn read(tenant: &TenantRow) -> Self {
        let settings = tenant.read_settings().unwrap_or_default();
        let length = settings.get(PASSWORD_MIN_LENGTH).and_then(Value::as_u64);
        Self {
            self_registration: opens_registration(&settings),
            password_min_length: length.and_then(|length| usize::try_from(length).ok()),
        }
    }
}

/// Whether people may register themselves.
pub(super) fn opens_registration(settings: &Map<String, Value>) -> bool {
    settings.get(SELF_REGISTRATION) == Some(&Value::Bool(true))
}

/// Checks settings before they are stored.
///
/// # Errors
/// `INVALID_ARGUMENT` for each known key with a wrong value, or too much text.
pub fn check(settings: &Map<String, Value>, server: PasswordPolicy) -> Result<()> {
    let mut wrong = Vec::new();
    let mut note = |key: &str, text: String| wrong.push((format!("settings.{key}"), text));
    for key in [SELF_REGISTRATION, API_KEY_BEARER] {
        if settings.get(key).is_some_and(|value| !value.is_boolean()) {
            note(key, "must be true or false".into());
        }
    }
    if let Some(value) = settings.get(PASSWORD_MIN_LENGTH) {
        let length = value.as_u64().and_then(|length| usize::try_from(length).ok());
        let (min, max) = (server.min_length(), usize::from(PasswordPolicy::HIGHEST));
        if !length.is_some_and(|length| (min..=max).contains(&length)) {
            note(PASSWORD_MIN_LENGTH, format!("must be a number from {min} to {max}"));
        }
    }
    if serde_json::to_string(settings).map_or(usize::MAX, |text| text.len()) > MAX {
        wrong.push(("settings".into(), format!("must have at most {MAX} bytes as JSON")));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::Fields(wrong)) }
}
