//! A tenant always keeps at least one administrator.

use std::ops::Range;

use serde_json::json;
use sqlx::PgConnection;
use tenantry::{
    privacy::{Cipher, SealContext, bound_row},
    proto::v1::{
        DeleteUserRequest, DisableUserRequest, RoleLevel, UnassignRoleRequest, UpdateRoleRequest,
    },
};
use tonic::{Code, Response, Status};

use crate::harness::{Client, TestApp, refused, rounds};

#[derive(Clone, Copy, Debug)]
enum Removal {
    Unassign,
    Disable,
    Delete,
}

const REMOVALS: [Removal; 3] = [Removal::Unassign, Removal::Disable, Removal::Delete];

/// Removes an administrator in one of three ways.
async fn remove(by: &Client, user: &str, role: &str, how: Removal) -> Result<Response<()>, Status> {
    let user_id = user.to_owned();
    match how {
        Removal::Unassign => {
            let role_id = role.to_owned();
            let request = UnassignRoleRequest { user_id, role_id, all_scopes: true, scope: None };
            by.roles().unassign_role(request).await.map(|_| Response::new(()))
        }
        Removal::Disable => {
            let request = DisableUserRequest { user_id };
            by.users().disable_user(request).await.map(|_| Response::new(()))
        }
        Removal::Delete => {
            let request = DeleteUserRequest { user_id, etag: String::new() };
            by.users().delete_user(request).await.map(|_| Response::new(()))
        }
    }
}

/// F07: a tenant keeps an active administrator.
#[tokio::test]
async fn the_last_administrator_stays() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let role = acme.system_role("org_admin").await;

    for how in REMOVALS {
        let result = remove(&acme, &acme.user_id, &role, how).await;
        refused(result, Code::FailedPrecondition, "LAST_ORG_ADMIN");
    }
    assert!(acme.may(&acme.user_id, "any:thing").await);
}

/// F07: a tenant keeps an active administrator.
#[tokio::test]
async fn disabled_temporary_scoped_or_powerless_administrators_do_not_count() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let role = acme.system_role("org_admin").await;
    let mut users = Vec::new();
    for name in ["disabled", "for-a-time", "somewhere", "hollow"] {
        users.push(acme.create_user_without_password(&format!("{name}@acme.test")).await);
    }
    acme.assign(&users[0], &role).await;
    let request = DisableUserRequest { user_id: users[0].clone() };
    acme.users().disable_user(request).await.expect("disabled");
    acme.assign_for_an_hour(&users[1], &role).await;
    acme.assign_within(&users[2], &role, json!({ "p": "x" })).await;
    let hollow = acme.create_role("hollow", RoleLevel::OrgAdmin, &[]).await;
    acme.assign(&users[3], &hollow).await;

    for how in REMOVALS {
        let result = remove(&acme, &acme.user_id, &role, how).await;
        refused(result, Code::FailedPrecondition, "LAST_ORG_ADMIN");
    }
    for user in &users[..3] {
        remove(&acme, user, &role, Removal::Unassign).await.expect("the others can be removed");
    }
}

/// F07: a tenant keeps an active administrator.
#[tokio::test]
async fn an_administrator_with_a_successor_can_be_removed() {
    let app = TestApp::shared();
    for (at, how) in REMOVALS.into_iter().enumerate() {
        let acme = app.tenant(&format!("acme-{at}")).await;
        let role = acme.system_role("org_admin").await;
        let heir = acme.create_user_without_password("heir@acme.test").await;
        acme.assign(&heir, &role).await;
        let heir = app.sign_in_as(&heir, &acme).await;

        remove(&acme, &acme.user_id, &role, how).await.expect("can be removed");
        let result = remove(&heir, &heir.user_id, &role, how).await;
        refused(result, Code::FailedPrecondition, "LAST_ORG_ADMIN");
    }
}

/// F07: a tenant keeps an active administrator.
#[tokio::test]
async fn the_administrators_role_cannot_be_emptied_or_lowered() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let role = acme.system_role("org_admin").await;
    let staff = app.platform_admin().await.with("x-tenant-id", &acme.tenant_id);
    let change = || UpdateRoleRequest { role_id: role.clone(), ..UpdateRoleRequest::default() };

    for request in [
        UpdateRoleRequest { level: Some(RoleLevel::Member.into()), ..change() },
        UpdateRoleRequest { permissions: vec!["doc:read".into()], ..change() },
    ] {
        let result = staff.roles().update_role(request).await;
        refused(result, Code::FailedPrecondition, "LAST_ORG_ADMIN");
    }
    assert!(acme.may("", "any:thing").await);
}

/// F08: concurrent calls cannot remove the last administrator.
#[tokio::test(flavor = "multi_thread")]
async fn two_administrators_that_remove_each_other_at_once_leave_one() {
    const TENANTS: usize = 4;
    let each = rounds(250);
    let app = TestApp::spawn().await;
    let replica = TestApp::on(&app.database, |_| {}).await;
    let mut founders = Vec::new();
    for n in 0..TENANTS {
        founders.push(app.tenant(&format!("acme-{n}")).await);
    }
    let duels = founders.iter().enumerate().map(|(n, founder)| {
        let rounds = n * each..(n + 1) * each;
        duel(&app, &replica, founder, rounds)
    });
    futures::future::join_all(duels).await;
}

/// Plays the rounds of one tenant. In each round both replicas get a call at the same time.
async fn duel(app: &TestApp, replica: &TestApp, founder: &Client, rounds: Range<usize>) {
    let role = founder.system_role("org_admin").await;
    let cipher = app.cipher(&founder.tenant_id).await;
    let mut owner = app.owner().await;
    for round in rounds {
        let (left, right) = (REMOVALS[round % 3], REMOVALS[round / 3 % 3]);
        let pair = two_sole_administrators(&mut owner, &cipher, founder, &role, round).await;
        let here = app.sign_in_as(&pair[0], founder).await;
        let replica_client = app.sign_in_as(&pair[1], founder).await.on(&replica.channel);

        let (a, b) = tokio::join!(
            remove(&here, &pair[1], &role, left),
            remove(&replica_client, &pair[0], &role, right),
        );
        assert!(a.is_ok() != b.is_ok(), "{round}: {left:?} {right:?}: {a:?} {b:?}");
        let admins = sqlx::query_scalar(ADMINS).bind(&founder.tenant_id).fetch_one(&mut owner);
        let admins: i64 = admins.await.expect("a count");
        assert_eq!(admins, 1, "{round}: {left:?} {right:?}");
    }
}

const ADMINS: &str =
    "select count(*) from role_assignments a join roles r using (tenant_id, role_id)
    join users u using (tenant_id, user_id)
    where tenant_id = $1::uuid and r.name = 'org_admin' and u.state = 'active'";

/// Creates two administrators and removes all others, directly in the database.
async fn two_sole_administrators(
    owner: &mut PgConnection,
    cipher: &Cipher,
    founder: &Client,
    role: &str,
    round: usize,
) -> [String; 2] {
    let mut pair = [String::new(), String::new()];
    let remove_all = "delete from role_assignments where role_id = $1::uuid";
    sqlx::query(remove_all).bind(role).execute(&mut *owner).await.expect("nobody is left");
    for (side, id) in pair.iter_mut().enumerate() {
        *id = crate::harness::unknown_id();
        let add =
            "with u as (insert into users (tenant_id, user_id, profile, email_index, email_lookup)
                       values ($1::uuid, $2::uuid, $3, $5, $5))
                   insert into role_assignments (tenant_id, assignment_id, user_id, role_id)
                   values ($1::uuid, $2::uuid, $2::uuid, $4::uuid)";
        sqlx::query(add)
            .bind(&founder.tenant_id)
            .bind(&*id)
            .bind(profile(cipher, id, &format!("{round}-{side}@acme.test")))
            .bind(role)
            .bind(id.parse::<uuid::Uuid>().expect("a UUID").as_bytes().as_slice())
            .execute(&mut *owner)
            .await
            .expect("an administrator");
    }
    pair
}

/// Sealed profile of a new user. The user's id serves as the lookup index of its email.
fn profile(cipher: &Cipher, user: &str, email: &str) -> Vec<u8> {
    let user: uuid::Uuid = user.parse().expect("a UUID");
    let profile = serde_json::json!({ "email": email, "display_name": "" }).to_string();
    let row = bound_row(&user, &[&1_i64.to_be_bytes(), user.as_bytes(), user.as_bytes()]);
    cipher.seal(SealContext { table: "users", row: &row }, profile.as_bytes()).expect("sealed")
}
