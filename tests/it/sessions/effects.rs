//! The end of a session, in every way, takes effect at once on the same replica, and within a
//! second on all other replicas.

use tenantry::proto::v1::{
    ChangePasswordRequest, DeleteTenantRequest, DeleteUserRequest, DisableUserRequest,
    IntrospectTokenRequest, ListSessionsRequest, LogoutRequest, RefreshRequest,
    RevokeAllSessionsRequest, RevokeSessionRequest, SuspendTenantRequest, WhoAmIRequest,
};
use tonic::{Code, Status};

use crate::harness::{Client, PASSWORD, Proxy, TestApp, refused, until};

/// The ways to end sessions.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
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

const ALL: [End; 9] = [
    End::Logout,
    End::RevokeSession,
    End::RevokeAllSessions,
    End::ReuseOfARefreshToken,
    End::DisableUser,
    End::DeleteUser,
    End::ChangePassword,
    End::SuspendTenant,
    End::DeleteTenant,
];

struct Setup {
    staff: Client,
    admin: Client,
    victim: Client,
}

impl End {
    /// Ends the session, on the replica behind `channel`.
    async fn perform(self, setup: &Setup, channel: &tonic::transport::Channel) {
        let Setup { staff, admin, victim } = setup;
        let (staff, admin, victim) = (staff.on(channel), admin.on(channel), victim.on(channel));
        let user_id = victim.user_id.clone();
        let session_id = victim.tokens.session_id.clone();
        let tenant = victim.tenant_id.clone();
        let done: Result<(), Status> = match self {
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
                victim.auth().refresh(request.clone()).await.expect("the first time");
                let again = victim.auth().refresh(request).await;
                refused(again, Code::Unauthenticated, "TOKEN_INVALID");
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
                let other = victim.login(&victim.slug, &victim.email, PASSWORD).await;
                let request = ChangePasswordRequest {
                    current_password: PASSWORD.into(),
                    new_password: "another long battery staple".into(),
                };
                other.auth().change_password(request).await.map(drop)
            }
            Self::SuspendTenant => {
                staff.tenants().suspend_tenant(SuspendTenantRequest { tenant }).await.map(drop)
            }
            Self::DeleteTenant => {
                let request = DeleteTenantRequest { tenant, ..Default::default() };
                staff.tenants().delete_tenant(request).await.map(drop)
            }
        };
        done.expect("it is done");
    }

    fn refusal(self) -> (Code, &'static str) {
        match self {
            Self::SuspendTenant => (Code::PermissionDenied, "TENANT_SUSPENDED"),
            _ => (Code::Unauthenticated, "TOKEN_INVALID"),
        }
    }

    #[track_caller]
    fn refuses<T: std::fmt::Debug>(self, reply: Result<tonic::Response<T>, Status>) {
        let (code, reason) = self.refusal();
        refused(reply, code, reason);
    }

    /// Waits at most one second until the replica refuses the session.
    async fn is_seen_by(self, client: &Client) {
        let expected = self.refusal().0;
        until(1, || async { who_am_i(client).await.is_err_and(|s| s.code() == expected) }).await;
        self.refuses(who_am_i(client).await);
    }
}

/// Creates a user and the user's administrator. Both replicas have cached the user's session.
async fn setup(app: &TestApp, second_replica: &TestApp, staff: &Client, slug: &str) -> Setup {
    let admin = app.tenant(slug).await;
    let victim = admin.member("victim", &["user:read"]).await;
    for channel in [&app.channel, &second_replica.channel] {
        who_am_i(&victim.on(channel)).await.expect("signed in");
    }
    Setup { staff: staff.clone(), admin, victim }
}

async fn who_am_i(
    client: &Client,
) -> Result<tonic::Response<tenantry::proto::v1::WhoAmIResponse>, Status> {
    client.auth().who_am_i(WhoAmIRequest {}).await
}

#[tokio::test]
async fn the_end_of_a_session_applies_at_once_here_and_within_a_second_on_other_replicas() {
    let app = TestApp::spawn().await;
    let second_replica = TestApp::on(&app.database, |_| {}).await;
    let staff = app.platform_admin().await;
    for (n, end) in ALL.into_iter().enumerate() {
        let setup = setup(&app, &second_replica, &staff, &format!("t{n}")).await;
        end.perform(&setup, &app.channel).await;

        let victim = &setup.victim;
        end.refuses(victim.sessions().list_sessions(ListSessionsRequest::default()).await);
        end.refuses(who_am_i(victim).await);
        let replica_client = victim.on(&second_replica.channel);
        end.is_seen_by(&replica_client).await;
        end.refuses(replica_client.sessions().list_sessions(ListSessionsRequest::default()).await);
    }
}

/// H04, H05: the message that a session ended is lost.
#[tokio::test]
async fn without_redis_the_end_of_a_session_applies_within_a_second_on_other_replicas() {
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let app = TestApp::with(|values| values.set("REDIS_URL", url)).await;
    let second_replica = TestApp::on(&app.database, |_| {}).await;
    let staff = app.platform_admin().await;
    for (n, end) in ALL.into_iter().enumerate() {
        let setup = setup(&app, &second_replica, &staff, &format!("t{n}")).await;
        match n % 2 {
            0 => proxy.cut(),
            _ => proxy.hold(),
        }
        end.perform(&setup, &app.channel).await;
        let replica_client = setup.victim.on(&second_replica.channel);
        end.refuses(who_am_i(&setup.victim).await);
        end.is_seen_by(&replica_client).await;
        end.refuses(replica_client.sessions().list_sessions(ListSessionsRequest::default()).await);
        proxy.pass();
    }
}

#[tokio::test]
async fn a_password_change_keeps_its_own_session() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let request = ChangePasswordRequest {
        current_password: PASSWORD.into(),
        new_password: "another long battery staple".into(),
    };
    acme.auth().change_password(request).await.expect("changed");
    who_am_i(&acme).await.expect("signed in");
}

#[tokio::test]
async fn introspection_sees_the_end_of_a_session_at_once() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let victim = acme.member("victim", &[]).await;
    let active = |token: &str| {
        let request = IntrospectTokenRequest { token: token.into() };
        let acme = acme.clone();
        async move {
            acme.auth().introspect_token(request).await.expect("an answer").into_inner().active
        }
    };
    assert!(active(&victim.tokens.access_token).await);
    assert!(active(&victim.tokens.refresh_token).await);
    victim.auth().logout(LogoutRequest::default()).await.expect("signed out");
    assert!(!active(&victim.tokens.access_token).await);
    assert!(!active(&victim.tokens.refresh_token).await);
}
