//! TenantService over gRPC.

use tonic::{Request, Response, Status};

use super::{
    TenantRef, create,
    create::NewTenant,
    settings,
    store::{self, TenantRow},
};
use crate::{
    audit::{self, Event},
    clock::timestamp,
    db::Db,
    error::{Error, Result},
    gate::{self, Caller},
    idempotency::{self, Key},
    ids::TenantId,
    listing::{self, Filter},
    permissions::scope,
    proto::v1::{
        CreateTenantRequest, CreateTenantResponse, DeleteTenantRequest, DeleteTenantResponse,
        ErrorReason, GetTenantRequest, GetTenantResponse, ListTenantsRequest, ListTenantsResponse,
        ReactivateTenantRequest, ReactivateTenantResponse, SuspendTenantRequest,
        SuspendTenantResponse, Tenant, TenantState, UpdateTenantRequest, UpdateTenantResponse,
        tenant_service_server::TenantService,
    },
    sessions::SessionCache,
    updates::{Mask, check_etag, etag},
};

/// Manages tenants over gRPC.
pub struct Tenants {
    /// Postgres.
    pub db: Db,
    /// What a suspension must leave.
    pub cache: SessionCache,
    /// The shortest password that the server allows.
    pub min_length: usize,
}

#[tonic::async_trait]
impl TenantService for Tenants {
    async fn create_tenant(
        &self,
        request: Request<CreateTenantRequest>,
    ) -> Result<Response<CreateTenantResponse>, Status> {
        let caller = gate::caller(&request)?;
        let message = request.into_inner();
        Ok(Response::new(self.create(&caller, message).await?))
    }

    async fn get_tenant(
        &self,
        request: Request<GetTenantRequest>,
    ) -> Result<Response<GetTenantResponse>, Status> {
        let caller = gate::caller(&request)?;
        let tenant = self.reachable(&caller, &request.get_ref().tenant).await?;
        let mut tx = self.db.begin(tenant).await?;
        let row = store::get(&mut tx, tenant).await?;
        if tenant != caller.tenant() {
            let event = Event::new("acted_across_tenants").detail("method", "GetTenant");
            audit::record(&mut tx, tenant, &caller.actor(), event).await?;
            tx.commit().await?;
        }
        Ok(Response::new(GetTenantResponse { tenant: Some(row.into()) }))
    }

    async fn list_tenants(
        &self,
        request: Request<ListTenantsRequest>,
    ) -> Result<Response<ListTenantsResponse>, Status> {
        let caller = gate::caller(&request)?;
        let message = request.into_inner();
        let filter = Filter::parse(&message.filter, &["state", "slug", "name"])?;
        let state = filter.choice("state", "TENANT_STATE_", TenantState::from_str_name)?;
        let page = listing::page(
            message.page_size,
            &message.page_token,
            &("tenants", caller.home(), &message.filter),
        )?;
        let (slug, name) = (filter.like("slug"), filter.like("name"));
        let mut tx = self.db.begin(caller.home()).await?;
        let rows =
            store::list(&mut tx, state.map(state_text), slug.as_deref(), name.as_deref(), &page)
                .await?;
        let (rows, next_page_token) = page.cut(rows, |row| row.tenant_id);
        let tenants = rows.into_iter().map(Tenant::from).collect();
        Ok(Response::new(ListTenantsResponse { tenants, next_page_token }))
    }

    async fn update_tenant(
        &self,
        request: Request<UpdateTenantRequest>,
    ) -> Result<Response<UpdateTenantResponse>, Status> {
        let caller = gate::caller(&request)?;
        let message = request.into_inner();
        let tenant = self.reachable(&caller, &message.tenant).await?;
        let row = self.update(&caller, tenant, message).await?;
        Ok(Response::new(UpdateTenantResponse { tenant: Some(row.into()) }))
    }

    async fn suspend_tenant(
        &self,
        request: Request<SuspendTenantRequest>,
    ) -> Result<Response<SuspendTenantResponse>, Status> {
        let caller = gate::caller(&request)?;
        let tenant = self.of_platform_staff(&request.get_ref().tenant).await?;
        let row = self.set_state(&caller, tenant, TenantState::Suspended).await?;
        Ok(Response::new(SuspendTenantResponse { tenant: Some(row.into()) }))
    }

    async fn reactivate_tenant(
        &self,
        request: Request<ReactivateTenantRequest>,
    ) -> Result<Response<ReactivateTenantResponse>, Status> {
        let caller = gate::caller(&request)?;
        let tenant = self.of_platform_staff(&request.get_ref().tenant).await?;
        let row = self.set_state(&caller, tenant, TenantState::Active).await?;
        Ok(Response::new(ReactivateTenantResponse { tenant: Some(row.into()) }))
    }

    async fn delete_tenant(
        &self,
        request: Request<DeleteTenantRequest>,
    ) -> Result<Response<DeleteTenantResponse>, Status> {
        let caller = gate::caller(&request)?;
        let message = request.into_inner();
        let tenant = self.of_platform_staff(&message.tenant).await?;
        refuse_platform(&tenant)?;
        let mut tx = self.db.begin(tenant.id).await?;
        let row = store::lock(&mut tx, tenant.id).await?;
        check_etag(&message.etag, row.version)?;
        store::delete(&mut tx, tenant.id).await?;
        let event = Event::new("tenant_deleted").target(tenant.id.0);
        audit::record(&mut tx, tenant.id, &caller.actor(), event).await?;
        tx.commit().await?;
        self.cache.forget(tenant.id).await;
        Ok(Response::new(DeleteTenantResponse {}))
    }
}

impl Tenants {
    async fn create(
        &self,
        caller: &Caller,
        message: CreateTenantRequest,
    ) -> Result<CreateTenantResponse> {
        let key = Key {
            tenant: caller.home(),
            actor: Some(caller.user()),
            method: "CreateTenant",
            request_id: &message.request_id,
            fingerprint: idempotency::fingerprint(&message),
        };
        let settings = message.settings.as_ref().map(|s| scope::object("settings", s));
        let mut tx = self.db.begin(caller.home()).await?;
        if let Some(first) = idempotency::recall(&mut tx, &key).await? {
            return Ok(first);
        }
        let id = TenantId::new();
        tx.enter(id).await?;
        let new = NewTenant {
            id,
            name: &message.name,
            slug: &create::slug_for(&message.slug, &message.name),
            settings: settings.transpose()?.unwrap_or_default(),
            server_min_length: self.min_length,
        };
        create::create(&mut tx, new).await?;
        let event = Event::new("tenant_created").target(id.0);
        audit::record(&mut tx, id, &caller.actor(), event).await?;
        let row = store::get(&mut tx, id).await?;
        let response = CreateTenantResponse { tenant: Some(row.into()) };
        tx.enter(caller.home()).await?;
        idempotency::remember(&mut tx, &key, &response).await?;
        tx.commit().await?;
        Ok(response)
    }

    async fn update(
        &self,
        caller: &Caller,
        tenant: TenantId,
        message: UpdateTenantRequest,
    ) -> Result<TenantRow> {
        let mask = Mask::read(message.update_mask.as_ref(), &["name", "slug", "settings"])?;
        let mut tx = self.db.begin(tenant).await?;
        let mut row = store::lock(&mut tx, tenant).await?;
        check_etag(&message.etag, row.version)?;
        if let Some(name) = mask.take("name", message.name)? {
            name.trim().clone_into(&mut row.name);
            if row.name.is_empty() {
                return Err(Error::field("name", "must not be blank"));
            }
        }
        if let Some(slug) = mask.take("slug", message.slug)? {
            row.slug = slug;
        }
        if let Some(settings) = mask.take("settings", message.settings)? {
            let settings = scope::object("settings", &settings)?;
            settings::check(&settings, self.min_length)?;
            row.settings = settings.into();
        }
        let row = store::update(&mut tx, &row).await?;
        let event = Event::new("tenant_updated").target(tenant.0);
        audit::record(&mut tx, tenant, &caller.actor(), event).await?;
        tx.commit().await?;
        Ok(row)
    }

    async fn set_state(
        &self,
        caller: &Caller,
        tenant: TenantRef,
        state: TenantState,
    ) -> Result<TenantRow> {
        refuse_platform(&tenant)?;
        let mut tx = self.db.begin(tenant.id).await?;
        let mut row = store::lock(&mut tx, tenant.id).await?;
        if row.state == state_text(state) {
            return Ok(row);
        }
        state_text(state).clone_into(&mut row.state);
        let row = store::update(&mut tx, &row).await?;
        let kind = match state {
            TenantState::Suspended => "tenant_suspended",
            _ => "tenant_reactivated",
        };
        audit::record(&mut tx, tenant.id, &caller.actor(), Event::new(kind).target(tenant.id.0))
            .await?;
        tx.commit().await?;
        self.cache.forget(tenant.id).await;
        Ok(row)
    }

    /// The tenant that a request names: the call's own, or for the platform's
    /// staff any. Another tenant looks as if it did not exist.
    async fn reachable(&self, caller: &Caller, named: &str) -> Result<TenantId> {
        if named.is_empty() {
            return Ok(caller.tenant());
        }
        let found = super::find(&self.db, named).await?.ok_or_else(Error::not_found)?;
        let across = caller.is_platform() && caller.standing()?.holds("tenant:act");
        if found.id == caller.tenant() || across {
            return Ok(found.id);
        }
        Err(Error::not_found())
    }

    /// The tenant that a request of the platform's staff names, whose method
    /// admits nobody else.
    async fn of_platform_staff(&self, named: &str) -> Result<TenantRef> {
        super::find(&self.db, named).await?.ok_or_else(Error::not_found)
    }
}

fn refuse_platform(tenant: &TenantRef) -> Result<()> {
    if tenant.is_platform {
        return Err(Error::refused(
            ErrorReason::PlatformTenant,
            "the platform tenant can't be suspended, reactivated or deleted",
        ));
    }
    Ok(())
}

fn state_text(state: TenantState) -> &'static str {
    match state {
        TenantState::Suspended => "suspended",
        TenantState::Active | TenantState::Unspecified => "active",
    }
}

impl From<TenantRow> for Tenant {
    fn from(row: TenantRow) -> Self {
        let state = match row.state.as_str() {
            "suspended" => TenantState::Suspended,
            _ => TenantState::Active,
        };
        Self {
            id: row.tenant_id.to_string(),
            name: row.name,
            slug: row.slug,
            settings: row.settings.as_object().map(scope::to_struct),
            state: state.into(),
            create_time: Some(timestamp(row.created_at)),
            update_time: Some(timestamp(row.updated_at)),
            etag: etag(row.version),
        }
    }
}
