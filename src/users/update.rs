//! `UpdateUser`

use super::{Users, email, store};
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
        let event = Event::new(EventKind::UserUpdated).target(user.0);
        audit::record(&mut tx, tenant, &caller.actor(), event).await?;
        let consistency_token = tx.consistency_token().await?;
        tx.commit().await?;
        Ok(UpdateUserResponse { user: Some(row.into()), consistency_token })
    }
}
