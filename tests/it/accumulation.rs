//! J09: creating and deleting objects leaks neither memory nor file descriptors.

use std::fs;

use tenantry::proto::v1::{
    CheckRequest, DeleteUserRequest, LogoutRequest, RegisterRequest, WhoAmIRequest,
};

use crate::harness::{Client, PASSWORD, ServerProcess};

/// Small caches, so that evictions start in the first round.
const SETTINGS: &[(&str, &str)] =
    &[("MEMORY_SUBJECT_BYTES", "20000"), ("MEMORY_TOKENS", "50"), ("TENANT_REGISTRATION", "open")];

const ROUNDS: u64 = 30;
const SIGN_INS_PER_ROUND: u64 = 3;
const USERS_PER_SIGN_IN: u64 = 20;

/// Registers a tenant. Its administrator signs in several times. With each sign-in the
/// administrator creates, checks and deletes users, and signs out.
async fn create_and_delete_objects(anonymous: &Client, name: &str) {
    let slug = format!("t-{name}");
    let email = format!("admin@{slug}.test");
    let request = RegisterRequest {
        email: email.clone(),
        password: PASSWORD.into(),
        organization_name: format!("The {slug} company"),
        organization_slug: slug.clone(),
        ..RegisterRequest::default()
    };
    anonymous.auth().register(request).await.expect("registered");
    for _ in 0..SIGN_INS_PER_ROUND {
        let admin = anonymous.login(&slug, &email, PASSWORD).await;
        for n in 0..USERS_PER_SIGN_IN {
            let user = admin.create_user_without_password(&format!("u{n}@{slug}.test")).await;
            let request = CheckRequest {
                user_id: user.clone(),
                permission: format!("doc-{n}:read"),
                ..CheckRequest::default()
            };
            admin.decide(request).await;
            let request = DeleteUserRequest { user_id: user, ..DeleteUserRequest::default() };
            admin.users().delete_user(request).await.expect("deleted");
        }
        admin.auth().logout(LogoutRequest::default()).await.expect("signed out");
        admin.auth().who_am_i(WhoAmIRequest {}).await.expect_err("the session has ended");
    }
}

fn open_files(server: &ServerProcess) -> usize {
    let pid = server.process.id().expect("the server runs");
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the server runs").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_and_deleting_objects_leaks_no_memory_and_no_files() {
    let server = ServerProcess::start(SETTINGS).await;
    let anonymous = Client::anonymous(server.channel.clone());
    // Warm-up: the caches and buffers reach their full size.
    for n in 0..10 {
        create_and_delete_objects(&anonymous, &format!("warm-{n}")).await;
    }
    let (memory_before, files_before) = (server.proc_status_number("VmRSS"), open_files(&server));
    for n in 0..ROUNDS {
        create_and_delete_objects(&anonymous, &format!("round-{n}")).await;
    }
    // The memory (in KiB) grows by less than 1 KiB for each created user.
    let growth = server.proc_status_number("VmRSS").saturating_sub(memory_before);
    assert!(growth < ROUNDS * SIGN_INS_PER_ROUND * USERS_PER_SIGN_IN, "{growth} KiB");
    // A few files may be open for a short time, such as a new connection.
    assert!(
        open_files(&server) <= files_before + 2,
        "{} after {files_before}",
        open_files(&server)
    );
    server.stop().await;
}
