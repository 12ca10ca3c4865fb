//! `UpdateTenant`

use super::{Tenants, audited, settings, store};
use crate::{
    audit::{self, Event, EventKind},
    error::Result,
    gate::Caller,
    ids::TenantId,
    json,
    proto::v1::{UpdateTenantRequest, UpdateTenantResponse},
    updates::{Mask, check_etag},
};

impl Tenants {
    pub(super) async fn update(
        &self,
        caller: &Caller,
        tenant: TenantId,
        message: UpdateTenantRequest,
    ) -> Result<UpdateTenantResponse> {
        let mask = Mask::read(message.update_mask.as_ref(), &["name", "slug", "settings"])?;
        let mut tx = self.db.begin(tenant).await?;
        let mut row = store::lock(&mut tx, tenant).await?;
        check_etag(&message.etag, row.version)?;
        let before = row.clone();
        if let Some(name) = mask.take("name", message.name)? {
            row.name = name;
        }
        if let Some(slug) = mask.take("slug", message.slug)? {
            row.slug = slug;
        }
        if let Some(settings) = mask.take("settings", message.settings)? {
            let settings = json::object("settings", &settings)?;
            settings::check(&settings, self.min_length)?;
            row.settings = json::store(&settings)?;
        }
        let row = store::update(&mut tx, &row).await?;
        let event = Event::new(EventKind::TenantUpdated).target(tenant.0);
        let event = audited::changed(event, &before, &row);
        audit::record(&mut tx, tenant, &caller.actor(), event).await?;
        let consistency_token = tx.consistency_token().await?;
        tx.commit().await?;
        Ok(UpdateTenantResponse { tenant: Some(row.into()), consistency_token })
    }
}
