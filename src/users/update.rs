//! `UpdateUser`

use super::{
    Users, email,
    store::{self, UserRow},
};
use crate::{
    audit::{self, Event, EventKind},
    error::{Error, Result},
    gate::{Caller, Reach},
    ids::UserId,
    proto::v1::{ErrorReason, UpdateUserRequest, UpdateUserResponse},
    roles::guard,
    updates::{Mask, check_etag},
};

impl Users {
    pub(super) async fn update(
        &self,
        caller: &Caller,
        reach: Reach,
        user: UserId,
        message: UpdateUserRequest,
    ) -> Result<UpdateUserResponse> {
        let tenant = caller.tenant();
        let mask = Mask::read(message.update_mask.as_ref(), &["display_name", "email"])?;
        let display_name = mask.take("display_name", message.display_name)?;
        let email = mask.take("email", message.email)?;
        // An email is a way into the account: changing one's own takes more
        // than a token that may have been stolen.
        if email.is_some() && reach != Reach::Tenant {
            return Err(Error::refused(
                ErrorReason::PermissionMissing,
                "the caller must hold user:update to change an email",
            ));
        }
        let mut tx = self.db.begin(tenant).await?;
        let mut row = store::lock(&mut tx, tenant, user).await?;
        check_etag(&message.etag, row.version)?;
        let before = row.clone();
        if user != caller.user() {
            guard::user_within_level(&mut tx, tenant, caller.standing(), user).await?;
        }
        if let Some(display_name) = display_name {
            row.display_name = display_name;
        }
        if let Some(email) = email {
            row.email_verified &= email::key(&email) == email::key(&row.email);
            row.email = email;
        }
        let row = store::update(&mut tx, &row).await?;
        let event = changed(&before, &row);
        audit::record(&mut tx, tenant, &caller.actor(), event).await?;
        let consistency_token = tx.consistency_token().await?;
        tx.commit().await?;
        Ok(UpdateUserResponse { user: Some(row.into()), consistency_token })
    }
}

/// Which fields changed: personal data itself is never in the trail.
fn changed(before: &UserRow, after: &UserRow) -> Event {
    let fields = [
        ("display_name", before.display_name != after.display_name),
        ("email", before.email != after.email),
    ];
    Event::new(EventKind::UserUpdated)
        .target(after.user_id)
        .list("fields", fields.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name))
        .change("email_verified", before.email_verified, after.email_verified)
}
