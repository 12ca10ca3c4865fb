//! However a session ends, its end applies immediately on the same replica, and within a second on
//! all other replicas.

use tenantry::proto::v1::{
    ChangePasswordRequest, DeleteTenantRequest, DeleteUserRequest, DisableUserRequest,
    IntrospectTokenRequest, ListSessionsRequest, LogoutRequest, RefreshRequest,
    RevokeAllSessionsRequest, RevokeSessionRequest, SuspendTenantRequest, WhoAmIRequest,
};
use tonic::{Code, Status};

use crate::harness::{Client, PASSWORD, Proxy, TestApp, assert_refused, wait_until};

/// The ways to end sessions.
#[derive(Clone, Copy, Debug, PartialEq)]
enum SessionEnd {
    Logout,
    RevokeSession,
    RevokeAllSessions,
    ReuseOfARefreshToken,
    DisableUser,
    DeleteUser,
    ChangePassword,
    SuspendTenant,
    DeleteTenant,
}

const ALL_ENDS: [SessionEnd; 9] = [
    SessionEnd::Logout,
    SessionEnd::RevokeSession,
    SessionEnd::RevokeAllSessions,
    SessionEnd::ReuseOfARefreshToken,
    SessionEnd::DisableUser,
    SessionEnd::DeleteUser,
    SessionEnd::ChangePassword,
    SessionEnd::SuspendTenant,
    SessionEnd::DeleteTenant,
];

struct Setup {
    platform_admin: Client,
    admin: Client,
    victim: Client,
}

impl SessionEnd {
    /// Ends the session, on the replica behind `channel`.
    async fn perform(self, setup: &Setup, channel: &tonic::transport::Channel) {
        let Setup { platform_admin, admin, victim } = setup;
        let (platform_admin, admin, victim) = (
            platform_admin.on_server(channel),
            admin.on_server(channel),
            victim.on_server(channel),
        );
        let user_id = victim.user_id.clone();
        let session_id = victim.tokens.session_id.clone();
        let tenant = victim.tenant_id.clone();
        let result: Result<(), Status> = match self {
            Self::Logout => victim.auth().logout(LogoutRequest::default()).await.map(drop),
            Self::RevokeSession => {
                let request = RevokeSessionRequest { session_id };
                admin.sessions().revoke_session(request).await.map(drop)
            }
            Self::RevokeAllSessions => {
                let request = RevokeAllSessionsRequest { user_id };
                admin.sessions().revoke_all_sessions(request).await.map(drop)
            }
            Self::ReuseOfARefreshToken => {
                let refresh_token = victim.tokens.refresh_token.clone();
                let request = RefreshRequest { refresh_token, ..Default::default() };
                victim.auth().refresh(request.clone()).await.expect("refreshed");
                let second_result = victim.auth().refresh(request).await;
                assert_refused(second_result, Code::Unauthenticated, "TOKEN_INVALID");
                Ok(())
            }
            Self::DisableUser => {
                admin.users().disable_user(DisableUserRequest { user_id }).await.map(drop)
            }
            Self::DeleteUser => {
                let request = DeleteUserRequest { user_id, ..Default::default() };
                admin.users().delete_user(request).await.map(drop)
            }
            Self::ChangePassword => {
                let other_session = victim.login(&victim.slug, &victim.email, PASSWORD).await;
                let request = ChangePasswordRequest {
                    current_password: PASSWORD.into(),
                    new_password: "another long battery staple".into(),
                };
                other_session.auth().change_password(request).await.map(drop)
            }
            Self::SuspendTenant => platform_admin
                .tenants()
                .suspend_tenant(SuspendTenantRequest { tenant })
                .await
                .map(drop),
            Self::DeleteTenant => {
                let request = DeleteTenantRequest { tenant, ..Default::default() };
                platform_admin.tenants().delete_tenant(request).await.map(drop)
            }
        };
        result.expect("the session is ended");
    }

    /// The status that a call with the ended session gets.
    fn refusal(self) -> (Code, &'static str) {
        match self {
            Self::SuspendTenant => (Code::PermissionDenied, "TENANT_SUSPENDED"),
            _ => (Code::Unauthenticated, "TOKEN_INVALID"),
        }
    }

    #[track_caller]
    fn assert_refused<T: std::fmt::Debug>(self, reply: Result<tonic::Response<T>, Status>) {
        let (code, reason) = self.refusal();
        assert_refused(reply, code, reason);
    }

    /// Waits at most one second until the replica refuses the session.
    async fn wait_until_seen_by(self, client: &Client) {
        let expected = self.refusal().0;
        wait_until(1, || async { who_am_i(client).await.is_err_and(|s| s.code() == expected) })
            .await;
        self.assert_refused(who_am_i(client).await);
    }
}

/// Creates a tenant and a user whose session ends later. Both replicas have the session in their
/// caches.
async fn setup(
    app: &TestApp,
    second_replica: &TestApp,
    platform_admin: &Client,
    slug: &str,
) -> Setup {
    let admin = app.create_tenant(slug).await;
    let victim = admin.create_member("victim", &["user:read"]).await;
    for channel in [&app.channel, &second_replica.channel] {
        who_am_i(&victim.on_server(channel)).await.expect("signed in");
    }
    Setup { platform_admin: platform_admin.clone(), admin, victim }
}

async fn who_am_i(
    client: &Client,
) -> Result<tonic::Response<tenantry::proto::v1::WhoAmIResponse>, Status> {
    client.auth().who_am_i(WhoAmIRequest {}).await
}

#[tokio::test]
async fn the_end_of_a_session_applies_immediately_and_on_other_replicas_within_a_second() {
    let app = TestApp::spawn().await;
    let second_replica = TestApp::on_database(&app.database, |_| {}).await;
    let platform_admin = app.platform_admin().await;
    for (n, end) in ALL_ENDS.into_iter().enumerate() {
        let setup = setup(&app, &second_replica, &platform_admin, &format!("t{n}")).await;
        end.perform(&setup, &app.channel).await;

        let victim = &setup.victim;
        end.assert_refused(victim.sessions().list_sessions(ListSessionsRequest::default()).await);
        end.assert_refused(who_am_i(victim).await);
        let replica_client = victim.on_server(&second_replica.channel);
        end.wait_until_seen_by(&replica_client).await;
        end.assert_refused(
            replica_client.sessions().list_sessions(ListSessionsRequest::default()).await,
        );
    }
}

/// H02: in half of the rounds Redis is unavailable, so the message that a session ended is lost.
/// H04: in the other rounds Redis hangs, so the message is late.
#[tokio::test]
async fn without_redis_the_end_of_a_session_applies_within_a_second_on_other_replicas() {
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let app = TestApp::with_settings(|values| values.set("REDIS_URL", url)).await;
    let second_replica = TestApp::on_database(&app.database, |_| {}).await;
    let platform_admin = app.platform_admin().await;
    for (n, end) in ALL_ENDS.into_iter().enumerate() {
        let setup = setup(&app, &second_replica, &platform_admin, &format!("t{n}")).await;
        match n % 2 {
            0 => proxy.cut(),
            _ => proxy.hold(),
        }
        end.perform(&setup, &app.channel).await;
        let replica_client = setup.victim.on_server(&second_replica.channel);
        end.assert_refused(who_am_i(&setup.victim).await);
        end.wait_until_seen_by(&replica_client).await;
        end.assert_refused(
            replica_client.sessions().list_sessions(ListSessionsRequest::default()).await,
        );
        proxy.pass();
    }
}

#[tokio::test]
async fn a_password_change_does_not_end_the_session_that_makes_it() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let request = ChangePasswordRequest {
        current_password: PASSWORD.into(),
        new_password: "another long battery staple".into(),
    };
    acme.auth().change_password(request).await.expect("changed");
    who_am_i(&acme).await.expect("signed in");
}

#[tokio::test]
async fn introspection_sees_the_end_of_a_session_immediately() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let victim = acme.create_member("victim", &[]).await;
    let is_active = |token: &str| {
        let request = IntrospectTokenRequest { token: token.into() };
        let acme = acme.clone();
        async move {
            acme.auth().introspect_token(request).await.expect("an answer").into_inner().active
        }
    };
    assert!(is_active(&victim.tokens.access_token).await);
    assert!(is_active(&victim.tokens.refresh_token).await);
    victim.auth().logout(LogoutRequest::default()).await.expect("signed out");
    assert!(!is_active(&victim.tokens.access_token).await);
    assert!(!is_active(&victim.tokens.refresh_token).await);
}
