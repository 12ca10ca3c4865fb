//! `ListUsers`. Names and parts of emails are sealed, so a condition on them is checked in each
//! row after it is opened.

mod filter;
mod store;

use filter::UserFilter;

use super::{Users, order::Order, store::Kept};
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
            id: row.user_id.0,
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
