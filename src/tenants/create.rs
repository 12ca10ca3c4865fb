//! Makes a tenant with its system roles.

use serde_json::{Map, Value};

use super::{settings, slug, store};
use crate::{
    db::TenantTx,
    error::{Error, Result},
    ids::{RoleId, TenantId},
    roles::system,
};

/// The slug that a request asks for: the one it gives, else its name's.
#[must_use]
pub fn slug_for(given: &str, name: &str) -> String {
    if given.is_empty() { slug::from_name(name) } else { given.to_owned() }
}

/// A tenant to make.
pub struct NewTenant<'a> {
    /// Its id: the transaction's tenant.
    pub id: TenantId,
    /// Its name.
    pub name: &'a str,
    /// Its slug.
    pub slug: &'a str,
    /// Its settings.
    pub settings: Map<String, Value>,
    /// The shortest password that the server allows.
    pub server_min_length: usize,
}

/// Makes the tenant, and returns its `org_admin` role.
///
/// # Errors
/// `INVALID_ARGUMENT` for settings that make no sense, `ALREADY_EXISTS` when the
/// slug is taken.
pub async fn create(tx: &mut TenantTx, new: NewTenant<'_>) -> Result<RoleId> {
    settings::check(&new.settings, new.server_min_length)?;
    let name = new.name.trim();
    if name.is_empty() {
        return Err(Error::field("name", "must not be blank"));
    }
    store::insert(tx, new.id, name, new.slug, &Value::Object(new.settings)).await?;
    system::create(tx, new.id, system::ORGANISATION).await
}
