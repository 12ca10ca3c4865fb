//! `CreateServiceAccount` and `DeleteServiceAccount`.

use super::{ServiceAccounts, store};
use crate::{
    api::{
        bounds::SERVICE_ACCOUNTS_OF_TENANT,
        idempotency::{self, Key},
        update_mask::check_etag,
    },
    audit::{self, Event, EventKind},
    credentials::api_keys,
    error::Result,
    gate::WriteCaller,
    ids::SubjectId,
    proto::v1::{CreateServiceAccountRequest, CreateServiceAccountResponse},
    roles, tenants,
};

impl ServiceAccounts {
    pub(super) async fn create(
        &self,
        write_caller: &WriteCaller,
        message: CreateServiceAccountRequest,
    ) -> Result<CreateServiceAccountResponse> {
        let tenant = write_caller.tenant();
        let key = Key {
            tenant,
            actor: Some(write_caller.user()),
            method: "CreateServiceAccount",
            request_id: &message.request_id,
            fingerprint: idempotency::fingerprint(&message),
        };
        let tx = self.db.begin(tenant).await?;
        idempotency::once(tx, &key, async |tx| {
            // With this lock, concurrent calls can't exceed the limit together.
            tenants::store::lock(tx, tenant).await?;
            let caller = write_caller.authorize_write(tx, tenant).await?;
            SERVICE_ACCOUNTS_OF_TENANT.check(store::count(tx, tenant).await? + 1)?;
            let account = SubjectId::new();
            let row =
                store::insert(tx, tenant, account, &message.name, &message.description).await?;
            let event = Event::new(EventKind::ServiceAccountCreated).target(account.0);
            let event = event.detail("name", row.name.as_str());
            let consistency_token = audit::record_with_token(tx, &caller.actor(), event).await?;
            let service_account = Some(row.into());
            Ok((account.0, CreateServiceAccountResponse { service_account, consistency_token }))
        })
        .await
    }

    /// Deletes an account; returns the consistency token of the deletion.
    pub(super) async fn delete(
        &self,
        write_caller: &WriteCaller,
        account: SubjectId,
        etag: &str,
    ) -> Result<String> {
        let tenant = write_caller.tenant();
        let mut tx = self.db.begin(tenant).await?;
        let row = store::lock(&mut tx, tenant, account).await?;
        check_etag(etag, row.version)?;
        let caller = write_caller.authorize_take(&mut tx, account).await?;
        let assignments = roles::unexpired_assignments(&mut tx, tenant, account).await?;
        let keys = api_keys::store::valid_ids(&mut tx, tenant, account).await?;
        let ended_sessions = store::delete(&mut tx, tenant, account).await?;
        let event = Event::new(EventKind::ServiceAccountDeleted).target(account.0);
        let event = event
            .detail("name", row.name.as_str())
            .list("api_keys", keys.into_iter().map(|key| key.to_string()));
        let event = roles::audited::with_deleted_assignments(event, &assignments);
        self.session_cache.finish(tx, &caller.actor(), event, ended_sessions).await
    }
}
