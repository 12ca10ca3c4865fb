//! The state of a tenant.

use serde::Deserialize;

use crate::proto::v1;

/// The state of a tenant, in the column `tenants.state`.
///
/// The column has a check constraint, so any other text is a defect: the statement that reads the
/// text fails with INTERNAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum TenantState {
    Active,
    Suspended,
}

impl TenantState {
    /// The text in the column.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_texts_of_as_str_are_parsed() {
        for state in [TenantState::Active, TenantState::Suspended] {
            let text = format!("\"{}\"", state.as_str());
            assert_eq!(serde_json::from_str::<TenantState>(&text).ok(), Some(state));
        }
        for text in ["", "Active", "blue"] {
            let text = format!("\"{text}\"");
            assert!(serde_json::from_str::<TenantState>(&text).is_err(), "{text}");
        }
    }
}
