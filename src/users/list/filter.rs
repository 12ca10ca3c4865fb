//! The filter and the order of `ListUsers`.

use super::super::{UserState, order::Order};
use crate::{
    api::filter::{Field, Filter, Kind, TimeRange},
    error::Result,
    proto::v1::{self, ListUsersRequest},
};

const FIELDS: &[Field] = &[
    Field { name: "id", kind: Kind::Id },
    Field {
        name: "state",
        kind: Kind::Enum("USER_STATE_", |name| v1::UserState::from_str_name(name).map(i32::from)),
    },
    Field { name: "email", kind: Kind::Text },
    Field { name: "display_name", kind: Kind::Text },
    Field { name: "email_verified", kind: Kind::Flag },
    Field { name: "last_sign_in_time", kind: Kind::Time },
];

/// The conditions and the order of a list.
pub(super) struct UserQuery {
    pub(super) state: Option<UserState>,
    pub(super) id: Option<uuid::Uuid>,
    pub(super) email_verified: Option<bool>,
    pub(super) last_sign_in: TimeRange,
    /// A whole email, which is looked up by its keyed hash.
    pub(super) email: Option<String>,
    /// The conditions on sealed texts, which are checked in each row after the row is opened.
    pub(super) text_conditions: Filter,
    pub(super) order: Order,
}

impl UserQuery {
    /// Parses a request's filter and order.
    ///
    /// # Errors
    /// Returns `INVALID_ARGUMENT` when the filter or the order can't be parsed.
    pub(super) fn parse(request: &ListUsersRequest) -> Result<Self> {
        let mut filter = Filter::parse(&request.filter, FIELDS)?;
        Ok(Self {
            state: filter.enum_value("state").map(|state: v1::UserState| state.into()),
            id: filter.id("id"),
            email_verified: filter.flag("email_verified"),
            last_sign_in: filter.time_range("last_sign_in_time"),
            email: filter.take_whole_text("email"),
            text_conditions: filter,
            order: Order::parse(&request.order_by)?,
        })
    }
}
