//! `CreateUser`.

use super::{Users, store};
use crate::{
    api::idempotency::{self, Key},
    audit::{self, Event, EventKind},
    credentials::password,
    email,
    error::Result,
    gate::WriteCaller,
    ids::SubjectId,
    limits::WorkOwner,
    passwords,
    proto::v1::{CreateUserRequest, CreateUserResponse, create_user_request::Credential},
    tenants,
};

impl Users {
    pub(super) async fn create(
        &self,
        write_caller: &WriteCaller,
        mut message: CreateUserRequest,
    ) -> Result<CreateUserResponse> {
        email::check("email", &message.email)?;
        let tenant = write_caller.tenant();
        let fingerprint = idempotency::fingerprint(&message);
        let credential = message.credential.take();
        let key = Key {
            tenant,
            actor: Some(write_caller.user()),
            method: "CreateUser",
            request_id: &message.request_id,
            fingerprint,
        };
        let fields = present_field_names(&message, credential.as_ref());
        let hash = self.check_and_hash_credential(write_caller, &message, credential).await?;
        let tx = self.db.begin(tenant).await?;
        idempotency::once(tx, &key, async |tx| {
            let caller = write_caller.authorize_write(tx, tenant).await?;
            let user = SubjectId::new();
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

    /// Checks the credential of a new user. Returns the hash to store: the imported hash, or the
    /// hash of the password.
    async fn check_and_hash_credential(
        &self,
        write_caller: &WriteCaller,
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
        let mut tx = self.db.begin(write_caller.tenant()).await?;
        let tenant = tenants::store::get(&mut tx, write_caller.tenant()).await?;
        drop(tx);
        let (policy, email) = (self.password_policy, &message.email);
        tenants::check_password(&tenant, policy, "password", &password, email)?;
        let owner = WorkOwner::new(write_caller.tenant(), write_caller.ip());
        self.hasher.take_slot(owner)?.hash(password).await.map(Some)
    }
}

/// The names of the fields that the request sets.
fn present_field_names(
    message: &CreateUserRequest,
    credential: Option<&Credential>,
) -> Vec<&'static str> {
    let credential = credential.map(|credential| match credential {
        Credential::Password(_) => "password",
        Credential::PasswordHash(_) => "password_hash",
    });
    let name = (!message.display_name.is_empty()).then_some("display_name");
    ["email"].into_iter().chain(name).chain(credential).collect()
}
