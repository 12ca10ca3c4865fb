//! A tenant always keeps at least one administrator.

use std::ops::Range;

use serde_json::json;
use sqlx::PgConnection;
use tenantry::{
    privacy::{Cipher, SealContext, bound_row_bytes},
    proto::v1::{
        DeleteUserRequest, DisableUserRequest, RoleLevel, UnassignRoleRequest, UpdateRoleRequest,
    },
};
use tonic::{Code, Response, Status};

use crate::harness::{Client, TestApp, assert_refused, rounds};

#[derive(Clone, Copy, Debug)]
enum Removal {
    Unassign,
    Disable,
    Delete,
}

const ALL_REMOVALS: [Removal; 3] = [Removal::Unassign, Removal::Disable, Removal::Delete];

/// Removes an administrator, or the administrator's role, in one of three ways.
async fn remove(
    client: &Client,
    user: &str,
    role: &str,
    removal: Removal,
) -> Result<Response<()>, Status> {
    let user_id = user.to_owned();
    match removal {
        Removal::Unassign => {
            let role_id = role.to_owned();
            let request = UnassignRoleRequest { user_id, role_id, all_scopes: true, scope: None };
            client.roles().unassign_role(request).await.map(|_| Response::new(()))
        }
        Removal::Disable => {
            let request = DisableUserRequest { user_id };
            client.users().disable_user(request).await.map(|_| Response::new(()))
        }
        Removal::Delete => {
            let request = DeleteUserRequest { user_id, etag: String::new() };
            client.users().delete_user(request).await.map(|_| Response::new(()))
        }
    }
}

/// F07: the user can be neither disabled nor deleted, and keeps the role.
#[tokio::test]
async fn the_last_administrator_stays() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let role = acme.system_role("org_admin").await;

    for removal in ALL_REMOVALS {
        let result = remove(&acme, &acme.user_id, &role, removal).await;
        assert_refused(result, Code::FailedPrecondition, "LAST_ORG_ADMIN");
    }
    assert!(acme.user_may(&acme.user_id, "any:thing").await);
}

/// F07: the last other administrator cannot be removed.
#[tokio::test]
async fn disabled_temporary_scoped_or_powerless_administrators_do_not_count() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let role = acme.system_role("org_admin").await;
    let mut users = Vec::new();
    for name in ["disabled", "temporary", "scoped", "powerless"] {
        users.push(acme.create_user_without_password(&format!("{name}@acme.test")).await);
    }
    acme.assign(&users[0], &role).await;
    let request = DisableUserRequest { user_id: users[0].clone() };
    acme.users().disable_user(request).await.expect("disabled");
    acme.assign_for_an_hour(&users[1], &role).await;
    acme.assign_with_scope(&users[2], &role, json!({ "p": "x" })).await;
    let powerless_role = acme.create_role("powerless", RoleLevel::OrgAdmin, &[]).await;
    acme.assign(&users[3], &powerless_role).await;

    for removal in ALL_REMOVALS {
        let result = remove(&acme, &acme.user_id, &role, removal).await;
        assert_refused(result, Code::FailedPrecondition, "LAST_ORG_ADMIN");
    }
    for user in &users[..3] {
        remove(&acme, user, &role, Removal::Unassign)
            .await
            .expect("an administrator that does not count can be removed");
    }
}

/// F07: after the removal, the successor is the last administrator.
#[tokio::test]
async fn an_administrator_with_a_successor_can_be_removed() {
    let app = TestApp::shared();
    for (n, removal) in ALL_REMOVALS.into_iter().enumerate() {
        let acme = app.create_tenant(&format!("acme-{n}")).await;
        let role = acme.system_role("org_admin").await;
        let successor_id = acme.create_user_without_password("successor@acme.test").await;
        acme.assign(&successor_id, &role).await;
        let successor = app.create_session(&successor_id, &acme).await;

        remove(&acme, &acme.user_id, &role, removal)
            .await
            .expect("the first administrator can be removed");
        let result = remove(&successor, &successor.user_id, &role, removal).await;
        assert_refused(result, Code::FailedPrecondition, "LAST_ORG_ADMIN");
    }
}

/// F07: not even platform staff can lower the level or replace the permissions of the
/// administrators' role.
#[tokio::test]
async fn the_administrators_role_cannot_lose_its_permissions_or_level() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let role = acme.system_role("org_admin").await;
    let platform_admin_in_acme =
        app.platform_admin().await.with_metadata("x-tenant-id", &acme.tenant_id);
    let update_request =
        || UpdateRoleRequest { role_id: role.clone(), ..UpdateRoleRequest::default() };

    for request in [
        UpdateRoleRequest { level: Some(RoleLevel::Member.into()), ..update_request() },
        UpdateRoleRequest { permissions: vec!["doc:read".into()], ..update_request() },
    ] {
        let result = platform_admin_in_acme.roles().update_role(request).await;
        assert_refused(result, Code::FailedPrecondition, "LAST_ORG_ADMIN");
    }
    assert!(acme.may("any:thing").await);
}

/// F08: concurrent calls cannot remove the last administrator.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_administrators_that_remove_each_other_concurrently_one_stays() {
    const TENANTS: usize = 4;
    let rounds_per_tenant = rounds(250);
    let app = TestApp::spawn().await;
    let replica = TestApp::on_database(&app.database, |_| {}).await;
    let mut founders = Vec::new();
    for n in 0..TENANTS {
        founders.push(app.create_tenant(&format!("acme-{n}")).await);
    }
    let races = founders.iter().enumerate().map(|(n, founder)| {
        let rounds = n * rounds_per_tenant..(n + 1) * rounds_per_tenant;
        race(&app, &replica, founder, rounds)
    });
    futures::future::join_all(races).await;
}

/// Runs the rounds of one tenant. In each round two administrators remove each other at the same
/// time, on two replicas.
async fn race(app: &TestApp, replica: &TestApp, founder: &Client, rounds: Range<usize>) {
    let role = founder.system_role("org_admin").await;
    let cipher = app.cipher(&founder.tenant_id).await;
    let mut owner_connection = app.owner_connection().await;
    for round in rounds {
        // The rounds go through all nine pairs of removals.
        let (first_removal, second_removal) =
            (ALL_REMOVALS[round % 3], ALL_REMOVALS[round / 3 % 3]);
        let admin_ids =
            create_two_sole_administrators(&mut owner_connection, &cipher, founder, &role, round)
                .await;
        let first_client = app.create_session(&admin_ids[0], founder).await;
        let second_client =
            app.create_session(&admin_ids[1], founder).await.on_server(&replica.channel);

        let (first_result, second_result) = tokio::join!(
            remove(&first_client, &admin_ids[1], &role, first_removal),
            remove(&second_client, &admin_ids[0], &role, second_removal),
        );
        assert!(
            first_result.is_ok() != second_result.is_ok(),
            "{round}: {first_removal:?} {second_removal:?}: {first_result:?} {second_result:?}"
        );
        let admin_count = sqlx::query_scalar(COUNT_ADMINS)
            .bind(&founder.tenant_id)
            .fetch_one(&mut owner_connection);
        let admin_count: i64 = admin_count.await.expect("a count");
        assert_eq!(admin_count, 1, "{round}: {first_removal:?} {second_removal:?}");
    }
}

const COUNT_ADMINS: &str =
    "select count(*) from role_assignments a join roles r using (tenant_id, role_id)
    join users u using (tenant_id, user_id)
    where tenant_id = $1::uuid and r.name = 'org_admin' and u.state = 'active'";

/// Removes all administrators and creates two new ones, directly in the database.
async fn create_two_sole_administrators(
    owner_connection: &mut PgConnection,
    cipher: &Cipher,
    founder: &Client,
    role: &str,
    round: usize,
) -> [String; 2] {
    let mut ids = [String::new(), String::new()];
    let delete_assignments = "delete from role_assignments where role_id = $1::uuid";
    sqlx::query(delete_assignments)
        .bind(role)
        .execute(&mut *owner_connection)
        .await
        .expect("the old administrators are removed");
    for (side, id) in ids.iter_mut().enumerate() {
        *id = crate::harness::unknown_id();
        let insert_admin =
            "with u as (insert into users (tenant_id, user_id, profile, email_index, email_lookup)
                       values ($1::uuid, $2::uuid, $3, $5, $5))
                   insert into role_assignments (tenant_id, assignment_id, user_id, role_id)
                   values ($1::uuid, $2::uuid, $2::uuid, $4::uuid)";
        sqlx::query(insert_admin)
            .bind(&founder.tenant_id)
            .bind(&*id)
            .bind(sealed_profile(cipher, id, &format!("{round}-{side}@acme.test")))
            .bind(role)
            .bind(id.parse::<uuid::Uuid>().expect("a UUID").as_bytes().as_slice())
            .execute(&mut *owner_connection)
            .await
            .expect("an administrator is inserted");
    }
    ids
}

/// The sealed profile of a new user. The bytes of the user's id serve as both blind indexes of the
/// email.
fn sealed_profile(cipher: &Cipher, user: &str, email: &str) -> Vec<u8> {
    let id: uuid::Uuid = user.parse().expect("a UUID");
    let profile = serde_json::json!({ "email": email, "display_name": "" }).to_string();
    // The profile is bound to the version of the row (1) and to both blind indexes.
    let row = bound_row_bytes(&id, &[&1_i64.to_be_bytes(), id.as_bytes(), id.as_bytes()]);
    cipher.seal(SealContext { table: "users", row: &row }, profile.as_bytes()).expect("sealed")
}
