//! The state of a user.

use crate::{pg::text_enum, proto::v1};

text_enum! {
    /// The state of a user. A service account has no state of its own and is always active.
    UserState {
        Active = "active",
        Disabled = "disabled",
    }
}

impl From<UserState> for v1::UserState {
    fn from(state: UserState) -> Self {
        match state {
            UserState::Active => Self::Active,
            UserState::Disabled => Self::Disabled,
        }
    }
}

/// Converts the state in a filter, where `USER_STATE_UNSPECIFIED` means active.
impl From<v1::UserState> for UserState {
    fn from(state: v1::UserState) -> Self {
        match state {
            v1::UserState::Disabled => Self::Disabled,
            v1::UserState::Active | v1::UserState::Unspecified => Self::Active,
        }
    }
}
