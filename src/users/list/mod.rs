//! `ListUsers`. Names and emails are sealed, so a condition on a name or on a part of an email is
//! checked in each row after the row is opened. Postgres checks the other conditions.

mod filter;
mod store;

use filter::UserQuery;

use super::{Users, order::Order, store::SealedUserRow};
use crate::{
    api::paging::{Page, Position, ROWS_PER_READ},
    db::TenantTx,
    error::{Error, Result},
    gate::Caller,
    ids::TenantId,
    proto::v1::{ListUsersRequest, User},
};

impl Users {
    /// A page of users and the token of the next page.
    pub(super) async fn list(
        &self,
        caller: &Caller,
        message: &ListUsersRequest,
    ) -> Result<(Vec<User>, String)> {
        let query = UserQuery::parse(message)?;
        let mut page = self.pages.begin(caller.page_caller(), message)?;
        let mut tx = self.db.begin(caller.tenant()).await?;
        fill_page(&mut tx, caller.tenant(), &query, &mut page).await?;
        page.finish()
    }
}

/// Fills a page with users.
async fn fill_page(
    tx: &mut TenantTx,
    tenant: TenantId,
    query: &UserQuery,
    page: &mut Page<User>,
) -> Result<()> {
    let cipher = tx.cipher(tenant)?;
    let is_by_time = matches!(query.order, Order::SignedIn(_));
    while let Some(read) = page.next_read(ROWS_PER_READ) {
        let rows = store::next_rows(tx, tenant, &cipher, query, &read).await?;
        let position = |row: &SealedUserRow| Position {
            id: row.user_id.0,
            at: row.last_sign_in_at.filter(|_| is_by_time),
        };
        let to_user = |sealed: SealedUserRow| {
            let without_profile = sealed.without_profile();
            let row = match sealed.open(&cipher) {
                Ok(row) => row,
                // A text condition can't match a row that can't be opened.
                Err(Error::Unreadable) => {
                    return Ok((!query.text_conditions.has_text_condition())
                        .then(|| without_profile.into()));
                }
                Err(error) => return Err(error),
            };
            let value_of =
                |field: &str| if field == "email" { &*row.email } else { &*row.display_name };
            let is_match = query.text_conditions.matches_text(value_of);
            Ok(is_match.then(|| row.into()))
        };
        page.add_rows(read.batch(rows), position, to_user).await?;
    }
    Ok(())
}
