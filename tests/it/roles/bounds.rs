//! Limits of the data of a subject and of a tenant.

use futures::future::join_all;
use serde_json::{Value, json};
use tenantry::proto::v1::{
    AssignRoleRequest, CreateRoleRequest, CreateServiceAccountRequest, RoleLevel,
    UnassignRoleRequest, UpdateRoleRequest,
};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::harness::{Client, PASSWORD, TestApp, assert_refused, struct_of};

/// Asserts that a call was refused because of a limit. The details of the status contain the name
/// and the value of the limit. The message contains the value. The client is not told to retry.
#[track_caller]
fn assert_limit_reached<T: std::fmt::Debug>(
    result: Result<Response<T>, Status>,
    limit: &str,
    value: i64,
) {
    let status = assert_refused(result, Code::FailedPrecondition, "LIMIT_REACHED");
    let details = status.get_error_details();
    let metadata = &details.error_info().expect("an ErrorInfo").metadata;
    assert_eq!(metadata.get("limit").map(String::as_str), Some(limit), "{status:?}");
    assert_eq!(metadata.get("value"), Some(&value.to_string()), "{status:?}");
    assert!(status.message().contains(&value.to_string()), "{status:?}");
    assert!(details.retry_info().is_none(), "{status:?}");
}

async fn assign(
    client: &Client,
    user: &str,
    role: &str,
    scope: Value,
) -> Result<Response<()>, Status> {
    let request = AssignRoleRequest {
        user_id: user.into(),
        role_id: role.into(),
        scope: struct_of(scope),
        ..AssignRoleRequest::default()
    };
    client.roles().assign_role(request).await.map(|_| Response::new(()))
}

/// Inserts assignments directly into the database, which does not check the limits: one for each
/// scope that the query `scopes_sql` returns. `expires_at_sql` is an SQL expression.
pub(super) async fn insert_assignments(
    app: &TestApp,
    user: &str,
    role: &str,
    scopes_sql: &str,
    expires_at_sql: &str,
) {
    let sql = format!(
        "insert into role_assignments
             (tenant_id, assignment_id, user_id, role_id, scope, scope_key, expires_at)
         select tenant_id, gen_random_uuid(), $1::uuid, role_id, scope,
                sha256(scope::text::bytea), {expires_at_sql}
         from roles, ({scopes_sql}) s (scope) where role_id = $2::uuid"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(user)
        .bind(role)
        .execute(&mut app.owner_connection().await)
        .await
        .expect("the assignments are inserted");
}

/// A query that returns this many different scopes of a few bytes.
pub(super) fn small_scopes_sql(count: usize) -> String {
    format!("select jsonb_build_object('n', n) from generate_series(1, {count}) n")
}

/// A request to create a role whose permissions have this many bytes together, rounded down to a
/// multiple of 128.
fn role_request(name: &str, bytes: usize) -> CreateRoleRequest {
    CreateRoleRequest {
        name: name.into(),
        level: RoleLevel::Member.into(),
        permissions: permissions_of_size(bytes),
        ..CreateRoleRequest::default()
    }
}

/// Different permissions of 128 bytes each, with at most this many bytes together.
fn permissions_of_size(bytes: usize) -> Vec<String> {
    (0..bytes / 128).map(|n| format!("{n:0>123}:read")).collect()
}

/// N21: at the limit, the existing assignments still apply.
#[tokio::test]
async fn a_subject_has_at_most_1000_active_assignments() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user_without_password("ada@acme.test").await;
    let ops = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    insert_assignments(&app, &ada, &ops, &small_scopes_sql(998), "null").await;

    assign(&acme, &ada, &ops, json!({ "x": 1 })).await.expect("the 999th assignment");
    assign(&acme, &ada, &ops, json!(null)).await.expect("the 1000th assignment");
    for scope in [json!({ "x": 2 }), json!({ "x": 3 })] {
        assert_limit_reached(
            assign(&acme, &ada, &ops, scope).await,
            "assignments_of_subject",
            1000,
        );
    }
    assert!(acme.user_may(&ada, "doc:read").await, "existing assignments still apply");
    let bob = acme.create_user_without_password("bob@acme.test").await;
    assign(&acme, &bob, &ops, json!(null)).await.expect("other subjects have their own limit");

    let request = UnassignRoleRequest {
        user_id: ada.clone(),
        role_id: ops.clone(),
        scope: struct_of(json!({ "x": 1 })),
        ..UnassignRoleRequest::default()
    };
    acme.roles().unassign_role(request).await.expect("unassigned");
    assign(&acme, &ada, &ops, json!({ "x": 2 }))
        .await
        .expect("the number is below the limit again");
}

/// N21: the limit does not count expired assignments, and a limited number of them is stored.
#[tokio::test]
async fn the_limit_ignores_expired_assignments_and_the_latest_100_are_kept() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user_without_password("ada@acme.test").await;
    let ops = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    insert_assignments(&app, &ada, &ops, &small_scopes_sql(1500), "now() - interval '1 hour'")
        .await;

    assign(&acme, &ada, &ops, json!(null)).await.expect("assigned");
    let sql = "select count(*) from role_assignments where user_id = $1";
    assert_eq!(app.count(sql, &ada).await, 101, "100 expired assignments and the new one");
}

/// N21: an assignment without a scope adds no bytes.
#[tokio::test]
async fn the_scopes_of_a_subject_have_at_most_256_kib() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user_without_password("ada@acme.test").await;
    let ops = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    // Each scope is a list of eight texts of 996 bytes, so it has about 8 KiB: 32 scopes fit into
    // 256 KiB.
    let large_scopes_sql = "select jsonb_build_object('n', n, 'p', (
                     select jsonb_agg(repeat('x', 995) || k) from generate_series(1, 8) k
                 ))
                 from generate_series(1, 31) n";
    insert_assignments(&app, &ada, &ops, large_scopes_sql, "null").await;

    let texts: Vec<_> = (1..=8).map(|k| format!("{}{k}", "y".repeat(995))).collect();
    let large_scope = |n: i32| json!({ "n": n, "p": texts });
    assign(&acme, &ada, &ops, large_scope(1)).await.expect("the 32nd scope fits");
    let result = assign(&acme, &ada, &ops, large_scope(2)).await;
    assert_limit_reached(result, "scope_bytes_of_subject", 256 * 1024);
    assign(&acme, &ada, &ops, json!(null))
        .await
        .expect("an assignment without a scope adds no bytes");
}

/// N21: the size of a scope in an assignment is limited.
#[tokio::test]
async fn a_scope_has_at_most_8_kib_but_a_larger_old_scope_can_be_unassigned() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user_without_password("ada@acme.test").await;
    let ops = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    let scope = |last_length: usize| {
        let mut texts = vec!["x".repeat(1000); 8];
        texts.push("x".repeat(last_length));
        json!({ "p": texts })
    };
    // 6 bytes of `{"p":[`, 1003 of each of the eight texts with quotes and comma, 2 quotes of the
    // last text, and 2 bytes of `]}`.
    let max_last_length = 8192 - 6 - 8 * 1003 - 2 - 2;
    assert_eq!(scope(max_last_length).to_string().len(), 8192);
    assign(&acme, &ada, &ops, scope(max_last_length)).await.expect("8 KiB");
    let result = assign(&acme, &ada, &ops, scope(max_last_length + 1)).await;
    assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");

    // A scope of 20 KB that was stored before the limit existed.
    let texts: Vec<_> = (10..30).map(|k| format!("{}{k}", "y".repeat(998))).collect();
    let old_scope = json!({ "p": texts });
    assign(&acme, &ada, &ops, json!({ "p": 1 })).await.expect("assigned");
    sqlx::query(
        "update role_assignments set scope = $1, scope_key = sha256($2)
         where user_id = $3::uuid and scope = '{\"p\": 1}'",
    )
    .bind(&old_scope)
    .bind(old_scope.to_string().into_bytes())
    .bind(&ada)
    .execute(&mut app.owner_connection().await)
    .await
    .expect("the old scope is stored");
    let request = UnassignRoleRequest {
        user_id: ada,
        role_id: ops,
        scope: struct_of(old_scope),
        ..UnassignRoleRequest::default()
    };
    acme.roles().unassign_role(request).await.expect("unassigned");
}

/// N21: the count is made under a lock, so concurrent calls cannot exceed the limit.
#[tokio::test]
async fn concurrent_calls_cannot_exceed_a_limit() {
    // One connection per call. With fewer connections, calls could time out on a busy machine.
    let app = TestApp::with_settings(|values| values.set("DATABASE_MAX_CONNECTIONS", "40")).await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user_without_password("ada@acme.test").await;
    let ops = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    insert_assignments(&app, &ada, &ops, &small_scopes_sql(990), "null").await;
    // Each call assigns another role, because a call also locks the row of the role.
    let roles = join_all((0..16).map(|n| {
        let (acme, name) = (acme.clone(), format!("r{n}"));
        async move { acme.create_role(&name, RoleLevel::Member, &["doc:read"]).await }
    }));
    let calls = roles.await.into_iter().map(|role| {
        let (acme, ada) = (&acme, &ada);
        async move { assign(acme, ada, &role, json!(null)).await }
    });
    let (assigned, refusals): (Vec<_>, Vec<_>) =
        join_all(calls).await.into_iter().partition(Result::is_ok);
    // 990 assignments exist, so 10 of the 16 calls succeed.
    assert_eq!((assigned.len(), refusals.len()), (10, 6));
    for refusal in refusals {
        assert_limit_reached(refusal, "assignments_of_subject", 1000);
    }

    add_roles_until(&app, &acme, 990).await;
    let calls = (0..16).map(|n| {
        let request = CreateRoleRequest { name: format!("s{n}"), ..role_request("", 0) };
        let mut roles = acme.roles();
        async move { roles.create_role(request).await }
    });
    let results = join_all(calls).await;
    let created_count = results.iter().filter(|result| result.is_ok()).count();
    let sql = "select count(*) from roles where tenant_id = $1";
    assert_eq!((created_count > 0, app.count(sql, &acme.tenant_id).await), (true, 1000));
    results
        .into_iter()
        .filter(Result::is_err)
        .for_each(|result| assert_limit_reached(result, "roles_of_tenant", 1000));
}

/// Adds roles without permissions until the tenant has this many roles.
async fn add_roles_until(app: &TestApp, acme: &Client, count: i32) {
    let sql = "insert into roles (tenant_id, role_id, name, level)
               select $1::uuid, gen_random_uuid(), 'filler ' || n, 1
               from generate_series(1, $2 - (
                   select count(*)::int from roles where tenant_id = $1::uuid
               )) n";
    sqlx::query(sql)
        .bind(&acme.tenant_id)
        .bind(count)
        .execute(&mut app.owner_connection().await)
        .await
        .expect("the roles are inserted");
}

/// N21: the limit applies to a new role and to an update.
#[tokio::test]
async fn the_permissions_of_a_role_have_at_most_64_kib() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let max_bytes = 64 * 1024;
    acme.roles().create_role(role_request("most", max_bytes)).await.expect("64 KiB");
    let result = acme.roles().create_role(role_request("more", max_bytes + 128)).await;
    assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");

    let role_id = acme.create_role("grows", RoleLevel::Member, &["doc:read"]).await;
    let permissions = permissions_of_size(max_bytes + 128);
    let request = UpdateRoleRequest { role_id, permissions, ..UpdateRoleRequest::default() };
    let result = acme.roles().update_role(request).await;
    assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
}

/// N21: above the limit, a role can still become smaller or get another name.
#[tokio::test]
async fn the_permissions_of_all_roles_of_a_tenant_have_at_most_1_mib() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let small_role = acme.create_role("small", RoleLevel::Member, &["doc:read"]).await;
    let mut last_role = String::new();
    // 16 of these roles would have exactly 1 MiB, and other roles also have permissions.
    for n in 0..15 {
        let reply = acme.roles().create_role(role_request(&format!("r{n}"), 64 * 1024)).await;
        last_role = reply.expect("created").into_inner().role.expect("the role").id;
    }
    let result = acme.roles().create_role(role_request("r15", 64 * 1024)).await;
    assert_limit_reached(result, "permission_bytes_of_roles", 1024 * 1024);

    let update = async |role_id: &str, bytes: usize| {
        let (role_id, permissions) = (role_id.to_owned(), permissions_of_size(bytes));
        let request = UpdateRoleRequest { role_id, permissions, ..UpdateRoleRequest::default() };
        acme.roles().update_role(request).await
    };
    update(&small_role, 60 * 1024).await.expect("below the limit");
    assert_limit_reached(
        update(&small_role, 64 * 1024).await,
        "permission_bytes_of_roles",
        1024 * 1024,
    );
    // In a tenant that is already above the limit, a role can still get smaller or be renamed.
    let grow_sql = "update roles set permissions = array_cat(permissions, array(
                    select 'old' || n || repeat('x', 40) || ':read' from generate_series(1, 5000) n))
                where role_id = $1::uuid";
    sqlx::query(grow_sql)
        .bind(&last_role)
        .execute(&mut app.owner_connection().await)
        .await
        .expect("the role has grown");
    assert_limit_reached(
        update(&small_role, 61 * 1024).await,
        "permission_bytes_of_roles",
        1024 * 1024,
    );
    update(&small_role, 1024).await.expect("the role gets smaller");
    let name = Some("new name".into());
    let request = UpdateRoleRequest { role_id: last_role, name, ..UpdateRoleRequest::default() };
    acme.roles().update_role(request).await.expect("renamed");
}

/// N21: the number of permissions of a tenant is limited.
#[tokio::test]
async fn all_roles_of_a_tenant_have_at_most_50000_permissions() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    add_roles_until(&app, &acme, 64).await;
    // 60 of the 64 roles are not system roles.
    let permissions_sql = "update roles set permissions = array(
                    select 'a:' || n from generate_series(1, 50000 / 60) n)
                where tenant_id = $1::uuid and not is_system";
    let mut owner_connection = app.owner_connection().await;
    sqlx::query(permissions_sql)
        .bind(&acme.tenant_id)
        .execute(&mut owner_connection)
        .await
        .expect("the permissions are added");

    let sql = "select sum(cardinality(permissions))::bigint from roles where tenant_id = $1";
    let free_count = 50_000 - app.count(sql, &acme.tenant_id).await;
    let role_with_permissions = |count| CreateRoleRequest {
        permissions: (0..count).map(|n| format!("b:{n}")).collect(),
        ..role_request(&format!("r{count}"), 0)
    };
    let result = acme.roles().create_role(role_with_permissions(free_count + 1)).await;
    assert_limit_reached(result, "permissions_of_roles", 50_000);
    acme.roles()
        .create_role(role_with_permissions(free_count))
        .await
        .expect("the tenant then has exactly 50000 permissions");
}

/// N21: the number of service accounts of a tenant is limited.
#[tokio::test]
async fn a_tenant_has_at_most_10000_service_accounts() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let sql = "insert into service_accounts (tenant_id, account_id, name)
               select $1::uuid, gen_random_uuid(), 'a' || n from generate_series(1, 9999) n";
    let mut owner_connection = app.owner_connection().await;
    sqlx::query(sql)
        .bind(&acme.tenant_id)
        .execute(&mut owner_connection)
        .await
        .expect("9999 accounts are inserted");
    acme.create_service_account("last", &[]).await;
    let request = CreateServiceAccountRequest { name: "over".into(), ..Default::default() };
    let result = acme.service_accounts().create_service_account(request).await;
    assert_limit_reached(result, "service_accounts_of_tenant", 10_000);
}

/// N21: the size of a token does not depend on the number and lengths of the user's role names.
#[tokio::test]
async fn a_token_of_a_user_with_480_roles_works() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let anonymous = Client::anonymous(acme.channel.clone());
    // The first user gets role names of one to three characters, the second user gets role
    // names of the maximum length.
    let sql = "with new_roles as (
                   insert into roles (tenant_id, role_id, name, level)
                   select $1::uuid, gen_random_uuid(), name, 1 from (
                       select case when $3 then to_hex(n) else rpad('r' || n, 100, 'x') end
                       from generate_series(1, 480) n
                   ) n (name)
                   returning tenant_id, role_id
               )
               insert into role_assignments (tenant_id, assignment_id, user_id, role_id)
               select tenant_id, gen_random_uuid(), $2::uuid, role_id from new_roles";
    for (email, short_names) in [("ada@acme.test", true), ("bob@acme.test", false)] {
        let user = acme.create_user(email).await;
        sqlx::query(sql)
            .bind(&acme.tenant_id)
            .bind(&user)
            .bind(short_names)
            .execute(&mut app.owner_connection().await)
            .await
            .expect("480 roles are assigned");
        let user = anonymous.login(&acme.slug, email, PASSWORD).await;
        let token = &user.tokens.access_token;
        assert!(token.len() < 4096, "{}", token.len());
        let me = user.identity().await;
        assert_eq!(me.roles.len(), 480);
    }
}
