//! `GetUser` and `LookupUser`.

use super::{
    Users,
    store::{self, UserRow},
};
use crate::{
    error::{Error, Result},
    gate::Caller,
    ids::SubjectId,
};

impl Users {
    pub(super) async fn get(&self, caller: &Caller, user: SubjectId) -> Result<UserRow> {
        let mut tx = self.db.begin(caller.tenant()).await?;
        store::get(&mut tx, caller.tenant(), user).await
    }

    pub(super) async fn find_by_email(&self, caller: &Caller, email: &str) -> Result<UserRow> {
        let mut tx = self.db.begin(caller.tenant()).await?;
        let row = store::find_by_email(&mut tx, caller.tenant(), email).await?;
        row.ok_or_else(Error::not_found)
    }
}
