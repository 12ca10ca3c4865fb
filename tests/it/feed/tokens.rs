//! Consistency tokens: with the token of a call on one replica, a decision of another replica is at
//! least as fresh as the call.

use prost_reflect::{DynamicMessage, Value};
use sqlx::Connection;
use tenantry::{
    gate::{Access, Policies},
    proto::v1::{
        BatchCheckItem, BatchCheckRequest, CheckRequest, CheckResponse, Consistency,
        ListPermissionsRequest, LogoutRequest, RoleLevel, UnassignRoleRequest,
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{
    Client, Fault, Ids, Method, PASSWORD, Proxy, TestApp, assert_refused, methods, wait_until,
};

fn check_request(user: &str, token: &str) -> CheckRequest {
    CheckRequest {
        user_id: user.into(),
        permission: "doc:read".into(),
        consistency_token: token.into(),
        ..CheckRequest::default()
    }
}

/// Starts two replicas. The second replica gets no messages through Redis. Returns the replicas, a
/// client of each replica, and the proxy to Redis.
async fn start_replicas() -> (TestApp, TestApp, Client, Client, Proxy) {
    let app = TestApp::spawn().await;
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let second_replica =
        TestApp::on_database(&app.database, |values| values.set("REDIS_URL", url)).await;
    proxy.cut();
    let acme = app.create_tenant("acme").await;
    let replica_client = acme.on_server(&second_replica.channel);
    (app, second_replica, acme, replica_client, proxy)
}

/// F11: the token removes the delay between replicas, in every method that decides.
#[tokio::test]
async fn with_the_token_of_a_write_another_replica_applies_the_write_immediately() {
    let (_app, _second_replica, acme, replica_client, _proxy) = start_replicas().await;
    let user = acme.create_user_without_password("ada@acme.test").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    for _ in 0..10 {
        acme.assign(&user, &role).await;
        // This also puts the subject into the cache of the replica.
        wait_until(2, || replica_client.user_may(&user, "doc:read")).await;
        let request = UnassignRoleRequest {
            user_id: user.clone(),
            role_id: role.clone(),
            ..UnassignRoleRequest::default()
        };
        let reply = acme.roles().unassign_role(request).await.expect("unassigned");
        let token = &reply.into_inner().consistency_token;

        let list = ListPermissionsRequest {
            user_id: user.clone(),
            consistency_token: token.clone(),
            ..ListPermissionsRequest::default()
        };
        let reply = replica_client.permissions().list_permissions(list).await.expect("a list");
        assert_eq!(reply.into_inner().permissions, []);
        assert!(!replica_client.decide(check_request(&user, token)).await.allowed);
        let item = BatchCheckItem {
            user_id: user.clone(),
            permission: "doc:read".into(),
            ..BatchCheckItem::default()
        };
        let batch = BatchCheckRequest {
            items: vec![item],
            consistency: Consistency::AtLeastAsFresh.into(),
            consistency_token: token.clone(),
        };
        let batch =
            replica_client.permissions().batch_check(batch).await.expect("decisions").into_inner();
        assert!(!batch.results[0].allowed && !batch.consistency_token.is_empty());
    }
}

/// With the token of a decision, another replica's decision is at least as fresh. This holds
/// for decisions from the cache and from Postgres.
#[tokio::test]
async fn with_the_token_of_a_decision_another_replica_decides_the_same() {
    let (app, _second_replica, acme, replica_client, _proxy) = start_replicas().await;
    let user = acme.create_user_without_password("ada@acme.test").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let mut owner_connection = app.owner_connection().await;
    for consistency in [Consistency::FullyConsistent, Consistency::MinimizeLatency] {
        acme.assign(&user, &role).await;
        wait_until(2, || replica_client.user_may(&user, "doc:read")).await;
        // Deleted by SQL, so no replica gets a message.
        sqlx::query("delete from role_assignments where user_id = $1::uuid")
            .bind(&user)
            .execute(&mut owner_connection)
            .await
            .expect("unassigned");
        let request = CheckRequest { consistency: consistency.into(), ..check_request(&user, "") };
        let decision = loop {
            let decision = acme.decide(request.clone()).await;
            if !decision.allowed {
                break decision;
            }
        };
        assert!(
            !replica_client.decide(check_request(&user, &decision.consistency_token)).await.allowed
        );
    }
}

/// An open transaction delays no decision with a token.
#[tokio::test]
async fn a_long_transaction_does_not_delay_decisions_with_a_token() {
    let (app, _second_replica, acme, replica_client, _proxy) = start_replicas().await;
    let user = acme.create_user_without_password("ada@acme.test").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let mut owner_connection = app.owner_connection().await;
    let mut open_transaction = owner_connection.begin().await.expect("begun");
    // Assigns a transaction id, so the horizon cannot advance while the transaction is open.
    sqlx::query("select pg_current_xact_id()")
        .execute(&mut *open_transaction)
        .await
        .expect("an id");
    acme.assign(&user, &role).await;
    let token = acme.decide(check_request(&user, "")).await.consistency_token;
    assert!(replica_client.decide(check_request(&user, &token)).await.allowed);
}

/// Methods that these tests do not treat as writes. All other methods are writes.
const READS: &[&str] = &[
    "BatchCheck",
    "Check",
    "GetJwks",
    "GetRole",
    "GetServiceAccount",
    "GetSession",
    "GetTenant",
    "GetUser",
    "IntrospectToken",
    "ListApiKeys",
    "ListEvents",
    "ListPermissions",
    "ListRoleAssignments",
    "ListRoles",
    "ListServiceAccounts",
    "ListSessions",
    "ListSubjects",
    "ListTenants",
    "ListUsers",
    "LookupUser",
    "WatchEvents",
    "WatchPermissions",
    "WhoAmI",
    // These methods open sessions. A session that is not in the cache is looked up anyway.
    "ExchangeApiKey",
    "Login",
    "Refresh",
    // These methods start background work and change no decision.
    "ChangeEmail",
    "RequestEmailVerification",
    "RequestPasswordReset",
];

/// The methods that are writes.
pub fn write_methods() -> Vec<Method> {
    methods().into_iter().filter(|method| !READS.contains(&method.0.name())).collect()
}

#[test]
fn the_response_of_every_write_has_a_consistency_token() {
    let policies = Policies::load().expect("the policies load");
    assert!(READS.iter().all(|name| policies.iter().any(|m| m.path.ends_with(name))));
    assert!(write_methods().len() >= 20);
    for method in write_methods() {
        let field = method.0.output().get_field_by_name("consistency_token");
        assert!(field.is_some(), "{}", method.path());
    }
}

/// A request of a write that succeeds, and the client that sends the request. The request changes
/// objects of a new tenant. `n` makes the slug of this tenant unique.
pub async fn valid_request(
    app: &TestApp,
    method: &Method,
    n: usize,
    platform_admin: &Client,
) -> (Client, DynamicMessage) {
    let slug = format!("t{n}");
    let admin = Client::anonymous(platform_admin.channel.clone()).sign_up_tenant(&slug).await;
    let user = admin.create_user_without_password("grace@acme.test").await;
    let role = admin.create_role("reader", RoleLevel::Member, &[]).await;
    if method.0.name() == "UnassignRole" {
        admin.assign(&user, &role).await;
    }
    let second_session = Client::anonymous(platform_admin.channel.clone())
        .login(&slug, &admin.email, PASSWORD)
        .await;
    let mut ids = Ids::of_client(&second_session, &role);
    ids.0.insert("user_id", user);
    if method.0.parent_service().name() == "ServiceAccountService" {
        let account = admin.create_service_account("worker", &[]).await;
        let key = admin.create_api_key(&account).await.api_key.expect("a key");
        ids.0.extend([("service_account_id", account), ("api_key_id", key.id)]);
    }
    let policies = Policies::load().expect("the policies load");
    let access = policies.access_of(&method.path()).expect("a policy");
    let needs_platform_admin = matches!(access, Access::Permission { platform_only: true, .. });
    let mut message = method.sample(&ids);
    let purpose = match method.0.name() {
        "ResetPassword" => Some("password_reset"),
        "VerifyEmail" => Some("email_verification"),
        _ => None,
    };
    if let Some(purpose) = purpose {
        let token = app.create_mailed_token(&admin.tenant_id, &ids.0["user_id"], purpose).await;
        message.set_field_by_name("token", Value::String(token));
    }
    (if needs_platform_admin { platform_admin.clone() } else { admin }, message)
}

#[tokio::test]
async fn another_replica_accepts_the_token_of_every_write_immediately() {
    let (app, _second_replica, _acme, replica_client, _proxy) = start_replicas().await;
    let platform_admin = app.platform_admin().await;
    for (n, method) in write_methods().iter().enumerate() {
        let (caller, message) = valid_request(&app, method, n, &platform_admin).await;
        let reply = method.call(&caller, &message).await;
        let reply = reply.unwrap_or_else(|status| panic!("{}: {status:?}", method.path()));
        let reply = DynamicMessage::decode(method.0.output(), reply.into_inner().as_slice());
        let token = reply
            .expect("a reply")
            .get_field_by_name("consistency_token")
            .map(|token| token.as_str().expect("text").to_owned());
        let token = token.expect("a token");
        assert!(!token.is_empty(), "{}", method.path());
        let decision = replica_client.decide(check_request(&replica_client.user_id, &token)).await;
        assert!(decision.allowed, "{}", method.path());
    }
}

/// A retry gets the first reply, including its token.
#[tokio::test]
async fn a_retry_gets_the_token_of_the_first_reply() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let request = tenantry::proto::v1::CreateUserRequest {
        email: "ada@acme.test".into(),
        request_id: "once".into(),
        ..Default::default()
    };
    let first_reply =
        acme.users().create_user(request.clone()).await.expect("created").into_inner();
    assert_eq!(
        acme.users().create_user(request).await.expect("the first response").into_inner(),
        first_reply
    );
}

#[tokio::test]
async fn an_access_token_ended_on_one_replica_is_ended_on_the_other() {
    let (_app, _second_replica, acme, replica_client, _proxy) = start_replicas().await;
    let member = acme.create_member("ada", &["doc:read"]).await;
    let token = &member.tokens.access_token;
    let check_with = |consistency_token: &str| CheckRequest {
        user_id: String::new(),
        access_token: token.clone(),
        ..check_request("", consistency_token)
    };
    wait_until(2, || async { replica_client.decide(check_with("")).await.allowed }).await;
    let logout_reply = member.auth().logout(LogoutRequest::default()).await.expect("signed out");
    let consistency_token = logout_reply.into_inner().consistency_token;
    assert!(!replica_client.decide(check_with(&consistency_token)).await.allowed);
}

#[tokio::test]
async fn the_consistency_and_the_token_must_match() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let check = |consistency: Consistency, token: &str| {
        let request =
            CheckRequest { consistency: consistency.into(), ..check_request(&acme.user_id, token) };
        async { acme.permissions().check(request).await }
    };
    let token = check(Consistency::Unspecified, "")
        .await
        .expect("a decision")
        .into_inner()
        .consistency_token;
    let assert_token_reported = |status: &Status| {
        let details = status.get_error_details();
        let request = details.bad_request().expect("a BadRequest");
        assert_eq!(request.field_violations[0].field, "consistency_token");
    };
    for (consistency, token) in
        [(Consistency::MinimizeLatency, token.as_str()), (Consistency::AtLeastAsFresh, "")]
    {
        let status = check(consistency, token).await;
        assert_token_reported(&assert_refused(status, Code::InvalidArgument, "INVALID_FIELDS"));
    }
    // Another character at one place.
    let mut altered_token = token.clone();
    altered_token.replace_range(30..31, if &token[30..31] == "A" { "B" } else { "A" });
    for consistency in
        [Consistency::Unspecified, Consistency::FullyConsistent, Consistency::AtLeastAsFresh]
    {
        for forged in ["x", "AAAA", &altered_token, &token[1..]] {
            let status = check(consistency, forged).await;
            assert_token_reported(&assert_refused(
                status,
                Code::InvalidArgument,
                "CONSISTENCY_TOKEN_INVALID",
            ));
        }
        let reply: CheckResponse =
            check(consistency, &token).await.expect("a decision").into_inner();
        assert!(!reply.consistency_token.is_empty());
    }
}

/// I01: while the feed hangs, decisions come from Postgres. While Postgres hangs, they fail.
#[tokio::test]
async fn without_the_feed_postgres_decides_and_without_postgres_nothing_is_decided() {
    let proxy = Proxy::postgres().await;
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let url = proxy.postgres_url(&app.database);
    let second_replica =
        TestApp::on_database(&app.database, |values| values.set("DATABASE_URL", url)).await;
    let replica_client = acme.on_server(&second_replica.channel);
    let user = acme.create_user_without_password("ada@acme.test").await;
    wait_until(2, || async { !replica_client.user_may(&user, "doc:read").await }).await;
    // Only the reads of the feed hang. Postgres answers all other statements. The fault starts at
    // the text of the statement, which a connection sends only once. So the current connection of
    // the feed is ended, and the replica opens a new one.
    proxy.fault_when_sent("read_changes", Fault::HoldReplies);
    let statement = "select pg_terminate_backend(pid) from pg_stat_activity
                     where datname = current_database() and query like '%from read_changes(%'
                       and pid <> pg_backend_pid()";
    sqlx::query(statement)
        .execute(&mut app.owner_connection().await)
        .await
        .expect("the connection of the feed is ended");
    proxy.wait_until_held().await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    acme.assign(&user, &role).await;
    let token = acme.decide(check_request(&user, "")).await.consistency_token;
    assert!(replica_client.decide(check_request(&user, &token)).await.allowed);
    proxy.hold();
    let reply = replica_client.permissions().check(check_request(&user, &token)).await;
    assert_refused(reply, Code::Unavailable, "STORE_UNAVAILABLE");
}
