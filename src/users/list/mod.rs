//! `ListUsers`. Names and parts of emails are sealed, so a condition on them is checked in each
//! row after it is opened.

mod store;

use super::{UserState, Users, order::Order, store::Kept};
use crate::{
    api::{
        filter::{Field, Filter, Kind, Times},
        paging::{Page, Position, ROWS_PER_READ},
    },
    db::TenantTx,
    error::{Error, Result},
    gate::Caller,
    ids::TenantId,
    proto::v1::{self, ListUsersRequest, User},
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
struct UserFilter {
    state: Option<UserState>,
    id: Option<uuid::Uuid>,
    verified: Option<bool>,
    signed_in: Times,
    /// A whole email, which is looked up by its keyed hash.
    email: Option<String>,
    /// The conditions that are checked in the opened rows.
    texts: Filter,
    order: Order,
}

impl UserFilter {
    /// Parses a request's filter and order.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when they can't be parsed.
    fn parse(request: &ListUsersRequest) -> Result<Self> {
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

impl Users {
    /// A page of users and the token of the next page.
    pub(super) async fn list(
        &self,
        caller: &Caller,
        message: &ListUsersRequest,
    ) -> Result<(Vec<User>, String)> {
        let wanted = UserFilter::parse(message)?;
        let mut page = self.pages.begin(caller.asker(), message)?;
        let mut tx = self.db.begin(caller.tenant()).await?;
        fill(&mut tx, caller.tenant(), &wanted, &mut page).await?;
        page.finish()
    }
}

/// Fills a page with users.
async fn fill(
    tx: &mut TenantTx,
    tenant: TenantId,
    wanted: &UserFilter,
    page: &mut Page<User>,
) -> Result<()> {
    let cipher = tx.cipher(tenant)?;
    let is_by_time = matches!(wanted.order, Order::SignedIn(_));
    while let Some(read) = page.next_read(ROWS_PER_READ) {
        let rows = store::next(tx, tenant, &cipher, wanted, &read).await?;
        let position = |row: &Kept| Position {
            id: row.user_id,
            at: row.last_sign_in_at.filter(|_| is_by_time),
        };
        let show = |kept: Kept| {
            let unreadable = kept.unreadable();
            let row = match kept.open(&cipher) {
                Ok(row) => row,
                // A filter on texts can't match a row that can't be opened.
                Err(Error::Unreadable) => {
                    return Ok((!wanted.texts.has_text_condition()).then(|| unreadable.into()));
                }
                Err(error) => return Err(error),
            };
            let text =
                |field: &str| if field == "email" { &*row.email } else { &*row.display_name };
            let is_meant = wanted.texts.matches(text);
            Ok(is_meant.then(|| row.into()))
        };
        page.take(read.found(rows), position, show).await?;
    }
    Ok(())
}
