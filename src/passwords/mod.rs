//! Passwords: the rules for new ones, and how they are hashed and stored.

mod common;
mod hasher;
mod metrics;
mod pepper;
mod presented;
mod queue;
mod rules;
mod scheme;
mod stored_hash;

pub use hasher::{Hasher, QueueSlot, WorstCase};
pub use presented::Presented;
pub use rules::{Context, check};
pub use scheme::Outcome;
pub use stored_hash::check_import;

use secrecy::SecretString;
use unicode_normalization::UnicodeNormalization;

use crate::{
    error::Result,
    tenants::{settings::Known, store::TenantRow},
};

/// The normalised form of a password, which is hashed: NFKC (SP 800-63B-4, section 3.1.1.2).
/// With it, the encoding that a keyboard produces does not matter. Nothing else is changed.
#[must_use]
pub fn normalise(password: &str) -> SecretString {
    password.nfkc().collect::<String>().into()
}

/// Checks a new, normalised password of a tenant's user, by the server's rules and the
/// tenant's. The tenant can only make the rules stricter.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field`, as [`check`].
pub fn check_in(
    tenant: &TenantRow,
    password: &SecretString,
    field: &'static str,
    email: &str,
    server_min_length: usize,
) -> Result<()> {
    let wanted = Known::read(tenant).password_min_length.unwrap_or_default();
    let context = Context {
        email,
        tenant_name: &tenant.name,
        tenant_slug: &tenant.slug,
        min_length: wanted.max(server_min_length),
    };
    check(field, password, &context)
}
