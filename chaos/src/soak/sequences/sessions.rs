//! Sessions of users that stay. Their rows are kept until the trim deletes them.

use fastrand::Rng;
use tenantry::proto::v1::{
    GetJwksRequest, GetSessionRequest, IntrospectTokenRequest, ListSessionsRequest, LogoutRequest,
    RefreshRequest, RevokeAllSessionsRequest, RevokeSessionRequest, WhoAmIRequest,
};

use super::{Mix, Result};
use crate::{soak::setup::Tenant, workload::PASSWORD};

impl Mix {
    pub(super) async fn use_session(&self, tenant: &Tenant, rng: &mut Rng) -> Result {
        let (admin, anonymous) = (&tenant.admin, &self.anonymous);
        let user = &tenant.users[rng.usize(..tenant.users.len())];
        let (tokens, client) = anonymous.sign_in(&tenant.slug, &user.email, PASSWORD).await?;
        client.call("WhoAmI", async || client.auth().who_am_i(WhoAmIRequest {}).await).await?;
        anonymous
            .call("GetJwks", async || anonymous.auth().get_jwks(GetJwksRequest {}).await)
            .await?;
        let (mut access_token, mut refresh_token, mut session_id) =
            (tokens.access_token, tokens.refresh_token, tokens.session_id);
        for _ in 0..3 {
            let request = RefreshRequest { refresh_token, request_id: self.new_name("refresh") };
            let new = anonymous
                .call("Refresh", async || anonymous.auth().refresh(request.clone()).await)
                .await?;
            (access_token, refresh_token, session_id) =
                (new.access_token, new.refresh_token, new.session_id);
            let request = IntrospectTokenRequest { token: access_token.clone() };
            admin
                .call("IntrospectToken", async || {
                    admin.auth().introspect_token(request.clone()).await
                })
                .await?;
        }
        let client = anonymous.with_token(&access_token);
        let request = GetSessionRequest { session_id: session_id.clone() };
        admin
            .call("GetSession", async || admin.sessions().get_session(request.clone()).await)
            .await?;
        let request =
            ListSessionsRequest { user_id: user.id.clone(), page_size: 20, ..Default::default() };
        admin
            .call("ListSessions", async || admin.sessions().list_sessions(request.clone()).await)
            .await?;
        if rng.bool() {
            let request = RevokeSessionRequest { session_id };
            let sent = async || admin.sessions().revoke_session(request.clone()).await;
            return admin.call("RevokeSession", sent).await.map(drop);
        }
        let request = LogoutRequest { session_id };
        client.call("Logout", async || client.auth().logout(request.clone()).await).await.map(drop)
    }

    /// Opens a session of a user that no other worker uses, and ends all sessions of the user.
    pub(super) async fn end_all_sessions(
        &self,
        tenant: &Tenant,
        email: &str,
        user_id: String,
        password: &str,
    ) -> Result {
        let admin = &tenant.admin;
        self.anonymous.sign_in(&tenant.slug, email, password).await?;
        let request = RevokeAllSessionsRequest { user_id };
        let sent = async || admin.sessions().revoke_all_sessions(request.clone()).await;
        admin.call("RevokeAllSessions", sent).await.map(drop)
    }
}
