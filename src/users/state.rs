//! The state of a user.

use serde::Deserialize;

use crate::proto::v1;

/// The state of a user, in the column `users.state`. A service account has no state: it can't be
/// disabled, so decisions treat it as active.
///
/// The column has a check constraint, so any other text is a defect: the statement that reads the
/// text fails with INTERNAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum UserState {
    Active,
    Disabled,
}

impl UserState {
    /// The text in the column.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_texts_of_as_str_are_parsed() {
        for state in [UserState::Active, UserState::Disabled] {
            let text = format!("\"{}\"", state.as_str());
            assert_eq!(serde_json::from_str::<UserState>(&text).ok(), Some(state));
        }
        for text in ["", "Active", "blue"] {
            let text = format!("\"{text}\"");
            assert!(serde_json::from_str::<UserState>(&text).is_err(), "{text}");
        }
    }
}
