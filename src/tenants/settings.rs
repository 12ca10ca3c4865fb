//! A tenant's settings: a JSON object. The service interprets some keys. The other keys belong to
//! the tenant.

use serde_json::{Map, Value};

use super::store::TenantRow;
use crate::{
    error::{Error, Result},
    passwords::PasswordPolicy,
};

const SELF_REGISTRATION: &str = "self_registration";
/// The SQL function `subject_standings` also reads this key.
const API_KEY_BEARER: &str = "api_key_bearer";
const PASSWORD_MIN_LENGTH: &str = "password_min_length";

/// The keys that the service interprets.
pub(super) const KNOWN_KEYS: &[&str] = &[SELF_REGISTRATION, API_KEY_BEARER, PASSWORD_MIN_LENGTH];

/// Maximum size of the settings, in bytes of JSON.
const MAX_BYTES: usize = 64 * 1024;

/// The values of the keys that the service interprets.
pub struct KnownSettings {
    /// Whether users may register themselves; false when the key is not set.
    pub self_registration: bool,
    /// The minimum password length; `None` when the key is not set.
    pub password_min_length: Option<usize>,
}

impl KnownSettings {
    /// Reads a tenant's stored settings. A value of the wrong type is ignored; [`check`] refuses
    /// such values before they are stored. No key is set when the settings can't be read.
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

/// Whether these settings allow users to register themselves.
pub(super) fn opens_registration(settings: &Map<String, Value>) -> bool {
    settings.get(SELF_REGISTRATION) == Some(&Value::Bool(true))
}

/// Checks settings before they are stored.
///
/// # Errors
/// Returns `INVALID_ARGUMENT` for each interpreted key with an invalid value, and for settings that
/// are too large.
pub fn check(settings: &Map<String, Value>, server_policy: PasswordPolicy) -> Result<()> {
    let mut violations = Vec::new();
    let mut report = |key: &str, text: String| violations.push((format!("settings.{key}"), text));
    for key in [SELF_REGISTRATION, API_KEY_BEARER] {
        if settings.get(key).is_some_and(|value| !value.is_boolean()) {
            report(key, "must be true or false".into());
        }
    }
    if let Some(value) = settings.get(PASSWORD_MIN_LENGTH) {
        let length = value.as_u64().and_then(|length| usize::try_from(length).ok());
        let (min, max) = (server_policy.min_length(), usize::from(PasswordPolicy::HIGHEST));
        if !length.is_some_and(|length| (min..=max).contains(&length)) {
            report(PASSWORD_MIN_LENGTH, format!("must be a number from {min} to {max}"));
        }
    }
    if serde_json::to_string(settings).map_or(usize::MAX, |text| text.len()) > MAX_BYTES {
        violations
            .push(("settings".into(), format!("must have at most {MAX_BYTES} bytes as JSON")));
    }
    if violations.is_empty() { Ok(()) } else { Err(Error::Fields(violations)) }
}
