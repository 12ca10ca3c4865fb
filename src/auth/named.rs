//! Which tenant a call without a token means: what the metadata and the message say.

use std::{net::IpAddr, str::FromStr};

use crate::{
    db::Db,
    error::{Error, Result},
    gate::NamedTenant,
    ids::TenantId,
    limits::Limits,
    proto::v1::ErrorReason,
    tenants,
};

/// Which addresses count where a sign-in or a reset names no tenant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TenantlessSignIn {
    /// Those that their users have proved.
    #[default]
    Verified,
    /// All, those that were proved before others.
    Any,
    /// None: the tenant must be named.
    Off,
}

impl TenantlessSignIn {
    /// Whether only addresses that were proved count.
    ///
    /// # Errors
    /// `TENANT_REQUIRED` where none does.
    pub(super) fn only_verified(self) -> Result<bool> {
        match self {
            Self::Verified => Ok(true),
            Self::Any => Ok(false),
            Self::Off => Err(Error::refused(
                ErrorReason::TenantRequired,
                "name the tenant: organization_slug, x-tenant-id or x-organization-slug",
            )),
        }
    }
}

impl FromStr for TenantlessSignIn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "verified" => Ok(Self::Verified),
            "any" => Ok(Self::Any),
            "off" => Ok(Self::Off),
            _ => Err("must be verified, any or off".to_owned()),
        }
    }
}

/// Whose share of what the server has a call takes: that of the tenant that it names, or of
/// what stands for it.
pub(super) fn share(limits: &Limits, named: &NamedTenant, ip: Option<IpAddr>) -> TenantId {
    match named {
        NamedTenant::Known(tenant) => tenant.id,
        NamedTenant::Unknown(name) => limits.stand_in(name),
        NamedTenant::Absent => limits.stand_in_of_network(ip),
    }
}

/// The tenant that a call names, in its metadata or by a slug in its message.
///
/// # Errors
/// `INVALID_ARGUMENT` when the two name different ones.
pub(super) async fn tenant(db: &Db, metadata: &NamedTenant, slug: &str) -> Result<NamedTenant> {
    let in_metadata = match metadata {
        NamedTenant::Absent if slug.is_empty() => return Ok(NamedTenant::Absent),
        NamedTenant::Absent => {
            let found = tenants::find(db, slug).await?;
            let unknown = || NamedTenant::Unknown(slug.to_owned());
            return Ok(found.map_or_else(unknown, NamedTenant::Known));
        }
        NamedTenant::Known(tenant) => &tenant.slug,
        NamedTenant::Unknown(name) => name,
    };
    if !slug.is_empty() && slug != in_metadata {
        let text = "must be empty, or the tenant that the metadata names";
        return Err(Error::field("organization_slug", text));
    }
    Ok(metadata.clone())
}
