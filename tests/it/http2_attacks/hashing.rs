//! More concurrent sign-ins than hashing threads.

use std::sync::{
    LazyLock,
    atomic::{AtomicBool, Ordering},
};

use futures::{StreamExt, future::join_all, stream};
use tenantry::proto::v1::{
    CreateUserRequest, LoginRequest, RegisterRequest, create_user_request::Credential,
};
use tonic::{Code, Status};

use super::ALLOWED_GROWTH_KIB;
use crate::{
    harness::{Client, PASSWORD, ServerProcess, reason, wait_until},
    limits::new_network_address,
};

/// Memory of one hash with the default settings of the server, in KiB.
const HASH_MEMORY_KIB: u64 = 19_456;

/// Signs in to an account that does not exist. Each number is another account, so that no limit per
/// account applies.
async fn refused_sign_in(acme: &Client, number: usize) -> Status {
    let request = LoginRequest {
        email: format!("user-{number}@acme.test"),
        password: PASSWORD.into(),
        organization_slug: "acme".into(),
        ..LoginRequest::default()
    };
    acme.auth().login(request).await.expect_err("the account does not exist")
}

/// G06: the number of hashing threads limits the memory, and the queue limits the number of
/// waiting sign-ins. Meanwhile other calls succeed.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_sign_ins_is_refused_and_memory_stays_bounded() {
    let server = ServerProcess::start(&[("HASHING_THREADS", "2"), ("HASHING_QUEUE", "16")]).await;
    let acme = Client::anonymous(server.channel.clone()).sign_up_tenant("acme").await;
    let memory_before = server.proc_status_number("VmRSS");
    let flood = join_all((0..1000).map(|n| refused_sign_in(&acme, n)));
    let (refusals, allowed) = tokio::join!(flood, async {
        let mut allowed = 0;
        for _ in 0..100 {
            allowed += usize::from(acme.may("doc:read").await);
        }
        allowed
    });
    assert_eq!(allowed, 100);
    let queue_full =
        refusals.iter().filter(|status| status.code() == Code::ResourceExhausted).count();
    assert!(queue_full > 500, "{queue_full}");
    for status in refusals {
        let reason = reason(&status);
        assert!(
            ["HASHING_QUEUE_FULL", "INVALID_CREDENTIALS"].contains(&reason.as_str()),
            "{reason}"
        );
    }
    // The limit allows twice the memory of the two hashing threads.
    assert!(
        server.proc_status_number("VmHWM")
            < memory_before + 4 * HASH_MEMORY_KIB + ALLOWED_GROWTH_KIB
    );
}

/// N41: the passwords that are hashed at the same time use no more than `HASHING_MEMORY_BYTES`,
/// however many threads there are, and the memory is given back afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_use_bounded_memory_which_is_given_back() {
    // Memory for three hashes.
    let memory = (3 * HASH_MEMORY_KIB * 1024).to_string();
    let settings = [
        ("HASHING_THREADS", "32"),
        ("HASHING_MEMORY_BYTES", memory.as_str()),
        // One tenant from one network gets two fifths of the slots.
        ("HASHING_QUEUE", "400"),
    ];
    let server = ServerProcess::start(&settings).await;
    let message = "HASHING_THREADS is too high: HASHING_MEMORY_BYTES allows fewer hashes at a time";
    assert_eq!(server.log_events(message).len(), 1);
    assert_eq!(server.log_events("password hashing")[0]["threads"], 32);
    let acme = Client::anonymous(server.channel.clone()).sign_up_tenant("acme").await;
    let memory_before = server.proc_status_number("VmRSS");
    for status in join_all((0..80).map(|n| refused_sign_in(&acme, n))).await {
        assert_eq!(reason(&status), "INVALID_CREDENTIALS");
    }
    let growth = server.proc_status_number("VmHWM").saturating_sub(memory_before);
    assert!(growth < 4 * HASH_MEMORY_KIB, "{growth} KiB");
    // `memory_before` includes one hash: that of the administrator's password.
    wait_until(30, || async {
        server.proc_status_number("VmRSS") < memory_before - HASH_MEMORY_KIB / 2
    })
    .await;
    server.stop().await;
}

/// Number of compared and of refused passwords in a flood of sign-ins.
#[derive(Default, Debug)]
struct FloodResult {
    compared: usize,
    refused: usize,
}

/// N12: one tenant's users have the most expensive hashes that may be imported, and a client
/// guesses passwords of all of them. Each sign-in in another tenant must succeed.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_sign_ins_in_one_tenant_does_not_refuse_sign_ins_in_another() {
    // A long timeout keeps the calls of the flood waiting, because the test is about their effect
    // on other tenants.
    let settings = [("HASHING_THREADS", "2"), ("HASHING_QUEUE", "16"), ("REQUEST_TIMEOUT", "120s")];
    let server = ServerProcess::start(&settings).await;
    let anonymous = || Client::anonymous(server.channel.clone());
    let (acme, globex_slug) = (anonymous().sign_up_tenant("acme").await, "globex");
    anonymous().sign_up_tenant(globex_slug).await;
    let emails: Vec<_> = (0..40).map(|number| format!("user-{number}@acme.test")).collect();
    for email in &emails {
        create_user_with_costly_hash(&acme, email).await;
    }

    let is_finished = AtomicBool::new(false);
    let guess_until_finished = async |email: &String| {
        let mut result = FloodResult::default();
        while !is_finished.load(Ordering::Relaxed) {
            let request = LoginRequest {
                email: email.clone(),
                password: "not this one".into(),
                organization_slug: "acme".into(),
                ..LoginRequest::default()
            };
            let status =
                anonymous().auth().login(request).await.expect_err("the password is wrong");
            match reason(&status).as_str() {
                "INVALID_CREDENTIALS" => result.compared += 1,
                // The guessers whose passwords are in the queue continue the flood.
                "HASHING_QUEUE_FULL" => {
                    result.refused += 1;
                    break;
                }
                "RATE_LIMITED" => break,
                other => panic!("{other}"),
            }
        }
        result
    };
    let sign_ins = async {
        for _ in 0..12 {
            anonymous().login(globex_slug, "admin@globex.test", PASSWORD).await;
        }
        is_finished.store(true, Ordering::Relaxed);
    };
    let (flood_results, ()) =
        tokio::join!(join_all(emails.iter().map(guess_until_finished)), sign_ins);
    let refused: usize = flood_results.iter().map(|result| result.refused).sum();
    let compared: usize = flood_results.iter().map(|result| result.compared).sum();
    assert!(refused > 0 && compared > 0, "no flood: {refused} refused, {compared} compared");
}

/// Creates a user with the most expensive hash that may be imported.
async fn create_user_with_costly_hash(tenant: &Client, email: &str) {
    // All users have the same hash, which takes as long to make as to check.
    static HASH: LazyLock<String> = LazyLock::new(|| {
        bcrypt::hash_with_salt(PASSWORD, 12, [7; 16]).expect("bcrypt").to_string()
    });
    let hash = HASH.clone();
    let request = CreateUserRequest {
        email: email.into(),
        credential: Some(Credential::PasswordHash(hash)),
        ..CreateUserRequest::default()
    };
    tenant.users().create_user(request).await.expect("the user is created");
}

/// Guesses passwords of these accounts until `is_finished` is set, each account from one of the
/// networks. Returns the number of compared and of refused passwords.
async fn flood(
    server: &ServerProcess,
    is_finished: &AtomicBool,
    networks: &[String],
    accounts: &[(String, String)],
) -> FloodResult {
    let guess_until_finished = async |(number, (slug, email)): (usize, &(String, String))| {
        let network = &networks[number % networks.len()];
        let client =
            Client::anonymous(server.channel.clone()).with_metadata("x-forwarded-for", network);
        let mut result = FloodResult::default();
        while !is_finished.load(Ordering::Relaxed) {
            let request = LoginRequest {
                email: email.clone(),
                password: "not this one".into(),
                organization_slug: slug.clone(),
                ..LoginRequest::default()
            };
            let status = client.auth().login(request).await.expect_err("the password is wrong");
            match reason(&status).as_str() {
                "INVALID_CREDENTIALS" => result.compared += 1,
                "HASHING_QUEUE_FULL" => result.refused += 1,
                "RATE_LIMITED" => break,
                other => panic!("{other}"),
            }
        }
        result
    };
    let results = join_all(accounts.iter().enumerate().map(guess_until_finished)).await;
    let sum = |field: fn(&FloodResult) -> usize| results.iter().map(field).sum();
    FloodResult { compared: sum(|result| result.compared), refused: sum(|result| result.refused) }
}

/// N12: a flood over more tenants than the queue has slots is limited by its network.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_one_network_in_many_tenants_does_not_refuse_other_networks() {
    let settings = [
        ("HASHING_THREADS", "2"),
        ("HASHING_QUEUE", "16"),
        ("REQUEST_TIMEOUT", "120s"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let server = ServerProcess::start(&settings).await;
    let anonymous = || Client::anonymous(server.channel.clone());
    let tenants = stream::iter(0..30).map(|number| async move {
        let tenant = anonymous().sign_up_tenant(&format!("evil-{number}")).await;
        let email = format!("user@evil-{number}.test");
        create_user_with_costly_hash(&tenant, &email).await;
        (tenant.slug, email)
    });
    let accounts: Vec<_> = tenants.buffered(2).collect().await;
    anonymous().sign_up_tenant("globex").await;

    let is_finished = AtomicBool::new(false);
    let networks = [new_network_address()];
    let sign_ins = async {
        for _ in 0..12 {
            anonymous().login("globex", "admin@globex.test", PASSWORD).await;
        }
        is_finished.store(true, Ordering::Relaxed);
    };
    let (flood_result, ()) =
        tokio::join!(flood(&server, &is_finished, &networks, &accounts), sign_ins);
    assert!(flood_result.refused > 0 && flood_result.compared > 0, "no flood: {flood_result:?}");
}

/// N12: sign-ins to unknown tenants do not use the hashing shares of other calls. Meanwhile,
/// sign-ins without a tenant and registrations succeed.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_sign_ins_to_unknown_tenants_does_not_refuse_other_calls() {
    let settings = [
        ("HASHING_THREADS", "2"),
        ("HASHING_QUEUE", "40"),
        ("REQUEST_TIMEOUT", "120s"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
        ("TENANTLESS_SIGN_IN", "any"),
    ];
    let server = ServerProcess::start(&settings).await;
    let anonymous = || Client::anonymous(server.channel.clone());
    let acme = anonymous().sign_up_tenant("acme").await;
    let is_finished = AtomicBool::new(false);
    let networks = [(); 4].map(|()| new_network_address());
    let account = |number| (format!("nowhere-{number}"), "who@x.test".to_owned());
    let accounts: Vec<_> = (0..80).map(account).collect();
    let sign_ins = async {
        for number in 0..6 {
            let request = LoginRequest {
                email: acme.email.clone(),
                password: PASSWORD.into(),
                ..LoginRequest::default()
            };
            anonymous().auth().login(request).await.expect("signs in without a tenant");
            let request = RegisterRequest {
                email: "boss@new.test".into(),
                password: PASSWORD.into(),
                organization_name: format!("New {number}"),
                ..RegisterRequest::default()
            };
            anonymous().auth().register(request).await.expect("a tenant is registered");
        }
        is_finished.store(true, Ordering::Relaxed);
    };
    let (flood_result, ()) =
        tokio::join!(flood(&server, &is_finished, &networks, &accounts), sign_ins);
    assert!(flood_result.refused > 0 && flood_result.compared > 0, "no flood: {flood_result:?}");
}
