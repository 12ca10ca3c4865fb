//! A tenant's settings: a JSON object, in which the service uses some keys.

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

/// The keys that the service uses.
pub(super) const KNOWN: &[&str] = &[SELF_REGISTRATION, API_KEY_BEARER, PASSWORD_MIN_LENGTH];

/// Maximum size of the settings, in bytes of JSON.
const MAX: usize = 64 * 1024;

/// The values of the keys that the service uses.
pub struct Known {
    /// Whether users may register themselves; false when not set.
    pub self_registration: bool,
    /// The minimum password length; `None` when not set.
    pub password_min_length: Option<usize>,
}

impl Known {
    /// Reads a tenant's stored settings. A value of the wrong type counts as not set; [`check`]
    /// refuses such values. All keys count as not set when the settings can't be read.
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

/// Whether users may register themselves.
pub(super) fn opens_registration(settings: &Map<String, Value>) -> bool {
    settings.get(SELF_REGISTRATION) == Some(&Value::Bool(true))
}

/// Checks settings before they are stored.
///
/// # Errors
/// `INVALID_ARGUMENT` for each known key with a wrong value, and for settings that are too large.
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
