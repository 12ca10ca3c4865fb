//! `WatchPermissions`: contents of messages, and the end of a stream.

use std::collections::BTreeSet;

use sqlx::Connection;
use tenantry::proto::v1::{
    CheckRequest, DisableUserRequest, LogoutRequest, RoleLevel, UpdateRoleRequest,
    UpdateTenantRequest, WatchPermissionsRequest, WatchPermissionsResponse as Message,
};
use tonic::{Code, Status, Streaming};

use crate::harness::{Client, Proxy, TestApp, reason, refused, within};

/// An open stream and its latest token.
struct PermissionStream {
    stream: Streaming<Message>,
    token: String,
}

/// Opens a stream, from a token or from now. Returns it with its first message.
async fn open(client: &Client, token: &str) -> (PermissionStream, Message) {
    let request = WatchPermissionsRequest { consistency_token: token.into() };
    let stream = client.permissions().watch_permissions(request).await.expect("it opens");
    let mut watched = PermissionStream { stream: stream.into_inner(), token: String::new() };
    let first = watched.next().await;
    (watched, first)
}

async fn watch(client: &Client) -> PermissionStream {
    let (watched, first) = open(client, "").await;
    assert!(first.user_ids.is_empty() && !first.all_subjects, "{first:?}");
    watched
}

impl PermissionStream {
    async fn next(&mut self) -> Message {
        let message = within(12, self.stream.message()).await.expect("goes on").expect("a message");
        assert!(!message.consistency_token.is_empty());
        self.token.clone_from(&message.consistency_token);
        message
    }

    /// The next message that names subjects.
    async fn next_named(&mut self) -> Message {
        loop {
            let message = self.next().await;
            if message.all_subjects || !message.user_ids.is_empty() {
                return message;
            }
        }
    }

    /// Waits until all of these users were named. Asserts that no other was named.
    async fn expect_names(&mut self, users: &[&String]) {
        let mut missing: BTreeSet<_> = users.iter().map(|user| (*user).clone()).collect();
        let known = missing.clone();
        while !missing.is_empty() {
            let message = self.next_named().await;
            assert!(!message.all_subjects);
            assert!(message.user_ids.iter().all(|user| known.contains(user)), "{message:?}");
            missing.retain(|user| !message.user_ids.contains(user));
        }
    }

    /// Status that ends the stream.
    async fn final_status(&mut self) -> Status {
        within(10, async {
            loop {
                match self.stream.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("it ended without a status"),
                    Err(status) => return status,
                }
            }
        })
        .await
    }
}

async fn users(admin: &Client, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(admin.create_user_without_password(&format!("u{n}@{}.test", admin.slug)).await);
    }
    ids
}

async fn permit(admin: &Client, role: &str, permission: &str) {
    let request = UpdateRoleRequest {
        role_id: role.into(),
        permissions: vec![permission.into()],
        ..UpdateRoleRequest::default()
    };
    admin.roles().update_role(request).await.expect("changed");
}

#[tokio::test]
async fn a_stream_reports_assignments_roles_users_and_tenants_on_any_replica() {
    let app = TestApp::spawn().await;
    let second_replica = TestApp::on(&app.database, |_| {}).await;
    let acme = app.tenant("acme").await;
    let replica_client = acme.on(&second_replica.channel);
    let users = users(&acme, 3).await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let (mut watched, mut replica_stream) = (watch(&acme).await, watch(&replica_client).await);

    for stream in [&mut watched, &mut replica_stream] {
        acme.assign(&users[0], &role).await;
        stream.expect_names(&[&users[0]]).await;
        acme.unassign(&users[0], &role).await;
        stream.expect_names(&[&users[0]]).await;
    }
    acme.assign(&users[0], &role).await;
    acme.assign(&users[1], &role).await;
    watched.expect_names(&[&users[0], &users[1]]).await;
    permit(&acme, &role, "doc:write").await;
    // A change of a role names its holders.
    watched.expect_names(&[&users[0], &users[1]]).await;
    let request = DisableUserRequest { user_id: users[2].clone() };
    acme.users().disable_user(request).await.expect("disabled");
    watched.expect_names(&[&users[2]]).await;
    let request = UpdateTenantRequest { slug: Some("acme-2".into()), ..Default::default() };
    acme.tenants().update_tenant(request).await.expect("changed");
    assert!(watched.next_named().await.all_subjects);

    // With the message's token, any replica decides with the change.
    let question = CheckRequest {
        user_id: users[1].clone(),
        permission: "doc:write".into(),
        consistency_token: watched.token.clone(),
        ..CheckRequest::default()
    };
    assert!(replica_client.decide(question).await.allowed);
}

#[tokio::test]
async fn a_change_of_a_role_with_very_many_holders_names_all_subjects() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let mut owner = app.owner().await;
    for statement in [
        "insert into users (tenant_id, user_id, profile, email_index, email_lookup)
         select $1::uuid, gen_random_uuid(), '', sha256(n::text::bytea), sha256(n::text::bytea)
         from generate_series(1, 1100) n",
        "insert into role_assignments (tenant_id, assignment_id, user_id, role_id)
         select tenant_id, gen_random_uuid(), user_id, $2::uuid from users
         where tenant_id = $1::uuid and profile = ''",
    ] {
        sqlx::query(statement)
            .bind(&acme.tenant_id)
            .bind(&role)
            .execute(&mut owner)
            .await
            .expect("rows");
    }
    // After the acknowledgement of this change, the replica has read all earlier changes.
    permit(&acme, &role, "doc:list").await;
    let before = watch(&acme).await.token;
    let mut watched = watch(&acme).await;
    permit(&acme, &role, "doc:write").await;
    assert!(watched.next_named().await.all_subjects);
    assert!(open(&acme, &before).await.1.all_subjects);
}

#[tokio::test]
async fn a_resumed_stream_reports_what_it_missed() {
    let app = TestApp::spawn().await;
    let second_replica = TestApp::on(&app.database, |_| {}).await;
    let acme = app.tenant("acme").await;
    let replica_client = acme.on(&second_replica.channel);
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let users = users(&acme, 4).await;
    let mut watched = watch(&acme).await;
    acme.assign(&users[0], &role).await;
    watched.expect_names(&[&users[0]]).await;
    let token = watched.token.clone();
    drop(watched);

    // One change whose transaction was open when the stream ended, and two on another replica.
    let mut owner = app.owner().await;
    let mut slow = owner.begin().await.expect("begun");
    sqlx::query(
        "insert into changes (tenant_id, kind, subject_id) values ($1::uuid, 'user', $2::uuid)",
    )
    .bind(&acme.tenant_id)
    .bind(&users[3])
    .execute(&mut *slow)
    .await
    .expect("a change");
    replica_client.assign(&users[1], &role).await;
    replica_client.assign(&users[2], &role).await;
    slow.commit().await.expect("committed");

    for client in [&acme, &replica_client] {
        let (_, first) = open(client, &token).await;
        let named: BTreeSet<_> = first.user_ids.iter().collect();
        assert!(!first.all_subjects);
        assert!(users[1..].iter().all(|user| named.contains(user)), "{first:?}");
    }
}

/// A transaction that was open at the last message lies above the horizon of that message's
/// token.
#[tokio::test]
async fn a_heartbeat_has_a_token_to_resume_from() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let users = users(&acme, 1).await;
    let mut owner = app.owner().await;
    let mut slow = owner.begin().await.expect("begun");
    sqlx::query(
        "insert into changes (tenant_id, kind, subject_id) values ($1::uuid, 'user', $2::uuid)",
    )
    .bind(&acme.tenant_id)
    .bind(&users[0])
    .execute(&mut *slow)
    .await
    .expect("a change");
    let mut watched = watch(&acme).await;
    let heartbeat = within(10, watched.next()).await;
    assert!(heartbeat.user_ids.is_empty() && !heartbeat.all_subjects);
    drop(watched);
    slow.commit().await.expect("committed");
    let (_, first) = open(&acme, &heartbeat.consistency_token).await;
    assert_eq!(first.user_ids, users);
}

#[tokio::test]
async fn a_resumed_stream_whose_changes_were_trimmed_names_all_subjects() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let token = watch(&acme).await.token;
    users(&acme, 1).await;
    let (mut owner, pool) = (app.owner().await, app.app_role().await);
    app.changes_settled().await;
    for statement in [
        "select trim_changes('1 hour', 100)",
        "update change_marks set recorded_at = recorded_at - interval '2 hours'",
        "select trim_changes('1 hour', 100)",
    ] {
        sqlx::query(statement).execute(&mut owner).await.expect("done");
    }
    drop(pool);
    assert!(open(&acme, &token).await.1.all_subjects);
    let status = acme
        .permissions()
        .watch_permissions(WatchPermissionsRequest { consistency_token: "x".into() })
        .await
        .expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(reason(&status), "CONSISTENCY_TOKEN_INVALID");
}

/// E04: a stream contains no change of another tenant.
#[tokio::test]
async fn a_stream_reports_nothing_of_other_tenants() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    // On a busy machine a token may be older than the last change.
    let before = within(10, async {
        loop {
            let token = watch(&acme).await.token;
            if open(&acme, &token).await.1.user_ids.is_empty() {
                break token;
            }
        }
    })
    .await;
    let mut watched = watch(&acme).await;
    let role = other.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    for user in users(&other, 3).await {
        other.assign(&user, &role).await;
    }
    permit(&other, &role, "doc:write").await;
    let request = UpdateTenantRequest { slug: Some("other-2".into()), ..Default::default() };
    other.tenants().update_tenant(request).await.expect("changed");

    let own_role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let own_users = users(&acme, 1).await;
    acme.assign(&own_users[0], &own_role).await;
    watched.expect_names(&[&own_users[0]]).await;
    let (_, first) = open(&acme, &before).await;
    assert_eq!((first.user_ids, first.all_subjects), (own_users, false));
    // Another tenant's token also reveals no change. On a busy machine this token may also be
    // older than the last change.
    within(10, async {
        loop {
            let other_token = watch(&other).await.token;
            if open(&acme, &other_token).await.1.user_ids.is_empty() {
                break;
            }
        }
    })
    .await;
}

/// D17: a stream is closed when its caller loses the session or the permission.
#[tokio::test]
async fn a_stream_ends_with_its_callers_session_or_permission() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["permission:check"]).await;
    let mut watched = watch(&ada).await;
    ada.auth().logout(LogoutRequest::default()).await.expect("signed out");
    let status = watched.final_status().await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "TOKEN_INVALID"));

    let grace = acme.member("grace", &["permission:check"]).await;
    let mut watched = watch(&grace).await;
    acme.unassign(&grace.user_id, &acme.role_named("grace").await).await;
    let status = watched.final_status().await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(reason(&status), "PERMISSION_MISSING");
    let reply = grace.permissions().watch_permissions(WatchPermissionsRequest::default()).await;
    refused(reply, Code::PermissionDenied, "PERMISSION_MISSING");

    let joan = acme.member("joan", &["permission:check"]).await;
    let mut watched = watch(&joan).await;
    let request = DisableUserRequest { user_id: joan.user_id.clone() };
    acme.users().disable_user(request).await.expect("disabled");
    assert_eq!(watched.final_status().await.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_stream_ends_when_its_callers_token_expires() {
    let app = TestApp::with(|values| values.set("JWT_ACCESS_EXPIRES_IN", "1s")).await;
    let acme = app.tenant("acme").await;
    let mut watched = watch(&acme).await;
    // The leeway extends the validity of a token by 30 seconds.
    let status = within(45, async {
        loop {
            if let Err(status) = watched.stream.message().await {
                return status;
            }
        }
    })
    .await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "TOKEN_INVALID"));
}

/// J02: a shutdown is not delayed by open streams.
#[tokio::test]
async fn a_shutdown_ends_streams_with_unavailable() {
    let app = TestApp::with(|values| values.set("SHUTDOWN_GRACE", "20s")).await;
    let acme = app.tenant("acme").await;
    let mut watched = watch(&acme).await;
    let (status, ()) = tokio::join!(watched.final_status(), within(10, app.stop()));
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(reason(&status), "WATCH_INTERRUPTED");
}

#[tokio::test]
async fn a_stream_ends_when_the_feed_cannot_be_followed() {
    let proxy = Proxy::postgres().await;
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let url = proxy.postgres_url(&app.database);
    let second_replica = TestApp::on(&app.database, |values| values.set("DATABASE_URL", url)).await;
    let mut watched = watch(&acme.on(&second_replica.channel)).await;
    proxy.hold();
    let status = watched.final_status().await;
    assert_eq!(status.code(), Code::Unavailable);
}

/// The request timeout applies only until the answer begins.
#[tokio::test]
async fn the_request_timeout_does_not_end_a_stream() {
    let app = TestApp::with(|values| values.set("REQUEST_TIMEOUT", "2s")).await;
    let acme = app.tenant("acme").await;
    let mut watched = watch(&acme).await;
    watched.next().await;
    let user = users(&acme, 1).await.remove(0);
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    acme.assign(&user, &role).await;
    watched.expect_names(&[&user]).await;
}

/// A stream that is not read finally gets one message that names all subjects.
#[tokio::test]
async fn a_slow_reader_gets_a_message_that_names_all_subjects() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let mut watched = watch(&acme).await;
    let mut owner = app.owner().await;
    // Far more than the buffers of the connection can hold.
    for n in 0..250 {
        sqlx::query(
            "insert into changes (tenant_id, kind, subject_id)
             select $1::uuid, 'user', gen_random_uuid() from generate_series(1, 900)",
        )
        .bind(&acme.tenant_id)
        .execute(&mut owner)
        .await
        .expect("changes");
        if n % 10 == 0 {
            let user = acme.create_user_without_password(&format!("u{n}@acme.test")).await;
            let request = DisableUserRequest { user_id: user };
            acme.users().disable_user(request).await.expect("disabled");
        }
    }
    while !watched.next_named().await.all_subjects {}
}
