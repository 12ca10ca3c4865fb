//! The filter and the order of `ListUsers`.

use super::super::{UserState, order::Order};
use crate::{
    api::filter::{Field, Filter, Kind, Times},
    error::Result,
    proto::v1::{self, ListUsersRequest},
};

const FIELDS: &[Field] = &[
    Field { name: "id", kind: Kind::Id },
    Field {
        name: "state",
        kind: Kind::Choice("USER_STATE_", |name| v1::UserState::from_str_name(name).map(i32::from)),
    },
    Field { name: "email", kind: Kind::Text },
    Field { name: "display_name", kind: Kind::Text },
    Field { name: "email_verified", kind: Kind::Flag },
    Field { name: "last_sign_in_time", kind: Kind::Time },
];

/// The filter and the order of a list.
pub(super) struct UserFilter {
    pub(super) state: Option<UserState>,
    pub(super) id: Option<uuid::Uuid>,
    pub(super) verified: Option<bool>,
    pub(super) signed_in: Times,
    /// A whole email, which is looked up by its keyed hash.
    pub(super) email: Option<String>,
    /// The conditions that are checked in the opened rows.
    pub(super) texts: Filter,
    pub(super) order: Order,
}

impl UserFilter {
    /// Parses a request's filter and order.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when they can't be parsed.
    pub(super) fn parse(request: &ListUsersRequest) -> Result<Self> {
        let mut filter = Filter::parse(&request.filter, FIELDS)?;
        Ok(Self {
            state: filter.choice("state").map(|state: v1::UserState| state.into()),
            id: filter.id("id"),
            verified: filter.flag("email_verified"),
            signed_in: filter.times("last_sign_in_time"),
            email: filter.take_exact("email"),
            texts: filter,
            order: Order::parse(&request.order_by)?,
        })
    }
}
