//! The password rules of a tenant.

use secrecy::SecretString;

use super::{settings::KnownSettings, store::TenantRow};
use crate::{
    error::Result,
    passwords::{ForbiddenWords, PasswordPolicy},
};

/// Checks a new, normalised password of a tenant's user against the server's policy and the
/// tenant's settings.
///
/// # Errors
/// Returns `INVALID_ARGUMENT` for `field` when [`PasswordPolicy::check`] refuses the password.
pub fn check_password(
    tenant: &TenantRow,
    server_policy: PasswordPolicy,
    field: &'static str,
    password: &SecretString,
    email: &str,
) -> Result<()> {
    let forbidden_words =
        ForbiddenWords { email, tenant_name: &tenant.name, tenant_slug: &tenant.slug };
    let policy = server_policy.for_tenant(KnownSettings::read(tenant).password_min_length);
    policy.check(field, password, &forbidden_words)
}
