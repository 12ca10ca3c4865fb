//! `WatchPermissions`: contents of messages, and the end of a stream.

use std::collections::BTreeSet;

use sqlx::Connection;
use tenantry::proto::v1::{
    CheckRequest, DisableUserRequest, LogoutRequest, RoleLevel, UpdateRoleRequest,
    UpdateTenantRequest, WatchPermissionsRequest, WatchPermissionsResponse as Message,
};
use tonic::{Code, Status, Streaming};

use crate::harness::{Client, Proxy, TestApp, assert_refused, reason, wait_until, within_seconds};

/// An open stream and its latest token.
struct PermissionStream {
    messages: Streaming<Message>,
    token: String,
}

/// Opens a stream, from a token or from now. Returns the stream and its first message.
async fn open_stream(client: &Client, token: &str) -> (PermissionStream, Message) {
    let request = WatchPermissionsRequest { consistency_token: token.into() };
    let response = client.permissions().watch_permissions(request).await.expect("the stream opens");
    let mut stream = PermissionStream { messages: response.into_inner(), token: String::new() };
    let first_message = stream.next().await;
    (stream, first_message)
}

/// Opens a stream from now on. Asserts that the first message reports no change.
async fn watch_from_now(client: &Client) -> PermissionStream {
    let (stream, first_message) = open_stream(client, "").await;
    assert!(first_message.user_ids.is_empty() && !first_message.all_subjects, "{first_message:?}");
    stream
}

impl PermissionStream {
    /// The next message. Without changes, a message arrives within 10 seconds.
    async fn next(&mut self) -> Message {
        let message = within_seconds(12, self.messages.message())
            .await
            .expect("the stream did not fail")
            .expect("a message");
        assert!(!message.consistency_token.is_empty());
        self.token.clone_from(&message.consistency_token);
        message
    }

    /// The next message that reports changed subjects.
    async fn next_change(&mut self) -> Message {
        loop {
            let message = self.next().await;
            if message.all_subjects || !message.user_ids.is_empty() {
                return message;
            }
        }
    }

    /// Waits until all of these users were reported. Asserts that no other user is reported.
    async fn expect_changed_users(&mut self, users: &[&String]) {
        let mut missing: BTreeSet<_> = users.iter().map(|user| (*user).clone()).collect();
        let expected = missing.clone();
        while !missing.is_empty() {
            let message = self.next_change().await;
            assert!(!message.all_subjects);
            assert!(message.user_ids.iter().all(|user| expected.contains(user)), "{message:?}");
            missing.retain(|user| !message.user_ids.contains(user));
        }
    }

    /// Status that ends the stream.
    async fn final_status(&mut self) -> Status {
        within_seconds(10, async {
            loop {
                match self.messages.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the stream ended without a status"),
                    Err(status) => return status,
                }
            }
        })
        .await
    }
}

async fn create_users(admin: &Client, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(admin.create_user_without_password(&format!("u{n}@{}.test", admin.slug)).await);
    }
    ids
}

/// Replaces the permissions of a role by one permission.
async fn set_permission_of_role(admin: &Client, role: &str, permission: &str) {
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
    let second_replica = TestApp::on_database(&app.database, |_| {}).await;
    let acme = app.create_tenant("acme").await;
    let replica_client = acme.on_server(&second_replica.channel);
    let users = create_users(&acme, 3).await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    // A stream also reports earlier changes that its replica has not read yet, such as the first
    // assignment of the administrator. The lag is the age of what a replica has read.
    let last_write = std::time::Instant::now();
    let has_read_changes = || async {
        let lag = second_replica.metric("tenantry_feed_lag_seconds").await;
        lag.is_some_and(|lag| lag < last_write.elapsed().as_secs_f64())
    };
    wait_until(10, has_read_changes).await;
    let (mut first_stream, mut second_stream) =
        (watch_from_now(&acme).await, watch_from_now(&replica_client).await);

    for stream in [&mut first_stream, &mut second_stream] {
        acme.assign(&users[0], &role).await;
        stream.expect_changed_users(&[&users[0]]).await;
        acme.unassign(&users[0], &role).await;
        stream.expect_changed_users(&[&users[0]]).await;
    }
    acme.assign(&users[0], &role).await;
    acme.assign(&users[1], &role).await;
    first_stream.expect_changed_users(&[&users[0], &users[1]]).await;
    set_permission_of_role(&acme, &role, "doc:write").await;
    // A change of a role reports the holders of the role.
    first_stream.expect_changed_users(&[&users[0], &users[1]]).await;
    let request = DisableUserRequest { user_id: users[2].clone() };
    acme.users().disable_user(request).await.expect("disabled");
    first_stream.expect_changed_users(&[&users[2]]).await;
    let request = UpdateTenantRequest { slug: Some("acme-2".into()), ..Default::default() };
    acme.tenants().update_tenant(request).await.expect("changed");
    assert!(first_stream.next_change().await.all_subjects);

    // With the token of the message, a decision of any replica includes the change.
    let check_request = CheckRequest {
        user_id: users[1].clone(),
        permission: "doc:write".into(),
        consistency_token: first_stream.token.clone(),
        ..CheckRequest::default()
    };
    assert!(replica_client.decide(check_request).await.allowed);
}

#[tokio::test]
async fn a_change_of_a_role_with_very_many_holders_sets_all_subjects() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let mut owner_connection = app.owner_connection().await;
    // A message lists at most 1000 users.
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
            .execute(&mut owner_connection)
            .await
            .expect("rows");
    }
    // When this call returns, the replica has applied this change and all earlier changes.
    set_permission_of_role(&acme, &role, "doc:list").await;
    let earlier_token = watch_from_now(&acme).await.token;
    let mut stream = watch_from_now(&acme).await;
    set_permission_of_role(&acme, &role, "doc:write").await;
    assert!(stream.next_change().await.all_subjects);
    let (_, first_message) = open_stream(&acme, &earlier_token).await;
    assert!(first_message.all_subjects);
}

#[tokio::test]
async fn a_resumed_stream_reports_the_changes_since_its_token() {
    let app = TestApp::spawn().await;
    let second_replica = TestApp::on_database(&app.database, |_| {}).await;
    let acme = app.create_tenant("acme").await;
    let replica_client = acme.on_server(&second_replica.channel);
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let users = create_users(&acme, 4).await;
    let mut stream = watch_from_now(&acme).await;
    acme.assign(&users[0], &role).await;
    stream.expect_changed_users(&[&users[0]]).await;
    let token = stream.token.clone();
    drop(stream);

    // After the end of the stream: a change in a transaction that commits last, and two changes on
    // another replica.
    let mut owner_connection = app.owner_connection().await;
    let mut slow_transaction = owner_connection.begin().await.expect("begun");
    sqlx::query(
        "insert into changes (tenant_id, kind, subject_id) values ($1::uuid, 'user', $2::uuid)",
    )
    .bind(&acme.tenant_id)
    .bind(&users[3])
    .execute(&mut *slow_transaction)
    .await
    .expect("a change");
    replica_client.assign(&users[1], &role).await;
    replica_client.assign(&users[2], &role).await;
    slow_transaction.commit().await.expect("committed");

    for client in [&acme, &replica_client] {
        let (_, first_message) = open_stream(client, &token).await;
        let reported: BTreeSet<_> = first_message.user_ids.iter().collect();
        assert!(!first_message.all_subjects);
        assert!(users[1..].iter().all(|user| reported.contains(user)), "{first_message:?}");
    }
}

/// A token covers only transactions that had ended when the token was created. The resumed stream
/// reports the change of a transaction that was open at the last message.
#[tokio::test]
async fn a_stream_can_resume_from_the_token_of_a_heartbeat() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let users = create_users(&acme, 1).await;
    let mut owner_connection = app.owner_connection().await;
    let mut slow_transaction = owner_connection.begin().await.expect("begun");
    sqlx::query(
        "insert into changes (tenant_id, kind, subject_id) values ($1::uuid, 'user', $2::uuid)",
    )
    .bind(&acme.tenant_id)
    .bind(&users[0])
    .execute(&mut *slow_transaction)
    .await
    .expect("a change");
    let mut stream = watch_from_now(&acme).await;
    let heartbeat = within_seconds(10, stream.next()).await;
    assert!(heartbeat.user_ids.is_empty() && !heartbeat.all_subjects);
    drop(stream);
    slow_transaction.commit().await.expect("committed");
    let (_, first_message) = open_stream(&acme, &heartbeat.consistency_token).await;
    assert_eq!(first_message.user_ids, users);
}

#[tokio::test]
async fn a_resumed_stream_whose_changes_were_trimmed_sets_all_subjects() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let token = watch_from_now(&acme).await.token;
    create_users(&acme, 1).await;
    let (mut owner_connection, pool) = (app.owner_connection().await, app.app_role_pool().await);
    app.wait_until_changes_settled().await;
    // The first trim writes a mark. When the mark is two hours old, the second trim deletes the
    // changes before it.
    for statement in [
        "select trim_changes('1 hour', 100)",
        "update change_marks set recorded_at = recorded_at - interval '2 hours'",
        "select trim_changes('1 hour', 100)",
    ] {
        sqlx::query(statement).execute(&mut owner_connection).await.expect("executed");
    }
    drop(pool);
    let (_, first_message) = open_stream(&acme, &token).await;
    assert!(first_message.all_subjects);
    let status = acme
        .permissions()
        .watch_permissions(WatchPermissionsRequest { consistency_token: "x".into() })
        .await
        .expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(reason(&status), "CONSISTENCY_TOKEN_INVALID");
}

/// D17: a stream contains no change of another tenant.
#[tokio::test]
async fn a_stream_reports_no_changes_of_other_tenants() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    // On a busy machine, a new token may be older than the last change. Repeats until a stream from
    // the token reports no change.
    let earlier_token = within_seconds(10, async {
        loop {
            let token = watch_from_now(&acme).await.token;
            if open_stream(&acme, &token).await.1.user_ids.is_empty() {
                break token;
            }
        }
    })
    .await;
    let mut stream = watch_from_now(&acme).await;
    let role = other.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    for user in create_users(&other, 3).await {
        other.assign(&user, &role).await;
    }
    set_permission_of_role(&other, &role, "doc:write").await;
    let request = UpdateTenantRequest { slug: Some("other-2".into()), ..Default::default() };
    other.tenants().update_tenant(request).await.expect("changed");

    let own_role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let own_users = create_users(&acme, 1).await;
    acme.assign(&own_users[0], &own_role).await;
    stream.expect_changed_users(&[&own_users[0]]).await;
    let (_, first_message) = open_stream(&acme, &earlier_token).await;
    assert_eq!((first_message.user_ids, first_message.all_subjects), (own_users, false));
    // The token of another tenant also reveals no change. On a busy machine, this token may also be
    // older than the last change.
    within_seconds(10, async {
        loop {
            let other_token = watch_from_now(&other).await.token;
            if open_stream(&acme, &other_token).await.1.user_ids.is_empty() {
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
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["permission:check"]).await;
    let mut stream = watch_from_now(&ada).await;
    ada.auth().logout(LogoutRequest::default()).await.expect("signed out");
    let status = stream.final_status().await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "TOKEN_INVALID"));

    let grace = acme.create_member("grace", &["permission:check"]).await;
    let mut stream = watch_from_now(&grace).await;
    acme.unassign(&grace.user_id, &acme.role_id("grace").await).await;
    let status = stream.final_status().await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(reason(&status), "PERMISSION_MISSING");
    let reply = grace.permissions().watch_permissions(WatchPermissionsRequest::default()).await;
    assert_refused(reply, Code::PermissionDenied, "PERMISSION_MISSING");

    let joan = acme.create_member("joan", &["permission:check"]).await;
    let mut stream = watch_from_now(&joan).await;
    let request = DisableUserRequest { user_id: joan.user_id.clone() };
    acme.users().disable_user(request).await.expect("disabled");
    assert_eq!(stream.final_status().await.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_stream_ends_when_its_callers_token_expires() {
    let app = TestApp::with_settings(|values| values.set("JWT_ACCESS_EXPIRES_IN", "1s")).await;
    let acme = app.create_tenant("acme").await;
    let mut stream = watch_from_now(&acme).await;
    // The leeway extends the validity of a token by 30 seconds.
    let status = within_seconds(45, async {
        loop {
            if let Err(status) = stream.messages.message().await {
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
    let app = TestApp::with_settings(|values| values.set("SHUTDOWN_GRACE", "20s")).await;
    let acme = app.create_tenant("acme").await;
    let mut stream = watch_from_now(&acme).await;
    let (status, ()) = tokio::join!(stream.final_status(), within_seconds(10, app.stop()));
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(reason(&status), "WATCH_INTERRUPTED");
}

#[tokio::test]
async fn a_stream_ends_when_the_feed_cannot_be_followed() {
    let proxy = Proxy::postgres().await;
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let url = proxy.postgres_url(&app.database);
    let second_replica =
        TestApp::on_database(&app.database, |values| values.set("DATABASE_URL", url)).await;
    let mut stream = watch_from_now(&acme.on_server(&second_replica.channel)).await;
    proxy.hold();
    let status = stream.final_status().await;
    assert_eq!(status.code(), Code::Unavailable);
}

/// The request timeout applies only until the response begins.
#[tokio::test]
async fn the_request_timeout_does_not_end_a_stream() {
    let app = TestApp::with_settings(|values| values.set("REQUEST_TIMEOUT", "2s")).await;
    let acme = app.create_tenant("acme").await;
    let mut stream = watch_from_now(&acme).await;
    stream.next().await;
    let user = create_users(&acme, 1).await.remove(0);
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    acme.assign(&user, &role).await;
    stream.expect_changed_users(&[&user]).await;
}

/// When a client reads a stream too slowly, messages are dropped, and the next message sets
/// `all_subjects`.
#[tokio::test]
async fn a_slow_client_gets_a_message_that_sets_all_subjects() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let mut stream = watch_from_now(&acme).await;
    let mut owner_connection = app.owner_connection().await;
    // More messages than the buffers of the connection hold. The client reads none of them yet.
    for n in 0..250 {
        sqlx::query(
            "insert into changes (tenant_id, kind, subject_id)
             select $1::uuid, 'user', gen_random_uuid() from generate_series(1, 900)",
        )
        .bind(&acme.tenant_id)
        .execute(&mut owner_connection)
        .await
        .expect("changes");
        // A change by a call makes the replica read the feed immediately.
        if n % 10 == 0 {
            let user = acme.create_user_without_password(&format!("u{n}@acme.test")).await;
            let request = DisableUserRequest { user_id: user };
            acme.users().disable_user(request).await.expect("disabled");
        }
    }
    while !stream.next_change().await.all_subjects {}
}
