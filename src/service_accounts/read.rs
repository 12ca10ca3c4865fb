//! `GetServiceAccount`, `ListServiceAccounts` and `ListApiKeys`.

use super::{
    ServiceAccounts,
    store::{self, AccountRow},
};
use crate::{
    api::filter::{Field, Filter, Kind},
    credentials::api_keys,
    error::Result,
    gate::Caller,
    ids::SubjectId,
    proto::v1::{ApiKey, ListApiKeysRequest, ListServiceAccountsRequest, ServiceAccount},
};

const FIELDS: &[Field] = &[Field { name: "name", kind: Kind::Text }];

impl ServiceAccounts {
    pub(super) async fn get(&self, caller: &Caller, account: SubjectId) -> Result<AccountRow> {
        let mut tx = self.db.begin(caller.tenant()).await?;
        store::get(&mut tx, caller.tenant(), account).await
    }

    /// A page of accounts and the token of the next page.
    pub(super) async fn list(
        &self,
        caller: &Caller,
        message: &ListServiceAccountsRequest,
    ) -> Result<(Vec<ServiceAccount>, String)> {
        let filter = Filter::parse(&message.filter, FIELDS)?;
        let mut page = self.pages.begin(caller.page_caller(), message)?;
        let mut tx = self.db.begin(caller.tenant()).await?;
        store::list(&mut tx, caller.tenant(), &filter, &mut page).await?;
        page.finish()
    }

    /// A page of an account's keys and the token of the next page.
    pub(super) async fn list_keys(
        &self,
        caller: &Caller,
        account: SubjectId,
        message: &ListApiKeysRequest,
    ) -> Result<(Vec<ApiKey>, String)> {
        let filter = Filter::parse(&message.filter, FIELDS)?;
        let mut page = self.pages.begin(caller.page_caller(), message)?;
        let tenant = caller.tenant();
        let mut tx = self.db.begin(tenant).await?;
        // `NOT_FOUND` when the account does not exist.
        store::get(&mut tx, tenant, account).await?;
        api_keys::store::list(&mut tx, tenant, account, &filter, &mut page).await?;
        page.finish()
    }
}
