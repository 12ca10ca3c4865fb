//! Limits on wrong passwords: the guesser must wait, and the owner of the account need not wait.
//! The Redis keys of an account contain `:here:` (failures from one network), `:everywhere`
//! (failures from all networks) or `:underway:` (guesses in flight from one network).

use std::time::Duration;

use futures::future::join_all;
use tenantry::proto::v1::{ChangePasswordRequest, GetJwksRequest, WhoAmIRequest};
use tonic::Code;

use super::{
    assert_rate_limited, assert_wrong_password, client_from, guess, login_request,
    new_network_address, trusting_local_proxy,
};
use crate::harness::{
    Client, Fault, PASSWORD, Proxy, TestApp, assert_refused, redis, unique_text, wait_until,
};

/// Number of failures of one network before its sign-ins must wait.
const FREE_FAILURES: usize = 10;

/// Starts a server, and creates the tenant acme.
async fn spawn_with_acme() -> (TestApp, Client) {
    let app = TestApp::with_production_hash_cost(|values| {
        trusting_local_proxy(values);
        // All calls are in one tenant, which may use only a part of each of these limits.
        values.set("HASHING_QUEUE", "2000");
        values.set("MAX_REQUESTS", "8000");
    })
    .await;
    let acme = app.create_tenant("acme").await;
    (app, acme)
}

/// Ends the waits of all accounts of a tenant.
async fn end_waits(acme: &Client) {
    let key_list = redis(&format!("KEYS guess:{{{}}}*", acme.tenant_id)).await;
    for key in
        key_list.lines().filter(|line| line.contains(":here:") || line.contains(":everywhere"))
    {
        redis(&format!("HSET {} until 0", key.trim())).await;
    }
}

/// B10: the wait doubles with each further failure, up to an hour.
#[tokio::test]
async fn after_ten_failures_only_the_network_of_the_failures_waits() {
    let (app, acme) = spawn_with_acme().await;
    let (attacker, owner) =
        (client_from(&app, &new_network_address()), client_from(&app, &new_network_address()));
    let correct_sign_in = || login_request(&acme.email, "acme", PASSWORD);
    for _ in 0..FREE_FAILURES {
        assert_wrong_password(guess(&attacker, &acme.email, "acme").await);
    }
    let first_delay = assert_rate_limited(guess(&attacker, &acme.email, "acme").await);
    assert!(
        first_delay > Duration::from_secs(25) && first_delay <= Duration::from_secs(30),
        "the first wait is 30 s, not {first_delay:?}"
    );
    assert_rate_limited(
        attacker.auth().login(correct_sign_in()).await.expect_err("the client must wait"),
    );
    owner.auth().login(correct_sign_in()).await.expect("signs in");
    // The owner's success does not end the attacker's wait.
    assert_rate_limited(guess(&attacker, &acme.email, "acme").await);

    // Each further failure doubles the wait, up to an hour.
    for expected_delay in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
        end_waits(&acme).await;
        assert_wrong_password(guess(&attacker, &acme.email, "acme").await);
        let retry_delay =
            assert_rate_limited(guess(&attacker, &acme.email, "acme").await).as_secs();
        assert!(
            retry_delay > expected_delay - 5 && retry_delay <= expected_delay,
            "waits {retry_delay} s instead of {expected_delay} s"
        );
    }
}

#[tokio::test]
async fn a_success_resets_the_failures() {
    let (app, acme) = spawn_with_acme().await;
    let client = client_from(&app, &new_network_address());
    for _ in 0..3 {
        for _ in 1..FREE_FAILURES {
            assert_wrong_password(guess(&client, &acme.email, "acme").await);
        }
        let correct_sign_in = login_request(&acme.email, "acme", PASSWORD);
        client.auth().login(correct_sign_in).await.expect("signs in");
    }
}

/// B07: the limit does not reveal whether an account exists.
#[tokio::test]
async fn unknown_accounts_are_limited_like_existing_accounts() {
    let (app, _) = spawn_with_acme().await;
    for slug in ["acme", "nowhere"] {
        let client = client_from(&app, &new_network_address());
        let [first_email, second_email] = [(); 2].map(|()| format!("{}@acme.test", unique_text()));
        for _ in 0..FREE_FAILURES {
            assert_wrong_password(guess(&client, &first_email, slug).await);
        }
        assert_rate_limited(guess(&client, &first_email, slug).await);
        // Another unknown account has its own counter, so the caller cannot see that neither
        // account exists.
        assert_wrong_password(guess(&client, &second_email, slug).await);
    }
}

/// B12: concurrency does not increase the number of compared passwords.
#[tokio::test]
async fn concurrent_guesses_are_limited_like_sequential_guesses() {
    let (app, acme) = spawn_with_acme().await;
    let attacker = client_from(&app, &new_network_address());
    let guesses = (0..500).map(|number| {
        let (attacker, email) = (&attacker, &acme.email);
        async move {
            let password = if number == 400 { PASSWORD } else { "not this one" };
            attacker.auth().login(login_request(email, "acme", password)).await
        }
    });
    let mut compared = 0;
    for reply in join_all(guesses).await {
        let status = reply.expect_err("the correct password was compared");
        match status.code() {
            Code::Unauthenticated => compared += 1,
            _ => _ = assert_rate_limited(status),
        }
    }
    // At most 10 failures without a wait, and 50 guesses that are in flight at the same time.
    assert!((FREE_FAILURES..=60).contains(&compared), "{compared} passwords were compared");
    let correct_sign_in = login_request(&acme.email, "acme", PASSWORD);
    assert_rate_limited(
        attacker.auth().login(correct_sign_in).await.expect_err("the client must wait"),
    );
}

/// B10: a network with an earlier success has its own limit.
#[tokio::test]
async fn failures_from_many_networks_do_not_block_the_owners_known_network() {
    let (app, acme) = spawn_with_acme().await;
    let known_network = client_from(&app, &new_network_address());
    let correct_sign_in = || login_request(&acme.email, "acme", PASSWORD);
    known_network.auth().login(correct_sign_in()).await.expect("signs in");
    // 100 failures, the limit of the account for all networks.
    for _ in 0..10 {
        let attacker = client_from(&app, &new_network_address());
        for _ in 0..FREE_FAILURES {
            assert_wrong_password(guess(&attacker, &acme.email, "acme").await);
        }
    }
    assert_rate_limited(
        guess(&client_from(&app, &new_network_address()), &acme.email, "acme").await,
    );
    assert_rate_limited(
        client_from(&app, &new_network_address())
            .auth()
            .login(correct_sign_in())
            .await
            .expect_err("the sign-in from an unknown network is refused"),
    );
    assert_wrong_password(guess(&known_network, &acme.email, "acme").await);
    known_network.auth().login(correct_sign_in()).await.expect("signs in from the known network");
    // This success resets the account's counter, so no other network must wait.
    client_from(&app, &new_network_address())
        .auth()
        .login(correct_sign_in())
        .await
        .expect("signs in from another network");
}

/// A wrong current password in `ChangePassword` is counted as a guess.
#[tokio::test]
async fn the_holder_of_a_session_cannot_guess_the_users_password() {
    let (app, acme) = spawn_with_acme().await;
    let session_holder = acme.with_metadata("x-forwarded-for", &new_network_address());
    let change = || async {
        let request = tenantry::proto::v1::ChangePasswordRequest {
            current_password: "not this one".into(),
            new_password: "another one altogether".into(),
        };
        session_holder.auth().change_password(request).await
    };
    for _ in 0..FREE_FAILURES {
        assert_refused(change().await, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
    assert_rate_limited(change().await.expect_err("the client must wait"));
    let other_network = client_from(&app, &new_network_address());
    other_network
        .auth()
        .login(login_request(&acme.email, "acme", PASSWORD))
        .await
        .expect("signs in");
}

/// Redis keys of a tenant's guesses.
async fn guess_keys(acme: &Client) -> Vec<String> {
    let key_list = redis(&format!("KEYS guess:{{{}}}*", acme.tenant_id)).await;
    key_list
        .lines()
        .filter(|line| line.starts_with("guess:"))
        .map(|key| key.trim().into())
        .collect()
}

/// N26: a stored wait far in the future, from a wrong Redis clock, is shortened to an hour.
#[tokio::test]
async fn a_wrong_clock_makes_no_wait_longer_than_an_hour() {
    let (app, acme) = spawn_with_acme().await;
    let client = client_from(&app, &new_network_address());
    assert_wrong_password(guess(&client, &acme.email, "acme").await);
    let keys = guess_keys(&acme).await;
    let network_key = keys.iter().find(|key| key.contains(":here:")).expect("a key");
    let pending_key = network_key.replace(":here:", ":underway:");
    for end_of_wait in ["9999999999999", "inf", "1e300"] {
        redis(&format!("HSET {network_key} until {end_of_wait}")).await;
        let retry_delay = assert_rate_limited(guess(&client, &acme.email, "acme").await);
        assert!(retry_delay <= Duration::from_hours(1), "{end_of_wait}: {retry_delay:?}");
        let expiry = redis(&format!("PTTL {network_key}")).await;
        // The reply of Redis is a colon and the number.
        let expiry: i64 =
            expiry.lines().next().and_then(|line| line[1..].parse().ok()).expect("a number");
        assert!(
            (0..=3_600_000).contains(&expiry),
            "the expiry of the key is at most an hour: {expiry}"
        );
        let stored_value = redis(&format!("HGET {network_key} until")).await;
        assert!(!stored_value.contains(end_of_wait), "the wait is shortened: {stored_value}");
    }
    for end_of_wait in ["nan", "-inf", "-1", "x"] {
        redis(&format!("HSET {network_key} until {end_of_wait}")).await;
        assert_wrong_password(guess(&client, &acme.email, "acme").await);
    }
    for command in [
        format!("SET {pending_key} 1000000 PX 315360000000"),
        format!("SET {pending_key} 1000000"),
        format!("SET {pending_key} nan"),
    ] {
        redis(&command).await;
        assert_wrong_password(guess(&client, &acme.email, "acme").await);
    }
}

/// N23: keys with a value of another Redis type are removed, and counting continues.
#[tokio::test]
async fn keys_of_a_wrong_type_do_not_stop_the_counting_of_guesses() {
    let (app, acme) = spawn_with_acme().await;
    let client = client_from(&app, &new_network_address());
    assert_wrong_password(guess(&client, &acme.email, "acme").await);
    let keys = guess_keys(&acme).await;
    assert!(keys.len() > 1, "{keys:?}");
    for key in keys {
        redis(&format!("DEL {key}")).await;
        redis(&format!("LPUSH {key} x")).await;
        assert_wrong_password(guess(&client, &acme.email, "acme").await);
        let correct_sign_in = login_request(&acme.email, "acme", PASSWORD);
        client.auth().login(correct_sign_in).await.expect("signs in");
    }
}

/// Sum of the failures of a tenant's accounts, over all networks.
async fn failure_count(acme: &Client) -> usize {
    let key_list = redis(&format!("KEYS guess:{{{}}}*:here:*", acme.tenant_id)).await;
    let mut sum = 0;
    for key in key_list.lines().filter(|line| line.contains(":here:")) {
        let reply = redis(&format!("HGET {} failures", key.trim())).await;
        let counts = reply.lines().filter_map(|line| line.trim().parse::<usize>().ok());
        sum += counts.sum::<usize>();
    }
    sum
}

/// N18: the server compares, counts and records a cancelled guess like a wrong password, even when
/// the password is correct.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_guesses_are_counted_and_recorded() {
    let direct_app = TestApp::spawn().await;
    let acme = direct_app.create_tenant("acme").await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&direct_app.database);
    let app = TestApp::on_database(&direct_app.database, |values| {
        trusting_local_proxy(values);
        values.set("DATABASE_URL", url);
    })
    .await;
    let network = new_network_address();
    let attacker = client_from(&app, &network);
    let session_holder = acme.on_server(&app.channel).with_metadata("x-forwarded-for", &network);
    session_holder.auth().who_am_i(WhoAmIRequest {}).await.expect("the session is valid");
    // Wait until this replica reaches Redis. Without Redis, the replica counts only in memory.
    let calls_counted_locally = async || app.metric("tenantry_rate_counted_alone_total").await;
    wait_until(10, || async {
        let count_before = calls_counted_locally().await;
        assert_wrong_password(
            guess(&client_from(&app, &new_network_address()), "nobody@nowhere.test", "nowhere")
                .await,
        );
        calls_counted_locally().await == count_before
    })
    .await;
    for cancelled_guesses in 1..=FREE_FAILURES {
        let (mut login_client, mut change_client) = (attacker.auth(), session_holder.auth());
        let change = ChangePasswordRequest {
            current_password: "not this one".into(),
            new_password: "another one altogether".into(),
        };
        // The first guess is a change of the password. All others are sign-ins.
        let is_change = cancelled_guesses == 1;
        // The last guess has the correct password. The client gets no response, so the guess is
        // also counted as a failure.
        let password = if cancelled_guesses == FREE_FAILURES { PASSWORD } else { "not this one" };
        // A sign-in sends the slug to Postgres.
        proxy.fault_when_sent(if is_change { "from credentials" } else { "acme" }, Fault::Hold);
        tokio::select! {
            _ = change_client.change_password(change), if is_change => {
                panic!("the change was not held")
            }
            _ = login_client.login(login_request(&acme.email, "acme", password)), if !is_change => {
                panic!("the sign-in was not held")
            }
            () = proxy.wait_until_held() => {}
        }
        // When the server has responded to these calls, it has also received the cancellation.
        for _ in 0..2 {
            attacker.auth().get_jwks(GetJwksRequest {}).await.expect("keys");
        }
        proxy.pass();
        wait_until(10, || async { failure_count(&acme).await == cancelled_guesses }).await;
    }
    assert_rate_limited(guess(&attacker, &acme.email, "acme").await);
    assert_eq!(direct_app.audit_event_count(&acme.tenant_id, "password_change_failed").await, 1);
    assert_eq!(
        direct_app.audit_event_count(&acme.tenant_id, "sign_in_failed").await,
        9,
        "all guesses but the first"
    );
}

/// B07: an unknown tenant has its own counter, like an existing tenant.
#[tokio::test]
async fn unknown_tenants_are_counted_separately() {
    let app = TestApp::with_settings(|values| {
        trusting_local_proxy(values);
        values.set("RATE_LIMIT_SIGN_IN", "off,5/1h");
    })
    .await;
    let [first_tenant, second_tenant] =
        [(); 2].map(|()| format!("nowhere-{}", &unique_text()[24..]));
    let guess_at = async |slug: &str| {
        guess(&client_from(&app, &new_network_address()), "who@x.test", slug).await
    };
    for _ in 0..5 {
        assert_wrong_password(guess_at(&first_tenant).await);
    }
    assert_rate_limited(guess_at(&first_tenant).await);
    assert_wrong_password(guess_at(&second_tenant).await);
}

/// N23: an invalid stored value restarts the counter, and every guess is counted.
#[tokio::test]
async fn guesses_are_counted_after_invalid_values_in_redis() {
    let (app, acme) = spawn_with_acme().await;
    let long_number = "9".repeat(1000);
    for (field, value) in [
        ("failures", "x"),
        ("failures", "9223372036854775807"),
        ("failures", "-1000000"),
        ("failures", &long_number),
        ("underway", "0.5"),
        ("underway", &long_number),
    ] {
        let (client, email) =
            (client_from(&app, &new_network_address()), format!("{}@acme.test", unique_text()));
        let keys_before = guess_keys(&acme).await;
        assert_wrong_password(guess(&client, &email, "acme").await);
        let mut new_keys = guess_keys(&acme).await;
        new_keys.retain(|key| !keys_before.contains(key));
        let find = |part: &str| new_keys.iter().find(|key| key.contains(part)).expect("a key");
        let (network_key, account_key) = (find(":here:"), find(":everywhere"));
        redis(&format!("DEL {account_key}")).await;
        if field == "underway" {
            let key = network_key.replace(":here:", ":underway:");
            redis(&format!("DEL {network_key}")).await;
            redis(&format!("SET {key} {value} PX 20000")).await;
        } else {
            redis(&format!("HSET {network_key} {field} {value}")).await;
        }
        for _ in 0..FREE_FAILURES {
            assert_wrong_password(guess(&client, &email, "acme").await);
        }
        assert_rate_limited(guess(&client, &email, "acme").await);
        for key in [network_key, account_key] {
            let failures = redis(&format!("HGET {key} failures")).await;
            assert_eq!(failures.lines().nth(1), Some("10"), "{field} {value:.20}");
        }
    }
}
