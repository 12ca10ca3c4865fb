//! `WhoAmI`: returns the caller, its tenant, its roles and its permissions.

use super::SignIns;
use crate::{
    error::Result, gate::Caller, proto::v1::WhoAmIResponse, service_accounts, tenants,
    tokens::SubjectType, users,
};

impl SignIns {
    pub async fn who_am_i(&self, caller: &Caller) -> Result<WhoAmIResponse> {
        let (tenant, subject) = (caller.own_tenant(), caller.user());
        let standing = caller.standing();
        let mut tx = self.db.begin(tenant).await?;
        let (user, service_account) = match caller.subject_type() {
            SubjectType::User => {
                (Some(users::store::get(&mut tx, tenant, subject).await?.into()), None)
            }
            SubjectType::ServiceAccount => {
                let account = service_accounts::store::get(&mut tx, tenant, subject).await?;
                (None, Some(account.into()))
            }
        };
        let tenant_row = tenants::store::get(&mut tx, tenant).await?;
        let permissions = standing.held_everywhere().await;
        Ok(WhoAmIResponse {
            user,
            service_account,
            tenant: Some(tenant_row.into()),
            session_id: caller.session().to_string(),
            roles: standing.role_names(),
            permissions,
        })
    }
}
