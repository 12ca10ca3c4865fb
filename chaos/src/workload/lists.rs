//! Lists, which must not contain rows of other tenants.

use tenantry::proto::v1::{
    AuditEvent, ListEventsRequest, ListEventsResponse, ListUsersRequest, ListUsersResponse,
};

use super::call::Client;
use crate::history::Op;

const LIST_EVENTS: &str = "/tenantry.v1.AuditService/ListEvents";

impl Client {
    /// Lists the newest audit events.
    pub async fn list_events(&mut self, tenant: usize) {
        self.events_page(tenant, 50, String::new()).await;
    }

    /// Lists the users.
    pub async fn list_users(&mut self, tenant: usize) {
        let path = "/tenantry.v1.UserService/ListUsers";
        let message = ListUsersRequest { page_size: 100, ..Default::default() };
        let arguments = format!("tenant {tenant}");
        let (mut op, response) =
            self.send_as_admin::<_, ListUsersResponse>(path, tenant, arguments, message).await;
        let users = response.map(|response| response.users).unwrap_or_default();
        let rows = users.iter().map(|user| (user.tenant_id.as_str(), user.id.as_str()));
        note_foreign_rows(&mut op, &self.world.tenants[tenant].id, rows);
        self.record(op);
    }

    /// All events of the tenant; `None` if a call failed.
    pub async fn all_events(&mut self, tenant: usize) -> Option<Vec<AuditEvent>> {
        let mut events = Vec::new();
        let mut page_token = String::new();
        loop {
            let page = self.events_page(tenant, 1000, page_token).await?;
            events.extend(page.events);
            if page.next_page_token.is_empty() {
                return Some(events);
            }
            page_token = page.next_page_token;
        }
    }

    async fn events_page(
        &mut self,
        tenant: usize,
        page_size: i32,
        page_token: String,
    ) -> Option<ListEventsResponse> {
        let message = ListEventsRequest { page_size, page_token, ..Default::default() };
        let arguments = format!("tenant {tenant}");
        let (mut op, response) = self
            .send_as_admin::<_, ListEventsResponse>(LIST_EVENTS, tenant, arguments, message)
            .await;
        if let Some(response) = &response {
            let events = response.events.iter();
            let rows = events.map(|event| (event.tenant_id.as_str(), event.id.as_str()));
            note_foreign_rows(&mut op, &self.world.tenants[tenant].id, rows);
        }
        self.record(op);
        response
    }
}

/// Adds the rows that belong to another tenant. A row is the id of its tenant and its own id.
fn note_foreign_rows<'a>(
    op: &mut Op,
    tenant_id: &str,
    rows: impl Iterator<Item = (&'a str, &'a str)>,
) {
    for (row_tenant, id) in rows {
        if row_tenant != tenant_id {
            op.foreign_rows.push(format!("row {id} of tenant {row_tenant}"));
        }
    }
}
