//! J09: creating and deleting objects leaks neither memory nor file descriptors.

use std::fs;

use tenantry::proto::v1::{
    CheckRequest, DeleteUserRequest, LogoutRequest, RegisterRequest, WhoAmIRequest,
};

use crate::harness::{Client, PASSWORD, Serving};

/// Small caches, so that evictions start in the first round.
const SETTINGS: &[(&str, &str)] =
    &[("MEMORY_SUBJECT_BYTES", "20000"), ("MEMORY_TOKENS", "50"), ("TENANT_REGISTRATION", "open")];

const ROUNDS: u64 = 30;
/// Number of sign-ins in a round.
const SIGN_INS: u64 = 3;
/// Number of users per sign-in.
const USERS: u64 = 20;

/// Registers a tenant. Its administrator signs in, creates, checks and deletes users, and signs
/// out.
async fn churn(anonymous: &Client, name: &str) {
    let slug = format!("t-{name}");
    let email = format!("admin@{slug}.test");
    let request = RegisterRequest {
        email: email.clone(),
        password: PASSWORD.into(),
        organization_name: format!("The {slug} company"),
        organization_slug: slug.clone(),
        ..RegisterRequest::default()
    };
    anonymous.auth().register(request).await.expect("signs up");
    for _ in 0..SIGN_INS {
        let admin = anonymous.login(&slug, &email, PASSWORD).await;
        for n in 0..USERS {
            let user = admin.create_user_without_password(&format!("u{n}@{slug}.test")).await;
            let question = CheckRequest {
                user_id: user.clone(),
                permission: format!("doc-{n}:read"),
                ..CheckRequest::default()
            };
            admin.decide(question).await;
            let request = DeleteUserRequest { user_id: user, ..DeleteUserRequest::default() };
            admin.users().delete_user(request).await.expect("deleted");
        }
        admin.auth().logout(LogoutRequest::default()).await.expect("signs out");
        admin.auth().who_am_i(WhoAmIRequest {}).await.expect_err("signed out");
    }
}

fn open_files(serving: &Serving) -> usize {
    let pid = serving.process.id().expect("it runs");
    fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn churn_of_tenants_users_and_tokens_leaks_no_memory_and_no_files() {
    let serving = Serving::start(SETTINGS).await;
    let anonymous = Client::anonymous(serving.channel.clone());
    // Warm-up: the caches and buffers reach their full size.
    for n in 0..10 {
        churn(&anonymous, &format!("warm-{n}")).await;
    }
    let (memory, files) = (serving.status("VmRSS"), open_files(&serving));
    for n in 0..ROUNDS {
        churn(&anonymous, &format!("cold-{n}")).await;
    }
    // The memory grows by less than 1 KiB for each created user.
    let growth = serving.status("VmRSS").saturating_sub(memory);
    assert!(growth < ROUNDS * SIGN_INS * USERS, "{growth} KiB");
    assert!(open_files(&serving) <= files + 2, "{} after {files}", open_files(&serving));
    serving.stop().await;
}
