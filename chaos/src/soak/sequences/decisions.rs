//! Decisions and lists about users that stay.

use fastrand::Rng;
use tenantry::proto::v1::{
    BatchCheckItem, BatchCheckRequest, CheckRequest, Consistency, ListEventsRequest,
    ListPermissionsRequest, ListSubjectsRequest, ListUsersRequest, LookupUserRequest,
};

use super::{Mix, Result};
use crate::soak::setup::{PERMISSIONS, Tenant};

impl Mix {
    /// Asks for decisions, most of which a cache may answer.
    pub(super) async fn decide(&self, tenant: &Tenant, rng: &mut Rng) -> Result {
        let admin = &tenant.admin;
        let permission = || PERMISSIONS[0].to_owned();
        for _ in 0..4 {
            let request = CheckRequest {
                user_id: tenant.users[rng.usize(..tenant.users.len())].id.clone(),
                permission: permission(),
                ..Default::default()
            };
            admin.call("Check", async || admin.permissions().check(request.clone()).await).await?;
        }
        let user = &tenant.users[rng.usize(..tenant.users.len())];
        let items = tenant.users.iter().map(|user| BatchCheckItem {
            user_id: user.id.clone(),
            permission: permission(),
            ..Default::default()
        });
        let request = BatchCheckRequest { items: items.collect(), ..Default::default() };
        admin
            .call("BatchCheck", async || admin.permissions().batch_check(request.clone()).await)
            .await?;
        let request = ListPermissionsRequest { user_id: user.id.clone(), ..Default::default() };
        admin
            .call("ListPermissions", async || {
                admin.permissions().list_permissions(request.clone()).await
            })
            .await?;
        match rng.u8(..4) {
            0 => {
                let request = CheckRequest {
                    user_id: user.id.clone(),
                    permission: permission(),
                    consistency: Consistency::FullyConsistent.into(),
                    explain: true,
                    ..Default::default()
                };
                admin
                    .call("Check", async || admin.permissions().check(request.clone()).await)
                    .await
                    .map(drop)
            }
            1 => {
                let request =
                    ListSubjectsRequest { permission: permission(), ..Default::default() };
                let sent = async || admin.permissions().list_subjects(request.clone()).await;
                admin.call("ListSubjects", sent).await.map(drop)
            }
            2 => {
                let request = ListEventsRequest { page_size: 20, ..Default::default() };
                admin
                    .call("ListEvents", async || admin.audit().list_events(request.clone()).await)
                    .await
                    .map(drop)
            }
            _ => {
                let request = ListUsersRequest { page_size: 20, ..Default::default() };
                admin
                    .call("ListUsers", async || admin.users().list_users(request.clone()).await)
                    .await?;
                let request = LookupUserRequest { email: user.email.clone() };
                admin
                    .call("LookupUser", async || admin.users().lookup_user(request.clone()).await)
                    .await
                    .map(drop)
            }
        }
    }
}
