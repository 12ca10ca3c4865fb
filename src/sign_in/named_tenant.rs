//! The tenant that a public call names, in its metadata or in its message. For calls with a token
//! see `gate/admit.rs`.

use std::net::IpAddr;

use crate::{
    config::TenantlessSignIn,
    db::Db,
    error::{Error, Result},
    gate::NamedTenant,
    ids::TenantId,
    limits::Limits,
    proto::v1::ErrorReason,
    tenants,
};

/// Whether a call that names no tenant finds accounts only by verified email addresses.
///
/// # Errors
/// `TENANT_REQUIRED` when the setting requires each call to name its tenant.
pub fn only_verified_emails(setting: TenantlessSignIn) -> Result<bool> {
    match setting {
        TenantlessSignIn::Verified => Ok(true),
        TenantlessSignIn::Any => Ok(false),
        TenantlessSignIn::Off => Err(Error::refused(
            ErrorReason::TenantRequired,
            "name the tenant in organization_slug, x-tenant-id or x-organization-slug",
        )),
    }
}

/// The tenant whose id a credential contains, and the tenant whose limits the call counts against.
/// Anybody can make a credential with the id of a tenant that does not exist. For such a
/// credential, the tenant is [`TenantId::UNKNOWN`], and the call counts against a placeholder for
/// the client's network.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn tenant_and_charged_tenant(
    db: &Db,
    limits: &Limits,
    tenant: TenantId,
    ip: Option<IpAddr>,
) -> Result<(TenantId, TenantId)> {
    let network_placeholder = limits.placeholder_tenant_of_network(ip);
    Ok(match db.cipher_in_share(network_placeholder, tenant).await? {
        Some(_) => (tenant, tenant),
        None => (TenantId::UNKNOWN, network_placeholder),
    })
}

/// The tenant whose limits a call counts against: the named tenant; a placeholder for the name if
/// no such tenant exists; a placeholder for the client's network if no tenant is named.
pub fn charged_tenant(limits: &Limits, named: &NamedTenant, ip: Option<IpAddr>) -> TenantId {
    match named {
        NamedTenant::Known(tenant) => tenant.id,
        NamedTenant::Unknown(name) => limits.placeholder_tenant(name),
        NamedTenant::Absent => limits.placeholder_tenant_of_network(ip),
    }
}

/// The tenant that a call names, in its metadata or by a slug in its message.
///
/// # Errors
/// `INVALID_ARGUMENT` when the metadata and the message name different tenants.
pub async fn resolve_tenant(
    db: &Db,
    limits: &Limits,
    from_metadata: &NamedTenant,
    slug: &str,
    ip: Option<IpAddr>,
) -> Result<NamedTenant> {
    let name_in_metadata = match from_metadata {
        NamedTenant::Absent if slug.is_empty() => return Ok(NamedTenant::Absent),
        NamedTenant::Absent => {
            let network_placeholder = limits.placeholder_tenant_of_network(ip);
            let tenant = tenants::find(db, network_placeholder, slug).await?;
            let unknown_tenant = || NamedTenant::Unknown(slug.to_owned());
            return Ok(tenant.map_or_else(unknown_tenant, NamedTenant::Known));
        }
        NamedTenant::Known(tenant) => &tenant.slug,
        NamedTenant::Unknown(name) => name,
    };
    if !slug.is_empty() && slug != name_in_metadata {
        let text = "must be empty, or the slug of the tenant that the metadata names";
        return Err(Error::field("organization_slug", text));
    }
    Ok(from_metadata.clone())
}
