//! The probe of a replica after a fault.

use tenantry::proto::v1::{CheckRequest, CheckResponse, Consistency};

use super::{
    call::{Call, Client},
    world::PERMISSIONS,
};

impl Client {
    /// Whether a replica answers a fully consistent Check and a write.
    pub async fn probe(&mut self, replica: usize) -> bool {
        let world = self.world.clone();
        let tenant = world.probe_tenant();
        let call = Call {
            path: "/tenantry.v1.PermissionService/Check",
            token: &world.tenants[tenant].admin_token,
            tenant: Some(tenant),
            arguments: "probe".to_owned(),
            replica: Some(replica),
        };
        let message = CheckRequest {
            permission: PERMISSIONS[0].to_owned(),
            consistency: Consistency::FullyConsistent.into(),
            ..Default::default()
        };
        let (op, _) = self.send::<_, CheckResponse>(call, message).await;
        let answers = op.is_ok();
        self.record(op);
        let role = world.tenants[tenant].roles[0];
        answers && self.update_role(role, Some(replica)).await
    }
}
