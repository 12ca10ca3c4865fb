//! Concurrent changes of the same few users and roles.

use tenantry::proto::v1::{
    AssignRoleRequest, CreateRoleRequest, DeleteRoleRequest, DeleteUserRequest, DisableUserRequest,
    EnableUserRequest, LoginRequest, RoleLevel, UnassignRoleRequest, UpdateRoleRequest,
    UpdateUserRequest,
};
use tonic::{Code, Status};

use crate::harness::{Client, PASSWORD, TestApp, rounds};

/// The users (id and email) and the roles that all workers change.
#[derive(Clone)]
struct Targets {
    users: Vec<(String, String)>,
    roles: Vec<String>,
}

/// Makes the change that a number selects.
async fn change(client: &Client, targets: &Targets, number: usize) -> Result<(), Status> {
    let (user_id, email) = targets.users[number / 16 % targets.users.len()].clone();
    let role_id = targets.roles[number / 64 % targets.roles.len()].clone();
    match number % 16 {
        0..=3 => {
            let request = AssignRoleRequest { user_id, role_id, ..AssignRoleRequest::default() };
            client.roles().assign_role(request).await.map(drop)
        }
        4 | 5 => {
            let request = UnassignRoleRequest { user_id, role_id, ..Default::default() };
            client.roles().unassign_role(request).await.map(drop)
        }
        6 | 7 => {
            let permissions = vec![format!("doc:a{number}")];
            let request =
                UpdateRoleRequest { role_id, permissions, ..UpdateRoleRequest::default() };
            client.roles().update_role(request).await.map(drop)
        }
        8 => client.users().disable_user(DisableUserRequest { user_id }).await.map(drop),
        9 | 10 => client.users().enable_user(EnableUserRequest { user_id }).await.map(drop),
        11 | 12 => {
            let request = LoginRequest {
                email,
                password: PASSWORD.into(),
                organization_slug: client.slug.clone(),
                ..LoginRequest::default()
            };
            client.with_token("").auth().login(request).await.map(drop)
        }
        13 => {
            let display_name = Some(number.to_string());
            let request =
                UpdateUserRequest { user_id, display_name, ..UpdateUserRequest::default() };
            client.users().update_user(request).await.map(drop)
        }
        14 if number.is_multiple_of(5) => {
            let request = DeleteUserRequest { user_id, etag: String::new() };
            client.users().delete_user(request).await.map(drop)
        }
        14 => {
            let request = DeleteRoleRequest { role_id, etag: String::new() };
            client.roles().delete_role(request).await.map(drop)
        }
        _ => {
            let request = CreateRoleRequest {
                name: format!("new-{}", number / 16 % 3),
                level: RoleLevel::Member.into(),
                ..CreateRoleRequest::default()
            };
            client.roles().create_role(request).await.map(drop)
        }
    }
}

/// I07: concurrent changes do not deadlock.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_of_the_same_objects_cause_no_server_error() {
    let app = TestApp::spawn().await;
    let replica = TestApp::on_database(&app.database, |_| {}).await;
    let acme = app.create_tenant("acme").await;
    let mut targets = Targets { users: Vec::new(), roles: Vec::new() };
    for n in 0..3 {
        let email = format!("u{n}@acme.test");
        targets.users.push((acme.create_user(&email).await, email));
        let role = acme.create_role(&format!("r{n}"), RoleLevel::Member, &["doc:read"]).await;
        targets.roles.push(role);
    }

    let workers = (0..8).map(|worker: usize| {
        let client =
            if worker.is_multiple_of(2) { acme.clone() } else { acme.on_server(&replica.channel) };
        let targets = targets.clone();
        tokio::spawn(async move {
            let mut number = worker + 1;
            for _ in 0..rounds(60) {
                // The next pseudo-random number.
                number = (number * 75 + 74) % 65_537;
                let Err(status) = change(&client, &targets, number).await else { continue };
                let server_errors =
                    [Code::Internal, Code::Aborted, Code::Unavailable, Code::Unknown];
                assert!(!server_errors.contains(&status.code()), "{number}: {status:?}");
            }
        })
    });
    for worker in futures::future::join_all(workers).await {
        worker.expect("no change causes a server error");
    }
    let orphans = "select count(*) from role_assignments a
        left join roles r using (tenant_id, role_id) left join users u using (tenant_id, user_id)
        where tenant_id = $1 and (r.role_id is null or u.user_id is null)";
    assert_eq!(app.count(orphans, &acme.tenant_id).await, 0);
    assert!(acme.may("doc:read").await);
}
