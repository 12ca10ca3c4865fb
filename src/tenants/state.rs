//! The state of a tenant.

use crate::{pg::text_enum, proto::v1};

text_enum! {
    /// The state of a tenant.
    TenantState {
        Active = "active",
        Suspended = "suspended",
    }
}

impl From<TenantState> for v1::TenantState {
    fn from(state: TenantState) -> Self {
        match state {
            TenantState::Active => Self::Active,
            TenantState::Suspended => Self::Suspended,
        }
    }
}

/// Converts the state in a filter, where `TENANT_STATE_UNSPECIFIED` means active.
impl From<v1::TenantState> for TenantState {
    fn from(state: v1::TenantState) -> Self {
        match state {
            v1::TenantState::Suspended => Self::Suspended,
            v1::TenantState::Active | v1::TenantState::Unspecified => Self::Active,
        }
    }
}
