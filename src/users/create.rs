//! `CreateUser`.

use super::{Users, store};
use crate::{
    api::idempotency::{self, Key},
    audit::{self, Event, EventKind},
    credentials::password,
    error::Result,
    gate::WriteCaller,
    ids::UserId,
    limits::Owner,
    passwords,
    proto::v1::{CreateUserRequest, CreateUserResponse, create_user_request::Credential},
    tenants,
};

impl Users {
    pub(super) async fn create(
        &self,
        acting: &WriteCaller,
        mut message: CreateUserRequest,
    ) -> Result<CreateUserResponse> {
        let tenant = acting.tenant();
        let fingerprint = idempotency::fingerprint(&message);
        let credential = message.credential.take();
        let key = Key {
            tenant,
            actor: Some(acting.user()),
            method: "CreateUser",
            request_id: &message.request_id,
            fingerprint,
        };
        let fields = set_fields(&message, credential.as_ref());
        let hash = self.hash_of(acting, &message, credential).await?;
        let tx = self.db.begin(tenant).await?;
        idempotency::once(tx, &key, async |tx| {
            let caller = acting.authorize_write(tx, tenant).await?;
            let user = UserId::new();
            let row = store::insert(tx, tenant, user, &message.email, &message.display_name);
            let row = row.await?;
            if let Some(hash) = hash {
                password::set(tx, tenant, user, &hash).await?;
            }
            let event = Event::new(EventKind::UserCreated).target(user.0);
            let event = event.list("fields", fields).detail("email_verified", row.email_verified);
            let consistency_token = audit::record_with_token(tx, &caller.actor(), event).await?;
            Ok((user.0, CreateUserResponse { user: Some(row.into()), consistency_token }))
        })
        .await
    }

    async fn hash_of(
        &self,
        acting: &WriteCaller,
        message: &CreateUserRequest,
        credential: Option<Credential>,
    ) -> Result<Option<String>> {
        let password = match credential {
            None => return Ok(None),
            Some(Credential::PasswordHash(hash)) => {
                passwords::check_import("password_hash", &hash)?;
                return Ok(Some(hash));
            }
            Some(Credential::Password(password)) => passwords::normalise(&password),
        };
        let mut tx = self.db.begin(acting.tenant()).await?;
        let tenant = tenants::store::get(&mut tx, acting.tenant()).await?;
        drop(tx);
        let (policy, email) = (self.password_policy, &message.email);
        tenants::check_password(&tenant, policy, "password", &password, email)?;
        let owner = Owner::new(acting.tenant(), acting.ip());
        self.hasher.slot(owner)?.hash(password).await.map(Some)
    }
}

/// The names of the fields that the request sets.
fn set_fields(message: &CreateUserRequest, credential: Option<&Credential>) -> Vec<&'static str> {
    let credential = credential.map(|credential| match credential {
        Credential::Password(_) => "password",
        Credential::PasswordHash(_) => "password_hash",
    });
    let name = (!message.display_name.is_empty()).then_some("display_name");
    ["email"].into_iter().chain(name).chain(credential).collect()
}
