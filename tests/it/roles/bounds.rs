//! Limits of the data of a subject and of a tenant.

use futures::future::join_all;
use serde_json::{Value, json};
use tenantry::proto::v1::{
    AssignRoleRequest, CreateRoleRequest, CreateServiceAccountRequest, RoleLevel,
    UnassignRoleRequest, UpdateRoleRequest, WhoAmIRequest,
};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::harness::{Client, PASSWORD, TestApp, refused, struct_of};

/// Asserts that a call was refused because of a limit. The status names the limit in its
/// details and its value in the message, and asks for no retry.
#[track_caller]
fn limited<T: std::fmt::Debug>(result: Result<Response<T>, Status>, limit: &str, value: i64) {
    let status = refused(result, Code::FailedPrecondition, "LIMIT_REACHED");
    let details = status.get_error_details();
    let metadata = &details.error_info().expect("an ErrorInfo").metadata;
    assert_eq!(metadata.get("limit").map(String::as_str), Some(limit), "{status:?}");
    assert_eq!(metadata.get("value"), Some(&value.to_string()), "{status:?}");
    assert!(status.message().contains(&value.to_string()), "{status:?}");
    assert!(details.retry_info().is_none(), "{status:?}");
}

async fn assign(by: &Client, user: &str, role: &str, scope: Value) -> Result<Response<()>, Status> {
    let request = AssignRoleRequest {
        user_id: user.into(),
        role_id: role.into(),
        scope: struct_of(scope),
        ..AssignRoleRequest::default()
    };
    by.roles().assign_role(request).await.map(|_| Response::new(()))
}

/// Inserts assignments directly, above all limits: one for each scope of the query `scopes`.
async fn insert_assignments(app: &TestApp, user: &str, role: &str, scopes: &str, ends: &str) {
    let sql = format!(
        "insert into role_assignments
             (tenant_id, assignment_id, user_id, role_id, scope, scope_key, expires_at)
         select tenant_id, gen_random_uuid(), $1::uuid, role_id, scope,
                sha256(scope::text::bytea), {ends}
         from roles, ({scopes}) s (scope) where role_id = $2::uuid"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(user)
        .bind(role)
        .execute(&mut app.owner().await)
        .await
        .expect("given");
}

fn small(count: usize) -> String {
    format!("select jsonb_build_object('n', n) from generate_series(1, {count}) n")
}

/// A request for a role whose permissions have about this many bytes together.
fn role(name: &str, bytes: usize) -> CreateRoleRequest {
    CreateRoleRequest {
        name: name.into(),
        level: RoleLevel::Member.into(),
        permissions: permissions(bytes),
        ..CreateRoleRequest::default()
    }
}

fn permissions(bytes: usize) -> Vec<String> {
    (0..bytes / 128).map(|n| format!("{n:0>123}:read")).collect()
}

/// N21: the data of a subject and of a tenant is bounded.
#[tokio::test]
async fn a_subject_has_at_most_1000_active_assignments() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let ada = acme.create_user_without_password("ada@acme.test").await;
    let ops = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    insert_assignments(&app, &ada, &ops, &small(998), "null").await;

    assign(&acme, &ada, &ops, json!({ "x": 1 })).await.expect("the 999th");
    assign(&acme, &ada, &ops, json!(null)).await.expect("the 1000th");
    for scope in [json!({ "x": 2 }), json!({ "x": 3 })] {
        limited(assign(&acme, &ada, &ops, scope).await, "assignments_of_subject", 1000);
    }
    assert!(acme.may(&ada, "doc:read").await, "existing assignments still apply");
    let other = acme.create_user_without_password("bob@acme.test").await;
    assign(&acme, &other, &ops, json!(null)).await.expect("other subjects have their own limit");

    let request = UnassignRoleRequest {
        user_id: ada.clone(),
        role_id: ops.clone(),
        scope: struct_of(json!({ "x": 1 })),
        ..UnassignRoleRequest::default()
    };
    acme.roles().unassign_role(request).await.expect("taken");
    assign(&acme, &ada, &ops, json!({ "x": 2 })).await.expect("below the limit again");
}

/// N21: expired assignments are not counted, and only a limited number of them is stored.
#[tokio::test]
async fn expired_assignments_do_not_count_and_only_the_latest_100_are_kept() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let ada = acme.create_user_without_password("ada@acme.test").await;
    let ops = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    insert_assignments(&app, &ada, &ops, &small(1500), "now() - interval '1 hour'").await;

    assign(&acme, &ada, &ops, json!(null)).await.expect("given");
    let sql = "select count(*) from role_assignments where user_id = $1";
    assert_eq!(app.count(sql, &ada).await, 101);
}

/// N21: the data of a subject and of a tenant is bounded.
#[tokio::test]
async fn the_scopes_of_a_subject_have_at_most_256_kib() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let ada = acme.create_user_without_password("ada@acme.test").await;
    let ops = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    let eight = "select jsonb_build_object('n', n, 'p', (
                     select jsonb_agg(repeat('x', 995) || k) from generate_series(1, 8) k
                 ))
                 from generate_series(1, 31) n";
    insert_assignments(&app, &ada, &ops, eight, "null").await;

    let listed: Vec<_> = (1..=8).map(|k| format!("{}{k}", "y".repeat(995))).collect();
    let large = |n: i32| json!({ "n": n, "p": listed });
    assign(&acme, &ada, &ops, large(1)).await.expect("the 32nd fits");
    let more = assign(&acme, &ada, &ops, large(2)).await;
    limited(more, "scope_bytes_of_subject", 256 * 1024);
    assign(&acme, &ada, &ops, json!(null))
        .await
        .expect("an assignment without a scope has no scope bytes");
}

/// N21: the data of a subject and of a tenant is bounded.
#[tokio::test]
async fn a_scope_has_at_most_8_kib_and_a_larger_old_one_can_be_unassigned() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let ada = acme.create_user_without_password("ada@acme.test").await;
    let ops = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    let scope = |last: usize| {
        let mut listed = vec!["x".repeat(1000); 8];
        listed.push("x".repeat(last));
        json!({ "p": listed })
    };
    // The bytes are those of {"p":[, of eight times "…", and of "…"]}.
    let fits = 8192 - 6 - 8 * 1003 - 2 - 2;
    assert_eq!(scope(fits).to_string().len(), 8192);
    assign(&acme, &ada, &ops, scope(fits)).await.expect("8 KiB");
    let more = assign(&acme, &ada, &ops, scope(fits + 1)).await;
    refused(more, Code::InvalidArgument, "INVALID_FIELDS");

    // A scope that was stored before the limit existed.
    let listed: Vec<_> = (10..30).map(|k| format!("{}{k}", "y".repeat(998))).collect();
    let larger = json!({ "p": listed });
    assign(&acme, &ada, &ops, json!({ "p": 1 })).await.expect("given");
    sqlx::query(
        "update role_assignments set scope = $1, scope_key = sha256($2)
         where user_id = $3::uuid and scope = '{\"p\": 1}'",
    )
    .bind(&larger)
    .bind(larger.to_string().into_bytes())
    .bind(&ada)
    .execute(&mut app.owner().await)
    .await
    .expect("stored");
    let request = UnassignRoleRequest {
        user_id: ada,
        role_id: ops,
        scope: struct_of(larger),
        ..UnassignRoleRequest::default()
    };
    acme.roles().unassign_role(request).await.expect("taken");
}

/// N21: the count is made under a lock, so concurrent calls cannot exceed the limit.
#[tokio::test]
async fn concurrent_calls_cannot_exceed_a_limit() {
    // One connection per call. With fewer connections, calls could time out on a busy machine.
    let app = TestApp::with(|values| values.set("DATABASE_MAX_CONNECTIONS", "40")).await;
    let acme = app.tenant("acme").await;
    let ada = acme.create_user_without_password("ada@acme.test").await;
    let ops = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    insert_assignments(&app, &ada, &ops, &small(990), "null").await;
    // Each call assigns another role, because a call also locks the row of the role.
    let roles = join_all((0..16).map(|n| {
        let (acme, name) = (acme.clone(), format!("r{n}"));
        async move { acme.create_role(&name, RoleLevel::Member, &["doc:read"]).await }
    }));
    let given = roles.await.into_iter().map(|role| {
        let (acme, ada) = (&acme, &ada);
        async move { assign(acme, ada, &role, json!(null)).await }
    });
    let (given, over): (Vec<_>, Vec<_>) =
        join_all(given).await.into_iter().partition(Result::is_ok);
    assert_eq!((given.len(), over.len()), (10, 6));
    for over in over {
        limited(over, "assignments_of_subject", 1000);
    }

    fill_with_roles(&app, &acme, 990).await;
    let made = (0..16).map(|n| {
        let request = CreateRoleRequest { name: format!("s{n}"), ..role("", 0) };
        let mut roles = acme.roles();
        async move { roles.create_role(request).await }
    });
    let made = join_all(made).await;
    let count = made.iter().filter(|made| made.is_ok()).count();
    let sql = "select count(*) from roles where tenant_id = $1";
    assert_eq!((count > 0, app.count(sql, &acme.tenant_id).await), (true, 1000));
    made.into_iter().filter(Result::is_err).for_each(|e| limited(e, "roles_of_tenant", 1000));
}

/// Adds empty roles until the tenant has this many.
async fn fill_with_roles(app: &TestApp, acme: &Client, count: i32) {
    let sql = "insert into roles (tenant_id, role_id, name, level)
               select $1::uuid, gen_random_uuid(), 'filler ' || n, 1
               from generate_series(1, $2 - (
                   select count(*)::int from roles where tenant_id = $1::uuid
               )) n";
    sqlx::query(sql)
        .bind(&acme.tenant_id)
        .bind(count)
        .execute(&mut app.owner().await)
        .await
        .expect("filled");
}

/// N21: the data of a subject and of a tenant is bounded.
#[tokio::test]
async fn the_permissions_of_a_role_have_at_most_64_kib() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let at_most = 64 * 1024;
    acme.roles().create_role(role("most", at_most)).await.expect("64 KiB");
    let more = acme.roles().create_role(role("more", at_most + 128)).await;
    refused(more, Code::InvalidArgument, "INVALID_FIELDS");

    let role_id = acme.create_role("grows", RoleLevel::Member, &["doc:read"]).await;
    let permissions = permissions(at_most + 128);
    let request = UpdateRoleRequest { role_id, permissions, ..UpdateRoleRequest::default() };
    let more = acme.roles().update_role(request).await;
    refused(more, Code::InvalidArgument, "INVALID_FIELDS");
}

/// N21: the data of a subject and of a tenant is bounded.
#[tokio::test]
async fn the_permissions_of_all_roles_of_a_tenant_have_at_most_1_mib() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let small = acme.create_role("small", RoleLevel::Member, &["doc:read"]).await;
    let mut last = String::new();
    for n in 0..15 {
        let made = acme.roles().create_role(role(&format!("r{n}"), 64 * 1024)).await;
        last = made.expect("made").into_inner().role.expect("the role").id;
    }
    let over = acme.roles().create_role(role("r15", 64 * 1024)).await;
    limited(over, "permission_bytes_of_roles", 1024 * 1024);

    let update = async |role_id: &str, bytes: usize| {
        let (role_id, permissions) = (role_id.to_owned(), permissions(bytes));
        let request = UpdateRoleRequest { role_id, permissions, ..UpdateRoleRequest::default() };
        acme.roles().update_role(request).await
    };
    update(&small, 60 * 1024).await.expect("below the limit");
    limited(update(&small, 64 * 1024).await, "permission_bytes_of_roles", 1024 * 1024);
    // A tenant that is already above the limit can still shrink and rename a role.
    let grow = "update roles set permissions = array_cat(permissions, array(
                    select 'old' || n || repeat('x', 40) || ':read' from generate_series(1, 5000) n))
                where role_id = $1::uuid";
    sqlx::query(grow).bind(&last).execute(&mut app.owner().await).await.expect("grown");
    limited(update(&small, 61 * 1024).await, "permission_bytes_of_roles", 1024 * 1024);
    update(&small, 1024).await.expect("smaller");
    let name = Some("new name".into());
    let request = UpdateRoleRequest { role_id: last, name, ..UpdateRoleRequest::default() };
    acme.roles().update_role(request).await.expect("renamed");
}

/// N21: the data of a subject and of a tenant is bounded.
#[tokio::test]
async fn all_roles_of_a_tenant_have_at_most_50000_permissions() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    fill_with_roles(&app, &acme, 64).await;
    let fill = "update roles set permissions = array(
                    select 'a:' || n from generate_series(1, 50000 / 60) n)
                where tenant_id = $1::uuid and not is_system";
    let mut owner = app.owner().await;
    sqlx::query(fill).bind(&acme.tenant_id).execute(&mut owner).await.expect("filled");

    let sql = "select sum(cardinality(permissions))::bigint from roles where tenant_id = $1";
    let room = 50_000 - app.count(sql, &acme.tenant_id).await;
    let named = |count| CreateRoleRequest {
        permissions: (0..count).map(|n| format!("b:{n}")).collect(),
        ..role(&format!("r{count}"), 0)
    };
    let over = acme.roles().create_role(named(room + 1)).await;
    limited(over, "permissions_of_roles", 50_000);
    acme.roles().create_role(named(room)).await.expect("exactly at the limit");
}

/// N21: the data of a subject and of a tenant is bounded.
#[tokio::test]
async fn a_tenant_has_at_most_10000_service_accounts() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let sql = "insert into service_accounts (tenant_id, account_id, name)
               select $1::uuid, gen_random_uuid(), 'a' || n from generate_series(1, 9999) n";
    let mut owner = app.owner().await;
    sqlx::query(sql).bind(&acme.tenant_id).execute(&mut owner).await.expect("filled");
    acme.create_service_account("last", &[]).await;
    let request = CreateServiceAccountRequest { name: "over".into(), ..Default::default() };
    let over = acme.service_accounts().create_service_account(request).await;
    limited(over, "service_accounts_of_tenant", 10_000);
}

/// N21: the size of a token does not depend on the number and lengths of the user's role names.
#[tokio::test]
async fn a_token_of_a_user_with_very_many_roles_works() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let anonymous = Client::anonymous(acme.channel.clone());
    // The first user gets role names of one to three characters, the second user gets role
    // names of the maximum length.
    let sql = "with made as (
                   insert into roles (tenant_id, role_id, name, level)
                   select $1::uuid, gen_random_uuid(), name, 1 from (
                       select case when $3 then to_hex(n) else rpad('r' || n, 100, 'x') end
                       from generate_series(1, 480) n
                   ) n (name)
                   returning tenant_id, role_id
               )
               insert into role_assignments (tenant_id, assignment_id, user_id, role_id)
               select tenant_id, gen_random_uuid(), $2::uuid, role_id from made";
    for (email, short) in [("ada@acme.test", true), ("bob@acme.test", false)] {
        let user = acme.create_user(email).await;
        sqlx::query(sql)
            .bind(&acme.tenant_id)
            .bind(&user)
            .bind(short)
            .execute(&mut app.owner().await)
            .await
            .expect("roles");
        let user = anonymous.login(&acme.slug, email, PASSWORD).await;
        let token = &user.tokens.access_token;
        assert!(token.len() < 4096, "{}", token.len());
        let me = user.auth().who_am_i(WhoAmIRequest {}).await.expect("works").into_inner();
        assert_eq!(me.roles.len(), 480);
    }
}
